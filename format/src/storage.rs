//! The few operations a store needs from a disk, so that tests can put a failing one in its place.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A file as the writer sees it.
pub trait Storage: Send + Sync + std::fmt::Debug {
    /// Reads at an offset; fewer bytes than asked for only at the end.
    ///
    /// # Errors
    /// The operating system's.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `data` at an offset, extending the file where needed.
    ///
    /// # Errors
    /// The operating system's; how much was written is then unknown.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Returns when everything written so far is on stable storage.
    ///
    /// # Errors
    /// The operating system's; what is on stable storage is then unknown.
    fn sync(&self) -> io::Result<()>;
    /// Length in bytes.
    ///
    /// # Errors
    /// The operating system's.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file is empty.
    ///
    /// # Errors
    /// As [`Storage::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts (or extends with zeros) to a length.
    ///
    /// # Errors
    /// The operating system's.
    fn truncate(&self, len: u64) -> io::Result<()>;
}

/// A real file.
#[derive(Debug)]
pub struct FileStorage(File);

impl FileStorage {
    /// Wraps a file opened for writing.
    pub fn new(file: File) -> Self {
        Self(file)
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.0
    }
}

impl Storage for FileStorage {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match FileExt::read_at(&self.0, &mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync also makes the new length durable, which is all that an append needs.
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}
