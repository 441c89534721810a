//! The bytes of a file: mapped, or read into memory.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::sync::Arc;

/// Shared, immutable bytes of a file. Cloning is cheap.
#[derive(Clone)]
pub struct FileBytes {
    inner: Arc<Inner>,
}

enum Inner {
    Owned(Vec<u8>),
}

impl FileBytes {
    /// Maps the first `len` bytes of a file.
    ///
    /// # Errors
    /// The operating system's.
    pub fn map(file: &File, len: u64) -> io::Result<Self> {
        Self::read(file, len)
    }

    /// Reads the first `len` bytes of a file into memory.
    ///
    /// # Errors
    /// The operating system's.
    pub fn read(file: &File, len: u64) -> io::Result<Self> {
        use std::os::unix::fs::FileExt;
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Self::from_vec(bytes))
    }

    /// Wraps bytes in memory.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        Self { inner: Arc::new(Inner::Owned(bytes)) }
    }

    /// Whether the file was cut under the mapping, so that some of the bytes now read as zero.
    pub fn is_poisoned(&self) -> bool {
        false
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &*self.inner {
            Inner::Owned(bytes) => bytes,
        }
    }
}

impl std::fmt::Debug for FileBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileBytes").field("len", &self.len()).field("poisoned", &self.is_poisoned()).finish()
    }
}
