//! A device that fills up.

use std::path::PathBuf;
use std::process::Command;

use rvf_cow::{
    BadRow, Batch, CreateOptions, Error, Metric, NoProgress, OpenOptions, ReindexOptions, Store, Value,
};
use rvf_tests::place::Place;
use rvf_tests::random::vector_of;

use crate::family::{self, ACTS};
use crate::recorder::write_out;

const DIMENSION: usize = 64;

/// A small filesystem in memory, unmounted when dropped.
pub(crate) struct SmallDisk {
    place: Option<Place>,
    pub(crate) path: PathBuf,
}

impl SmallDisk {
    pub(crate) fn new(size: &str) -> Option<Self> {
        let place = Place::on_disk().expect("a place");
        let path = place.join("disk");
        std::fs::create_dir(&path).expect("a directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(&path)
            .status()
            .is_ok_and(|s| s.success());
        if !mounted {
            eprintln!("\n*** SKIPPED: no tmpfs could be mounted (not root?); a full disk was not tried\n");
            return None;
        }
        Some(Self { place: Some(place), path })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(&self.path).status();
        if !done.is_ok_and(|s| s.success()) {
            eprintln!("{}: not unmounted", self.path.display());
            // Removing the place would remove through the mount.
            std::mem::drop(self.place.take());
        }
    }
}

fn batch(number: u64, rows: u64) -> Batch {
    let ids: Vec<u64> = (number * rows..(number + 1) * rows).collect();
    Batch {
        dimension: DIMENSION,
        vectors: ids.iter().flat_map(|id| vector_of(*id, DIMENSION)).collect(),
        metadata: ids.iter().map(|_| vec![("batch".to_owned(), Value::U64(number))]).collect(),
        ids: Some(ids),
        on_bad_row: BadRow::Refuse,
    }
}

fn holds(store: &Store, batches: u64, rows: u64) {
    let view = store.view();
    assert_eq!(view.live(), batches * rows);
    for id in 0..batches * rows {
        let want: Vec<u8> = vector_of(id, DIMENSION).iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(view.vector(view.find(id).expect("the id")), want);
        assert_eq!(view.fields(id), Some(vec![("batch".to_owned(), Value::U64(id / rows))]));
    }
    assert_eq!(view.status().health, "ok", "{:?}", view.findings());
}

#[test]
fn a_full_disk_costs_only_the_commit_under_way() {
    let Some(disk) = SmallDisk::new("1m") else { return };
    let path = disk.path.join("full.rvf");
    let filler = disk.path.join("filler");
    std::fs::write(&filler, vec![1; 300 << 10]).expect("a filler");
    let options = CreateOptions { dimension: DIMENSION as u16, metric: Metric::L2, profile: 0 };
    let store = Store::create(&path, &options).expect("we create a store");

    let mut stored = 0;
    let error = loop {
        match store.ingest(&batch(stored, 100), &NoProgress) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 1000, "the disk does not fill");
    };
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    assert_eq!(error.reference_code(), Some(0x0302));
    assert!(stored >= 10);
    holds(&store, stored, 100);
    holds(&Store::open(&path, &OpenOptions::default()).expect("it opens"), stored, 100);

    // Everything else that needs space says the same, and leaves nothing behind.
    assert!(matches!(store.compact(&NoProgress), Err(Error::NoSpace { .. })));
    let reindex = ReindexOptions { threads: 1, m: 8, ef_construction: 16, ..ReindexOptions::default() };
    assert!(matches!(store.reindex(&reindex, &NoProgress), Err(Error::NoSpace { .. })));
    std::fs::write(disk.path.join("rest"), vec![1; 1 << 20]).expect_err("the disk is full to the last byte");
    assert!(matches!(Store::create(&disk.path.join("other.rvf"), &options), Err(Error::NoSpace { .. })));
    assert!(matches!(store.delete(&[1]), Err(Error::NoSpace { .. })));
    std::fs::remove_file(disk.path.join("rest")).expect("the rest goes");
    assert_eq!(family::names(&disk.path), ["filler", "full.rvf"]);
    holds(&store, stored, 100);

    // With space again all goes on, in the same store and in a new one.
    std::fs::remove_file(&filler).expect("the filler goes");
    store.ingest(&batch(stored, 100), &NoProgress).expect("there is space again");
    stored += 1;
    holds(&store, stored, 100);
    let again = Store::open(&path, &OpenOptions::default()).expect("it opens");
    holds(&again, stored, 100);
    assert_eq!(again.delete(&[0]).expect("we delete").deleted, 1);
}

/// All that is done with branches, on a filesystem with no page left, one, two and so on: it is refused and nothing is left of it,
/// or it is done.
#[test]
fn a_full_disk_changes_no_branch() {
    let (mut refused, mut done) = (0, 0);
    for act in ACTS {
        let Some(disk) = SmallDisk::new("2m") else { return };
        let rest = disk.path.join("rest");
        for pages in [0, 1, 2, 3, 5, 8] {
            for name in family::names(&disk.path) {
                std::fs::remove_file(disk.path.join(name)).expect("removed");
            }
            write_out(&act.files(), &disk.path);
            let old = family::all(&disk.path);
            std::fs::write(&rest, vec![1; 4 << 20]).expect_err("the disk is full to the last byte");
            let len = std::fs::metadata(&rest).expect("the rest").len().next_multiple_of(4096);
            let filler = std::fs::OpenOptions::new().write(true).open(&rest).expect("the rest");
            filler.set_len(len - 4096 * pages).expect("some pages are given back");
            drop(filler);
            let before = family::names(&disk.path);
            let what = format!("{} with {pages} pages left", act.name);
            match (act.run)(&disk.path) {
                Ok(()) => done += 1,
                Err(Error::NoSpace { .. }) => {
                    refused += 1;
                    assert_eq!(family::all(&disk.path), old, "{what}");
                    assert_eq!(family::names(&disk.path), before, "{what}: something stays behind");
                }
                Err(other) => panic!("{what}: {other}"),
            }
            // Emptied first: a process that another test is starting may hold a descriptor of it for a moment.
            std::fs::File::create(&rest).expect("the rest is emptied");
            std::fs::remove_file(&rest).expect("the rest goes");
            act.is_done(&disk.path, &format!("{what}, then with space"));
            assert!(family::all(&disk.path).values().all(Result::is_ok), "{what}, then with space");
        }
    }
    assert!(refused > ACTS.len() && done > ACTS.len(), "{refused} refused, {done} done");
}
