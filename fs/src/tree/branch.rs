//! `branches/` and `.stores/`: names, attributes, links and files.

use std::sync::Arc;
use std::time::SystemTime;

use super::attr::{DATA_BLOCK, Facts, LONG, NONE, SHORT, TEXT_BLOCK};
use super::branch_copy::refused;
use super::open::reading;
use super::{Caching, Open, Tree};
use crate::branches::content::{self, Member};
use crate::branches::family::Found;
use crate::branches::part::Part;
use crate::branches::table::{Link, MAIN, Row, What};
use crate::errno::Error;
use crate::handle::{Body, Listing};
use crate::node::{BranchNo, Item, Node, StateNo};
use crate::snapshot::Snap;
use crate::store_dir::StoreDir;

impl Tree {
    /// The store of an entry of `branches/`.
    pub(super) fn branch_store(&self, dir: &Arc<StoreDir>, row: &Row) -> Result<Arc<StoreDir>, Error> {
        match &row.what {
            What::Main => Ok(dir.clone()),
            What::File(found) => self.store(self.branches.id_of(dir, &found.name, &found.path)),
            What::Pending(_) => Err(Error::Stale),
        }
    }

    /// The entry of that number.
    pub(super) fn row(dir: &StoreDir, no: BranchNo) -> Result<Row, Error> {
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
        if let Some(spare) = dir.branches.spare(no, name) {
            return Ok(Item::PartLink(spare.no));
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
        dir.branches.family.time().unwrap_or(dir.since)
    }

    /// Whether a branch, or what is in it, is shown without reading a file, and without counting rows.
    pub(super) fn is_at_hand(&self, dir: &StoreDir, item: Item) -> bool {
        let own = dir.file_id();
        let (no, member) = match item {
            Item::Branches => return dir.branches.family.is_fresh(own),
            Item::Branch(no) | Item::Link(no, _) => (no, None),
            Item::Member(no, member, _) => (no, Some(member)),
            _ => return true,
        };
        dir.branches.knows_number(own, no) && member.is_none_or(|member| self.has_at_hand(dir, no, member))
    }

    /// Whether a name in a branch is found without reading a file.
    pub(super) fn finds_at_hand(&self, dir: &StoreDir, no: BranchNo, name: &str) -> bool {
        let own = dir.file_id();
        dir.branches.knows_number(own, no)
            && Member::named(name).is_none_or(|member| self.has_at_hand(dir, no, member))
    }

    /// Whether the store directory of a branch is found by its name without opening it.
    pub(super) fn finds_store_at_hand(&self, dir: &StoreDir, name: &str) -> bool {
        let own = dir.file_id();
        dir.branches.knows_name(own, name)
            && dir.branches.named(own, name).is_ok_and(|row| match &row.what {
                What::File(found) => self.branches.opened(dir.id, &found.path).is_some(),
                What::Main | What::Pending(_) => true,
            })
    }

    fn has_at_hand(&self, dir: &StoreDir, no: BranchNo, member: Member) -> bool {
        let ready = |snap: &Snap| match member {
            Member::Origin => true,
            Member::VectorsNpy | Member::IdsNpy => snap.view.is_counted(),
            Member::MetadataJsonl => snap.jsonl_len_if_known().is_some(),
        };
        match Self::row(dir, no) {
            Ok(Row { what: What::Main, .. }) => ready(&dir.snap()),
            Ok(Row { what: What::File(found), copying: None, .. }) => {
                self.branches.opened(dir.id, &found.path).is_some_and(|store| ready(&store.snap()))
            }
            _ => true,
        }
    }

    pub(super) fn branch_facts(&self, dir: &StoreDir, no: BranchNo) -> Result<Facts, Error> {
        let row = Self::row(dir, no)?;
        let (mode, time) = match &row.what {
            What::Main => {
                let snap = dir.snap();
                (if snap.view.frozen().is_some() { 0o555 } else { 0o755 }, snap.modified())
            }
            What::File(found) => {
                let (stamp, kin) = dir.branches.family.seen(&found.path).ok_or(Error::Stale)?;
                let frozen = kin.is_some_and(|kin| kin.frozen);
                (if frozen { 0o555 } else { 0o755 }, crate::source::time(&stamp))
            }
            What::Pending(pending) => {
                let (mode, time) = pending.attr();
                (mode.unwrap_or(0o755), time.unwrap_or(pending.since))
            }
        };
        let copying = row.copying.as_ref().and_then(|pending| pending.attr().1);
        let time = dir.branches.time(no, None).or(copying).unwrap_or(time);
        // A name that another program takes away leads to a number without a branch, and is looked for again then.
        Ok(Facts(0, time, mode, if no == MAIN { LONG } else { SHORT }, SHORT, TEXT_BLOCK))
    }

    pub(super) fn member_facts(
        &self,
        dir: &Arc<StoreDir>,
        no: BranchNo,
        member: Member,
        state: StateNo,
        cheap: bool,
    ) -> Result<Facts, Error> {
        if cheap && !self.has_at_hand(dir, no, member) {
            return Ok(Facts(0, dir.snap().modified(), 0o644, NONE, NONE, DATA_BLOCK));
        }
        let row = Self::row(dir, no)?;
        let snap = self.branch_store(dir, &row)?.snap_of(state).ok_or(Error::Stale)?;
        let len = match member {
            Member::Origin => content::origin(&snap).len() as u64,
            member => member.len(&snap),
        };
        let time = dir.branches.time(no, Some(member)).unwrap_or_else(|| snap.view.shown_since());
        // Writable, so that rm does not ask; writing is refused when the file is opened. The inode is one of this state.
        Ok(Facts(len, time, 0o644, NONE, LONG, DATA_BLOCK))
    }

    /// What `stat` shows of a link. Those of `main` always lead to the same places.
    pub(super) fn link_facts(&self, dir: &Arc<StoreDir>, no: BranchNo, link: Link) -> Result<Facts, Error> {
        let target = self.link_target(dir, no, link)?;
        let ttl = if no == MAIN && link != Link::Parent { LONG } else { SHORT };
        Ok(Facts(target.len() as u64, dir.snap().modified(), 0o777, ttl, ttl, TEXT_BLOCK))
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
        dir.branches.name_of(own, wanted).unwrap_or_else(|| "missing".into())
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
            Item::Part(no) if !how.write => self.read_part(dir, no),
            Item::Part(no) => dir.branches.part(no).ok_or(Error::Stale).map(|part| {
                if how.truncate {
                    part.truncate();
                }
                (dir.clone(), Body::Part(part), Caching::Direct)
            }),
            _ => return None,
        };
        Some(opened)
    }

    /// What was copied is kept nowhere. Once the branch exists it is read as what it is, though the copying tool may be at work still.
    fn read_part(&self, dir: &Arc<StoreDir>, no: u64) -> Result<(Arc<StoreDir>, Body, Caching), Error> {
        let part = dir.branches.part(no).ok_or(Error::Stale)?;
        let (pending, name) = (part.pending().ok_or(Error::Stale)?, part.name());
        let branch = dir.branches.number_of(&pending).ok_or(Error::Stale)?;
        let unfinished = || {
            refused(
                dir,
                Error::denied(format!(
                    "{name} is part of a copy that is not complete; it can be read when the branch exists"
                )),
            )
        };
        let (Some(_), Some(member)) = (pending.done(), Member::named(&name)) else {
            return Err(unfinished());
        };
        let state = self.branch_store(dir, &Self::row(dir, branch)?)?.snap().no;
        let (store, body, _) = self.open_member(dir, branch, member, state)?;
        Ok((store, body, Caching::Direct))
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
}
