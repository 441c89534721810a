//! Files that are being made: hidden until they are whole.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::Error;
use crate::parent::directory_of;
use crate::source::sync_parent;

/// How the name of a child begins that is not whole yet. The process that makes it comes next, then a dash.
pub const PENDING: &str = ".pending-";

/// Tells the hidden files of one process apart.
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A hidden name in the directory of `path`, from where the parent's place is the same as from `path`. Other stores in the
/// directory know it for a child, so that a compaction of the parent keeps the state that it stands on.
///
/// # Errors
/// [`Error::Invalid`] when the path has no file name.
pub fn pending_name(path: &Path) -> Result<PathBuf, Error> {
    let name = path
        .file_name()
        .ok_or_else(|| Error::Invalid { what: format!("{}: not a file name", path.display()) })?;
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let mut hidden = std::ffi::OsString::from(format!("{PENDING}{}-{serial:x}-", std::process::id()));
    hidden.push(name);
    Ok(path.with_file_name(hidden))
}

/// Gives a whole file its name, durably. A link, unlike a rename, never replaces a file that appeared meanwhile. When it
/// cannot be made, the hidden file stays.
///
/// # Errors
/// [`Error::Exists`]; [`Error::NoSpace`], [`Error::Io`].
pub fn publish(hidden: &Path, path: &Path) -> Result<(), Error> {
    std::fs::hard_link(hidden, path).map_err(|e| Error::io(path, "create", e))?;
    std::fs::remove_file(hidden).map_err(|e| Error::io(hidden, "remove", e))?;
    sync_parent(path)
}

/// Removes what killed processes left behind in a directory.
pub fn sweep(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner =
            name.to_str().and_then(|name| name.strip_prefix(PENDING)?.split_once('-')?.0.parse::<u32>().ok());
        if owner.is_some_and(|owner| {
            owner != std::process::id() && !Path::new(&format!("/proc/{owner}")).exists()
        }) {
            discard(&entry.path());
        }
    }
}

/// How the hidden name of a file ends that is to replace a store.
pub(crate) const COMPACT: &str = "compact.tmp";

/// Removes what compactions of this store left behind when they were killed: files as large as the store. Whoever holds
/// the store's write lock may call this, for no other compaction of it can be running then.
pub(crate) fn sweep_compactions(path: &Path) {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
    let Ok(entries) = std::fs::read_dir(directory_of(path)) else { return };
    for entry in entries.flatten() {
        let hidden = entry.file_name();
        let owner = hidden.to_str().and_then(|hidden| {
            hidden
                .strip_prefix('.')?
                .strip_prefix(name)?
                .strip_prefix('.')?
                .strip_suffix(COMPACT)?
                .strip_suffix('.')
        });
        if owner.is_some_and(|owner| !owner.is_empty() && owner.bytes().all(|b| b.is_ascii_digit())) {
            discard(&entry.path());
        }
    }
}

/// Removes a file that never became one, if it is there.
pub fn discard(hidden: &Path) {
    match std::fs::remove_file(hidden) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %hidden.display(), %error, "a file that is not whole stays behind");
        }
        _ => {}
    }
}

/// A hidden file, gone when dropped unless it was published.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A name for a file that will be `path`, which must not exist.
    pub(crate) fn for_file(path: &Path) -> Result<Self, Error> {
        if path.symlink_metadata().is_ok() {
            return Err(Error::Exists { path: path.to_path_buf() });
        }
        sweep(directory_of(path));
        Ok(Self { path: pending_name(path)? })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn publish(self, path: &Path) -> Result<(), Error> {
        publish(&self.path, path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        discard(&self.path);
        discard(&rvf_format::lock::lock_path(&self.path));
    }
}
