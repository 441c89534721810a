//! Compaction of parents and of branches: it never breaks a branch, whenever it stops.

mod branches;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use branches::*;
use rvf_cow::{BranchOptions, NoProgress, Store};

fn hidden(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("ls")
        .map(|e| e.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "pinned"))
        .collect();
    names.sort();
    names
}

#[test]
fn a_compaction_keeps_what_the_branches_stand_on() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), 0..100);
    let first = branch(&parent, &dir.path().join("first.rvf"));
    put(&first, &[1, 200], 2);
    let nested = branch(&first, &dir.path().join("nested.rvf"));
    put(&parent, &[300], 3);
    let second = branch(&parent, &dir.path().join("second.rvf"));
    parent.delete(&(0..90).collect::<Vec<_>>()).expect("delete");
    let shown: Vec<Vec<u64>> = [&first, &nested, &second].map(|s| ids(s)).to_vec();
    let check = |what: &str| {
        for (name, expected) in ["first", "nested", "second"].iter().zip(&shown) {
            let store = open(&dir.path().join(format!("{name}.rvf")));
            assert_eq!(&ids(&store), expected, "{name} {what}");
            let query = noise(9, DIM);
            assert_eq!(nearest(&store, &query, 10, true), truth(&store, &query, 10), "{name} {what}");
            store.ingest(&batch(&[], 1), &NoProgress).expect("writable");
        }
    };
    let whole = parent.view().file_len();
    parent.compact(&NoProgress).expect("compact");
    assert!(parent.view().file_len() < whole / 2);
    assert_eq!(ids(&parent), (90..100).chain([300]).collect::<Vec<_>>());
    assert_eq!(hidden(dir.path()).len(), 2, "one name a state");
    check("after the first compaction");
    // What is kept is what it was: the branches find it, and nothing else changed them.
    put(&parent, &[400], 4);
    let third = branch(&parent, &dir.path().join("third.rvf"));
    parent.compact(&NoProgress).expect("compact");
    assert_eq!(hidden(dir.path()).len(), 3);
    check("after the second");
    // A branch is compacted under a branch of its own.
    let len = first.view().file_len();
    first.delete(&[200, 5]).expect("delete");
    first.compact(&NoProgress).expect("compact");
    assert!(first.view().file_len() < len + 200);
    assert_eq!(ids(&open(first.path())), (0..100).filter(|id| *id != 5).collect::<Vec<_>>());
    assert_eq!(ids(&open(nested.path())), shown[1]);
    assert_eq!(ids(&open(third.path())), (90..100).chain([300, 400]).collect::<Vec<_>>());
    // Names go when nobody needs them any more.
    for name in ["first.rvf", "nested.rvf", "second.rvf"] {
        std::fs::remove_file(dir.path().join(name)).expect("rm");
    }
    for left in hidden(dir.path()).iter().filter(|p| p.to_string_lossy().contains("first")) {
        std::fs::remove_file(left).expect("rm");
    }
    parent.compact(&NoProgress).expect("compact");
    let left = hidden(dir.path());
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(ids(&open(third.path())).len(), 12);
    std::fs::remove_file(third.path()).expect("rm");
    parent.compact(&NoProgress).expect("compact");
    assert_eq!(hidden(dir.path()), Vec::<PathBuf>::new());
}

/// What a removed store had kept stayed for good, and kept in turn what that stood on.
#[test]
fn what_was_kept_goes_with_the_store_when_no_child_needs_it() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), 0..40);
    let child = branch(&parent, &dir.path().join("p.b.rvf"));
    let grandchild = branch(&child, &dir.path().join("p.c.rvf"));
    child.delete(&[1]).expect("delete");
    child.compact(&NoProgress).expect("compact");
    parent.delete(&[2]).expect("delete");
    parent.compact(&NoProgress).expect("compact");
    assert_eq!(hidden(dir.path()).len(), 2);
    let id =
        child.view().opened().manifest.as_ref().and_then(|m| m.manifest.identity).expect("an id").file_id;
    assert_eq!(rvf_cow::kept_states(child.path(), &id).len(), 1);
    rvf_cow::drop_kept(child.path(), &id);
    assert_eq!(hidden(dir.path()).len(), 2, "a child needs it");
    std::fs::remove_file(grandchild.path()).expect("rm");
    rvf_cow::drop_kept(child.path(), &[7; 16]);
    assert_eq!(hidden(dir.path()).len(), 2, "another store of this name has nothing here");
    rvf_cow::drop_kept(child.path(), &id);
    assert_eq!(hidden(dir.path()).len(), 1);
    assert_eq!(ids(&open(child.path())), (0..40).filter(|id| *id != 1).collect::<Vec<_>>());
    std::fs::remove_file(child.path()).expect("rm");
    parent.compact(&NoProgress).expect("compact");
    assert_eq!(hidden(dir.path()), Vec::<PathBuf>::new());
}

#[test]
fn compacting_a_branch_keeps_what_it_hides() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), 0..30);
    let child = branch(&parent, &dir.path().join("c.rvf"));
    put(&child, &[1, 2, 50, 51], 2);
    child.put_metadata(4, &field("a", "b")).expect("put");
    child.delete(&[2, 3, 51]).expect("delete");
    let expected: Vec<u64> = (0..30).filter(|id| ![2, 3].contains(id)).chain([50]).collect();
    assert_eq!(ids(&child), expected);
    for _ in 0..2 {
        child.compact(&NoProgress).expect("compact");
        let again = open(child.path());
        assert_eq!(ids(&again), expected);
        assert_eq!(again.view().fields(4), Some(field("a", "b")));
        assert_eq!(again.view().status().health, "ok");
        assert_eq!(again.view().reference_opens(), Ok(()));
        assert!(again.view().pin().is_some());
    }
    // Without its parent it cannot tell what it hides.
    std::fs::rename(parent.path(), dir.path().join("away.rvf")).expect("mv");
    let error = open(child.path()).compact(&NoProgress).expect_err("refused").to_string();
    assert!(error.contains("p.rvf"), "{error}");
}

/// The states that a crash between the steps of a compaction leaves: the hidden name made, the new file not in place.
#[test]
fn a_compaction_that_stops_half_way_harms_nobody() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("p.rvf");
    let parent = create(&path, 0..40);
    let child = branch(&parent, &dir.path().join("c.rvf"));
    put(&child, &[3], 2);
    parent.delete(&[1, 2, 3]).expect("delete");
    let old = std::fs::read(&path).expect("read");
    parent.compact(&NoProgress).expect("compact");
    let names = hidden(dir.path());
    assert_eq!(names.len(), 1);
    // Back to the moment before the rename: the old file under both names, the new one half written beside it.
    std::fs::rename(&path, dir.path().join(".p.rvf.1.compact.tmp")).expect("mv");
    std::fs::hard_link(&names[0], &path).expect("link");
    assert_eq!(std::fs::read(&path).expect("read"), old);
    let check = |n: usize| {
        let store = open(child.path());
        assert_eq!(ids(&store), (0..40).collect::<Vec<_>>());
        assert_eq!(hidden(dir.path()).len(), n);
    };
    check(1);
    let parent = open(&path);
    put(&parent, &[77], 1);
    check(1);
    let parent_len = parent.view().live();
    parent.compact(&NoProgress).expect("compact again");
    assert_eq!(open(&path).view().live(), parent_len);
    check(1);
    // A name that is taken by something else is not overwritten, and compaction is refused rather than half done.
    let late = branch(&parent, &dir.path().join("late.rvf"));
    let key: String =
        late.view().pin().expect("pin").parent.digest[..4].iter().map(|b| format!("{b:02x}")).collect();
    let taken = dir.path().join(format!(".p.{key}.pinned"));
    std::fs::write(&taken, b"mine").expect("write");
    let before = std::fs::read(&path).expect("read");
    let error = parent.compact(&NoProgress).expect_err("refused").to_string();
    assert!(error.contains("late.rvf"), "{error}");
    assert_eq!(std::fs::read(&path).expect("read"), before);
    assert_eq!(std::fs::read(&taken).expect("read"), b"mine");
}

/// Run by the test below in a process of its own: edits, branches and compacts without end.
#[test]
fn worker() {
    let Some(dir) = std::env::var_os("RVF_TEST_BRANCH_WORKER").map(PathBuf::from) else { return };
    let parent = open(&dir.join("p.rvf"));
    for round in 0u64.. {
        println!("round {round}");
        put(&parent, &[round % 7, 1000 + round % 5], round);
        let path = dir.join(format!("x{round}.rvf"));
        if parent.branch(&path, &BranchOptions::default()).is_ok() {
            let made = open(&path);
            put(&made, &[1], round);
            made.freeze().expect("freeze");
        }
        parent.delete(&[round % 3]).expect("delete");
        parent.compact(&NoProgress).expect("compact");
        if round % 3 == 2 {
            for old in 0..=round {
                let _ = std::fs::remove_file(dir.join(format!("x{old}.rvf")));
            }
        }
    }
}

#[test]
fn killed_at_any_moment_every_branch_is_whole() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), 0..200);
    let child = branch(&parent, &dir.path().join("c.rvf"));
    put(&child, &[3, 500], 2);
    child.delete(&[4]).expect("delete");
    let expected = ids(&child);
    drop((parent, child));
    let mut branches_seen = 0;
    for attempt in 0..12u64 {
        let mut process = Command::new(std::env::current_exe().expect("exe"))
            .args(["--exact", "worker", "--nocapture"])
            .env("RVF_TEST_BRANCH_WORKER", dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("worker");
        let lines = BufReader::new(process.stdout.take().expect("stdout")).lines();
        let seen = lines
            .map(|l| l.expect("line"))
            .filter(|l| l.contains("round "))
            .take(2 + attempt as usize % 4)
            .count();
        assert_eq!(seen, 2 + attempt as usize % 4);
        // Somewhere in the next round: the amount of work until the kill differs from attempt to attempt.
        let mut spin = 0u64;
        for step in 0..attempt * 200_000 {
            spin = std::hint::black_box(spin.wrapping_add(step));
        }
        process.kill().expect("kill");
        process.wait().expect("wait");

        let child = open(&dir.path().join("c.rvf"));
        assert_eq!(ids(&child), expected, "attempt {attempt}");
        let parent = open(&dir.path().join("p.rvf"));
        assert!(ids(&parent).len() >= 190, "attempt {attempt}");
        for entry in std::fs::read_dir(dir.path()).expect("ls") {
            let path = entry.expect("entry").path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
            if name.starts_with('x') && name.ends_with(".rvf") {
                let store = open(&path);
                assert!(
                    matches!(store.view().parent_state(), Some(Ok(_))),
                    "{name}: {:?}",
                    store.view().findings()
                );
                assert!(ids(&store).len() >= 190);
                branches_seen += 1;
                drop(store);
                std::fs::remove_file(&path).expect("rm");
            }
        }
    }
    assert!(branches_seen > 0);
    let parent: std::sync::Arc<Store> = open(&dir.path().join("p.rvf"));
    parent.compact(&NoProgress).expect("compact");
    assert_eq!(hidden(dir.path()).len(), 1, "only what the one branch stands on is kept");
}

/// A killed compaction leaves a file as large as the store; other stores' files and other names are not touched.
#[test]
fn the_first_commit_removes_what_killed_compactions_left() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("p.rvf");
    drop(create(&path, 0..10));
    let left = [".p.rvf.1.compact.tmp", ".p.rvf.4000000.compact.tmp", "p.rvf.lock.77.stale"];
    let others = [
        ".q.rvf.1.compact.tmp",
        "q.rvf.lock.7.stale",
        ".p.rvf.x.compact.tmp",
        ".p.rvf..compact.tmp",
        "p.rvf.1.compact.tmp",
    ];
    for name in left.iter().chain(&others) {
        std::fs::write(dir.path().join(name), "leftover").expect("a file");
    }
    let store = open(&path);
    assert!(left.iter().all(|name| dir.path().join(name).exists()), "opening removes nothing");
    put(&store, &[3], 2);
    for name in left {
        assert!(!dir.path().join(name).exists(), "{name}");
    }
    for name in others {
        assert!(dir.path().join(name).exists(), "{name}");
    }
}
