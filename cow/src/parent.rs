//! Finding a copy-on-write child's parent in the state the child was made from.
//!
//! Files only grow, so that state is a prefix of the file. A pinned child knows its length; for a
//! child of the existing tools it is found again by its hash. A compaction replaces the file; it keeps
//! the old one under a hidden name beside it, where it is looked for next.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rvf_format::checksum::parent_hash;
use rvf_format::contents::{self, Cow};
use rvf_format::cow_map::CowMap;
use rvf_format::header::MAGIC_BYTES;
use rvf_format::layout;
use rvf_format::recover;
use rvf_format::{FileBytes, FileIdentity};

use crate::branch::pin::{self, Pin};
use crate::branch::resolve::Layer;
use crate::error::Error;
use crate::reach::reach;
use crate::source::{Given, open_regular};
use crate::view::View;

/// Files of a chain that are followed, the child among them.
pub(crate) const MAX_DEPTH: usize = 64;

/// Ends of a file that are tried, newest first, for a child that records no length: each costs a hash of 64 KiB.
const MAX_ENDS: usize = 8192;

/// The parent of a child, as it was when the child was made.
#[derive(Debug)]
pub(crate) struct Parent {
    pub(crate) view: Arc<View>,
    /// The ancestors with what is hidden of each, nearest first.
    pub(crate) layers: OnceLock<Result<Vec<Layer>, Missing>>,
    /// Whether the file is, byte for byte, what it was when the child was made: the existing tools need that.
    pub(crate) unchanged: bool,
}

/// Why the parent cannot be read, in one sentence that names the file wanted.
pub(crate) type Missing = String;

/// The parent's file, and how much of it belonged to the child's state.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<File>,
    pub(crate) meta: Metadata,
    pub(crate) len: u64,
    /// Bytes of the file.
    pub(crate) whole: u64,
}

impl Parent {
    pub(crate) fn new(view: Arc<View>, unchanged: bool) -> Self {
        Self { view, layers: OnceLock::new(), unchanged }
    }
}

/// The directory that relative parent paths start from.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// The hidden name under which an old state of `parent` is kept for the children with this key.
pub(crate) fn kept_name(parent: &Path, key: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(parent.file_stem().unwrap_or_default());
    name.push(format!(".{key}.pinned"));
    parent.with_file_name(name)
}

/// The key of a child: from its pin, or from the hash that the existing tools store.
pub(crate) fn key_of(cow: &Cow, pin: Option<&Pin>) -> String {
    pin.map_or_else(|| pin::key_of(&cow.map.base_file_hash), Pin::key)
}

/// Finds a child's parent in the state that the child was made from. With a pin O(segments of that state); otherwise
/// states are tried from the newest back. `visited` holds the files that led here.
pub(crate) fn find(
    child: &Path,
    cow: &Cow,
    identity: Option<&FileIdentity>,
    pin: Option<&Pin>,
    visited: &[(u64, u64)],
) -> Result<Found, Missing> {
    check_records(cow, identity, pin, visited)?;
    find_at(&directory_of(child).join(&cow.map.parent_path), cow, pin, visited)
}

/// The state that a child was made from, in the file `path` of its parent or where a compaction of that file keeps it.
pub(crate) fn find_at(
    path: &Path,
    cow: &Cow,
    pin: Option<&Pin>,
    visited: &[(u64, u64)],
) -> Result<Found, Missing> {
    let kept = kept_name(path, &key_of(cow, pin));
    match state_in(path, cow, pin, visited) {
        Ok(found) => Ok(found),
        // A compaction of the parent leaves its old state here.
        Err(missing) => state_in(&kept, cow, pin, visited).map_err(|_| match kept.file_name() {
            // It is hidden, so `mv *` leaves it behind. Neither place may be one that this process serves.
            Some(name) if reach(path).is_ok() && matches!(reach(&kept), Err(Error::NotFound { .. })) => format!(
                "{missing}; a compaction keeps that state as {}, a hidden file, which has to come along when files are moved",
                name.display()
            ),
            _ => missing,
        }),
    }
}

/// As [`find`], where the parent is not found by its path but is the next of the files given.
pub(crate) fn find_given(
    next: Option<&Given>,
    cow: &Cow,
    identity: Option<&FileIdentity>,
    pin: Option<&Pin>,
    visited: &[(u64, u64)],
) -> Result<Found, Missing> {
    check_records(cow, identity, pin, visited)?;
    let given = next.ok_or_else(|| format!("its parent {} is not among the devices", cow.map.parent_path))?;
    state_of(given.clone(), cow, pin, visited)
}

/// What a child says about its parent must be the same in all places.
fn check_records(
    cow: &Cow,
    identity: Option<&FileIdentity>,
    pin: Option<&Pin>,
    visited: &[(u64, u64)],
) -> Result<(), Missing> {
    if visited.len() >= MAX_DEPTH {
        return Err(format!("the chain of parents is longer than {MAX_DEPTH}"));
    }
    let disagree =
        |id: &[u8; 16], hash: &[u8; 32]| *id != cow.map.base_file_id || *hash != cow.map.base_file_hash;
    if identity.is_some_and(|i| disagree(&i.parent_id, &i.parent_hash))
        || pin.is_some_and(|p| p.parent.file_id != cow.map.base_file_id)
    {
        return Err("its two records of the parent disagree".into());
    }
    Ok(())
}

/// As [`find`], for an ancestor in an older state: that one says where its parent was then. The file may have been led to
/// another place since, so its newest state is asked too, also where a compaction put a new file in the place of the kept one:
/// at `place`.
pub(crate) fn find_moved(
    view: &View,
    cow: &Cow,
    place: &Path,
    identity: Option<&FileIdentity>,
    visited: &[(u64, u64)],
) -> Option<Found> {
    let pin = view.pin.as_ref()?;
    [view.path.as_path(), place].into_iter().find_map(|path| {
        let (file, meta) = open_regular(path, false).ok()?;
        let bytes = FileBytes::map(&file, meta.len()).ok().filter(|bytes| bytes.starts_with(&MAGIC_BYTES))?;
        let opened = recover::open(&bytes);
        let newest = opened.manifest.as_ref()?.manifest.identity?;
        let led = contents::branch_state(&bytes, &opened)?;
        if Some(newest.file_id) != identity.map(|identity| identity.file_id)
            || led.map.parent_path == cow.map.parent_path
        {
            return None;
        }
        let map = CowMap { parent_path: led.map.parent_path, ..cow.map.clone() };
        find(path, &Cow { map, ..cow.clone() }, identity, Some(pin), visited).ok()
    })
}

/// The state that a child was made from, if that file holds it.
pub(crate) fn state_in(
    path: &Path,
    cow: &Cow,
    pin: Option<&Pin>,
    visited: &[(u64, u64)],
) -> Result<Found, Missing> {
    let (file, meta) = open_regular(path, false).map_err(|e| {
        format!("its parent cannot be opened: {e}; put it back there, or name its new place with reparent")
    })?;
    let len = meta.len();
    state_of(Given { path: path.to_path_buf(), file: Arc::new(file), meta, len }, cow, pin, visited)
}

fn state_of(given: Given, cow: &Cow, pin: Option<&Pin>, visited: &[(u64, u64)]) -> Result<Found, Missing> {
    let Given { path, file, meta, len: whole } = given;
    let wanted = path.display().to_string();
    if visited.contains(&(meta.dev(), meta.ino())) {
        return Err(format!("{wanted} is its own ancestor"));
    }
    let hash = cow.map.base_file_hash;
    let bytes = FileBytes::map(&file, whole).map_err(|e| format!("{wanted}: {e}"))?;
    let matches = |end: usize| bytes.get(..end).is_some_and(|state| parent_hash(state) == hash);
    let found = |len: u64| Found { path, file, meta, len, whole };
    if let Some(pin) = pin {
        let prefix = usize::try_from(pin.parent.prefix).ok().filter(|end| matches(*end));
        let prefix = prefix.and_then(|end| bytes.get(..end));
        if prefix.is_some_and(|prefix| pin::digest(prefix, &pin.parent.file_id) == pin.parent.digest) {
            return Ok(found(pin.parent.prefix));
        }
        let what = if (bytes.len() as u64) < pin.parent.prefix {
            "is shorter than"
        } else {
            "no longer starts with"
        };
        return Err(format!(
            "{wanted} {what} the {} bytes it was made from: it is another file, or was rewritten or cut since; \
             restore the file of that state, or name its place with reparent",
            pin.parent.prefix
        ));
    }
    let len = bytes.len();
    if matches(len) {
        return Ok(found(len as u64));
    }
    // Any file may stand there; to look through a large one that is no store would take long.
    if !bytes.starts_with(&MAGIC_BYTES) {
        return Err(format!(
            "{wanted} is not the parent it was made from: it does not begin like an RVF file"
        ));
    }
    match state_with(&bytes, &hash) {
        Ok(Some(end)) => Ok(found(end as u64)),
        Ok(None) => Err(format!(
            "{wanted} is not the parent it was made from, or was rewritten since (no state of it has the hash recorded)"
        )),
        Err(many) => Err(format!(
            "{wanted} {many}; restore the file of the state it was made from, or make the branch again"
        )),
    }
}

/// A file has more states than are tried.
#[derive(Debug, thiserror::Error)]
#[error(
    "has so many states that only the newest {MAX_ENDS} ends of segments were tried, and none has the hash recorded"
)]
pub(crate) struct TooManyStates;

/// How much of a file has the hash that a child of the existing tools records: all, or up to an earlier end of a segment.
pub(crate) fn state_with(bytes: &[u8], hash: &[u8; 32]) -> Result<Option<usize>, TooManyStates> {
    if parent_hash(bytes) == *hash {
        return Ok(Some(bytes.len()));
    }
    let layout = layout::walk(bytes);
    let mut ends = layout.segments().rev().flat_map(|s| [s.raw.end, s.payload.end]);
    let found = ends
        .by_ref()
        .take(MAX_ENDS)
        .filter_map(|end| usize::try_from(end).ok())
        .find(|end| bytes.get(..*end).is_some_and(|state| parent_hash(state) == *hash));
    match found {
        None if ends.next().is_some() => Err(TooManyStates),
        found => Ok(found),
    }
}

impl View {
    /// How many vectors of its ancestors a child shows; 0 for other files. O(edits) on first use.
    #[must_use]
    pub fn inherited_count(&self) -> u64 {
        self.resolved().inherited()
    }

    /// The parent's path and why it cannot be read, for a copy-on-write child.
    #[must_use]
    pub fn parent_state(&self) -> Option<Result<PathBuf, String>> {
        self.parent.as_ref().map(|p| match p {
            Ok(parent) => Ok(parent.view.path.clone()),
            Err(missing) => Err(missing.clone()),
        })
    }

    /// The parent in the state that a copy-on-write child was made from.
    #[must_use]
    pub fn parent_view(&self) -> Option<&Arc<View>> {
        self.parent.as_ref()?.as_ref().ok().map(|parent| &parent.view)
    }

    /// The file that a copy-on-write child names as its parent, whose newest state a merge changes. The state that the child
    /// stands on may lie elsewhere by then, under the name that a compaction keeps it by.
    #[must_use]
    pub fn parent_file(&self) -> Option<PathBuf> {
        let cow = self.contents.cow.as_ref()?;
        Some(directory_of(&self.path).join(&cow.map.parent_path))
    }

    /// The file and its ancestors, nearest first, as far as they can be read.
    pub fn chain(&self) -> impl Iterator<Item = &View> {
        std::iter::successors(Some(self), |view| view.parent_view().map(|parent| &**parent))
    }

    /// When what the store shows was last changed, as far as times tell: a branch without a commit of its own shows what its
    /// parent shows, and if nothing came after that in the parent's file, since when that does.
    #[must_use]
    pub fn shown_since(&self) -> std::time::SystemTime {
        let mut view = self;
        while let (0, Some(_), Some(Ok(parent))) = (view.epoch(), &view.pin, &view.parent)
            && parent.unchanged
        {
            view = &parent.view;
        }
        view.modified()
    }

    /// Which state of its parent a child was made from, for a child that this program made.
    #[must_use]
    pub fn pin(&self) -> Option<&Pin> {
        self.pin.as_ref()
    }

    /// What the store was derived from and how: the pin of a branch, or the same record of a child that does not show its
    /// parent but has vectors of its own.
    #[must_use]
    pub fn derived(&self) -> Option<&Pin> {
        self.pin.as_ref().or(self.origin.as_ref())
    }
}
