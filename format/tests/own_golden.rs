//! Golden files of our own extensions: what was written once must be read so for ever, and be written so again.

mod common;

use common::{golden, hex, json};
use rvf_format::delta::{Changes, Delta};
use rvf_format::{SegType, contents, recover};
use serde_json::json as j;

/// `p.rvf` and two branches of it, whose rows are stored as changes: `sparse.rvf` and `low-rank.rvf`.
#[test]
fn delta_payloads_are_read_and_written_as_ever() {
    let dir = golden("ours/delta");
    let expected = json(&dir.join("expected.json"));
    for name in ["sparse.rvf", "low-rank.rvf"] {
        let bytes = std::fs::read(dir.join(name)).expect("a file");
        let opened = recover::open(&bytes);
        assert!(opened.findings.is_empty(), "{name}: {:?}", opened.findings);
        assert!(contents::branch_state(&bytes, &opened).is_some(), "{name} is a branch");
        let manifest = &opened.manifest.as_ref().expect("a manifest").manifest;
        let entries: Vec<_> = manifest.entries_of(SegType::DELTA).collect();
        assert_eq!(entries.len(), 1, "{name}");
        let segment = opened.layout.segment_at_offset(entries[0].offset).expect("the segment");
        let payload = segment.payload_of(&bytes);
        let wanted = &expected[name]["payload"];
        assert_eq!(hex(payload), wanted["hex"].as_str().expect("hex"), "{name}");
        let delta = Delta::parse(payload).expect("it parses");
        assert_eq!(delta.encode().expect("it can be written"), payload, "{name}: written as it was");
        assert_eq!(j!(delta.ids), wanted["ids"], "{name}");
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
        match &delta.changes {
            Changes::Sparse(rows) => {
                let rows: Vec<Vec<(u16, u32)>> =
                    rows.iter().map(|row| row.iter().map(|(at, v)| (*at, v.to_bits())).collect()).collect();
                assert_eq!(j!(rows), wanted["sparse"], "{name}");
            }
            Changes::LowRank { rank, scale, a, b } => {
                let low = j!({"rank": rank, "scale": scale.to_bits(), "a": bits(a), "b": bits(b)});
                assert_eq!(low, wanted["low_rank"], "{name}");
            }
        }
    }
}
