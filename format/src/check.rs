//! `rvf check`: everything about a file that can be found out without a store, on any bytes.

use crate::checksum::ChecksumState;
use crate::contents::{self, Contents};
use crate::cow_map::CowMap;
use crate::finding::{Finding, Severity};
use crate::header::{SegType, Segment};
use crate::layout::{Dialect, GapKind, gap_kind};
use crate::manifest::FileIdentity;
use crate::membership::Membership;
use crate::recover::{self, Opened, Tail};
use crate::root_page::RootPage;
use crate::{index_seg, journal, meta, refcount, witness};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Segments that are listed one by one; more are only counted.
const MAX_LISTED: usize = 65536;
/// Findings that are listed; more are only counted.
const MAX_FINDINGS: usize = 1000;

/// One line about a segment.
#[derive(Clone, Debug)]
pub struct SegmentLine {
    /// Place in the file, from 0.
    pub ordinal: u32,
    /// File offset.
    pub offset: u64,
    /// Type.
    pub kind: SegType,
    /// Segment id.
    pub id: u64,
    /// Payload bytes.
    pub payload_length: u64,
    /// Whether the payload matches its hash.
    pub checksum: ChecksumState,
    /// Whether the manifest that counts lists it (or it is that manifest).
    pub committed: bool,
}

/// The manifest that counts.
#[derive(Clone, Debug)]
pub struct ManifestLine {
    /// File offset.
    pub offset: u64,
    /// Commit counter.
    pub epoch: u32,
    /// Components of a vector.
    pub dimension: u16,
    /// `L2`, `InnerProduct` or `Cosine`.
    pub metric: &'static str,
    /// Hardware profile.
    pub profile_id: u8,
    /// Rows it declares, soft-deleted ones included.
    pub total_vectors: u64,
    /// Soft-deleted rows.
    pub deleted: u64,
    /// Directory entries.
    pub segments: usize,
    /// Who the file is.
    pub identity: Option<FileIdentity>,
}

/// State of the reference's index in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexLine {
    /// None is listed.
    None,
    /// It is usable and covers this many of the live vectors.
    Usable {
        /// Vector ids in the index.
        ids: u64,
    },
    /// It does not decode, fails its hash or names unknown ids; it will be built again.
    Unusable,
}

/// What can be got out of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recoverable {
    /// Live vectors in usable segments.
    pub vectors: u64,
    /// Rows in vector segments that fail their hash (an upper bound of what is lost).
    pub damaged_rows: u64,
    /// Metadata records.
    pub metadata_records: u64,
    /// File metadata entries.
    pub file_metadata: u64,
}

/// How often each state of the checksum occurs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hashes {
    /// The payload is what was written.
    pub ok: u64,
    /// It is not.
    pub bad: u64,
    /// No hash is stored.
    pub unset: u64,
    /// Nobody can check it.
    pub unsupported: u64,
}

/// Everything that was found.
#[derive(Clone, Debug)]
pub struct CheckReport {
    /// Which writer the file came from.
    pub dialect: Dialect,
    /// Bytes.
    pub size: u64,
    /// Whether it ends with a root page, and whether that is whole and names the manifest.
    pub signed: Option<bool>,
    /// Segments, at most 65,536 of them.
    pub segments: Vec<SegmentLine>,
    /// All segments.
    pub segment_count: usize,
    /// Bytes that belong to no segment.
    pub gap_bytes: u64,
    /// Checksums of all segments.
    pub hashes: Hashes,
    /// Segments by type.
    pub by_type: BTreeMap<SegType, u64>,
    /// The manifest that counts.
    pub manifest: Option<ManifestLine>,
    /// What lies after it.
    pub tail: Tail,
    /// Whether the reference's `status`, `query` and `inspect` would call the file torn.
    pub reference_torn: bool,
    /// Metadata generation, generations dropped, records dropped.
    pub metadata: (u64, u64, u64),
    /// The witness chain.
    pub witness: witness::Report,
    /// The reference's index.
    pub index: IndexLine,
    /// Whether the file is a copy-on-write child, and of which parent path.
    pub parent: Option<String>,
    /// What can be got out of the file.
    pub recoverable: Recoverable,
    /// Deviations and damage, by offset.
    pub findings: Vec<Finding>,
    /// Findings that were too many to list.
    pub more_findings: usize,
}

impl CheckReport {
    /// The worst finding; `None` when there is none.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// Whether nothing is lost or unusable.
    pub fn is_sound(&self) -> bool {
        self.manifest.is_some() && self.worst() < Some(Severity::Damage)
    }
}

/// Checks a file. Never fails. Hashes and decodes everything: O(file).
pub fn check(bytes: &[u8]) -> CheckReport {
    let opened = recover::open(bytes);
    let contents = contents::read(bytes, &opened);
    let mut findings = opened.findings.clone();
    findings.extend(contents.findings.iter().cloned());

    let committed: HashSet<u64> = opened
        .manifest
        .iter()
        .flat_map(|located| {
            located.manifest.directory.iter().map(|entry| entry.offset).chain([located.segment.offset])
        })
        .collect();
    let mut hashes = Hashes::default();
    let mut by_type = BTreeMap::new();
    let mut segments = Vec::new();
    let mut hashed = Hashed { bytes, known: HashMap::new() };
    for segment in opened.layout.segments() {
        let checksum = hashed.state(segment);
        let committed = committed.contains(&segment.offset);
        *by_type.entry(segment.kind()).or_default() += 1;
        match checksum {
            ChecksumState::Ok => hashes.ok += 1,
            ChecksumState::Bad => hashes.bad += 1,
            ChecksumState::Unset => hashes.unset += 1,
            ChecksumState::Unsupported => hashes.unsupported += 1,
        }
        segment_findings(bytes, segment, checksum, committed, &mut findings);
        if segments.len() < MAX_LISTED {
            segments.push(SegmentLine {
                ordinal: segment.ordinal,
                offset: segment.offset,
                kind: segment.kind(),
                id: segment.header.id(),
                payload_length: segment.header.payload_len(),
                checksum,
                committed,
            });
        }
    }

    let rows = Rows::of(bytes, &contents, &mut hashed);
    let live = |id: u64| rows.live(&contents, id);
    let meta = meta::replay(bytes, &contents.meta_entries, &live);
    findings.extend(meta.findings.iter().cloned());
    let index = index_line(&mut hashed, &contents, &rows, &mut findings);
    let signed = signed(bytes, &opened, &mut findings);
    if let Some(located) = &opened.manifest
        && !rows.any_damaged
        && contents.cow.is_none()
        && rows.ids.len() as u64 != located.manifest.total_vectors
    {
        let text = format!(
            "the manifest declares {} rows, {} are there",
            located.manifest.total_vectors,
            rows.ids.len()
        );
        findings.push(Finding::warning("row-count", located.segment.offset, text));
    }
    let witness = witness::verify(bytes, &opened.layout);
    for line in &witness.chain_breaks {
        findings.push(Finding::damage("witness-chain", 0, format!("witness chain: {line}")));
    }
    findings.sort_by_key(|finding| finding.offset);
    let more_findings = findings.len().saturating_sub(MAX_FINDINGS);
    findings.truncate(MAX_FINDINGS);
    CheckReport {
        dialect: opened.layout.dialect,
        size: bytes.len() as u64,
        signed,
        segment_count: opened.layout.segments().count(),
        segments,
        gap_bytes: opened.layout.gaps().map(|gap| gap.end - gap.start).sum(),
        hashes,
        by_type,
        manifest: opened.manifest.as_ref().map(|located| ManifestLine {
            offset: located.segment.offset,
            epoch: located.manifest.epoch,
            dimension: located.manifest.dimension,
            metric: located.manifest.metric_name(),
            profile_id: located.manifest.profile_id,
            total_vectors: located.manifest.total_vectors,
            deleted: located.manifest.deleted.len() as u64,
            segments: located.manifest.directory.len(),
            identity: located.manifest.identity,
        }),
        tail: opened.tail,
        reference_torn: opened.reference_tail.torn_at.is_some(),
        metadata: (meta.generation, meta.dropped_generations, meta.dropped_records),
        witness,
        index,
        parent: contents.cow.as_ref().map(|cow| cow.map.parent_path.clone()),
        recoverable: Recoverable {
            vectors: rows.ids.iter().filter(|id| live(**id)).count() as u64,
            damaged_rows: rows.damaged,
            metadata_records: meta.records.len() as u64,
            file_metadata: meta.file.len() as u64,
        },
        findings,
        more_findings,
    }
}

/// Checksums that were looked at already: a payload of gigabytes is hashed once.
struct Hashed<'a> {
    bytes: &'a [u8],
    /// By where a payload starts and ends. A directory may read a segment with another length than the walk.
    known: HashMap<(u64, u64), ChecksumState>,
}

impl Hashed<'_> {
    fn state(&mut self, segment: &Segment) -> ChecksumState {
        let place = (segment.payload.start, segment.payload.end);
        *self.known.entry(place).or_insert_with(|| segment.verify(self.bytes))
    }
}

/// Ids of the rows in usable blocks.
struct Rows {
    ids: HashSet<u64>,
    damaged: u64,
    any_damaged: bool,
}

impl Rows {
    fn of(bytes: &[u8], contents: &Contents, hashed: &mut Hashed<'_>) -> Self {
        let mut out = Self { ids: HashSet::new(), damaged: 0, any_damaged: false };
        for block in &contents.blocks {
            if !hashed.state(&block.segment).usable() {
                out.any_damaged = true;
                out.damaged += u64::from(block.count);
                continue;
            }
            out.ids.extend(block.ids(bytes));
        }
        out
    }

    fn live(&self, contents: &Contents, id: u64) -> bool {
        self.ids.contains(&id) && contents.deleted.binary_search(&id).is_err()
    }
}

fn segment_findings(
    bytes: &[u8],
    segment: &Segment,
    checksum: ChecksumState,
    committed: bool,
    findings: &mut Vec<Finding>,
) {
    let name = segment.kind().dir_name();
    let listed = if committed { "" } else { " (not committed)" };
    match checksum {
        ChecksumState::Ok => {}
        // The choice of the manifest reports its own hash.
        ChecksumState::Bad if segment.kind() == SegType::MANIFEST => {}
        ChecksumState::Bad => {
            let effect = match segment.kind() {
                SegType::VEC => "its vectors are kept out of every answer",
                SegType::DELTA => "its vectors are shown without its changes",
                SegType::META => "its metadata is lost unless its own SHA-256 holds",
                SegType::INDEX => "the index is built again",
                SegType::JOURNAL => "nothing depends on it",
                _ => "it is shown, not trusted",
            };
            let text = format!("{name} segment{listed} fails its hash: {effect}");
            findings.push(Finding::damage("bad-hash", segment.offset, text));
        }
        ChecksumState::Unset => {
            let text = format!("{name} segment{listed} stores no hash, so damage in it cannot be noticed");
            findings.push(Finding::note("no-hash", segment.offset, text));
        }
        ChecksumState::Unsupported => {
            let text = format!(
                "{name} segment{listed} has checksum algorithm {}, which cannot be checked; it is not used",
                segment.header.checksum_algo
            );
            findings.push(Finding::warning("unknown-checksum", segment.offset, text));
        }
    }
    if checksum == ChecksumState::Ok && segment.header.checksum_algo > crate::checksum::ALGO_SHAKE {
        let text = format!(
            "{name} segment{listed} names checksum algorithm {}, but matches a known one; it is used, the reference \
             refuses it",
            segment.header.checksum_algo
        );
        findings.push(Finding::warning("checksum-algo", segment.offset, text));
    }
    if segment.header.payload_len() > crate::header::MAX_PAYLOAD {
        let text =
            format!("{name} segment{listed} is larger than 256 MiB; the reference cannot load such segments");
        findings.push(Finding::warning("large-segment", segment.offset, text));
    }
    if !segment.kind().is_known() {
        let text =
            format!("segment{listed} of unknown type 0x{:02X}; kept, not interpreted", segment.kind().0);
        findings.push(Finding::note("unknown-type", segment.offset, text));
    }
    if checksum.usable()
        && let Some(problem) = structure(segment.kind(), segment.payload_of(bytes))
    {
        findings.push(Finding::warning(
            "structure",
            segment.offset,
            format!("{name} segment{listed}: {problem}"),
        ));
    }
    let pad = segment.raw.end - segment.payload.end;
    let padding = crate::header::slice(bytes, &(segment.payload.end..segment.raw.end));
    if padding.iter().any(|byte| *byte != 0) {
        findings.push(Finding::note(
            "padding",
            segment.payload.end,
            format!("{pad} padding bytes that are not zero"),
        ));
    }
}

/// Whether a payload of a type with a layout does not decode. VEC, META, MANIFEST and INDEX report for themselves.
fn structure(kind: SegType, payload: &[u8]) -> Option<String> {
    let error = match kind {
        SegType::JOURNAL => journal::Journal::parse(payload).err(),
        SegType::COW_MAP => CowMap::parse(payload).err(),
        SegType::MEMBERSHIP => Membership::parse(payload).err(),
        SegType::REFCOUNT => refcount::Refcount::parse(payload).err(),
        SegType::QUANT => crate::quant::Quant::parse(payload).err(),
        SegType::SKETCH => crate::sketch::Sketch::parse(payload).err(),
        SegType::HOT => crate::hot::Hot::parse(payload).err(),
        _ => None,
    };
    error.map(|error| error.to_string())
}

fn index_line(
    hashed: &mut Hashed<'_>,
    contents: &Contents,
    rows: &Rows,
    findings: &mut Vec<Finding>,
) -> IndexLine {
    let Some(segment) = &contents.index_segment else { return IndexLine::None };
    if !hashed.state(segment).usable() {
        return IndexLine::Unusable;
    }
    let problem = match index_seg::decode(segment.payload_of(hashed.bytes)) {
        Ok(index) => match index.ids.iter().find(|id| !rows.ids.contains(id)) {
            None => return IndexLine::Usable { ids: index.ids.len() as u64 },
            Some(id) => format!("it names vector {id}, which is not in the store"),
        },
        Err(error) => error.to_string(),
    };
    let text = format!("the index is not usable and will be built again: {problem}");
    findings.push(Finding::warning("index-unusable", segment.offset, text));
    IndexLine::Unusable
}

fn signed(bytes: &[u8], opened: &Opened, findings: &mut Vec<Finding>) -> Option<bool> {
    let range = opened.layout.root_page.as_ref()?;
    let page = RootPage::parse(crate::header::slice(bytes, range));
    let problem = match (&page, &opened.manifest) {
        (Err(error), _) => error.to_string(),
        (Ok(page), _) if !page.crc_ok => "it fails its CRC-32C".to_owned(),
        (Ok(page), Some(manifest)) if !page.names(manifest) => {
            "it names another manifest than the one that counts".into()
        }
        (Ok(_), None) => "there is no manifest to name".to_owned(),
        (Ok(page), Some(manifest)) => {
            if page.matches_payload(manifest.segment.payload_of(bytes)) {
                return Some(true);
            }
            "the manifest is not the one that was signed".to_owned()
        }
    };
    let text = format!("the signed root page is not usable: {problem}");
    findings.push(Finding::warning("root-page", range.start, text));
    Some(false)
}

/// What the gaps of a file hold, for a listing: offset, length and one word.
pub fn gaps(bytes: &[u8], opened: &Opened) -> Vec<(u64, u64, &'static str)> {
    let word = |gap| match gap_kind(bytes, gap) {
        GapKind::Zeros => "zeros",
        GapKind::Torn { .. } => "torn",
        GapKind::Garbage => "garbage",
    };
    opened.layout.gaps().map(|gap| (gap.start, gap.end - gap.start, word(gap))).collect()
}
