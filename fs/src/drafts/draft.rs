//! One file being written, in memory or in an unlinked temporary file, or the receipt of one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use rvf_format::FileBytes;

use super::{NameKind, name_kind};
use crate::data::rows::{self, Format, ReadOptions};
use crate::data::{Kind, text};
use crate::errno::Error;
use crate::node::Place;

/// Largest file that can be dropped into `ingest/`.
pub const MAX_INGEST_BYTES: u64 = 16 << 30;
/// Largest text for one vector or one metadata record.
pub const MAX_RECORD_BYTES: u64 = 16 << 20;
/// Drafts up to this size stay in memory.
const IN_MEMORY: u64 = 1 << 20;
/// Attributes that a file may be given.
const MAX_OPTIONS: usize = 32;
/// A first write up to this size is judged at once.
const JUDGED_EARLY: usize = 256 * 1024;

/// A file being written, or the receipt of one.
#[derive(Debug)]
pub struct Draft {
    /// Its number, part of its node.
    pub id: u64,
    /// Its directory.
    pub place: Place,
    pub(super) state: Mutex<State>,
    /// Held while it is being committed, so that a second close waits its turn on a worker.
    pub(super) committing: Mutex<()>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) name: String,
    pub(super) content: Content,
    /// Written since the last commit or refusal.
    pub(super) dirty: bool,
    /// Anything was ever written or truncated on purpose.
    pub(super) touched: bool,
    pub(super) receipt: Option<Arc<[u8]>>,
    pub(super) refused: bool,
    /// A writer was killed before it was done.
    pub(super) abandoned: bool,
    /// Why a write to it failed: what it holds is not what its writer meant.
    pub(super) broken: Option<String>,
    pub(super) removed: bool,
    pub(super) handles: u32,
    pub(super) time: SystemTime,
    pub(super) mode: Option<u16>,
    /// Attributes `user.rvf.KEY` that were set on it: how a program is to be embedded.
    pub(super) options: BTreeMap<String, String>,
}

#[derive(Debug)]
pub(super) enum Content {
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
    /// Permission bits.
    pub mode: u16,
}

impl Draft {
    pub(super) fn new(id: u64, place: Place, name: &str) -> Self {
        Self {
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
                broken: None,
                removed: false,
                handles: 0,
                time: SystemTime::now(),
                mode: None,
                options: BTreeMap::new(),
            }),
            committing: Mutex::new(()),
        }
    }

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
        // Editors that replace a file by moving it away first look whether a new one gets the mode of the old. Here it does
        // not, so that they write into the old one: removing a vector removes its metadata too.
        let mode = state.mode.unwrap_or(match self.place {
            Place::Ingest | Place::Programs(_) => 0o644,
            _ => 0o600,
        });
        DraftAttr { len, time: state.time, mode }
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

    /// Sets an option, as an extended attribute of the file.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when there are too many.
    pub fn set_option(&self, key: &str, value: &str) -> Result<(), Error> {
        let mut state = self.state.lock();
        if state.options.len() >= MAX_OPTIONS && !state.options.contains_key(key) {
            return Err(Error::TooLarge {
                what: format!("{MAX_OPTIONS} attributes are the most that a file has"),
            });
        }
        state.options.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    /// The options that were set.
    #[must_use]
    pub fn options(&self) -> BTreeMap<String, String> {
        self.state.lock().options.clone()
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
            state.broken = None;
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
        match self.place {
            Place::Ingest => MAX_INGEST_BYTES,
            // No kind of program may be larger than a kernel.
            Place::Programs(_) => rvf_kernel::MAX_KERNEL_BYTES,
            _ => MAX_RECORD_BYTES,
        }
    }

    /// Writes at any offset.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::Io`] when the temporary file cannot grow.
    pub fn write(&self, offset: u64, data: &[u8], scratch: &Path) -> Result<(), Error> {
        self.put(offset, data, scratch).inspect_err(|error| self.fail(error))
    }

    /// A write that failed leaves less than was meant: none of it is committed, whatever its writer does next, unless it
    /// starts over.
    fn fail(&self, error: &Error) {
        let mut state = self.state.lock();
        // A receipt is what was committed whole before.
        if state.receipt.is_none() {
            state.broken = Some(error.to_string());
            state.dirty = true;
        }
    }

    fn put(&self, offset: u64, data: &[u8], scratch: &Path) -> Result<(), Error> {
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
        self.resize(len).inspect_err(|error| self.fail(error))
    }

    fn resize(&self, len: u64) -> Result<(), Error> {
        if len > self.limit() {
            return Err(self.too_large());
        }
        let mut state = self.state.lock();
        if len == 0 {
            state.broken = None;
        }
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

    pub(super) fn bytes(&self) -> Result<DraftBytes, Error> {
        let state = self.state.lock();
        match &state.content {
            Content::Memory(bytes) => Ok(DraftBytes::Memory(bytes.clone())),
            Content::File(file, len) => FileBytes::map(file, *len)
                .map(DraftBytes::Mapped)
                .map_err(|error| Error::io("mapping the temporary file", error)),
        }
    }
}

pub(super) enum DraftBytes {
    Memory(Vec<u8>),
    Mapped(FileBytes),
}

impl DraftBytes {
    pub(super) fn as_slice(&self) -> &[u8] {
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
