//! The few system calls that no library has, each behind a safe function.
#![expect(
    unsafe_code,
    reason = "signals, terminal modes, the clock, and ioctls of the network and of random numbers"
)]

use rustix::net::{AddressFamily, SocketType, socket};
use rustix::system::{RebootCommand, reboot};
use rvf_kernel::vm::{GUEST_ADDRESS, INTERFACE, NETMASK, SEED};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The signals that end the machine; INT is what ctrl-alt-del sends to the first process.
const ENDING: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGPWR];

fn ending_set() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `set` is writable; sigemptyset initialises it.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in ENDING {
        // SAFETY: `set` was initialised above and the signal numbers are valid.
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    }
    // SAFETY: initialised by sigemptyset.
    unsafe { set.assume_init() }
}

/// Keeps the ending signals for [`wait_for_end`]; threads started later inherit this.
pub(super) fn block_ending_signals() {
    let set = ending_set();
    // SAFETY: `set` is an initialised signal set; the old mask is not wanted.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    // Ctrl-alt-del is to be a signal, not a sudden end.
    let _not_here = reboot(RebootCommand::CadOff);
}

/// Waits for one of the blocked signals.
pub(super) fn wait_for_end() {
    let set = ending_set();
    let mut signal = 0;
    // SAFETY: `set` is initialised and `signal` is writable.
    while unsafe { libc::sigwait(&raw const set, &raw mut signal) } != 0 {}
}

/// Keeps the console from writing back what the launcher types.
pub(super) fn echo_off() {
    let mut modes = std::mem::MaybeUninit::<libc::termios>::zeroed();
    // SAFETY: `modes` is writable.
    if unsafe { libc::tcgetattr(libc::STDIN_FILENO, modes.as_mut_ptr()) } != 0 {
        // No terminal, so nothing is written back.
        return;
    }
    // SAFETY: filled by tcgetattr; and all of its bytes were zero before.
    let mut modes = unsafe { modes.assume_init() };
    modes.c_lflag &= !(libc::ECHO | libc::ECHONL);
    // SAFETY: `modes` is an initialised termios.
    unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &raw const modes) };
}

/// Sets the clock.
pub(super) fn set_clock(millis: u64) -> io::Result<()> {
    let seconds = (millis / 1000).try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
    let nanos = 1_000_000 * (millis % 1000) as libc::c_long;
    let time = libc::timespec { tv_sec: seconds, tv_nsec: nanos };
    // SAFETY: `time` is a timespec.
    match unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// linux/random.h, `struct rand_pool_info`, for a seed.
#[repr(C)]
struct Pool {
    bits: libc::c_int,
    bytes: libc::c_int,
    seed: [u8; SEED],
}

/// `_IOW('R', 0x03, int[2])`
const RNDADDENTROPY: u32 = 0x4008_5203;
/// `_IO('R', 0x07)`
const RNDRESEEDCRNG: u32 = 0x5207;

/// Has the kernel make its random numbers from this seed too, and from now on.
pub(super) fn reseed(seed: &[u8; SEED]) -> io::Result<()> {
    let device = std::fs::File::options().write(true).open("/dev/urandom")?;
    let len = SEED as libc::c_int;
    let pool = Pool { bits: 8 * len, bytes: len, seed: *seed };
    // SAFETY: the request reads a `struct rand_pool_info`, which `pool` is: two ints, and as many bytes as the second says.
    if unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY as libc::Ioctl, &raw const pool) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the request takes no argument.
    match unsafe { libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG as libc::Ioctl) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends the machine. A machine without power management cannot be switched off, only restarted, which its launcher
/// takes for the end.
pub(super) fn power_off() {
    rustix::fs::sync();
    let acpi = std::path::Path::new("/sys/firmware/acpi/tables").exists();
    if acpi {
        let _not_here = reboot(RebootCommand::PowerOff);
    }
    let _not_here = reboot(RebootCommand::Restart);
}

fn request() -> libc::ifreq {
    // SAFETY: zeroes are a valid ifreq: a name of no characters and numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(INTERFACE.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

fn ioctl(socket: BorrowedFd<'_>, code: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: `code` is one of those that read an ifreq, or read and write one; `request` is one, and outlives the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), code as libc::Ioctl, std::ptr::from_mut(request)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn inet(address: Ipv4Addr) -> libc::sockaddr {
    let mut bytes = [0_u8; 14];
    // Port 0, then the address; the rest is padding.
    bytes[2..6].copy_from_slice(&address.octets());
    libc::sockaddr {
        sa_family: libc::AF_INET as libc::sa_family_t,
        sa_data: bytes.map(|b| b as libc::c_char),
    }
}

/// Gives the interface its address and brings it up.
pub(super) fn network_up() -> io::Result<()> {
    use std::os::fd::AsFd as _;
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    for (code, address) in [(libc::SIOCSIFADDR, GUEST_ADDRESS), (libc::SIOCSIFNETMASK, NETMASK)] {
        let mut request = request();
        request.ifr_ifru.ifru_addr = inet(address);
        ioctl(socket.as_fd(), code, &mut request)?;
    }
    let mut up = request();
    up.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    ioctl(socket.as_fd(), libc::SIOCSIFFLAGS, &mut up)
}
