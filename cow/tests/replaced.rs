//! A file that another program replaces, under a store that is open: noticed, never mixed up, and found behind symlinks.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rvf_cow::{BadRow, Batch, BranchOptions, CreateOptions, Error, Metric, NoProgress, OpenOptions, Store};
use rvf_format::lock::{LockFile, WriteLock, lock_path};

fn batch(dimension: usize, ids: &[u64]) -> Batch {
    let vectors = ids.iter().flat_map(|id| vec![*id as f32; dimension]).collect();
    Batch { dimension, ids: Some(ids.to_vec()), vectors, metadata: Vec::new(), on_bad_row: BadRow::Refuse }
}

fn create(path: &Path, dimension: u16) -> Arc<Store> {
    Store::create(path, &CreateOptions { dimension, metric: Metric::L2, profile: 0 }).expect("a store")
}

fn open(path: &Path) -> Arc<Store> {
    Store::open(path, &OpenOptions::default()).expect("a store")
}

fn has(store: &Store, id: u64) -> bool {
    store.view().resolved().find(id).is_some()
}

/// What a server does before it answers.
fn look(store: &Store) {
    if store.is_behind() {
        store.refresh().expect("a look");
    }
}

#[test]
fn a_compaction_that_keeps_the_old_file_for_a_branch_is_noticed() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("a.rvf");
    let served = create(&path, 2);
    served.ingest(&batch(2, &[1, 2, 3]), &NoProgress).expect("rows");
    // Once when its times are new, and once when they are old and have been looked at.
    for (round, wait) in [(0, Duration::ZERO), (1, Duration::from_millis(120))] {
        std::thread::sleep(wait);
        look(&served);
        assert!(!served.is_behind());
        let other = open(&path);
        let branch = dir.path().join(format!("a.b{round}.rvf"));
        other.branch(&branch, &BranchOptions::default()).expect("a branch");
        other.delete(&[1 + round]).expect("a deletion");
        look(&served);
        std::thread::sleep(wait);
        look(&served);
        other.compact(&NoProgress).expect("a compaction");
        other.ingest(&batch(2, &[100 + round]), &NoProgress).expect("rows");
        assert!(served.is_behind(), "round {round}");
        look(&served);
        assert_eq!((has(&served, 100 + round), has(&served, 1 + round)), (true, false), "round {round}");
        assert!(!served.is_behind());
    }
}

#[test]
fn a_lock_file_of_a_process_that_died_hides_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("a.rvf");
    let served = create(&path, 2);
    open(&path).ingest(&batch(2, &[7]), &NoProgress).expect("rows");
    let mut held = LockFile {
        // No process has a number this large.
        pid: u32::MAX - 1,
        host: std::fs::read_to_string("/etc/hostname").expect("a name").trim().into(),
        timestamp_ns: u64::MAX / 2,
        writer_id: [1; 16],
    };
    std::fs::write(lock_path(&path), held.to_bytes()).expect("a lock file");
    assert!(served.is_behind());
    held.pid = std::process::id();
    std::fs::write(lock_path(&path), held.to_bytes()).expect("a lock file");
    assert!(!served.is_behind(), "somebody is writing");
}

#[test]
fn a_store_behind_symlinks_is_rewritten_where_it_lies() {
    let dir = tempfile::tempdir().expect("dir");
    let [real, links] = ["real", "links"].map(|name| dir.path().join(name));
    for place in [&real, &links] {
        std::fs::create_dir(place).expect("a directory");
    }
    let path = real.join("a.rvf");
    create(&path, 2).ingest(&batch(2, &[1, 2, 3]), &NoProgress).expect("rows");
    symlink("../real/a.rvf", links.join("a.rvf")).expect("a link");
    symlink("a.rvf", links.join("again.rvf")).expect("a link");
    let store = open(&links.join("again.rvf"));
    assert_eq!(store.path(), path.canonicalize().expect("a path"));
    store.delete(&[2]).expect("a deletion");
    store.compact(&NoProgress).expect("a compaction");
    for link in ["a.rvf", "again.rvf"] {
        let meta = std::fs::symlink_metadata(links.join(link)).expect("a name");
        assert!(meta.is_symlink(), "{link} is a link still");
    }
    assert_eq!(std::fs::read_dir(&links).expect("names").count(), 2);
    let there = open(&path);
    assert_eq!((has(&there, 2), has(&there, 3), there.view().live()), (false, true, 2));
    // A link that leads nowhere is named as it was given.
    symlink("nothing.rvf", links.join("broken.rvf")).expect("a link");
    let error = Store::open(&links.join("broken.rvf"), &OpenOptions::default()).expect_err("nothing");
    assert!(error.to_string().contains("broken.rvf"), "{error}");
}

#[test]
fn rows_for_a_store_whose_place_another_took_are_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let [path, other] = ["a.rvf", "b.rvf"].map(|name| dir.path().join(name));
    let store = create(&path, 4);
    create(&other, 2);
    let file = std::fs::File::open(&path).expect("a file");
    let lock = WriteLock::acquire(&path, &file, Duration::from_secs(5)).expect("the lock");
    let ingest = std::thread::spawn({
        let store = Arc::clone(&store);
        move || store.ingest(&batch(4, &[1, 2]), &NoProgress)
    });
    // Until it has been checked and waits: it holds the file a second time then.
    let waits = || {
        let fds = std::fs::read_dir("/proc/self/fd").expect("descriptors");
        fds.filter_map(|fd| std::fs::read_link(fd.expect("one").path()).ok()).filter(|to| *to == path).count()
            > 3
    };
    let until = Instant::now() + Duration::from_secs(5);
    while !waits() {
        assert!(Instant::now() < until, "it does not wait");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::fs::rename(&other, &path).expect("another file");
    drop(lock);
    let error = ingest.join().expect("no panic").expect_err("rows of another dimension");
    assert!(matches!(error, Error::Dimension { got: 4, want: 2, .. }), "{error}");
    assert_eq!(open(&path).view().live(), 0);
}
