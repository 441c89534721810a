//! What an open store holds: vector blocks, metadata segments, index, witness head, branch state.

use crate::checksum::{ALGO_LEGACY, ChecksumState};
use crate::columns::Columns;
use crate::cow_map::CowMap;
use crate::delta::Delta;
use crate::finding::Finding;
use crate::header::{HEADER_LEN, SegType, Segment, SegmentHeader, flags};
use crate::layout::Layout;
use crate::manifest::DirEntry;
use crate::membership::Membership;
use crate::quant::{Quant, Quantiser};
use crate::recover::{Located, Opened};
use crate::{vec_seg, witness};
use std::borrow::Cow as Shared;
use std::collections::BTreeMap;
use std::sync::Arc;
use zerocopy::FromBytes;

/// Where the rows of a block are.
#[derive(Clone, Debug)]
pub enum Rows {
    /// In the file, row layout.
    InFile {
        /// File offset of the first row.
        offset: u64,
    },
    /// Component by component in the file.
    Columns(Arc<Columns>),
    /// Those of a segment that fails its checksum and that could not be counted without believing it: none.
    Unread,
    /// Changes of inherited rows, which nothing in this file can put together.
    Changed(Arc<Delta>),
}

/// The rows of one VEC or DELTA segment. A row is `id u64` and `dim` little-endian f32, [`VecBlock::stride`] bytes apart.
#[derive(Clone, Debug)]
pub struct VecBlock {
    /// The segment they come from.
    pub segment: Segment,
    /// Components of a vector.
    pub dim: u16,
    /// Rows.
    pub count: u32,
    /// Where they are.
    pub rows: Rows,
}

impl VecBlock {
    /// Bytes from one row to the next.
    pub fn stride(&self) -> usize {
        crate::vec_seg::row_stride(self.dim)
    }

    /// All rows, `count * stride` bytes, from the bytes of the file; none for changes of inherited rows. O(rows) for columns, which
    /// are put together.
    pub fn rows_of<'a>(&self, bytes: &'a [u8]) -> Shared<'a, [u8]> {
        match &self.rows {
            Rows::InFile { offset } => {
                let len = self.stride() * self.count as usize;
                Shared::Borrowed(crate::header::slice(bytes, &(*offset..*offset + len as u64)))
            }
            Rows::Columns(columns) => {
                let mut rows = Vec::with_capacity(self.stride() * self.count as usize);
                columns.put_rows(bytes, 0..self.count as usize, &mut rows);
                Shared::Owned(rows)
            }
            Rows::Changed(_) | Rows::Unread => Shared::Borrowed(&[]),
        }
    }

    /// Id and component bytes of one row; `None` past the end, and for changes of inherited rows.
    pub fn row<'a>(&self, bytes: &'a [u8], index: u32) -> Option<(u64, Shared<'a, [u8]>)> {
        if index >= self.count {
            return None;
        }
        let at = index as usize;
        match &self.rows {
            Rows::InFile { offset } => {
                let start = offset + (at * self.stride()) as u64;
                let row = crate::header::slice(bytes, &(start..start + self.stride() as u64));
                let (id, components) = row.split_first_chunk::<8>()?;
                Some((u64::from_le_bytes(*id), Shared::Borrowed(components)))
            }
            Rows::Columns(columns) => {
                let mut row = Vec::with_capacity(self.stride());
                columns.put_rows(bytes, at..at + 1, &mut row);
                let components = row.split_off(row.len().min(8));
                Some((*columns.ids().get(at)?, Shared::Owned(components)))
            }
            Rows::Changed(_) | Rows::Unread => None,
        }
    }

    /// The ids of all rows, without a look at their vectors.
    pub fn ids<'a>(&'a self, bytes: &'a [u8]) -> Box<dyn Iterator<Item = u64> + 'a> {
        match &self.rows {
            Rows::InFile { offset } => {
                let len = self.stride() * self.count as usize;
                let rows = crate::header::slice(bytes, &(*offset..*offset + len as u64));
                let ids = rows.chunks_exact(self.stride()).filter_map(|row| row.first_chunk::<8>());
                Box::new(ids.map(|id| u64::from_le_bytes(*id)))
            }
            Rows::Columns(columns) => Box::new(columns.ids().iter().copied()),
            Rows::Changed(delta) => Box::new(delta.ids.iter().copied()),
            Rows::Unread => Box::new(std::iter::empty()),
        }
    }

    /// Hashes the payload. O(payload); nothing in [`read`] does this. A block that is not
    /// [`ChecksumState::usable`] must be kept out of answers.
    pub fn verify(&self, bytes: &[u8]) -> ChecksumState {
        self.segment.verify(bytes)
    }
}

/// The branch state of a copy-on-write child.
#[derive(Clone, Debug)]
pub struct Cow {
    /// The last listed COW_MAP.
    pub map: CowMap,
    /// Its segment.
    pub map_segment: Segment,
    /// The last listed MEMBERSHIP.
    pub membership: Membership,
    /// Its segment.
    pub membership_segment: Segment,
}

/// What an open store holds.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Components of every vector that counts; 0 when nothing is known.
    pub dimension: u16,
    /// 0 L2, 1 inner product, 2 cosine; L2 when no manifest says it.
    pub metric: u8,
    /// VEC segments that count, and DELTA segments of a branch, in directory order; later rows override earlier ones of the same id.
    pub blocks: Vec<VecBlock>,
    /// Soft-deleted vector ids, ascending.
    pub deleted: Vec<u64>,
    /// META segments that count, in directory order, for [`crate::meta::replay`].
    pub meta_entries: Vec<Segment>,
    /// The last listed INDEX segment.
    pub index_segment: Option<Segment>,
    /// SHAKE-256 of the newest witness entry; the `prev_hash` of the next one.
    pub witness_head: [u8; 32],
    /// Branch state, for a copy-on-write child.
    pub cow: Option<Cow>,
    /// Whether a segment that was read has checksum algorithm 0, which the reference reports as legacy dialect.
    pub legacy_checksums: bool,
    /// Whether there is no manifest, so that all VEC and META segments of the file were taken.
    pub salvaged: bool,
    /// Deviations and damage.
    pub findings: Vec<Finding>,
}

/// Findings about single segments that are worth listing.
const MAX_FINDINGS: usize = 256;
/// Witness segments that are looked at for the head of the chain, as in the reference.
const MAX_WITNESS_STEPS: usize = 64;

/// Collects what a store holds. O(segments): payloads of VEC and META are neither hashed nor scanned, except columnar
/// VEC payloads, which are hashed, and whose ids are read.
///
/// Without a manifest, all VEC and META segments of the file count, in file order.
pub fn read(bytes: &[u8], opened: &Opened) -> Contents {
    let mut reader = Reading::new(bytes, opened);
    match &opened.manifest {
        Some(located) => reader.committed(located),
        None => reader.salvage(),
    }
    reader.out.witness_head = reader.witness_head(opened);
    reader.out
}

/// The branch state alone, as [`read`] finds it, without a look at vectors: columnar ones would be hashed. O(directory).
pub fn branch_state(bytes: &[u8], opened: &Opened) -> Option<Cow> {
    let manifest = &opened.manifest.as_ref()?.manifest;
    let mut reader = Reading::new(bytes, opened);
    let mut last = |kind| manifest.entries_of(kind).rev().find_map(|entry| reader.take(entry));
    let (map, membership) = (last(SegType::COW_MAP), last(SegType::MEMBERSHIP));
    reader.cow(map, membership);
    reader.out.cow
}

/// A segment that a directory names.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) segment: Segment,
    /// What was wrong with its header, when the directory and the payload's hash made up for it.
    pub(crate) repaired: Option<&'static str>,
}

/// Finds the segment of a directory line: where the line says, whatever the walk made of it. A header that lost its
/// magic, version or length is made up for if the payload matches the hash in it.
///
/// Making up for a header costs a hash of its payload, which `budget` (bytes) pays for: a hostile directory could ask
/// for the same one a million times.
pub(crate) fn listed(bytes: &[u8], layout: &Layout, entry: &DirEntry, budget: &mut u64) -> Option<Listed> {
    let walked = layout.segment_at_offset(entry.offset);
    let plain = walked.cloned().or_else(|| Segment::at(bytes, entry.offset));
    if let Some(segment) = &plain
        && segment.header.payload_len() == entry.payload_length
    {
        return Some(Listed { segment: segment.clone(), repaired: None });
    }
    let repaired = budget.checked_sub(entry.payload_length).and_then(|left| {
        *budget = left;
        repair(bytes, entry).map(|segment| Listed { segment, repaired: Some("magic, version or length") })
    });
    repaired.or_else(|| plain.map(|segment| Listed { segment, repaired: None }))
}

/// A filter of ours that hides nothing.
fn is_guard(payload: &[u8]) -> bool {
    Membership::parse(payload).is_ok_and(|m| m.mode == crate::membership::Mode::Sparse && m.list.is_empty())
}

fn repair(bytes: &[u8], entry: &DirEntry) -> Option<Segment> {
    let start = usize::try_from(entry.offset).ok()?;
    let (header, _) = SegmentHeader::read_from_prefix(bytes.get(start..)?).ok()?;
    let payload = entry.offset.checked_add(HEADER_LEN)?;
    let end = payload.checked_add(entry.payload_length).filter(|end| *end <= bytes.len() as u64)?;
    let segment = Segment {
        ordinal: u32::MAX,
        offset: entry.offset,
        header,
        payload: payload..end,
        raw: entry.offset..end,
    };
    let whole = header.id() == entry.segment_id && segment.verify(bytes) == ChecksumState::Ok;
    whole.then_some(segment)
}

struct Reading<'a> {
    bytes: &'a [u8],
    layout: &'a Layout,
    /// Start and end of what was taken, so that no byte counts twice: a hostile directory could otherwise name a
    /// million overlapping segments and make a small file look huge.
    taken: BTreeMap<u64, u64>,
    /// Bytes that may still be hashed to make up for damaged headers.
    budget: u64,
    /// The scalar quantiser that the directory lists last, with its tier; `Err` when it is damaged.
    quant: Option<Result<(u8, Arc<vec_seg::Scale>), ()>>,
    out: Contents,
}

impl<'a> Reading<'a> {
    fn new(bytes: &'a [u8], opened: &'a Opened) -> Self {
        Self {
            bytes,
            layout: &opened.layout,
            taken: BTreeMap::new(),
            budget: bytes.len() as u64,
            quant: None,
            out: Contents::default(),
        }
    }

    fn find(&mut self, finding: Finding) {
        if self.out.findings.len() < MAX_FINDINGS {
            self.out.findings.push(finding);
        }
    }

    fn committed(&mut self, located: &Located) {
        let manifest = &located.manifest;
        self.out.dimension = manifest.dimension;
        self.out.metric = manifest.metric;
        self.out.deleted.clone_from(&manifest.deleted);
        self.out.deleted.sort_unstable();
        self.out.legacy_checksums = located.segment.header.checksum_algo == ALGO_LEGACY;
        if manifest.metric > 2 {
            let text = format!(
                "metric {} is not known; vectors are compared by L2, as the reference does",
                manifest.metric
            );
            self.find(Finding::warning("unknown-metric", located.segment.offset, text));
        }
        self.quant = self.quantiser(located);
        // The last line about an offset counts, so go backwards and turn around at the end.
        let (mut map, mut membership) = (None, None);
        for entry in manifest.directory.iter().rev() {
            let kind = entry.kind();
            let wanted = match kind {
                SegType::VEC | SegType::META | SegType::DELTA => true,
                SegType::INDEX => self.out.index_segment.is_none(),
                SegType::COW_MAP => map.is_none(),
                SegType::MEMBERSHIP => membership.is_none(),
                _ => false,
            };
            if !wanted {
                continue;
            }
            let Some(segment) = self.take(entry) else { continue };
            match kind {
                SegType::VEC => self.vec(segment, Some(manifest.dimension)),
                SegType::DELTA => self.delta(segment),
                SegType::META => self.out.meta_entries.push(segment),
                SegType::INDEX => self.out.index_segment = Some(segment),
                SegType::COW_MAP => map = Some(segment),
                _ => membership = Some(segment),
            }
        }
        self.out.blocks.reverse();
        self.out.meta_entries.reverse();
        self.cow(map, membership);
        if self.out.cow.is_none() {
            self.deltas_of_no_branch();
        }
    }

    /// What one-byte codes of columnar blocks mean: the scalar quantiser of this dimension that is listed last.
    fn quantiser(&mut self, located: &Located) -> Option<Result<(u8, Arc<vec_seg::Scale>), ()>> {
        let manifest = &located.manifest;
        manifest.entries_of(SegType::QUANT).rev().find_map(|entry| {
            let listed = listed(self.bytes, self.layout, entry, &mut self.budget);
            let sound = listed.filter(|listed| listed.segment.verify(self.bytes).usable());
            let parsed = sound.and_then(|l| Quant::parse(l.segment.payload_of(self.bytes)).ok());
            match parsed {
                None => Some(Err(())),
                Some(Quant { tier, dim, quantiser: Quantiser::Scalar { min, max } })
                    if dim == manifest.dimension =>
                {
                    Some(vec_seg::Scale::new(&min, &max).map(|scale| (tier, Arc::new(scale))).ok_or(()))
                }
                Some(_) => None,
            }
        })
    }

    /// The segment of a directory line, unless it is not there or overlaps one that was taken.
    fn take(&mut self, entry: &DirEntry) -> Option<Segment> {
        let name = entry.kind().dir_name();
        let Some(Listed { segment, repaired }) = listed(self.bytes, self.layout, entry, &mut self.budget)
        else {
            let text = format!(
                "the directory names a {name} segment here, but there is no whole segment; its data is lost"
            );
            self.find(Finding::damage("segment-missing", entry.offset, text));
            return None;
        };
        let range = segment.offset..segment.payload.end;
        let before = self.taken.range(..range.end).next_back();
        if before.is_some_and(|(_, end)| *end > range.start) {
            let text = format!(
                "the directory names this {name} segment twice, or one inside another; the last line counts"
            );
            self.find(Finding::warning("segment-twice", entry.offset, text));
            return None;
        }
        self.taken.insert(range.start, range.end);
        if let Some(what) = repaired {
            let text =
                format!("{name} segment header has a wrong {what}; the payload matches its hash and is used");
            self.find(Finding::warning("header-damaged", entry.offset, text));
        } else if segment.kind() != entry.kind() {
            let text = format!(
                "header says type {}, the directory {name}; the directory counts",
                segment.kind().dir_name()
            );
            self.find(Finding::warning("type-differs", entry.offset, text));
        }
        if segment.header.compression != 0 || segment.header.flags.get() & flags::COMPRESSED != 0 {
            let text = format!(
                "{name} segment is marked as compressed ({}), which no writer does; its payload is read as it is",
                segment.header.compression
            );
            self.find(Finding::warning("compressed", entry.offset, text));
        }
        self.out.legacy_checksums |= segment.header.checksum_algo == ALGO_LEGACY
            && matches!(entry.kind(), SegType::VEC | SegType::META);
        Some(segment)
    }

    /// Adds a VEC segment of the given dimension, or of whatever dimension most rows have.
    fn vec(&mut self, segment: Segment, dim: Option<u16>) {
        let payload = segment.payload_of(self.bytes);
        let rows = vec_seg::declared(payload).map(|(d, count)| {
            (d, count, vec_seg::ROWS_AT + u64::from(count) * vec_seg::row_stride(d) as u64)
        });
        let len = payload.len() as u64;
        let in_file = |dim, count| VecBlock {
            dim,
            count,
            rows: Rows::InFile { offset: segment.payload.start + vec_seg::ROWS_AT },
            segment: segment.clone(),
        };
        match rows {
            Some((d, count, needed)) if needed == len && dim.is_none_or(|dim| dim == d) => {
                self.out.blocks.push(in_file(d, count));
            }
            _ if vec_seg::looks_columnar(payload) => self.columnar(segment, dim),
            Some((d, count, needed)) if needed <= len && dim.is_none_or(|dim| dim == d) => {
                self.out.blocks.push(in_file(d, count));
            }
            Some((d, count, _)) => {
                let text = match dim {
                    Some(dim) if d != dim => {
                        format!("vector segment of dimension {d} in a store of dimension {dim}; left out")
                    }
                    _ => format!(
                        "vector segment declares {count} rows of dimension {d} but has {len} bytes; left out"
                    ),
                };
                self.find(Finding::damage("vec-shape", segment.offset, text));
            }
            None => {
                let text = format!("vector segment of {len} bytes, too short for any row; left out");
                self.find(Finding::damage("vec-shape", segment.offset, text));
            }
        }
    }

    /// Adds the blocks of a columnar VEC segment that have the right dimension. Ids are read, and checksums looked at; vectors are not.
    fn columnar(&mut self, segment: Segment, dim: Option<u16>) {
        let payload = segment.payload_of(self.bytes);
        if !segment.verify(self.bytes).usable() {
            // Kept as an empty block, so that the damage is reported where that of other blocks is.
            let dim = dim.unwrap_or(0);
            self.out.blocks.push(VecBlock { dim, count: 0, rows: Rows::Unread, segment });
            return;
        }
        let blocks = match vec_seg::stored_blocks(payload) {
            Ok(blocks) => blocks,
            Err(error) => {
                let text = format!("columnar vector segment is damaged: {error}");
                self.find(Finding::damage("vec-columnar", segment.offset, text));
                return;
            }
        };
        let dim =
            dim.unwrap_or_else(|| majority(blocks.iter().map(|block| (block.dim, block.ids.len() as u64))));
        let mut columns = Columns::new(dim);
        let start = usize::try_from(segment.payload.start).unwrap_or(usize::MAX);
        let mut left_out = 0usize;
        for block in blocks {
            let scale = match &self.quant {
                Some(Err(())) if block.dtype == vec_seg::DTYPE_U8 => {
                    let text =
                        "columnar vector block whose quantiser (QUANT) is damaged; its rows are left out";
                    self.find(Finding::damage("quant-damaged", segment.offset, text));
                    left_out += block.ids.len();
                    continue;
                }
                Some(Ok((tier, scale))) if *tier == block.tier => Some(scale),
                _ => None,
            };
            let (rows, crc_ok) = (block.ids.len(), block.crc_ok);
            if !columns.push(block, start, scale) {
                left_out += rows;
            }
            if !crc_ok {
                let text = "columnar vector block fails its CRC-32C; the segment hash holds, so it is used";
                self.find(Finding::warning("vec-crc", segment.offset, text));
            }
        }
        let used = columns.ids().len();
        let text = format!(
            "columnar vector segment: {used} rows read, {left_out} of another dimension or type left out (the \
             reference ignores such segments)"
        );
        self.find(Finding::note("columnar", segment.offset, text));
        let count = u32::try_from(used).unwrap_or(u32::MAX);
        self.out.blocks.push(VecBlock { dim, count, rows: Rows::Columns(Arc::new(columns)), segment });
    }

    /// Adds a DELTA segment, whose rows a reader of the whole chain puts together.
    fn delta(&mut self, segment: Segment) {
        let dim = self.out.dimension;
        if !segment.verify(self.bytes).usable() {
            // Kept as an empty block, so that the damage is reported where that of other blocks is.
            self.out.blocks.push(VecBlock { dim, count: 0, rows: Rows::Unread, segment });
            return;
        }
        match Delta::parse(segment.payload_of(self.bytes)) {
            Ok(delta) if delta.dim == dim => {
                let count = u32::try_from(delta.ids.len()).unwrap_or(u32::MAX);
                self.out.blocks.push(VecBlock { dim, count, rows: Rows::Changed(Arc::new(delta)), segment });
            }
            Ok(delta) => {
                let text =
                    format!("delta of dimension {} in a store of dimension {dim}; left out", delta.dim);
                self.find(Finding::damage("delta-shape", segment.offset, text));
            }
            Err(error) => {
                let text =
                    format!("delta is not usable ({error}); its vectors are shown without its changes");
                self.find(Finding::damage("delta-damaged", segment.offset, text));
            }
        }
    }

    /// Without a parent there is nothing that a DELTA changes.
    fn deltas_of_no_branch(&mut self) {
        let blocks = std::mem::take(&mut self.out.blocks);
        let (deltas, rows) = blocks.into_iter().partition(|b| b.segment.kind() == SegType::DELTA);
        self.out.blocks = rows;
        for block in deltas {
            let text = "a delta in a store that is no branch, or whose record of its parent is damaged: it changes nothing";
            self.find(Finding::warning("delta-alone", block.segment.offset, text));
        }
    }

    fn cow(&mut self, map: Option<Segment>, membership: Option<Segment>) {
        let (map_segment, membership_segment) = match (map, membership) {
            (None, None) => return,
            (Some(map), Some(membership)) => (map, membership),
            // Written beside columnar vectors, which the reference would pass over in silence: it refuses the file.
            (None, Some(membership)) if is_guard(membership.payload_of(self.bytes)) => return,
            (None, Some(membership)) => {
                let text = "a membership filter without a cluster map (the reference's `filter`, then `compact`): the \
                            store is read without the filter; the reference refuses it (0x0700)";
                self.find(
                    Finding::warning("membership-alone", membership.offset, text).mend("compact the store"),
                );
                return;
            }
            (Some(map), None) => {
                let text = "a cluster map without a membership filter: inherited vectors are not shown; the reference \
                            refuses the store (0x0700)";
                self.find(Finding::damage("cow-map-alone", map.offset, text));
                return;
            }
        };
        let map = self.decode_cow(&map_segment, CowMap::parse);
        let membership = self.decode_cow(&membership_segment, Membership::parse);
        if let (Some(map), Some(membership)) = (map, membership) {
            self.out.cow = Some(Cow { map, map_segment, membership, membership_segment });
        }
    }

    fn decode_cow<T>(&mut self, segment: &Segment, parse: impl Fn(&[u8]) -> crate::Result<T>) -> Option<T> {
        let problem = if segment.verify(self.bytes).usable() {
            match parse(segment.payload_of(self.bytes)) {
                Ok(value) => return Some(value),
                Err(error) => error.to_string(),
            }
        } else {
            "payload fails its hash".to_owned()
        };
        let text = format!(
            "{} segment is not usable ({problem}): inherited vectors are not shown, the file's own are",
            segment.kind().dir_name()
        );
        self.find(Finding::damage("cow-damaged", segment.offset, text));
        None
    }

    /// Everything that looks like data, when no manifest says what counts.
    fn salvage(&mut self) {
        self.out.salvaged = true;
        let layout = self.layout;
        for segment in layout.segments() {
            match segment.kind() {
                SegType::VEC => self.vec(segment.clone(), None),
                SegType::META => self.out.meta_entries.push(segment.clone()),
                _ => continue,
            }
            self.out.legacy_checksums |= segment.header.checksum_algo == ALGO_LEGACY;
        }
        let dim = majority(self.out.blocks.iter().map(|block| (block.dim, u64::from(block.count))));
        let rows: u64 =
            self.out.blocks.iter().filter(|b| b.dim == dim).map(|block| u64::from(block.count)).sum();
        let others = self.out.blocks.iter().filter(|block| block.dim != dim).count();
        self.out.blocks.retain(|block| block.dim == dim);
        self.out.dimension = dim;
        if !self.out.blocks.is_empty() {
            let text = format!(
                "no manifest: {rows} rows of dimension {dim} were salvaged from {} vector segment(s), {others} of \
                 another dimension left out; the metric is not known (L2 assumed) and deleted vectors may reappear",
                self.out.blocks.len()
            );
            self.find(
                Finding::damage("salvaged", 0, text)
                    .mend("export the vectors and build a new store from them"),
            );
        }
    }

    /// The newest witness segment, listed ones before those after the manifest, decides; attestation payloads do not
    /// move the head.
    fn witness_head(&mut self, opened: &Opened) -> [u8; 32] {
        let mut segments: Vec<Segment> = Vec::new();
        let end = match &opened.manifest {
            Some(located) => {
                let listed_ones = located.manifest.entries_of(SegType::WITNESS).rev().take(MAX_WITNESS_STEPS);
                segments.extend(listed_ones.filter_map(|entry| {
                    listed(self.bytes, self.layout, entry, &mut self.budget).map(|found| found.segment)
                }));
                segments.reverse();
                located.segment.raw.end
            }
            None => 0,
        };
        let after = self.layout.segments().rev().take_while(|segment| segment.offset >= end);
        let mut orphans: Vec<Segment> =
            after.filter(|s| s.kind() == SegType::WITNESS).take(MAX_WITNESS_STEPS).cloned().collect();
        orphans.reverse();
        segments.extend(orphans);
        let mut budget = self.bytes.len() as u64;
        for segment in segments.iter().rev().take(MAX_WITNESS_STEPS) {
            // Honest segments do not overlap; a hostile directory may name a large one again and again.
            let Some(left) = budget.checked_sub(segment.payload.end - segment.payload.start) else { break };
            budget = left;
            if !segment.verify(self.bytes).usable() {
                let text = "the newest witness segment fails its hash; the next entry starts a new chain";
                self.find(Finding::damage("witness-damaged", segment.offset, text));
                return [0; 32];
            }
            if let Some(head) = witness::head_after(segment.payload_of(self.bytes)) {
                return head;
            }
        }
        [0; 32]
    }
}

/// The dimension with the most rows; the smallest of equals.
fn majority(shapes: impl Iterator<Item = (u16, u64)>) -> u16 {
    let mut rows: BTreeMap<u16, u64> = BTreeMap::new();
    for (dim, count) in shapes {
        *rows.entry(dim).or_default() += count;
    }
    let best = rows.iter().fold(None, |best: Option<(u16, u64)>, (dim, count)| match best {
        Some((_, most)) if *count <= most => best,
        _ => Some((*dim, *count)),
    });
    best.map_or(0, |(dim, _)| dim)
}
