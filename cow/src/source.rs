//! Opening a store's file safely: regular files only, never blocking, with a name for every failure.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Error;
use crate::reach::reach;
use crate::view::Stamp;

/// Opens `path` for reading, or for reading and writing, if it is a regular file outside the mounts of this process.
///
/// `O_NONBLOCK` keeps a FIFO from hanging the caller; it has no effect on regular files.
pub(crate) fn open_regular(path: &Path, write: bool) -> Result<(File, Metadata), Error> {
    let reached = reach(path)?;
    check_regular(path, &reached.meta)?;
    let file = reached.open(write).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied if write => Error::ReadOnly { path: path.to_path_buf() },
        _ => Error::io(path, "open", e),
    })?;
    // The name may have been swapped between the two calls.
    let meta = file.metadata().map_err(|e| Error::io(path, "stat", e))?;
    check_regular(path, &meta)?;
    Ok((file, meta))
}

/// Opens a regular file for reading. Never blocks on what is not one, and never enters a mount that this process serves.
///
/// # Errors
/// [`Error::NotRegular`]; otherwise as [`reach`].
pub fn open_file(path: &Path) -> Result<(File, Metadata), Error> {
    open_regular(path, false)
}

/// A block device with a file on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its path.
    pub path: PathBuf,
    /// Bytes of the file: a device is as long as its sectors and does not know where the file ends.
    pub len: u64,
}

impl Device {
    /// Opens it for reading.
    pub(crate) fn open(&self) -> Result<Given, Error> {
        let path = &self.path;
        let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
        let meta = file.metadata().map_err(|e| Error::io(path, "stat", e))?;
        match meta.file_type().is_block_device() {
            true => Ok(Given { path: path.clone(), file: Arc::new(file), meta, len: self.len }),
            false => Err(Error::Invalid { what: format!("{}: no block device", path.display()) }),
        }
    }
}

/// An open file of a chain, of which nothing is looked for by a path. It does not change while it is open.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    /// For messages.
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<File>,
    pub(crate) meta: Metadata,
    /// Bytes of it.
    pub(crate) len: u64,
}

fn check_regular(path: &Path, meta: &Metadata) -> Result<(), Error> {
    let kind = meta.file_type();
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "directory"
    } else if kind.is_fifo() {
        "FIFO"
    } else if kind.is_socket() {
        "socket"
    } else {
        "device"
    };
    Err(Error::NotRegular { path: path.to_path_buf(), what })
}

pub(crate) fn stamp(path: &Path, meta: &Metadata) -> Result<Stamp, Error> {
    Ok(Stamp {
        dev: meta.dev(),
        ino: meta.ino(),
        len: meta.len(),
        mtime: meta.modified().map_err(|e| Error::io(path, "stat", e))?,
    })
}

/// Makes a directory entry durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), Error> {
    let parent = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    File::open(parent).and_then(|d| d.sync_all()).map_err(|e| Error::io(parent, "sync directory", e))
}
