//! Files that become commits: what is dropped into `ingest/`, and what is written to `vectors/ID` and
//! `metadata/ID.json`.
//!
//! What is written lies in a draft (memory, then an unlinked temporary file) until it is committed: at close, at
//! fsync, or when a temporary name is renamed to a real one. A draft with a temporary name is never committed by itself.
//!
//! The kernel sends a FLUSH for every descriptor that is closed, also for copies, also in child processes. A shell that
//! runs `{ cat a; cat b; } > ingest/x.jsonl` would commit half of the file if every FLUSH counted, so one counts only when
//! neither its process nor the one that opened the file has a further descriptor for it; the last close of all commits
//! what is left. A writer that was killed commits nothing: its files are closed for it, but they are not whole.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use rvf_cow::{BadRow, Batch, Fields, Value};
use rvf_format::FileBytes;

use crate::data::rows::{self, Format, ReadOptions};
use crate::data::{FieldValue, Kind, npy, text};
use crate::errno::Error;
use crate::node::Place;
use crate::store_dir::StoreDir;

/// Largest file that can be dropped into `ingest/`.
pub const MAX_INGEST_BYTES: u64 = 16 << 30;
/// Largest text for one vector or one metadata record.
pub const MAX_RECORD_BYTES: u64 = 16 << 20;
/// Drafts up to this size stay in memory.
const IN_MEMORY: u64 = 1 << 20;
/// A first write up to this size is judged at once.
const JUDGED_EARLY: usize = 256 * 1024;
/// Most drafts and receipts of one store.
const MAX_DRAFTS: usize = 100_000;

/// What a name in one of the directories means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// Rows to ingest.
    Rows(Format),
    /// Ids for the file `NAME.npy` that comes later.
    Ids,
    /// One vector.
    Vector(u64),
    /// One metadata record.
    Record(u64),
    /// Waits to be renamed.
    Temporary,
}

/// What `name` in `place` means.
///
/// # Errors
/// [`Error::Invalid`] with the names that would do.
pub fn name_kind(place: Place, name: &str) -> Result<NameKind, Error> {
    let temporary = is_temporary(name);
    match place {
        Place::Ingest if temporary => Ok(NameKind::Temporary),
        Place::Ingest if name.to_ascii_lowercase().ends_with(".ids.npy") => Ok(NameKind::Ids),
        Place::Ingest => Format::from_name(name).map(NameKind::Rows).ok_or_else(|| {
            Error::invalid(format!(
                "{name}: what is in it cannot be told from its name; use {}, or a temporary name (.NAME, NAME.tmp, NAME.part, NAME~) and rename it",
                Format::EXTENSIONS
            ))
        }),
        Place::Vectors => match parse_id(name) {
            Some(id) => Ok(NameKind::Vector(id)),
            None if temporary => Ok(NameKind::Temporary),
            None => Err(Error::invalid(format!(
                "{name}: a name in vectors/ is a vector id, a whole number from 0 to {} without leading zeros", u64::MAX
            ))),
        },
        Place::Metadata => match name.strip_suffix(".json").and_then(parse_id) {
            Some(id) => Ok(NameKind::Record(id)),
            None if temporary => Ok(NameKind::Temporary),
            None => Err(Error::invalid(format!("{name}: a name in metadata/ is ID.json, such as 7.json"))),
        },
        Place::Top => Err(Error::denied(format!(
            "{name}: nothing can be created here; drop data into ingest/, or write vectors/ID and metadata/ID.json"
        ))),
    }
}

/// The id that a name is, in the one form that is accepted.
#[must_use]
pub fn parse_id(name: &str) -> Option<u64> {
    let digits = name.bytes().all(|byte| byte.is_ascii_digit());
    let plain = name == "0" || !name.starts_with('0');
    (digits && plain && !name.is_empty()).then(|| name.parse().ok()).flatten()
}

/// Names that editors, rsync and download tools use until a file is whole.
fn is_temporary(name: &str) -> bool {
    const SUFFIXES: [&str; 8] =
        ["~", ".tmp", ".temp", ".part", ".partial", ".filepart", ".swp", ".crdownload"];
    let lower = name.to_ascii_lowercase();
    // vim writes a file of this name to see whether a directory can be written.
    name.starts_with('.')
        || lower.starts_with("tmp.")
        || name == "4913"
        || SUFFIXES.iter().any(|end| lower.ends_with(end))
}

/// A file being written, or the receipt of one.
#[derive(Debug)]
pub struct Draft {
    /// Its number, part of its node.
    pub id: u64,
    /// Its directory.
    pub place: Place,
    state: Mutex<State>,
    /// Held while it is being committed, so that a second close waits its turn on a worker.
    committing: Mutex<()>,
}

#[derive(Debug)]
struct State {
    name: String,
    content: Content,
    /// Written since the last commit or refusal.
    dirty: bool,
    /// Anything was ever written or truncated on purpose.
    touched: bool,
    receipt: Option<Arc<[u8]>>,
    refused: bool,
    /// A writer was killed before it was done.
    abandoned: bool,
    removed: bool,
    handles: u32,
    time: SystemTime,
    mode: Option<u16>,
}

#[derive(Debug)]
enum Content {
    Memory(Vec<u8>),
    File(Arc<File>, u64),
}

impl Content {
    fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(_, len) => *len,
        }
    }
}

/// What the tree shows of a draft.
#[derive(Debug, Clone, Copy)]
pub struct DraftAttr {
    /// Bytes.
    pub len: u64,
    /// Last change.
    pub time: SystemTime,
    /// Permission bits set with chmod.
    pub mode: Option<u16>,
}

impl Draft {
    /// Its current name.
    #[must_use]
    pub fn name(&self) -> String {
        self.state.lock().name.clone()
    }

    /// Size, time and mode.
    #[must_use]
    pub fn attr(&self) -> DraftAttr {
        let state = self.state.lock();
        let len = state.receipt.as_ref().map_or_else(|| state.content.len(), |receipt| receipt.len() as u64);
        DraftAttr { len, time: state.time, mode: state.mode }
    }

    /// Takes over mode and times, which copying tools set.
    pub fn set_attr(&self, mode: Option<u16>, time: Option<SystemTime>) {
        let mut state = self.state.lock();
        if mode.is_some() {
            state.mode = mode;
        }
        if let Some(time) = time {
            state.time = time;
        }
    }

    /// Whether it is only a receipt by now.
    #[must_use]
    pub fn is_receipt(&self) -> bool {
        self.state.lock().receipt.is_some()
    }

    /// Counts a handle; `truncate` starts over, also over a receipt.
    pub fn opened(&self, write: bool, truncate: bool) {
        let mut state = self.state.lock();
        state.handles += 1;
        if write && truncate && (state.receipt.is_some() || state.content.len() > 0) {
            state.content = Content::Memory(Vec::new());
            state.receipt = None;
            state.refused = false;
            state.dirty = false;
            state.time = SystemTime::now();
        }
        if write && truncate {
            state.abandoned = false;
        }
    }

    /// A writer was killed before it was done: what there is will not be committed. `true` the first time.
    pub fn abandon(&self) -> bool {
        let mut state = self.state.lock();
        state.refused = true;
        !std::mem::replace(&mut state.abandoned, true)
    }

    /// What it holds before anything is written, so that appending and partial writes start from there.
    pub fn prefill(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        if !state.touched {
            state.content = Content::Memory(bytes.to_vec());
        }
    }

    /// Judges the first thing written, when it can be judged already: whole lines that no further bytes can mend. So
    /// that `echo` learns at once what it would not look at when it closes.
    ///
    /// # Errors
    /// What is wrong; the draft is refused then, and empty again.
    pub fn judge_early(&self, first: &[u8], dimension: usize) -> Result<(), Error> {
        if first.len() > JUDGED_EARLY || first.last() != Some(&b'\n') {
            return Ok(());
        }
        let name = self.name();
        let result = match name_kind(self.place, &name) {
            Ok(NameKind::Vector(_)) => text::parse_one(first, dimension).map(|_| ()),
            Ok(NameKind::Rows(format @ (Format::Jsonl | Format::Csv))) => {
                match rows::read(format, first, &ReadOptions::new(dimension)) {
                    // A header alone is a beginning.
                    Err(error) if error.kind == Kind::Empty => Ok(()),
                    result => result.map(|_| ()),
                }
            }
            Ok(NameKind::Record(id)) => match crate::data::json::balanced(first) {
                Some(true) => crate::data::json_rows::parse_record(first, Some(id)).map(|_| ()),
                _ => Ok(()),
            },
            _ => Ok(()),
        };
        result.map_err(|error| {
            let mut state = self.state.lock();
            state.content = Content::Memory(Vec::new());
            state.dirty = false;
            state.refused = true;
            error.into()
        })
    }

    fn limit(&self) -> u64 {
        if self.place == Place::Ingest { MAX_INGEST_BYTES } else { MAX_RECORD_BYTES }
    }

    /// Writes at any offset.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::Io`] when the temporary file cannot grow.
    pub fn write(&self, offset: u64, data: &[u8], scratch: &Path) -> Result<(), Error> {
        let end = offset
            .checked_add(data.len() as u64)
            .filter(|end| *end <= self.limit())
            .ok_or_else(|| self.too_large())?;
        let mut state = self.state.lock();
        if state.receipt.is_some() && offset > 0 {
            return Err(Error::denied(
                "the file was taken when it was synced or closed; write the rest as another file",
            ));
        }
        if state.receipt.take().is_some() {
            state.content = Content::Memory(Vec::new());
        }
        state.touched = true;
        state.dirty = true;
        state.time = SystemTime::now();
        if let Content::Memory(bytes) = &mut state.content {
            if end <= IN_MEMORY {
                let end = end as usize;
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[offset as usize..end].copy_from_slice(data);
                return Ok(());
            }
            let file = scratch_file(scratch)?;
            file.write_all_at(bytes, 0).map_err(|error| Error::io("writing the temporary file", error))?;
            let len = bytes.len() as u64;
            state.content = Content::File(Arc::new(file), len);
        }
        if let Content::File(file, len) = &mut state.content {
            file.write_all_at(data, offset)
                .map_err(|error| Error::io("writing the temporary file", error))?;
            *len = (*len).max(end);
        }
        Ok(())
    }

    fn too_large(&self) -> Error {
        Error::TooLarge { what: format!("more than the {} bytes that one file may have here", self.limit()) }
    }

    /// Cuts or grows.
    ///
    /// # Errors
    /// As [`Draft::write`].
    pub fn truncate(&self, len: u64) -> Result<(), Error> {
        if len > self.limit() {
            return Err(self.too_large());
        }
        let mut state = self.state.lock();
        if state.receipt.take().is_some() {
            state.content = Content::Memory(Vec::new());
        }
        if state.content.len() == len {
            return Ok(());
        }
        state.touched = true;
        state.dirty = true;
        state.time = SystemTime::now();
        match &mut state.content {
            Content::Memory(bytes) if len <= IN_MEMORY => bytes.resize(len as usize, 0),
            Content::Memory(bytes) => {
                let file = scratch_file(&std::env::temp_dir())?;
                file.write_all_at(bytes, 0)
                    .and_then(|()| file.set_len(len))
                    .map_err(|error| Error::io("growing the temporary file", error))?;
                state.content = Content::File(Arc::new(file), len);
            }
            Content::File(file, at) => {
                file.set_len(len).map_err(|error| Error::io("cutting the temporary file", error))?;
                *at = len;
            }
        }
        Ok(())
    }

    /// Copies up to `size` bytes from `offset` to `out`.
    ///
    /// # Errors
    /// [`Error::Io`] when the temporary file cannot be read.
    pub fn read(&self, offset: u64, size: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        let state = self.state.lock();
        let from = |bytes: &[u8], out: &mut Vec<u8>| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            out.extend_from_slice(&bytes[start..start.saturating_add(size).min(bytes.len())]);
        };
        match (&state.receipt, &state.content) {
            (Some(receipt), _) => from(receipt, out),
            (None, Content::Memory(bytes)) => from(bytes, out),
            (None, Content::File(file, len)) => {
                let file = file.clone();
                let len = *len;
                drop(state);
                let want = usize::try_from(len.saturating_sub(offset)).unwrap_or(usize::MAX).min(size);
                let start = out.len();
                out.resize(start + want, 0);
                let got = file
                    .read_at(&mut out[start..], offset)
                    .map_err(|error| Error::io("reading the temporary file", error))?;
                out.truncate(start + got);
            }
        }
        Ok(())
    }

    fn bytes(&self) -> Result<DraftBytes, Error> {
        let state = self.state.lock();
        match &state.content {
            Content::Memory(bytes) => Ok(DraftBytes::Memory(bytes.clone())),
            Content::File(file, len) => FileBytes::map(file, *len)
                .map(DraftBytes::Mapped)
                .map_err(|error| Error::io("mapping the temporary file", error)),
        }
    }
}

enum DraftBytes {
    Memory(Vec<u8>),
    Mapped(FileBytes),
}

impl DraftBytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::Mapped(bytes) => bytes,
        }
    }
}

/// A file without a name beside the store, where there is room for its data, or else in the temporary directory.
fn scratch_file(beside: &Path) -> Result<File, Error> {
    let open = |dir: &Path| {
        use std::os::unix::fs::OpenOptionsExt;
        File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(dir)
    };
    open(beside)
        .or_else(|_| open(&std::env::temp_dir()))
        .or_else(|_| named_scratch())
        .map_err(|error| Error::io("making a temporary file", error))
}

/// For filesystems without O_TMPFILE.
fn named_scratch() -> io::Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!(".rvf-draft-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// The drafts and receipts of one store.
#[derive(Debug, Default)]
pub struct Drafts {
    table: Mutex<Table>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    by_name: BTreeMap<(Place, String), Arc<Draft>>,
    by_id: BTreeMap<u64, Arc<Draft>>,
}

impl Drafts {
    /// The draft of that name.
    #[must_use]
    pub fn named(&self, place: Place, name: &str) -> Option<Arc<Draft>> {
        self.table.lock().by_name.get(&(place, name.to_owned())).cloned()
    }

    /// The draft of that number, also after its name is gone, while anybody has it open.
    #[must_use]
    pub fn numbered(&self, id: u64) -> Option<Arc<Draft>> {
        self.table.lock().by_id.get(&id).cloned()
    }

    /// Names in a directory.
    #[must_use]
    pub fn list(&self, place: Place) -> Vec<(String, u64)> {
        let table = self.table.lock();
        let here = table.by_name.range((place, String::new())..).take_while(|((at, _), _)| *at == place);
        here.map(|((_, name), draft)| (name.clone(), draft.id)).collect()
    }

    /// The draft of that name, made if there is none; `true` when it was.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when there are too many.
    pub fn get_or_make(&self, place: Place, name: &str) -> Result<(Arc<Draft>, bool), Error> {
        let mut table = self.table.lock();
        if let Some(draft) = table.by_name.get(&(place, name.to_owned())) {
            return Ok((draft.clone(), false));
        }
        if table.by_id.len() >= MAX_DRAFTS {
            return Err(Error::TooLarge {
                what: format!("{MAX_DRAFTS} files and receipts are here already; remove some (rm ingest/*)"),
            });
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let draft = Arc::new(Draft {
            id,
            place,
            state: Mutex::new(State {
                name: name.to_owned(),
                content: Content::Memory(Vec::new()),
                dirty: false,
                touched: false,
                receipt: None,
                refused: false,
                abandoned: false,
                removed: false,
                handles: 0,
                time: SystemTime::now(),
                mode: None,
            }),
            committing: Mutex::new(()),
        });
        table.by_name.insert((place, name.to_owned()), draft.clone());
        table.by_id.insert(id, draft.clone());
        Ok((draft, true))
    }

    /// Takes a name away. What is open stays readable until it is closed, and is never committed.
    pub fn remove(&self, draft: &Draft) {
        let mut table = self.table.lock();
        let mut state = draft.state.lock();
        state.removed = true;
        let key = (draft.place, state.name.clone());
        if table.by_name.get(&key).is_some_and(|other| other.id == draft.id) {
            table.by_name.remove(&key);
        }
        if state.handles == 0 {
            table.by_id.remove(&draft.id);
        }
    }

    /// Takes the name of a refused draft away at once; its handles may go on with it.
    pub fn hide(&self, draft: &Draft) {
        let mut table = self.table.lock();
        let key = (draft.place, draft.state.lock().name.clone());
        if table.by_name.get(&key).is_some_and(|other| other.id == draft.id) {
            table.by_name.remove(&key);
        }
    }

    /// Gives a draft that was hidden its name again, unless another has it by now.
    fn show(&self, draft: &Arc<Draft>) {
        let mut table = self.table.lock();
        let key = (draft.place, draft.state.lock().name.clone());
        table.by_name.entry(key).or_insert_with(|| draft.clone());
    }

    /// Gives a draft another name, replacing what had it.
    pub fn rename(&self, draft: &Arc<Draft>, name: &str) {
        let mut table = self.table.lock();
        let old = std::mem::replace(&mut draft.state.lock().name, name.to_owned());
        let key = (draft.place, old);
        if table.by_name.get(&key).is_some_and(|other| other.id == draft.id) {
            table.by_name.remove(&key);
        }
        if let Some(replaced) = table.by_name.insert((draft.place, name.to_owned()), draft.clone())
            && replaced.id != draft.id
        {
            let mut state = replaced.state.lock();
            state.removed = true;
            if state.handles == 0 {
                table.by_id.remove(&replaced.id);
            }
        }
    }

    /// A handle was closed for good.
    pub fn closed(&self, draft: &Arc<Draft>) {
        let mut table = self.table.lock();
        let mut state = draft.state.lock();
        state.handles = state.handles.saturating_sub(1);
        if state.handles > 0 {
            return;
        }
        // Vectors and records live in the store once they are committed, and nowhere when they were refused. In
        // ingest/ a receipt stays, and so does what waits for its real name or for the file it belongs to.
        let waits = match name_kind(draft.place, &state.name) {
            Ok(NameKind::Temporary) => true,
            Ok(NameKind::Ids) => !state.refused,
            Ok(NameKind::Rows(_)) => state.receipt.is_some(),
            Ok(NameKind::Vector(_) | NameKind::Record(_)) | Err(_) => false,
        };
        if !waits || state.removed {
            let key = (draft.place, state.name.clone());
            drop(state);
            if table.by_name.get(&key).is_some_and(|other| other.id == draft.id) {
                table.by_name.remove(&key);
            }
            table.by_id.remove(&draft.id);
        }
    }
}

/// When a draft is asked to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A close that counts, or fsync.
    Close,
    /// A rename from a temporary name.
    Rename,
    /// The last close of all, whose result nobody sees.
    Last,
}

impl StoreDir {
    /// Whether closing this draft now has work to do.
    #[must_use]
    pub fn has_work(&self, draft: &Draft, moment: Moment) -> bool {
        let state = draft.state.lock();
        !state.removed
            && !state.abandoned
            && (state.dirty || (moment == Moment::Rename && state.receipt.is_none()))
    }

    /// Commits a draft under its name, or under the one it is about to get. Runs on a worker: it parses, locks, writes
    /// and syncs.
    ///
    /// # Errors
    /// Whatever the content or the store refuses; the sentence is in `error` then, and nothing is changed.
    pub fn commit(
        self: &Arc<Self>,
        draft: &Arc<Draft>,
        moment: Moment,
        new_name: Option<&str>,
    ) -> Result<(), Error> {
        let _turn = draft.committing.lock();
        if !self.has_work(draft, moment) {
            return Ok(());
        }
        let name = new_name.map_or_else(|| draft.name(), str::to_owned);
        let kind = name_kind(draft.place, &name)?;
        if kind == NameKind::Temporary {
            return Ok(());
        }
        draft.state.lock().dirty = false;
        let result = self.writable().and_then(|()| self.commit_as(draft, &name, kind));
        let mut state = draft.state.lock();
        match result {
            Ok(receipt) => {
                state.refused = false;
                state.touched = false;
                if let Some(receipt) = receipt {
                    state.receipt = Some(receipt.into_bytes().into());
                    state.content = Content::Memory(Vec::new());
                    state.time = SystemTime::now();
                }
                drop(state);
                if moment != Moment::Rename {
                    self.drafts.show(draft);
                }
                Ok(())
            }
            Err(error) => {
                state.refused = true;
                drop(state);
                if moment != Moment::Rename {
                    self.drafts.hide(draft);
                }
                self.refuse(draft.place, &name, &error);
                self.events.push(
                    "refused",
                    self.snap().view.epoch(),
                    &[("name", &name), ("reason", &error.to_string())],
                );
                Err(error)
            }
        }
    }

    fn commit_as(
        self: &Arc<Self>,
        draft: &Arc<Draft>,
        name: &str,
        kind: NameKind,
    ) -> Result<Option<String>, Error> {
        let content = draft.bytes()?;
        match kind {
            NameKind::Rows(format) => self.commit_rows(name, format, content).map(Some),
            NameKind::Ids => {
                let ids = npy::Npy::parse(content.as_slice())?.to_u64()?;
                tracing::debug!(name, ids = ids.len(), "ids wait for their file");
                Ok(None)
            }
            NameKind::Vector(id) => {
                let dimension = self.snap().view.dimension();
                let vectors = text::parse_one(content.as_slice(), dimension)?;
                let batch = Batch {
                    dimension,
                    ids: Some(vec![id]),
                    vectors,
                    metadata: Vec::new(),
                    on_bad_row: BadRow::Refuse,
                };
                self.store.ingest(&batch, &rvf_cow::NoProgress)?;
                Ok(None)
            }
            NameKind::Record(id) => {
                if self.snap().view.find(id).is_none() {
                    return Err(Error::invalid(format!("there is no vector {id}; write vectors/{id} first")));
                }
                let fields = parse_record(content.as_slice(), id)?;
                self.store.put_metadata(id, &fields)?;
                Ok(None)
            }
            NameKind::Temporary => Ok(None),
        }
    }

    fn commit_rows(
        self: &Arc<Self>,
        name: &str,
        format: Format,
        content: DraftBytes,
    ) -> Result<String, Error> {
        let job = self.job(format!("ingest {name}"));
        let dimension = self.snap().view.dimension();
        let ids_draft = (format == Format::Npy)
            .then(|| {
                self.drafts.named(
                    Place::Ingest,
                    &format!("{}.ids.npy", name.get(..name.len().saturating_sub(4)).unwrap_or(name)),
                )
            })
            .flatten()
            .filter(|ids| !ids.is_receipt());
        let mut options = ReadOptions::new(dimension);
        if let Some(ids) = &ids_draft {
            options.ids = Some(npy::Npy::parse(ids.bytes()?.as_slice())?.to_u64()?);
        }
        let rows = rows::read(format, content.as_slice(), &options)?;
        let size = content.as_slice().len();
        drop(content);
        let count = rows.len();
        let with_ids = rows.ids.is_some();
        let batch = Batch {
            dimension,
            ids: rows.ids,
            vectors: rows.vectors,
            metadata: rows.metadata.into_iter().map(store_fields).collect(),
            on_bad_row: BadRow::Refuse,
        };
        let report = self.store.ingest(&batch, &job)?;
        drop(job);
        let mut receipt = format!(
            "name: {name}\nbytes: {size}\naccepted: {}\nrejected: {}\nepoch: {}\n",
            report.accepted, report.rejected, report.epoch
        );
        match report.first_id {
            Some(first) if with_ids => receipt.push_str(&format!("ids: given, from {first}\n")),
            Some(first) => {
                let last = first.saturating_add((count as u64).saturating_sub(1));
                receipt.push_str(&format!("ids: {first}-{last}\n"));
            }
            None => {}
        }
        if !rows.ignored.is_empty() {
            receipt.push_str(&format!("ignored: {}\n", rows.ignored.join(", ")));
        }
        if let Some(ids) = ids_draft {
            let mut state = ids.state.lock();
            state.receipt = Some(format!("used by: {name}\nepoch: {}\n", report.epoch).into_bytes().into());
            state.content = Content::Memory(Vec::new());
        }
        Ok(receipt)
    }
}

/// A metadata record as the store takes it.
#[must_use]
pub fn store_fields(fields: crate::data::Fields) -> Fields {
    fields.into_iter().map(|(name, value)| (name, store_value(value))).collect()
}

fn store_value(value: FieldValue) -> Value {
    match value {
        FieldValue::Null => Value::Null,
        FieldValue::Text(text) => Value::String(text),
        FieldValue::Bytes(bytes) => Value::Bytes(bytes),
        FieldValue::I64(number) => Value::I64(number),
        FieldValue::U64(number) => Value::U64(number),
        FieldValue::F64(number) => Value::F64(number),
        FieldValue::Bool(flag) => Value::Bool(flag),
    }
}

fn parse_record(bytes: &[u8], id: u64) -> Result<Fields, Error> {
    Ok(store_fields(crate::data::json_rows::parse_record(bytes, Some(id))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_they_say() {
        let table = [
            (Place::Ingest, "a.npy", Some(NameKind::Rows(Format::Npy))),
            (Place::Ingest, "a.JSONL", Some(NameKind::Rows(Format::Jsonl))),
            (Place::Ingest, "a.ids.npy", Some(NameKind::Ids)),
            (Place::Ingest, ".a.npy.Xy12zZ", Some(NameKind::Temporary)),
            (Place::Ingest, "a.npy~", Some(NameKind::Temporary)),
            (Place::Ingest, "a.npy.part", Some(NameKind::Temporary)),
            (Place::Ingest, "tmp.Ab3", Some(NameKind::Temporary)),
            (Place::Ingest, "a.txt", None),
            (Place::Ingest, "a", None),
            (Place::Vectors, "0", Some(NameKind::Vector(0))),
            (Place::Vectors, "18446744073709551615", Some(NameKind::Vector(u64::MAX))),
            (Place::Vectors, "18446744073709551616", None),
            (Place::Vectors, "007", None),
            (Place::Vectors, "-1", None),
            (Place::Vectors, ".7.swp", Some(NameKind::Temporary)),
            (Place::Metadata, "7.json", Some(NameKind::Record(7))),
            (Place::Metadata, "7", None),
            (Place::Metadata, "7.json~", Some(NameKind::Temporary)),
            (Place::Top, "x", None),
        ];
        for (place, name, kind) in table {
            assert_eq!(name_kind(place, name).ok(), kind, "{place:?} {name}");
        }
    }

    #[test]
    fn a_draft_takes_writes_in_any_order_and_spills_to_a_file() {
        let drafts = Drafts::default();
        let (draft, made) = drafts.get_or_make(Place::Ingest, ".x").expect("a draft");
        assert!(made);
        let dir = std::env::temp_dir();
        draft.opened(true, false);
        draft.write(5, b"world", &dir).expect("a write");
        draft.write(0, b"hello", &dir).expect("a write");
        let mut out = Vec::new();
        draft.read(0, 100, &mut out).expect("a read");
        assert_eq!(out, b"helloworld");
        let big = vec![7_u8; 3 << 20];
        draft.write(1 << 20, &big, &dir).expect("a write");
        assert_eq!(draft.attr().len, 4 << 20);
        out.clear();
        draft.read(0, 12, &mut out).expect("a read");
        assert_eq!(out, b"helloworld\0\0");
        out.clear();
        draft.read((4 << 20) - 2, 100, &mut out).expect("a read");
        assert_eq!(out, [7, 7]);
        draft.truncate(3).expect("a cut");
        out.clear();
        draft.read(0, 100, &mut out).expect("a read");
        assert_eq!(out, b"hel");
        assert!(matches!(draft.write(MAX_INGEST_BYTES, b"x", &dir), Err(Error::TooLarge { .. })));
        assert!(matches!(draft.truncate(u64::MAX), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn renaming_and_removing_keep_the_table_small() {
        let drafts = Drafts::default();
        let (a, _) = drafts.get_or_make(Place::Ingest, ".a").expect("a draft");
        let (b, _) = drafts.get_or_make(Place::Ingest, ".b").expect("a draft");
        drafts.rename(&a, ".b");
        assert_eq!(drafts.list(Place::Ingest), vec![(".b".to_owned(), a.id)]);
        assert!(drafts.numbered(b.id).is_none(), "replaced and not open: gone");
        a.opened(true, false);
        drafts.remove(&a);
        assert!(drafts.list(Place::Ingest).is_empty());
        assert!(drafts.numbered(a.id).is_some(), "open: still there by number");
        drafts.closed(&a);
        assert!(drafts.numbered(a.id).is_none());
    }
}
