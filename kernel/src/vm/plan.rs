//! QEMU's arguments for one machine.

use super::{CmdlineError, GuestArguments, MAX_DRIVES, command_line, drive_serial};
use crate::Arch;
use std::os::fd::RawFd;

/// Least and most MiB of a machine's memory.
const MEMORY_MB: std::ops::RangeInclusive<u32> = 64..=16_384;
/// Most virtual processors.
const MAX_VCPUS: u32 = 64;
/// Most drives of a microVM without ACPI tables: it has places for eight virtio devices, one of which is the network's.
const MAX_LISTED_DRIVES: usize = 7;

/// Who executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU's translator, everywhere and some ten times as slowly.
    Tcg,
}

impl Accelerator {
    /// The name that QEMU has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// How the kernel learns which devices there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// From ACPI tables and the PCI bus: what distributions' kernels understand.
    Acpi,
    /// From the command line (`CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES`): faster, for kernels made for it.
    CommandLine,
}

/// Descriptors that QEMU inherits. Nothing it uses is opened by a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// The sealed kernel image.
    pub kernel: RawFd,
    /// The initramfs.
    pub initramfs: RawFd,
    /// The store and, for a branch, each of its ancestors, nearest first; opened for reading only.
    pub drives: Vec<RawFd>,
    /// One end of a socket pair: the control channel.
    pub control: RawFd,
    /// The file that is to be the guest's memory; without one it is QEMU's own.
    pub memory: Option<RawFd>,
}

/// A machine to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// For which processor.
    pub arch: Arch,
    /// Who executes.
    pub accelerator: Accelerator,
    /// Where the devices are written.
    pub firmware: Firmware,
    /// MiB of memory.
    pub memory_mb: u32,
    /// Virtual processors.
    pub vcpus: u32,
    /// Command line that the file gives; checked when the arguments are made.
    pub file_cmdline: Vec<u8>,
    /// For the guest.
    pub guest: GuestArguments,
}

/// Why there is no such machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A kernel for another processor.
    #[error("a machine for {arch} is not made here; only x86_64 is")]
    Arch {
        /// Which.
        arch: &'static str,
    },
    /// Too little or too much.
    #[error("{given} MiB of memory; a machine has {} to {} MiB", MEMORY_MB.start(), MEMORY_MB.end())]
    Memory {
        /// MiB.
        given: u32,
    },
    /// Too few or too many.
    #[error("{given} virtual processors; a machine has 1 to {MAX_VCPUS}")]
    Vcpus {
        /// How many.
        given: u32,
    },
    /// More files than the machine has places for.
    #[error(
        "the store shows vectors of {} others, and this machine takes {most} files in all; make a whole one of it first: \
         rvf derive -t clone",
        .files.saturating_sub(1)
    )]
    Drives {
        /// Files: the store and its ancestors.
        files: usize,
        /// How many this machine takes.
        most: usize,
    },
    /// The command line.
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
}

impl Plan {
    /// The program that emulates it.
    pub fn program(&self) -> &'static str {
        "qemu-system-x86_64"
    }

    /// The kernel's command line.
    ///
    /// # Errors
    /// [`CmdlineError`].
    pub fn command_line(&self) -> Result<String, CmdlineError> {
        // A kernel that panics, and one that is told to restart, ends at once. The check of the APIC timer takes a quarter of
        // a second under emulation, and fails.
        let mut ours = String::from("console=ttyS0 panic=-1 reboot=t quiet rdinit=/init");
        if self.accelerator == Accelerator::Tcg && self.firmware == Firmware::CommandLine {
            ours.push_str(" noapictimer");
        }
        // The probe of a keyboard that is not there takes half a second.
        ours.push_str(" i8042.noaux i8042.nokbd");
        command_line(&self.file_cmdline, &ours, &self.guest)
    }

    /// QEMU's arguments.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn arguments(&self, fds: &Descriptors) -> Result<Vec<String>, PlanError> {
        if self.arch != Arch::X86_64 {
            return Err(PlanError::Arch { arch: self.arch.name() });
        }
        if !MEMORY_MB.contains(&self.memory_mb) {
            return Err(PlanError::Memory { given: self.memory_mb });
        }
        if !(1..=MAX_VCPUS).contains(&self.vcpus) {
            return Err(PlanError::Vcpus { given: self.vcpus });
        }
        let most = match self.firmware {
            Firmware::CommandLine => MAX_LISTED_DRIVES,
            Firmware::Acpi => MAX_DRIVES,
        };
        if fds.drives.len() > most {
            return Err(PlanError::Drives { files: fds.drives.len(), most });
        }
        // Under emulation, a microVM with ACPI has no timer that a kernel could tell the time by: its ACPI says that there
        // is none of the old ones, and those of KVM are not there. The common PC has them.
        let (machine, bus) = match (self.firmware, self.accelerator) {
            (Firmware::CommandLine, _) => ("microvm,acpi=off", "device"),
            (Firmware::Acpi, Accelerator::Kvm) => ("microvm,acpi=on", "device"),
            (Firmware::Acpi, Accelerator::Tcg) => {
                ("q35,usb=off,vmport=off,sata=off,smbus=off,graphics=off", "pci")
            }
        };
        let net = if bus == "pci" { ",romfile=" } else { "" };
        let (accel, cpu) = match self.accelerator {
            Accelerator::Kvm => ("kvm", "host"),
            Accelerator::Tcg => ("tcg,thread=multi,tb-size=64", "max"),
        };
        let Descriptors { kernel, initramfs, drives, control, memory } = fds;
        let mut list = vec![
            ("-nodefaults", String::new()),
            ("-no-user-config", String::new()),
            ("-display", "none".into()),
            ("-no-reboot", String::new()),
            ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into()),
            ("-machine", format!("{machine}{}", memory.map_or("", |_| ",memory-backend=memory"))),
            ("-accel", accel.into()),
            ("-cpu", cpu.into()),
            ("-m", self.memory_mb.to_string()),
            ("-smp", self.vcpus.to_string()),
            ("-kernel", format!("/proc/self/fd/{kernel}")),
            ("-initrd", format!("/proc/self/fd/{initramfs}")),
            ("-append", self.command_line()?),
            ("-chardev", "stdio,id=console,signal=off".into()),
            ("-serial", "chardev:console".into()),
            ("-chardev", format!("socket,id=control,fd={control}")),
            ("-mon", "chardev=control,mode=control".into()),
            // The port is forwarded when the guest answers, not before.
            ("-netdev", "user,id=net,restrict=on,ipv6=off".into()),
            ("-device", format!("virtio-net-{bus},netdev=net{net}")),
        ];
        if let Some(memory) = memory {
            let size = self.memory_mb;
            let file = format!(
                "memory-backend-file,id=memory,size={size}M,share=on,mem-path=/proc/self/fd/{memory}"
            );
            list.push(("-object", file));
        }
        for (n, drive) in drives.iter().enumerate() {
            // No lock: writers append, and what is served is the state of a moment, by its length.
            let file =
                format!("driver=file,node-name=file{n},filename=/dev/fdset/{n},read-only=on,locking=off");
            list.extend([
                ("-add-fd", format!("fd={drive},set={n}")),
                ("-blockdev", file),
                ("-blockdev", format!("driver=raw,node-name=drive{n},file=file{n},read-only=on")),
                ("-device", format!("virtio-blk-{bus},drive=drive{n},serial={}", drive_serial(n))),
            ]);
        }
        let words = list.into_iter().flat_map(|(option, value)| [option.to_owned(), value]);
        Ok(words.filter(|word| !word.is_empty()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            arch: Arch::X86_64,
            accelerator: Accelerator::Tcg,
            firmware: Firmware::Acpi,
            memory_mb: 128,
            vcpus: 1,
            file_cmdline: b"quiet".to_vec(),
            guest: GuestArguments { lens: vec![999, 70], port: 8080 },
        }
    }

    fn fds(drives: usize) -> Descriptors {
        Descriptors {
            kernel: 5,
            initramfs: 6,
            drives: (9..).take(drives).collect(),
            control: 8,
            memory: None,
        }
    }

    #[test]
    fn nothing_is_opened_by_name_and_nothing_is_left_open() {
        let arguments = plan().arguments(&fds(2)).expect("a machine");
        let after = |option: &str| -> Vec<&str> {
            let pairs = arguments.iter().zip(arguments.iter().skip(1));
            pairs.filter(|(word, _)| *word == option).map(|(_, value)| value.as_str()).collect()
        };
        assert_eq!(after("-kernel"), ["/proc/self/fd/5"]);
        assert_eq!(after("-add-fd"), ["fd=9,set=0", "fd=10,set=1"]);
        assert!(after("-sandbox")[0].contains("spawn=deny"));
        assert!(after("-blockdev").iter().all(|device| device.contains("read-only=on")));
        assert!(after("-netdev")[0].contains("restrict=on") && !after("-netdev")[0].contains("hostfwd"));
        assert!(after("-append")[0].ends_with("rvf.len=999,70 rvf.port=8080"));
        let drives = after("-device");
        assert!(drives.iter().any(|device| device.ends_with("drive=drive0,serial=rvf-0")), "{drives:?}");
        assert!(drives.iter().any(|device| device.ends_with("drive=drive1,serial=rvf-1")), "{drives:?}");
        assert!(after("-object").is_empty() && !after("-machine")[0].contains("memory-backend"));
        let shared =
            plan().arguments(&Descriptors { memory: Some(20), ..fds(2) }).expect("a machine").join(" ");
        assert!(shared.contains("size=128M,share=on,mem-path=/proc/self/fd/20"), "{shared}");
        assert!(shared.contains(",memory-backend=memory "), "{shared}");
        for needed in ["-nodefaults", "-no-user-config", "-no-reboot"] {
            assert!(arguments.iter().any(|word| word == needed));
        }
    }

    #[test]
    fn impossible_machines_are_refused() {
        for (plan, word) in [
            (Plan { arch: Arch::Aarch64, ..plan() }, "aarch64"),
            (Plan { memory_mb: 1, ..plan() }, "1 MiB"),
            (Plan { memory_mb: 1 << 20, ..plan() }, "MiB"),
            (Plan { vcpus: 0, ..plan() }, "processors"),
            (Plan { file_cmdline: b"init=/bin/sh".to_vec(), ..plan() }, "init="),
            (Plan { file_cmdline: b"quiet\x1b".to_vec(), ..plan() }, "0x1b"),
        ] {
            let error = plan.arguments(&fds(1)).expect_err(word).to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_machine_has_as_many_drives_as_places_for_them() {
        for (firmware, most) in [(Firmware::CommandLine, 7), (Firmware::Acpi, 23)] {
            let plan = Plan { firmware, ..plan() };
            assert!(plan.arguments(&fds(most)).is_ok());
            let error = plan.arguments(&fds(most + 1)).expect_err("too many").to_string();
            assert!(error.contains(&format!("of {most} others")), "{error}");
            assert!(error.contains("rvf derive -t clone"), "{error}");
        }
    }
}
