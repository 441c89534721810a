//! Which manifest counts, what lies after it, and what went wrong.
//!
//! Committed is what the newest complete manifest names whose payload matches its hash. The reference takes the
//! newest one that parses, by a backward scan that can be fooled by payload bytes and does not look at the hash; here
//! the file is walked forward, and damage makes the search more careful, not more trusting:
//!
//! * a manifest whose hash fails is passed over, and the one before it counts;
//! * a manifest that can only be reached past damage counts only if it fits the file: its directory names segments
//!   that are really there, and it is a newer one of the same file than the newest one before the damage (bytes of an
//!   embedded .rvf file, exposed by a broken header, do not pass);
//! * a header whose payload swallows a newer manifest is disbelieved if its payload fails its hash.

use crate::checksum::{ALGO_LEGACY, ChecksumState};
use crate::error::codes;
use crate::finding::Finding;
use crate::header::{ALIGNMENT, HEADER_LEN, MAGIC_BYTES, SegType, Segment, SegmentHeader, VERSION};
use crate::layout::{Dialect, Entry, GapKind, Layout, entry_range, gap_kind, walk, walk_distrusting};
use crate::manifest::Manifest;
use std::ops::Range;

/// Headers that are disbelieved at most; each costs another walk.
const MAX_DISTRUSTED: usize = 8;
/// Findings about gaps and damaged manifests that are worth listing one by one.
const MAX_FINDINGS: usize = 256;

/// A manifest and where it was found.
#[derive(Clone, Debug)]
pub struct Located {
    /// Its segment.
    pub segment: Segment,
    /// What it says.
    pub manifest: Manifest,
    /// Whether its payload is what was written: `Ok` or `Unset`.
    pub checksum: ChecksumState,
}

/// What lies after the manifest that counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// Bytes between the end of the manifest (with padding) and the root page or the end of the file.
    pub bytes_after_manifest: u64,
    /// Complete segments after the manifest that are not manifests.
    pub uncommitted_segments: u32,
    /// Where an interrupted write starts; only the next commit removes it.
    pub torn_at: Option<u64>,
}

/// A file, understood as far as it can be.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Every byte of the file.
    pub layout: Layout,
    /// The newest complete, verified manifest.
    pub manifest: Option<Located>,
    /// What lies after it.
    pub tail: Tail,
    /// The same three values as the reference would report them for this manifest; they decide what its tools do with
    /// the file (torn: `status`, `query` and `inspect` refuse).
    pub reference_tail: Tail,
    /// Deviations and damage.
    pub findings: Vec<Finding>,
}

/// Opens a file. Never fails: an unusable file has no manifest, and findings that say why and what is recoverable.
///
/// O(segments) plus the hash of one manifest on an intact file.
pub fn open(bytes: &[u8]) -> Opened {
    let mut distrusted = Vec::new();
    let mut layout = walk(bytes);
    let mut findings = Vec::new();
    let mut manifest = choose(bytes, &layout, &mut findings);
    while distrusted.len() < MAX_DISTRUSTED
        && let Some(liar) = swallower(bytes, &layout, manifest.as_ref())
    {
        distrusted.push(liar);
        distrusted.sort_unstable();
        layout = walk_distrusting(bytes, &distrusted);
        findings.clear();
        manifest = choose(bytes, &layout, &mut findings);
    }
    for offset in distrusted {
        let text =
            "segment header with a wrong length: its payload would swallow later segments and fails its hash";
        findings.push(Finding::damage("bad-length", offset, text));
    }
    gaps(bytes, &layout, manifest.as_ref(), &mut findings);
    let (tail, reference_tail) = match &manifest {
        Some(located) => (tail(bytes, &layout, located), reference_tail(bytes, located)),
        None => (Tail::default(), Tail::default()),
    };
    match &manifest {
        Some(_) => tail_findings(&layout, &tail, &reference_tail, &mut findings),
        None => findings.push(no_manifest(bytes, &layout)),
    }
    findings.sort_by_key(|finding| finding.offset);
    Opened { layout, manifest, tail, reference_tail, findings }
}

/// The newest manifest that counts.
fn choose(bytes: &[u8], layout: &Layout, findings: &mut Vec<Finding>) -> Option<Located> {
    let broken_at = layout.gaps().next().map_or(u64::MAX, |gap| gap.start);
    let mut past_damage: Vec<(bool, Located)> = Vec::new();
    let mut before_damage = None;
    for segment in layout.segments().rev().filter(|segment| segment.kind() == SegType::MANIFEST) {
        let Some(located) = accept(bytes, segment, findings) else { continue };
        if segment.offset > broken_at {
            // A few candidates are enough to get past strays; keeping all would cost memory on hostile files.
            if past_damage.len() < 8
                && let Some(clean) = directory_fits(bytes, layout, &located)
            {
                past_damage.push((clean, located));
            }
            continue;
        }
        before_damage = Some(located);
        break;
    }
    let floor = before_damage.as_ref().map(|located| rank(&located.manifest));
    let mut best: Option<(bool, Located)> = None;
    for (clean, located) in past_damage {
        let same_file = before_damage.as_ref().is_none_or(|before| {
            let ids = before.manifest.identity.zip(located.manifest.identity);
            ids.is_none_or(|(before, after)| before.file_id == after.file_id)
        });
        let rank = rank(&located.manifest);
        let newer = floor.is_none_or(|floor| rank > floor);
        let better = best
            .as_ref()
            .is_none_or(|(best_clean, best)| (clean, rank) > (*best_clean, self::rank(&best.manifest)));
        if same_file && newer && better {
            best = Some((clean, located));
            continue;
        }
        let text = "manifest past damaged bytes is of another file or no newer than another one; taken for embedded \
                    data, or for an older commit";
        findings.push(Finding::note("stray-manifest", located.segment.offset, text));
    }
    best.map(|(_, located)| located).or(before_damage)
}

fn rank(manifest: &Manifest) -> (u32, usize) {
    (manifest.epoch, manifest.directory.len())
}

fn accept(bytes: &[u8], segment: &Segment, findings: &mut Vec<Finding>) -> Option<Located> {
    let checksum = segment.verify(bytes);
    let problem = match (checksum, Manifest::parse(segment.payload_of(bytes))) {
        (ChecksumState::Ok | ChecksumState::Unset, Ok(manifest)) => {
            return Some(Located { segment: segment.clone(), manifest, checksum });
        }
        (ChecksumState::Bad | ChecksumState::Unsupported, _) => Finding::damage(
            "manifest-hash",
            segment.offset,
            "manifest fails its hash and does not count; the one before it is used, so the last commit is lost (the \
             reference would use this one unchecked)",
        )
        .mend("the segments it named are still in the file; the next commit makes the state shown here final"),
        (_, Err(error)) => {
            let problem = if crate::level0::looks_like(segment.payload_of(bytes)) {
                "holds a Level-0 page with TLV records instead of a runtime manifest; shown, not used".to_owned()
            } else {
                format!("does not parse and does not count: {error}")
            };
            Finding::damage("manifest-structure", segment.offset, format!("manifest {problem}"))
        }
    };
    if findings.len() < MAX_FINDINGS {
        findings.push(problem);
    }
    None
}

/// Whether the directory agrees with the file: more of its lines name segments that are there than lines that name
/// something else, and none lies after the manifest. Lines about damaged bytes say nothing. `Some(true)` when no line
/// disagrees.
fn directory_fits(bytes: &[u8], layout: &Layout, located: &Located) -> Option<bool> {
    let (mut fits, mut contradicts) = (0u64, 0u64);
    let mut budget = bytes.len() as u64;
    for entry in &located.manifest.directory {
        if entry.offset >= located.segment.offset {
            return None;
        }
        let same = |header: &SegmentHeader| {
            header.payload_len() == entry.payload_length && header.id() == entry.segment_id
        };
        match layout.entry_containing(entry.offset) {
            Some(Entry::Segment(segment)) if segment.offset == entry.offset && same(&segment.header) => {
                fits += 1
            }
            Some(Entry::Segment(_)) => contradicts += 1,
            _ => {
                let found = crate::contents::listed(bytes, layout, entry, &mut budget);
                fits += u64::from(found.is_some_and(|found| found.repaired.is_some()));
            }
        }
    }
    (fits > contradicts || located.manifest.directory.is_empty()).then_some(contradicts == 0)
}

/// The header whose payload hides a newer manifest, if its payload is not what was written.
fn swallower(bytes: &[u8], layout: &Layout, chosen: Option<&Located>) -> Option<u64> {
    let from = chosen.map_or(0, |located| located.segment.raw.end);
    for segment in layout.segments().rev() {
        if segment.offset < from {
            break;
        }
        let payload = segment.payload_of(bytes);
        if (payload.len() as u64) < HEADER_LEN {
            continue;
        }
        let hides = manifest_headers(payload).any(|at| {
            Segment::at(payload, at).is_some_and(|inner| {
                inner.verify(payload) == ChecksumState::Ok
                    && Manifest::parse(inner.payload_of(payload)).is_ok()
            })
        });
        if hides && segment.verify(bytes) == ChecksumState::Bad {
            return Some(segment.offset);
        }
    }
    None
}

/// Offsets of complete MANIFEST headers in a payload, ascending. Those inside one another are skipped, so hashing all
/// of them costs one pass.
fn manifest_headers(payload: &[u8]) -> impl Iterator<Item = u64> {
    let mut at = 0usize;
    std::iter::from_fn(move || {
        loop {
            let slice = payload.get(at..)?;
            let hit = memchr::memmem::find(slice, &MAGIC_BYTES)?;
            let offset = (at + hit) as u64;
            match Segment::at(payload, offset) {
                Some(inner) if inner.kind() == SegType::MANIFEST => {
                    at = usize::try_from(inner.payload.end).ok()?;
                    return Some(offset);
                }
                _ => at += hit + 1,
            }
        }
    })
}

fn tail(bytes: &[u8], layout: &Layout, located: &Located) -> Tail {
    let end = located.segment.raw.end;
    let mut out = Tail { bytes_after_manifest: layout.body_end().saturating_sub(end), ..Tail::default() };
    let start = layout.entries.partition_point(|entry| entry_range(entry).start < end);
    let after = layout.entries.get(start..).unwrap_or(&[]);
    for (i, entry) in after.iter().enumerate() {
        match entry {
            Entry::Segment(segment) => {
                out.uncommitted_segments += u32::from(segment.kind() != SegType::MANIFEST)
            }
            Entry::Gap(gap) => match gap_kind(bytes, gap) {
                // What looks like segments past a torn header is inside its declared payload.
                GapKind::Torn { .. } => {
                    out.torn_at = Some(gap.start);
                    break;
                }
                GapKind::Garbage if i + 1 == after.len() => out.torn_at = Some(gap.start),
                GapKind::Garbage | GapKind::Zeros => {}
            },
        }
    }
    out
}

/// How the reference steps from one segment to the next, spec 4.1 step 3.
fn reference_aligned(bytes: &[u8], body_end: u64) -> bool {
    let header = |offset: u64| {
        (offset.checked_add(HEADER_LEN)? <= body_end).then(|| SegmentHeader::parse(bytes, offset)).flatten()
    };
    let Some(first) = header(0) else { return true };
    let legacy = first.checksum_algo == ALGO_LEGACY;
    let mut offset = 0u64;
    for _ in 0..8 {
        let Some(here) = header(offset) else { break };
        let Some(end) = offset.checked_add(HEADER_LEN).and_then(|at| at.checked_add(here.payload_len()))
        else {
            break;
        };
        let Some(aligned) = end.checked_next_multiple_of(ALIGNMENT) else { break };
        if end != aligned {
            return match (header(aligned).is_some(), header(end).is_some()) {
                (true, _) => true,
                (false, true) => false,
                (false, false) => !legacy,
            };
        }
        offset = end;
    }
    !legacy
}

/// The tail as the reference inspects it, spec 4.2.
fn reference_tail(bytes: &[u8], located: &Located) -> Tail {
    let len = bytes.len() as u64;
    let page = len >= 4160
        && bytes.get(bytes.len() - 4096..).is_some_and(|page| page.starts_with(b"\x30\x4D\x56\x52"));
    let body_end = if page { len - 4096 } else { len };
    let aligned = reference_aligned(bytes, body_end);
    let step = |end: u64| if aligned { end.next_multiple_of(ALIGNMENT).min(body_end) } else { end };
    let mut pos = step(located.segment.payload.end);
    let mut out = Tail { bytes_after_manifest: body_end.saturating_sub(pos), ..Tail::default() };
    let nonzero = |from: u64, len: u64| {
        let end = from.saturating_add(len).min(body_end);
        crate::header::slice(bytes, &(from..end)).iter().any(|byte| *byte != 0)
    };
    for _ in 0..4096 {
        if pos >= body_end {
            break;
        }
        if body_end - pos < HEADER_LEN {
            out.torn_at = nonzero(pos, HEADER_LEN).then_some(pos);
            break;
        }
        let Some(header) = SegmentHeader::parse(bytes, pos) else {
            out.torn_at = nonzero(pos, 4096).then_some(pos);
            break;
        };
        let end = (pos + HEADER_LEN).checked_add(header.payload_len()).filter(|end| *end <= body_end);
        let Some(end) = end else {
            out.torn_at = Some(pos);
            break;
        };
        out.uncommitted_segments += u32::from(header.kind() != SegType::MANIFEST);
        pos = step(end);
    }
    out
}

fn gaps(bytes: &[u8], layout: &Layout, manifest: Option<&Located>, findings: &mut Vec<Finding>) {
    let committed_to = manifest.map_or(0, |located| located.segment.offset);
    let mut listed: Option<Vec<u64>> = None;
    for gap in layout.gaps() {
        if findings.len() >= MAX_FINDINGS {
            break;
        }
        let len = gap.end - gap.start;
        let finding = match gap_kind(bytes, gap) {
            GapKind::Zeros => {
                Finding::note("zero-gap", gap.start, format!("{len} zero bytes that belong to no segment"))
            }
            GapKind::Torn { declared } if gap.start < committed_to || manifest.is_none() => {
                let text = format!("segment that declares {declared} payload bytes, more than the file has");
                Finding::damage("bad-length", gap.start, text)
            }
            GapKind::Garbage if manifest.is_none_or(|located| lists(&mut listed, &located.manifest, gap)) => {
                Finding::damage("garbage", gap.start, garbage_text(bytes, gap.start, len))
            }
            // A crash lost the beginning of what it interrupted; the commits after it know nothing of it.
            GapKind::Garbage if gap.start < committed_to => {
                Finding::note("garbage", gap.start, garbage_text(bytes, gap.start, len))
            }
            // Reported with the tail.
            GapKind::Torn { .. } | GapKind::Garbage => continue,
        };
        findings.push(finding);
    }
    if layout.dialect == Dialect::Legacy {
        let text = "legacy dialect (checksum algorithm 0): read as it is; new segments are written in the wire dialect";
        findings.push(Finding::note("legacy-dialect", 0, text));
    }
}

/// Whether the directory names a segment that begins in a gap. `sorted` keeps its offsets for the next gap.
fn lists(sorted: &mut Option<Vec<u64>>, manifest: &Manifest, gap: &Range<u64>) -> bool {
    let offsets = sorted.get_or_insert_with(|| {
        let mut offsets: Vec<u64> = manifest.directory.iter().map(|entry| entry.offset).collect();
        offsets.sort_unstable();
        offsets
    });
    let first = offsets.partition_point(|offset| *offset < gap.start);
    offsets.get(first).is_some_and(|offset| gap.contains(offset))
}

fn garbage_text(bytes: &[u8], offset: u64, len: u64) -> String {
    match crate::header::slice(bytes, &(offset..offset.saturating_add(5))) {
        [magic @ .., version] if *magic == MAGIC_BYTES && *version != VERSION => {
            format!(
                "{len} bytes starting with a segment header of version {version}; only version {VERSION} is known"
            )
        }
        _ => format!("{len} bytes that are no segment"),
    }
}

fn tail_findings(layout: &Layout, tail: &Tail, reference: &Tail, findings: &mut Vec<Finding>) {
    if let Some(at) = tail.torn_at {
        let text = "an interrupted write ends here; everything committed before it is intact";
        findings.push(Finding::warning("torn-tail", at, text).mend("the next commit removes it"));
    } else if let Some(at) = reference.torn_at {
        let text = "the reference takes the file for torn here and its next writer cuts it off, although the bytes are \
                    whole";
        findings.push(Finding::warning("reference-torn", at, text).mend("any commit mends it"));
    }
    if tail.uncommitted_segments > 0 {
        let text = format!(
            "{} segment(s) after the newest manifest were never committed and do not count",
            tail.uncommitted_segments
        );
        findings.push(Finding::note(
            "uncommitted",
            layout.body_end().saturating_sub(tail.bytes_after_manifest),
            text,
        ));
    }
}

fn no_manifest(bytes: &[u8], layout: &Layout) -> Finding {
    let version =
        bytes.get(4).copied().filter(|version| bytes.starts_with(&MAGIC_BYTES) && *version != VERSION);
    let (code, why) = match version {
        Some(version) => (
            codes::INVALID_VERSION,
            format!("segments of version {version}; only version {VERSION} is known"),
        ),
        None if bytes.is_empty() => (codes::MANIFEST_NOT_FOUND, "the file is empty".to_owned()),
        None if layout.segments().next().is_none() => {
            (codes::MANIFEST_NOT_FOUND, "the file holds no RVF segment at all".to_owned())
        }
        None => (codes::MANIFEST_NOT_FOUND, "no manifest counts".to_owned()),
    };
    let (mut blocks, mut rows) = (0u64, 0u64);
    for segment in layout.segments().filter(|segment| segment.kind() == SegType::VEC) {
        blocks += 1;
        rows += crate::vec_seg::declared(segment.payload_of(bytes)).map_or(0, |(_, count)| u64::from(count));
    }
    let finding = Finding::damage(
        "no-manifest",
        0,
        format!("{why}: what was committed is not known (0x{code:04X} {})", codes::name(code)),
    );
    match blocks {
        0 => finding.mend("nothing is recoverable from this file; restore it from a copy"),
        _ => finding.mend(format!(
            "{blocks} vector segment(s) with up to {rows} rows are readable; export them to a new store (deleted \
             vectors may reappear)"
        )),
    }
}
