//! Rows that no image has (a branch's own, a store's newest) are searched through codes in memory, and nobody can tell:
//! where everything is looked at, answers are those of the plainest scan, and no walk makes them miss a row of their own.

mod branches;

use std::path::Path;
use std::sync::Arc;

use branches::{branch, field, noise, open};
use rvf_cow::{
    BadRow, Batch, CreateOptions, Metric, NoProgress, Overlay, ReindexOptions, SearchRequest, Store,
};
use rvf_index::{exact, sort_key};

const DIM: usize = 24;
const METRICS: [Metric; 3] = [Metric::L2, Metric::InnerProduct, Metric::Cosine];

/// Around one of a few centres, so that rows have near ones; some are copies of a centre, some are zero.
fn vector(id: u64, seed: u64) -> Vec<f32> {
    let centre = noise(id % 7 + 1000, DIM);
    match (id ^ seed) % 23 {
        0 => vec![0.0; DIM],
        1 | 2 => centre,
        _ => centre.iter().zip(noise(seed ^ id.wrapping_mul(77), DIM)).map(|(c, n)| c + 0.4 * n).collect(),
    }
}

fn put(store: &Store, ids: &[u64], seed: u64) {
    let batch = Batch {
        dimension: DIM,
        ids: Some(ids.to_vec()),
        vectors: ids.iter().flat_map(|id| vector(*id, seed)).collect(),
        metadata: ids.iter().map(|id| field("kind", if id % 3 == 0 { "a" } else { "b" })).collect(),
        on_bad_row: BadRow::Refuse,
    };
    store.ingest(&batch, &NoProgress).expect("ingest");
}

fn create(path: &Path, metric: Metric, ids: std::ops::Range<u64>) -> Arc<Store> {
    let store =
        Store::create(path, &CreateOptions { dimension: DIM as u16, metric, profile: 0 }).expect("create");
    put(&store, &ids.collect::<Vec<_>>(), 1);
    store
}

fn hits(store: &Store, request: &SearchRequest<'_>) -> Vec<(u64, u32)> {
    let answers = store.view().search(request).expect("search");
    answers[0].hits.iter().map(|hit| (hit.id, hit.distance.to_bits())).collect()
}

/// What the format's distance to everything shown gives, in the plainest way.
fn right(store: &Store, q: &[f32], k: usize, filter: bool) -> Vec<(u64, u32)> {
    let view = store.view();
    let resolved = view.resolved();
    let mut all: Vec<(u64, f32)> = resolved
        .places()
        .iter()
        .map(|place| (resolved.id(*place), exact::distance(view.metric(), q, resolved.vector(*place))))
        .filter(|(id, _)| !filter || id % 3 == 0)
        .collect();
    all.sort_by_key(|(id, distance)| (sort_key(*distance), *id));
    all.truncate(k);
    all.into_iter().map(|(id, distance)| (id, distance.to_bits())).collect()
}

/// Asks in many ways, twice so that the second finds the codes made.
fn compare(store: &Store, what: &str) {
    let shown = store.view().resolved().len() as usize;
    for round in 0..2 {
        for seed in 0..4u64 {
            let q = if seed == 3 { vector(5, 2) } else { vector(seed * 3 + 1, 50 + seed) };
            for k in [1, 10, 200, shown + 50] {
                for filter in [None, Some("kind = 'a'")] {
                    for exact in [false, true] {
                        // So wide that every row is looked at.
                        let request = SearchRequest {
                            queries: &q,
                            k,
                            ef: Some(4 * shown),
                            filter,
                            exact,
                            deadline: None,
                            threads: 1 + round,
                        };
                        assert_eq!(
                            hits(store, &request),
                            right(store, &q, k, filter.is_some()),
                            "{what}, k {k}, {filter:?}, exact {exact}, query {seed}, round {round}"
                        );
                    }
                }
            }
        }
    }
}

/// With the smallest `ef` nothing is short, hidden or out of order, and what is its own is never missed.
fn narrow(store: &Store, own: &dyn Fn(u64) -> bool, what: &str) {
    let shown = store.view().resolved().len() as usize;
    let (mut found, mut wanted) = (0, 0);
    for seed in 0..30u64 {
        let q = vector(seed, 90 + seed);
        for k in [1usize, 10, 150, shown + 1] {
            let request = SearchRequest {
                queries: &q,
                k,
                ef: Some(1),
                filter: None,
                exact: false,
                deadline: None,
                threads: 1,
            };
            let got = hits(store, &request);
            let right = right(store, &q, k, false);
            assert_eq!(got.len(), k.min(shown), "{what}, k {k}");
            let keys: Vec<_> = got.iter().map(|(id, bits)| (sort_key(f32::from_bits(*bits)), *id)).collect();
            assert!(keys.windows(2).all(|pair| pair[0] < pair[1]), "{what}: in order, each once");
            for hit in right.iter().filter(|(id, _)| own(*id)) {
                assert!(got.contains(hit), "{what}: own row {} is missed", hit.0);
            }
            found += right.iter().filter(|hit| got.contains(hit)).count();
            wanted += right.len();
        }
    }
    assert!(found * 100 >= wanted * 85, "{what}: {found} of {wanted}");
}

#[test]
fn own_rows_of_a_branch() {
    let dir = tempfile::tempdir().expect("dir");
    for metric in METRICS {
        let parent = create(&dir.path().join(format!("{metric}.rvf")), metric, 0..3000);
        parent.reindex(&ReindexOptions::default(), &NoProgress).expect("index");
        let child = branch(&parent, &dir.path().join(format!("{metric}.c.rvf")));
        compare(&child, &format!("{metric}, fresh"));
        let mut own: Vec<u64> = (0..3400).step_by(5).collect();
        put(&child, &own, 3);
        compare(&child, &format!("{metric}, {} own rows", own.len()));
        narrow(&child, &|id| id % 5 == 0, &format!("{metric}, {} own rows", own.len()));
        // More rows, some gone, some twice: codes of the view before are taken over.
        put(&child, &(0..3400).step_by(35).collect::<Vec<_>>(), 4);
        child.delete(&(0..3400).step_by(11).collect::<Vec<_>>()).expect("delete");
        own.retain(|id| id % 11 != 0);
        for store in [&child, &open(child.path())] {
            compare(store, &format!("{metric}, edited again"));
            narrow(store, &|id| id % 5 == 0 && id % 11 != 0, &format!("{metric}, edited again"));
        }
        // A grandchild sees two layers of own rows over the image.
        let grandchild = branch(&child, &dir.path().join(format!("{metric}.g.rvf")));
        put(&grandchild, &(1..3000).step_by(50).collect::<Vec<_>>(), 5);
        grandchild.delete(&(2..3000).step_by(50).collect::<Vec<_>>()).expect("delete");
        compare(&grandchild, &format!("{metric}, grandchild"));
    }
}

#[test]
fn thousands_of_own_rows_with_an_index_of_their_own() {
    let dir = tempfile::tempdir().expect("dir");
    for metric in METRICS {
        let parent = create(&dir.path().join(format!("{metric}.rvf")), metric, 0..3000);
        parent.reindex(&ReindexOptions::default(), &NoProgress).expect("index");
        let child = branch(&parent, &dir.path().join(format!("{metric}.c.rvf")));
        let own: Vec<u64> = (1000..6000).collect();
        put(&child, &own, 3);
        child.delete(&(0..6000).step_by(13).collect::<Vec<_>>()).expect("delete");
        assert!(child.view().wants_index());
        compare(&child, &format!("{metric}, not indexed"));
        narrow(&child, &|id| id >= 1000 && id % 13 != 0, &format!("{metric}, not indexed"));
        child.reindex(&ReindexOptions::default(), &NoProgress).expect("index");
        compare(&child, &format!("{metric}, indexed"));
        narrow(&child, &|_| false, &format!("{metric}, indexed"));
        // Newer ones beside that index.
        put(&child, &(900..1300).collect::<Vec<_>>(), 8);
        for store in [&child, &open(child.path())] {
            compare(store, &format!("{metric}, with a tail"));
            narrow(store, &|id| (900..1300).contains(&id), &format!("{metric}, with a tail"));
        }
    }
}

#[test]
fn rows_newer_than_the_index_of_a_store() {
    let dir = tempfile::tempdir().expect("dir");
    for metric in METRICS {
        let store = create(&dir.path().join(format!("{metric}.rvf")), metric, 0..2500);
        compare(&store, &format!("{metric}, no index"));
        store.reindex(&ReindexOptions::default(), &NoProgress).expect("index");
        put(&store, &(2000..2900).step_by(3).collect::<Vec<_>>(), 2);
        store.delete(&(0..2900).step_by(17).collect::<Vec<_>>()).expect("delete");
        for store in [&store, &open(store.path())] {
            compare(store, &format!("{metric}, tail"));
            narrow(
                store,
                &|id| id >= 2000 && (id - 2000) % 3 == 0 && id % 17 != 0,
                &format!("{metric}, tail"),
            );
        }
    }
}

#[test]
fn a_neighbourhood_of_hidden_rows_is_looked_past() {
    // Most of what is near one centre, then all of it, is deleted in the branch: a walk of the parent that only dropped
    // hidden rows at its end would end among them.
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), Metric::L2, 0..4000);
    parent.reindex(&ReindexOptions::default(), &NoProgress).expect("index");
    let child = branch(&parent, &dir.path().join("c.rvf"));
    for (part, least) in [(9, 180), (10, 0)] {
        let gone: Vec<u64> = (3..4000).step_by(7).filter(|id| id / 7 % 10 < part).collect();
        child.delete(&gone).expect("delete");
        let mut found = 0;
        for seed in 0..20 {
            let q: Vec<f32> =
                noise(1003, DIM).iter().zip(noise(seed, DIM)).map(|(c, n)| c + 0.1 * n).collect();
            let request = SearchRequest {
                queries: &q,
                k: 10,
                ef: None,
                filter: None,
                exact: false,
                deadline: None,
                threads: 1,
            };
            let (got, right) = (hits(&child, &request), right(&child, &q, 10, false));
            assert_eq!(got.len(), 10, "query {seed}");
            assert!(got.iter().all(|(id, _)| !gone.contains(id)), "query {seed}");
            found += right.iter().filter(|hit| got.contains(hit)).count();
        }
        assert!(found >= least, "{found} of 200");
    }
}

#[test]
fn rows_stored_as_changes_and_overlays() {
    let dir = tempfile::tempdir().expect("dir");
    for metric in METRICS {
        let parent = create(&dir.path().join(format!("{metric}.rvf")), metric, 0..2000);
        parent.reindex(&ReindexOptions::default(), &NoProgress).expect("index");
        // Small edits are DELTAs in a branch of a branch, which the existing tools refuse anyway.
        let between = branch(&parent, &dir.path().join(format!("{metric}.b.rvf")));
        let child = branch(&between, &dir.path().join(format!("{metric}.c.rvf")));
        let ids: Vec<u64> = (0..2000).step_by(4).collect();
        let view = child.view();
        let resolved = view.resolved();
        let vectors = ids.iter().flat_map(|id| {
            let bytes = resolved.vector(resolved.find(*id).expect("there"));
            let mut row: Vec<f32> =
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four"))).collect();
            row[*id as usize % DIM] += 0.5;
            row
        });
        let batch = Batch {
            dimension: DIM,
            ids: Some(ids.clone()),
            vectors: vectors.collect(),
            metadata: Vec::new(),
            on_bad_row: BadRow::Refuse,
        };
        child.ingest(&batch, &NoProgress).expect("ingest");
        assert!(child.view().has_deltas());
        compare(&child, &format!("{metric}, deltas"));
        let (a, b) = (noise(1, 300), noise(2, DIM));
        let shifted: Vec<u64> = (1..601).step_by(2).collect();
        let overlay = Overlay { ids: Some(&shifted), a: &a, b: &b, rank: 1, scale: 0.3 };
        child.overlay(&overlay).expect("overlay");
        put(&child, &[7, 8, 9], 9);
        for store in [&child, &open(child.path())] {
            compare(store, &format!("{metric}, overlay"));
        }
    }
}
