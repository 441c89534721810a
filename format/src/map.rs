//! The bytes of a file: mapped, or read into memory.
//!
//! A mapped file that another process cuts short would kill this one with SIGBUS at the next read. [`FileBytes::map`]
//! therefore registers every mapping with a signal handler that puts a zero page under the read and marks the mapping
//! as poisoned: the reader sees zeros, which fail their checksums, and [`FileBytes::is_poisoned`] says why.

#![expect(unsafe_code, reason = "mapping a file is unsafe because others may change it; see the module text")]

mod guard;

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::{Deref, Range};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::sync::Arc;

/// Shared, immutable bytes of a file. Cloning is cheap.
#[derive(Clone)]
pub struct FileBytes {
    inner: Arc<Inner>,
}

enum Inner {
    Owned(Vec<u8>),
    Mapped {
        // Dropped before the mapping, so that the handler never sees a slot of memory that is gone.
        guard: guard::Registration,
        map: memmap2::Mmap,
    },
}

/// How a range is about to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Soon, all of it: start reading now.
    WillNeed,
    /// Here and there: no read-ahead.
    Random,
    /// From start to end: read ahead far.
    Sequential,
    /// Now: returns when all of it is in memory and mapped.
    Load,
}

impl FileBytes {
    /// Maps the first `len` bytes of a file. Nothing is read before it is touched. Bytes appended to the file later
    /// are not seen; committed bytes of a store never change.
    ///
    /// When more than 4,096 mappings exist in the process, the file is read into memory instead.
    ///
    /// # Errors
    /// The operating system's; [`io::ErrorKind::UnexpectedEof`] when the file is shorter than `len`.
    pub fn map(file: &File, len: u64) -> io::Result<Self> {
        if size(file)? < len {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than the mapping"));
        }
        let size = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if size == 0 {
            return Ok(Self::from_vec(Vec::new()));
        }
        // SAFETY: the mapping is private to reading; nobody in this process writes to it. Another process that writes
        // into committed bytes changes what is read, which every user of these bytes survives (they are untrusted
        // input); one that cuts the file raises SIGBUS, which the guard turns into zeros.
        let map = unsafe { memmap2::MmapOptions::new().len(size).map(file)? };
        match guard::register(map.as_ptr() as usize, size)? {
            Some(guard) => Ok(Self { inner: Arc::new(Inner::Mapped { guard, map }) }),
            None => Self::read(file, len),
        }
    }

    /// Reads the first `len` bytes of a file into memory.
    ///
    /// # Errors
    /// The operating system's; [`io::ErrorKind::UnexpectedEof`] when the file is shorter than `len`.
    pub fn read(file: &File, len: u64) -> io::Result<Self> {
        if size(file)? < len {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file is shorter than what is to be read",
            ));
        }
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        bytes.resize(len, 0);
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Self::from_vec(bytes))
    }

    /// Wraps bytes in memory.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        Self { inner: Arc::new(Inner::Owned(bytes)) }
    }

    /// Whether the file was cut under the mapping, so that some of the bytes now read as zero.
    pub fn is_poisoned(&self) -> bool {
        match &*self.inner {
            Inner::Owned(_) => false,
            Inner::Mapped { guard, .. } => guard.is_poisoned(),
        }
    }

    /// Whether the bytes are mapped rather than read.
    pub fn is_mapped(&self) -> bool {
        matches!(&*self.inner, Inner::Mapped { .. })
    }

    /// Tells the kernel how a range will be read. A hint: errors are ignored, and in memory it does nothing.
    pub fn advise(&self, range: Range<u64>, advice: Advice) {
        let Inner::Mapped { map, .. } = &*self.inner else { return };
        let len = map.len() as u64;
        let (start, end) = (range.start.min(len), range.end.min(len));
        if start >= end {
            return;
        }
        let advice = match advice {
            Advice::WillNeed => memmap2::Advice::WillNeed,
            Advice::Random => memmap2::Advice::Random,
            Advice::Sequential => memmap2::Advice::Sequential,
            Advice::Load => memmap2::Advice::PopulateRead,
        };
        let _ = map.advise_range(advice, start as usize, (end - start) as usize);
    }

    /// Whether both are the very same bytes in memory.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

/// Bytes that can be read. A block device tells by where its end is, not by its metadata.
fn size(mut file: &File) -> io::Result<u64> {
    let meta = file.metadata()?;
    if meta.file_type().is_block_device() { file.seek(SeekFrom::End(0)) } else { Ok(meta.len()) }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &*self.inner {
            Inner::Owned(bytes) => bytes,
            Inner::Mapped { map, .. } => map,
        }
    }
}

impl AsRef<[u8]> for FileBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for FileBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from_vec(bytes)
    }
}

impl std::fmt::Debug for FileBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileBytes")
            .field("len", &self.len())
            .field("mapped", &self.is_mapped())
            .field("poisoned", &self.is_poisoned())
            .finish()
    }
}
