//! Copies that become branches: what copying tools make in `branches/`, and what it is compared with.

use std::sync::Arc;

use super::{Attr, Caller, Tree};
use crate::branches::bound::Found;
use crate::branches::content::{self, Member};
use crate::branches::part::Part;
use crate::branches::pending::Pending;
use crate::branches::table::{Branches, Link, MAIN, Row, What};
use crate::errno::Error;
use crate::handle::Body;
use crate::node::{BranchNo, Item, Node, Place};
use crate::store_dir::StoreDir;

impl Tree {
    /// A directory made in `branches/` or in a branch; `None` elsewhere.
    pub(super) fn make_branch(
        &self,
        dir: &Arc<StoreDir>,
        item: Item,
        name: &str,
        caller: Caller,
    ) -> Option<Result<Attr, Error>> {
        let made = match item {
            Item::Branches | Item::Branch(_) if self.settings.read_only => Err(Error::ReadOnly),
            Item::Branches => {
                let maker = crate::sys::process_of(caller.thread);
                dir.branches
                    .make(dir.file_id(), name, maker)
                    .and_then(|no| self.remembered(Node::In(dir.id, Item::Branch(no))))
            }
            Item::Branch(no) => {
                let exp = Self::row(dir, no).map(|row| row.name).unwrap_or_default();
                dir.branches.show(no);
                Err(Error::denied(format!(
                    "branches/{exp} exists; a branch has no directories, so copy into a new name: branches/{name}"
                )))
            }
            _ => return None,
        };
        Some(made.map_err(|error| refused(dir, error)))
    }

    /// A name in a directory that is being copied into.
    pub(super) fn make_part(
        &self,
        dir: &Arc<StoreDir>,
        no: BranchNo,
        name: &str,
        target: Option<&str>,
    ) -> Result<Arc<Part>, Error> {
        let make = || {
            let row = Self::row(dir, no)?;
            // Copying a branch again onto its copy brings its links too, which lead elsewhere than those of the copy. They
            // are taken and change nothing.
            if let (What::File(_), None, Some(target), Some(meant)) =
                (&row.what, &row.copying, target, content::meant_name(name))
                && Link::is_target(meant, target)
            {
                let part = Part::spare(dir.branches.part_number(), name, target);
                dir.branches.put_spare(no, &part)?;
                return Ok(part);
            }
            let pending = match &row.what {
                What::Pending(pending) => pending.clone(),
                _ => row.copying.clone().ok_or_else(|| {
                    dir.branches.show(no);
                    Error::denied(format!(
                        "branches/{} is a branch already: it is changed through its ingest/, vectors/ and metadata/; a copy of another \
                         one goes into a new directory",
                        row.name
                    ))
                })?,
            };
            let part = pending.make(dir.branches.part_number(), name, target)?;
            dir.branches.keep_part(&part);
            Ok(part)
        };
        make().map_err(|error| refused(dir, error))
    }

    /// Makes a symbolic link; only as a part of a copied branch.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] everywhere else; [`Error::ReadOnly`], [`Error::Exists`].
    pub fn symlink(&self, parent: u64, name: &str, target: &str) -> Result<Attr, Error> {
        let node = self.node(parent)?;
        if self.settings.read_only {
            return Err(Error::ReadOnly);
        }
        let Node::In(id, Item::Branch(no)) = node else {
            return Err(Error::denied("symbolic links are made nowhere but in a copy of a branch"));
        };
        let dir = self.store(id)?;
        let part = self.make_part(&dir, no, name, Some(target))?;
        self.remembered(Node::In(id, Item::PartLink(part.no)))
    }

    /// Copies a member of a branch into a branch to be, without moving a byte.
    ///
    /// # Errors
    /// [`Error::NotSupported`] where the kernel has to read and write instead; [`Error::NotPermitted`] when it is no copy
    /// of one branch.
    pub fn copy_file_range(
        &self,
        from: u64,
        offset: u64,
        to: u64,
        offset_to: u64,
        len: u64,
    ) -> Result<u64, Error> {
        let (from, to) = (self.handles.get(from)?, self.handles.get(to)?);
        let (Body::Part(part), Some(dir)) = (&to.body, &to.dir) else { return Err(Error::NotSupported) };
        let Node::In(id, item) = from.node else { return Err(Error::NotSupported) };
        let owner = self.store(id)?;
        let (member, row, state) = match item {
            Item::Member(no, member, state) => (member, Self::row(&owner, no)?, state),
            Item::VectorsNpy(state) => (Member::VectorsNpy, Self::row(&owner, MAIN)?, state),
            Item::IdsNpy(state) => (Member::IdsNpy, Self::row(&owner, MAIN)?, state),
            Item::MetadataJsonl(state) => (Member::MetadataJsonl, Self::row(&owner, MAIN)?, state),
            _ => return Err(Error::NotSupported),
        };
        let copy = || {
            let store = self.branch_store(&owner, &row)?;
            let source = source_of(dir, &row, store)?;
            let snap = match &from.body {
                Body::Rows(snap, _) | Body::Ids(snap, _) | Body::Jsonl(snap) => snap.clone(),
                _ => source.dir.snap_of(state).ok_or(Error::Stale)?,
            };
            let whole = match member {
                Member::Origin => content::origin(&snap).len() as u64,
                member => member.len(&snap),
            };
            if offset >= whole {
                return Ok(0);
            }
            if offset != offset_to {
                return Err(Error::denied("a branch is copied as it is, each byte to its place"));
            }
            let pending = part.pending().ok_or(Error::Stale)?;
            pending.copy(part, member, &source.source(), offset, len, whole)
        };
        copy().map_err(|error| refused(dir, error))
    }

    /// A part was closed: the copy may be whole now.
    pub(super) fn part_closed(&self, dir: &Arc<StoreDir>, part: &Part) -> Result<(), Error> {
        // It was removed meanwhile.
        let Some(pending) = part.pending() else { return Ok(()) };
        let find = |file_id: [u8; 16]| {
            let own = dir.file_id();
            let rows = dir.branches.list(own)?;
            let of = |row: &&Row| match &row.what {
                What::Main => file_id == own,
                What::File(found) => found.kin.is_some_and(|kin| kin.file_id == file_id),
                What::Pending(_) => false,
            };
            let row = rows.iter().find(of).ok_or_else(|| {
                Error::denied(
                    "origin: it names a file that is no branch of this store; copy a branch of this store",
                )
            })?;
            source_of(dir, row, self.branch_store(dir, row)?)
        };
        let closed = pending.closed(part, &dir.branches.family, find);
        match closed {
            Ok(true) => {
                self.branch_made(dir, &pending);
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(error) => Err(refused(dir, error)),
        }
    }

    fn branch_made(&self, dir: &Arc<StoreDir>, pending: &Arc<Pending>) {
        let Some(done) = pending.done() else { return };
        if let Some(no) = dir.branches.number_of(pending) {
            dir.branches.settled(no, &done.path);
        }
        let name = done.path.display().to_string();
        dir.events.push("branch", dir.snap().view.epoch(), &[("file", &name)]);
    }
}

/// Takes a piece of what is copied.
pub(super) fn write_part(dir: &StoreDir, part: &Part, offset: u64, data: &[u8]) -> Result<(), Error> {
    let result = match part.pending() {
        Some(pending) => pending.write(part, offset, data),
        None => Err(Error::Stale),
    };
    result.map_err(|error| refused(dir, error))
}

/// A branch as what a copy in `target` can be bound to.
fn source_of(target: &StoreDir, row: &Row, store: Arc<StoreDir>) -> Result<Found, Error> {
    let file_id = store.file_id();
    if file_id == [0; 16] {
        return Err(Error::denied(format!(
            "{}: the file has no identity, so nothing can be a branch of it; rvf compact gives it one",
            store.store.path().display()
        )));
    }
    let family = file_id == target.file_id()
        || target.branches.list(target.file_id())?.iter().any(|row| match &row.what {
            What::File(found) => found.path == store.store.path(),
            _ => false,
        });
    if !family {
        return Err(Error::denied(format!(
            "{}: no branch of {}; a branch is copied within the branches/ of its own store",
            store.store.path().display(),
            target.store.path().display()
        )));
    }
    let has_parent = match &row.what {
        What::Main => store.snap().view.is_child(),
        _ => true,
    };
    Ok(Found {
        name: row.name.clone(),
        origin: content::origin(&store.snap()),
        file_id,
        family: target.branches.family.base().to_path_buf(),
        links: Branches::link_names(has_parent),
        dir: store,
    })
}

/// Says in `error` why something in `branches/` was refused.
pub(super) fn refused(dir: &StoreDir, error: Error) -> Error {
    dir.refuse(Place::Top, "", &error);
    error
}
