//! Seeded damage to every golden file: whatever the bytes, an answer in bounded time and memory.

mod common;

use common::golden;
use rvf_format::index_seg::{self, Coding};
use rvf_format::{SegType, check, contents, layout, meta, recover, vec_seg, witness};
use std::path::PathBuf;

/// `RVF_MUTATION_SEED=n` starts elsewhere, for longer campaigns in a loop.
fn seed(base: u64) -> u64 {
    std::env::var("RVF_MUTATION_SEED").ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) * 1000
        + base
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % bound.max(1) as u64) as usize
    }
}

fn files() -> Vec<PathBuf> {
    let mut out = common::data_files(&golden("core"));
    out.extend(common::data_files(&golden("branch")));
    out.retain(|path| std::fs::metadata(path).expect("file").len() < 6000);
    out
}

/// Values that lengths and counts are most likely to be wrong by.
const NASTY: [u64; 8] = [0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, u64::MAX];

fn mutate(original: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len().max(1));
        match random.below(8) {
            0..=2 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            3 => {
                let value = NASTY[random.below(NASTY.len())].to_le_bytes();
                let width = [1, 2, 4, 8][random.below(4)];
                for (byte, new) in bytes.iter_mut().skip(at).zip(value).take(width) {
                    *byte = new;
                }
            }
            4 => bytes.truncate(at),
            5 => {
                let end = (at + random.below(200)).min(bytes.len());
                bytes.drain(at.min(end)..end);
            }
            6 => {
                let from = random.below(other.len());
                let end = (from + random.below(400)).min(other.len());
                let at = at.min(bytes.len());
                bytes.splice(at..at, other[from..end].iter().copied());
            }
            _ => {
                // The header of a segment: where damage does most.
                let headers: Vec<u64> =
                    layout::walk(&bytes).segments().map(|segment| segment.offset).collect();
                if let Some(start) = headers.get(random.below(headers.len())) {
                    let at = *start as usize + random.below(64);
                    bytes[at] = random.below(256) as u8;
                }
            }
        }
    }
    bytes
}

/// Makes hashes right again, so that damage gets past them to the parsers.
fn fix_hashes(bytes: &mut [u8]) {
    let layout = layout::walk(bytes);
    let fixes: Vec<(usize, [u8; 16])> = layout
        .segments()
        .map(|segment| (segment.offset as usize, rvf_format::checksum::xxh3_128(segment.payload_of(bytes))))
        .collect();
    for (offset, hash) in fixes {
        bytes[offset + 0x20] = 1;
        bytes[offset + 0x28..offset + 0x38].copy_from_slice(&hash);
    }
}

fn exercise(bytes: &[u8]) {
    let opened = recover::open(bytes);
    let mut at = 0;
    for entry in &opened.layout.entries {
        let range = layout::entry_range(entry);
        assert_eq!(range.start, at, "entries adjoin");
        assert!(range.end > range.start, "entries are not empty");
        at = range.end;
    }
    assert_eq!(at, opened.layout.body_end(), "the walk reaches the end");
    let contents = contents::read(bytes, &opened);
    let mut rows = 0u64;
    for block in &contents.blocks {
        rows += u64::from(block.count);
        assert_eq!(block.rows_of(bytes).len(), block.stride() * block.count as usize, "rows are there");
    }
    assert!(rows <= bytes.len() as u64, "no more rows than bytes");
    meta::replay(bytes, &contents.meta_entries, &|id| id % 2 == 0);
    let report = check::check(bytes);
    assert_eq!(report.manifest.is_some(), opened.manifest.is_some());
    assert!(report.size == bytes.len() as u64 && report.findings.len() <= 1000);
}

#[test]
fn damaged_files_are_read_as_far_as_they_go() {
    let files: Vec<Vec<u8>> = files().iter().map(|path| std::fs::read(path).expect("file")).collect();
    assert!(files.len() > 150);
    let mut random = Random(seed(1));
    for (i, original) in files.iter().enumerate() {
        for _ in 0..600 {
            let other = &files[random.below(files.len())];
            let mut bytes = mutate(original, other, &mut random);
            if random.below(2) == 0 {
                fix_hashes(&mut bytes);
            }
            let seed = random.0;
            let done = std::panic::catch_unwind(|| exercise(&bytes));
            assert!(done.is_ok(), "file {i}, seed {seed:#x}");
        }
    }
}

/// Every payload codec on damaged payloads, without hashes in the way.
#[test]
fn damaged_payloads_never_panic_a_codec() {
    let mut payloads: Vec<(SegType, Vec<u8>)> = Vec::new();
    for path in files().into_iter().chain([golden("core/index.rvf")]) {
        let bytes = std::fs::read(path).expect("file");
        for segment in layout::walk(&bytes).segments() {
            let payload = segment.payload_of(&bytes).to_vec();
            if !payloads.iter().any(|(kind, known)| *kind == segment.kind() && known.len() == payload.len()) {
                payloads.push((segment.kind(), payload));
            }
        }
    }
    let mut random = Random(seed(2));
    for (_, original) in &payloads {
        let rounds = if original.len() > 10_000 { 300 } else { 2000 };
        for _ in 0..rounds {
            let bytes = mutate(original, original, &mut random);
            every_codec(&bytes);
        }
    }
}

fn every_codec(bytes: &[u8]) {
    let _ = rvf_format::Manifest::parse(bytes).map(|manifest| manifest.encode());
    if let Ok(blocks) = vec_seg::decode_columnar(bytes) {
        blocks.iter().for_each(|block| {
            block.to_rows();
        });
    }
    let _ = meta::decode(bytes).map(|generation| meta::encode_generation(&generation));
    let _ = index_seg::decode(bytes).map(|index| index_seg::encode(&index));
    let _ = index_seg::decode_frame(bytes, Coding::Restarts);
    let _ = index_seg::decode_frame(bytes, Coding::Deltas);
    let _ = rvf_format::journal::Journal::parse(bytes).map(|journal| journal.encode());
    let _ = rvf_format::cow_map::CowMap::parse(bytes).map(|map| map.encode());
    let _ = rvf_format::membership::Membership::parse(bytes).map(|filter| filter.encode());
    let _ = rvf_format::refcount::Refcount::parse(bytes);
    let _ = rvf_format::delta::DeltaHeader::parse(bytes);
    if let Ok(delta) = rvf_format::delta::Delta::parse(bytes) {
        let base = vec![0; 4 * usize::from(delta.dim)];
        let mut row = Vec::new();
        delta.apply(delta.ids.len() - 1, &base, &mut row);
        assert_eq!(row.len(), base.len());
        assert_eq!(
            rvf_format::delta::Delta::parse(&delta.encode().expect("what was read can be written"))
                .expect("and read again")
                .ids,
            delta.ids
        );
    }
    let _ = rvf_format::quant::Quant::parse(bytes);
    let _ = rvf_format::sketch::Sketch::parse(bytes).map(|sketch| sketch.estimate(7));
    let _ = rvf_format::hot::Hot::parse(bytes);
    let _ = rvf_format::level0::decode(bytes);
    let _ = rvf_format::root_page::RootPage::parse(bytes.get(..4096).unwrap_or(bytes));
    let _ = rvf_format::lock::LockFile::parse(bytes);
    witness::decode(bytes);
    witness::head_after(bytes);
}

/// A directory cannot make a small file look large: overlapping and repeated segments count once.
#[test]
fn hostile_directories_do_not_multiply_rows() {
    use rvf_format::manifest::{DirEntry, Manifest};
    use rvf_format::storage::{MemStorage, Storage};
    use rvf_format::writer::{Writer, dir_entry};

    let storage = MemStorage::default();
    let mut writer = Writer::create(&storage).expect("writer");
    // Headers of VEC segments inside the rows of a VEC segment, each reaching to the end.
    let mut inner = vec_seg::head(14, 1000).to_vec();
    inner.resize(6 + 1000 * 64, 0);
    for i in 0..900usize {
        let len = (inner.len() - (58 + i * 64 + 64)) as u64;
        let count = (len.saturating_sub(6) / 64) as u32;
        let header = rvf_format::SegmentHeader::new(SegType::VEC, 9, 6 + u64::from(count) * 64, [0; 16]);
        let at = 58 + i * 64;
        inner[at..at + 64].copy_from_slice(zerocopy::IntoBytes::as_bytes(&header));
    }
    let outer = writer.append(SegType::VEC, &[&inner]).expect("append");
    let mut directory = vec![dir_entry(&outer); 5000];
    for i in 0..900u64 {
        let offset = outer.payload.start + 58 + i * 64;
        directory.push(DirEntry { segment_id: 9, offset, payload_length: 70, seg_type: 1 });
    }
    let manifest = Manifest { dimension: 14, directory, ..Manifest::default() };
    writer.commit(&manifest).expect("commit");
    let bytes = storage.live();
    assert_eq!(storage.len().expect("length"), bytes.len() as u64);
    let opened = recover::open(&bytes);
    let contents = contents::read(&bytes, &opened);
    let rows: u64 = contents.blocks.iter().map(|block| u64::from(block.count)).sum();
    assert!(rows <= 1000, "{rows} rows");
    assert!(contents.findings.len() <= 256);
}

/// Inputs made to be slow: every stage is linear in the file, whatever the bytes.
#[test]
fn adversarial_files_are_read_in_linear_time() {
    use rvf_format::SegmentHeader;
    use zerocopy::IntoBytes;
    const MIB: usize = 1 << 20;

    // Nothing but magics; nothing but headers that reach past the end; headers nested in one another.
    let magics = b"SFVR".repeat(MIB / 4);
    let torn = SegmentHeader::new(SegType::MANIFEST, 1, u64::MAX / 2, [1; 16]);
    let torn = torn.as_bytes().repeat(MIB / 64);
    let mut nested = Vec::with_capacity(MIB);
    while nested.len() < MIB {
        let rest = (MIB - nested.len() - 64) as u64;
        nested.extend_from_slice(SegmentHeader::new(SegType::MANIFEST, 1, rest, [1; 16]).as_bytes());
    }
    // A million directory lines that all ask to make up for the same damaged header.
    let mut begging = vec![0u8; 64 + MIB / 2];
    begging[0x10..0x18].copy_from_slice(&((MIB / 2) as u64).to_le_bytes());
    begging[0x28] = 1;
    let line =
        rvf_format::DirEntry { segment_id: 0, offset: 0, payload_length: (MIB / 2) as u64, seg_type: 1 };
    let manifest =
        rvf_format::Manifest { dimension: 4, directory: vec![line; 200_000], ..Default::default() };
    let payload = manifest.encode().expect("manifest");
    let hash = rvf_format::checksum::xxh3_128(&payload);
    let header = SegmentHeader::new(SegType::MANIFEST, 2, payload.len() as u64, hash);
    begging.extend_from_slice(header.as_bytes());
    begging.extend_from_slice(&payload);
    for bytes in [magics, torn, nested, begging] {
        // A quadratic stage would not come back from these.
        exercise(&bytes);
    }
}
