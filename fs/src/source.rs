//! What is mounted: one store, or a directory of them.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};
pub(crate) use rvf_cow::Stamp;
use rvf_cow::{Error as StoreError, Family};

use crate::branches::pending::PENDING;
use crate::errno::{Error, to_errno};
use crate::node::StoreId;
use crate::store_dir::{Settings, StoreDir};

/// The extensions a store can have.
pub const EXTENSIONS: [&str; 5] = ["rvf", "rvdna", "rvtext", "rvgraph", "rvvis"];

/// Whether the path ends in one of [`EXTENSIONS`], in any case.
#[must_use]
pub fn has_store_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("");
    EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension))
}

/// What a path is, without opening it: a FIFO would block, a device could do worse.
///
/// # Errors
/// When it is not there, or is neither a regular file nor a directory; the message names what it is.
pub fn kind_of(path: &Path) -> Result<SourceKind, String> {
    let meta = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("{}: no such file or directory", path.display()),
        _ => format!("{}: {error}", path.display()),
    })?;
    let kind = meta.file_type();
    if kind.is_dir() {
        return Ok(SourceKind::Directory);
    }
    if kind.is_file() {
        return Ok(SourceKind::File);
    }
    let what = if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_block_device() || kind.is_char_device() {
        "a device"
    } else {
        "neither a file nor a directory"
    };
    Err(format!("{} is {what}; give an .rvf file or a directory of them", path.display()))
}

/// What can be mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// One store.
    File,
    /// Every store in a directory.
    Directory,
}

/// What is mounted.
#[derive(Debug)]
pub enum Source {
    /// One store; its directory is the mount's top.
    File(Arc<StoreDir>),
    /// A directory of stores.
    Directory(Box<Directory>),
}

impl Source {
    /// The store of that number.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it is gone; why it cannot be opened otherwise.
    pub fn store(&self, id: StoreId) -> Result<Arc<StoreDir>, Error> {
        match self {
            Self::File(dir) if dir.id == id => Ok(dir.clone()),
            Self::File(_) => Err(Error::NotFound),
            Self::Directory(directory) => directory.store(id),
        }
    }

    /// Stores that are open now.
    #[must_use]
    pub fn open_stores(&self) -> Vec<Arc<StoreDir>> {
        match self {
            Self::File(dir) => vec![dir.clone()],
            Self::Directory(directory) => {
                // Not while the table is locked: a store may be in the middle of being opened.
                let slots: Vec<_> = directory.slots.read().by_name.values().cloned().collect();
                slots.iter().filter_map(|slot| slot.get()).collect()
            }
        }
    }
}

/// Called with every store that a directory opens.
pub type Opened = Box<dyn Fn(&Arc<StoreDir>) + Send + Sync>;

/// A directory of stores. Each is opened when it is first looked at.
pub struct Directory {
    /// The directory.
    pub path: PathBuf,
    settings: Arc<Settings>,
    slots: RwLock<Slots>,
    next: AtomicU32,
    changed: RwLock<SystemTime>,
    opened: RwLock<Option<Opened>>,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("path", &self.path).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Slots {
    by_name: BTreeMap<String, Arc<Slot>>,
    by_id: BTreeMap<StoreId, Arc<Slot>>,
}

/// A store that is opened when it is first looked at.
#[derive(Debug)]
pub(crate) struct Slot {
    id: StoreId,
    name: String,
    path: PathBuf,
    state: Mutex<Option<Result<Arc<StoreDir>, Failure>>>,
}

impl Slot {
    /// For the store in `path`, shown as `name` below the mountpoint.
    pub(crate) fn new(id: StoreId, name: String, path: PathBuf) -> Self {
        Self { id, name, path, state: Mutex::new(None) }
    }

    pub(crate) fn id(&self) -> StoreId {
        self.id
    }

    /// The store, if it is open.
    pub(crate) fn get(&self) -> Option<Arc<StoreDir>> {
        self.state.lock().as_ref()?.as_ref().ok().cloned()
    }

    /// The same without waiting for somebody who is opening it.
    pub(crate) fn get_now(&self) -> Option<Arc<StoreDir>> {
        self.state.try_lock()?.as_ref()?.as_ref().ok().cloned()
    }

    /// The store, opened when it was not yet, or why it cannot be.
    pub(crate) fn open(
        &self,
        settings: &Arc<Settings>,
        told: &RwLock<Option<Opened>>,
    ) -> Result<Arc<StoreDir>, Error> {
        let mut state = self.state.lock();
        match &*state {
            Some(Ok(dir)) => return Ok(dir.clone()),
            // A file that makes no sense is read again once it has changed.
            Some(Err(failure)) if failure.blamed.is_some() && failure.blamed == stamp(&self.path) => {
                return Err(failure.error());
            }
            Some(Err(_)) | None => {}
        }
        let stamp = stamp(&self.path);
        let shown_as = settings.mountpoint.join(&self.name);
        let result = StoreDir::open(self.id, &self.path, shown_as, settings.clone())
            .map_err(|error| Failure::new(&self.path, &error, stamp));
        if let (Ok(dir), Some(told)) = (&result, &*told.read()) {
            told(dir);
        }
        *state = Some(result.clone());
        result.map_err(|failure| failure.error())
    }
}

/// Why a store cannot be opened.
#[derive(Debug, Clone)]
struct Failure {
    reason: Reason,
    /// The file that is to blame, so that it is not read again before it has changed. `None` where the file is not: what
    /// the system or a permission refuses now it may allow in a moment, and the file would look the same.
    blamed: Option<Stamp>,
}

#[derive(Debug, Clone)]
enum Reason {
    /// The file makes no sense.
    Damaged(String),
    /// It may not be opened, whatever is in it.
    Denied(String),
    /// The system's number.
    System(String, i32),
}

impl Failure {
    fn new(path: &Path, error: &Error, stamp: Option<Stamp>) -> Self {
        let family = match error {
            Error::Store(error) => error.family(),
            _ => Family::Environment,
        };
        match family {
            Family::Corruption => Self { reason: Reason::Damaged(error.to_string()), blamed: stamp },
            Family::Policy => Self { reason: Reason::Denied(error.to_string()), blamed: None },
            _ => Self { reason: Reason::System(path.display().to_string(), to_errno(error)), blamed: None },
        }
    }

    fn error(&self) -> Error {
        match &self.reason {
            Reason::Damaged(what) => Error::Damaged { what: what.clone() },
            Reason::Denied(what) => Error::denied(what.as_str()),
            Reason::System(what, errno) => Error::io(what.as_str(), io::Error::from_raw_os_error(*errno)),
        }
    }
}

/// How long ago the content of a file was changed; `None` when the clock says that it will be.
pub(crate) fn age(stamp: &Stamp) -> Option<Duration> {
    time(stamp).elapsed().ok()
}

/// When the content of a file was changed.
pub(crate) fn time(stamp: &Stamp) -> SystemTime {
    let nanos = u32::try_from(stamp.modified.1).unwrap_or(0);
    let since = u64::try_from(stamp.modified.0).map_or(Duration::ZERO, |s| Duration::new(s, nanos));
    SystemTime::UNIX_EPOCH + since
}

pub(crate) fn stamp(path: &Path) -> Option<Stamp> {
    Some(Stamp::of(&rvf_cow::reach(path).ok()?.meta))
}

/// The file behind an entry of a directory, if it may be a store: the path that a compaction may replace and that a
/// lock file lies beside is the file's own, not that of a symlink to it. A link that cannot be followed is shown with
/// its reason; one that leads nowhere is not.
fn file_of(entry: &std::fs::DirEntry) -> Option<PathBuf> {
    let path = entry.path();
    let kind = entry.file_type().ok()?;
    if !kind.is_symlink() {
        return kind.is_file().then_some(path);
    }
    match rvf_cow::reach(&path) {
        Ok(reached) if !reached.meta.is_file() => None,
        Ok(_) => rvf_cow::resolve(&path).ok(),
        Err(StoreError::NotFound { .. }) => None,
        Err(_) => Some(path),
    }
}

impl Directory {
    /// Lists a directory; opens nothing yet.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path, settings: Arc<Settings>) -> std::io::Result<Self> {
        let directory = Self {
            path: path.to_path_buf(),
            settings,
            slots: RwLock::new(Slots::default()),
            next: AtomicU32::new(0),
            changed: RwLock::new(SystemTime::now()),
            opened: RwLock::new(None),
        };
        directory.rescan()?;
        Ok(directory)
    }

    /// Sets who is told about stores being opened.
    pub fn on_open(&self, opened: Opened) {
        *self.opened.write() = Some(opened);
    }

    /// Looks at the directory again. Gives the names that came or went.
    ///
    /// # Errors
    /// When it cannot be read; what is known stays then.
    pub fn rescan(&self) -> std::io::Result<Vec<String>> {
        let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut entries: Vec<(PathBuf, PathBuf)> = std::fs::read_dir(&self.path)?
            .flatten()
            .filter(|entry| has_store_extension(&entry.path()))
            // What becomes a branch when its copy is whole.
            .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(PENDING.as_bytes()))
            .filter_map(|entry| Some((entry.path(), file_of(&entry)?)))
            .collect();
        entries.sort();
        for (path, file) in entries {
            let (Some(stem), Some(full)) =
                (path.file_stem().and_then(|s| s.to_str()), path.file_name().and_then(|s| s.to_str()))
            else {
                tracing::warn!(path = %path.display(), "left out: its name is not UTF-8");
                continue;
            };
            // No entry of a directory is called `.` or `..`.
            let name = if matches!(stem, "." | "..") || found.contains_key(stem) { full } else { stem };
            found.insert(name.to_owned(), file);
        }
        let mut slots = self.slots.write();
        let mut changed: Vec<String> = Vec::new();
        let Slots { by_name, by_id } = &mut *slots;
        by_name.retain(|name, slot| {
            let stays = found.get(name) == Some(&slot.path);
            if !stays {
                changed.push(name.clone());
                by_id.remove(&slot.id);
            }
            stays
        });
        for (name, path) in found {
            if !by_name.contains_key(&name) {
                let id = StoreId(self.next.fetch_add(1, Ordering::Relaxed));
                let slot = Arc::new(Slot::new(id, name.clone(), path));
                by_name.insert(name.clone(), slot.clone());
                by_id.insert(id, slot);
                changed.push(name);
            }
        }
        if !changed.is_empty() {
            *self.changed.write() = SystemTime::now();
        }
        Ok(changed)
    }

    /// When stores last came or went.
    #[must_use]
    pub fn changed(&self) -> SystemTime {
        *self.changed.read()
    }

    /// Names and numbers of all stores.
    #[must_use]
    pub fn list(&self) -> Vec<(String, StoreId)> {
        self.slots.read().by_name.iter().map(|(name, slot)| (name.clone(), slot.id)).collect()
    }

    /// The number of a name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<StoreId> {
        self.slots.read().by_name.get(name).map(|slot| slot.id)
    }

    fn slot(&self, id: StoreId) -> Option<Arc<Slot>> {
        self.slots.read().by_id.get(&id).cloned()
    }

    /// Whether the number still belongs to a file.
    #[must_use]
    pub fn has(&self, id: StoreId) -> bool {
        self.slot(id).is_some()
    }

    fn store(&self, id: StoreId) -> Result<Arc<StoreDir>, Error> {
        let slot = self.slot(id).ok_or(Error::NotFound)?;
        slot.open(&self.settings, &self.opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_known_in_any_case() {
        for name in ["a.rvf", "a.RVF", "b.rvdna", "c.rvtext", "d.rvgraph", "e.rvvis"] {
            assert!(has_store_extension(Path::new(name)), "{name}");
        }
        for name in ["rvf", "a.rvf.lock", "a.txt", ".rvf"] {
            assert!(!has_store_extension(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn no_store_is_called_as_a_directory_itself() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["..rvf", "...rvf", "a.rvf"] {
            std::fs::write(dir.path().join(name), "").expect("a file");
        }
        let directory = Directory::open(dir.path(), Arc::new(Settings::default())).expect("listed");
        let names: Vec<String> = directory.list().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["...rvf", "..rvf", "a"]);
    }

    #[test]
    fn only_what_a_file_is_to_blame_for_is_remembered() {
        let path = PathBuf::from("a.rvf");
        let at = stamp(Path::new("/"));
        assert!(at.is_some());
        let full = StoreError::io(&path, "open", io::Error::from_raw_os_error(libc::EMFILE));
        let noise = StoreError::NotRvf { path: path.clone(), reason: "x".into(), code: 0 };
        let own = StoreError::Policy { what: "x".into() };
        for (error, errno, blamed) in
            [(full, libc::EMFILE, None), (noise, libc::EUCLEAN, at), (own, libc::EPERM, None)]
        {
            let failure = Failure::new(&path, &Error::Store(error), at);
            assert_eq!(failure.blamed, blamed);
            assert_eq!(to_errno(&failure.error()), errno);
        }
    }

    #[test]
    fn a_source_must_be_a_file_or_a_directory() {
        assert_eq!(kind_of(Path::new("/")), Ok(SourceKind::Directory));
        let error = kind_of(Path::new("/no/such/file.rvf")).expect_err("missing");
        assert_eq!(error, "/no/such/file.rvf: no such file or directory");
        assert!(kind_of(Path::new("/dev/null")).expect_err("a device").contains("is a device"));
    }
}
