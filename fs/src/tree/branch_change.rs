//! What renaming, removing and changing the mode of a branch do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::branch_copy::refused;
use super::{Caller, Change, Tree};
use crate::branches::content::{meant_name, sync_directory};
use crate::branches::family::Found;
use crate::branches::table::{MAIN, Row, What};
use crate::errno::Error;
use crate::handle::Body;
use crate::node::{BranchNo, Item, Node};
use crate::store_dir::StoreDir;

/// What a rename in `branches/` does, once it is known to be one.
pub(super) type Moved = Box<dyn FnOnce(&Tree) -> Result<(), Error> + Send>;

impl Tree {
    /// Removes a name in a branch: from a copy for good, from a branch until the branch is removed or stays.
    pub(super) fn unlink_in_branch(
        &self,
        dir: &Arc<StoreDir>,
        parent: Node,
        item: Item,
        name: &str,
    ) -> Result<(), Error> {
        match item {
            Item::Part(no) | Item::PartLink(no) => {
                let part = dir.branches.part(no).ok_or(Error::NotFound)?;
                if let Some(pending) = part.pending() {
                    pending.remove(&part.name());
                }
                dir.branches.drop_part(&part);
                if let Node::In(_, Item::Branch(of)) = parent {
                    dir.branches.drop_spare(of, name);
                }
                Ok(())
            }
            Item::Member(no, ..) | Item::Link(no, _) if no == MAIN => Err(refused(
                dir,
                Error::denied(format!("branches/main/{name}: main is the store itself and stays")),
            )),
            Item::Member(no, ..) | Item::Link(no, _) => {
                dir.branches.hide(no, name);
                Ok(())
            }
            _ => Err(Error::NotFound),
        }
    }

    /// Removes a branch, or gives a copy up.
    pub(super) fn remove_branch(&self, dir: &StoreDir, no: BranchNo) -> Result<(), Error> {
        if self.settings.read_only {
            return Err(Error::ReadOnly);
        }
        let remove = || {
            let row = Self::row(dir, no)?;
            match &row.what {
                What::Main => Err(Error::denied("branches/main is the store itself and stays")),
                What::Pending(_) => {
                    dir.branches.abandon(no);
                    Ok(())
                }
                What::File(found) => {
                    let children = children_of(dir, found);
                    if !children.is_empty() {
                        return Err(Error::NotEmpty {
                            what: format!(
                                "branches/{} has branches of its own: {}; remove or merge them first",
                                row.name,
                                children.join(", ")
                            ),
                        });
                    }
                    check_not_copied(dir, found)?;
                    // First, for nobody looks for them once the file is gone.
                    if let Some(kin) = found.kin {
                        rvf_cow::drop_kept(&found.path, &kin.file_id);
                    }
                    std::fs::remove_file(&found.path)
                        .map_err(|error| Error::io(found.path.display().to_string(), error))?;
                    let mut lock = found.path.clone().into_os_string();
                    lock.push(".lock");
                    // Left by existing tools, or by a writer that ended: it means nothing without the file.
                    let _ = std::fs::remove_file(lock);
                    sync_directory(dir.branches.family.directory())?;
                    dir.branches.removed(no);
                    self.branches.forget(dir.id, &found.path);
                    let name = found.path.display().to_string();
                    dir.events.push("branch-removed", dir.snap().view.epoch(), &[("file", &name)]);
                    Ok(())
                }
            }
        };
        remove().map_err(|error| refused(dir, error))
    }

    /// A rename in `branches/` or in a branch: what it does, or `None` when it is about something else.
    pub(super) fn branch_rename(
        &self,
        parent: u64,
        name: &str,
        new_parent: u64,
        new_name: &str,
        no_replace: bool,
    ) -> Option<Moved> {
        let (Ok(Node::In(id, from)), Ok(to)) = (self.node(parent), self.node(new_parent)) else {
            return None;
        };
        let about = matches!(from, Item::Branches | Item::Branch(_) | Item::Stores)
            || matches!(to, Node::In(_, Item::Branches | Item::Branch(_)));
        if !about {
            return None;
        }
        let (name, new_name) = (name.to_owned(), new_name.to_owned());
        let read_only = self.settings.read_only;
        Some(Box::new(move |tree: &Tree| {
            let dir = tree.store(id)?;
            if read_only {
                return Err(Error::ReadOnly);
            }
            let result = match from {
                Item::Branches if to == Node::In(id, from) => {
                    tree.rename_branch(&dir, &name, &new_name, no_replace)
                }
                Item::Branch(no) if to == Node::In(id, from) => {
                    tree.rename_part(&dir, no, &name, &new_name, no_replace)
                }
                _ => Err(Error::CrossDevice),
            };
            result.map_err(|error| refused(&dir, error))
        }))
    }

    fn rename_branch(
        &self,
        dir: &Arc<StoreDir>,
        name: &str,
        new: &str,
        no_replace: bool,
    ) -> Result<(), Error> {
        let own = dir.file_id();
        let row = dir.branches.named(own, name)?;
        if row.no == MAIN {
            return Err(Error::denied("branches/main is the store itself and keeps its name"));
        }
        if name == new {
            return Ok(());
        }
        dir.branches.check_name(new)?;
        if let Ok(target) = dir.branches.named(own, new) {
            // As rename(2): only an empty directory is replaced.
            match &target.what {
                What::Pending(pending) if !no_replace && pending.list().is_empty() => {
                    dir.branches.abandon(target.no);
                }
                _ if no_replace => return Err(Error::Exists { what: format!("branches/{new} exists") }),
                _ => {
                    return Err(Error::NotEmpty {
                        what: format!("branches/{new} exists and is not replaced; remove it first"),
                    });
                }
            }
        }
        let found = match &row.what {
            What::Pending(_) => {
                dir.branches.rename_pending(row.no, new);
                return Ok(());
            }
            What::File(found) => found,
            What::Main => return Err(Error::NotFound),
        };
        check_not_copied(dir, found)?;
        let path = dir.branches.family.path_of(new);
        let standing = self.standing_on(dir, found)?;
        if standing.is_empty() {
            if rvf_cow::link_or_move(&found.path, &path)? {
                remove(&found.path)?;
            }
            if let Some(kin) = found.kin {
                rvf_cow::drop_kept(&found.path, &kin.file_id);
            }
        } else {
            rename_with_branches(found, &path, &standing)?;
        }
        sync_directory(dir.branches.family.directory())?;
        dir.branches.renamed(row.no, &path);
        self.links_changed(dir.id, row.no);
        self.branches.forget(dir.id, &found.path);
        let names = [("from", name), ("to", new)];
        dir.events.push("branch-renamed", dir.snap().view.epoch(), &names);
        Ok(())
    }

    /// The branches of a branch that record its name, opened. None of them may be frozen.
    fn standing_on(&self, dir: &Arc<StoreDir>, found: &Found) -> Result<Vec<Arc<StoreDir>>, Error> {
        // One with vectors of its own does not record the place of its parent.
        let mut standing = Vec::new();
        for child in rows_below(dir, found) {
            let opened = self.branch_store(dir, &child)?;
            if !opened.store.view().is_child() {
                continue;
            }
            if let What::File(child) = &child.what
                && child.kin.is_some_and(|kin| kin.frozen)
            {
                return Err(Error::Busy {
                    what: format!("its branch {} is frozen and records its name", child.name),
                });
            }
            standing.push(opened);
        }
        Ok(standing)
    }

    fn rename_part(
        &self,
        dir: &Arc<StoreDir>,
        no: BranchNo,
        name: &str,
        new: &str,
        no_replace: bool,
    ) -> Result<(), Error> {
        let row = Self::row(dir, no)?;
        let pending = match &row.what {
            What::Pending(pending) => Some(pending.clone()),
            _ => row.copying.clone(),
        };
        let Some(pending) = pending else {
            if dir.branches.spare(no, name).is_some() && meant_name(name) == Some(new) {
                dir.branches.drop_spare(no, name);
                return Ok(());
            }
            return Err(Error::denied(format!(
                "branches/{}/{name}: the files of a branch keep their names",
                row.name
            )));
        };
        if no_replace && pending.named(new).is_some() {
            return Err(Error::Exists { what: format!("{new} exists") });
        }
        if let Some(replaced) = pending.rename_part(name, new)? {
            dir.branches.drop_part(&replaced);
        }
        match pending.named(new) {
            Some(part) => self.part_closed(dir, &part),
            None => Ok(()),
        }
    }

    /// Whether changing attributes commits something.
    #[must_use]
    pub fn setattr_takes_long(&self, ino: u64, change: Change) -> bool {
        change.mode.is_some() && matches!(self.inodes.node(ino), Some(Node::In(_, Item::Branch(_))))
    }

    /// Changes attributes of a branch or of something in it; `None` for other nodes.
    pub(super) fn branch_setattr(
        &self,
        dir: &Arc<StoreDir>,
        item: Item,
        fh: Option<u64>,
        change: Change,
        caller: Caller,
    ) -> Option<Result<(), Error>> {
        if !matches!(
            item,
            Item::Branch(_) | Item::Member(..) | Item::Link(..) | Item::Part(_) | Item::PartLink(_)
        ) {
            return None;
        }
        if self.settings.read_only {
            return Some(Err(Error::ReadOnly));
        }
        let result = match item {
            Item::Part(no) | Item::PartLink(no) => {
                let by_handle =
                    fh.and_then(|fh| self.handles.get(fh).ok()).and_then(|handle| match &handle.body {
                        Body::Part(part) => Some(part.clone()),
                        _ => None,
                    });
                by_handle.or_else(|| dir.branches.part(no)).ok_or(Error::Stale).map(|part| {
                    let len = part.attr().len;
                    match change.size {
                        Some(0) if len > 0 => part.truncate(),
                        // Some tools make room first, others leave out zeros at the end; what is written decides.
                        Some(size) => part.set_reach(size),
                        None => {}
                    }
                    part.set_attr(change.mode.map(|mode| mode & 0o777), change.mtime);
                })
            }
            Item::Member(..) | Item::Link(..) if change.size.is_some() => {
                Err(Error::denied("the files of a branch are views; data goes into its ingest/"))
            }
            Item::Member(no, member, _) => {
                if let Some(time) = change.mtime {
                    dir.branches.set_time(no, Some(member), time);
                }
                Ok(())
            }
            Item::Branch(no) => self.set_branch(dir, no, change, caller),
            _ => Ok(()),
        };
        Some(result.map_err(|error| refused(dir, error)))
    }

    /// `chmod a-w` freezes for good.
    fn set_branch(
        &self,
        dir: &Arc<StoreDir>,
        no: BranchNo,
        change: Change,
        caller: Caller,
    ) -> Result<(), Error> {
        let row = Self::row(dir, no)?;
        if let What::Pending(pending) = &row.what {
            pending.set_attr(change.mode.map(|mode| mode & 0o777), change.mtime);
            return Ok(());
        }
        if let Some(mode) = change.mode {
            let store = self.branch_store(dir, &row)?;
            let frozen = store.snap().view.frozen().is_some();
            let writable = mode & 0o222 != 0;
            // A tool that copies a frozen branch gives the copy the mode of what it copied, which is not meant to freeze it.
            let maker = dir.branches.thawed_by(no);
            let taken_over = maker.is_some()
                && maker == crate::sys::process_of(caller.thread)
                && store.snap().view.epoch() == 0;
            if writable && frozen {
                return Err(Error::denied(format!(
                    "branches/{} is frozen for good; copy it to go on from there",
                    row.name
                )));
            }
            if !writable && !frozen && !taken_over {
                store.store.freeze()?;
            }
        }
        if let Some(time) = change.mtime {
            dir.branches.set_time(no, None, time);
        }
        Ok(())
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    std::fs::remove_file(path).map_err(|error| Error::io(path.display().to_string(), error))
}

/// Renames a file that branches stand on. They find it, and what compactions kept of it, under the new names before the old ones
/// go; both are the same files until then.
fn rename_with_branches(found: &Found, to: &Path, standing: &[Arc<StoreDir>]) -> Result<(), Error> {
    let old = found.kin.map(|kin| rvf_cow::kept_states(&found.path, &kin.file_id)).unwrap_or_default();
    std::fs::hard_link(&found.path, to).map_err(|error| not_renamed(found, standing, to, error))?;
    let mut second = SecondNames(vec![to.to_path_buf()]);
    second.0.extend(rvf_cow::link_kept(&old, to)?);
    // Before a branch is led to them: it must not name what a crash may take away.
    sync_directory(to.parent().unwrap_or(Path::new(".")))?;
    lead(standing, &found.path, to, &mut second)?;
    second.stay();
    drop(SecondNames(old));
    remove(&found.path)
}

/// Second names of files, taken away again when this is dropped.
struct SecondNames(Vec<PathBuf>);

impl SecondNames {
    fn stay(&mut self) {
        self.0.clear();
    }
}

impl Drop for SecondNames {
    fn drop(&mut self) {
        for name in &self.0 {
            if let Err(error) = std::fs::remove_file(name) {
                tracing::warn!(path = %name.display(), %error, "a second name of a branch stays");
            }
        }
    }
}

/// Records the new place of a file in the branches that stand on it, in all or in none.
fn lead(standing: &[Arc<StoreDir>], from: &Path, to: &Path, second: &mut SecondNames) -> Result<(), Error> {
    for (at, child) in standing.iter().enumerate() {
        let Err(error) = child.store.reparent(to) else { continue };
        let back = standing.iter().take(at).try_for_each(|led| led.store.reparent(from).map(|_| ()));
        if let Err(error) = back {
            // Some know the one name, some the other; the file keeps both.
            tracing::warn!(path = %to.display(), %error, "a second name of a branch stays");
            second.stay();
        }
        return Err(error.into());
    }
    Ok(())
}

/// Why a branch with branches of its own does not get a second name, without which a crash could leave them without a parent.
fn not_renamed(found: &Found, standing: &[Arc<StoreDir>], path: &Path, error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::AlreadyExists {
        return Error::Exists { what: format!("{} exists", path.display()) };
    }
    if !rvf_cow::cannot_link(&error) {
        return Error::io(path.display().to_string(), error);
    }
    let names: Vec<String> = standing.iter().map(|child| child.store.path().display().to_string()).collect();
    Error::denied(format!(
        "branches/{} is not renamed, because {} record its name and this filesystem has no hard links ({error}); remove them first, \
         or unmount, rename the file and name its new place in them with rvf reparent",
        found.name,
        names.join(", ")
    ))
}

fn rows_below(dir: &StoreDir, found: &Found) -> Vec<Row> {
    let Some(kin) = found.kin else { return Vec::new() };
    let rows = dir.branches.list(dir.file_id()).unwrap_or_default();
    let below = |row: &Row| match &row.what {
        What::File(other) => {
            other.path != found.path && other.kin.is_some_and(|other| other.parent_id == kin.file_id)
        }
        _ => false,
    };
    rows.into_iter().filter(below).collect()
}

/// A copy that is not whole finds its parent by name, so the parent keeps it that long.
fn check_not_copied(dir: &StoreDir, found: &Found) -> Result<(), Error> {
    let into = found.kin.map(|kin| dir.branches.copied_into(kin.file_id)).unwrap_or_default();
    if into.is_empty() {
        return Ok(());
    }
    Err(Error::Busy {
        what: format!(
            "branches/{} is being copied into {}; let that end, or remove what is half made",
            found.name,
            into.join(", ")
        ),
    })
}

fn children_of(dir: &StoreDir, found: &Found) -> Vec<String> {
    rows_below(dir, found).into_iter().map(|row| row.name).collect()
}
