//! Search indexes over rows that are not stored as they are shown: changes of inherited rows, and rounded ones.

mod branches;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use branches::{nearest, noise, open, request, truth};
use rvf_cow::{
    BadRow, Batch, BranchOptions, CreateOptions, Derive, Metric, NoProgress, Overlay, Precision,
    ReindexOptions, Store,
};
use rvf_format::SegType;

const WIDE: usize = 96;
const ROWS: u64 = 3000;

fn parent(path: &Path) -> Arc<Store> {
    let options = CreateOptions { dimension: WIDE as u16, metric: Metric::L2, profile: 0 };
    let store = Store::create(path, &options).expect("create");
    let batch = Batch {
        dimension: WIDE,
        ids: Some((0..ROWS).collect()),
        vectors: (0..ROWS).flat_map(|id| noise(id + 1, WIDE)).collect(),
        metadata: Vec::new(),
        on_bad_row: BadRow::Refuse,
    };
    store.ingest(&batch, &NoProgress).expect("ingest");
    store
}

fn reindex(store: &Store) {
    let options = ReindexOptions { threads: 1, m: 12, ef_construction: 80, ..ReindexOptions::default() };
    store.reindex(&options, &NoProgress).expect("reindex");
    assert!(store.view().image().is_some());
}

/// Distances are those of the rows as they are shown, to the last bit, and nearly all of the nearest are found. Queries lie near
/// rows, whose first hit must be right.
fn answers_right(store: &Store) {
    let view = store.view();
    let resolved = view.resolved();
    let (mut found, mut wanted) = (0, 0);
    for n in 0..30u64 {
        let place = resolved.find(n * 97 % ROWS).expect("shown");
        let row = resolved.vector(place).chunks_exact(4);
        let mut query: Vec<f32> = row.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        query.iter_mut().zip(noise(n, WIDE)).for_each(|(q, x)| *q += 0.1 * x);
        let all: BTreeMap<u64, f32> = truth(store, &query, ROWS as usize).into_iter().collect();
        let best = truth(store, &query, 10);
        assert_eq!(nearest(store, &query, 10, true), best);
        let hits = nearest(store, &query, 10, false);
        assert_eq!(hits.len(), 10);
        assert_eq!(hits[0], best[0], "query {n}");
        assert!(
            hits.iter().all(|(id, distance)| all[id].to_bits() == distance.to_bits()),
            "query {n}: {hits:?}"
        );
        found += hits.iter().filter(|hit| best.contains(hit)).count();
        wanted += best.len();
    }
    assert!(found * 10 >= wanted * 8, "{found} of {wanted}");
    let layer = view.search(&request(&noise(1, WIDE), 10, false)).expect("search")[0].layer;
    println!("{found} of {wanted}, layer {layer}");
}

#[test]
fn an_index_over_changes_answers_for_what_is_shown() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = parent(&dir.path().join("p.rvf"));
    reindex(&parent);
    parent.branch(&dir.path().join("c.rvf"), &BranchOptions::default()).expect("branch");
    let child = open(&dir.path().join("c.rvf"));
    let ids: Vec<u64> = (0..ROWS - 200).collect();
    let (a, b) = (noise(5, 2 * ids.len()), noise(6, 2 * WIDE));
    let overlay = Overlay { ids: Some(&ids), rank: 2, scale: 3.0, a: &a, b: &b };
    assert_eq!(child.overlay(&overlay).expect("overlay").low_rank, ROWS - 200);
    answers_right(&child);
    reindex(&child);
    answers_right(&child);
    // Stored as few changed components, on top of the index.
    let view = child.view();
    let ids: Vec<u64> = (ROWS - 150..ROWS).collect();
    let mut vectors: Vec<f32> = Vec::new();
    for id in &ids {
        let place = view.resolved().find(*id).expect("shown");
        let row = view.resolved().vector(place).chunks_exact(4);
        vectors.extend(row.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
    }
    vectors.iter_mut().step_by(WIDE).for_each(|x| *x += 4.0);
    let batch =
        Batch { dimension: WIDE, ids: Some(ids), vectors, metadata: Vec::new(), on_bad_row: BadRow::Refuse };
    child.ingest(&batch, &NoProgress).expect("ingest");
    let manifest = child.view().opened().manifest.as_ref().expect("a manifest").manifest.clone();
    assert_eq!(manifest.entries_of(SegType::DELTA).count(), 2, "both are stored as changes");
    answers_right(&child);
    reindex(&child);
    answers_right(&child);
    answers_right(&open(child.path()));
    child.compact(&NoProgress).expect("compact");
    answers_right(&child);
    reindex(&child);
    answers_right(&open(child.path()));
}

#[test]
fn an_index_over_rounded_rows_answers_for_what_is_shown() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = parent(&dir.path().join("p.rvf"));
    for precision in [Precision::F16, Precision::Int8] {
        let path = dir.path().join(format!("{}.rvf", precision.name()));
        parent.derive(&path, "r", &Derive::Quantize(precision), &NoProgress).expect("derive");
        let rounded = open(&path);
        answers_right(&rounded);
        reindex(&rounded);
        answers_right(&rounded);
        answers_right(&open(&path));
        rounded.delete(&(100..200).filter(|id| id % 97 != 0).collect::<Vec<_>>()).expect("delete");
        rounded.compact(&NoProgress).expect("compact");
        reindex(&rounded);
        answers_right(&open(&path));
    }
}
