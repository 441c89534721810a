//! Recall on the shipped sample, measured against its exact ground truth, through every way a store changes.

use std::sync::{Arc, OnceLock};

use rvf_cow::{
    BadRow, Batch, CreateOptions, Metric, NoProgress, OpenOptions, ReindexOptions, SearchRequest, Store,
};
use rvf_tests::model::distance;
use rvf_tests::place::Place;
use rvf_tests::sample::{self, Sample, recall};

/// More than enough for 0.99 on this data, found by trying. (So wide that looking at every row may be cheaper.)
const WIDE: usize = 200;

fn data() -> &'static Sample {
    static DATA: OnceLock<Sample> = OnceLock::new();
    DATA.get_or_init(|| Sample::load(&sample::directory()).expect("the sample is shipped"))
}

fn batch_of(rows: &[usize]) -> Batch {
    let data = data();
    Batch {
        dimension: data.dimension,
        ids: Some(rows.iter().map(|r| data.ids[*r]).collect()),
        vectors: rows.iter().flat_map(|r| data.row(*r).iter().copied()).collect(),
        metadata: Vec::new(),
        on_bad_row: BadRow::Refuse,
    }
}

/// The sample with its metadata, indexed.
fn indexed(place: &Place) -> Arc<Store> {
    let data = data();
    let options = CreateOptions { dimension: data.dimension as u16, metric: Metric::Cosine, profile: 0 };
    let store = Store::create(&place.join("sample.rvf"), &options).expect("we create a store");
    let all: Vec<usize> = (0..data.ids.len()).collect();
    let metadata = sample::metadata(&sample::directory()).expect("the sample is shipped");
    assert!(metadata.iter().map(|m| m.0).eq(data.ids.iter().copied()), "metadata are in row order");
    let batch = Batch { metadata: metadata.into_iter().map(|m| m.1).collect(), ..batch_of(&all) };
    store.ingest(&batch, &NoProgress).expect("we ingest");
    reindex(&store);
    store
}

fn reindex(store: &Store) {
    store.reindex(&ReindexOptions::default(), &NoProgress).expect("we index");
    let state = store.view().index_state();
    assert_eq!((state.indexed, state.total, state.layer), (store.view().live(), store.view().live(), "C"));
}

/// Ids of the 10 nearest to every query, and whether the graph answered.
fn ask(store: &Store, ef: Option<usize>, filter: Option<&str>) -> Vec<Vec<u64>> {
    let request = SearchRequest {
        queries: &data().queries,
        k: 10,
        ef,
        filter,
        exact: false,
        deadline: None,
        threads: 2,
    };
    let answers = store.view().search(&request).expect("we answer");
    for answer in &answers {
        assert!(filter.is_some() || ef.is_some() || (answer.layer == "C" && !answer.exact), "{answer:?}");
        assert!(answer.hits.windows(2).all(|w| (w[0].distance, w[0].id) < (w[1].distance, w[1].id)));
    }
    answers.iter().map(|a| a.hits.iter().map(|h| h.id).collect()).collect()
}

/// The exact answer over some rows, by the distances of the model.
fn truth_over(rows: &[usize]) -> Vec<Vec<u64>> {
    let data = data();
    (0..data.queries.len() / data.dimension)
        .map(|q| {
            let mut all: Vec<(f32, u64)> = rows
                .iter()
                .map(|r| (distance(Metric::Cosine, data.query(q), data.row(*r)), data.ids[*r]))
                .collect();
            all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            all.truncate(10);
            all.into_iter().map(|a| a.1).collect()
        })
        .collect()
}

fn check(store: &Store, truth: &[Vec<u64>], when: &str) {
    let default = recall(&ask(store, None, None), truth, 10);
    let wide = recall(&ask(store, Some(WIDE), None), truth, 10);
    println!("recall@10 {when}: default {default:.4}, ef {WIDE} {wide:.4}");
    assert!(default >= 0.95, "{when}: {default}");
    assert!(wide >= 0.99, "{when}: {wide}");
}

/// Every stored vector is its own nearest, unless an equal one has a smaller id.
fn finds_itself(store: &Store, rows: &[usize]) {
    let data = data();
    let queries: Vec<f32> = rows.iter().flat_map(|r| data.row(*r).iter().copied()).collect();
    let view = store.view();
    for (chunk, rows) in queries.chunks(1000 * data.dimension).zip(rows.chunks(1000)) {
        let request = SearchRequest {
            queries: chunk,
            k: 1,
            ef: None,
            filter: None,
            exact: false,
            deadline: None,
            threads: 2,
        };
        for (answer, row) in view.search(&request).expect("we answer").iter().zip(rows) {
            let hit = &answer.hits[0];
            let own = distance(Metric::Cosine, data.row(*row), data.row(*row));
            assert!(
                hit.id == data.ids[*row] || hit.distance <= own,
                "id {} finds {} at {}, not itself at {own}",
                data.ids[*row],
                hit.id,
                hit.distance
            );
        }
    }
}

#[test]
fn recall_holds_through_changes() {
    let place = Place::in_memory().expect("a place");
    let all: Vec<usize> = (0..data().ids.len()).collect();
    let store = indexed(&place);
    check(&store, &data().truth, "after indexing");
    finds_itself(&store, &all);
    let before = ask(&store, None, None);
    drop(store);
    let store = Store::open(&place.join("sample.rvf"), &OpenOptions::default()).expect("it opens again");
    assert_eq!(ask(&store, None, None), before, "the same answers after opening again");

    // Every third row and a few more: 30 %.
    let (gone, kept): (Vec<usize>, Vec<usize>) = all.iter().partition(|r| *r % 10 < 3);
    let ids: Vec<u64> = gone.iter().map(|r| data().ids[*r]).collect();
    assert_eq!(store.delete(&ids).expect("we delete").deleted, 1500);
    let truth = truth_over(&kept);
    check(&store, &truth, "after deleting 30 %");
    finds_itself(&store, &kept);

    // Back again, in two commits, found without a new index.
    for half in gone.chunks(750) {
        store.ingest(&batch_of(half), &NoProgress).expect("we ingest");
    }
    check(&store, &data().truth, "after ingesting them again");
    finds_itself(&store, &all);

    reindex(&store);
    check(&store, &data().truth, "after reindexing");
    finds_itself(&store, &all);
    store.compact(&NoProgress).expect("we compact");
    assert!(!store.view().index_state().stale);
    reindex(&store);
    check(&store, &data().truth, "after compacting and reindexing");
}

#[test]
fn filtered_recall_holds_for_every_predicate() {
    let place = Place::in_memory().expect("a place");
    let store = indexed(&place);
    let filters = sample::filters(&sample::directory()).expect("the sample is shipped");
    assert!(filters.len() == 9);
    for filter in &filters {
        for text in [&filter.text, &filter.json] {
            let matching = store.view().matching_ids(text).expect("a filter");
            assert_eq!(matching.len() as u64, filter.matches, "{text}");
            let found = ask(&store, None, Some(text));
            let want = filter.matches.min(10) as usize;
            assert!(found.iter().all(|f| f.len() == want), "{text}: fewer than {want} found");
            assert!(
                found.iter().flatten().all(|id| matching.contains(id)),
                "{text}: a row that does not match"
            );
            let recall = recall(&found, &filter.truth, 10);
            println!("recall@10 {}: {recall:.4} ({} rows)", filter.name, filter.matches);
            assert!(recall >= 0.95, "{text}: {recall}");
        }
    }
}
