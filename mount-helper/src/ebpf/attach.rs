//! Attaching, in ways that end with this process.

use std::fs::File;

use aya::programs::links::FdLink;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, Program, ProgramError, TcAttachType, XdpMode};
use aya::util::KernelVersion;
use rvf_bpf::ProgramType;

use super::load::{Loaded, chain};
use super::sys;
use crate::run::Failure;

/// An attachment. Dropping it detaches.
#[derive(Debug)]
pub(super) enum Attached {
    /// By a link, which is its descriptor.
    Link {
        /// Held for as long as the program is to be attached.
        _link: FdLink,
    },
    /// To a socket of this process.
    Socket(File),
}

impl Attached {
    /// The socket, where there is one to read from.
    pub(super) fn socket(&self) -> Option<&File> {
        match self {
            Self::Link { .. } => None,
            Self::Socket(socket) => Some(socket),
        }
    }
}

/// Attaches a loaded program to an interface.
pub(super) fn attach(
    loaded: &mut Loaded,
    kind: ProgramType,
    name: &str,
    interface: u32,
    generic: bool,
) -> Result<Attached, Failure> {
    let failed = |error: ProgramError| refused(kind, name, &error);
    let no_link = |_| {
        Failure::failed(
            "this kernel attaches programs only in a way that outlives the process, so nothing is attached",
        )
    };
    match loaded.ebpf.program_mut(&loaded.program) {
        Some(Program::Xdp(xdp)) => {
            // Older ones would be asked over netlink, whose attachments stay.
            since(5, 9, "attaching XDP programs by links")?;
            let mode = if generic { XdpMode::Skb } else { XdpMode::default() };
            let id = xdp.attach_to_if_index(interface, mode).map_err(failed)?;
            let link = xdp.take_link(id).map_err(failed)?;
            Ok(Attached::Link { _link: link.try_into().map_err(no_link)? })
        }
        Some(Program::SchedClassifier(classifier)) => {
            since(6, 6, "attaching traffic control programs by links")?;
            let side = match kind {
                ProgramType::TcEgress => TcAttachType::Egress,
                _ => TcAttachType::Ingress,
            };
            let options = TcAttachOptions::TcxOrder(LinkOrder::default());
            let id = classifier.attach_with_options(name, side, options).map_err(failed)?;
            let link = classifier.take_link(id).map_err(failed)?;
            Ok(Attached::Link { _link: link.try_into().map_err(no_link)? })
        }
        Some(Program::SocketFilter(filter)) => {
            let io = |e: std::io::Error| Failure::failed(format!("packet socket on {name}: {e}"));
            // The filter comes before the interface, so that nothing gets past it.
            let socket = sys::PacketSocket::new().map_err(io)?;
            filter.attach(&socket).map_err(failed)?;
            Ok(Attached::Socket(socket.bind(interface).map_err(io)?))
        }
        _ => Err(Failure::failed("the program is of another kind than was loaded")),
    }
}

fn since(major: u8, minor: u8, what: &str) -> Result<(), Failure> {
    if KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(major, minor, 0)) {
        return Ok(());
    }
    Err(Failure::missing(format!("{what} needs Linux {major}.{minor}; nothing is attached")))
}

fn refused(kind: ProgramType, name: &str, error: &ProgramError) -> Failure {
    let code = match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    };
    let text = match (kind, code) {
        (ProgramType::Xdp, Some(libc::EBUSY | libc::EEXIST)) => {
            format!("another XDP program is attached to {name} already; see: ip link show {name}")
        }
        (ProgramType::Xdp, Some(libc::EOPNOTSUPP)) => {
            format!("the driver of {name} runs no XDP programs; try --generic")
        }
        _ => format!("attaching to {name}: {}", chain(error)),
    };
    Failure::failed(text)
}
