//! Keeping a parent's old state alive when a compaction replaces its file.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rvf_format::FileBytes;
use rvf_format::contents::{self, Cow};
use rvf_format::header::MAGIC_BYTES;
use rvf_format::recover::{self, Opened};

use crate::branch::pin::{self, Pin};
use crate::error::Error;
use crate::parent::{directory_of, kept_name, key_of, state_in};
use crate::scratch::{PENDING, cannot_link, discard};
use crate::source::{open_regular, sync_parent};
use crate::view::View;

/// Extensions that stores have.
const EXTENSIONS: [&str; 5] = ["rvf", "rvdna", "rvtext", "rvgraph", "rvvis"];

/// Largest file beside a store that is looked through for a manifest when it does not begin like an RVF file.
const MAX_SEARCHED: u64 = 1 << 30;

/// A child of a store, found by lineage.
#[derive(Debug)]
struct Child {
    path: PathBuf,
    file_id: [u8; 16],
    depth: u32,
    cow: Cow,
    pin: Option<Pin>,
}

impl Child {
    fn key(&self) -> String {
        key_of(&self.cow, self.pin.as_ref())
    }
}

/// A branch of a store that lies beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// Its file.
    pub path: PathBuf,
    /// Its file id.
    pub file_id: [u8; 16],
    /// Generations above it.
    pub depth: u32,
    /// Its state of the parent; `None` for one that the existing tools made.
    pub pin: Option<Pin>,
    /// Whether it was frozen.
    pub frozen: bool,
}

impl View {
    /// The branches of the store in its directory, whoever made them, by path. Files that cannot be read are passed over.
    /// O(segments of all stores in the directory).
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn branches(&self) -> Result<Vec<Branch>, Error> {
        let (children, _) = children_of(&self.path, &own_id(self), Some((self.stamp.dev, self.stamp.ino)))?;
        let hidden = |path: &Path| {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            path.extension().is_some_and(|e| e == "pinned") || name.starts_with(PENDING.as_bytes())
        };
        let visible = children.into_iter().filter(|child| !hidden(&child.path));
        let mut branches: Vec<Branch> = visible
            .map(|child| Branch {
                path: child.path,
                file_id: child.file_id,
                depth: child.depth,
                pin: child.pin,
                frozen: child.cow.map.frozen,
            })
            .collect();
        branches.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(branches)
    }
}

/// The hidden names that the children of a store need, and whether the whole directory could be read.
#[derive(Debug)]
pub(crate) struct Kept {
    names: Vec<PathBuf>,
    /// Whose states they are.
    file_id: Option<[u8; 16]>,
    certain: bool,
}

/// Gives the file of `view` a hidden name for every child that stands on it, durably. Call it with the write lock held,
/// before another file takes the name. O(files of the directory).
pub(crate) fn keep_for_children(view: &View) -> Result<Kept, Error> {
    let own = (view.stamp.dev, view.stamp.ino);
    let (children, unread) = children_of(&view.path, &own_id(view), Some(own))?;
    let certain = unread.is_empty();
    // One that cannot be read for now (too many open files, a failing disk) may be a child that would be broken.
    if let Some(error) = unread.into_iter().find(may_be_read_later) {
        return Err(error);
    }
    let mut kept = Kept { names: Vec::new(), file_id: file_id(&view.opened), certain };
    let mut made: Vec<PathBuf> = Vec::new();
    for child in &children {
        let name = kept_name(&view.path, &child.key());
        if state_in(&name, &child.cow, child.pin.as_ref(), &[]).is_ok() {
            kept.names.push(name);
            continue;
        }
        if state_in(&view.path, &child.cow, child.pin.as_ref(), &[]).is_err() {
            // It stands on something else, or on nothing any more; this compaction changes nothing for it.
            continue;
        }
        if let Err(error) = std::fs::hard_link(&view.path, &name) {
            made.iter().for_each(|name| discard(name));
            return Err(not_kept(view, &children, &name, error));
        }
        made.push(name.clone());
        kept.names.push(name);
    }
    if !made.is_empty() {
        sync_parent(&view.path).inspect_err(|_| made.iter().for_each(|name| discard(name)))?;
    }
    Ok(kept)
}

fn may_be_read_later(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() != std::io::ErrorKind::PermissionDenied)
}

/// Why the old state cannot be kept: something about the names or the filesystem, which somebody has to change, or the disk.
fn not_kept(view: &View, children: &[Child], name: &Path, error: std::io::Error) -> Error {
    if error.kind() != std::io::ErrorKind::AlreadyExists && !cannot_link(&error) {
        return Error::io(name, "link", error);
    }
    let names: Vec<String> = children.iter().map(|child| child.path.display().to_string()).collect();
    Error::Policy {
        what: format!(
            "{}: not compacted, because its old state cannot be kept for {} ({}: {error})",
            view.path.display(),
            names.join(", "),
            name.display()
        ),
    }
}

/// Removes hidden names of earlier states that no child needs any more. Only ever called after the new file is in place.
pub(crate) fn drop_unneeded(path: &Path, kept: &Kept) {
    let Some(file_id) = kept.file_id.filter(|_| kept.certain) else { return };
    for old in named_as_kept(path) {
        if kept.names.contains(&old) || file_id_of(&old) != Some(file_id) {
            continue;
        }
        match std::fs::remove_file(&old) {
            Ok(()) => tracing::info!(path = %old.display(), "removed an old state that no branch needs"),
            Err(error) => tracing::warn!(path = %old.display(), %error, "cannot remove an old state"),
        }
    }
}

/// Removes what compactions kept of the store in `path`, whose id is `file_id`, and no child beside it needs: of a store that is
/// removed or gets another name, whose next compaction would not find it. O(files of the directory) where anything was kept.
pub fn drop_kept(path: &Path, file_id: &[u8; 16]) {
    if kept_states(path, file_id).is_empty() {
        return;
    }
    let Ok((children, unread)) = children_of(path, file_id, None) else { return };
    let names = children.iter().map(|child| kept_name(path, &child.key())).collect();
    drop_unneeded(path, &Kept { names, file_id: Some(*file_id), certain: unread.is_empty() });
}

/// What compactions kept of the store in `path` whose id is `file_id`. Another store may have had this name before, and have
/// branches yet: its states are not among them.
#[must_use]
pub fn kept_states(path: &Path, file_id: &[u8; 16]) -> Vec<PathBuf> {
    named_as_kept(path).into_iter().filter(|kept| file_id_of(kept).as_ref() == Some(file_id)).collect()
}

/// Gives old states of a store the hidden names beside `to` by which its children look for them once they are led there. Gives
/// these names.
///
/// # Errors
/// [`Error::Io`], when none was given; also where another file has one of the names.
pub fn link_kept(kept: &[PathBuf], to: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut made: Vec<PathBuf> = Vec::new();
    for old in kept {
        let Some(key) = key_of_kept(old) else { continue };
        let new = kept_name(to, key);
        match std::fs::hard_link(old, &new) {
            // Of a rename that was cut off.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && is_same(old, &new) => {}
            Err(error) => {
                made.iter().for_each(|name| discard(name));
                return Err(Error::io(&new, "link", error));
            }
            Ok(()) => {}
        }
        made.push(new);
    }
    Ok(made)
}

fn is_same(a: &Path, b: &Path) -> bool {
    let place = |path: &Path| path.symlink_metadata().map(|meta| (meta.dev(), meta.ino())).ok();
    place(a).is_some_and(|a| place(b) == Some(a))
}

/// Files beside a store under the names that its compactions give to old states.
fn named_as_kept(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory_of(path)) else { return Vec::new() };
    let names = entries.flatten().map(|entry| path.with_file_name(entry.file_name()));
    names.filter(|name| key_of_kept(name).is_some_and(|key| kept_name(path, key) == *name)).collect()
}

fn file_id(opened: &Opened) -> Option<[u8; 16]> {
    Some(opened.manifest.as_ref()?.manifest.identity?.file_id)
}

fn own_id(view: &View) -> [u8; 16] {
    file_id(&view.opened).unwrap_or([0; 16])
}

fn file_id_of(path: &Path) -> Option<[u8; 16]> {
    let (file, meta) = open_regular(path, false).ok()?;
    let bytes = FileBytes::map(&file, meta.len()).ok()?;
    file_id(&recover::open(&bytes))
}

/// Whether this is the hidden name of a state that a compaction kept. What is changed under it is lost when no child needs
/// that state any more.
pub(crate) fn is_kept(path: &Path) -> bool {
    key_of_kept(path).is_some()
}

fn key_of_kept(path: &Path) -> Option<&str> {
    path.file_name().and_then(|name| name.to_str()).and_then(key_in)
}

/// The key in a name that [`kept_name`] makes.
fn key_in(name: &str) -> Option<&str> {
    let (_, key) = name.strip_prefix('.')?.strip_suffix(".pinned")?.rsplit_once('.')?;
    (key.len() == 8 && key.bytes().all(|b| b.is_ascii_hexdigit())).then_some(key)
}

/// The children of a store in the directory of `path`, the kept states of compacted children among them: a branch of such a
/// child resolves through it. With them, why others cannot be told for children or strangers. The store's own file is none.
fn children_of(
    path: &Path,
    file_id: &[u8; 16],
    own: Option<(u64, u64)>,
) -> Result<(Vec<Child>, Vec<Error>), Error> {
    let directory = directory_of(path);
    let entries = std::fs::read_dir(directory).map_err(|e| Error::io(directory, "list", e))?;
    let mut children = Vec::new();
    let mut unread = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| Error::io(directory, "list", e))?.path();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
        if extension != "pinned" && !EXTENSIONS.contains(&extension.as_str()) {
            continue;
        }
        match child_at(&path, file_id, own) {
            Ok(Some(child)) => children.push(child),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "cannot tell whether this is a branch");
                unread.push(error);
            }
        }
    }
    Ok((children, unread))
}

fn child_at(path: &Path, parent_id: &[u8; 16], own: Option<(u64, u64)>) -> Result<Option<Child>, Error> {
    let (file, meta) = match open_regular(path, false) {
        Err(Error::NotRegular { .. } | Error::NotFound { .. }) => return Ok(None),
        other => other?,
    };
    if own == Some((meta.dev(), meta.ino())) {
        return Ok(None);
    }
    let bytes = FileBytes::map(&file, meta.len()).map_err(|e| Error::io(path, "map", e))?;
    if meta.len() > MAX_SEARCHED && !bytes.starts_with(&MAGIC_BYTES) {
        let what = "does not begin like an RVF file, and is too large to be looked through".to_owned();
        return Err(Error::Damaged { path: path.to_path_buf(), what });
    }
    let opened = recover::open(&bytes);
    let Some(located) = &opened.manifest else { return Ok(None) };
    let identity = match &located.manifest.identity {
        Some(identity) if identity.parent_id == *parent_id => identity,
        _ => return Ok(None),
    };
    let Some(cow) = contents::branch_state(&bytes, &opened) else {
        // Derived without sharing rows, or damaged beyond finding out.
        return Ok(None);
    };
    let pin = pin::read(&bytes, &opened).map_err(|what| Error::Damaged { path: path.to_path_buf(), what })?;
    Ok(Some(Child {
        path: path.to_path_buf(),
        file_id: identity.file_id,
        depth: identity.lineage_depth,
        cow,
        pin,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_names_are_told_from_others() {
        assert_eq!(key_in(".store.0a1b2c3d.pinned"), Some("0a1b2c3d"));
        assert_eq!(key_in(".a.b.0a1b2c3d.pinned"), Some("0a1b2c3d"));
        for other in
            ["store.0a1b2c3d.pinned", ".store.pinned", ".store.0a1b2c3.pinned", ".store.0a1b2c3x.pinned"]
        {
            assert_eq!(key_in(other), None, "{other}");
        }
        assert_eq!(kept_name(Path::new("/d/a.b.rvf"), "0a1b2c3d"), Path::new("/d/.a.b.0a1b2c3d.pinned"));
    }
}
