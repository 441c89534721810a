//! `stat`: exact sizes, times that change with the content, and how long the kernel may believe them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Attr, Tree};
use crate::data::npy::{Dtype, write_header};
use crate::data::text::vector_text_len;
use crate::drafts::DraftAttr;
use crate::errno::Error;
use crate::handle::Body;
use crate::node::{Item, Node, Place, ProgramKind, QueryFile, SegmentFile, StoreId};
use crate::session::nothing_yet;
use crate::snapshot::Snap;
use crate::source::Source;
use crate::store_dir::StoreDir;
use crate::{ctl, executable, programs, readme, segments, signatures, status};

/// For what never changes while the mount lives.
pub(super) const LONG: Duration = Duration::from_secs(3600);
/// For what may change behind the kernel's back, where asking every time would cost too much.
pub(super) const SHORT: Duration = Duration::from_secs(1);
pub(super) const NONE: Duration = Duration::ZERO;

pub(super) const DATA_BLOCK: u32 = 1 << 20;
pub(super) const TEXT_BLOCK: u32 = 4096;

/// Size, time, permission bits, name and attribute lifetimes, block size.
pub(super) struct Facts(
    pub(super) u64,
    pub(super) SystemTime,
    pub(super) u16,
    pub(super) Duration,
    pub(super) Duration,
    pub(super) u32,
);

impl Tree {
    /// What `stat` shows of an inode number.
    ///
    /// # Errors
    /// [`Error::Stale`] for numbers of things that are gone.
    pub fn getattr(&self, ino: u64) -> Result<Attr, Error> {
        let node = self.node(ino)?;
        match self.attr(node, ino, false) {
            // Its name is gone, by a removal or a refusal; whoever has it open still has a file.
            Err(Error::Stale) => {
                let held = self.handles.find(|handle| handle.ino == ino);
                match held.as_deref().map(|handle| &handle.body) {
                    Some(Body::Draft(draft)) => Ok(nameless(ino, draft.attr())),
                    _ => Err(Error::Stale),
                }
            }
            result => result,
        }
    }

    /// The attributes of a node. With `cheap`, a size that would take long is given as 0; only for answers that the
    /// kernel may not keep.
    pub(crate) fn attr(&self, node: Node, ino: u64, cheap: bool) -> Result<Attr, Error> {
        let Facts(size, mtime, perm, name_ttl, attr_ttl, block_size) = match node {
            Node::Root => match &self.source {
                Source::Directory(directory) => Facts(0, directory.changed(), 0o555, LONG, SHORT, TEXT_BLOCK),
                Source::File(_) => return Err(Error::Stale),
            },
            Node::Beside(file) => {
                let (text, time) = self.beside(file)?;
                Facts(text.len() as u64, time, 0o444, SHORT, NONE, TEXT_BLOCK)
            }
            Node::In(id, item) => match self.store(id) {
                Ok(dir) => self.facts(&dir, item, cheap)?,
                Err(error) => self.broken_facts(id, item, &error)?,
            },
        };
        let keeps = is_query(node) || node.is_link();
        let perm = if self.settings.read_only && !keeps { perm & !0o222 } else { perm };
        let (is_dir, is_link) = (node.is_dir(), node.is_link());
        Ok(Attr { ino, size, mtime, is_dir, is_link, perm, name_ttl, attr_ttl, block_size })
    }

    /// A store that cannot be opened is a directory with nothing but the reason.
    fn broken_facts(&self, id: StoreId, item: Item, error: &Error) -> Result<Facts, Error> {
        let changed = match &self.source {
            _ if self.branches.has(id) => SystemTime::now(),
            Source::Directory(directory) if directory.has(id) => directory.changed(),
            _ => return Err(Error::Stale),
        };
        match item {
            Item::Top => Ok(Facts(0, changed, 0o555, SHORT, NONE, TEXT_BLOCK)),
            Item::Error(Place::Top) => {
                Ok(Facts(error.to_string().len() as u64 + 1, changed, 0o444, NONE, NONE, TEXT_BLOCK))
            }
            _ => Err(Error::Stale),
        }
    }

    fn facts(&self, dir: &Arc<StoreDir>, item: Item, cheap: bool) -> Result<Facts, Error> {
        let snap = dir.snap();
        let now = snap.modified();
        let constant = |text: usize| Facts(text as u64, dir.since, 0o444, LONG, NONE, TEXT_BLOCK);
        let text = |len: usize, time| Facts(len as u64, time, 0o444, LONG, NONE, TEXT_BLOCK);
        Ok(match item {
            Item::Top => Facts(
                0,
                now,
                0o755,
                if matches!(self.source, Source::File(_)) { LONG } else { SHORT },
                SHORT,
                TEXT_BLOCK,
            ),
            Item::Vectors | Item::Metadata => Facts(0, now, 0o755, LONG, SHORT, TEXT_BLOCK),
            Item::Programs(_) => Facts(0, now, 0o755, LONG, NONE, TEXT_BLOCK),
            Item::Ingest => Facts(0, now, 0o755, LONG, NONE, TEXT_BLOCK),
            Item::Segments | Item::Witness | Item::Models | Item::Signatures => {
                Facts(0, now, 0o555, LONG, SHORT, TEXT_BLOCK)
            }
            Item::Segment(key) => {
                snap.part(key).ok_or(Error::Stale)?;
                Facts(0, dir.part_time(&snap, key), 0o555, NONE, LONG, TEXT_BLOCK)
            }
            Item::Query(id) => {
                let session = dir.sessions.get(id).ok_or(Error::Stale)?;
                Facts(0, session.since, 0o755, LONG, SHORT, TEXT_BLOCK)
            }
            Item::Branches => Facts(0, self.branches_time(dir), 0o755, LONG, NONE, TEXT_BLOCK),
            Item::Stores => Facts(0, self.branches_time(dir), 0o555, LONG, NONE, TEXT_BLOCK),
            Item::Branch(no) => self.branch_facts(dir, no)?,
            Item::Member(no, member, state) => self.member_facts(dir, no, member, state, cheap)?,
            Item::Link(no, link) => self.link_facts(dir, no, link)?,
            Item::Part(no) | Item::PartLink(no) => {
                let attr = dir.branches.part(no).ok_or(Error::Stale)?.attr();
                let mode = if item.is_link() { 0o777 } else { attr.mode };
                // It changes through the kernel alone.
                Facts(attr.len, attr.mtime, mode, NONE, SHORT, DATA_BLOCK)
            }
            Item::Diff if cheap && !snap.diff_is_ready() => Facts(0, now, 0o444, NONE, NONE, TEXT_BLOCK),
            Item::Diff => text(snap.diff()?.len(), now),
            Item::Readme => constant(readme::text(dir).len()),
            Item::Status => text(status::text(dir).len(), now),
            Item::StatusJson => text(status::json_text(dir).len(), now),
            Item::Lineage | Item::WitnessLog | Item::WitnessHead | Item::WitnessVerify => {
                text(rendered(dir, &snap, item).len(), now)
            }
            Item::Whole(no) => {
                let snap = dir.snap_of(no).ok_or(Error::Stale)?;
                Facts(snap.view.file_len(), snap.modified(), 0o444, NONE, LONG, DATA_BLOCK)
            }
            Item::VectorsNpy(_) | Item::IdsNpy(_) if cheap && !snap.view.is_counted() => {
                Facts(0, now, 0o444, NONE, NONE, DATA_BLOCK)
            }
            Item::VectorsNpy(no) => {
                let snap = dir.snap_of(no).ok_or(Error::Stale)?;
                let size = vectors_header(&snap).len() as u64 + live(&snap).saturating_mul(snap.row_len());
                Facts(size, snap.modified(), 0o444, NONE, LONG, DATA_BLOCK)
            }
            Item::IdsNpy(no) => {
                let snap = dir.snap_of(no).ok_or(Error::Stale)?;
                let size = ids_header(&snap).len() as u64 + live(&snap).saturating_mul(8);
                Facts(size, snap.modified(), 0o444, NONE, LONG, DATA_BLOCK)
            }
            Item::MetadataJsonl(no) => {
                let snap = dir.snap_of(no).ok_or(Error::Stale)?;
                match snap.jsonl_len_if_known() {
                    Some(len) => Facts(len, snap.modified(), 0o444, NONE, LONG, DATA_BLOCK),
                    None if cheap => Facts(0, snap.modified(), 0o444, NONE, NONE, DATA_BLOCK),
                    None => Facts(snap.jsonl().len, snap.modified(), 0o444, NONE, LONG, DATA_BLOCK),
                }
            }
            Item::Vector(id) => {
                if snap.view.resolved().find(id).is_some() {
                    Facts(vector_text_len(snap.view.dimension()), now, 0o644, SHORT, SHORT, TEXT_BLOCK)
                } else {
                    draft_facts(dir.drafts.named(Place::Vectors, &id.to_string()).ok_or(Error::Stale)?.attr())
                }
            }
            Item::MetadataJson(_) if cheap && !snap.metadata_is_ready() => {
                Facts(0, now, 0o644, NONE, NONE, TEXT_BLOCK)
            }
            Item::MetadataJson(id) => match snap.record(id) {
                Some(record) => Facts(record.len() as u64, now, 0o644, SHORT, NONE, TEXT_BLOCK),
                None => draft_facts(
                    dir.drafts.named(Place::Metadata, &format!("{id}.json")).ok_or(Error::Stale)?.attr(),
                ),
            },
            Item::SegmentFile(key, file) => {
                let part = snap.part(key).ok_or(Error::Stale)?;
                let time = dir.part_time(&snap, key);
                let unknown = cheap && !dir.knows(&snap, key);
                let size = match file {
                    SegmentFile::Header | SegmentFile::Info if unknown => 0,
                    SegmentFile::Raw => part.raw.end - part.raw.start,
                    SegmentFile::Payload => part.segment().map_or(0, |s| s.payload.end - s.payload.start),
                    SegmentFile::Header => segments::header_text(dir, &snap, part).len() as u64,
                    SegmentFile::Info => dir.info_len(&snap, part),
                };
                // Whether a segment is listed, and what of it is in use, changes with other segments.
                match file {
                    SegmentFile::Raw | SegmentFile::Payload => {
                        Facts(size, time, 0o444, LONG, LONG, DATA_BLOCK)
                    }
                    SegmentFile::Header | SegmentFile::Info => {
                        Facts(size, time, 0o444, LONG, NONE, TEXT_BLOCK)
                    }
                }
            }
            Item::QueryFile(id, file) => {
                let session = dir.sessions.get(id).ok_or(Error::Stale)?;
                match file {
                    QueryFile::In => Facts(0, session.since, 0o666, LONG, NONE, DATA_BLOCK),
                    QueryFile::Setting(setting) => {
                        let (defaults, time) = session.defaults();
                        Facts(defaults.show(setting).len() as u64, time, 0o644, LONG, NONE, TEXT_BLOCK)
                    }
                    QueryFile::Error => {
                        let (error, time) = session.error();
                        text(error.len(), time)
                    }
                    QueryFile::Out | QueryFile::OutJson | QueryFile::OutIds | QueryFile::OutDistances => {
                        let (len, time) = match session.outcome() {
                            Some(outcome) => (outcome.form(file).len(), outcome.time),
                            None => (nothing_yet(file).len(), session.since.max(session.error().1)),
                        };
                        Facts(len as u64, time, 0o444, LONG, NONE, DATA_BLOCK)
                    }
                }
            }
            Item::Draft(id) => draft_facts(dir.drafts.numbered(id).ok_or(Error::Stale)?.attr()),
            Item::Signature(key) if cheap => {
                let part = snap.part(key).ok_or(Error::Stale)?;
                Facts(0, dir.part_time(&snap, part.key), 0o444, NONE, NONE, TEXT_BLOCK)
            }
            Item::Signature(key) => {
                let part = snap.part(key).ok_or(Error::Stale)?;
                let len = signatures::text(&snap, part).len() as u64;
                Facts(len, dir.part_time(&snap, key), 0o444, NONE, NONE, TEXT_BLOCK)
            }
            Item::Model(key) => {
                let part = snap.part(key).ok_or(Error::Stale)?;
                let size = part.segment().map_or(0, |segment| segment.payload.end - segment.payload.start);
                Facts(size, dir.part_time(&snap, key), 0o444, NONE, LONG, DATA_BLOCK)
            }
            Item::Program(key, kind) => {
                let range = program_range(&snap, key, kind)?;
                Facts(range.end - range.start, dir.part_time(&snap, key), 0o644, NONE, LONG, DATA_BLOCK)
            }
            Item::Exec(key, _) => {
                let len = executable::len(dir, &snap, key)?;
                let mode = if dir.settings.exec { 0o755 } else { 0o644 };
                Facts(len, dir.part_time(&snap, key), mode, NONE, NONE, TEXT_BLOCK)
            }
            Item::Ctl => Facts(ctl::HELP.len() as u64, dir.since, 0o644, LONG, NONE, TEXT_BLOCK),
            Item::Events => {
                let (len, time) = dir.events.size();
                Facts(len, time, 0o444, LONG, NONE, TEXT_BLOCK)
            }
            Item::Error(place) => {
                let (sentence, time) = dir.refusal(place);
                text(sentence.len(), time)
            }
        })
    }
}

fn is_query(node: Node) -> bool {
    matches!(node, Node::In(_, Item::Query(_) | Item::QueryFile(..)))
}

/// The attributes of a file that only its descriptors lead to.
pub(super) fn nameless(ino: u64, attr: DraftAttr) -> Attr {
    Attr {
        ino,
        size: attr.len,
        mtime: attr.time,
        is_dir: false,
        is_link: false,
        perm: attr.mode,
        name_ttl: NONE,
        attr_ttl: NONE,
        block_size: DATA_BLOCK,
    }
}

fn draft_facts(attr: DraftAttr) -> Facts {
    Facts(attr.len, attr.time, attr.mode, NONE, NONE, DATA_BLOCK)
}

/// Live vectors as the arrays have them.
pub(super) fn live(snap: &Snap) -> u64 {
    snap.view.resolved().count() as u64
}

/// The header of `vectors.npy`.
pub(super) fn vectors_header(snap: &Snap) -> Vec<u8> {
    write_header(Dtype::F32, &[snap.view.resolved().count(), snap.view.dimension()])
}

/// The header of `ids.npy`.
pub(super) fn ids_header(snap: &Snap) -> Vec<u8> {
    write_header(Dtype::U64, &[snap.view.resolved().count()])
}

/// Where the image of a program lies.
pub(super) fn program_range(
    snap: &Snap,
    key: crate::node::SegmentKey,
    kind: ProgramKind,
) -> Result<std::ops::Range<u64>, Error> {
    Ok(programs::image_range(snap, snap.part(key).ok_or(Error::Stale)?, kind))
}

/// The texts that depend on nothing but the state of the store; rendered once a state.
pub(super) fn rendered(dir: &StoreDir, snap: &Snap, item: Item) -> Arc<[u8]> {
    let (slot, render): (usize, &dyn Fn() -> String) = match item {
        Item::WitnessLog => (1, &|| crate::witness::log(snap)),
        Item::WitnessHead => (2, &|| crate::witness::head(snap)),
        Item::WitnessVerify => (3, &|| crate::witness::verdict(snap)),
        _ => (0, &|| crate::lineage::text(dir.store.path())),
    };
    match snap.texts.get(slot) {
        Some(cell) => cell.get_or_init(|| render().into_bytes().into()).clone(),
        None => Arc::from([]),
    }
}
