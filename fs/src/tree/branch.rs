//! `branches/` and `.stores/`: names, attributes, and what copying, renaming and removing do there.

use std::sync::Arc;
use std::time::SystemTime;

use super::attr::{DATA_BLOCK, Facts, NONE, TEXT_BLOCK};
use super::open::reading;
use super::{Attr, Caching, Caller, Change, Open, Tree};
use crate::branches::content::{self, Member, sync_directory};
use crate::branches::family::Found;
use crate::branches::pending::{self, Part};
use crate::branches::table::{Branches, Link, MAIN, Row, What};
use crate::errno::Error;
use crate::handle::{Body, Listing};
use crate::node::{BranchNo, Item, Node, Place, StateNo};
use crate::source::stamp;
use crate::store_dir::StoreDir;

/// What a rename in `branches/` does, once it is known to be one.
pub(super) type Moved = Box<dyn FnOnce(&Tree) -> Result<(), Error> + Send>;

impl Tree {
    /// The store of an entry of `branches/`.
    fn branch_store(&self, dir: &Arc<StoreDir>, row: &Row) -> Result<Arc<StoreDir>, Error> {
        match &row.what {
            What::Main => Ok(dir.clone()),
            What::File(found) => self.store(self.branches.id_of(dir, &found.name, &found.path)),
            What::Pending(_) => Err(Error::Stale),
        }
    }

    fn row(dir: &StoreDir, no: BranchNo) -> Result<Row, Error> {
        dir.branches.numbered(dir.file_id(), no)
    }

    /// The node of a name in `branches/`, a branch or `.stores/`; `None` for other directories.
    pub(super) fn branch_child(
        &self,
        dir: &Arc<StoreDir>,
        item: Item,
        name: &str,
    ) -> Option<Result<Node, Error>> {
        let found = match item {
            Item::Branches => {
                dir.branches.named(dir.file_id(), name).map(|row| Node::In(dir.id, Item::Branch(row.no)))
            }
            Item::Stores => dir.branches.named(dir.file_id(), name).and_then(|row| match &row.what {
                What::File(found) => {
                    Ok(Node::In(self.branches.id_of(dir, &found.name, &found.path), Item::Top))
                }
                What::Main | What::Pending(_) => Err(Error::NotFound),
            }),
            Item::Branch(no) => self.in_branch(dir, no, name).map(|item| Node::In(dir.id, item)),
            _ => return None,
        };
        Some(found)
    }

    fn in_branch(&self, dir: &Arc<StoreDir>, no: BranchNo, name: &str) -> Result<Item, Error> {
        let row = Self::row(dir, no)?;
        let pending = match &row.what {
            What::Pending(pending) => Some(pending),
            _ => row.copying.as_ref(),
        };
        if let Some(pending) = pending {
            let part = pending.named(name).ok_or(Error::NotFound)?;
            return Ok(if part.target.is_some() { Item::PartLink(part.no) } else { Item::Part(part.no) });
        }
        if dir.branches.hidden(no).contains(name) {
            return Err(Error::NotFound);
        }
        if let Some(link) = Link::named(name) {
            let shown = !matches!(link, Link::Parent | Link::Diff) || Self::has_parent(dir, &row);
            return if shown { Ok(Item::Link(no, link)) } else { Err(Error::NotFound) };
        }
        let member = Member::named(name).ok_or(Error::NotFound)?;
        // Of a file that cannot be read only the reason is shown, through `error`.
        let store = self.branch_store(dir, &row).map_err(|_| Error::NotFound)?;
        Ok(Item::Member(no, member, store.snap().no))
    }

    fn has_parent(dir: &StoreDir, row: &Row) -> bool {
        match &row.what {
            What::Main => dir.snap().view.is_child(),
            What::File(_) => true,
            What::Pending(_) => false,
        }
    }

    /// What `branches/`, a branch or `.stores/` holds now; `None` for other directories.
    pub(super) fn branch_listing(&self, dir: &Arc<StoreDir>, item: Item) -> Option<Result<Listing, Error>> {
        let list = match item {
            Item::Branches => dir.branches.list(dir.file_id()).map(|rows| {
                rows.into_iter().map(|row| (row.name, Node::In(dir.id, Item::Branch(row.no)))).collect()
            }),
            Item::Stores => dir.branches.list(dir.file_id()).map(|rows| {
                let files = rows.into_iter().filter_map(|row| match row.what {
                    What::File(found) => {
                        let id = self.branches.id_of(dir, &found.name, &found.path);
                        Some((found.name, Node::In(id, Item::Top)))
                    }
                    What::Main | What::Pending(_) => None,
                });
                files.collect()
            }),
            Item::Branch(no) => self.list_branch(dir, no),
            _ => return None,
        };
        Some(list.map(|fixed| Listing { fixed, vectors: None, records: None }))
    }

    fn list_branch(&self, dir: &Arc<StoreDir>, no: BranchNo) -> Result<Vec<(String, Node)>, Error> {
        let row = Self::row(dir, no)?;
        let at = |item| Node::In(dir.id, item);
        let pending = match &row.what {
            What::Pending(pending) => Some(pending),
            _ => row.copying.as_ref(),
        };
        if let Some(pending) = pending {
            let part = |part: &Arc<Part>| match part.target {
                Some(_) => (part.name(), at(Item::PartLink(part.no))),
                None => (part.name(), at(Item::Part(part.no))),
            };
            return Ok(pending.list().iter().map(part).collect());
        }
        let mut list: Vec<(String, Node)> = Vec::new();
        if let Ok(store) = self.branch_store(dir, &row) {
            let state = store.snap().no;
            list.extend(
                Member::ALL.map(|(member, name)| (name.to_owned(), at(Item::Member(no, member, state)))),
            );
        }
        for link in Link::of(Self::has_parent(dir, &row)) {
            list.push((link.name().to_owned(), at(Item::Link(no, link))));
        }
        let hidden = dir.branches.hidden(no);
        list.retain(|(name, _)| !hidden.contains(name));
        Ok(list)
    }

    /// When the directory of the store's file was last changed.
    pub(super) fn branches_time(&self, dir: &StoreDir) -> SystemTime {
        stamp(dir.branches.family.directory()).map_or(dir.since, |stamp| stamp.time())
    }

    pub(super) fn branch_facts(&self, dir: &StoreDir, no: BranchNo) -> Result<Facts, Error> {
        let row = Self::row(dir, no)?;
        let (mode, time) = match &row.what {
            What::Main => {
                let snap = dir.snap();
                (if snap.view.frozen().is_some() { 0o555 } else { 0o755 }, snap.modified())
            }
            What::File(found) => {
                let frozen = dir.branches.family.kin(&found.path).is_some_and(|kin| kin.frozen);
                let time = stamp(&found.path).ok_or(Error::Stale)?.time();
                (if frozen { 0o555 } else { 0o755 }, time)
            }
            What::Pending(pending) => {
                let (mode, time) = pending.attr();
                (mode.unwrap_or(0o755), time.unwrap_or(pending.since))
            }
        };
        let copying = row.copying.as_ref().and_then(|pending| pending.attr().1);
        let time = dir.branches.time(no, None).or(copying).unwrap_or(time);
        Ok(Facts(0, time, mode, NONE, NONE, TEXT_BLOCK))
    }

    pub(super) fn member_facts(
        &self,
        dir: &Arc<StoreDir>,
        no: BranchNo,
        member: Member,
        state: StateNo,
    ) -> Result<Facts, Error> {
        let row = Self::row(dir, no)?;
        let snap = self.branch_store(dir, &row)?.snap_of(state).ok_or(Error::Stale)?;
        let len = match member {
            Member::Origin => content::origin(&snap).len() as u64,
            member => member.len(&snap),
        };
        let time = dir.branches.time(no, Some(member)).unwrap_or(snap.modified());
        // Writable, so that rm does not ask; writing is refused when the file is opened.
        Ok(Facts(len, time, 0o644, NONE, NONE, DATA_BLOCK))
    }

    /// Where a link of a branch leads.
    pub(super) fn link_target(&self, dir: &Arc<StoreDir>, no: BranchNo, link: Link) -> Result<String, Error> {
        let row = Self::row(dir, no)?;
        match (&row.what, link) {
            (What::Pending(_), _) => Err(Error::Stale),
            (_, Link::Parent) => Ok(format!("../{}", Self::parent_name(dir, &row))),
            (What::Main, _) => Ok(format!("../../{}", link.name())),
            (What::File(found), _) => Ok(format!("../../.stores/{}/{}", found.name, link.name())),
        }
    }

    /// The name of the entry that an entry was made from; where that is not among them, of the file.
    fn parent_name(dir: &StoreDir, row: &Row) -> String {
        let own = dir.file_id();
        let wanted = match &row.what {
            What::File(Found { kin: Some(kin), .. }) => kin.parent_id,
            _ => [0; 16],
        };
        if wanted == own && wanted != [0; 16] {
            return "main".into();
        }
        let rows = dir.branches.list(own).unwrap_or_default();
        let parent = rows.into_iter().find(|row| match &row.what {
            What::File(found) => found.kin.is_some_and(|kin| kin.file_id == wanted),
            _ => false,
        });
        parent.map_or_else(|| "missing".into(), |row| row.name)
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is none; [`Error::Stale`].
    pub fn readlink(&self, ino: u64) -> Result<String, Error> {
        let Node::In(id, item) = self.node(ino)? else { return Err(Error::invalid("not a symbolic link")) };
        let dir = self.store(id)?;
        match item {
            Item::Link(no, link) => self.link_target(&dir, no, link),
            Item::PartLink(no) => {
                dir.branches.part(no).and_then(|part| part.target.clone()).ok_or(Error::Stale)
            }
            _ => Err(Error::invalid("not a symbolic link")),
        }
    }

    /// Opens what belongs to a branch; `None` for other files.
    pub(super) fn open_branch(
        &self,
        dir: &Arc<StoreDir>,
        item: Item,
        how: Open,
    ) -> Option<Result<(Arc<StoreDir>, Body, Caching), Error>> {
        let opened = match item {
            Item::Member(..) if how.write && self.settings.read_only => Err(Error::ReadOnly),
            Item::Member(no, member, _) if how.write => {
                let name = Self::row(dir, no).map(|row| row.name).unwrap_or_default();
                Err(refused(
                    dir,
                    Error::denied(format!(
                        "branches/{name}/{} exists: a branch is changed through its ingest/, vectors/ and metadata/; a copy of another \
                         one goes into a new directory",
                        member.name()
                    )),
                ))
            }
            Item::Member(no, member, state) => self.open_member(dir, no, member, state),
            Item::Part(no) => dir.branches.part(no).ok_or(Error::Stale).map(|part| {
                if how.truncate
                    && let Some(pending) = part.pending()
                {
                    pending.truncate(&part);
                }
                (dir.clone(), Body::Part(part), Caching::Direct)
            }),
            _ => return None,
        };
        Some(opened)
    }

    fn open_member(
        &self,
        dir: &Arc<StoreDir>,
        no: BranchNo,
        member: Member,
        state: StateNo,
    ) -> Result<(Arc<StoreDir>, Body, Caching), Error> {
        let row = Self::row(dir, no)?;
        let store = self.branch_store(dir, &row)?;
        let snap = store.snap();
        let (body, caching) = match member {
            Member::Origin => {
                let snap = store.snap_of(state).filter(|of| of.no == snap.no).ok_or(Error::Stale)?;
                (Body::Text(content::origin(&snap).into_bytes().into()), Caching::Direct)
            }
            Member::VectorsNpy => reading(&store, &snap, Item::VectorsNpy(state))?,
            Member::IdsNpy => reading(&store, &snap, Item::IdsNpy(state))?,
            Member::MetadataJsonl => reading(&store, &snap, Item::MetadataJsonl(state))?,
        };
        Ok((store, body, caching))
    }

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
            let pending = match &row.what {
                What::Pending(pending) => pending.clone(),
                _ => row.copying.clone().ok_or_else(|| {
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

    fn branch_made(&self, dir: &Arc<StoreDir>, pending: &Arc<pending::Pending>) {
        let Some(done) = pending.done() else { return };
        if let Some(no) = dir.branches.number_of(pending) {
            dir.branches.settled(no, &done.path);
        }
        let name = done.path.display().to_string();
        dir.events.push("branch", dir.snap().view.epoch(), &[("file", &name)]);
    }

    /// Removes a name in a branch: from a copy for good, from a branch until the branch is removed or stays.
    pub(super) fn unlink_in_branch(&self, dir: &Arc<StoreDir>, item: Item, name: &str) -> Result<(), Error> {
        match item {
            Item::Part(no) | Item::PartLink(no) => {
                let part = dir.branches.part(no).ok_or(Error::NotFound)?;
                if let Some(pending) = part.pending() {
                    pending.remove(&part.name());
                }
                dir.branches.drop_part(&part);
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
        std::fs::hard_link(&found.path, &path).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Error::Exists { what: format!("{} exists", path.display()) },
            _ => Error::io(path.display().to_string(), error),
        })?;
        // Its branches find it under the new name before the old one goes; both are the same file until then.
        if let Err(error) = self.lead_children(dir, found, &path) {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        std::fs::remove_file(&found.path)
            .map_err(|error| Error::io(found.path.display().to_string(), error))?;
        sync_directory(dir.branches.family.directory())?;
        dir.branches.renamed(row.no, &path);
        self.branches.forget(dir.id, &found.path);
        let names = [("from", name), ("to", new)];
        dir.events.push("branch-renamed", dir.snap().view.epoch(), &names);
        Ok(())
    }

    /// Records the new place of a branch in its own branches. All are looked at before the first is changed.
    fn lead_children(&self, dir: &Arc<StoreDir>, found: &Found, path: &std::path::Path) -> Result<(), Error> {
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
        for child in standing {
            child.store.reparent(path)?;
        }
        Ok(())
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
                        Some(0) if len > 0 => {
                            if let Some(pending) = part.pending() {
                                pending.truncate(&part);
                            }
                        }
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

/// Takes a piece of what is copied.
pub(super) fn write_part(dir: &StoreDir, part: &Part, offset: u64, data: &[u8]) -> Result<(), Error> {
    let result = match part.pending() {
        Some(pending) => pending.write(part, offset, data),
        None => Err(Error::Stale),
    };
    result.map_err(|error| refused(dir, error))
}

fn refused(dir: &StoreDir, error: Error) -> Error {
    dir.refuse(Place::Top, "", &error);
    error
}

/// A branch as what a copy in `target` can be bound to.
fn source_of(target: &StoreDir, row: &Row, store: Arc<StoreDir>) -> Result<pending::Found, Error> {
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
    Ok(pending::Found {
        name: row.name.clone(),
        origin: content::origin(&store.snap()),
        file_id,
        family: target.branches.family.base().to_path_buf(),
        links: Branches::link_names(has_parent),
        dir: store,
    })
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
