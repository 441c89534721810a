//! Walking a file: every byte belongs to exactly one segment, gap, or the signed root page.
//!
//! The walk touches headers only, so it costs O(segments) on an intact file. After damage it looks for the next
//! header byte by byte, each byte at most once. It never trusts a header for more than the place of the next one.

use crate::header::{ALIGNMENT, HEADER_LEN, MAGIC_BYTES, Segment, SegmentHeader};
use std::ops::Range;

/// Bytes of a signed root page, always the last of its file.
pub const ROOT_PAGE_LEN: u64 = 4096;
/// First four bytes of a root page as they lie on disk.
pub const ROOT_PAGE_MAGIC: [u8; 4] = [0x30, 0x4D, 0x56, 0x52];

/// Which writer a file came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// 64-aligned segments, XXH3 or SHAKE hashes: what every current writer emits.
    Wire,
    /// Checksum algorithm 0; segments may follow each other without padding.
    Legacy,
}

impl Dialect {
    /// `wire` or `legacy`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Wire => "wire",
            Self::Legacy => "legacy",
        }
    }
}

/// A stretch of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A complete segment with its padding.
    Segment(Segment),
    /// Bytes that belong to no segment: zeros, garbage, or the torn start of one.
    Gap(Range<u64>),
}

/// What a gap holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapKind {
    /// Only zero bytes.
    Zeros,
    /// Starts with a valid header whose payload passes the end of the file.
    Torn {
        /// The payload length that the header declares.
        declared: u64,
    },
    /// Anything else.
    Garbage,
}

/// The map of a file, in file order and without holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Which writer the file came from.
    pub dialect: Dialect,
    /// Segments and gaps, ascending and adjoining, from 0 to the root page or the end.
    pub entries: Vec<Entry>,
    /// The signed root page, when the file ends with one.
    pub root_page: Option<Range<u64>>,
    /// Bytes of the file that was walked.
    pub len: u64,
}

impl Layout {
    /// The segments, in file order.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Segment(segment) => Some(segment),
            Entry::Gap(_) => None,
        })
    }

    /// The gaps, in file order.
    pub fn gaps(&self) -> impl Iterator<Item = &Range<u64>> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Gap(range) => Some(range),
            Entry::Segment(_) => None,
        })
    }

    /// The segment whose header starts at `offset`. O(log entries).
    pub fn segment_at_offset(&self, offset: u64) -> Option<&Segment> {
        match self.entries.get(self.entry_index(offset)?) {
            Some(Entry::Segment(segment)) if segment.offset == offset => Some(segment),
            _ => None,
        }
    }

    /// The entry that holds the byte at `offset`. O(log entries).
    pub fn entry_containing(&self, offset: u64) -> Option<&Entry> {
        self.entries.get(self.entry_index(offset)?)
    }

    /// First byte after the last entry: the root page, or the end of the file.
    pub fn body_end(&self) -> u64 {
        self.root_page.as_ref().map_or(self.len, |page| page.start)
    }

    fn entry_index(&self, offset: u64) -> Option<usize> {
        let index =
            self.entries.partition_point(|entry| entry_range(entry).start <= offset).checked_sub(1)?;
        entry_range(self.entries.get(index)?).contains(&offset).then_some(index)
    }
}

/// The file range of an entry.
pub fn entry_range(entry: &Entry) -> &Range<u64> {
    match entry {
        Entry::Segment(segment) => &segment.raw,
        Entry::Gap(range) => range,
    }
}

/// What a gap holds. O(gap) for a gap of zeros.
pub fn gap_kind(bytes: &[u8], gap: &Range<u64>) -> GapKind {
    let slice = crate::header::slice(bytes, gap);
    if let Some(header) = SegmentHeader::parse(slice, 0) {
        return GapKind::Torn { declared: header.payload_len() };
    }
    if slice.iter().all(|byte| *byte == 0) { GapKind::Zeros } else { GapKind::Garbage }
}

/// Maps a file. Never fails: bytes that make no sense become gaps.
///
/// Memory is one entry per segment, at least 64 bytes of file each.
pub fn walk(bytes: &[u8]) -> Layout {
    walk_distrusting(bytes, &[])
}

/// [`walk`], but the headers at the given offsets (ascending) count as damaged: their 64 bytes are a gap and the
/// search for the next header starts right after.
pub(crate) fn walk_distrusting(bytes: &[u8], distrusted: &[u64]) -> Layout {
    let len = bytes.len() as u64;
    let dialect = match SegmentHeader::parse(bytes, 0) {
        Some(header) if header.checksum_algo == crate::checksum::ALGO_LEGACY => Dialect::Legacy,
        _ => Dialect::Wire,
    };
    let page = root_page(bytes);
    let mut walker = Walker {
        bytes,
        end: page.as_ref().map_or(len, |page| page.start),
        dialect,
        distrusted,
        entries: Vec::new(),
        ordinal: 0,
    };
    walker.run();
    // A page that is the last part of a whole, verified segment is payload, not a page of its own (a Level-0 page
    // that another writer put into a MANIFEST segment).
    if page.is_some() && !walker.ends_on_segment() {
        let torn_from = match walker.entries.last() {
            Some(Entry::Gap(gap)) => Some(gap.start),
            _ => None,
        };
        if let Some(segment) = torn_from.and_then(|start| Segment::at(bytes, start))
            && segment.verify(bytes) == crate::checksum::ChecksumState::Ok
        {
            walker.end = len;
            walker.entries.pop();
            walker.run_from(segment.offset);
            return Layout { dialect, entries: walker.entries, root_page: None, len };
        }
    }
    Layout { dialect, entries: walker.entries, root_page: page, len }
}

fn root_page(bytes: &[u8]) -> Option<Range<u64>> {
    let len = bytes.len() as u64;
    let start = len.checked_sub(ROOT_PAGE_LEN).filter(|start| *start >= HEADER_LEN)?;
    (crate::header::slice(bytes, &(start..start + 4)) == ROOT_PAGE_MAGIC).then_some(start..len)
}

struct Walker<'a> {
    bytes: &'a [u8],
    end: u64,
    dialect: Dialect,
    distrusted: &'a [u64],
    entries: Vec<Entry>,
    ordinal: u32,
}

impl Walker<'_> {
    fn run(&mut self) {
        self.run_from(0);
    }

    fn run_from(&mut self, from: u64) {
        let mut pos = from;
        while pos < self.end {
            match self.segment(pos) {
                Some(segment) => {
                    pos = segment.raw.end;
                    self.entries.push(Entry::Segment(segment));
                }
                None => {
                    let next = self.resync(pos);
                    self.entries.push(Entry::Gap(pos..next));
                    pos = next;
                }
            }
        }
    }

    fn ends_on_segment(&self) -> bool {
        !matches!(self.entries.last(), Some(Entry::Gap(gap)) if SegmentHeader::parse(self.bytes, gap.start).is_some())
    }

    /// Whether a complete segment starts at `offset`, and where its payload ends.
    fn payload_end(&self, offset: u64) -> Option<u64> {
        if self.distrusted.binary_search(&offset).is_ok() {
            return None;
        }
        let header = SegmentHeader::parse(self.bytes, offset)?;
        let end = offset.checked_add(HEADER_LEN)?.checked_add(header.payload_len())?;
        (end <= self.end).then_some(end)
    }

    fn segment(&mut self, offset: u64) -> Option<Segment> {
        let header = SegmentHeader::parse(self.bytes, offset)?;
        let end = self.payload_end(offset)?;
        let segment = Segment {
            ordinal: self.ordinal,
            offset,
            header,
            payload: offset + HEADER_LEN..end,
            raw: offset..self.raw_end(end),
        };
        self.ordinal = self.ordinal.saturating_add(1);
        Some(segment)
    }

    /// Where the padding after a payload ends. The next header decides between "aligned up" and "right here" (raw
    /// segments of the reference's CLI and the legacy dialect have no padding); at the end of the file, what is left.
    fn raw_end(&self, end: u64) -> u64 {
        let aligned = end.next_multiple_of(ALIGNMENT);
        if aligned == end {
            return end;
        }
        if self.dialect == Dialect::Legacy && self.starts_header(end) {
            return end;
        }
        if self.starts_header(aligned) {
            return aligned;
        }
        if self.starts_header(end) {
            return end;
        }
        let limit = aligned.min(self.end);
        let pad = crate::header::slice(self.bytes, &(end..limit));
        if pad.iter().all(|byte| *byte == 0) { limit } else { end }
    }

    /// Magic and version only: a torn last header still shows how the writer aligned it.
    fn starts_header(&self, offset: u64) -> bool {
        SegmentHeader::parse(self.bytes, offset).is_some() && offset < self.end
    }

    /// The next offset after `pos` at which a complete segment starts, or the end.
    fn resync(&self, pos: u64) -> u64 {
        let mut from = pos + 1;
        while let Some(found) = find_magic(self.bytes, from, self.end) {
            if self.payload_end(found).is_some() {
                return found;
            }
            from = found + 1;
        }
        self.end
    }
}

/// The next offset in `from..end` that starts with the segment magic.
fn find_magic(bytes: &[u8], from: u64, end: u64) -> Option<u64> {
    let slice = crate::header::slice(bytes, &(from..end));
    memchr::memmem::find(slice, &MAGIC_BYTES).map(|at| from + at as u64)
}
