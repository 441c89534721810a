//! Memory files that nobody can change any more: what is checked in one is what is run from it.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};
use rvf_format::FileBytes;

const SEALS: SealFlags =
    SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

/// Bytes in a sealed memory file, mapped. Clones share it.
#[derive(Clone, Debug)]
pub struct Sealed {
    file: Arc<File>,
    bytes: FileBytes,
}

/// An empty memory file that is not sealed yet.
///
/// # Errors
/// What the system reports.
pub fn memory_file(name: &str) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know that a file is never to be executed; the bytes are none the less safe.
    let fd = rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| rustix::fs::memfd_create(name, flags))?;
    Ok(fd.into())
}

impl Sealed {
    /// Copies the bytes into a new memory file and seals it. O(bytes).
    ///
    /// # Errors
    /// What the system reports, also when it has no sealing.
    pub fn copy(name: &str, bytes: &[u8]) -> io::Result<Self> {
        let mut file = memory_file(name)?;
        file.write_all(bytes)?;
        rustix::fs::fcntl_add_seals(&file, SEALS)?;
        // Mapped after sealing: a mapping that could write would have made the seal fail.
        let mapped = FileBytes::map(&file, bytes.len() as u64)?;
        let sealed = Self { file: Arc::new(file), bytes: mapped };
        sealed.recheck()?;
        Ok(sealed)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The memory file itself, for who takes a descriptor. Its offset is shared with all who hold it: read at offsets.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The memory file with its offset at its begin, for who reads on from there.
    ///
    /// # Errors
    /// What seeking reports.
    pub fn rewound(&self) -> io::Result<BorrowedFd<'_>> {
        rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Start(0))?;
        Ok(self.file())
    }

    /// Makes sure that the seals are there and the length is that of the mapped bytes.
    ///
    /// # Errors
    /// When not.
    pub fn recheck(&self) -> io::Result<()> {
        let seals = rustix::fs::fcntl_get_seals(&self.file)?;
        if !seals.contains(SEALS) || self.file.metadata()?.len() != self.bytes.len() as u64 {
            return Err(io::Error::other("a memory file is not sealed"));
        }
        Ok(())
    }

    /// The bytes as a reader of the descriptor gets them. O(bytes).
    ///
    /// # Errors
    /// What reading reports.
    pub fn read_back(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.bytes.len()];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_changes_what_is_sealed() {
        let sealed = Sealed::copy("rvf-test", b"program").unwrap();
        assert_eq!(sealed.bytes(), b"program");
        assert_eq!(sealed.read_back().unwrap(), b"program");
        let mut copy = File::from(sealed.file().try_clone_to_owned().unwrap());
        assert!(copy.write_all(b"x").is_err(), "written to");
        assert!(copy.set_len(3).is_err(), "cut");
        assert!(copy.set_len(100).is_err(), "grown");
        assert!(rustix::fs::fcntl_add_seals(&copy, SealFlags::FUTURE_WRITE).is_err(), "sealed anew");
        let reopened = File::options().write(true).open(format!("/proc/self/fd/{}", {
            use std::os::fd::AsRawFd;
            copy.as_raw_fd()
        }));
        if let Ok(mut reopened) = reopened {
            assert!(reopened.write_all(b"x").is_err(), "written to through its name");
        }
        assert_eq!(sealed.bytes(), b"program");
        assert_eq!(Sealed::copy("rvf-empty", b"").unwrap().bytes(), b"");
    }
}
