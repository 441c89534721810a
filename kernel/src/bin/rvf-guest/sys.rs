//! The few system calls that no library has, each behind a safe function.
#![expect(unsafe_code, reason = "signals, and the ioctls that set up a network interface")]

use rustix::net::{AddressFamily, SocketType, socket};
use rustix::system::{RebootCommand, reboot};
use rvf_kernel::vm::{GUEST_ADDRESS, INTERFACE, NETMASK};
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
