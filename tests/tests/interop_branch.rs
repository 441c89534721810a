//! Branches beside the reference: it opens ours and answers alike, refuses where it would not, and continues them; we
//! continue its own.

use std::path::Path;
use std::sync::Arc;

use rvf_cow::{
    BadRow, Batch, BranchOptions, CreateOptions, Derive, Derived, Map, Metric, NoProgress, OpenOptions,
    Precision, ReindexOptions, SearchRequest, Store, Value,
};
use rvf_runtime::{QueryOptions, RvfStore};
use rvf_tests::random::Random;

const DIM: usize = 6;

fn batch(ids: &[u64], seed: u64) -> Batch {
    let vectors = ids.iter().flat_map(|id| Random::new(seed << 32 ^ id).vector(DIM)).collect();
    Batch {
        dimension: DIM,
        ids: Some(ids.to_vec()),
        vectors,
        metadata: Vec::new(),
        on_bad_row: BadRow::Refuse,
    }
}

fn put(store: &Store, ids: &[u64], seed: u64) {
    store.ingest(&batch(ids, seed), &NoProgress).expect("ingest");
}

fn create(path: &Path, metric: Metric, ids: &[u64]) -> Arc<Store> {
    let store =
        Store::create(path, &CreateOptions { dimension: DIM as u16, metric, profile: 0 }).expect("create");
    put(&store, ids, 1);
    store
}

fn open(path: &Path) -> Arc<Store> {
    Store::open(path, &OpenOptions::default()).expect("open")
}

fn branch(store: &Store, path: &Path) -> Arc<Store> {
    store.branch(path, &BranchOptions::default()).expect("branch");
    open(path)
}

fn ours(path: &Path, query: &[f32], k: usize) -> Vec<(u64, u32)> {
    let request =
        SearchRequest { queries: query, k, ef: None, filter: None, exact: true, deadline: None, threads: 1 };
    let answers = open(path).view().search(&request).expect("we answer");
    answers[0].hits.iter().map(|h| (h.id, h.distance.to_bits())).collect()
}

fn theirs(path: &Path, query: &[f32], k: usize, exact: bool) -> Vec<(u64, u32)> {
    let store = RvfStore::open_readonly_strict(path).expect("the reference opens the branch");
    let options = QueryOptions { force_exact: exact, ..QueryOptions::default() };
    let results = store.query(query, k, &options).expect("the reference answers");
    results.iter().map(|r| (r.id, r.distance.to_bits())).collect()
}

fn agree(path: &Path) {
    assert_eq!(open(path).view().reference_opens(), Ok(()), "{}", path.display());
    let mut random = Random::new(99);
    for k in [1, 5, 40] {
        let query = random.vector(DIM);
        let wanted = ours(path, &query, k);
        assert_eq!(theirs(path, &query, k, true), wanted, "{} k={k}", path.display());
        let default: Vec<u64> = theirs(path, &query, k, false).iter().map(|hit| hit.0).collect();
        assert_eq!(default, wanted.iter().map(|hit| hit.0).collect::<Vec<_>>(), "{} k={k}", path.display());
    }
}

fn refused(path: &Path, code: u16) {
    assert!(open(path).view().reference_opens().is_err());
    let error = RvfStore::open_readonly(path).err().expect("the reference refuses the branch").to_string();
    assert!(error.to_lowercase().contains(&format!("{code:04x}")), "{code:#06x}: {error}");
}

#[test]
fn it_answers_like_us_from_fresh_and_edited_branches() {
    for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("p.rvf");
        let ids: Vec<u64> = (0..300).map(|i| i * 7 + 1).collect();
        let parent = create(&path, metric, &ids);
        parent.delete(&[8, 15]).expect("delete");
        let bytes = std::fs::read(&path).expect("read");
        let child_path = dir.path().join("p.exp.rvf");
        let child = branch(&parent, &child_path);
        agree(&child_path);
        put(&child, &[1, 22, 5000, 5001], 2);
        agree(&child_path);
        child.delete(&[29, 36, 22, 5001]).expect("delete");
        agree(&child_path);
        put(&child, &[29], 3);
        child.put_metadata(43, &vec![("colour".to_owned(), Value::String("red".into()))]).expect("put");
        child.put_metadata(43, &Vec::new()).expect("put");
        agree(&child_path);
        let before = open(&child_path).view().resolved().len();
        child.compact(&NoProgress).expect("compact");
        agree(&child_path);
        assert_eq!(open(&child_path).view().resolved().len(), before);
        child.freeze().expect("freeze");
        agree(&child_path);
        assert_eq!(std::fs::read(&path).expect("read"), bytes, "the parent is as it was, byte for byte");
    }
}

#[test]
fn it_continues_a_branch_of_ours_and_we_go_on_from_there() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("p.rvf");
    let parent = create(&path, Metric::L2, &(0..50).collect::<Vec<_>>());
    let child_path = dir.path().join("c.rvf");
    let child = branch(&parent, &child_path);
    child.delete(&[3]).expect("delete");
    let rows = batch(&[4, 100, 101], 5);
    let mut reference = RvfStore::open(&child_path).expect("open");
    let vectors: Vec<&[f32]> = rows.vectors.chunks(DIM).collect();
    reference.ingest_batch(&vectors, &[4, 100, 101], None).expect("ingest");
    reference.delete(&[101]).expect("delete");
    reference.close().expect("close");
    agree(&child_path);
    let view = open(&child_path).view();
    assert!(view.pin().is_some(), "the pin is still listed");
    assert_eq!(view.resolved().len(), 50);
    assert!(view.resolved().find(3).is_none() && view.resolved().find(101).is_none());
    child.delete(&[5, 100]).expect("delete");
    agree(&child_path);
    assert_eq!(open(&child_path).view().resolved().len(), 48);

    let mut reference = RvfStore::open(&child_path).expect("open");
    reference.compact().expect("compact");
    reference.close().expect("close");
    agree(&child_path);
    let view = open(&child_path).view();
    assert!(view.pin().is_some(), "the pin outlives its compaction");
    assert_eq!(view.resolved().len(), 48);
    // It cannot follow a parent that goes on living; we can.
    put(&parent, &[60], 1);
    refused(&child_path, 0x0601);
    assert_eq!(open(&child_path).view().resolved().len(), 48);
    put(&open(&child_path), &[61], 1);
    assert_eq!(open(&child_path).view().resolved().len(), 49);
}

/// Counts are carried along by its commits and its compaction, byte for byte, and stay what we read.
#[test]
fn it_keeps_the_counts_that_we_wrote() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), Metric::L2, &(0..50).collect::<Vec<_>>());
    let child_path = dir.path().join("c.rvf");
    let child = branch(&parent, &child_path);
    put(&child, &[4, 100], 2);
    child.delete(&[7, 8]).expect("delete");
    let counts = child.rebuild_refcounts().expect("count").expect("a branch").counts;
    assert_eq!(counts.iter().sum::<u32>(), 47, "two are hidden and one is overwritten");
    let counted = || {
        let view = open(&child_path).view();
        let manifest = &view.opened().manifest.as_ref().expect("a manifest").manifest;
        let entries: Vec<_> = manifest.entries_of(rvf_format::SegType::REFCOUNT).copied().collect();
        assert_eq!(entries.len(), 1, "one is listed");
        let segment = view.opened().layout.segment_at_offset(entries[0].offset).expect("it is there");
        segment.payload_of(view.bytes()).to_vec()
    };
    let written = counted();
    assert_eq!(rvf_format::refcount::Refcount::parse(&written).expect("it parses").counts, counts);
    agree(&child_path);
    let rows = batch(&[5, 101], 5);
    let mut reference = RvfStore::open(&child_path).expect("it opens a branch with counts");
    let vectors: Vec<&[f32]> = rows.vectors.chunks(DIM).collect();
    reference.ingest_batch(&vectors, &[5, 101], None).expect("ingest");
    reference.delete(&[100]).expect("delete");
    reference.close().expect("close");
    assert_eq!(counted(), written, "after its commits");
    agree(&child_path);
    let mut reference = RvfStore::open(&child_path).expect("open");
    reference.compact().expect("compact");
    reference.close().expect("close");
    assert_eq!(counted(), written, "after its compaction");
    agree(&child_path);
    let again = open(&child_path).rebuild_refcounts().expect("count").expect("a branch").counts;
    assert_eq!(again.iter().sum::<u32>(), 46);
}

#[test]
fn it_refuses_what_it_would_answer_wrongly() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), Metric::L2, &[1, 2, 3, u64::MAX, 1 << 40]);
    let child = branch(&parent, &dir.path().join("c.rvf"));
    let nested = branch(&child, &dir.path().join("n.rvf"));
    assert_eq!(nested.view().resolved().len(), 5);
    refused(nested.path(), 0x0705);
    child.delete(&[1 << 40]).expect("delete");
    refused(child.path(), 0x0705);
    let other = branch(&parent, &dir.path().join("o.rvf"));
    other.delete(&[2]).expect("delete");
    agree(other.path());
}

#[test]
fn we_continue_branches_that_it_made() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("p.rvf");
    let parent = create(&path, Metric::L2, &(0..50).collect::<Vec<_>>());
    parent.delete(&[7]).expect("delete");
    let child_path = dir.path().join("c.rvf");
    let reference = RvfStore::open_readonly(&path).expect("open");
    reference.branch(&child_path).expect("branch").close().expect("close");
    let child = open(&child_path);
    assert!(child.view().pin().is_none());
    agree(&child_path);
    put(&child, &[4, 70], 2);
    child.delete(&[5, 70]).expect("delete");
    agree(&child_path);
    let grandchild_path = dir.path().join("g.rvf");
    let reference = RvfStore::open_readonly(&child_path).expect("open");
    reference.branch(&grandchild_path).expect("branch").close().expect("close");
    agree(&grandchild_path);
    assert_eq!(open(&grandchild_path).view().resolved().len(), 1, "one level, as it means it");
    child.compact(&NoProgress).expect("compact");
    agree(&child_path);
    assert_eq!(open(&child_path).view().resolved().len(), 48);
    assert_eq!(open(&grandchild_path).view().resolved().len(), 1, "it stands on what was kept");
    // A branch of ours below one of theirs shows what theirs shows.
    let ours = branch(&child, &dir.path().join("b.rvf"));
    put(&ours, &[9], 3);
    assert_eq!(ours.view().resolved().len(), 48);
    refused(ours.path(), 0x0705);
    parent.compact(&NoProgress).expect("compact");
    assert_eq!(open(&child_path).view().resolved().len(), 48);
    assert_eq!(open(ours.path()).view().resolved().len(), 48);
}

#[test]
fn metadata_of_a_branch_it_made_survive_our_edits() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("p.rvf");
    let parent = create(&path, Metric::L2, &[]);
    let red = || vec![("colour".to_owned(), Value::String("red".into()))];
    let rows = Batch { metadata: vec![red(), red(), red()], ..batch(&[1, 2, 3], 1) };
    parent.ingest(&rows, &NoProgress).expect("ingest");
    let child_path = dir.path().join("c.rvf");
    let reference = RvfStore::open_readonly(&path).expect("open");
    reference.branch(&child_path).expect("branch").close().expect("close");
    let child = open(&child_path);
    assert_eq!(child.view().fields(2), Some(red()));
    let blue = vec![("colour".to_owned(), Value::String("blue".into()))];
    child.put_metadata(1, &blue).expect("put");
    child.delete(&[3]).expect("delete");
    for view in [child.view(), open(&child_path).view()] {
        assert_eq!(view.fields(1), Some(blue.clone()));
        assert_eq!(view.fields(2), Some(red()), "what was inherited is repeated");
        assert_eq!(view.fields(3), None);
        assert_eq!(view.metadata_ids(), [1, 2]);
        assert_eq!(view.matching_ids("colour = 'red'").expect("filter"), [2]);
    }
    agree(&child_path);
}

#[test]
fn it_reads_children_with_vectors_of_their_own_and_refuses_rounded_ones() {
    for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
        let dir = tempfile::tempdir().expect("dir");
        let parent =
            create(&dir.path().join("p.rvf"), metric, &(0..300).map(|i| i * 7 + 1).collect::<Vec<_>>());
        let child = branch(&parent, &dir.path().join("c.rvf"));
        put(&child, &[1, 22, 1 << 40], 2);
        child.delete(&[29]).expect("delete");
        let nested = branch(&child, &dir.path().join("n.rvf"));
        let made = |name: &str, how: &Derive<'_>| {
            let path = dir.path().join(name);
            let derived = nested.derive(&path, name, how, &NoProgress).expect("derive");
            assert!(matches!(derived, Derived::Made(_)));
            path
        };
        let matrix = Random::new(4).vector(DIM * DIM);
        let map = Map { matrix: Some(matrix), normalize: true, ..Map::default() };
        let index = ReindexOptions { threads: 1, ..ReindexOptions::default() };
        // Not even a branch of a branch keeps it from these: they need no parent.
        for path in [made("r.rvf", &Derive::Reindex(&index)), made("t.rvf", &Derive::Transform(&map))] {
            agree(&path);
            assert_eq!(open(&path).view().resolved().len(), 300);
            let mut reference = RvfStore::open(&path).expect("open");
            reference.delete(&[8]).expect("delete");
            reference.compact().expect("compact");
            reference.close().expect("close");
            agree(&path);
            assert!(open(&path).view().derived().is_some(), "the record outlives its compaction");
        }
        for precision in [Precision::F16, Precision::Int8] {
            let path = made(precision.name(), &Derive::Quantize(precision));
            refused(&path, 0x0700);
            open(&path).compact(&NoProgress).expect("compact");
            refused(&path, 0x0700);
        }
    }
}

#[test]
fn small_edits_stay_readable_and_deltas_that_were_asked_for_are_refused_until_a_compaction() {
    const WIDE: usize = 512;
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("p.rvf");
    let options = CreateOptions { dimension: WIDE as u16, metric: Metric::L2, profile: 0 };
    let parent = Store::create(&path, &options).expect("create");
    let mut rows = Batch {
        dimension: WIDE,
        ids: Some((0..20).collect()),
        vectors: Random::new(5).vector(20 * WIDE),
        metadata: Vec::new(),
        on_bad_row: BadRow::Refuse,
    };
    parent.ingest(&rows, &NoProgress).expect("ingest");
    let child = branch(&parent, &dir.path().join("c.rvf"));
    for row in rows.vectors.chunks_exact_mut(WIDE) {
        row[3] = 0.5;
    }
    child.ingest(&rows, &NoProgress).expect("edit");
    assert!(!child.view().has_deltas());
    let query = Random::new(8).vector(WIDE);
    assert_eq!(theirs(child.path(), &query, 7, true), ours(child.path(), &query, 7));
    let (a, b) = (Random::new(6).vector(20), Random::new(7).vector(WIDE));
    let second = branch(&parent, &dir.path().join("d.rvf"));
    second.overlay(&rvf_cow::Overlay { ids: None, rank: 1, a: &a, b: &b, scale: 1.0 }).expect("overlay");
    refused(second.path(), 0x0705);
    // In a file that it refuses, small edits are patches.
    let len = second.view().file_len();
    rows.ids = Some(vec![3]);
    let above = parent.view();
    let inherited = above.vector(above.find(3).expect("there"));
    let inherited = inherited.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
    rows.vectors = inherited.enumerate().map(|(at, v)| if at == 5 { 0.5 } else { v }).collect();
    second.ingest(&rows, &NoProgress).expect("patch");
    assert!(second.view().file_len() - len < 4 * WIDE as u64);
    refused(second.path(), 0x0705);
    // It keeps counts that we wrote.
    child.rebuild_refcounts().expect("counts");
    for store in [child, second] {
        let query = Random::new(8).vector(WIDE);
        let before = ours(store.path(), &query, 7);
        store.compact(&NoProgress).expect("compact");
        assert_eq!(open(store.path()).view().reference_opens(), Ok(()));
        assert_eq!(ours(store.path(), &query, 7), before);
        assert_eq!(theirs(store.path(), &query, 7, true), before);
    }
}
