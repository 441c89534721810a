//! Golden files of our own, opened as stores: what they show was written down when they were made, and stays so.
//!
//! `RVF_WRITE_GOLDEN=1 cargo test -p rvf-cow --test own_golden` makes them anew, for a new version of the format only.

mod branches;

use std::path::{Path, PathBuf};

use branches::{nearest, noise, open, truth};
use rvf_cow::{BadRow, Batch, BranchOptions, CreateOptions, Metric, NoProgress, Overlay, Store};
use rvf_format::SegType;
use rvf_format::delta::{Changes, Delta};
use serde_json::{Map, Value as Json, json};

const WIDE: usize = 64;
const FILES: [&str; 3] = ["p.rvf", "sparse.rvf", "low-rank.rvf"];

fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../format/tests/golden/ours/delta")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn rows(ids: &[u64], vectors: Vec<f32>) -> Batch {
    Batch {
        dimension: WIDE,
        ids: Some(ids.to_vec()),
        vectors,
        metadata: Vec::new(),
        on_bad_row: BadRow::Refuse,
    }
}

fn make(dir: &Path) {
    let options = CreateOptions { dimension: WIDE as u16, metric: Metric::L2, profile: 0 };
    let parent = Store::create(&dir.join("p.rvf"), &options).expect("create");
    let ids: Vec<u64> = [0, 1, 2, 7, 130, 131, 20_000, 1 << 40].to_vec();
    let vectors: Vec<f32> = ids.iter().flat_map(|id| noise(id + 1, WIDE)).collect();
    parent.ingest(&rows(&ids, vectors.clone()), &NoProgress).expect("ingest");
    for name in ["sparse.rvf", "low-rank.rvf"] {
        parent.branch(&dir.join(name), &BranchOptions::default()).expect("branch");
    }
    let mut changed = vectors;
    for (row, vector) in changed.chunks_mut(WIDE).enumerate() {
        for at in [0, 3 * row, 63].into_iter().take(1 + row % 3) {
            vector[at] = 0.5 + row as f32;
        }
    }
    open(&dir.join("sparse.rvf")).ingest(&rows(&ids, changed), &NoProgress).expect("ingest");
    let some: Vec<u64> = ids.iter().copied().filter(|id| id % 2 == 0).collect();
    let (a, b) = (noise(50, 2 * some.len()), noise(51, 2 * WIDE));
    let overlay = Overlay { ids: Some(&some), rank: 2, scale: 0.75, a: &a, b: &b };
    open(&dir.join("low-rank.rvf")).overlay(&overlay).expect("overlay");
}

fn shown(store: &Store) -> Json {
    let view = store.view();
    let resolved = view.resolved();
    let rows = resolved
        .places()
        .iter()
        .map(|place| (resolved.id(*place).to_string(), Json::String(hex(resolved.vector(*place)))));
    Json::Object(rows.collect::<Map<_, _>>())
}

fn payload(store: &Store) -> Option<Json> {
    let view = store.view();
    let entry = view.opened().manifest.as_ref()?.manifest.entries_of(SegType::DELTA).next().copied()?;
    let segment = view.opened().layout.segment_at_offset(entry.offset)?;
    let bytes = segment.payload_of(view.bytes());
    let delta = Delta::parse(bytes).expect("it parses");
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
    let mut out = json!({ "hex": hex(bytes), "ids": delta.ids });
    match &delta.changes {
        Changes::Sparse(rows) => {
            let rows =
                rows.iter().map(|row| row.iter().map(|(at, v)| (*at, v.to_bits())).collect::<Vec<_>>());
            out["sparse"] = json!(rows.collect::<Vec<_>>());
        }
        Changes::LowRank { rank, scale, a, b } => {
            out["low_rank"] = json!({ "rank": rank, "scale": scale.to_bits(), "a": bits(a), "b": bits(b) });
        }
    }
    Some(out)
}

#[test]
fn rows_stored_as_changes_show_what_they_showed() {
    let dir = place();
    if std::env::var_os("RVF_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(&dir).expect("a directory");
        for name in FILES {
            let _ = std::fs::remove_file(dir.join(name));
        }
        make(&dir);
        let mut expected = Map::new();
        for name in FILES {
            let store = open(&dir.join(name));
            let entry = json!({ "vectors": shown(&store), "payload": payload(&store) });
            expected.insert(name.to_owned(), entry);
        }
        let text = serde_json::to_string_pretty(&Json::Object(expected)).expect("text");
        std::fs::write(dir.join("expected.json"), text + "\n").expect("write");
    }
    let expected: Json =
        serde_json::from_slice(&std::fs::read(dir.join("expected.json")).expect("read")).expect("json");
    for name in FILES {
        let store = open(&dir.join(name));
        store.view().complete().expect("complete");
        assert_eq!(store.view().status().health, "ok", "{name}: {:?}", store.view().findings());
        assert_eq!(shown(&store), expected[name]["vectors"], "{name}");
        assert_eq!(payload(&store).unwrap_or(Json::Null), expected[name]["payload"], "{name}");
        let query = noise(60, WIDE);
        assert_eq!(nearest(&store, &query, 4, true), truth(&store, &query, 4), "{name}");
    }
    assert_ne!(expected["sparse.rvf"]["vectors"], expected["p.rvf"]["vectors"]);
    assert_ne!(expected["low-rank.rvf"]["vectors"], expected["p.rvf"]["vectors"]);
}
