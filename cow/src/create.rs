//! Making a new store.

use std::fs::{File, OpenOptions as FileOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rvf_format::manifest::{FileIdentity, Manifest};
use rvf_format::recover;
use rvf_format::storage::FileStorage;
use rvf_format::writer::Writer;

use crate::error::Error;
use crate::permissions::PRIVATE;
use crate::scratch::Scratch;
use crate::store::Store;
use crate::types::{CreateOptions, OpenOptions};
use crate::write::format_error;

impl Store {
    /// Creates an empty store of 192 bytes and opens it for reading and writing. The file appears
    /// under its name only when it is complete and durable.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NotFound`] for a missing directory, [`Error::Invalid`] for
    /// dimension 0, [`Error::NoSpace`], [`Error::Io`].
    pub fn create(path: &Path, options: &CreateOptions) -> Result<Arc<Self>, Error> {
        if options.dimension == 0 {
            return Err(Error::Invalid { what: "the dimension must be 1 to 65535".into() });
        }
        if path.symlink_metadata().is_ok() {
            return Err(Error::Exists { path: path.to_path_buf() });
        }
        let mut scratch = Scratch::open_to_all(path)?;
        write_empty(path, scratch.file()?, options)?;
        scratch.publish(path)?;
        Self::open(path, &OpenOptions::default())
    }
}

fn write_empty(path: &Path, file: File, options: &CreateOptions) -> Result<(), Error> {
    let manifest = Manifest {
        epoch: 0,
        dimension: options.dimension,
        total_vectors: 0,
        profile_id: options.profile,
        metric: options.metric.code(),
        directory: Vec::new(),
        deleted: Vec::new(),
        identity: Some(FileIdentity {
            file_id: random_id()?,
            parent_id: [0; 16],
            parent_hash: [0; 32],
            lineage_depth: 0,
        }),
        hashes: None,
    };
    let storage = FileStorage::new(file);
    let opened = recover::open(&[]);
    let mut writer = Writer::new(&storage, &opened).map_err(format_error)?;
    writer.commit(&manifest).map_err(|e| match e {
        rvf_format::Error::Io { source, .. } => Error::io(path, "write", source),
        other => format_error(other),
    })?;
    Ok(())
}

/// A hidden name in the same directory, so that a rename or link stays on one filesystem.
pub(crate) fn beside(path: &Path, suffix: &str) -> Result<PathBuf, Error> {
    let name = path
        .file_name()
        .ok_or_else(|| Error::Invalid { what: format!("{}: not a file name", path.display()) })?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.{suffix}", std::process::id()));
    Ok(path.with_file_name(hidden))
}

/// A file that nobody but its owner may open.
pub(crate) fn create_new(path: &Path) -> Result<File, Error> {
    let mut options = FileOptions::new();
    options.read(true).write(true).create_new(true).mode(PRIVATE);
    match options.open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            // Left behind by a process of the same number that died.
            std::fs::remove_file(path).map_err(|e| Error::io(path, "remove", e))?;
            options.open(path).map_err(|e| Error::io(path, "create", e))
        }
        other => other.map_err(|e| Error::io(path, "create", e)),
    }
}

/// 16 random bytes, never all zero: zero means "no identity" in the format.
pub(crate) fn random_id() -> Result<[u8; 16], Error> {
    let source = Path::new("/dev/urandom");
    let mut id = [0u8; 16];
    File::open(source).and_then(|mut f| f.read_exact(&mut id)).map_err(|e| Error::io(source, "read", e))?;
    if id == [0; 16] {
        id[0] = 1;
    }
    Ok(id)
}
