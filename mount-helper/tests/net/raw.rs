//! Frames byte by byte, as no honest sender would make them.
#![expect(unsafe_code, reason = "packet sockets have no safe interface in std")]

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

use super::Net;

/// A packet socket: what is written to it leaves by its interface as it is, and what it gives was seen there.
pub(crate) struct Wire(File);

impl Wire {
    fn open(interface: &str) -> io::Result<Self> {
        let every = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: takes numbers only.
        let fd =
            unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(every)) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let name = std::ffi::CString::new(interface)?;
        // SAFETY: an address is plain memory, for which zeros are valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = every;
        // SAFETY: the name ends with a zero byte and lives here.
        address.sll_ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) } as i32;
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address lives here and has the length that is said.
        if unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let patience = Some(Duration::from_secs(5));
        rustix::net::sockopt::set_socket_timeout(&fd, rustix::net::sockopt::Timeout::Recv, patience)?;
        Ok(Self(File::from(fd)))
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        (&self.0).write_all(frame).expect("sent");
    }

    /// The next frame with these bytes in it, whichever way it goes; panics after five seconds without any.
    pub(crate) fn wait_for(&self, part: &[u8]) -> Vec<u8> {
        let mut frame = [0; 4096];
        loop {
            let len = (&self.0).read(&mut frame).expect("a frame");
            if frame[..len].windows(part.len()).any(|bytes| bytes == part) {
                return frame[..len].to_vec();
            }
        }
    }
}

impl Net {
    /// A packet socket of an interface.
    pub(crate) fn wire(&self, space: &str, interface: &str) -> Wire {
        let interface = interface.to_owned();
        self.inside(space, move || Wire::open(&interface).expect("a packet socket"))
    }

    /// The Ethernet address of an interface.
    pub(crate) fn mac(&self, space: &str, interface: &str) -> [u8; 6] {
        let shown = self.ip(space, &["link", "show", "dev", interface]);
        let mut words = shown.split_whitespace().skip_while(|word| !word.starts_with("link/"));
        let text = words.nth(1).expect("an address");
        let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("hex")).collect();
        bytes.try_into().expect("six bytes")
    }
}

/// Both ends of a frame: receiver and sender.
#[derive(Clone, Copy)]
pub(crate) struct Macs(pub(crate) [u8; 6], pub(crate) [u8; 6]);

impl Macs {
    fn frame(self, kind: u16, rest: &[u8]) -> Vec<u8> {
        [&self.0[..], &self.1, &kind.to_be_bytes(), rest].concat()
    }
}

/// The Internet checksum of these bytes.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let pair = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let sum: u32 = bytes.chunks(2).map(pair).sum();
    let folded = (sum & 0xFFFF) + (sum >> 16);
    !((folded & 0xFFFF) + (folded >> 16)) as u16
}

/// UDP without a checksum.
pub(crate) fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let len = payload.len() as u16 + 8;
    let head: Vec<u8> = [from, to, len, 0].iter().flat_map(|half| half.to_be_bytes()).collect();
    [&head, payload].concat()
}

/// UDP over IPv4; `total` is the length that IP tells of, which is the true one where it is not given.
pub(crate) fn v4(macs: Macs, from: Ipv4Addr, to: Ipv4Addr, total: Option<u16>, udp: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x45, 0];
    ip.extend_from_slice(&total.unwrap_or(udp.len() as u16 + 20).to_be_bytes());
    ip.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0]);
    ip.extend_from_slice(&from.octets());
    ip.extend_from_slice(&to.octets());
    let sum = checksum(&ip).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    macs.frame(0x0800, &[&ip, udp].concat())
}

/// IPv6 with these headers between it and UDP, each with its own number and its bytes after the number of the next. The length that
/// IP tells of is the true one where it is not given.
pub(crate) fn v6(
    macs: Macs,
    from: Ipv6Addr,
    to: Ipv6Addr,
    len: Option<u16>,
    between: &[(u8, Vec<u8>)],
    udp: &[u8],
) -> Vec<u8> {
    let pseudo =
        [&from.octets()[..], &to.octets(), &(udp.len() as u32).to_be_bytes(), &[0, 0, 0, 17], udp].concat();
    let mut udp = udp.to_vec();
    let sum = checksum(&pseudo).to_be_bytes();
    udp[6..8].copy_from_slice(&sum);
    let mut rest = Vec::new();
    let next = |at: usize| between.get(at).map_or(17, |(number, _)| *number);
    for (at, (_, bytes)) in between.iter().enumerate() {
        rest.push(next(at + 1));
        rest.extend_from_slice(bytes);
    }
    rest.extend_from_slice(&udp);
    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend_from_slice(&len.unwrap_or(rest.len() as u16).to_be_bytes());
    ip.extend_from_slice(&[next(0), 64]);
    ip.extend_from_slice(&from.octets());
    ip.extend_from_slice(&to.octets());
    macs.frame(0x86DD, &[ip, rest].concat())
}
