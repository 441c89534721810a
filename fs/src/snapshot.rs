//! One state of a store as the tree shows it: the store's `View` plus what is derived from it on first use.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hasher};
use std::ops::Range;
use std::sync::{Arc, OnceLock, Weak};
use std::time::SystemTime;

use rvf_cow::View;
use rvf_format::{Entry, SegType, Segment};

use crate::json;
use crate::node::{SegmentKey, StateNo};
use crate::programs::Programs;
use crate::store_dir::StoreDir;

/// One entry of `segments/`.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its key.
    pub key: SegmentKey,
    /// What lies there.
    pub kind: PartKind,
    /// Where it lies in the file.
    pub raw: Range<u64>,
}

/// What an entry of `segments/` is.
#[derive(Debug, Clone)]
pub enum PartKind {
    /// A segment.
    Segment(Box<Segment>),
    /// Bytes that belong to no segment.
    Gap,
    /// The root page that ends a signed store.
    RootPage,
}

impl Part {
    /// `NNNNNN-TYPE`.
    #[must_use]
    pub fn name(&self) -> String {
        let number = u64::from(self.key.entry) + 1;
        match &self.kind {
            PartKind::Segment(segment) => format!("{number:06}-{}", segment.kind().dir_name()),
            PartKind::Gap => format!("{number:06}-gap"),
            PartKind::RootPage => format!("{number:06}-rootpage"),
        }
    }

    /// The segment, when it is one.
    #[must_use]
    pub fn segment(&self) -> Option<&Segment> {
        match &self.kind {
            PartKind::Segment(segment) => Some(segment),
            PartKind::Gap | PartKind::RootPage => None,
        }
    }
}

/// Where each line of `metadata.jsonl` starts, every `JSONL_STRIDE` lines.
#[derive(Debug)]
pub struct JsonlIndex {
    ids: Vec<u64>,
    marks: Vec<u64>,
    /// Bytes of the whole file.
    pub len: u64,
}

/// Lines between two marks: rendering at most this many too many keeps a read cheap and the index small.
const JSONL_STRIDE: usize = 64;

/// One immutable state of a store.
#[derive(Debug)]
pub struct Snap {
    /// The store's state.
    pub view: Arc<View>,
    /// Its number in this mount.
    pub no: StateNo,
    owner: Weak<StoreDir>,
    parts: OnceLock<Parts>,
    jsonl: OnceLock<JsonlIndex>,
    /// `lineage`, `witness/log.jsonl`, `witness/head`, `witness/verify`, once rendered.
    pub(crate) texts: [OnceLock<Arc<[u8]>>; 4],
    diff: OnceLock<Arc<[u8]>>,
    programs: OnceLock<Programs>,
    pub(crate) signatures: crate::signatures::Texts,
}

#[derive(Debug)]
struct Parts {
    list: Vec<Part>,
    by_name: HashMap<String, usize>,
}

impl Snap {
    /// The state of the store `owner` that `view` is.
    #[must_use]
    pub fn new(view: Arc<View>, owner: Weak<StoreDir>) -> Self {
        let no = StateNo(view.generation());
        Self {
            view,
            no,
            owner,
            parts: OnceLock::new(),
            jsonl: OnceLock::new(),
            texts: Default::default(),
            diff: OnceLock::new(),
            programs: OnceLock::new(),
            signatures: Default::default(),
        }
    }

    /// To be called with every query that may use an index: has one built where it is missing.
    pub fn queried(&self) {
        if self.view.wants_index()
            && let Some(dir) = self.owner.upgrade()
        {
            dir.settings.indexer.queried(&dir, &self.view);
        }
    }

    /// When the file was last changed.
    #[must_use]
    pub fn modified(&self) -> SystemTime {
        self.view.modified()
    }

    fn parts(&self) -> &Parts {
        self.parts.get_or_init(|| {
            let opened = self.view.opened();
            let bytes: &[u8] = self.view.bytes();
            let page = opened.layout.root_page.clone();
            let mut list = Vec::with_capacity(opened.layout.entries.len() + 1);
            let entries = opened.layout.entries.iter().map(|entry| match entry {
                Entry::Segment(segment) => {
                    (PartKind::Segment(Box::new(segment.clone())), segment.raw.clone())
                }
                Entry::Gap(range) => (PartKind::Gap, range.clone()),
            });
            let pages = page.into_iter().map(|range| (PartKind::RootPage, range));
            for (entry, (kind, raw)) in entries.chain(pages).enumerate() {
                let key = SegmentKey {
                    entry: u32::try_from(entry).unwrap_or(u32::MAX),
                    tag: fingerprint(bytes, &raw, &kind),
                };
                list.push(Part { key, kind, raw });
            }
            let by_name = list.iter().enumerate().map(|(at, part)| (part.name(), at)).collect();
            Parts { list, by_name }
        })
    }

    /// Everything in the file, in file order. O(segments) once.
    #[must_use]
    pub fn list(&self) -> &[Part] {
        &self.parts().list
    }

    /// The embedded programs. O(segments) once.
    #[must_use]
    pub fn programs(&self) -> &Programs {
        self.programs.get_or_init(|| Programs::of(self))
    }

    /// The entry of that name in `segments/`.
    #[must_use]
    pub fn part_named(&self, name: &str) -> Option<&Part> {
        let parts = self.parts();
        parts.list.get(*parts.by_name.get(name)?)
    }

    /// The entry of that key, if this state still has it.
    #[must_use]
    pub fn part(&self, key: SegmentKey) -> Option<&Part> {
        self.list().get(key.entry as usize).filter(|part| part.key == key)
    }

    /// Bytes of a range of the file; empty where the file is shorter.
    #[must_use]
    pub fn slice(&self, range: &Range<u64>) -> &[u8] {
        let bytes: &[u8] = self.view.bytes();
        let (Ok(start), Ok(end)) = (usize::try_from(range.start), usize::try_from(range.end)) else {
            return &[];
        };
        bytes.get(start..end.min(bytes.len())).unwrap_or(&[])
    }

    /// Entries whose type is one of these.
    pub fn of_types<'a>(&'a self, types: &'a [SegType]) -> impl Iterator<Item = &'a Part> {
        self.list()
            .iter()
            .filter(|part| part.segment().is_some_and(|segment| types.contains(&segment.kind())))
    }

    /// Bytes of one row of `vectors.npy`.
    #[must_use]
    pub fn row_len(&self) -> u64 {
        4 * self.view.dimension() as u64
    }

    /// Copies a range of the gathered rows, `[live, dim]` little-endian f32 without the NumPy header, to `out`.
    pub fn read_rows(&self, offset: u64, size: usize, out: &mut Vec<u8>) {
        let row_len = self.row_len();
        if row_len == 0 {
            return;
        }
        let rows = self.view.resolved();
        let mut row = usize::try_from(offset / row_len).unwrap_or(usize::MAX);
        let mut skip = (offset % row_len) as usize;
        let mut left = size;
        out.reserve(size.min(rows.count().saturating_sub(row).saturating_mul(row_len as usize)));
        while left > 0 {
            let Some(place) = rows.at(row) else { return };
            let bytes = rows.vector(place);
            let piece = bytes.get(skip..).unwrap_or(&[]);
            let piece = piece.get(..left.min(piece.len())).unwrap_or(&[]);
            if piece.is_empty() {
                return;
            }
            out.extend_from_slice(piece);
            left -= piece.len();
            skip = 0;
            row += 1;
        }
    }

    /// Copies a range of the live ids, little-endian u64 in file order, to `out`.
    pub fn read_ids(&self, offset: u64, size: usize, out: &mut Vec<u8>) {
        let rows = self.view.resolved();
        let mut row = usize::try_from(offset / 8).unwrap_or(usize::MAX);
        let mut skip = (offset % 8) as usize;
        let mut left = size;
        while left > 0 {
            let Some(place) = rows.at(row) else { return };
            let bytes = rows.id(place).to_le_bytes();
            let piece = &bytes[skip..];
            let piece = &piece[..left.min(piece.len())];
            out.extend_from_slice(piece);
            left -= piece.len();
            skip = 0;
            row += 1;
        }
    }

    /// The index over `metadata.jsonl`. The first call decodes all metadata: O(records).
    #[must_use]
    pub fn jsonl(&self) -> &JsonlIndex {
        self.jsonl.get_or_init(|| {
            let ids = if self.view.has_metadata() { self.view.metadata_ids() } else { Vec::new() };
            let mut marks = Vec::with_capacity(ids.len() / JSONL_STRIDE + 1);
            let mut len = 0_u64;
            let mut line = String::new();
            for (at, id) in ids.iter().enumerate() {
                if at % JSONL_STRIDE == 0 {
                    marks.push(len);
                }
                line.clear();
                self.jsonl_line(*id, &mut line);
                len += line.len() as u64;
            }
            JsonlIndex { ids, marks, len }
        })
    }

    /// The length of `metadata.jsonl` if it has been computed, without computing it.
    #[must_use]
    pub fn jsonl_len_if_known(&self) -> Option<u64> {
        if !self.view.has_metadata() {
            return Some(0);
        }
        self.jsonl.get().map(|index| index.len)
    }

    /// Whether metadata can be shown without decoding all of it first.
    #[must_use]
    pub fn metadata_is_ready(&self) -> bool {
        !self.view.has_metadata() || self.jsonl.get().is_some()
    }

    /// Ids that have metadata, ascending.
    #[must_use]
    pub fn metadata_ids(&self) -> &[u64] {
        &self.jsonl().ids
    }

    fn jsonl_line(&self, id: u64, line: &mut String) {
        if let Some(fields) = self.view.fields(id) {
            json::record(line, Some(id), &fields);
            line.push('\n');
        }
    }

    /// Copies a range of `metadata.jsonl` to `out`, rendering only the lines it touches.
    pub fn read_jsonl(&self, offset: u64, size: usize, out: &mut Vec<u8>) {
        let index = self.jsonl();
        if offset >= index.len {
            return;
        }
        let mark = index.marks.partition_point(|start| *start <= offset).saturating_sub(1);
        let Some(mut at) = index.marks.get(mark).copied() else { return };
        let end = offset.saturating_add(size as u64);
        let mut line = String::new();
        for id in index.ids.iter().skip(mark * JSONL_STRIDE) {
            if at >= end {
                return;
            }
            line.clear();
            self.jsonl_line(*id, &mut line);
            let next = at + line.len() as u64;
            if next > offset {
                let from = offset.saturating_sub(at) as usize;
                let to = (end - at).min(line.len() as u64) as usize;
                out.extend_from_slice(line.as_bytes().get(from..to).unwrap_or(&[]));
            }
            at = next;
        }
    }

    /// `diff.jsonl`, rendered once: O(edits x depth x log n), and all metadata are decoded.
    ///
    /// # Errors
    /// When an ancestor cannot be read; that is tried again.
    pub fn diff(&self) -> Result<Arc<[u8]>, crate::errno::Error> {
        if let Some(text) = self.diff.get() {
            return Ok(text.clone());
        }
        let text: Arc<[u8]> = crate::branches::content::diff_lines(self)?.into_bytes().into();
        Ok(self.diff.get_or_init(|| text).clone())
    }

    /// Whether `diff.jsonl` was rendered before.
    #[must_use]
    pub fn diff_is_ready(&self) -> bool {
        self.diff.get().is_some()
    }

    /// `metadata/ID.json`, or `None` when the vector has none.
    #[must_use]
    pub fn record(&self, id: u64) -> Option<String> {
        let fields = self.view.fields(id)?;
        let mut text = String::new();
        json::record(&mut text, None, &fields);
        let _ = writeln!(text);
        Some(text)
    }
}

/// Tells one segment or gap from another that takes its place: header bytes, position and length.
fn fingerprint(bytes: &[u8], raw: &Range<u64>, kind: &PartKind) -> u64 {
    let start = usize::try_from(raw.start).unwrap_or(usize::MAX);
    let head_len = match kind {
        PartKind::Segment(_) => 64,
        PartKind::Gap | PartKind::RootPage => 4096,
    };
    let end =
        start.saturating_add(head_len).min(usize::try_from(raw.end).unwrap_or(usize::MAX)).min(bytes.len());
    let mut hasher = BuildHasherDefault::<DefaultHasher>::default().build_hasher();
    hasher.write_u64(raw.start);
    hasher.write_u64(raw.end);
    hasher.write(bytes.get(start..end).unwrap_or(&[]));
    hasher.finish()
}
