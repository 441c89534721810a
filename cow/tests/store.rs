//! What a caller of the store sees: create, ingest, overwrite, delete, metadata, compact, reindex, other writers.

mod branches;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use branches::noise;
use rvf_cow::{
    Access, BadRow, Batch, CreateOptions, Error, Metric, NoProgress, OpenOptions, ReindexOptions,
    SearchRequest, Store, Value,
};

fn batch(dim: usize, ids: &[u64], vectors: Vec<f32>) -> Batch {
    Batch {
        dimension: dim,
        ids: Some(ids.to_vec()),
        vectors,
        metadata: Vec::new(),
        on_bad_row: BadRow::Refuse,
    }
}

fn create(path: &Path, dim: u16, metric: Metric) -> Arc<Store> {
    Store::create(path, &CreateOptions { dimension: dim, metric, profile: 0 }).expect("create")
}

fn nearest(store: &Store, query: &[f32], k: usize) -> Vec<(u64, f32)> {
    let view = store.view();
    let request =
        SearchRequest { queries: query, k, ef: None, filter: None, exact: false, deadline: None, threads: 1 };
    let answers = view.search(&request).expect("search");
    answers[0].hits.iter().map(|h| (h.id, h.distance)).collect()
}

#[test]
fn a_new_store_is_one_manifest() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("a.rvf");
    let store = create(&path, 3, Metric::Cosine);
    let view = store.view();
    assert_eq!((view.live(), view.epoch(), view.dimension(), view.file_len()), (0, 0, 3, 192));
    assert_eq!(view.status().health, "ok");
    assert!(nearest(&store, &[1.0, 0.0, 0.0], 5).is_empty());
    let again = Store::create(&path, &CreateOptions { dimension: 3, metric: Metric::L2, profile: 0 });
    assert!(matches!(again, Err(Error::Exists { .. })));
    let names: Vec<_> =
        std::fs::read_dir(dir.path()).expect("ls").map(|e| e.expect("entry").file_name()).collect();
    assert_eq!(names, ["a.rvf"], "nothing else is left in the directory");
}

#[test]
fn rows_come_back_nearest_first_with_the_metrics_distances() {
    let dir = tempfile::tempdir().expect("dir");
    let store = create(&dir.path().join("a.rvf"), 2, Metric::L2);
    let report = store
        .ingest(&batch(2, &[7, 3, u64::MAX], vec![0.0, 0.0, 3.0, 4.0, 1.0, 0.0]), &NoProgress)
        .expect("ingest");
    assert_eq!((report.accepted, report.epoch, report.first_id), (3, 1, Some(3)));
    assert_eq!(nearest(&store, &[0.0, 0.0], 9), [(7, 0.0), (u64::MAX, 1.0), (3, 25.0)]);
}

#[test]
fn overwriting_deleting_and_reviving_an_id() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("a.rvf");
    let store = create(&path, 1, Metric::L2);
    store.ingest(&batch(1, &[1, 2, 3], vec![1.0, 2.0, 3.0]), &NoProgress).expect("ingest");
    store.ingest(&batch(1, &[2], vec![20.0]), &NoProgress).expect("overwrite");
    assert_eq!(store.view().live(), 3);
    assert_eq!(nearest(&store, &[20.0], 1), [(2, 0.0)]);
    let report = store.delete(&[2, 9, 2]).expect("delete");
    assert_eq!((report.deleted, report.missing), (1, 1));
    assert_eq!(store.view().find(2), None);
    assert_eq!(nearest(&store, &[20.0], 9).len(), 2);
    let nothing = store.delete(&[2, 9]).expect("delete again");
    assert_eq!((nothing.deleted, nothing.epoch), (0, report.epoch), "no commit for nothing");
    store.ingest(&batch(1, &[2], vec![5.0]), &NoProgress).expect("revive");
    assert_eq!(nearest(&store, &[5.0], 1), [(2, 0.0)]);
    let reopened = Store::open(&path, &OpenOptions::default()).expect("open");
    assert_eq!(nearest(&reopened, &[5.0], 9), nearest(&store, &[5.0], 9));
    assert_eq!(reopened.view().status().deleted, 0);
}

#[test]
fn a_refused_batch_changes_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("a.rvf");
    let store = create(&path, 2, Metric::L2);
    let before = std::fs::read(&path).expect("read");
    let nan = store.ingest(&batch(2, &[1, 2], vec![0.0, 0.0, 1.0, f32::NAN]), &NoProgress);
    assert!(matches!(nan, Err(Error::NotFinite { row: 1, component: 1 })));
    let twice = store.ingest(&batch(2, &[4, 4], vec![0.0; 4]), &NoProgress);
    assert!(matches!(twice, Err(Error::DuplicateId { id: 4 })));
    let wrong = store.ingest(&batch(3, &[4], vec![0.0; 3]), &NoProgress);
    assert!(matches!(wrong, Err(Error::Dimension { got: 3, want: 2, .. })));
    let mut mixed = batch(2, &[1, 2], vec![0.0; 4]);
    mixed.metadata =
        vec![vec![("a".into(), Value::String("x".into()))], vec![("a".into(), Value::Bool(true))]];
    let text = store.ingest(&mixed, &NoProgress).expect_err("one field, two types").to_string();
    assert!(text.contains("'a'") && text.contains("row 1"), "{text}");
    assert_eq!(std::fs::read(&path).expect("read"), before);
    let mut skip = batch(2, &[1, 2], vec![0.0, 0.0, 1.0, f32::INFINITY]);
    skip.on_bad_row = BadRow::Skip;
    let report = store.ingest(&skip, &NoProgress).expect("skip");
    assert_eq!((report.accepted, report.rejected), (1, 1));
}

#[test]
fn metadata_keep_their_names_and_types_across_processes() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("a.rvf");
    let store = create(&path, 1, Metric::L2);
    let mut first = batch(1, &[1, 2], vec![1.0, 2.0]);
    first.metadata = vec![
        vec![("name".into(), Value::String("one".into())), ("size".into(), Value::U64(5))],
        vec![("name".into(), Value::String("two".into())), ("size".into(), Value::I64(-1))],
    ];
    store.ingest(&first, &NoProgress).expect("ingest");
    let other = Store::open(&path, &OpenOptions::default()).expect("open");
    let want = vec![("name".to_owned(), Value::String("two".into())), ("size".to_owned(), Value::I64(-1))];
    assert_eq!(other.view().fields(2), Some(want));
    assert_eq!(other.view().matching_ids("size > 0 AND name = 'one'").expect("filter"), [1]);
    assert_eq!(other.view().unknown_fields("nme = 'one'").expect("parse"), ["nme"]);

    other.put_metadata(1, &vec![("size".into(), Value::U64(9))]).expect("replace");
    assert!(store.refresh().expect("refresh"), "the other handle notices");
    assert_eq!(store.view().fields(1), Some(vec![("size".to_owned(), Value::I64(9))]));
    store.delete(&[1]).expect("delete");
    assert_eq!(store.view().fields(1), None);
    assert!(matches!(store.put_metadata(1, &vec![]), Err(Error::NoSuchId { id: 1 })));
}

#[test]
fn many_generations_of_metadata_stay_readable() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("a.rvf");
    let store = create(&path, 1, Metric::L2);
    for i in 0..80u64 {
        let mut one = batch(1, &[i], vec![i as f32]);
        one.metadata = vec![vec![("i".into(), Value::U64(i))]];
        store.ingest(&one, &NoProgress).expect("ingest");
    }
    let view = Store::open(&path, &OpenOptions::default()).expect("open").view();
    assert_eq!(view.metadata_ids().len(), 80);
    assert_eq!(view.matching_ids("i BETWEEN 10 AND 12").expect("filter"), [10, 11, 12]);
    assert!(view.metadata_state().generation == 80 && view.status().health == "ok");
}

#[test]
fn compaction_keeps_everything_that_counts() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("a.rvf");
    let store = create(&path, 4, Metric::Cosine);
    let ids: Vec<u64> = (0..200).collect();
    let mut all = batch(4, &ids, noise(1, 800));
    all.metadata = ids.iter().map(|i| vec![("i".to_owned(), Value::U64(*i))]).collect();
    store.ingest(&all, &NoProgress).expect("ingest");
    store.delete(&(0..100).collect::<Vec<_>>()).expect("delete");
    let query = noise(2, 4);
    let before = nearest(&store, &query, 20);
    let old_view = store.view();
    let report = store.compact(&NoProgress).expect("compact");
    assert!(report.file_size_after < report.file_size_before);
    assert_eq!((report.vectors_after, report.segments_compacted), (100, 100));
    assert_eq!(nearest(&store, &query, 20), before);
    assert_eq!(old_view.live(), 100, "a view taken before goes on working");
    assert_eq!(old_view.id(150), 150);
    let reopened = Store::open(&path, &OpenOptions::default()).expect("open");
    assert_eq!(nearest(&reopened, &query, 20), before);
    assert_eq!(reopened.view().metadata_ids(), (100..200).collect::<Vec<_>>());
    assert_eq!(reopened.view().status().deleted, 0);
    let names: Vec<_> =
        std::fs::read_dir(dir.path()).expect("ls").map(|e| e.expect("entry").file_name()).collect();
    assert_eq!(names, ["a.rvf"], "no scratch or lock file is left");
}

#[test]
fn an_index_survives_reopening_deletes_and_new_rows() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("a.rvf");
    let store = create(&path, 16, Metric::L2);
    let n = 2000usize;
    let vectors = noise(3, n * 16);
    let ids: Vec<u64> = (0..n as u64).map(|i| i * 1_000_003).collect();
    store.ingest(&batch(16, &ids, vectors.clone()), &NoProgress).expect("ingest");
    assert_eq!(store.view().index_state().layer, "none");
    let report =
        store.reindex(&ReindexOptions { threads: 2, ..Default::default() }, &NoProgress).expect("reindex");
    assert_eq!(report.indexed, n as u64);

    let reopened = Store::open(&path, &OpenOptions::default()).expect("open");
    assert_eq!(reopened.view().index_state().indexed, n as u64);
    for (row, id) in ids.iter().enumerate().step_by(37) {
        assert_eq!(nearest(&reopened, &vectors[row * 16..row * 16 + 16], 1), [(*id, 0.0)]);
    }
    reopened.delete(&ids[..700]).expect("delete");
    let extra = noise(4, 16 * 10);
    let extra_ids: Vec<u64> = (1..=10).collect();
    reopened.ingest(&batch(16, &extra_ids, extra.clone()), &NoProgress).expect("new rows");
    reopened.ingest(&batch(16, &[ids[900]], extra[..16].to_vec()), &NoProgress).expect("overwrite");
    let view = reopened.view();
    assert_eq!((view.live(), view.index_state().indexed), (1310, 1299));
    for row in 0..10 {
        let q = &extra[row * 16..row * 16 + 16];
        assert_eq!(nearest(&reopened, q, 1)[0].0, extra_ids[row]);
    }
    assert_eq!(nearest(&reopened, &extra[..16], 2), [(1, 0.0), (ids[900], 0.0)]);
    let mut agree = 0;
    for q in noise(5, 16 * 20).chunks_exact(16) {
        let request = |exact| SearchRequest {
            queries: q,
            k: 10,
            ef: None,
            filter: None,
            exact,
            deadline: None,
            threads: 1,
        };
        let walk = view.search(&request(false)).expect("walk");
        let scan = view.search(&request(true)).expect("scan");
        assert!(scan[0].exact);
        agree += walk[0].hits.iter().filter(|h| scan[0].hits.contains(h)).count();
    }
    assert!(agree >= 190, "recall {agree}/200");
}

#[test]
fn a_read_only_store_refuses_changes_and_may_index_in_memory() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("a.rvf");
    let store = create(&path, 8, Metric::L2);
    let ids: Vec<u64> = (0..1500).collect();
    store.ingest(&batch(8, &ids, noise(6, 1500 * 8)), &NoProgress).expect("ingest");
    let bytes = std::fs::read(&path).expect("read");
    let options = OpenOptions { access: Access::ReadOnly, ..OpenOptions::default() };
    let reader = Store::open(&path, &options).expect("open");
    assert!(matches!(reader.delete(&[1]), Err(Error::ReadOnly { .. })));
    let in_memory = ReindexOptions { persist: false, ..ReindexOptions::default() };
    reader.reindex(&in_memory, &NoProgress).expect("index");
    assert_eq!(reader.view().index_state().indexed, 1500);
    assert_eq!(std::fs::read(&path).expect("read"), bytes);
}

#[test]
fn events_tell_what_happened() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("a.rvf");
    let store = create(&path, 1, Metric::L2);
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    store.subscribe(Box::new(move |event| {
        counter.fetch_add(if event.kind == "ingest" { 1 } else { 100 }, Ordering::SeqCst);
    }));
    store.ingest(&batch(1, &[1], vec![1.0]), &NoProgress).expect("ingest");
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    store.delete(&[1]).expect("delete");
    assert_eq!(seen.load(Ordering::SeqCst), 101);
    let other = Store::open(&path, &OpenOptions::default()).expect("open");
    other.ingest(&batch(1, &[2], vec![1.0]), &NoProgress).expect("ingest");
    assert!(store.refresh().expect("refresh"));
    assert_eq!(seen.load(Ordering::SeqCst), 201, "one refresh event for another handle's commit");
}

#[test]
fn what_is_not_a_store_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("dir");
    let options = OpenOptions::default();
    let missing = Store::open(&dir.path().join("no.rvf"), &options);
    assert!(matches!(missing, Err(Error::NotFound { .. })));
    assert!(matches!(Store::open(dir.path(), &options), Err(Error::NotRegular { what: "directory", .. })));
    let empty = dir.path().join("empty.rvf");
    std::fs::write(&empty, b"").expect("write");
    assert!(matches!(Store::open(&empty, &options), Err(Error::NotRvf { code: 0x0106, .. })));
    let noise = dir.path().join("noise.rvf");
    std::fs::write(&noise, vec![0x5A; 10_000]).expect("write");
    assert!(matches!(Store::open(&noise, &options), Err(Error::NotRvf { .. })));
}

/// A damaged image can only cost recall, so it is used until the check in the background is through;
/// then it is dropped, said, and answers come from the exact scan.
#[test]
fn a_damaged_index_is_noticed_and_not_used() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("a.rvf");
    let store = create(&path, 8, Metric::L2);
    let ids: Vec<u64> = (0..1200).collect();
    let vectors = noise(9, 1200 * 8);
    store.ingest(&batch(8, &ids, vectors.clone()), &NoProgress).expect("ingest");
    store.reindex(&ReindexOptions { threads: 1, ..Default::default() }, &NoProgress).expect("reindex");
    let view = store.view();
    let index = view.opened().layout.segments().find(|s| s.kind().name() == "Index").expect("index").clone();
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[(index.payload.start + (index.payload.end - index.payload.start) / 2) as usize] ^= 0x40;
    std::fs::write(&path, &bytes).expect("write");
    let damaged = Store::open(&path, &OpenOptions::default()).expect("open");
    assert!(damaged.view().image().is_none());
    assert_eq!(damaged.view().status().health, "warnings (1)");
    assert_eq!(nearest(&damaged, &vectors[80..88], 1), [(10, 0.0)]);
    damaged.reindex(&ReindexOptions { threads: 1, ..Default::default() }, &NoProgress).expect("reindex");
    assert!(damaged.view().image().is_some());
    assert_eq!(damaged.view().status().health, "ok");
}

/// Queries times results is what an answer costs, however modest each of them looks.
#[test]
fn an_answer_has_a_limit() {
    let dir = tempfile::tempdir().expect("dir");
    let store = create(&dir.path().join("many.rvf"), 2, Metric::L2);
    let ids: Vec<u64> = (0..1000).collect();
    store.ingest(&batch(2, &ids, noise(3, 2000)), &NoProgress).expect("ingest");
    let queries = vec![0.0_f32; 2 * 70_000];
    let request = |k| SearchRequest {
        queries: &queries,
        k,
        ef: None,
        filter: None,
        exact: false,
        deadline: None,
        threads: 1,
    };
    let error = store.view().search(&request(1_000_000)).expect_err("a gigabyte of results");
    assert!(matches!(&error, Error::TooLarge { .. }), "{error}");
    assert!(error.to_string().contains("70000 queries"), "{error}");
}
