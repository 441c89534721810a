//! The initramfs of a machine: the guest program, and the modules that its kernel needs.

use super::MODULES;
use super::cpio::Archive;
use super::modules::ModuleFile;
use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};
use rvf_format::checksum::sha3_256;

/// Why no initramfs can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InitramfsError {
    /// The guest program is not one.
    #[error("the guest program is {found}; {mend}")]
    Guest {
        /// What it is.
        found: &'static str,
        /// What to do.
        mend: &'static str,
    },
}

/// Puts an initramfs together. The same parts give the same bytes. O(parts).
///
/// # Errors
/// [`InitramfsError`] for a guest program that cannot be the only one of a machine.
pub fn initramfs(guest: &[u8], modules: &[ModuleFile]) -> Result<Vec<u8>, InitramfsError> {
    let guest = stripped(guest)?;
    let mut archive = Archive::new();
    for directory in ["dev", "proc", "sys"] {
        archive.directory(directory);
    }
    // The kernel opens it before anything is mounted.
    archive.device("dev/console", 0o600, 5, 1);
    archive.file("init", 0o755, &guest);
    let directory = MODULES.trim_start_matches('/');
    archive.directory(directory);
    for (number, module) in modules.iter().enumerate() {
        archive.file(&format!("{directory}/{number:02}-{}.ko", module.name), 0o644, &module.bytes);
    }
    Ok(archive.finish())
}

/// Names an initramfs by its content.
pub fn initramfs_key(initramfs: &[u8]) -> [u8; 32] {
    sha3_256(initramfs)
}

/// The program without what lies behind its last loaded byte: symbols and debug information, which are most of it.
fn stripped(guest: &[u8]) -> Result<Vec<u8>, InitramfsError> {
    let not = |found, mend| InitramfsError::Guest { found, mend };
    let broken = || not("no program for a 64-bit Linux", "build it with the rest of this project");
    let endian = object::LittleEndian;
    let header = elf::FileHeader64::<object::LittleEndian>::parse(guest).map_err(|_| broken())?;
    let segments = header.program_headers(endian, guest).map_err(|_| broken())?;
    let mut end = 0;
    for segment in segments {
        match segment.p_type(endian) {
            elf::PT_INTERP => {
                return Err(not(
                    "not linked statically",
                    "install the static C library (Fedora: glibc-static) and build it again",
                ));
            }
            elf::PT_LOAD => {
                let last =
                    segment.p_offset(endian).checked_add(segment.p_filesz(endian)).ok_or_else(broken)?;
                end = end.max(last);
            }
            _ => {}
        }
    }
    let mut program = usize::try_from(end).ok().and_then(|end| guest.get(..end)).ok_or_else(broken)?.to_vec();
    // The section headers lie behind the end: none.
    for range in [0x28..0x30, 0x3C..0x40] {
        program.get_mut(range).ok_or_else(broken)?.fill(0);
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_static_programs_are_taken() {
        for bytes in [&b""[..], b"#!/bin/sh\n", b"\x7fELF\x02\x01\x01"] {
            assert!(initramfs(bytes, &[]).is_err());
        }
        // The test program itself is linked as programs are.
        let own = std::fs::read(std::env::current_exe().expect("a path")).expect("bytes");
        let error = initramfs(&own, &[]).expect_err("dynamic");
        assert!(error.to_string().contains("statically"), "{error}");
    }
}
