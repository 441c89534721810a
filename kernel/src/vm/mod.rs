//! A virtual machine around an embedded kernel, as far as it can be planned without running anything: the initramfs, the
//! command line, QEMU's arguments. Who starts it is `rvf-exec`; what runs inside is `rvf-guest`.
//!
//! The machine has a kernel, an initramfs made here, read-only drives (the store and, for a branch, its ancestors) and a network
//! that leads nowhere but to the one port that is forwarded. The guest says on its console when it answers: that a connection to the forwarded
//! port succeeds says nothing, since it is the emulator that accepts it.

mod cmdline;
mod cpio;
mod initramfs;
mod modules;
mod plan;
mod release;
mod wake;

pub use cmdline::{CmdlineError, check_words, command_line};
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
/// Most drives of a machine: as many virtio devices as QEMU's microVM has places for when it writes ACPI tables, but one, which
/// is the network's.
pub const MAX_DRIVES: usize = 23;
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

/// The serial number of a drive, from 0. The names that a kernel gives to drives follow the order in which it finds them, which
/// differs from bus to bus.
pub fn drive_serial(number: usize) -> String {
    format!("rvf-{number}")
}

/// What the launcher tells the guest, on the kernel's command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestArguments {
    /// Bytes of the store and, for a branch, of each of its ancestors, nearest first; the files are on as many drives. A drive
    /// is rounded up to whole sectors.
    pub lens: Vec<u64>,
    /// Port to serve on.
    pub port: u16,
}

impl GuestArguments {
    /// As they are on the command line.
    pub fn words(&self) -> String {
        let lens: Vec<String> = self.lens.iter().map(u64::to_string).collect();
        format!("rvf.len={} rvf.port={}", lens.join(","), self.port)
    }

    /// Finds them on a command line; of repeated ones the last counts, which is the launcher's.
    ///
    /// # Errors
    /// What is missing or wrong, in a sentence.
    pub fn parse(line: &str) -> Result<Self, String> {
        let last = |name: &str| line.split_whitespace().rev().find_map(|word| word.strip_prefix(name));
        let given = |name: &str| last(name).ok_or(format!("{name} is not on the kernel's command line"));
        let lens: Option<Vec<u64>> =
            given("rvf.len=")?.split(',').map(|len| len.parse().ok().filter(|len| *len > 0)).collect();
        let lens = lens.filter(|lens| lens.len() <= MAX_DRIVES);
        let lens = lens.ok_or("rvf.len= on the kernel's command line does not give the lengths of files")?;
        let port = given("rvf.port=")?.parse().ok().filter(|port| *port > 0);
        let port = port.ok_or("rvf.port= on the kernel's command line is not a port")?;
        Ok(Self { lens, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_survive_a_command_line() {
        for lens in [vec![12_345], vec![640, 12_345, u64::MAX], vec![1; MAX_DRIVES]] {
            let given = GuestArguments { lens, port: 8081 };
            let line = format!("console=ttyS0 rvf.len=1 quiet {}\n", given.words());
            assert_eq!(GuestArguments::parse(&line), Ok(given));
        }
        let many = format!("rvf.len={} rvf.port=1", ["1"; MAX_DRIVES + 1].join(","));
        for line in [
            "",
            "rvf.len=5",
            "rvf.port=5",
            "rvf.len=x rvf.port=1",
            "rvf.len=0 rvf.port=1",
            "rvf.len= rvf.port=1",
            "rvf.len=1, rvf.port=1",
            "rvf.len=1,0 rvf.port=1",
            "rvf.len=1,-1 rvf.port=1",
            "rvf.len=1 rvf.port=70000",
            "rvf.len=1 rvf.port=0",
            &many,
        ] {
            assert!(GuestArguments::parse(line).is_err(), "{line}");
        }
    }
}
