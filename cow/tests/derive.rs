//! Derived children are what their type says, whole or not there, and their lineage can be proven.

mod branches;

use std::path::Path;
use std::sync::Arc;

use branches::*;
use rvf_cow::{
    Batch, Change, Conflict, CreateOptions, Derive, DeriveReport, Derived, Error, LineageState, Map, Metric,
    NoProgress, Precision, Progress, ReindexOptions, Store, Value, lineage, prove, verify_proof_of,
};

fn derive(store: &Store, path: &Path, how: &Derive<'_>) -> (Arc<Store>, DeriveReport) {
    match store.derive(path, "child", how, &NoProgress).expect("derive") {
        Derived::Made(report) => (open(path), report),
        Derived::Conflicts(conflicts) => panic!("{conflicts:?}"),
    }
}

fn vector(store: &Store, id: u64) -> Vec<f32> {
    let view = store.view();
    let resolved = view.resolved();
    let place = resolved.find(id).unwrap_or_else(|| panic!("id {id} is shown"));
    resolved.vector(place).chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four"))).collect()
}

/// A branch of a store with edits, records in both, so that what a copy takes comes from two files.
fn family(dir: &Path, rows: u64) -> (Arc<Store>, Arc<Store>) {
    let parent = create(&dir.join("p.rvf"), 0..rows);
    for id in [3, 4, 9] {
        parent.put_metadata(id, &field("colour", "red")).expect("put");
    }
    let child = branch(&parent, &dir.join("c.rvf"));
    put(&child, &[5, 20_000], 7);
    child.delete(&[6, 9]).expect("delete");
    child.put_metadata(4, &field("shade", "dark")).expect("put");
    child.put_metadata(5, &field("colour", "blue")).expect("put");
    (parent, child)
}

fn same_records(a: &Store, b: &Store) {
    let (a, b) = (a.view(), b.view());
    assert_eq!(a.metadata_ids(), b.metadata_ids());
    for id in a.metadata_ids() {
        assert_eq!(a.fields(id), b.fields(id), "{id}");
    }
    assert_eq!(
        a.matching_ids("colour = 'red'").expect("filter"),
        b.matching_ids("colour = 'red'").expect("filter")
    );
}

#[test]
fn a_reindexed_child_has_the_vectors_and_an_index_of_its_own() {
    let dir = tempfile::tempdir().expect("dir");
    let (parent, child) = family(dir.path(), 8000);
    let index = ReindexOptions { m: 6, ef_construction: 40, threads: 1, ..ReindexOptions::default() };
    let (made, report) = derive(&child, &dir.path().join("r.rvf"), &Derive::Reindex(&index));
    assert!(report.standalone && report.vectors == 7999);
    assert!(!made.view().is_child() && child.view().image().is_none());
    let image = made.view().image().cloned().expect("the image lies in the child");
    assert_eq!((image.nodes(), made.view().index_state().place), (7999, "file"));
    assert_eq!(ids(&made), ids(&child));
    same_records(&made, &child);
    let record = made.view().derived().expect("a record").clone();
    assert_eq!(record.parameters[..2], [("m".into(), "6".into()), ("ef_construction".into(), "40".into())]);
    let mut found = 0;
    for seed in 0..20 {
        let query = noise(seed + 900, DIM);
        assert_eq!(nearest(&made, &query, 10, true), nearest(&child, &query, 10, true));
        let exact: Vec<u64> = nearest(&made, &query, 10, true).iter().map(|hit| hit.0).collect();
        found += nearest(&made, &query, 10, false).iter().filter(|hit| exact.contains(&hit.0)).count();
    }
    assert!(found >= 180, "{found} of 200");
    let answers = made.view().search(&request(&noise(1, DIM), 10, false)).expect("search");
    assert_eq!(answers[0].layer, "C", "its searches walk its index");
    // It does not need its parents.
    for store in [parent, child] {
        std::fs::remove_file(store.path()).expect("remove");
    }
    assert_eq!(open(made.path()).view().resolved().len(), 7999);
    assert_eq!(open(made.path()).view().fields(4), Some(field("shade", "dark")));
}

#[test]
fn a_quantized_child_is_smaller_and_its_vectors_are_the_rounded_ones() {
    let dir = tempfile::tempdir().expect("dir");
    let (_, child) = family(dir.path(), 1500);
    let (plain, same) = derive(
        &child,
        &dir.path().join("plain.rvf"),
        &Derive::Transform(&Map { truncate: Some(DIM), ..Map::default() }),
    );
    for (name, precision, error, share) in
        [("h.rvf", Precision::F16, 1.0 / 1024.0, 0.8), ("q.rvf", Precision::Int8, 2.01 / 255.0 / 2.0, 0.55)]
    {
        let (made, report) = derive(&child, &dir.path().join(name), &Derive::Quantize(precision));
        assert!((report.branch.bytes as f64) < share * same.branch.bytes as f64, "{report:?}");
        assert_eq!(ids(&made), ids(&child));
        same_records(&made, &child);
        for id in ids(&child) {
            for (rounded, exact) in vector(&made, id).iter().zip(vector(&plain, id)) {
                assert!((rounded - exact).abs() <= error, "{name} {id}: {rounded} for {exact}");
            }
        }
        assert_ne!(vector(&made, 7), vector(&plain, 7));
        let query = noise(77, DIM);
        assert_eq!(
            nearest(&made, &query, 10, true),
            truth(&made, &query, 10),
            "distances are of what is shown"
        );
        assert!(made.view().reference_opens().is_err());
        assert_eq!(made.view().status().health, "ok", "{:?}", made.view().findings());

        // Edits and compaction: nothing is rounded twice, and what was saved stays saved.
        put(&made, &[8, 3000], 5);
        made.delete(&[10]).expect("delete");
        let shown: Vec<(u64, Vec<f32>)> = ids(&made).iter().map(|id| (*id, vector(&made, *id))).collect();
        made.compact(&NoProgress).expect("compact");
        for made in [Arc::clone(&made), open(made.path())] {
            let now: Vec<(u64, Vec<f32>)> = ids(&made).iter().map(|id| (*id, vector(&made, *id))).collect();
            assert_eq!(now, shown);
            assert!(made.view().reference_opens().is_err());
        }
        assert!((made.view().file_len() as f64) < share * same.branch.bytes as f64);
        let index = ReindexOptions { threads: 1, ..ReindexOptions::default() };
        made.reindex(&index, &NoProgress).expect("reindex");
        assert_eq!(open(made.path()).view().index_state().indexed, 1499);
    }
    let huge = create(&dir.path().join("huge.rvf"), 0..1);
    huge.ingest(&Batch { vectors: vec![1e9; DIM], ..batch(&[1], 1) }, &NoProgress).expect("ingest");
    let path = dir.path().join("no.rvf");
    let error =
        huge.derive(&path, "", &Derive::Quantize(Precision::F16), &NoProgress).expect_err("too large");
    assert!(error.to_string().contains("vector 1: f16 cannot hold"), "{error}");
    let empty = create(&dir.path().join("empty.rvf"), 0..0);
    for (name, precision) in [("e1.rvf", Precision::F16), ("e2.rvf", Precision::Int8)] {
        let (made, _) = derive(&empty, &dir.path().join(name), &Derive::Quantize(precision));
        assert_eq!(made.view().resolved().len(), 0);
        put(&made, &[1], 1);
        assert_eq!(ids(&made), [1]);
    }
}

#[test]
fn damage_to_a_quantiser_is_damage_to_the_vectors() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), 0..50);
    let (made, _) = derive(&parent, &dir.path().join("q.rvf"), &Derive::Quantize(Precision::Int8));
    let mut bytes = std::fs::read(made.path()).expect("read");
    // The quantiser is the first segment.
    bytes[64 + 70] ^= 1;
    std::fs::write(made.path(), &bytes).expect("write");
    let view = open(made.path()).view();
    assert_eq!(view.live(), 0, "no vector is shown that is not what it was");
    assert!(view.status().health.starts_with("damaged"), "{:?}", view.findings());
}

#[test]
fn damage_is_not_copied_into_a_sound_file() {
    let dir = tempfile::tempdir().expect("dir");
    let (parent, child) = family(dir.path(), 8000);
    let mut bytes = std::fs::read(parent.path()).expect("read");
    // In the middle of the parent's vectors.
    bytes[30_000] ^= 1;
    std::fs::write(parent.path(), &bytes).expect("write");
    let index = ReindexOptions { threads: 1, ..ReindexOptions::default() };
    let options = rvf_cow::OpenOptions { verify: false, ..Default::default() };
    let child = Store::open(child.path(), &options).expect("open");
    let path = dir.path().join("r.rvf");
    let error = child.derive(&path, "", &Derive::Reindex(&index), &NoProgress).expect_err("damaged");
    let refused = matches!(error, Error::Damaged { .. } | Error::Unsupported { .. });
    assert!(refused && error.to_string().contains("p.rvf"), "{error}");
    assert!(!path.exists());
}

#[test]
fn a_transformed_child_has_the_images() {
    let dir = tempfile::tempdir().expect("dir");
    let (_, child) = family(dir.path(), 1500);
    let matrix: Vec<f32> = noise(5, DIM * 3);
    let bias = vec![0.5, -1.0, 0.25];
    let map =
        Map { matrix: Some(matrix.clone()), bias: Some(bias.clone()), truncate: Some(2), normalize: true };
    let (made, report) = derive(&child, &dir.path().join("t.rvf"), &Derive::Transform(&map));
    assert_eq!((report.dimension, made.view().dimension()), (2, 2));
    same_records(&made, &child);
    for id in ids(&child) {
        let x = vector(&child, id);
        let mut y: Vec<f64> = (0..2)
            .map(|j| {
                let sum: f64 =
                    x.iter().enumerate().map(|(i, x)| f64::from(*x) * f64::from(matrix[i * 3 + j])).sum();
                sum + f64::from(bias[j])
            })
            .collect();
        let length = (y[0] * y[0] + y[1] * y[1]).sqrt();
        y.iter_mut().for_each(|v| *v /= length);
        for (got, want) in vector(&made, id).iter().zip(y) {
            assert!((f64::from(*got) - want).abs() < 1e-6, "{id}");
        }
    }
    let record = made.view().derived().expect("a record").clone();
    let keys: Vec<&str> = record.parameters.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["matrix", "bias", "truncate", "normalize"]);
    let refused = |map: Map| {
        let path = dir.path().join("no.rvf");
        child.derive(&path, "", &Derive::Transform(&map), &NoProgress).expect_err("refused").to_string()
    };
    assert!(refused(Map { matrix: Some(vec![1.0; DIM + 1]), ..Map::default() }).contains("does not fit"));
    assert!(refused(Map { bias: Some(vec![1.0]), ..Map::default() }).contains("does not fit"));
    assert!(refused(Map { truncate: Some(DIM + 1), ..Map::default() }).contains("cannot be kept"));
    assert!(refused(Map { bias: Some(vec![f32::NAN; DIM]), ..Map::default() }).contains("finite"));
    let over = Map { matrix: Some(vec![f32::MAX; DIM]), ..Map::default() };
    assert!(refused(over).contains("not finite"));
}

#[test]
fn a_merge_takes_the_changes_since_both_parted() {
    let dir = tempfile::tempdir().expect("dir");
    let (parent, child) = family(dir.path(), 1500);
    let sibling = branch(&parent, &dir.path().join("s.rvf"));
    put(&sibling, &[4000], 1);
    sibling.delete(&[20]).expect("delete");
    sibling.put_metadata(30, &field("colour", "red")).expect("put");
    let sides: Vec<Vec<u8>> =
        [&parent, &child, &sibling].map(|s| std::fs::read(s.path()).expect("read")).into();
    let (made, report) = derive(&child, &dir.path().join("m.rvf"), &Derive::Merge(&sibling));
    assert!(!report.standalone);
    let mut expected = ids(&child);
    expected.push(4000);
    expected.retain(|id| *id != 20);
    expected.sort_unstable();
    assert_eq!(ids(&made), expected);
    assert_eq!(report.vectors, expected.len() as u64);
    assert_eq!(vector(&made, 4000), vector(&sibling, 4000));
    assert_eq!(vector(&made, 5), vector(&child, 5));
    assert_eq!(made.view().fields(30), Some(field("colour", "red")));
    assert_eq!(made.view().fields(4), Some(field("shade", "dark")));
    let record = made.view().pin().expect("a pin").clone();
    let id_of = |s: &Store| s.view().opened().manifest.as_ref().unwrap().manifest.identity.unwrap().file_id;
    assert_eq!((record.parent.file_id, record.others[0].file_id), (id_of(&child), id_of(&sibling)));

    // The same with the parent gone on and compacted: the common state is the one that it was.
    put(&parent, &[5000], 1);
    parent.compact(&NoProgress).expect("compact");
    let cousin = branch(&parent, &dir.path().join("k.rvf"));
    cousin.delete(&[21]).expect("delete");
    let (made, _) = derive(&open(child.path()), &dir.path().join("m2.rvf"), &Derive::Merge(&cousin));
    assert!(made.view().resolved().find(5000).is_some() && made.view().resolved().find(21).is_none());
    assert!(made.view().resolved().find(6).is_none() && made.view().resolved().find(20_000).is_some());

    // Conflicts: all of them with what was changed, and nothing is made.
    put(&sibling, &[5], 99);
    sibling.put_metadata(4, &field("colour", "green")).expect("put");
    let path = dir.path().join("x.rvf");
    let names = std::fs::read_dir(dir.path()).expect("dir").count();
    let Derived::Conflicts(conflicts) =
        open(child.path()).derive(&path, "", &Derive::Merge(&sibling), &NoProgress).expect("derive")
    else {
        panic!("conflicts are found")
    };
    let of = |vector, fields: &[&str]| Change::Changed {
        vector,
        fields: fields.iter().map(|f| (*f).to_owned()).collect(),
    };
    assert_eq!(
        conflicts,
        [
            Conflict { id: 4, parent: of(false, &["colour", "shade"]), branch: of(false, &["colour"]) },
            Conflict { id: 5, parent: of(true, &["colour"]), branch: of(true, &[]) },
        ]
    );
    assert!(!path.exists());
    assert_eq!(std::fs::read_dir(dir.path()).expect("dir").count(), names, "nothing is left behind");
    assert_eq!(std::fs::read(child.path()).expect("read"), sides[1]);
}

#[test]
fn stores_that_share_nothing_are_put_together() {
    let dir = tempfile::tempdir().expect("dir");
    let one = create(&dir.path().join("1.rvf"), 0..20);
    let two = create(&dir.path().join("2.rvf"), 10..30);
    two.put_metadata(25, &field("colour", "red")).expect("put");
    let (made, _) = derive(&one, &dir.path().join("m.rvf"), &Derive::Merge(&two));
    assert_eq!(ids(&made), (0..30).collect::<Vec<_>>());
    assert_eq!(made.view().fields(25), Some(field("colour", "red")));
    put(&two, &[15], 50);
    let clash = one.derive(&dir.path().join("n.rvf"), "", &Derive::Merge(&two), &NoProgress).expect("derive");
    let conflict = Conflict { id: 15, parent: Change::Added, branch: Change::Added };
    assert_eq!(clash, Derived::Conflicts(vec![conflict]));

    let options = CreateOptions { dimension: DIM as u16, metric: Metric::Cosine, profile: 0 };
    let other = Store::create(&dir.path().join("o.rvf"), &options).expect("create");
    let error = one.derive(&dir.path().join("n.rvf"), "", &Derive::Merge(&other), &NoProgress);
    assert!(error.expect_err("metrics").to_string().contains("cannot be merged"));
    // Two copies of one file that went different ways.
    std::fs::copy(one.path(), dir.path().join("copy.rvf")).expect("copy");
    let copy = open(&dir.path().join("copy.rvf"));
    put(&copy, &[100], 1);
    put(&one, &[101], 1);
    put(&one, &[102], 1);
    let error = one.derive(&dir.path().join("n.rvf"), "", &Derive::Merge(&copy), &NoProgress);
    assert!(error.expect_err("no common state").to_string().contains("different ways"));
}

#[test]
fn a_merge_says_what_remains() {
    let dir = tempfile::tempdir().expect("dir");
    let (parent, child) = family(dir.path(), 1500);
    let report = child.merge_into(&parent).expect("merge");
    assert_eq!(report.remaining.added + report.remaining.removed + report.remaining.changed, 0);
    let witnesses = |store: &Store| {
        let view = store.view();
        view.opened().layout.segments().filter(|s| s.kind() == rvf_format::SegType::WITNESS).count()
    };
    let (before, epoch) = (witnesses(&parent), parent.view().epoch());
    parent.delete(&[50]).expect("delete");
    put(&child, &[60], 3);
    let report = child.merge_into(&parent).expect("merge");
    assert_eq!((report.changed, report.remaining.removed, report.remaining.changed), (1, 1, 0));
    assert_eq!(
        (parent.view().epoch(), witnesses(&parent)),
        (epoch + 2, before + 2),
        "one commit, one witness"
    );
}

struct Never;

impl Progress for Never {
    fn step(&self, _: u64, _: u64) -> bool {
        false
    }
}

#[test]
fn what_is_not_finished_is_not_there() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), 0..1200);
    let path = dir.path().join("c.rvf");
    let index = ReindexOptions { threads: 1, ..ReindexOptions::default() };
    for how in [
        Derive::Quantize(Precision::Int8),
        Derive::Reindex(&index),
        Derive::Transform(&Map { normalize: true, ..Map::default() }),
    ] {
        assert!(matches!(parent.derive(&path, "", &how, &Never), Err(Error::Cancelled)));
    }
    assert!(parent.derive(&path, "", &Derive::Filter("year >"), &NoProgress).is_err());
    let names: Vec<_> =
        std::fs::read_dir(dir.path()).expect("dir").map(|e| e.expect("entry").file_name()).collect();
    assert_eq!(names, ["p.rvf"]);
    // What a killed process left behind is removed by the next one.
    let left = dir.path().join(".pending-999999999-0-c.rvf");
    std::fs::write(&left, b"half").expect("write");
    let (_, _) = derive(&parent, &path, &Derive::Snapshot);
    assert!(!left.exists());
    assert!(matches!(parent.derive(&path, "", &Derive::Clone, &NoProgress), Err(Error::Exists { .. })));
}

#[test]
fn lineages_are_listed_and_proven() {
    let dir = tempfile::tempdir().expect("dir");
    let root = create(&dir.path().join("root.rvf"), 0..3000);
    let (filtered, _) = {
        root.put_metadata(1, &vec![("year".to_owned(), Value::U64(2001))]).expect("put");
        derive(&root, &dir.path().join("f.rvf"), &Derive::Filter("year > 2000"))
    };
    let (rounded, _) = derive(&filtered, &dir.path().join("q.rvf"), &Derive::Quantize(Precision::F16));
    let (last, _) = derive(&rounded, &dir.path().join("s.rvf"), &Derive::Snapshot);
    let words = |path: &Path| -> Vec<(u32, String, LineageState)> {
        let all = lineage(path).expect("lineage");
        all.iter().map(|g| (g.depth, g.derivation(), g.state)).collect()
    };
    use LineageState::{Mismatch, Missing, Verified};
    let expected = |states: [LineageState; 4]| -> Vec<(u32, String, LineageState)> {
        let kinds = ["root", "filter", "quantize", "snapshot"];
        (0..).zip(kinds).zip(states).map(|((depth, kind), state)| (depth, kind.to_owned(), state)).collect()
    };
    assert_eq!(words(last.path()), expected([Verified; 4]));
    let proof = prove(last.path()).expect("prove");
    let proven = proof.verify().expect("it holds");
    assert_eq!(proven.len(), 4);
    assert!(proven.iter().all(|step| step.binding == rvf_crypto::lineage::Binding::Shake));
    assert!(verify_proof_of(&proof, last.path()).expect("read"));
    assert!(!verify_proof_of(&proof, rounded.path()).expect("read"), "another file");

    // Parents go on; the states stay. A compaction keeps the one that a branch stands on.
    put(&root, &[9000], 1);
    assert_eq!(words(last.path()), expected([Verified; 4]));
    root.compact(&NoProgress).expect("compact");
    assert_eq!(words(last.path()), expected([Verified; 4]));
    assert_eq!(prove(last.path()).expect("prove"), proof);
    // Nothing stands on the filtered one, so its old state is gone with a compaction.
    filtered.compact(&NoProgress).expect("compact");
    assert_eq!(words(last.path())[1].2, Mismatch);
    assert!(prove(last.path()).expect_err("not provable").to_string().contains("f.rvf"));
    std::fs::remove_file(filtered.path()).expect("remove");
    let gone = words(last.path());
    assert_eq!(gone[0], (1, "-".into(), Missing));
    assert_eq!(gone.len(), 3);
    assert!(prove(last.path()).expect_err("not provable").to_string().contains("q.rvf"));
    // The proof outlives all of them.
    for path in [root.path(), rounded.path()] {
        std::fs::remove_file(path).expect("remove");
    }
    assert!(proof.verify().is_ok() && verify_proof_of(&proof, last.path()).expect("read"));
}
