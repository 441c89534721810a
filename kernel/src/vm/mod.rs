//! A virtual machine around an embedded kernel, as far as it can be planned without running anything: the initramfs, the
//! command line, QEMU's arguments. Who starts it is `rvf-exec`; what runs inside is `rvf-guest`.
//!
//! The machine has a kernel, an initramfs made here, one read-only drive (the store) and a network that leads nowhere but to
//! the one port that is forwarded. The guest says on its console when it answers: that a connection to the forwarded
//! port succeeds says nothing, since it is the emulator that accepts it.

mod cmdline;
mod cpio;
mod initramfs;
mod modules;
mod plan;
mod release;
mod wake;

pub use cmdline::{CmdlineError, command_line};
pub use cpio::Archive;
pub use initramfs::{InitramfsError, initramfs, initramfs_key};
pub use modules::{ModuleError, ModuleFile, NEEDED, needed_modules};
pub use plan::{Accelerator, Descriptors, Firmware, Plan, PlanError};
pub use release::kernel_release;
pub use wake::{AWAKE_MARKER, SEED, Wake};

use std::net::Ipv4Addr;

/// What the guest writes before the port and [`GUEST_VERSION`], when it answers.
pub const READY_MARKER: &str = "rvf-guest: ready ";
/// What the guest writes before the reason, when it cannot serve.
pub const FAILED_MARKER: &str = "rvf-guest: failed: ";
/// Which guest it is: another one may not understand all that it is told.
pub const GUEST_VERSION: &str = env!("CARGO_PKG_VERSION");
/// The drive in the guest.
pub const DRIVE: &str = "/dev/vda";
/// Where the guest's modules are.
pub const MODULES: &str = "/modules";
/// The network interface in the guest.
pub const INTERFACE: &str = "eth0";
/// The guest's address: the first that QEMU's user network gives.
pub const GUEST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// Its network.
pub const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
/// The port the guest serves on, when nobody says otherwise.
pub const GUEST_PORT: u16 = 8080;

/// What the launcher tells the guest, on the kernel's command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestArguments {
    /// Bytes of the store. The drive is rounded up to whole sectors.
    pub len: u64,
    /// Port to serve on.
    pub port: u16,
}

impl GuestArguments {
    /// As they are on the command line.
    pub fn words(&self) -> String {
        format!("rvf.len={} rvf.port={}", self.len, self.port)
    }

    /// Finds them on a command line; of repeated ones the last counts, which is the launcher's.
    ///
    /// # Errors
    /// What is missing or wrong, in a sentence.
    pub fn parse(line: &str) -> Result<Self, String> {
        let last = |name: &str| line.split_whitespace().rev().find_map(|word| word.strip_prefix(name));
        let number = |name: &str| -> Result<u64, String> {
            let text = last(name).ok_or_else(|| format!("{name} is not on the kernel's command line"))?;
            text.parse().map_err(|_| format!("{name} on the kernel's command line is not a number"))
        };
        let len = number("rvf.len=")?;
        let port = u16::try_from(number("rvf.port=")?).ok().filter(|port| *port > 0);
        let port = port.ok_or("rvf.port= on the kernel's command line is not a port")?;
        if len == 0 {
            return Err("rvf.len= on the kernel's command line is 0".into());
        }
        Ok(Self { len, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_survive_a_command_line() {
        let given = GuestArguments { len: 12_345, port: 8081 };
        let line = format!("console=ttyS0 rvf.len=1 quiet {}\n", given.words());
        assert_eq!(GuestArguments::parse(&line), Ok(given));
        for line in
            ["", "rvf.len=5", "rvf.len=x rvf.port=1", "rvf.len=0 rvf.port=1", "rvf.len=1 rvf.port=70000"]
        {
            assert!(GuestArguments::parse(line).is_err(), "{line}");
        }
    }
}
