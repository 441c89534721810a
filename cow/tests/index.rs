//! The life of an index: built apart, kept in memory, stored, outgrown, overtaken by other writers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rvf_cow::{
    Access, BadRow, Batch, BranchOptions, CreateOptions, Error, Metric, NoProgress, OpenOptions, Progress,
    ReindexOptions, SearchRequest, Store,
};
use rvf_format::lock::WriteLock;

const DIM: usize = 8;

/// Row i of every store here.
fn row(i: u64) -> [f32; DIM] {
    let mut state = (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    std::array::from_fn(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    })
}

fn add(store: &Store, ids: std::ops::Range<u64>) {
    let batch = Batch {
        dimension: DIM,
        vectors: ids.clone().flat_map(row).collect(),
        ids: Some(ids.collect()),
        metadata: Vec::new(),
        on_bad_row: BadRow::Refuse,
    };
    store.ingest(&batch, &NoProgress).expect("ingest");
}

fn store(n: u64) -> (tempfile::TempDir, PathBuf, Arc<Store>) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.rvf");
    let options = CreateOptions { dimension: DIM as u16, metric: Metric::L2, profile: 0 };
    let store = Store::create(&path, &options).expect("a new store");
    add(&store, 0..n);
    (dir, path, store)
}

fn options() -> ReindexOptions {
    ReindexOptions { threads: 1, ..ReindexOptions::default() }
}

fn build(store: &Store) -> rvf_cow::BuiltIndex {
    store.build_index(&options(), &NoProgress).expect("builds").expect("there are vectors")
}

/// Every id is found by its own vector.
fn finds_all(store: &Store, ids: std::ops::Range<u64>) {
    let view = store.view();
    let queries: Vec<f32> = ids.clone().flat_map(row).collect();
    let request = SearchRequest {
        queries: &queries,
        k: 1,
        ef: None,
        filter: None,
        exact: false,
        deadline: None,
        threads: 1,
    };
    let answers = view.search(&request).expect("search");
    for (id, answer) in ids.zip(&answers) {
        assert_eq!(answer.hits.first().map(|hit| (hit.id, hit.distance)), Some((id, 0.0)));
    }
}

fn place(store: &Store) -> (u64, u64, &'static str) {
    let state = store.view().index_state();
    (state.indexed, state.total, state.place)
}

fn stored_indexes(path: &Path) -> usize {
    let store = Store::open(path, &OpenOptions::default()).expect("opens");
    let view = store.view();
    let manifest = view.opened().manifest.as_ref().expect("a manifest");
    manifest.manifest.entries_of(rvf_format::SegType::INDEX).count()
}

#[test]
fn a_build_changes_nothing_until_it_is_used_and_stored() {
    let (_dir, path, store) = store(1500);
    let before = std::fs::read(&path).expect("read");
    let built = build(&store);
    assert_eq!(built.indexed(), 1500);
    assert_eq!(place(&store), (0, 1500, "none"));
    assert!(store.view().wants_index());
    store.use_index(&built).expect("used");
    assert_eq!(place(&store), (1500, 1500, "memory"));
    assert!(!store.view().wants_index());
    assert!(store.kept_index().is_some());
    assert_eq!(std::fs::read(&path).expect("read"), before);
    finds_all(&store, 0..1500);
    store.store_index(&built).expect("stored");
    assert_eq!(place(&store), (1500, 1500, "file"));
    assert!(store.kept_index().is_none(), "the file has it");
    assert_eq!(stored_indexes(&path), 2, "ours and the one the existing tools read");
    finds_all(&store, 0..1500);
}

#[test]
fn small_stores_and_fresh_indexes_want_none() {
    let (_dir, _path, store) = store(1023);
    assert!(!store.view().wants_index(), "small");
    add(&store, 1023..1500);
    assert!(store.view().wants_index(), "none yet");
    store.reindex(&options(), &NoProgress).expect("reindex");
    assert!(!store.view().wants_index());
    add(&store, 1500..1875);
    assert!(!store.view().wants_index(), "1500 of 1875 are four fifths");
    finds_all(&store, 1400..1875);
    add(&store, 1875..1876);
    assert!(store.view().wants_index(), "more than a fifth came later");
    store.reindex(&options(), &NoProgress).expect("rebuilt");
    assert_eq!(place(&store), (1876, 1876, "file"));
    assert!(!store.view().wants_index());
}

#[test]
fn a_wider_index_in_memory_answers_instead_of_the_files() {
    let (_dir, _path, store) = store(1200);
    store.reindex(&options(), &NoProgress).expect("reindex");
    add(&store, 1200..2000);
    assert_eq!(place(&store), (1200, 2000, "file"));
    let built = build(&store);
    store.use_index(&built).expect("used");
    assert_eq!(place(&store), (2000, 2000, "memory"));
    // It goes on answering for the rows it covers; those after it are looked at one by one.
    add(&store, 2000..2100);
    store.delete(&[5]).expect("delete");
    assert_eq!(place(&store), (1999, 2099, "memory"));
    finds_all(&store, 6..2100);
    let kept = store.kept_index().expect("kept");
    store.store_index(&kept).expect("stored later");
    assert_eq!(place(&store), (1999, 2099, "file"));
    finds_all(&store, 6..2100);
}

#[test]
fn an_index_of_rows_that_were_rewritten_is_refused_and_forgotten() {
    let (_dir, path, store) = store(1500);
    let built = build(&store);
    store.use_index(&built).expect("used");
    store.delete(&[3]).expect("delete");
    // By another program.
    let other = Store::open(&path, &OpenOptions::default()).expect("opens");
    other.compact(&NoProgress).expect("compact");
    assert!(store.refresh().expect("refresh"));
    assert_eq!(place(&store).2, "none");
    assert!(store.kept_index().is_none(), "it takes memory for nothing");
    for result in [store.use_index(&built), store.store_index(&built)] {
        let error = result.expect_err("does not fit");
        assert!(error.to_string().contains("rewritten"), "{error}");
    }
    assert_eq!(stored_indexes(&path), 0);
}

#[test]
fn an_overwritten_id_is_kept_from_the_existing_tools_graph() {
    let (_dir, path, store) = store(1500);
    let built = build(&store);
    add(&store, 7..8);
    store.store_index(&built).expect("stored");
    assert_eq!(stored_indexes(&path), 1, "only ours, which knows that row 7 died");
    finds_all(&store, 0..1500);
}

#[test]
fn a_branch_indexes_its_own_rows_and_answers_with_its_parents() {
    let (dir, _path, parent) = store(1500);
    parent.reindex(&options(), &NoProgress).expect("reindex");
    let path = dir.path().join("a.exp.rvf");
    parent.branch(&path, &BranchOptions::default()).expect("a branch");
    let child = Store::open(&path, &OpenOptions::default()).expect("opens");
    assert!(!child.view().wants_index(), "it has no rows of its own");
    finds_all(&child, 0..1500);
    add(&child, 1500..3000);
    child.delete(&[3]).expect("an inherited row");
    add(&child, 7..8);
    assert!(child.view().wants_index());
    child.reindex(&options(), &NoProgress).expect("indexed");
    assert_eq!(place(&child), (1501, 1501, "file"));
    assert_eq!(stored_indexes(&path), 1, "ours only");
    for child in [child, Store::open(&path, &OpenOptions::default()).expect("opens again")] {
        finds_all(&child, 4..3000);
        assert_eq!(child.view().index_state().place, "file");
        let gone = row(3);
        let request = SearchRequest {
            queries: &gone,
            k: 1,
            ef: None,
            filter: None,
            exact: false,
            deadline: None,
            threads: 1,
        };
        assert_ne!(child.view().search(&request).expect("search")[0].hits[0].id, 3);
    }
}

/// Cancels at the given step.
struct Until(AtomicU64);

impl Progress for Until {
    fn step(&self, _done: u64, _total: u64) -> bool {
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

#[test]
fn a_cancelled_build_leaves_nothing() {
    let (dir, path, store) = store(1500);
    let before = std::fs::read(&path).expect("read");
    for steps in [0, 1, 2, 5, 10] {
        let result = store.build_index(&options(), &Until(AtomicU64::new(steps)));
        assert!(matches!(result, Err(Error::Cancelled)), "{steps}: {result:?}");
    }
    assert_eq!(std::fs::read(&path).expect("read"), before);
    assert_eq!(std::fs::read_dir(dir.path()).expect("ls").count(), 1);
    assert_eq!(place(&store), (0, 1500, "none"));
}

#[test]
fn another_writers_lock_is_seen_without_waiting() {
    let (_dir, path, store) = store(1500);
    store.check_lock().expect("free");
    let file = std::fs::File::options().read(true).write(true).open(&path).expect("open");
    let lock = WriteLock::acquire(&path, &file, Duration::ZERO).expect("locked");
    let error = store.check_lock().expect_err("held");
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    drop(lock);
    store.check_lock().expect("free again");
    let reader = OpenOptions { access: Access::ReadOnly, ..OpenOptions::default() };
    let reader = Store::open(&path, &reader).expect("opens");
    assert!(matches!(reader.check_lock(), Err(Error::ReadOnly { .. })));
}
