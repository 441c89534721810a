//! Files that are being made: hidden until they are whole.
//!
//! A hidden file is locked (`flock`) for as long as its maker lives, so whoever gets that lock knows that the maker is dead,
//! on whatever host and in whatever namespace it ran.

use std::fs::{File, OpenOptions as FileOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use crate::error::Error;
use crate::parent::directory_of;
use crate::permissions::{PRIVATE, Permissions};
use crate::source::sync_parent;
use crate::view::View;

/// How the name of a file begins that is not whole yet.
pub const PENDING: &str = ".pending-";

/// Names that are tried for a hidden file.
const TRIES: usize = 100;

/// Tells the hidden files of one process apart.
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A hidden file, gone when dropped unless it was published.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    file: File,
    published: bool,
}

impl Scratch {
    /// An empty file in the directory of `path`, from where the parent's place is the same as from `path`. Other stores in
    /// the directory know it for a child, once it is one, so that a compaction of the parent keeps the state that it
    /// stands on. Nobody but its owner may open it.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the path has no file name; [`Error::NotFound`], [`Error::NoSpace`], [`Error::Io`].
    pub fn new(path: &Path) -> Result<Self, Error> {
        Self::with_mode(path, PRIVATE)
    }

    /// As [`Scratch::new`], for what is made of no other store: the umask says who may open it.
    pub(crate) fn open_to_all(path: &Path) -> Result<Self, Error> {
        Self::with_mode(path, 0o666)
    }

    fn with_mode(path: &Path, mode: u32) -> Result<Self, Error> {
        let name = path
            .file_name()
            .ok_or_else(|| Error::Invalid { what: format!("{}: not a file name", path.display()) })?;
        for _ in 0..TRIES {
            let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
            let mut hidden = std::ffi::OsString::from(format!("{PENDING}{}-{serial:x}-", std::process::id()));
            hidden.push(name);
            let hidden = path.with_file_name(hidden);
            let file =
                match FileOptions::new().read(true).write(true).create_new(true).mode(mode).open(&hidden) {
                    // Of another process that has this number elsewhere.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                    other => other.map_err(|e| Error::io(path, "create", e))?,
                };
            // Without locks on this filesystem nobody will take it for abandoned.
            if let Err(error) = file.lock() {
                tracing::debug!(path = %hidden.display(), %error, "made without a lock");
            }
            // Somebody may have swept it before it was locked.
            if file.metadata().is_ok_and(|meta| meta.nlink() > 0) {
                return Ok(Self { path: hidden, file, published: false });
            }
        }
        Err(Error::Exists { path: path.to_path_buf() })
    }

    /// As [`Scratch::new`], for a file that must not exist yet; removes first what killed processes left behind.
    pub(crate) fn for_file(path: &Path) -> Result<Self, Error> {
        sweep(directory_of(path));
        if path.symlink_metadata().is_ok() {
            return Err(Error::Exists { path: path.to_path_buf() });
        }
        Self::new(path)
    }

    /// Its hidden name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file, for writing.
    pub(crate) fn file(&self) -> Result<File, Error> {
        self.file.try_clone().map_err(|e| Error::io(&self.path, "open", e))
    }

    /// Lets those open it who may open all that it is made of. To be called before anything is written to it.
    pub(crate) fn made_of<'v>(&self, parents: impl IntoIterator<Item = &'v View>) -> Result<(), Error> {
        Permissions::for_child(parents)?.give(&self.file);
        Ok(())
    }

    /// Gives the file, whole and durable, its name. The name never replaces a file that appeared meanwhile. After an error the
    /// name is not there.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::Policy`] where the filesystem can neither link nor rename so; [`Error::NoSpace`],
    /// [`Error::Io`].
    pub fn publish(&mut self, path: &Path) -> Result<(), Error> {
        let linked = link_or_move(&self.path, path)?;
        self.published = true;
        // It is a store now, and others may want to write to it.
        if let Err(error) = self.file.unlock() {
            tracing::debug!(path = %path.display(), %error, "not unlocked before it is closed");
        }
        if linked && let Err(error) = std::fs::remove_file(&self.path) {
            // A second name of a whole file: no harm, and the next sweep removes it.
            tracing::warn!(path = %self.path.display(), %error, "a hidden name stays behind for now");
        }
        // Whoever is told that it failed must not find it there.
        sync_parent(path).inspect_err(|_| discard(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.published {
            discard(&self.path);
        }
    }
}

/// Gives a file a name that nothing has yet: a second one, and then true, or where there are no hard links the only one.
///
/// # Errors
/// [`Error::Io`] when the name is taken, and otherwise; [`Error::Policy`] where the filesystem can neither link nor rename so.
pub fn link_or_move(from: &Path, to: &Path) -> Result<bool, Error> {
    match std::fs::hard_link(from, to) {
        Ok(()) => Ok(true),
        Err(error) if cannot_link(&error) => rename_new(from, to, &error).map(|()| false),
        Err(error) => Err(Error::io(to, "create", error)),
    }
}

/// Whether a filesystem has no hard links at all, or no more of them here.
#[must_use]
pub fn cannot_link(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK | Errno::XDEV))
}

/// A rename that replaces nothing, for filesystems without hard links.
fn rename_new(from: &Path, to: &Path, link: &io::Error) -> Result<(), Error> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => Err(Error::Policy {
            what: format!(
                "{}: not made, because this filesystem has neither hard links ({link}) nor renames that replace \
                 nothing; make it on another one and copy it",
                to.display()
            ),
        }),
        Err(errno) => Err(Error::io(to, "create", errno.into())),
    }
}

/// Removes what killed processes left behind in a directory.
pub fn sweep(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(PENDING.as_bytes()) {
            sweep_one(&entry.path());
        }
    }
}

/// Removes a hidden file if its maker is dead.
fn sweep_one(path: &Path) {
    let open = |write: bool| {
        let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        FileOptions::new().read(true).write(write).custom_flags(flags).open(path)
    };
    // Some filesystems lock only what may be written to.
    let Ok(file) = open(true).or_else(|_| open(false)) else { return };
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return;
    }
    match file.try_lock() {
        // Held until the name is gone: a maker that comes for the lock now sees that, and takes another name.
        Ok(()) => discard(path),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => {
            tracing::debug!(path = %path.display(), %error, "cannot tell whether its maker lives");
        }
    }
}

/// How the hidden name of a file ends that is to replace a store.
pub(crate) const COMPACT: &str = "compact.tmp";

/// Removes what killed processes left behind beside a store, also what compactions of it did: files as large as the store.
/// Whoever holds the store's write lock may call this, for no other compaction of it can be running then.
pub(crate) fn sweep_beside(path: &Path) {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
    let Ok(entries) = std::fs::read_dir(directory_of(path)) else { return };
    for entry in entries.flatten() {
        let hidden = entry.file_name();
        if hidden.as_encoded_bytes().starts_with(PENDING.as_bytes()) {
            sweep_one(&entry.path());
            continue;
        }
        let Some(hidden) = hidden.to_str() else { continue };
        let number = |owner: Option<&str>| {
            owner.is_some_and(|owner| !owner.is_empty() && owner.bytes().all(|b| b.is_ascii_digit()))
        };
        let compaction = hidden
            .strip_prefix('.')
            .and_then(|hidden| hidden.strip_prefix(name))
            .and_then(|rest| rest.strip_prefix('.')?.strip_suffix(COMPACT)?.strip_suffix('.'));
        // A stale lock that somebody was moving away.
        let lock =
            hidden.strip_prefix(name).and_then(|rest| rest.strip_prefix(".lock.")?.strip_suffix(".stale"));
        if number(compaction) || number(lock) {
            discard(&entry.path());
        }
    }
}

/// Removes a file that never became one, if it is there.
pub(crate) fn discard(hidden: &Path) {
    match std::fs::remove_file(hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %hidden.display(), %error, "a file that is not whole stays behind");
        }
        _ => {}
    }
}
