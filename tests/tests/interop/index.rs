//! The graph we store is one that the reference loads, uses and continues.

use rvf_cow::{Metric, NoProgress, ReindexOptions};
use rvf_runtime::{QueryOptions, RvfStore};
use rvf_tests::model::{Fate, Model};
use rvf_tests::place::Place;
use rvf_tests::random::Random;

use crate::oracle::{METRICS, both_agree, create, ingest, open, queries, rows};
use crate::reference;

/// Share of the 10 nearest that the reference finds through its own graph search.
fn reference_recall(store: &RvfStore, model: &Model, asked: &[Vec<f32>]) -> f64 {
    let mut found = 0;
    for query in asked {
        let hits = store.query(query, 10, &QueryOptions::default()).expect("the reference answers");
        let want = model.nearest(query, 10);
        found += hits.iter().filter(|h| want.iter().any(|w| w.0 == h.id)).count();
    }
    found as f64 / (10 * asked.len()) as f64
}

/// From 1,024 rows on the reference answers from a graph. It must be ours that it uses: it is resident before the
/// first query, and after the last one there is nothing new to store.
#[test]
fn the_reference_answers_from_our_graph() {
    for metric in METRICS {
        let place = Place::in_memory().expect("a place");
        let path = place.join("graph.rvf");
        let mut random = Random::new(99);
        let batch = rows(&mut random, 1000, 1400, 10);
        let mut model = Model::new(10, metric);
        let store = create(&path, 10, metric);
        ingest(&store, &batch);
        model.ingest(&batch, Fate::Replace);
        let options = ReindexOptions { threads: 2, ..ReindexOptions::default() };
        assert_eq!(store.reindex(&options, &NoProgress).expect("we index").indexed, 1400);
        let asked = queries(&mut random, 50, 10);

        let reader = reference::open_strict(&path);
        assert!(reader.index_ready(), "{metric:?}: the reference did not take our graph");
        let recall = reference_recall(&reader, &model, &asked);
        assert!(recall >= 0.95, "{metric:?}: recall {recall} through our graph");

        // A writer stores the graph on close() when it had to build or change it. It must not have to.
        let before = std::fs::metadata(&path).expect("the file").len();
        let writer = reference::open(&path);
        assert!(writer.index_ready());
        reference_recall(&writer, &model, &asked[..2]);
        writer.close().expect("close");
        assert_eq!(
            std::fs::metadata(&path).expect("the file").len(),
            before,
            "{metric:?}: the reference rebuilt the graph"
        );
        both_agree(&model, &path, &asked[..2]);

        // Rows deleted before the graph was built are not in it. The reference does not mind.
        let gone: Vec<u64> = (1000..1100).collect();
        store.delete(&gone).expect("we delete");
        model.delete(&gone);
        assert_eq!(store.reindex(&options, &NoProgress).expect("we index again").indexed, 1300);
        let reader = reference::open_strict(&path);
        assert!(reader.index_ready(), "{metric:?}: the reference did not take our second graph");
        let recall = reference_recall(&reader, &model, &asked);
        assert!(recall >= 0.95, "{metric:?}: recall {recall} through our second graph");
        both_agree(&model, &path, &asked[..2]);
    }
}

/// The reference inserts into our graph and stores it; we go on from there with our own image still in use.
#[test]
fn a_graph_goes_back_and_forth() {
    let place = Place::in_memory().expect("a place");
    let path = place.join("graph.rvf");
    let mut random = Random::new(1);
    let mut model = Model::new(8, Metric::Cosine);
    let ours = create(&path, 8, Metric::Cosine);
    let batch = rows(&mut random, 0, 1200, 8);
    ingest(&ours, &batch);
    model.ingest(&batch, Fate::Replace);
    let options = ReindexOptions { threads: 2, ..ReindexOptions::default() };
    ours.reindex(&options, &NoProgress).expect("we index");
    let asked = queries(&mut random, 30, 8);

    // New rows by the reference: its graph grows and is stored on close().
    let mut theirs = reference::open(&path);
    assert!(theirs.index_ready());
    let batch = rows(&mut random, 5000, 50, 8);
    reference::ingest(&mut theirs, &batch);
    model.ingest(&batch, Fate::Merge);
    assert!(reference_recall(&theirs, &model, &asked) >= 0.95);
    theirs.close().expect("close");
    both_agree(&model, &path, &asked[..2]);
    assert!(reference::open_strict(&path).index_ready());

    // An overwrite by us of a row in the graph: the reference must not use stale links for it.
    let moved = rows(&mut random, 17, 1, 8);
    ingest(&ours, &moved);
    model.ingest(&moved, Fate::Replace);
    both_agree(&model, &path, &asked[..2]);
    let reader = reference::open_strict(&path);
    let nearest = reader.query(&moved[0].vector, 1, &QueryOptions::default()).expect("the reference answers");
    assert_eq!(nearest[0].id, 17);
    assert!(reference_recall(&reader, &model, &asked) >= 0.95);

    // And the same by the reference: our image must not serve the old vector.
    let mut theirs = reference::open(&path);
    let moved = rows(&mut random, 18, 1, 8);
    reference::ingest(&mut theirs, &moved);
    model.ingest(&moved, Fate::Merge);
    theirs.close().expect("close");
    both_agree(&model, &path, &asked[..2]);
    let view = open(&path).view();
    let row = &moved[0];
    let request = rvf_cow::SearchRequest {
        queries: &row.vector,
        k: 1,
        ef: None,
        filter: None,
        exact: false,
        deadline: None,
        threads: 1,
    };
    let answer = &view.search(&request).expect("we answer")[0];
    assert_eq!((answer.hits[0].id, answer.hits.len()), (row.id, 1));

    // After a compaction by the reference, which keeps no index, a reindex brings both back.
    let mut theirs = reference::open(&path);
    theirs.compact().expect("the reference compacts");
    theirs.close().expect("close");
    model.compact();
    ours.reindex(&options, &NoProgress).expect("we index again");
    assert!(reference::open_strict(&path).index_ready());
    both_agree(&model, &path, &asked[..2]);
}
