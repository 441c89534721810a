//! Other programs that cut, replace or remove the file under an open store.

use std::fs::OpenOptions as FileOptions;
use std::path::Path;
use std::sync::Arc;

use rvf_cow::{
    BadRow, Batch, CreateOptions, Error, Family, Metric, NoProgress, OpenOptions, SearchRequest, Store,
};
use rvf_tests::place::Place;
use rvf_tests::random::vector_of;

const DIMENSION: usize = 32;

fn store_of(path: &Path, batches: u64, rows: u64) -> Arc<Store> {
    let options = CreateOptions { dimension: DIMENSION as u16, metric: Metric::L2, profile: 0 };
    let store = Store::create(path, &options).expect("we create a store");
    for number in 0..batches {
        ingest(&store, number * rows, rows).expect("we ingest");
    }
    store
}

fn ingest(store: &Store, first: u64, rows: u64) -> Result<(), Error> {
    let ids: Vec<u64> = (first..first + rows).collect();
    let batch = Batch {
        dimension: DIMENSION,
        vectors: ids.iter().flat_map(|id| vector_of(*id, DIMENSION)).collect(),
        ids: Some(ids),
        metadata: Vec::new(),
        on_bad_row: BadRow::Refuse,
    };
    store.ingest(&batch, &NoProgress).map(drop)
}

fn nearest(store: &Store, id: u64) -> Result<Option<u64>, Error> {
    let query = vector_of(id, DIMENSION);
    let request = SearchRequest {
        queries: &query,
        k: 1,
        ef: None,
        filter: None,
        exact: true,
        deadline: None,
        threads: 1,
    };
    Ok(store.view().search(&request)?[0].hits.first().map(|h| h.id))
}

/// Cut to a few pages while mapped: reads of the lost part must neither crash the process nor be taken for data.
#[test]
fn a_file_cut_under_a_view_is_an_error_and_not_a_crash() {
    let place = Place::on_disk().expect("a place");
    let path = place.join("cut.rvf");
    let store = store_of(&path, 4, 500);
    let view = store.view();
    assert_eq!(nearest(&store, 1999).expect("an answer"), Some(1999));
    let kept = 100_000;
    FileOptions::new().write(true).open(&path).and_then(|f| f.set_len(kept)).expect("the file is cut");

    // Reading every byte of the old view touches pages that are gone.
    let sum: u64 = view.live_ordinals().iter().flat_map(|o| view.vector(*o)).map(|b| u64::from(*b)).sum();
    assert!(sum > 0);
    let error = view.check_intact().expect_err("the view knows");
    assert_eq!(error.family(), Family::Corruption);
    let error = nearest(&store, 1999).expect_err("no answer from lost bytes");
    assert!(matches!(error, Error::Damaged { .. }), "{error}");

    // What is left is found again: the commits before the cut.
    assert!(store.refresh().expect("the rest of the file opens"));
    let live = store.view().live();
    assert!(live == 500 || live == 0, "{live}");
    store.view().check_intact().expect("the new view is whole");
    ingest(&store, 9000, 1).expect("and can be written");
    assert_eq!(nearest(&store, 9000).expect("an answer"), Some(9000));
}

#[test]
fn a_file_emptied_or_removed_under_a_store_leaves_a_clear_error() {
    let place = Place::on_disk().expect("a place");
    let path = place.join("emptied.rvf");
    let store = store_of(&path, 1, 300);
    FileOptions::new().write(true).open(&path).and_then(|f| f.set_len(0)).expect("the file is emptied");
    let error = store.refresh().expect_err("nothing is left");
    assert!(matches!(error, Error::NotRvf { .. }), "{error}");
    assert!(ingest(&store, 1, 1).is_err());
    assert_eq!(std::fs::metadata(&path).expect("the file").len(), 0, "nothing was written to it");

    let path = place.join("removed.rvf");
    let store = store_of(&path, 1, 300);
    std::fs::remove_file(&path).expect("the file goes");
    let error = store.refresh().expect_err("nothing is left");
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    // A removed file lives on in the view, whole.
    assert_eq!(nearest(&store, 7).expect("an answer"), Some(7));
    assert!(ingest(&store, 1, 1).is_err());
    assert!(!path.exists());
}

#[test]
fn a_replaced_file_shows_after_refresh() {
    let place = Place::on_disk().expect("a place");
    let (path, other) = (place.join("one.rvf"), place.join("two.rvf"));
    let store = store_of(&path, 2, 100);
    drop(store_of(&other, 1, 7));
    let old = store.view();
    std::fs::rename(&other, &path).expect("the file is replaced");
    assert_eq!(old.live(), 200);
    assert_eq!(nearest(&store, 150).expect("an answer from the old file"), Some(150));
    assert!(store.refresh().expect("the new file opens"));
    assert!(!store.refresh().expect("the new file opens"), "nothing changed since");
    assert_eq!(store.view().live(), 7);
    assert!(store.view().generation() > old.generation());
    // The old view reads on.
    assert_eq!(old.vector(old.find(150).expect("the id")), {
        vector_of(150, DIMENSION).iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()
    });
    old.check_intact().expect("the old view is whole");
    // A writer that has not looked yet writes to the new file, on top of what is there.
    let late = store_of(&place.join("three.rvf"), 1, 5);
    drop(store_of(&place.join("four.rvf"), 1, 9));
    std::fs::rename(place.join("four.rvf"), place.join("three.rvf")).expect("the file is replaced");
    ingest(&late, 1000, 1).expect("we ingest");
    assert_eq!(late.view().live(), 10);
}

/// Not regular files, by name and in words.
#[test]
fn what_is_no_store_is_refused_in_words() {
    let place = Place::on_disk().expect("a place");
    let directory = place.join("directory.rvf");
    std::fs::create_dir(&directory).expect("a directory");
    let fifo = place.join("fifo.rvf");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo");
    assert!(made.success());
    let noise = place.join("noise.rvf");
    let mut random = rvf_tests::random::Random::new(4);
    std::fs::write(&noise, (0..100_000).map(|_| random.bits() as u8).collect::<Vec<u8>>()).expect("a file");
    let empty = place.join("empty.rvf");
    std::fs::write(&empty, b"").expect("a file");
    for (path, word) in [
        (&directory, "directory"),
        (&fifo, "FIFO"),
        (&noise, "none of its 100000 bytes"),
        (&empty, "the file is empty"),
        (&place.join("missing.rvf"), "no such file"),
    ] {
        let error = Store::open(path, &OpenOptions::default()).expect_err("it is no store");
        assert!(error.to_string().contains(word), "{error}");
    }
}
