//! System calls that have no safe form in the libraries used here.
#![expect(
    unsafe_code,
    reason = "signals, packet sockets and interface numbers have no safe interface in std"
)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The number of a network interface; `None` when there is none of the name.
pub(super) fn interface(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the pointer is to a string that ends with a zero byte and outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

/// The driver of a network interface, as ethtool says; `None` where it says none.
pub(super) fn driver(name: &str) -> Option<String> {
    const FIELD: usize = 32;
    /// `struct ethtool_drvinfo`: the command, six texts (driver, version, firmware, bus, two reserved), five numbers.
    #[repr(C)]
    struct Info {
        command: u32,
        driver: [u8; FIELD],
        rest: [u8; 160],
    }
    const GET_DRIVER: u32 = 3;
    let mut info = Info { command: GET_DRIVER, driver: [0; FIELD], rest: [0; 160] };
    // SAFETY: a request is plain memory, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    // SAFETY: takes numbers only.
    let fd = check(unsafe { libc::socket(libc::AF_INET, kind, 0) }).ok()?;
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the request and what it points to live here, and `Info` has the layout and the 196 bytes that the kernel writes for this
    // command.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) }).ok()?;
    let text = info.driver.split(|byte| *byte == 0).next()?;
    String::from_utf8(text.to_vec()).ok().filter(|text| !text.is_empty())
}

/// Programs that this process might start gain nothing by it, whatever their mode bits say.
pub(super) fn no_new_privileges() -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).map(|_| ())
}

/// The signals that end a run, blocked, as a descriptor.
#[derive(Debug)]
pub(super) struct Signals(OwnedFd);

/// What there is to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Woken {
    /// A signal came.
    pub(super) signal: bool,
    /// The other descriptor has something.
    pub(super) other: bool,
}

impl Signals {
    /// Blocks SIGINT, SIGTERM and SIGHUP for this thread and those that it starts. Call it before any is started.
    pub(super) fn block() -> io::Result<Self> {
        // SAFETY: a set of signals is plain memory, for which zeros are valid; sigemptyset then initialises it.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set lives here.
        check(unsafe { libc::sigemptyset(&raw mut set) })?;
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: the set was initialised above, the number is that of a signal.
            check(unsafe { libc::sigaddset(&raw mut set, signal) })?;
        }
        // SAFETY: the set is initialised, and the old mask is not asked for.
        let error = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        // SAFETY: -1 asks for a new descriptor; the set is initialised.
        let fd = check(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) })?;
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Waits for a signal or for something to read, but not for longer than that.
    pub(super) fn wait(&self, other: Option<BorrowedFd<'_>>, timeout_ms: i32) -> io::Result<Woken> {
        let entry = |fd: i32| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // A negative descriptor is passed over.
        let mut fds = [entry(self.0.as_raw_fd()), entry(other.map_or(-1, |fd| fd.as_raw_fd()))];
        // SAFETY: the array has as many entries as is said, and lives here.
        let result = check(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) });
        match result {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(Woken { signal: false, other: false }),
            Err(e) => Err(e),
            Ok(_) => Ok(Woken { signal: fds[0].revents != 0, other: fds[1].revents != 0 }),
        }
    }
}

/// A packet socket that gets nothing yet.
#[derive(Debug)]
pub(super) struct PacketSocket(OwnedFd);

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl PacketSocket {
    pub(super) fn new() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: takes numbers only. Protocol 0 gets no packets.
        let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// From here on it gets what comes to this interface and leaves by it.
    pub(super) fn bind(self, interface: u32) -> io::Result<File> {
        // SAFETY: an address is plain memory, for which zeros are valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = i32::try_from(interface).map_err(io::Error::other)?;
        let len = std::mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address lives here and has the length that is said.
        check(unsafe { libc::bind(self.0.as_raw_fd(), (&raw const address).cast(), len) })?;
        Ok(File::from(self.0))
    }
}

/// A line about a packet: protocol, ports, bytes. Only what the filter lets through is seen.
pub(super) fn describe(packet: &[u8]) -> String {
    let byte = |at: usize| packet.get(at).copied().unwrap_or(0);
    let half = |at: usize| u16::from_be_bytes([byte(at), byte(at + 1)]);
    let v6 = half(12) == 0x86DD;
    let (protocol, transport) =
        if v6 { (byte(20), 54) } else { (byte(23), 14 + usize::from(byte(14) & 15) * 4) };
    let name = if protocol == 6 { "tcp" } else { "udp" };
    format!("{name} {} > {}  {} bytes", half(transport), half(transport + 2), packet.len())
}
