//! System calls that have no safe form in the libraries used here.
#![expect(
    unsafe_code,
    reason = "signals, packet sockets and interface numbers have no safe interface in std"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The request of ioctl(2) for the number of an interface.
pub(super) const ASK_NUMBER: u32 = libc::SIOCGIFINDEX as u32;

/// A request about an interface; `None` for a name that none can have.
fn request(name: &str) -> Option<libc::ifreq> {
    // SAFETY: a request is plain memory, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.contains('\0') {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Some(request)
}

/// What knows the interfaces of the process's network: a socket, so that it can be asked when none can be made any more.
#[derive(Debug)]
pub(super) struct Interfaces(OwnedFd);

impl Interfaces {
    pub(super) fn open() -> io::Result<Self> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        // SAFETY: takes numbers only.
        let fd = check(unsafe { libc::socket(libc::AF_INET, kind, 0) })?;
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The number of an interface; `None` when there is none of the name.
    pub(super) fn number(&self, name: &str) -> Option<u32> {
        let mut request = request(name)?;
        // SAFETY: the request lives here, and its name ends with a zero byte.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCGIFINDEX as _, &raw mut request) }).ok()?;
        // SAFETY: the kernel has written the number; zeros, which were there before, are one as well.
        u32::try_from(unsafe { request.ifr_ifru.ifru_ifindex }).ok()
    }

    /// The Ethernet address of an interface; `None` where it has none, as tunnels do. That of the loopback is all zeros.
    pub(super) fn mac(&self, name: &str) -> Option<[u8; 6]> {
        let mut request = request(name)?;
        // SAFETY: the request lives here, and its name ends with a zero byte.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCGIFHWADDR as _, &raw mut request) }).ok()?;
        // SAFETY: the kernel has written the address; zeros, which were there before, are one as well.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        if !matches!(address.sa_family, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK) {
            return None;
        }
        let mut mac = [0; 6];
        for (to, from) in mac.iter_mut().zip(address.sa_data) {
            *to = from as u8;
        }
        Some(mac)
    }

    /// The driver of an interface, as ethtool says; `None` where it says none.
    pub(super) fn driver(&self, name: &str) -> Option<String> {
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
        let mut request = request(name)?;
        request.ifr_ifru.ifru_data = (&raw mut info).cast();
        // SAFETY: the request and what it points to live here, and `Info` has the layout and the 196 bytes that the kernel writes for
        // this command.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) }).ok()?;
        let text = info.driver.split(|byte| *byte == 0).next()?;
        String::from_utf8(text.to_vec()).ok().filter(|text| !text.is_empty())
    }
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
    pub(super) fn wait(&self, other: Option<BorrowedFd<'_>>, timeout_ms: u16) -> io::Result<Woken> {
        let entry = |fd: i32| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // A negative descriptor is passed over.
        let mut fds = [entry(self.0.as_raw_fd()), entry(other.map_or(-1, |fd| fd.as_raw_fd()))];
        let timeout = libc::timespec {
            tv_sec: libc::time_t::from(timeout_ms / 1000),
            tv_nsec: libc::c_long::from(timeout_ms % 1000) * 1_000_000,
        };
        let (first, many) = (fds.as_mut_ptr(), fds.len() as libc::nfds_t);
        // SAFETY: the array has as many entries as is said, and lives here as the time does; no mask of signals is given.
        let result = check(unsafe { libc::ppoll(first, many, &raw const timeout, std::ptr::null()) });
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
    let (mut protocol, mut transport) = (byte(23), 14 + usize::from(byte(14) & 15) * 4);
    if half(12) == 0x86DD {
        (protocol, transport) = (byte(20), 54);
        // As the filter walks: past hop-by-hop options, routing, destination options, and the header of a first fragment.
        while transport < packet.len() {
            let len = match protocol {
                0 | 43 | 60 => usize::from(byte(transport + 1)) * 8 + 8,
                44 => 8,
                _ => break,
            };
            (protocol, transport) = (byte(transport), transport + len);
        }
    }
    let name = if protocol == 6 { "tcp" } else { "udp" };
    format!("{name} {} > {}  {} bytes", half(transport), half(transport + 2), packet.len())
}
