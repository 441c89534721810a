//! Changing names and attributes.

use std::sync::Arc;
use std::time::SystemTime;

use super::attr::nameless;
use super::open::{IN_ROOT, place_of};
use super::{Attr, Caller, Tree};
use crate::drafts::{Draft, Moment, NameKind, name_kind};
use crate::errno::Error;
use crate::handle::Body;
use crate::node::{Item, Node, Place, QueryFile, SessionId};
use crate::store_dir::StoreDir;

/// What `setattr` may change; the owner stays what the mount says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change {
    /// New size.
    pub size: Option<u64>,
    /// New permission bits.
    pub mode: Option<u16>,
    /// New modification time.
    pub mtime: Option<SystemTime>,
    /// Owner or group was given.
    pub owner: bool,
}

impl Tree {
    /// Makes a private query session.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] anywhere but in `query/`; [`Error::Exists`].
    pub fn mkdir(&self, parent: u64, name: &str, caller: Caller) -> Result<Attr, Error> {
        if name.len() > 255 {
            return Err(Error::NameTooLong);
        }
        let Node::In(id, item) = self.node(parent)? else {
            if self.settings.read_only {
                return Err(Error::ReadOnly);
            }
            return Err(self.refuse(name, Error::denied(IN_ROOT)));
        };
        let dir = self.store(id)?;
        if let Some(made) = self.make_branch(&dir, item, name, caller) {
            return made;
        }
        if item != Item::Query(SessionId(0)) {
            if self.settings.read_only {
                return Err(Error::ReadOnly);
            }
            let error = Error::denied(format!(
                "{name}: directories can only be made in query/ (a private session) and branches/ (a copy of a branch)"
            ));
            dir.refuse(place_of(item), "", &error);
            return Err(error);
        }
        let session = dir.sessions.make(name)?;
        self.remembered(Node::In(id, Item::Query(session.id)))
    }

    /// Removes a private query session.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] for the directories that are always there.
    pub fn rmdir(&self, parent: u64, name: &str) -> Result<(), Error> {
        let parent = self.node(parent)?;
        match self.child(parent, name)? {
            Node::In(id, Item::Query(session)) if session != SessionId(0) => {
                self.store(id)?.sessions.remove(name)
            }
            Node::In(id, Item::Branch(no)) => self.remove_branch(&*self.store(id)?, no),
            node if !node.is_dir() => Err(Error::NotDirectory),
            _ if self.settings.read_only => Err(Error::ReadOnly),
            Node::Root => Err(Error::denied("the top directory stays")),
            Node::Beside(_) => Err(Error::NotDirectory),
            Node::In(id, _) => {
                let error = Error::denied(format!("{name}: this directory is part of every store and stays"));
                if let Ok(dir) = self.store(id) {
                    dir.refuse(Place::Top, "", &error);
                }
                Err(error)
            }
        }
    }

    /// Removes a name: a vector, a record's metadata, a dropped file or a receipt.
    pub fn unlink(
        self: &Arc<Self>,
        parent: u64,
        name: &str,
        answer: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) {
        let (dir, node) = match self.find(parent, name) {
            Ok(found) => found,
            Err(error) => return answer(Err(error)),
        };
        let Node::In(_, item) = node else { return answer(Err(Error::IsDirectory)) };
        if item.is_dir() {
            return answer(Err(Error::IsDirectory));
        }
        if self.settings.read_only {
            return answer(Err(Error::ReadOnly));
        }
        match item {
            Item::Draft(id) => {
                if let Some(draft) = dir.drafts.numbered(id) {
                    dir.drafts.remove(&draft);
                }
                answer(Ok(()));
            }
            Item::Vector(id) => {
                if let Some(draft) = dir.drafts.named(Place::Vectors, name) {
                    dir.drafts.remove(&draft);
                }
                if dir.snap().view.resolved().find(id).is_none() {
                    return answer(Ok(()));
                }
                let name = name.to_owned();
                self.commits.run(move || {
                    let result = dir.store.delete(&[id]).map_err(Error::from).and_then(|report| {
                        // Somebody else was faster.
                        if report.deleted == 0 { Err(Error::NotFound) } else { Ok(()) }
                    });
                    answer(result.inspect_err(|error| dir.refuse(Place::Vectors, &name, error)));
                });
            }
            Item::MetadataJson(id) => {
                if let Some(draft) = dir.drafts.named(Place::Metadata, name) {
                    dir.drafts.remove(&draft);
                }
                if dir.snap().view.fields(id).is_none() {
                    return answer(Ok(()));
                }
                let name = name.to_owned();
                self.commits.run(move || {
                    let result = dir.store.put_metadata(id, &Vec::new()).map(|_| ()).map_err(Error::from);
                    answer(result.inspect_err(|error| dir.refuse(Place::Metadata, &name, error)));
                });
            }
            // The image and the entry are two views of one program.
            Item::Program(key, kind) | Item::Exec(key, kind) => {
                let place = Place::Programs(kind);
                let name = name.to_owned();
                self.commits.run(move || {
                    let snap = dir.snap();
                    let found = snap.programs().at(key).and_then(|shown| shown.segment(&snap.view));
                    let result = found
                        .ok_or(Error::NotFound)
                        .and_then(|program| Ok(dir.store.remove_program(program).map(|_| ())?));
                    answer(result.inspect_err(|error| dir.refuse(place, &name, error)));
                });
            }
            Item::Part(_) | Item::PartLink(_) | Item::Member(..) | Item::Link(..) => {
                let of = self.node(parent);
                answer(of.and_then(|of| self.unlink_in_branch(&dir, of, item, name)));
            }
            // `rm ingest/*` and `rm error`: the sentence goes, the file is there again at once.
            Item::Error(place) => {
                dir.forgive(place);
                answer(Ok(()));
            }
            _ => {
                let error = Error::denied(format!("{name}: this file is part of every store and stays"));
                dir.refuse(Place::Top, "", &error);
                answer(Err(error));
            }
        }
    }

    fn find(&self, parent: u64, name: &str) -> Result<(Arc<StoreDir>, Node), Error> {
        let node = self.child(self.node(parent)?, name)?;
        match node {
            Node::Root => Err(Error::IsDirectory),
            Node::Beside(_) => Err(Error::denied("this file is part of every mounted directory and stays")),
            Node::In(id, _) => Ok((self.store(id)?, node)),
        }
    }

    /// Renames a dropped file within its directory. From a temporary name to a real one, this is the commit.
    pub fn rename(
        self: &Arc<Self>,
        parent: u64,
        name: &str,
        new_parent: u64,
        new_name: &str,
        no_replace: bool,
        answer: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) {
        if let Some(moved) = self.branch_rename(parent, name, new_parent, new_name, no_replace) {
            let tree = self.clone();
            return self.commits.run(move || answer(moved(&tree)));
        }
        if let Some(renamed) = self.program_rename(parent, name, new_parent, new_name, no_replace) {
            return self.commits.run(move || answer(renamed()));
        }
        let found = self.renamed(parent, name, new_parent, new_name, no_replace);
        let (dir, draft, ino) = match found {
            Ok(found) => found,
            Err(error) => return answer(Err(error)),
        };
        let new = new_name.to_owned();
        if draft.is_receipt() || matches!(name_kind(draft.place, new_name), Ok(NameKind::Temporary)) {
            dir.drafts.rename(&draft, &new);
            return answer(Ok(()));
        }
        let tree = self.clone();
        self.commits.run(move || {
            let result = dir.commit(&draft, Moment::Rename, Some(&new));
            match &result {
                // Vectors and records are in the store now; the draft has done its work.
                Ok(()) if draft.place != Place::Ingest => dir.drafts.remove(&draft),
                Ok(()) => dir.drafts.rename(&draft, &new),
                Err(_) => {}
            }
            if let Some(kernel) = tree.kernel() {
                kernel.attributes(ino);
            }
            answer(result);
        });
    }

    /// What renaming an embedded program is; `None` when it is not one.
    fn program_rename(
        &self,
        parent: u64,
        name: &str,
        new_parent: u64,
        new_name: &str,
        no_replace: bool,
    ) -> Option<impl FnOnce() -> Result<(), Error> + Send + 'static> {
        let (dir, node) = self.find(parent, name).ok()?;
        let Node::In(_, item @ (Item::Program(key, kind) | Item::Exec(key, kind))) = node else {
            return None;
        };
        let read_only = self.settings.read_only;
        let same = parent == new_parent;
        let taken = no_replace && self.child(self.node(new_parent).ok()?, new_name).is_ok();
        let (name, new_name) = (name.to_owned(), new_name.to_owned());
        Some(move || {
            if read_only {
                return Err(Error::ReadOnly);
            }
            if taken {
                return Err(Error::Exists { what: format!("{new_name} exists") });
            }
            if !same {
                return Err(Error::CrossDevice);
            }
            // An image keeps its suffix, an entry has none: one cannot become the other.
            let stem = match item {
                Item::Program(..) => {
                    new_name.strip_suffix(kind.suffix()).and_then(|stem| stem.strip_suffix('.'))
                }
                _ => Some(new_name.as_str()),
            };
            let snap = dir.snap();
            let program = snap.programs().at(key).and_then(|shown| shown.segment(&snap.view));
            let result = match (stem, program) {
                (None, _) => Err(Error::invalid(format!("an image keeps its suffix .{}", kind.suffix()))),
                (_, None) => Err(Error::NotFound),
                (Some(stem), Some(program)) => {
                    dir.store.name_program(program, stem).map(|_| ()).map_err(Error::from)
                }
            };
            result.inspect_err(|error| dir.refuse(Place::Programs(kind), &name, error))
        })
    }

    fn renamed(
        &self,
        parent: u64,
        name: &str,
        new_parent: u64,
        new_name: &str,
        no_replace: bool,
    ) -> Result<(Arc<StoreDir>, Arc<Draft>, u64), Error> {
        if new_name.len() > 255 {
            return Err(Error::NameTooLong);
        }
        let (dir, node) = self.find(parent, name)?;
        if self.settings.read_only {
            return Err(Error::ReadOnly);
        }
        let (Node::In(_, from), to) = (self.node(parent)?, self.node(new_parent)?) else {
            return Err(Error::CrossDevice);
        };
        let place = place_of(from);
        let refused = |error: Error| {
            dir.refuse(place, name, &error);
            Err(error)
        };
        if to != self.node(parent)? {
            return if place == Place::Top {
                refused(Error::denied("this file is part of every store and stays where it is"))
            } else {
                Err(Error::CrossDevice)
            };
        }
        let draft = match node {
            Node::In(_, Item::Draft(id)) => dir.drafts.numbered(id).ok_or(Error::NotFound)?,
            Node::In(_, Item::Vector(_) | Item::MetadataJson(_)) => match dir.drafts.named(place, name) {
                Some(draft) => draft,
                None => {
                    return refused(Error::denied(
                        "what is stored keeps its id; write it under the new name and remove this one",
                    ));
                }
            },
            _ => return refused(Error::denied("this file is part of every store and keeps its name")),
        };
        name_kind(place, new_name).inspect_err(|error| dir.refuse(place, new_name, error))?;
        if no_replace && self.child(to, new_name).is_ok() {
            return Err(Error::Exists { what: format!("{new_name} exists") });
        }
        let ino = self.inodes.number(node);
        Ok((dir, draft, ino))
    }

    /// Changes size, mode or times.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] for views; [`Error::ReadOnly`].
    pub fn setattr(&self, ino: u64, fh: Option<u64>, change: Change, caller: Caller) -> Result<Attr, Error> {
        let node = self.node(ino)?;
        let Node::In(id, item) = node else {
            return Err(Error::denied("the mounted directory keeps its attributes"));
        };
        let dir = self.store(id)?;
        if let Some(result) = self.branch_setattr(&dir, item, fh, change, caller) {
            result?;
            return self.attr(node, ino, false);
        }
        let handle = fh.and_then(|fh| self.handles.get(fh).ok());
        let draft = match (&handle, item) {
            (Some(handle), _) if matches!(handle.body, Body::Draft(_)) => match &handle.body {
                Body::Draft(draft) => Some(draft.clone()),
                _ => None,
            },
            (_, Item::Draft(id)) => dir.drafts.numbered(id),
            (_, Item::Vector(id)) => dir.drafts.named(Place::Vectors, &id.to_string()),
            (_, Item::MetadataJson(id)) => dir.drafts.named(Place::Metadata, &format!("{id}.json")),
            _ => None,
        };
        let open = draft.clone().filter(|_| handle.is_some());
        match (draft, item) {
            (Some(draft), _) => {
                self.writable(&dir, draft.place, &draft.name())?;
                if let Some(size) = change.size {
                    if let Some(handle) = &handle {
                        handle.mark_used();
                    }
                    // Cut by name, without a descriptor whose close could take or refuse what is left.
                    if handle.is_none() && draft.is_receipt() {
                        if size != draft.attr().len {
                            let error = Error::denied(
                                "this is a receipt; write the file again, or remove the receipt with rm",
                            );
                            dir.refuse(draft.place, &draft.name(), &error);
                            return Err(error);
                        }
                    } else {
                        draft.truncate(size)?;
                    }
                }
                draft.set_attr(change.mode.map(|mode| mode & 0o777), change.mtime);
            }
            // Written through a handle; truncating by name beforehand is part of how shells do that.
            (None, Item::QueryFile(_, QueryFile::In | QueryFile::Setting(_)) | Item::Ctl)
                if change.mode.is_none() && !change.owner => {}
            // Copying tools set mode and times after closing. A vector has none of its own; failing would fail the copy.
            (None, Item::Vector(vector))
                if change.size.is_none() && dir.snap().view.resolved().find(vector).is_some() =>
            {
                self.writable(&dir, Place::Vectors, "")?;
            }
            (None, Item::MetadataJson(_)) if change.size.is_none() => {
                self.writable(&dir, Place::Metadata, "")?
            }
            _ if self.settings.read_only => return Err(Error::ReadOnly),
            _ => {
                let error = Error::denied("this file is a view: size, mode and times follow the store");
                dir.refuse(Place::Top, "", &error);
                return Err(error);
            }
        }
        match (self.attr(node, ino, false), open) {
            // Its name is gone, by a removal or a refusal; whoever has it open still has a file.
            (Err(Error::Stale), Some(draft)) => Ok(nameless(ino, draft.attr())),
            (result, _) => result,
        }
    }
}
