//! Branches as a caller sees them: made in constant space, edited on both sides, chained, frozen, moved, broken.

mod branches;

use std::sync::Arc;

use branches::*;
use rvf_cow::{
    Batch, BranchOptions, Derivation, Error, Family, NoProgress, ReindexOptions, SearchRequest, Store, Value,
};

#[test]
fn a_fresh_branch_is_small_and_shows_the_parent() {
    let dir = tempfile::tempdir().expect("dir");
    for n in [0, 1, 5000] {
        let path = dir.path().join(format!("p{n}.rvf"));
        let parent = create(&path, 0..n.max(1));
        if n == 0 {
            parent.delete(&[0]).expect("delete");
        }
        let before = std::fs::read(&path).expect("read");
        let child_path = dir.path().join(format!("p{n}.exp.rvf"));
        let options = BranchOptions {
            name: "exp".into(),
            derivation: Derivation::Snapshot,
            ..BranchOptions::default()
        };
        let report = parent.branch(&child_path, &options).expect("branch");
        assert_eq!(std::fs::read(&path).expect("read"), before, "the parent is not touched");
        // Record and first witness included.
        assert!(report.bytes <= 1088, "{} bytes", report.bytes);
        assert_eq!((report.prefix, report.depth, report.reference), (before.len() as u64, 1, Ok(())));
        let child = open(&child_path);
        let view = child.view();
        assert_eq!(view.status().health, "ok");
        assert_eq!(view.reference_opens(), Ok(()));
        let pin = view.pin().expect("pin");
        assert_eq!((pin.name.as_str(), pin.derivation), ("exp", Derivation::Snapshot));
        assert_eq!((view.live(), view.resolved().len()), (0, n));
        assert_eq!(ids(&child), (0..n).collect::<Vec<_>>());
        for seed in 0..5 {
            let query = noise(seed, DIM);
            assert_eq!(nearest(&child, &query, 10, true), nearest(&parent, &query, 10, true));
        }
        let names: Vec<_> =
            std::fs::read_dir(dir.path()).expect("ls").map(|e| e.expect("e").file_name()).collect();
        assert!(names.iter().all(|n| n.to_string_lossy().ends_with(".rvf")), "{names:?}");
        let again = parent.branch(&child_path, &BranchOptions::default());
        assert!(matches!(again, Err(Error::Exists { .. })));
    }
}

#[test]
fn edits_on_either_side_stay_there() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), 0..100);
    let child = branch(&parent, &dir.path().join("c.rvf"));
    let vector_of = |store: &Store, id: u64| {
        let view = store.view();
        let resolved = view.resolved();
        resolved.find(id).map(|place| resolved.vector(place).to_vec())
    };
    let old = vector_of(&parent, 5);

    // The child: overwrite, add, delete an inherited one, an overwritten one and an own one, bring one back.
    put(&child, &[5, 6, 1000, 1001], 7);
    let report = child.delete(&[6, 7, 1001, 5_000]).expect("delete");
    assert_eq!((report.deleted, report.missing), (3, 1));
    put(&child, &[8], 7);
    child.delete(&[8]).expect("delete");
    put(&child, &[8], 9);
    let expected: Vec<u64> = (0..100).filter(|id| ![6, 7].contains(id)).chain([1000]).collect();
    for store in [&child, &open(child.path())] {
        assert_eq!(ids(store), expected);
        assert_ne!(vector_of(store, 5), old);
        assert_eq!(vector_of(store, 7), None);
        for seed in 0..10 {
            let query = noise(100 + seed, DIM);
            assert_eq!(nearest(store, &query, 20, true), truth(store, &query, 20));
            assert_eq!(nearest(store, &query, 200, false).len(), 99);
        }
    }
    assert_eq!(ids(&parent), (0..100).collect::<Vec<_>>());
    assert_eq!(vector_of(&parent, 5), old);

    // The parent goes on living.
    parent.delete(&(50..100).collect::<Vec<_>>()).expect("delete");
    put(&parent, &[1, 2000], 3);
    for store in [&child, &open(child.path())] {
        assert_eq!(ids(store), expected);
        assert!(matches!(store.view().parent_state(), Some(Ok(_))));
    }
    let why = open(child.path()).view().reference_opens().expect_err("the parent grew");
    assert!(why.contains("changed since"), "{why}");

    // Numbering goes on after the highest id of the chain.
    let auto = Batch { ids: None, ..batch(&[0], 4) };
    assert_eq!(child.ingest(&auto, &NoProgress).expect("ingest").first_id, Some(1002));
    let fresh = branch(&parent, &dir.path().join("d.rvf"));
    assert_eq!(fresh.ingest(&auto, &NoProgress).expect("ingest").first_id, Some(2001));
}

#[test]
fn metadata_of_a_child_lie_over_the_parents() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), 0..0);
    let rows = Batch {
        metadata: (0..10).map(|i| field("colour", if i < 5 { "red" } else { "blue" })).collect(),
        ..batch(&(0..10).collect::<Vec<_>>(), 1)
    };
    parent.ingest(&rows, &NoProgress).expect("ingest");
    let child = branch(&parent, &dir.path().join("c.rvf"));
    let grandchild = branch(&child, &dir.path().join("g.rvf"));
    assert_eq!(child.view().matching_ids("colour = 'red'").expect("filter"), [0, 1, 2, 3, 4]);

    child.put_metadata(1, &field("colour", "green")).expect("put");
    child.put_metadata(2, &Vec::new()).expect("put");
    put(&child, &[3], 9);
    child.delete(&[4]).expect("delete");
    put(&child, &[4], 9);
    let named = vec![("colour".to_owned(), Value::String("red".into())), ("size".to_owned(), Value::I64(-3))];
    child.put_metadata(7, &named).expect("put");
    for store in [&child, &open(child.path())] {
        let view = store.view();
        assert_eq!(view.fields(0), Some(field("colour", "red")));
        assert_eq!(view.fields(1), Some(field("colour", "green")));
        assert_eq!(view.fields(2), None);
        assert_eq!(view.fields(3), Some(field("colour", "red")), "an overwritten row keeps its record");
        assert_eq!(view.fields(4), None, "a deleted row loses it");
        assert_eq!(view.metadata_ids(), [0, 1, 3, 5, 6, 7, 8, 9]);
        let mut red = view.matching_ids("colour = 'red'").expect("filter");
        red.sort_unstable();
        assert_eq!(red, [0, 3, 7]);
        assert_eq!(view.matching_ids("size < 0").expect("filter"), [7]);
        let query = noise(5, DIM);
        let filtered = SearchRequest { filter: Some("colour = 'red'"), ..request(&query, 10, false) };
        let mut hits: Vec<u64> =
            view.search(&filtered).expect("search")[0].hits.iter().map(|h| h.id).collect();
        hits.sort_unstable();
        assert_eq!(hits, [0, 3, 7]);
        assert_eq!(view.resolved().len(), 10);
    }
    let wrong = child.put_metadata(0, &vec![("colour".to_owned(), Value::I64(1))]);
    assert!(matches!(wrong, Err(Error::Invalid { .. })), "the type of the parent's field holds: {wrong:?}");
    assert!(matches!(child.put_metadata(99, &field("a", "b")), Err(Error::NoSuchId { id: 99 })));
    assert_eq!(parent.view().fields(1), Some(field("colour", "red")));

    // The grandchild was made before all that, and has its own view of the same records.
    assert_eq!(grandchild.view().fields(1), Some(field("colour", "red")));
    let late = branch(&child, &dir.path().join("l.rvf"));
    assert_eq!(late.view().fields(1), Some(field("colour", "green")));
    assert_eq!(late.view().fields(2), None);
    assert_eq!(late.view().metadata_ids(), [0, 1, 3, 5, 6, 7, 8, 9]);
    late.put_metadata(1, &field("colour", "red")).expect("put");
    let mut red = late.view().matching_ids("colour = 'red'").expect("filter");
    red.sort_unstable();
    assert_eq!(red, [0, 1, 3, 7]);
}

#[test]
fn a_chain_of_branches_is_seen_through_to_its_end() {
    let dir = tempfile::tempdir().expect("dir");
    let root = create(&dir.path().join("0.rvf"), 0..50);
    let mut youngest = Arc::clone(&root);
    let mut refused = None;
    for depth in 1..100u64 {
        let path = dir.path().join(format!("{depth}.rvf"));
        match youngest.branch(&path, &BranchOptions::default()) {
            Ok(report) => {
                assert_eq!(u64::from(report.depth), depth);
                assert_eq!(report.reference.is_ok(), depth == 1, "{:?}", report.reference);
            }
            Err(error) => {
                refused = Some((depth, error));
                break;
            }
        }
        youngest = open(&path);
        put(&youngest, &[1000 + depth, depth % 50], depth);
        youngest.delete(&[49 - depth % 7]).expect("delete");
    }
    let (depth, error) = refused.expect("a chain has an end");
    assert_eq!(depth, 64);
    assert!(error.to_string().contains("64"), "{error}");
    let again = open(youngest.path());
    assert!(again.view().status().health == "ok", "{:?}", again.view().findings());
    let shown = ids(&again);
    // Overwritten by a later generation than the one that deleted it, an id is back.
    assert!(shown.contains(&1063) && shown.contains(&1001));
    assert_eq!(shown.iter().filter(|id| **id >= 1000).count(), 63);
    for seed in 0..5 {
        let query = noise(seed, DIM);
        assert_eq!(nearest(&again, &query, 15, false), truth(&again, &query, 15));
    }
    let why = again.view().reference_opens().expect_err("the existing tools see one level");
    assert!(why.contains("one level"), "{why}");
    assert_eq!(ids(&root), (0..50).collect::<Vec<_>>());
}

#[test]
fn a_missing_or_foreign_parent_is_named_and_own_rows_stay() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("p.rvf");
    let parent = create(&path, 0..20);
    let child = branch(&parent, &dir.path().join("c.rvf"));
    put(&child, &[100], 1);
    let grandchild = branch(&child, &dir.path().join("g.rvf"));
    let moved = dir.path().join("elsewhere.rvf");
    std::fs::rename(&path, &moved).expect("rename");
    let query = noise(3, DIM);

    let refuse = |store: &Store, words: &[&str]| {
        let error = store.view().search(&request(&query, 3, true)).expect_err("refused").to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        let error = store.ingest(&batch(&[1], 1), &NoProgress).expect_err("refused").to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        let again = store.branch(&dir.path().join("x.rvf"), &BranchOptions::default());
        assert!(again.is_err());
    };
    let lost = open(child.path());
    assert_eq!(ids(&lost), [100], "its own rows are shown");
    refuse(&lost, &["p.rvf", "reparent"]);
    refuse(&open(grandchild.path()), &["c.rvf", "p.rvf"]);

    // Another file under that name, the right one cut short, and the right one with a changed byte.
    create(&path, 0..30);
    refuse(&open(child.path()), &["p.rvf", "no longer starts with"]);
    std::fs::remove_file(&path).expect("rm");
    let whole = std::fs::read(&moved).expect("read");
    std::fs::write(&path, &whole[..whole.len() - 64]).expect("write");
    refuse(&open(child.path()), &["p.rvf", "is shorter"]);
    let mut changed = whole.clone();
    changed[0x28] ^= 1;
    std::fs::write(&path, &changed).expect("write");
    refuse(&open(child.path()), &["p.rvf", "no longer starts with"]);
    std::fs::remove_file(&path).expect("rm");

    let wrong = lost.reparent(grandchild.path()).expect_err("another file");
    assert!(matches!(wrong, Error::Invalid { .. }), "{wrong}");
    lost.reparent(&moved).expect("reparent");
    assert_eq!(ids(&lost).len(), 21);
    let found = open(child.path());
    assert_eq!(nearest(&found, &query, 5, true), truth(&found, &query, 5));
    // The grandchild is pinned to the state before, which still names the old place; the new one is learned from its parent.
    assert_eq!(ids(&open(grandchild.path())).len(), 21);
    std::os::unix::fs::symlink(&moved, &path).expect("symlink");
    assert_eq!(ids(&open(grandchild.path())).len(), 21);
}

#[test]
fn a_frozen_store_stays_as_it_is_and_can_be_branched() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), 0..20);
    let child = branch(&parent, &dir.path().join("c.rvf"));
    put(&child, &[3], 5);
    for store in [&child, &parent] {
        let epoch = store.freeze().expect("freeze");
        assert_eq!(store.freeze().expect("again"), epoch);
        let bytes = std::fs::read(store.path()).expect("read");
        for store in [store, &open(store.path())] {
            assert_eq!(store.view().frozen(), Some(epoch));
            let errors = [
                store.ingest(&batch(&[1], 1), &NoProgress).map(drop),
                store.delete(&[1]).map(drop),
                store.put_metadata(1, &field("a", "b")).map(drop),
                store.compact(&NoProgress).map(drop),
                store.reindex(&ReindexOptions::default(), &NoProgress).map(drop),
            ];
            for result in errors {
                let error = result.expect_err("frozen");
                assert!(matches!(error, Error::Frozen { .. }), "{error}");
                assert_eq!((error.family(), error.reference_code()), (Family::Policy, Some(0x0305)));
            }
        }
        assert_eq!(std::fs::read(store.path()).expect("read"), bytes, "not a byte was written");
        let next = branch(store, &store.path().with_extension("next.rvf"));
        put(&next, &[1, 77], 8);
        assert_eq!(ids(&next), (0..20).chain([77]).collect::<Vec<_>>());
    }
    assert_eq!(
        ids(&open(child.path())).len(),
        20,
        "the child does not mind that its parent was frozen later"
    );
}

#[test]
fn a_hundred_edits_of_a_large_parent_stay_small() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), 0..0);
    // Ids as large as those of a store of a million vectors.
    put(&parent, &(900_000..901_000).collect::<Vec<_>>(), 1);
    let child = branch(&parent, &dir.path().join("c.rvf"));
    for id in 900_000..900_050 {
        child.delete(&[id]).expect("delete");
        put(&child, &[id + 100], 2);
    }
    let len = child.view().file_len();
    assert!(len <= 300_000, "{len} bytes");
    assert_eq!(child.view().resolved().len(), 950);
    let why = open(child.path()).view().reference_opens().expect_err("a list took over");
    assert!(why.contains("bitmap"), "{why}");

    // Ids of 53 bits.
    let large = create(&dir.path().join("l.rvf"), 0..0);
    put(&large, &[1, (1 << 53) - 1, u64::MAX], 1);
    let child = branch(&large, &dir.path().join("lc.rvf"));
    assert_eq!(child.view().reference_opens(), Ok(()));
    child.delete(&[(1 << 53) - 1, u64::MAX]).expect("delete");
    assert_eq!(ids(&open(child.path())), [1]);
    assert!(child.view().reference_opens().is_err());
    assert!(child.view().file_len() < 3000);
}

#[test]
fn masked_rows_never_shorten_an_answer() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), 0..3000);
    parent
        .reindex(&ReindexOptions { threads: 1, ..ReindexOptions::default() }, &NoProgress)
        .expect("reindex");
    let child = branch(&parent, &dir.path().join("c.rvf"));
    let query = noise(77, DIM);
    assert_eq!(child.view().search(&request(&query, 10, false)).expect("search")[0].layer, "C");
    // The nearest rows go, then nearly all.
    for count in [30, 1500, 2990] {
        let nearest_ids: Vec<u64> = truth(&parent, &query, count).iter().map(|h| h.0).collect();
        child.delete(&nearest_ids).expect("delete");
        let left = 3000 - count;
        let got = nearest(&child, &query, 25, false);
        assert_eq!(got.len(), left.min(25), "{count} masked");
        assert_eq!(nearest(&child, &query, 25, true), truth(&child, &query, 25), "{count} masked");
        let best = truth(&child, &query, 25);
        let found = best.iter().filter(|hit| got.contains(hit)).count();
        assert!(found * 10 >= best.len() * 9, "{found} of {}", best.len());
    }
}

#[test]
fn an_index_made_after_the_branch_serves_it_too() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), 0..3000);
    let child = branch(&parent, &dir.path().join("c.rvf"));
    put(&child, &[5], 9);
    let layer = |store: &Store| {
        let query = noise(3, DIM);
        store.view().search(&request(&query, 10, false)).expect("search")[0].layer
    };
    assert_eq!(layer(&child), "scan");
    let options = ReindexOptions { threads: 1, ..ReindexOptions::default() };
    parent.reindex(&options, &NoProgress).expect("reindex");
    assert_eq!(layer(&open(child.path())), "C");
    put(&child, &[6], 9);
    assert_eq!(layer(&child), "C", "a commit of the branch notices it as well");

    // One that lacks a row which the branch still shows does not fit.
    let other = create(&dir.path().join("q.rvf"), 0..3000);
    let child = branch(&other, &dir.path().join("d.rvf"));
    other.delete(&[17]).expect("delete");
    other.reindex(&options, &NoProgress).expect("reindex");
    let child = open(child.path());
    assert_eq!(layer(&child), "scan");
    assert!(ids(&child).contains(&17));
}

#[test]
fn branches_are_listed_by_lineage() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), 0..10);
    assert_eq!(parent.view().branches().expect("list"), []);
    let child = branch(&parent, &dir.path().join("b.rvf"));
    branch(&parent, &dir.path().join("a.rvdna")).freeze().expect("freeze");
    branch(&child, &dir.path().join("grandchild.rvf"));
    create(&dir.path().join("stranger.rvf"), 0..1);
    std::fs::write(dir.path().join("junk.rvf"), b"junk").expect("write");
    put(&parent, &[20], 1);
    parent.compact(&NoProgress).expect("compact");
    let all = parent.view().branches().expect("list");
    let names: Vec<_> = all.iter().map(|b| b.path.file_name().expect("name").to_owned()).collect();
    assert_eq!(names, ["a.rvdna", "b.rvf"]);
    assert_eq!(
        all.iter().map(|b| (b.depth, b.frozen, b.pin.is_some())).collect::<Vec<_>>(),
        [(1, true, true), (1, false, true)]
    );
    assert_eq!(child.view().branches().expect("list").len(), 1);
}

/// Files that name each other as parents, by hand: a circle, and a chain far deeper than any that is followed.
#[test]
fn hostile_chains_end() {
    use rvf_format::manifest::{FileIdentity, Manifest};
    use rvf_format::membership::{Membership, Mode};
    use rvf_format::storage::MemStorage;
    use rvf_format::writer::{Writer, dir_entry};
    use rvf_format::{SegType, checksum, cow_map::CowMap};

    let dir = tempfile::tempdir().expect("dir");
    // The hash of an empty file fits none, so each file names the real hash of the one before.
    let write = |name: &str, parent: &str, hash: [u8; 32]| {
        let storage = MemStorage::new(Vec::new());
        let mut writer = Writer::create(&storage).expect("writer");
        let (cluster_size, vectors_per_cluster, clusters) = CowMap::geometry(DIM as u16, 1);
        let map = CowMap {
            map_format: 0,
            compression_policy: 0,
            cluster_size,
            vectors_per_cluster,
            base_file_id: [1; 16],
            base_file_hash: hash,
            bytes_per_vector: 4 * DIM as u32,
            frozen: false,
            snapshot_epoch: 0,
            parent_path: parent.to_owned(),
            clusters,
        };
        let filter = Membership::empty(Mode::Exclude, 0).expect("filter");
        let map = writer.append(SegType::COW_MAP, &[&map.encode().expect("map")]).expect("append");
        let filter =
            writer.append(SegType::MEMBERSHIP, &[&filter.encode().expect("filter")]).expect("append");
        let manifest = Manifest {
            epoch: 0,
            dimension: DIM as u16,
            total_vectors: 0,
            profile_id: 0,
            metric: 0,
            directory: vec![dir_entry(&map), dir_entry(&filter)],
            deleted: vec![],
            identity: Some(FileIdentity {
                file_id: [1; 16],
                parent_id: [1; 16],
                parent_hash: hash,
                lineage_depth: 1,
            }),
            hashes: None,
        };
        writer.commit(&manifest).expect("commit");
        let bytes = storage.live();
        std::fs::write(dir.path().join(name), &bytes).expect("write");
        checksum::parent_hash(&bytes)
    };
    let mut hash = [0; 32];
    for at in 0..10_000 {
        hash = write(&format!("{at}.rvf"), &format!("{}.rvf", at - 1), hash);
    }
    let store = open(&dir.path().join("9999.rvf"));
    let mut view = store.view();
    let mut files = 1;
    while let Some(parent) = view.parent_view().map(Arc::clone) {
        view = parent;
        files += 1;
    }
    assert_eq!(files, 64);
    let why = view.parent_state().expect("a child").expect_err("the chain ends here");
    assert!(why.contains("longer than 64"), "{why}");

    // Two names of one file make a circle without knowing its own hash beforehand.
    let real = create(&dir.path().join("real.rvf"), 0..3);
    let child = branch(&real, &dir.path().join("child.rvf"));
    std::fs::remove_file(real.path()).expect("rm");
    std::fs::hard_link(child.path(), real.path()).expect("link");
    let error =
        open(child.path()).view().search(&request(&noise(1, DIM), 1, true)).expect_err("refused").to_string();
    assert!(error.contains("its own ancestor"), "{error}");
}

#[test]
fn a_branch_passes_the_full_check() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), 0..30);
    let child = branch(&parent, &dir.path().join("c.rvf"));
    let nested = branch(&child, &dir.path().join("n.rvf"));
    for store in [&child, &nested] {
        put(store, &[1, 40], 2);
        store.delete(&[1, 2]).expect("delete");
        store.put_metadata(3, &field("a", "b")).expect("put");
        store.freeze().expect("freeze");
        let bytes = std::fs::read(store.path()).expect("read");
        let report = rvf_format::check::check(&bytes);
        let worst: Vec<_> =
            report.findings.iter().filter(|f| f.severity != rvf_format::Severity::Note).collect();
        assert!(worst.is_empty(), "{worst:?}");
        let chain = rvf_format::witness::verify(&bytes, &store.view().opened().layout);
        assert_eq!(chain.status.word(), "valid", "{chain:?}");
    }
}

/// Each branch read its parent anew: a hash of all its vectors up to 16 MB, and a list of all its rows once they were asked
/// for.
#[test]
fn branches_share_what_was_read_of_their_parent_while_it_is_true() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("p.rvf");
    let parent = create(&path, 0..100);
    let a = branch(&parent, &dir.path().join("a.rvf"));
    let b = branch(&parent, &dir.path().join("b.rvf"));
    let above = |store: &Store| Arc::clone(store.view().parent_view().expect("a parent"));
    assert!(Arc::ptr_eq(&above(&a), &above(&b)) && Arc::ptr_eq(&above(&a), &parent.view()));
    // What the parent holds later is another state.
    put(&parent, &[1, 200], 5);
    let c = branch(&parent, &dir.path().join("c.rvf"));
    assert!(!Arc::ptr_eq(&above(&a), &above(&c)));
    let shown = |store: &Store| ids(store).len();
    assert_eq!((shown(&open(a.path())), shown(&c), shown(&parent)), (100, 101, 101));
    assert_eq!(nearest(&open(a.path()), &noise(1 ^ 31, DIM), 1, true)[0], (1, 0.0));
    // A store at the same place is another file.
    let below = branch(&a, &dir.path().join("below.rvf"));
    assert_eq!(shown(&below), 100);
    std::fs::remove_file(&path).expect("removed");
    let other = create(&path, 0..100);
    assert!(open(a.path()).view().complete().is_err());
    assert!(open(below.path()).view().complete().is_err(), "an ancestor is not what it was");
    // Whoever holds an older view goes on with it.
    assert_eq!((shown(&below), shown(&other)), (100, 100));
}
