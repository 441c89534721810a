//! Rows of a branch that are stored as changes of inherited ones, against plain maps and a plain scan.

mod branches;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use branches::{ids, nearest, noise, open, truth};
use proptest::prelude::*;
use rvf_cow::{BadRow, Batch, BranchOptions, CreateOptions, Error, Metric, NoProgress, Overlay, Store, diff};
use rvf_format::SegType;

const WIDE: usize = 512;

type Model = BTreeMap<u64, Vec<f32>>;

fn rows(model: &Model) -> Batch {
    Batch {
        dimension: WIDE,
        ids: Some(model.keys().copied().collect()),
        vectors: model.values().flatten().copied().collect(),
        metadata: Vec::new(),
        on_bad_row: BadRow::Refuse,
    }
}

fn put(store: &Store, model: &Model) {
    store.ingest(&rows(model), &NoProgress).expect("ingest");
}

fn parent(path: &Path, count: u64) -> (Arc<Store>, Model) {
    let options = CreateOptions { dimension: WIDE as u16, metric: Metric::L2, profile: 0 };
    let store = Store::create(path, &options).expect("create");
    let model: Model = (0..count).map(|id| (id, noise(id + 1, WIDE))).collect();
    put(&store, &model);
    (store, model)
}

fn branch(store: &Store, path: &Path) -> Arc<Store> {
    store.branch(path, &BranchOptions::default()).expect("branch");
    open(path)
}

/// A branch of a branch, which the existing tools refuse anyway.
fn nested(parent: &Store, dir: &Path) -> Arc<Store> {
    branch(&branch(parent, &dir.join("between.rvf")), &dir.join("c.rvf"))
}

fn deltas(store: &Store) -> usize {
    let view = store.view();
    view.opened().manifest.as_ref().expect("manifest").manifest.entries_of(SegType::DELTA).count()
}

fn check(store: &Store, model: &Model) {
    let view = store.view();
    let resolved = view.resolved();
    assert_eq!(ids(store), model.keys().copied().collect::<Vec<_>>());
    for (id, row) in model {
        let shown: Vec<u8> = resolved.vector(resolved.find(*id).expect("shown")).to_vec();
        let wanted: Vec<u8> = row.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(shown, wanted, "vector {id}");
    }
    for exact in [true, false] {
        let query = noise(77, WIDE);
        assert_eq!(nearest(store, &query, 5, exact), truth(store, &query, 5));
    }
    assert!(
        view.findings().iter().all(|f| f.severity != rvf_format::Severity::Damage),
        "{:?}",
        view.findings()
    );
}

/// What an overlay makes of a row.
fn shifted(row: &[f32], a: &[f32], b: &[f32], scale: f32) -> Vec<f32> {
    (0..WIDE)
        .map(|at| {
            let sum: f64 =
                a.iter().enumerate().map(|(k, a)| f64::from(*a) * f64::from(b[k * WIDE + at])).sum();
            (f64::from(row[at]) + f64::from(scale) * sum) as f32
        })
        .collect()
}

#[test]
fn a_small_change_is_stored_as_a_patch_and_a_patched_row_as_a_full_one_in_the_end() {
    let dir = tempfile::tempdir().expect("dir");
    let (parent, mut model) = parent(&dir.path().join("p.rvf"), 50);
    let child = nested(&parent, dir.path());
    let before = child.view().file_len();
    for round in 1..=6 {
        let row = model.get_mut(&7).expect("there");
        row[round] = round as f32;
        let one = BTreeMap::from([(7, row.clone())]);
        put(&child, &one);
        assert_eq!(deltas(&child), round.min(4), "round {round}");
        check(&open(child.path()), &model);
        if round == 1 {
            let used = child.view().file_len() - before;
            assert!(
                used < 1024 + 256,
                "{used} bytes; the row alone has 1032, the manifest and the witness 700"
            );
        }
    }
    // The parent is as it was, and the rows stay what they are when it goes on.
    assert_eq!(nearest(&parent, &noise(8, WIDE), 1, true)[0], (7, 0.0));
    parent.delete(&[7, 8]).expect("delete");
    parent.compact(&NoProgress).expect("compact");
    check(&open(child.path()), &model);
    child.compact(&NoProgress).expect("compact");
    assert_eq!(deltas(&child), 0);
    check(&open(child.path()), &model);
}

/// A small edit of a branch made it unreadable for the existing tools without a word.
#[test]
fn an_ordinary_edit_takes_no_branch_from_the_existing_tools() {
    let dir = tempfile::tempdir().expect("dir");
    let (parent, mut model) = parent(&dir.path().join("p.rvf"), 50);
    let child = branch(&parent, &dir.path().join("c.rvf"));
    let mut edit = |store: &Store, at: usize| {
        let row = model.get_mut(&7).expect("there");
        row[at] = 0.25;
        put(store, &BTreeMap::from([(7, row.clone())]));
        check(&open(store.path()), &model);
    };
    edit(&child, 1);
    assert_eq!((deltas(&child), child.view().reference_opens()), (0, Ok(())));
    // Who asks for an overlay has said that it may be refused.
    let (a, b) = ([0.0; 1], [0.0; WIDE]);
    child.overlay(&Overlay { ids: Some(&[9]), rank: 1, a: &a, b: &b, scale: 1.0 }).expect("overlay");
    assert!(child.view().reference_opens().expect_err("refused").contains("DELTA"));
    edit(&child, 2);
    assert_eq!(deltas(&child), 2);
    child.compact(&NoProgress).expect("compact");
    edit(&child, 3);
    assert_eq!((deltas(&child), child.view().reference_opens()), (0, Ok(())));
    // They refuse a branch whose parent has grown, whatever is in it.
    parent.delete(&[8]).expect("delete");
    child.refresh().expect("refresh");
    let child = open(child.path());
    assert!(child.view().reference_opens().is_err());
    edit(&child, 4);
    assert_eq!(deltas(&child), 1);
}

#[test]
fn an_overlay_costs_its_factors() {
    let dir = tempfile::tempdir().expect("dir");
    let (parent, mut model) = parent(&dir.path().join("p.rvf"), 3000);
    let child = branch(&parent, &dir.path().join("c.rvf"));
    // One vector has a row of its own already.
    model.insert(5, noise(500, WIDE));
    put(&child, &BTreeMap::from([(5, model[&5].clone())]));
    let before = child.view().file_len();
    let (a, b) = (noise(1, 2 * 3000), noise(2, 2 * WIDE));
    let shown: Vec<u64> = ids(&child);
    let report =
        child.overlay(&Overlay { ids: Some(&shown), rank: 2, a: &a, b: &b, scale: 0.5 }).expect("overlay");
    assert_eq!((report.low_rank, report.full), (2999, 1));
    for (at, id) in shown.iter().enumerate() {
        let row = shifted(&model[id], &a[2 * at..2 * at + 2], &b, 0.5);
        model.insert(*id, row);
    }
    let used = child.view().file_len() - before;
    assert!(used < 2 * 4 * (3000 + WIDE as u64) + 3 * 3000 + 4096, "{used} bytes");
    check(&child, &model);
    check(&open(child.path()), &model);
    let mut changed = 0;
    diff(&parent.view(), &child.view(), &mut |_| {
        changed += 1;
        true
    })
    .expect("diff");
    assert_eq!(changed, 3000);
    child.merge_into(&parent).expect("merge");
    check(&parent, &model);
    assert_eq!(deltas(&parent), 0);
}

/// Views of one file put the same rows together again with every commit.
#[test]
fn rows_that_were_put_together_are_kept_by_later_views() {
    let dir = tempfile::tempdir().expect("dir");
    let (parent, mut model) = parent(&dir.path().join("p.rvf"), 300);
    let child = branch(&parent, &dir.path().join("c.rvf"));
    let (a, b) = (vec![1.0; 300], noise(2, WIDE));
    child.overlay(&Overlay { ids: None, rank: 1, a: &a, b: &b, scale: 1.0 }).expect("overlay");
    for row in model.values_mut() {
        *row = shifted(row, &[1.0], &b, 1.0);
    }
    let place = |store: &Store, id: u64| {
        let view = store.view();
        let resolved = view.resolved();
        resolved.vector(resolved.find(id).expect("shown")).as_ptr() as usize
    };
    let before = (child.view(), place(&child, 3), place(&child, 290));
    put(&child, &BTreeMap::from([(1000, noise(3, WIDE))]));
    model.insert(1000, noise(3, WIDE));
    assert_eq!((place(&child, 3), place(&child, 290)), (before.1, before.2));
    check(&child, &model);
    check(&open(child.path()), &model);
}

#[test]
fn what_an_overlay_cannot_do_is_said() {
    let dir = tempfile::tempdir().expect("dir");
    let (parent, _) = parent(&dir.path().join("p.rvf"), 3);
    let child = branch(&parent, &dir.path().join("c.rvf"));
    let (a, b) = ([1.0; 3], [1.0; WIDE]);
    let good = Overlay { ids: None, rank: 1, a: &a, b: &b, scale: 1.0 };
    let len = child.view().file_len();
    assert!(matches!(parent.overlay(&good), Err(Error::Invalid { .. })));
    assert!(matches!(child.overlay(&Overlay { rank: 0, ..good }), Err(Error::Invalid { .. })));
    assert!(matches!(child.overlay(&Overlay { a: &a[1..], ..good }), Err(Error::Invalid { .. })));
    assert!(matches!(
        child.overlay(&Overlay { ids: Some(&[0, 1, 9]), ..good }),
        Err(Error::NoSuchId { id: 9 })
    ));
    assert!(matches!(
        child.overlay(&Overlay { ids: Some(&[0, 1, 1]), ..good }),
        Err(Error::DuplicateId { id: 1 })
    ));
    assert!(matches!(child.overlay(&Overlay { scale: f32::NAN, ..good }), Err(Error::NotFinite { .. })));
    let huge = [f32::MAX; 3];
    let error = child.overlay(&Overlay { a: &huge, scale: 4.0, ..good });
    assert!(matches!(error, Err(Error::NotFinite { row: 0, component: 0 })), "{error:?}");
    assert_eq!(std::fs::metadata(child.path()).expect("stat").len(), len, "nothing was written");
}

#[test]
fn a_damaged_delta_is_found_and_leaves_the_inherited_row() {
    let dir = tempfile::tempdir().expect("dir");
    let (parent, mut model) = parent(&dir.path().join("p.rvf"), 10);
    let child = nested(&parent, dir.path());
    let inherited = model.clone();
    model.get_mut(&3).expect("there")[0] = 9.0;
    put(&child, &BTreeMap::from([(3, model[&3].clone())]));
    let place = {
        let view = child.view();
        let manifest = &view.opened().manifest.as_ref().expect("manifest").manifest;
        let entry = manifest.entries_of(SegType::DELTA).next().expect("a delta");
        usize::try_from(entry.offset + 64 + entry.payload_length - 1).expect("small")
    };
    let mut bytes = std::fs::read(child.path()).expect("read");
    bytes[place] ^= 1;
    std::fs::write(child.path(), bytes).expect("write");
    let store = open(child.path());
    let view = store.view();
    assert!(
        view.findings()
            .iter()
            .any(|f| f.severity == rvf_format::Severity::Damage && f.text.contains("DELTA"))
    );
    assert_eq!(nearest(&store, &inherited[&3], 1, true)[0], (3, 0.0));
    assert!(store.compact(&NoProgress).is_err(), "that would drop the change for good");
    // Without the parent nothing can be put together, and nothing is answered.
    std::fs::remove_file(parent.path()).expect("remove");
    assert!(open(child.path()).view().complete().is_err());
}

#[test]
fn refcounts_say_what_of_each_cluster_is_shown() {
    let dir = tempfile::tempdir().expect("dir");
    let (parent, model) = parent(&dir.path().join("p.rvf"), 2000);
    assert_eq!(parent.rebuild_refcounts().expect("no branch"), None);
    let child = branch(&parent, &dir.path().join("c.rvf"));
    let per = child.view().contents().cow.as_ref().expect("branch").map.vectors_per_cluster;
    let wanted = |gone: &[u64]| {
        let mut counts = vec![0u32; 2000usize.div_ceil(per as usize)];
        for id in (0..2000u64).filter(|id| !gone.contains(id)) {
            counts[id as usize / per as usize] += 1;
        }
        counts
    };
    let counted = |store: &Store| store.rebuild_refcounts().expect("counts").expect("a branch").counts;
    assert_eq!(counted(&child), wanted(&[]));
    child.delete(&[1, 1999]).expect("delete");
    put(&child, &BTreeMap::from([(2, noise(9, WIDE)), (9999, model[&0].clone())]));
    assert_eq!(counted(&child), wanted(&[1, 2, 1999]));
    let view = open(child.path()).view();
    let manifest = &view.opened().manifest.as_ref().expect("manifest").manifest;
    let listed: Vec<_> = manifest.entries_of(SegType::REFCOUNT).collect();
    assert_eq!(listed.len(), 1, "older counts do not count");
    let segment = view.opened().layout.segment_at_offset(listed[0].offset).expect("there");
    let stored = rvf_format::refcount::Refcount::parse(segment.payload_of(view.bytes())).expect("refcounts");
    assert_eq!(stored.counts, wanted(&[1, 2, 1999]));
    assert_eq!(view.reference_opens(), Ok(()));
}

#[derive(Debug, Clone)]
enum Step {
    Patch { ids: Vec<u64>, at: usize, value: i8 },
    Full { ids: Vec<u64>, seed: u64 },
    Overlay { ids: Vec<u64>, seed: u64 },
    Delete { ids: Vec<u64> },
    Branch,
    Compact,
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let some =
        || proptest::collection::btree_set(0u64..12, 1..8).prop_map(|s| s.into_iter().collect::<Vec<_>>());
    let step = prop_oneof![
        6 => (some(), 0..WIDE, any::<i8>()).prop_map(|(ids, at, value)| Step::Patch { ids, at, value }),
        2 => (some(), 0u64..9).prop_map(|(ids, seed)| Step::Full { ids, seed }),
        4 => (some(), 0u64..9).prop_map(|(ids, seed)| Step::Overlay { ids, seed }),
        2 => some().prop_map(|ids| Step::Delete { ids }),
        2 => Just(Step::Branch),
        1 => Just(Step::Compact),
    ];
    (any::<usize>(), step)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn histories_over_a_tree_of_branches(steps in proptest::collection::vec(step(), 1..24)) {
        let dir = tempfile::tempdir().expect("dir");
        let (root, model) = parent(&dir.path().join("p.rvf"), 10);
        let first = branch(&root, &dir.path().join("b0.rvf"));
        let mut nodes = vec![(root, model.clone()), (first, model)];
        for (which, step) in steps {
            // The root changes too; its branches must not.
            let at = which % nodes.len();
            let count = nodes.len();
            let (store, model) = &mut nodes[at];
            match step {
                Step::Patch { ids, at, value } => {
                    let mut batch = Model::new();
                    for id in ids {
                        let mut row = model.get(&id).cloned().unwrap_or_else(|| noise(id + 900, WIDE));
                        row[at] = f32::from(value);
                        batch.insert(id, row);
                    }
                    put(store, &batch);
                    model.extend(batch);
                }
                Step::Full { ids, seed } => {
                    let batch: Model = ids.into_iter().map(|id| (id, noise(seed * 100 + id, WIDE))).collect();
                    put(store, &batch);
                    model.extend(batch);
                }
                Step::Overlay { ids, seed } if at > 0 => {
                    let ids: Vec<u64> = ids.into_iter().filter(|id| model.contains_key(id)).collect();
                    if ids.is_empty() { continue; }
                    let (a, b) = (noise(seed + 1, 2 * ids.len()), noise(seed + 2, 2 * WIDE));
                    store.overlay(&Overlay { ids: Some(&ids), rank: 2, a: &a, b: &b, scale: 0.25 }).expect("overlay");
                    for (at, id) in ids.iter().enumerate() {
                        let row = shifted(&model[id], &a[2 * at..2 * at + 2], &b, 0.25);
                        model.insert(*id, row);
                    }
                }
                Step::Overlay { .. } => {}
                Step::Delete { ids } => {
                    store.delete(&ids).expect("delete");
                    model.retain(|id, _| !ids.contains(id));
                }
                Step::Compact => { store.compact(&NoProgress).expect("compact"); }
                Step::Branch if count < 6 => {
                    let child = branch(store, &dir.path().join(format!("b{count}.rvf")));
                    let model = model.clone();
                    nodes.push((child, model));
                }
                Step::Branch => {}
            }
            for (store, model) in &nodes {
                check(&open(store.path()), model);
            }
            check(&nodes[at].0, &nodes[at].1);
        }
    }
}
