//! Access counts and the hot set: what counts, what is written, and who reads it back.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::path::Path;
use std::sync::Arc;

use rvf_cow::{
    Access, BadRow, Batch, BranchOptions, CreateOptions, Metric, NoProgress, OpenOptions, SearchRequest,
    Store,
};
use rvf_format::SegType;
use rvf_format::hot::Hot;

/// Vectors 0 to 499 at 0, 1, 2, ... on a line.
fn store(path: &Path) -> Arc<Store> {
    let options = CreateOptions { dimension: 2, metric: Metric::L2, profile: 0 };
    let store = Store::create(path, &options).unwrap();
    let batch = Batch {
        dimension: 2,
        ids: Some((0..500).collect()),
        vectors: (0..500u16).flat_map(|i| [f32::from(i), 0.0]).collect(),
        metadata: Vec::new(),
        on_bad_row: BadRow::Refuse,
    };
    store.ingest(&batch, &NoProgress).unwrap();
    store
}

fn query(store: &Store, at: f32, k: usize, times: usize) {
    let view = store.view();
    for _ in 0..times {
        let request = SearchRequest {
            queries: &[at, 0.0],
            k,
            ef: None,
            filter: None,
            exact: true,
            deadline: None,
            threads: 1,
        };
        assert_eq!(view.search(&request).unwrap()[0].hits.len(), k);
    }
}

fn hot(store: &Store) -> Hot {
    let view = store.view();
    let manifest = &view.opened().manifest.as_ref().unwrap().manifest;
    let listed: Vec<_> = manifest.entries_of(SegType::HOT).collect();
    assert_eq!(
        (listed.len(), manifest.entries_of(SegType::SKETCH).count()),
        (1, 1),
        "the old ones are replaced"
    );
    let segment = view.opened().layout.segment_at_offset(listed[0].offset).unwrap();
    Hot::parse(segment.payload_of(view.bytes())).unwrap()
}

#[test]
fn queries_count_and_only_saving_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rvf");
    let store = store(&path);
    let before = std::fs::read(&path).unwrap();
    assert_eq!(store.save_accesses(10).unwrap(), None, "nothing was counted");
    query(&store, 100.0, 1, 9);
    query(&store, 200.0, 1, 5);
    query(&store, 300.0, 3, 2);
    store.count_accesses(&[7; 30]);
    assert_eq!(std::fs::read(&path).unwrap(), before, "a query writes nothing");
    assert_eq!(store.view().hottest(3).counted, 0, "what is not saved is not known");

    let report = store.save_accesses(4).unwrap().unwrap();
    assert_eq!((report.counted, report.total, report.hot), (50, 50, 4));
    assert_eq!(store.save_accesses(4).unwrap(), None);
    let written = hot(&store);
    let ids: Vec<u64> = written.entries.iter().map(|entry| entry.id).collect();
    assert_eq!(ids, [7, 100, 200, 299]);
    assert_eq!((written.dim, written.dtype, written.neighbour_m), (2, 0, 0));
    assert_eq!(written.entries[1].data, [100.0_f32, 0.0].map(f32::to_le_bytes).concat());
    drop(store);

    // Another process reads it; past the hot set the sketch decides, past that the file's order.
    let again =
        Store::open(&path, &OpenOptions { access: Access::ReadWrite, ..OpenOptions::default() }).unwrap();
    let hottest = again.view().hottest(9);
    assert_eq!((hottest.ids, hottest.counted), (vec![7, 100, 200, 299, 300, 301, 0, 1, 2], 6));
    let sketch = again.view().sketch().unwrap();
    assert_eq!([7, 100, 200, 300, 400].map(|id| sketch.estimate(id)), [30, 9, 5, 2, 0]);

    // Later counts are added, and deleted vectors are not hot.
    query(&again, 200.0, 1, 40);
    again.delete(&[7]).unwrap();
    assert_eq!(again.view().hottest(2).ids, [100, 200]);
    let report = again.save_accesses(2).unwrap().unwrap();
    assert_eq!((report.counted, report.total), (40, 90));
    assert_eq!(hot(&again).entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [200, 100]);

    // A compaction keeps both.
    again.compact(&NoProgress).unwrap();
    assert_eq!(again.view().hottest(2).ids, [200, 100]);
    assert_eq!(again.view().sketch().unwrap().estimate(200), 45);
}

#[test]
fn a_branch_goes_on_from_its_parent() {
    let dir = tempfile::tempdir().unwrap();
    let parent = store(&dir.path().join("a.rvf"));
    parent.count_accesses(&[3, 3, 4]);
    parent.save_accesses(2).unwrap().unwrap();
    let child_path = dir.path().join("a.b.rvf");
    parent.branch(&child_path, &BranchOptions::default()).unwrap();
    let child =
        Store::open(&child_path, &OpenOptions { access: Access::ReadWrite, ..OpenOptions::default() })
            .unwrap();
    assert_eq!(child.view().hottest(2).ids, [3, 4]);
    query(&child, 4.0, 1, 5);
    child.save_accesses(2).unwrap().unwrap();
    assert_eq!(child.view().hottest(2).ids, [4, 3]);
    assert_eq!(parent.view().hottest(2).ids, [3, 4], "the parent keeps its own");
}

#[test]
fn who_may_not_write_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rvf");
    let written = store(&path);
    let reader =
        Store::open(&path, &OpenOptions { access: Access::ReadOnly, ..OpenOptions::default() }).unwrap();
    assert_eq!(reader.save_accesses(5).unwrap(), None, "nothing to write is no error");
    reader.count_accesses(&[1, 2]);
    for _ in 0..2 {
        assert!(
            matches!(reader.save_accesses(5), Err(rvf_cow::Error::ReadOnly { .. })),
            "what was counted is kept"
        );
    }
    written.freeze().unwrap();
    written.count_accesses(&[1]);
    assert!(written.save_accesses(5).is_err());
}

/// Hostile: a hot set that names what is not there, and a sketch of absurd shape.
#[test]
fn segments_of_others_are_only_hints() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rvf");
    let store = store(&path);
    store.count_accesses(&[1]);
    store.save_accesses(5).unwrap().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let view = store.view();
    let manifest = &view.opened().manifest.as_ref().unwrap().manifest;
    let at = manifest.entries_of(SegType::HOT).next().unwrap().offset as usize;
    drop(store);
    // The one id of the hot set becomes one that no vector has: the checksum fails, the set is passed over.
    bytes[at + 64 + 64] = 0xEE;
    std::fs::write(&path, &bytes).unwrap();
    let again =
        Store::open(&path, &OpenOptions { access: Access::ReadOnly, ..OpenOptions::default() }).unwrap();
    let hottest = again.view().hottest(2);
    assert_eq!((hottest.ids, hottest.counted), (vec![1, 0], 1), "the sketch still knows");
}

/// The example that docs/format.md names: vectors 10, 20, 30 and 40, of which 30 was found three times and 10 once.
#[test]
fn the_golden_file_reads_as_described() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/accesses.rvf");
    let store =
        Store::open(&path, &OpenOptions { access: Access::ReadOnly, ..OpenOptions::default() }).unwrap();
    let view = store.view();
    let sketch = view.sketch().unwrap();
    assert_eq!((sketch.width, sketch.depth, sketch.total_accesses), (16_384, 4, 4));
    assert_eq!([10, 20, 30, 40].map(|id| sketch.estimate(id)), [1, 0, 3, 0]);
    let hot = hot(&store);
    assert_eq!(hot.entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [30, 10]);
    assert_eq!(hot.entries[0].data, [3.0_f32, 0.0, 0.0].map(f32::to_le_bytes).concat());
    assert_eq!((hot.dim, hot.dtype, hot.neighbour_m), (3, 0, 0));
    assert_eq!(view.hottest(3).ids, [30, 10, 20]);
    // What is written again is the same, byte for byte.
    for (kind, encoded) in [(SegType::HOT, hot.encode()), (SegType::SKETCH, sketch.encode())] {
        let entry = view.opened().manifest.as_ref().unwrap().manifest.entries_of(kind).next().unwrap().offset;
        let segment = view.opened().layout.segment_at_offset(entry).unwrap();
        assert_eq!(segment.payload_of(view.bytes()), encoded);
    }
}
