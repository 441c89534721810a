//! Names: lookup and listings.

use std::sync::Arc;

use super::{Attr, Tree};
use crate::drafts::parse_id;
use crate::errno::Error;
use crate::handle::{Body, Listing};
use crate::node::{Beside, Item, Node, Place, ProgramKind, QueryFile, SegmentFile, SessionId, StoreId};
use crate::programs;
use crate::signatures;
use crate::source::Source;
use crate::store_dir::StoreDir;

/// One line of a listing.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: Node,
    /// Its inode number.
    pub ino: u64,
    /// Where the listing goes on after it.
    pub next: u64,
}

/// Names in a store directory that are always there, in listing order.
const TOP: [(&str, Item); 18] = [
    ("README", Item::Readme),
    ("status", Item::Status),
    ("status.json", Item::StatusJson),
    ("lineage", Item::Lineage),
    ("vectors", Item::Vectors),
    ("metadata", Item::Metadata),
    ("segments", Item::Segments),
    ("query", Item::Query(SessionId(0))),
    ("ingest", Item::Ingest),
    ("branches", Item::Branches),
    ("witness", Item::Witness),
    ("signatures", Item::Signatures),
    ("models", Item::Models),
    ("kernel", Item::Programs(ProgramKind::Kernel)),
    ("ebpf", Item::Programs(ProgramKind::Ebpf)),
    ("wasm", Item::Programs(ProgramKind::Wasm)),
    ("ctl", Item::Ctl),
    ("events", Item::Events),
];

const WITNESS: [(&str, Item); 3] =
    [("log.jsonl", Item::WitnessLog), ("head", Item::WitnessHead), ("verify", Item::WitnessVerify)];

impl Tree {
    /// The node of a name in a directory, remembered, and its attributes.
    ///
    /// # Errors
    /// [`Error::NotFound`]; why a store cannot be opened.
    pub fn lookup(&self, parent: u64, name: &str) -> Result<Attr, Error> {
        let node = self.child(self.node(parent)?, name)?;
        self.remembered(node)
    }

    /// Whether a lookup may take longer than a FUSE thread should be busy: the first look at metadata decodes all of it,
    /// and the first look at a large segment's header or info hashes its payload.
    #[must_use]
    pub fn lookup_takes_long(&self, parent: u64, name: &str) -> bool {
        let Some(Node::In(id, item)) = self.inodes.node(parent) else { return false };
        if !matches!(
            item,
            Item::Top | Item::Metadata | Item::Segment(_) | Item::Branches | Item::Branch(_) | Item::Stores
        ) {
            return false;
        }
        let Ok(dir) = self.store(id) else { return false };
        match item {
            // The stores of branches are opened when they are first looked into.
            Item::Stores => !self.finds_store_at_hand(&dir, name),
            Item::Branches => !dir.branches.knows_name(dir.file_id(), name),
            Item::Branch(no) => !self.finds_at_hand(&dir, no, name),
            Item::Top => match name {
                "metadata.jsonl" => !dir.snap().metadata_is_ready(),
                "vectors.npy" | "ids.npy" => !dir.snap().view.is_counted(),
                "diff.jsonl" => !dir.snap().diff_is_ready(),
                _ => false,
            },
            Item::Metadata => !dir.snap().metadata_is_ready(),
            Item::Segment(key) => matches!(name, "header" | "info.json") && !dir.knows(&dir.snap(), key),
            _ => false,
        }
    }

    /// The same for what is known by its inode number: attributes, opening, listing.
    #[must_use]
    pub fn takes_long(&self, ino: u64) -> bool {
        let Some(Node::In(id, item)) = self.inodes.node(ino) else { return false };
        if !matches!(
            item,
            Item::MetadataJsonl(_)
                | Item::VectorsNpy(_)
                | Item::IdsNpy(_)
                | Item::Metadata
                | Item::MetadataJson(_)
                | Item::SegmentFile(..)
                | Item::Branches
                | Item::Branch(_)
                | Item::Member(..)
                | Item::Link(..)
                | Item::Diff
                | Item::Exec(..)
        ) {
            return false;
        }
        let Ok(dir) = self.store(id) else { return false };
        match item {
            // Files beside the store are read, and stores opened.
            Item::Branches | Item::Branch(_) | Item::Member(..) | Item::Link(..) => {
                !self.is_at_hand(&dir, item)
            }
            Item::VectorsNpy(_) | Item::IdsNpy(_) => !dir.snap().view.is_counted(),
            Item::Diff => !dir.snap().diff_is_ready(),
            Item::SegmentFile(key, SegmentFile::Header | SegmentFile::Info) => !dir.knows(&dir.snap(), key),
            Item::SegmentFile(..) => false,
            // Opening hashes the program.
            Item::Exec(key, _) => !dir.knows_content(&dir.snap(), key),
            _ => !dir.snap().metadata_is_ready(),
        }
    }

    /// A node's attributes, with one lookup more. Nothing is remembered when there are none.
    pub(crate) fn remembered(&self, node: Node) -> Result<Attr, Error> {
        let ino = self.inodes.remember(node);
        self.attr(node, ino, false).inspect_err(|_| self.inodes.forget(ino, 1)).map_err(|error| match error {
            // The name was found a moment ago; that it is gone now is an ordinary "no such file".
            Error::Stale => Error::NotFound,
            error => error,
        })
    }

    /// The node of a name.
    pub(crate) fn child(&self, parent: Node, name: &str) -> Result<Node, Error> {
        if name.len() > 255 {
            return Err(Error::NameTooLong);
        }
        let (id, item) = match parent {
            Node::Root => {
                let Source::Directory(directory) = &self.source else { return Err(Error::NotFound) };
                return match (directory.named(name), name) {
                    (Some(id), _) => Ok(Node::In(id, Item::Top)),
                    (None, "README") => Ok(Node::Beside(Beside::Readme)),
                    (None, "error") => Ok(Node::Beside(Beside::Error)),
                    (None, _) => Err(Error::NotFound),
                };
            }
            Node::Beside(_) => return Err(Error::NotDirectory),
            Node::In(id, item) => (id, item),
        };
        let dir = match self.store(id) {
            Ok(dir) => dir,
            Err(Error::NotFound) => return Err(Error::NotFound),
            Err(_) if item == Item::Top && name == "error" => {
                return Ok(Node::In(id, Item::Error(Place::Top)));
            }
            Err(_) => return Err(Error::NotFound),
        };
        if let Some(found) = self.branch_child(&dir, item, name) {
            return found;
        }
        let found = child_item(&dir, item, name)?;
        Ok(Node::In(id, found))
    }

    /// What a directory holds now.
    pub(crate) fn listing(&self, node: Node) -> Result<Listing, Error> {
        let (id, item) = match node {
            Node::Root => {
                let Source::Directory(directory) = &self.source else { return Err(Error::NotDirectory) };
                let fixed =
                    directory.list().into_iter().map(|(name, id)| (name, Node::In(id, Item::Top))).collect();
                return Ok(Listing { fixed, vectors: None, records: None });
            }
            Node::Beside(_) => return Err(Error::NotDirectory),
            Node::In(id, item) => (id, item),
        };
        match self.store(id) {
            Ok(dir) => match self.branch_listing(&dir, item) {
                Some(listing) => listing,
                None => list(&dir, id, item),
            },
            Err(Error::NotFound) => Err(Error::Stale),
            Err(_) if item == Item::Top => Ok(Listing {
                fixed: vec![("error".into(), Node::In(id, Item::Error(Place::Top)))],
                vectors: None,
                records: None,
            }),
            Err(error) => Err(error),
        }
    }

    /// The entries of an open directory from `offset` on; `take` says whether it wants more.
    ///
    /// # Errors
    /// [`Error::BadHandle`] when the handle is not a directory's.
    pub fn readdir(&self, fh: u64, offset: u64, mut take: impl FnMut(&Entry) -> bool) -> Result<(), Error> {
        let handle = self.handles.get(fh)?;
        let Body::List(listing) = &handle.body else { return Err(Error::BadHandle) };
        let mut at = offset;
        loop {
            let entry = match at {
                // The kernel finds "." and ".." itself; their numbers are only shown.
                0 | 1 => Some(((if at == 0 { "." } else { ".." }).to_owned(), handle.node)),
                _ => listing.get(usize::try_from(at - 2).unwrap_or(usize::MAX), handle.node),
            };
            let Some((name, node)) = entry else { return Ok(()) };
            at += 1;
            let ino = self.inodes.number(node);
            if !take(&Entry { name, node, ino, next: at }) {
                return Ok(());
            }
        }
    }

    /// The attributes of a listed entry, remembered, for listings that bring them along; `None` where the entry is gone
    /// or must be looked up by itself.
    #[must_use]
    pub fn entry_attr(&self, entry: &Entry) -> Option<Attr> {
        let ino = self.inodes.remember(entry.node);
        match self.attr(entry.node, ino, true) {
            Ok(attr) => Some(attr),
            Err(_) => {
                self.inodes.forget(ino, 1);
                None
            }
        }
    }
}

impl Listing {
    /// The name and node at a place.
    fn get(&self, at: usize, parent: Node) -> Option<(String, Node)> {
        if let Some((name, node)) = self.fixed.get(at) {
            return Some((name.clone(), *node));
        }
        let Node::In(id, _) = parent else { return None };
        let at = at - self.fixed.len();
        if let Some(snap) = &self.vectors {
            let rows = snap.view.resolved();
            let vector = rows.id(rows.at(at)?);
            return Some((vector.to_string(), Node::In(id, Item::Vector(vector))));
        }
        let vector = *self.records.as_ref()?.metadata_ids().get(at)?;
        Some((format!("{vector}.json"), Node::In(id, Item::MetadataJson(vector))))
    }
}

fn child_item(dir: &Arc<StoreDir>, item: Item, name: &str) -> Result<Item, Error> {
    let snap = dir.snap();
    let draft = |place| dir.drafts.named(place, name).map(|draft| Item::Draft(draft.id));
    let found = match item {
        Item::Top => match name {
            "file.rvf" => Some(Item::Whole(snap.no)),
            "vectors.npy" => Some(Item::VectorsNpy(snap.no)),
            "ids.npy" => Some(Item::IdsNpy(snap.no)),
            "metadata.jsonl" => Some(Item::MetadataJsonl(snap.no)),
            "error" => Some(Item::Error(Place::Top)),
            "diff.jsonl" => snap.view.is_child().then_some(Item::Diff),
            ".stores" => Some(Item::Stores),
            _ => TOP.iter().find(|(known, _)| *known == name).map(|(_, item)| *item),
        },
        Item::Vectors => match parse_id(name) {
            Some(id) => (snap.view.resolved().find(id).is_some()
                || dir.drafts.named(Place::Vectors, name).is_some())
            .then_some(Item::Vector(id)),
            None if name == "error" => Some(Item::Error(Place::Vectors)),
            None => draft(Place::Vectors),
        },
        Item::Metadata => match name.strip_suffix(".json").and_then(parse_id) {
            Some(id) => (dir.drafts.named(Place::Metadata, name).is_some() || snap.view.fields(id).is_some())
                .then_some(Item::MetadataJson(id)),
            None if name == "error" => Some(Item::Error(Place::Metadata)),
            None => draft(Place::Metadata),
        },
        Item::Ingest if name == "error" => Some(Item::Error(Place::Ingest)),
        Item::Ingest => draft(Place::Ingest),
        Item::Segments => snap.part_named(name).map(|part| Item::Segment(part.key)),
        Item::Segment(key) => {
            let part = snap.part(key).ok_or(Error::Stale)?;
            segment_files(part.segment().is_some())
                .find(|(_, known)| *known == name)
                .map(|(file, _)| Item::SegmentFile(key, file))
        }
        Item::Query(id) => {
            let file = QueryFile::ALL.iter().find(|(_, known)| *known == name);
            match file {
                Some((file, _)) => Some(Item::QueryFile(id, *file)),
                None if id == SessionId(0) => dir.sessions.named(name).map(|session| Item::Query(session.id)),
                None => None,
            }
        }
        Item::Witness => WITNESS.iter().find(|(known, _)| *known == name).map(|(_, item)| *item),
        Item::Signatures => signatures::parts(&snap)
            .find(|part| signatures::name(&snap, part) == name)
            .map(|part| Item::Signature(part.key)),
        Item::Models => snap
            .of_types(&programs::MODELS)
            .find(|part| programs::model_name(part) == name)
            .map(|part| Item::Model(part.key)),
        Item::Programs(kind) if name == "error" => Some(Item::Error(Place::Programs(kind))),
        Item::Programs(kind) => match snap.programs().named(kind, name) {
            Some((shown, true)) => Some(Item::Program(shown.key, kind)),
            Some((shown, false)) => Some(Item::Exec(shown.key, kind)),
            None => draft(Place::Programs(kind)),
        },
        _ => return Err(Error::NotDirectory),
    };
    found.ok_or(Error::NotFound)
}

/// A gap has no header and no payload.
fn segment_files(is_segment: bool) -> impl Iterator<Item = (SegmentFile, &'static str)> {
    SegmentFile::ALL
        .into_iter()
        .filter(move |(file, _)| is_segment || matches!(file, SegmentFile::Raw | SegmentFile::Info))
}

fn list(dir: &Arc<StoreDir>, id: StoreId, item: Item) -> Result<Listing, Error> {
    let snap = dir.snap();
    let mut fixed: Vec<(String, Node)> = Vec::new();
    let mut add = |name: &str, item: Item| fixed.push((name.to_owned(), Node::In(id, item)));
    let mut vectors = None;
    let mut records = None;
    match item {
        Item::Top => {
            for (name, item) in TOP {
                add(name, item);
            }
            add("file.rvf", Item::Whole(snap.no));
            add("vectors.npy", Item::VectorsNpy(snap.no));
            add("ids.npy", Item::IdsNpy(snap.no));
            add("metadata.jsonl", Item::MetadataJsonl(snap.no));
            if snap.view.is_child() {
                add("diff.jsonl", Item::Diff);
            }
            add("error", Item::Error(Place::Top));
        }
        Item::Vectors => {
            for (name, draft) in dir.drafts.list(Place::Vectors) {
                match parse_id(&name) {
                    Some(vector) if snap.view.resolved().find(vector).is_some() => {}
                    Some(vector) => add(&name, Item::Vector(vector)),
                    None => add(&name, Item::Draft(draft)),
                }
            }
            // Names come out of the file: of one that lost bytes they would read as zeros.
            snap.view.check_whole()?;
            vectors = Some(snap);
        }
        Item::Metadata => {
            for (name, draft) in dir.drafts.list(Place::Metadata) {
                match name.strip_suffix(".json").and_then(parse_id) {
                    Some(vector) if snap.view.fields(vector).is_some() => {}
                    Some(vector) => add(&name, Item::MetadataJson(vector)),
                    None => add(&name, Item::Draft(draft)),
                }
            }
            snap.view.check_whole()?;
            records = Some(snap);
        }
        Item::Ingest => {
            for (name, draft) in dir.drafts.list(Place::Ingest) {
                add(&name, Item::Draft(draft));
            }
            add("error", Item::Error(Place::Ingest));
        }
        Item::Segments => {
            for part in snap.list() {
                add(&part.name(), Item::Segment(part.key));
            }
        }
        Item::Segment(key) => {
            let part = snap.part(key).ok_or(Error::Stale)?;
            for (file, name) in segment_files(part.segment().is_some()) {
                add(name, Item::SegmentFile(key, file));
            }
        }
        Item::Query(session) => {
            dir.sessions.get(session).ok_or(Error::Stale)?;
            for (file, name) in QueryFile::ALL {
                add(name, Item::QueryFile(session, file));
            }
            if session == SessionId(0) {
                for session in dir.sessions.list() {
                    add(&session.name, Item::Query(session.id));
                }
            }
        }
        Item::Witness => {
            for (name, item) in WITNESS {
                add(name, item);
            }
        }
        Item::Signatures => {
            for part in signatures::parts(&snap) {
                add(&signatures::name(&snap, part), Item::Signature(part.key));
            }
        }
        Item::Models => {
            for part in snap.of_types(&programs::MODELS) {
                add(&programs::model_name(part), Item::Model(part.key));
            }
        }
        Item::Programs(kind) => {
            for shown in snap.programs().of_kind(kind) {
                add(&shown.name, Item::Exec(shown.key, kind));
                add(&shown.image_name(), Item::Program(shown.key, kind));
            }
            for (name, draft) in dir.drafts.list(Place::Programs(kind)) {
                if snap.programs().named(kind, &name).is_none() {
                    add(&name, Item::Draft(draft));
                }
            }
            add("error", Item::Error(Place::Programs(kind)));
        }
        _ => return Err(Error::NotDirectory),
    }
    Ok(Listing { fixed, vectors, records })
}
