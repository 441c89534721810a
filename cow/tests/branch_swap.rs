//! Other programs that cut, overwrite, replace and restore a parent, while branches of it are searched and read without a pause: every
//! answer is that of the state the branch stands on, or there is none.

mod branches;

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use branches::*;
use rvf_cow::{Error, NoProgress, ReindexOptions, Store};

/// What one thread saw.
#[derive(Debug, Default)]
struct Seen {
    answers: AtomicU64,
    refusals: AtomicU64,
}

type Answers = Vec<(Vec<f32>, Vec<(u64, f32)>)>;

fn expected(store: &Store) -> Answers {
    (0..8).map(|n| noise(100 + n, DIM)).map(|q| (q.clone(), truth(store, &q, 7))).collect()
}

/// Refused with a sentence about damage or about the parent.
fn is_said(error: &Error) -> bool {
    matches!(error, Error::Damaged { .. } | Error::Unsupported { .. }) && error.to_string().contains("p.rvf")
}

fn ask(store: &Store, wanted: &Answers, rows: &[(u64, Vec<u8>)], seen: &Seen) {
    for (query, answer) in wanted {
        let view = store.view();
        match view.search(&request(query, 7, true)) {
            Ok(found) => {
                let found: Vec<(u64, f32)> = found[0].hits.iter().map(|h| (h.id, h.distance)).collect();
                assert_eq!(&found, answer, "an answer of another state");
                seen.answers.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                assert!(is_said(&error), "{error}");
                seen.refusals.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    // Rows that are copied out, as the files of a mount do.
    let view = store.view();
    let copied: Vec<Option<Vec<u8>>> = rows
        .iter()
        .map(|(id, _)| view.resolved().find(*id).map(|place| view.resolved().vector(place).to_vec()))
        .collect();
    if view.complete().is_ok() && view.check_chain().is_ok() {
        for ((id, row), copied) in rows.iter().zip(copied) {
            assert_eq!(copied.as_ref(), Some(row), "row {id} of another state");
        }
    }
}

fn overwrite(path: &Path, bytes: &[u8]) {
    let mut file = std::fs::OpenOptions::new().write(true).truncate(true).open(path).expect("open");
    for piece in bytes.chunks(10_000) {
        file.write_all(piece).expect("write");
        std::thread::yield_now();
    }
}

fn replace(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes).expect("write");
    std::fs::rename(&beside, path).expect("rename");
}

#[test]
fn a_parent_that_is_changed_in_the_middle_of_queries() {
    let dir = tempfile::tempdir().expect("dir");
    let at = |name: &str| dir.path().join(name);
    let parent = create(&at("p.rvf"), 0..4000);
    let index = ReindexOptions { threads: 1, m: 4, ef_construction: 16, ..ReindexOptions::default() };
    parent.reindex(&index, &NoProgress).expect("index");
    let child = branch(&parent, &at("c.rvf"));
    put(&child, &[3, 9000], 5);
    child.delete(&[4]).expect("delete");
    let nested = branch(&child, &at("n.rvf"));
    nested.delete(&[5]).expect("delete");
    // A store that is as large, and one whose rows alone are others.
    drop(create(&at("other.rvf"), 100..4200));
    let (original, other) =
        (std::fs::read(at("p.rvf")).expect("read"), std::fs::read(at("other.rvf")).expect("read"));
    drop(parent);
    let answers = [expected(&child), expected(&nested)];
    let rows: Vec<(u64, Vec<u8>)> = (0..4000)
        .step_by(97)
        .map(|id| {
            let view = nested.view();
            let place = view.resolved().find(id).expect("shown");
            (id, view.resolved().vector(place).to_vec())
        })
        .collect();
    let (over, seen) = (AtomicBool::new(false), [Seen::default(), Seen::default(), Seen::default()]);
    std::thread::scope(|scope| {
        for (store, wanted, seen) in [(&child, &answers[0], &seen[0]), (&nested, &answers[1], &seen[1])] {
            let (over, rows) = (&over, &rows);
            scope.spawn(move || {
                let _finish = Finish(over);
                while !over.load(Ordering::Relaxed) {
                    ask(store, wanted, rows, seen);
                    if store.is_behind() {
                        store.refresh().expect("the branch itself is whole");
                    }
                }
            });
        }
        let (over_, wanted, rows_, last) = (&over, &answers[1], &rows, &seen[2]);
        let path = at("n.rvf");
        scope.spawn(move || {
            let _finish = Finish(over_);
            while !over_.load(Ordering::Relaxed) {
                ask(&open(&path), wanted, rows_, last);
            }
        });
        let path = at("p.rvf");
        let pause = |seen: &[Seen; 3]| {
            let all = |s: &[Seen; 3]| -> Vec<u64> {
                s.iter()
                    .map(|s| s.answers.load(Ordering::Relaxed) + s.refusals.load(Ordering::Relaxed))
                    .collect()
            };
            let before = all(seen);
            // Every thread has asked again since.
            while all(seen).iter().zip(&before).any(|(now, then)| *now < then + 9) {
                assert!(!over.load(Ordering::Relaxed), "a reader saw what it should not");
                std::thread::yield_now();
            }
        };
        // Nothing may be refused after the parent is whole again.
        let whole_again = |what: &str| {
            pause(&seen);
            let before: Vec<u64> = seen.iter().map(|s| s.refusals.load(Ordering::Relaxed)).collect();
            pause(&seen);
            let after: Vec<u64> = seen.iter().map(|s| s.refusals.load(Ordering::Relaxed)).collect();
            assert_eq!(before, after, "{what}: refused although the parent is whole again");
        };
        let finish = Finish(&over);
        for round in 0..6u64 {
            // Commits of its own change nothing.
            put(&open(&path), &[1, 2, 3, 10_000 + round], round);
            whole_again("a commit");
            std::fs::OpenOptions::new()
                .append(true)
                .open(&path)
                .and_then(|mut f| f.write_all(b"junk"))
                .expect("append");
            whole_again("junk at the end");
            std::fs::OpenOptions::new()
                .write(true)
                .open(&path)
                .and_then(|f| f.set_len(50_000 + round))
                .expect("cut");
            pause(&seen);
            overwrite(&path, &original);
            whole_again("cut and restored");
            overwrite(&path, &other);
            pause(&seen);
            overwrite(&path, &original);
            whole_again("overwritten and restored");
            // Vectors alone, from the first on.
            let file = std::fs::OpenOptions::new().write(true).open(&path).expect("open");
            file.write_all_at(&[0x3f; 30_000], 1000).expect("write");
            pause(&seen);
            file.write_all_at(&original[1000..31_000], 1000).expect("write");
            whole_again("vectors overwritten and restored");
            replace(&path, &other);
            pause(&seen);
            replace(&path, &original);
            whole_again("replaced and put back");
            std::fs::remove_file(&path).expect("rm");
            pause(&seen);
            replace(&path, &original);
            whole_again("removed and put back");
            open(&path).compact(&NoProgress).expect("compact");
            whole_again("a compaction");
            replace(&path, &original);
        }
        drop(finish);
    });
    for seen in &seen {
        assert!(seen.answers.load(Ordering::Relaxed) > 100, "{seen:?}");
    }
    assert!(seen.iter().any(|seen| seen.refusals.load(Ordering::Relaxed) > 0), "{seen:?}");
    drop(Arc::clone(&child));
}

/// Ends the readers also when a check fails.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A cut inside the last page leaves zeros in the mapping and no signal.
#[test]
fn a_cut_within_a_page_is_noticed() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), 0..20);
    let child = branch(&parent, &dir.path().join("c.rvf"));
    let query = noise(9, DIM);
    let before = nearest(&child, &query, 3, true);
    let bytes = std::fs::read(parent.path()).expect("read");
    let file = std::fs::OpenOptions::new().write(true).open(parent.path()).expect("open");
    file.set_len(400).expect("cut");
    for store in [&parent, &child] {
        let error = store.view().search(&request(&query, 3, true)).expect_err("rows are gone").to_string();
        assert!(error.contains("p.rvf") && error.contains("by another program"), "{error}");
    }
    drop(file);
    std::fs::write(parent.path(), &bytes).expect("restored");
    assert!(child.is_behind() || child.view().check_chain().is_ok());
    child.refresh().expect("refresh");
    assert_eq!(nearest(&child, &query, 3, true), before);
}
