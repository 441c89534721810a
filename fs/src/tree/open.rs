//! Opening: what a handle will give or take, decided once.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::{Condvar, Mutex};

use super::attr::{ids_header, program_range, rendered, vectors_header};
use super::{Attr, Caller, Tree};
use crate::data::text::write_vector_text;
use crate::drafts::{Draft, NameKind, name_kind};
use crate::errno::Error;
use crate::handle::{Body, Exchange, Handle, Pending};
use crate::node::{Item, Node, Place, QueryFile, SegmentFile};
use crate::session::nothing_yet;
use crate::snapshot::Snap;
use crate::store_dir::StoreDir;
use crate::{ctl, executable, readme, segments, signatures, status};

/// How a file is opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Open {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// From nothing.
    pub truncate: bool,
    /// Only when it does not exist yet.
    pub exclusive: bool,
}

/// What the kernel may do with the contents.
#[derive(Debug, Clone)]
pub enum Caching {
    /// Nothing: every read comes here.
    Direct,
    /// Nothing that is read; what is written passes the page cache on its way here. See
    /// [`Session::asked_about_privileges`](crate::session::Session::asked_about_privileges).
    Through,
    /// Keep them for good; the inode never changes.
    Keep,
    /// Read this very file instead of asking here; otherwise as `Keep`.
    PassThrough(Arc<File>),
}

/// A new handle.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Its number.
    pub fh: u64,
    /// What the kernel may do.
    pub caching: Caching,
}

impl Tree {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::Stale`] when the inode belongs to an older state (the kernel then looks the name up again);
    /// [`Error::ReadOnly`] and [`Error::NotPermitted`] for writing where that is not possible.
    pub fn open(&self, ino: u64, how: Open, caller: Caller) -> Result<Opened, Error> {
        let node = self.node(ino)?;
        let (id, item) = match node {
            Node::In(id, item) => (id, item),
            Node::Root => return Err(Error::IsDirectory),
            Node::Beside(_) if how.write && self.settings.read_only => return Err(Error::ReadOnly),
            Node::Beside(_) if how.write => {
                return Err(Error::denied("this file is a view and cannot be written"));
            }
            Node::Beside(file) => {
                let text = self.beside(file)?.0.into_bytes().into();
                return Ok(self.opened(node, ino, None, how, caller, Body::Text(text), Caching::Direct));
            }
        };
        if item.is_dir() {
            return Err(Error::IsDirectory);
        }
        let dir = match self.store(id) {
            Ok(dir) => dir,
            Err(Error::NotFound) => return Err(Error::Stale),
            Err(error) if item == Item::Error(Place::Top) && !how.write => {
                let text = format!("{error}\n").into_bytes().into();
                return Ok(self.opened(node, ino, None, how, caller, Body::Text(text), Caching::Direct));
            }
            Err(error) => return Err(error),
        };
        let snap = dir.snap();
        if let Some(opened) = self.open_branch(&dir, item, how) {
            let (dir, body, caching) = opened?;
            return Ok(self.opened(node, ino, Some(dir), how, caller, body, caching));
        }
        let (body, mut caching) =
            if how.write { self.writing(&dir, &snap, item, how)? } else { reading(&dir, &snap, item)? };
        if let Body::Request(session, exchange, _) = &body
            && how.truncate
            && !how.read
            && session.asked_about_privileges()
        {
            exchange.lock().through_cache = true;
            caching = Caching::Through;
        }
        Ok(self.opened(node, ino, Some(dir), how, caller, body, caching))
    }

    #[expect(clippy::too_many_arguments, reason = "one fact of the handle each")]
    fn opened(
        &self,
        node: Node,
        ino: u64,
        dir: Option<Arc<StoreDir>>,
        how: Open,
        caller: Caller,
        body: Body,
        caching: Caching,
    ) -> Opened {
        let seen = dir.as_ref().map_or(0, |dir| super::read::progress_of(dir, node));
        let fh = self.handles.add(Handle {
            node,
            ino,
            dir,
            read: how.read,
            write: how.write,
            opener: caller.thread,
            user: caller.user,
            body,
            seen: AtomicU64::new(seen),
            used: AtomicBool::new(false),
            writers: Mutex::default(),
        });
        Opened { fh, caching }
    }

    /// Opens a directory: its listing as it is now.
    ///
    /// # Errors
    /// [`Error::NotDirectory`]; [`Error::Stale`] when it is gone.
    pub fn opendir(&self, ino: u64, caller: Caller) -> Result<u64, Error> {
        let node = self.node(ino)?;
        if !node.is_dir() {
            return Err(Error::NotDirectory);
        }
        let listing = self.listing(node)?;
        if let Some(records) = &listing.records {
            // Here and not while listing, which must not keep a thread busy.
            let _ = records.jsonl();
        }
        let how = Open { read: true, ..Open::default() };
        Ok(self.opened(node, ino, None, how, caller, Body::List(listing), Caching::Direct).fh)
    }

    fn writing(
        &self,
        dir: &Arc<StoreDir>,
        snap: &Arc<Snap>,
        item: Item,
        how: Open,
    ) -> Result<(Body, Caching), Error> {
        let body = match item {
            Item::QueryFile(id, QueryFile::In) => {
                let session = dir.sessions.get(id).ok_or(Error::Stale)?;
                Body::Request(session, Mutex::new(Exchange::new(how.read)), Condvar::new())
            }
            Item::QueryFile(id, QueryFile::Setting(setting)) => {
                let session = dir.sessions.get(id).ok_or(Error::Stale)?;
                let bytes =
                    if how.truncate { Vec::new() } else { session.defaults().0.show(setting).into_bytes() };
                let applied = bytes.len();
                Body::Setting(
                    session,
                    setting,
                    Mutex::new(Pending { bytes, applied, truncated: how.truncate }),
                )
            }
            Item::Ctl => Body::Ctl(Mutex::new(Vec::new())),
            Item::Draft(id) => {
                self.writable(dir, Place::Ingest, "")?;
                let draft = dir.drafts.numbered(id).ok_or(Error::Stale)?;
                draft.opened(true, how.truncate);
                Body::Draft(draft)
            }
            Item::Vector(id) => {
                let mut text = Vec::new();
                if let Some(row) = snap.view.resolved().find(id).filter(|_| !how.truncate) {
                    write_vector_text(snap.view.resolved().vector(row), &mut text);
                    end_line(&mut text);
                }
                Body::Draft(self.editing(dir, Place::Vectors, &id.to_string(), &text, how)?)
            }
            Item::MetadataJson(id) => {
                let text = if how.truncate { String::new() } else { snap.record(id).unwrap_or_default() };
                Body::Draft(self.editing(
                    dir,
                    Place::Metadata,
                    &format!("{id}.json"),
                    text.as_bytes(),
                    how,
                )?)
            }
            Item::Exec(key, kind) | Item::Program(key, kind) => {
                let place = Place::Programs(kind);
                let shown = snap.programs().at(key).ok_or(Error::Stale)?;
                let name =
                    if matches!(item, Item::Exec(..)) { shown.name.clone() } else { shown.image_name() };
                if !how.truncate {
                    let error = Error::denied("a program is replaced whole: copy the new one over it");
                    dir.refuse(place, &name, &error);
                    return Err(error);
                }
                Body::Draft(self.editing(dir, place, &name, &[], how)?)
            }
            _ => {
                let error = Error::denied(
                    "this file is a view and cannot be written; drop data into ingest/, or write vectors/ID",
                );
                if self.settings.read_only {
                    return Err(Error::ReadOnly);
                }
                dir.refuse(Place::Top, "", &error);
                return Err(error);
            }
        };
        Ok((body, Caching::Direct))
    }

    /// The draft behind a vector or record that is about to be changed in place.
    fn editing(
        &self,
        dir: &Arc<StoreDir>,
        place: Place,
        name: &str,
        now: &[u8],
        how: Open,
    ) -> Result<Arc<Draft>, Error> {
        self.writable(dir, place, name)?;
        let (draft, made) =
            dir.drafts.get_or_make(place, name).inspect_err(|error| dir.refuse(place, name, error))?;
        draft.opened(true, how.truncate);
        if made {
            draft.prefill(now);
        }
        Ok(draft)
    }

    pub(super) fn writable(&self, dir: &StoreDir, place: Place, name: &str) -> Result<(), Error> {
        dir.writable().inspect_err(|error| dir.refuse(place, name, error))
    }

    /// Creates and opens a file in `ingest/`, `vectors/` or `metadata/`.
    ///
    /// # Errors
    /// [`Error::ReadOnly`]; [`Error::Invalid`] and [`Error::NotPermitted`] for names that mean nothing there.
    pub fn create(
        &self,
        parent: u64,
        name: &str,
        how: Open,
        caller: Caller,
    ) -> Result<(Attr, Opened), Error> {
        let parent_node = self.node(parent)?;
        if name.len() > 255 {
            return Err(Error::NameTooLong);
        }
        let Node::In(id, item) = parent_node else {
            if self.settings.read_only {
                return Err(Error::ReadOnly);
            }
            return Err(self.refuse(name, Error::denied(IN_ROOT)));
        };
        let dir = self.store(id)?;
        let place = place_of(item);
        if self.settings.read_only {
            dir.refuse(place, name, &Error::ReadOnly);
            return Err(Error::ReadOnly);
        }
        // A frozen store can be branched.
        if let Item::Branch(no) = item {
            let part = self.make_part(&dir, no, name, None)?;
            let node = Node::In(id, Item::Part(part.no));
            let attr = self.remembered(node)?;
            let opened =
                self.opened(node, attr.ino, Some(dir), how, caller, Body::Part(part), Caching::Direct);
            return Ok((attr, opened));
        }
        self.writable(&dir, place, name)?;
        let kind = name_kind(place, name).inspect_err(|error| dir.refuse(place, name, error))?;
        if name == "error" {
            return Err(Error::Exists { what: "error exists".into() });
        }
        let (draft, made) =
            dir.drafts.get_or_make(place, name).inspect_err(|error| dir.refuse(place, name, error))?;
        if !made && how.exclusive {
            return Err(Error::Exists { what: format!("{name} exists") });
        }
        draft.opened(how.write, how.truncate);
        let node = Node::In(
            id,
            match kind {
                NameKind::Vector(vector) => Item::Vector(vector),
                NameKind::Record(vector) => Item::MetadataJson(vector),
                NameKind::Rows(_)
                | NameKind::Ids
                | NameKind::Program(_)
                | NameKind::Options
                | NameKind::Temporary => Item::Draft(draft.id),
            },
        );
        let attr = match self.remembered(node) {
            Ok(attr) => attr,
            Err(error) => {
                dir.drafts.closed(&draft);
                return Err(error);
            }
        };
        let opened = self.opened(node, attr.ino, Some(dir), how, caller, Body::Draft(draft), Caching::Direct);
        Ok((attr, opened))
    }
}

/// Why nothing can be made beside stores.
pub(super) const IN_ROOT: &str = "this is a directory of stores; a store is created with rvf create, or copied whole, in \
                                  the directory that is mounted here, and shows up by itself; vectors go into NAME/ingest/";

/// The directory of drafts that an item is.
pub(super) fn place_of(item: Item) -> Place {
    match item {
        Item::Ingest => Place::Ingest,
        Item::Vectors => Place::Vectors,
        Item::Metadata => Place::Metadata,
        Item::Programs(kind) => Place::Programs(kind),
        _ => Place::Top,
    }
}

fn end_line(text: &mut Vec<u8>) {
    if text.last() != Some(&b'\n') {
        text.push(b'\n');
    }
}

pub(super) fn reading(dir: &Arc<StoreDir>, snap: &Arc<Snap>, item: Item) -> Result<(Body, Caching), Error> {
    let direct = |text: String| (Body::Text(text.into_bytes().into()), Caching::Direct);
    let state = |no| dir.snap_of(no).ok_or(Error::Stale);
    Ok(match item {
        Item::Readme => direct(readme::text(dir)),
        Item::Status => direct(status::text(dir)),
        Item::StatusJson => (Body::Text(status::json_text(dir).into()), Caching::Direct),
        Item::Lineage | Item::WitnessLog | Item::WitnessHead | Item::WitnessVerify => {
            (Body::Text(rendered(dir, snap, item)), Caching::Direct)
        }
        Item::Whole(no) => {
            let snap = current(dir, state(no)?)?;
            let file = snap.view.file().clone();
            let range = 0..snap.view.file_len();
            (Body::Range(snap, range), Caching::PassThrough(file))
        }
        Item::VectorsNpy(no) => {
            let snap = current(dir, state(no)?)?;
            let header = vectors_header(&snap);
            (Body::Rows(snap, header), Caching::Keep)
        }
        Item::IdsNpy(no) => {
            let snap = current(dir, state(no)?)?;
            let header = ids_header(&snap);
            (Body::Ids(snap, header), Caching::Keep)
        }
        Item::MetadataJsonl(no) => (Body::Jsonl(current(dir, state(no)?)?), Caching::Keep),
        Item::Vector(id) => match snap.view.resolved().find(id) {
            Some(row) => {
                let mut text = Vec::new();
                write_vector_text(snap.view.resolved().vector(row), &mut text);
                snap.view.check_chain()?;
                (Body::Text(text.into()), Caching::Direct)
            }
            None => (draft_body(dir, Place::Vectors, &id.to_string())?, Caching::Direct),
        },
        Item::MetadataJson(id) => match snap.record(id) {
            Some(record) => direct(record),
            None => (draft_body(dir, Place::Metadata, &format!("{id}.json"))?, Caching::Direct),
        },
        Item::SegmentFile(key, file) => {
            let part = snap.part(key).ok_or(Error::Stale)?;
            match file {
                SegmentFile::Raw => (Body::Range(snap.clone(), part.raw.clone()), Caching::Keep),
                SegmentFile::Payload => {
                    let payload = part.segment().ok_or(Error::Stale)?.payload.clone();
                    (Body::Range(snap.clone(), payload), Caching::Keep)
                }
                SegmentFile::Header => direct(segments::header_text(dir, snap, part)),
                SegmentFile::Info => (Body::Text(dir.info(snap, part)), Caching::Direct),
            }
        }
        Item::QueryFile(id, file) => {
            let session = dir.sessions.get(id).ok_or(Error::Stale)?;
            match file {
                // Reading `in` without having asked anything gives nothing, at once.
                QueryFile::In => (Body::Text(Arc::from([])), Caching::Direct),
                QueryFile::Setting(setting) => direct(session.defaults().0.show(setting)),
                QueryFile::Error => direct(session.error().0),
                QueryFile::Out | QueryFile::OutJson | QueryFile::OutIds | QueryFile::OutDistances => {
                    let text =
                        session.outcome().map_or_else(|| nothing_yet(file), |outcome| outcome.form(file));
                    (Body::Text(text), Caching::Direct)
                }
            }
        }
        Item::Draft(id) => {
            let draft = dir.drafts.numbered(id).ok_or(Error::Stale)?;
            draft.opened(false, false);
            (Body::Draft(draft), Caching::Direct)
        }
        Item::Signature(key) => {
            let part = snap.part(key).ok_or(Error::Stale)?;
            (Body::Text(signatures::text(snap, part)), Caching::Direct)
        }
        Item::Model(key) => {
            let payload = snap.part(key).and_then(|part| part.segment()).ok_or(Error::Stale)?.payload.clone();
            (Body::Range(snap.clone(), payload), Caching::Keep)
        }
        Item::Program(key, kind) => {
            (Body::Range(snap.clone(), program_range(snap, key, kind)?), Caching::Keep)
        }
        Item::Exec(key, _) => direct(executable::text(dir, snap, key)?),
        Item::Ctl => direct(ctl::HELP.to_owned()),
        Item::Events => (Body::Events, Caching::Direct),
        Item::Diff => (Body::Text(snap.diff()?), Caching::Direct),
        Item::Error(place) => direct(dir.refusal(place).0),
        _ => return Err(Error::IsDirectory),
    })
}

/// Only the current state is opened by name: an older inode comes from a name the kernel remembered too long, and is
/// looked up again.
fn current(dir: &StoreDir, snap: Arc<Snap>) -> Result<Arc<Snap>, Error> {
    if dir.snap().no == snap.no { Ok(snap) } else { Err(Error::Stale) }
}

fn draft_body(dir: &StoreDir, place: Place, name: &str) -> Result<Body, Error> {
    let draft = dir.drafts.named(place, name).ok_or(Error::Stale)?;
    draft.opened(false, false);
    Ok(Body::Draft(draft))
}
