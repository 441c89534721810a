//! Several writers at once, in several processes.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use rvf_cow::{BadRow, Batch, CreateOptions, Error, Metric, NoProgress, OpenOptions, Store};
use rvf_tests::place::Place;

use crate::kill::Killed;

const DIMENSION: usize = 8;

fn worker(args: &[&str]) -> Killed {
    Killed(
        Command::new(env!("CARGO_BIN_EXE_rvf-test-worker"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the worker starts"),
    )
}

/// Ids that follow on, from three processes and this one at the same time: no id twice, no batch lost, every epoch
/// taken once, and nobody fails.
#[test]
fn no_update_is_lost_between_processes() {
    const BATCHES: u64 = 40;
    const ROWS: u64 = 5;
    let place = Place::in_memory().expect("a place");
    let path = place.join("shared.rvf");
    let options = CreateOptions { dimension: DIMENSION as u16, metric: Metric::L2, profile: 0 };
    let store = Store::create(&path, &options).expect("we create a store");
    let file = path.to_str().expect("a plain path");
    let mut children: Vec<Killed> =
        (0..3).map(|_| worker(&["append", file, &BATCHES.to_string(), &ROWS.to_string()])).collect();

    let mut firsts = BTreeSet::new();
    let mut epochs = BTreeSet::new();
    let mut owners = Vec::new();
    let own =
        Store::open(&path, &OpenOptions { lock_wait: Duration::from_secs(60), ..OpenOptions::default() })
            .expect("it opens");
    for _ in 0..BATCHES {
        let batch = Batch {
            dimension: DIMENSION,
            ids: None,
            vectors: vec![-1.0; ROWS as usize * DIMENSION],
            metadata: Vec::new(),
            on_bad_row: BadRow::Refuse,
        };
        let report = own.ingest(&batch, &NoProgress).expect("we ingest");
        assert!(firsts.insert(report.first_id.expect("an id")));
        assert!(epochs.insert(report.epoch));
        owners.push((report.first_id.expect("an id"), -1.0));
    }
    for child in &mut children {
        let owner = child.0.id() as f32;
        let output = BufReader::new(child.0.stdout.take().expect("its output"));
        let mut lines = 0;
        for line in output.lines() {
            let line = line.expect("its output can be read");
            let (first, epoch) = line.split_once(' ').expect("two numbers");
            let first: u64 = first.parse().expect("an id");
            assert!(firsts.insert(first), "id {first} was given twice");
            assert!(epochs.insert(epoch.parse().expect("an epoch")), "epoch {epoch} was taken twice");
            owners.push((first, owner));
            lines += 1;
        }
        assert_eq!(lines, BATCHES);
        assert!(child.0.wait().expect("the worker ends").success());
    }
    let total = 4 * BATCHES;
    assert_eq!(epochs, (1..=total as u32).collect());
    assert_eq!(firsts, (0..total).map(|n| n * ROWS).collect());

    assert!(store.refresh().expect("the store follows"));
    let view = store.view();
    assert_eq!(view.live(), total * ROWS);
    assert_eq!(view.status().health, "ok", "{:?}", view.findings());
    for (first, owner) in owners {
        let want: Vec<u8> = [owner; DIMENSION].iter().flat_map(|v| v.to_le_bytes()).collect();
        for id in first..first + ROWS {
            assert_eq!(view.vector(view.find(id).expect("the id")), want, "id {id}");
        }
    }
    assert_eq!(place.names().expect("names"), ["shared.rvf"], "no lock stays behind");
}

/// While one process is in the middle of a commit, another neither writes nor sees any of it, and says who it is.
#[test]
fn a_commit_under_way_keeps_others_out() {
    let place = Place::in_memory().expect("a place");
    let path = place.join("held.rvf");
    let options = CreateOptions { dimension: DIMENSION as u16, metric: Metric::L2, profile: 0 };
    drop(Store::create(&path, &options).expect("we create a store"));
    let mut child = worker(&["hold", path.to_str().expect("a plain path")]);
    let mut output = BufReader::new(child.0.stdout.take().expect("its output"));
    let mut line = String::new();
    output.read_line(&mut line).expect("its output can be read");
    assert_eq!(line, "holding\n");

    let wait = OpenOptions { lock_wait: Duration::from_millis(20), ..OpenOptions::default() };
    let store = Store::open(&path, &wait).expect("readers are not kept out");
    assert_eq!(store.view().live(), 0);
    let batch = Batch {
        dimension: DIMENSION,
        ids: Some(vec![1]),
        vectors: vec![1.0; DIMENSION],
        metadata: Vec::new(),
        on_bad_row: BadRow::Refuse,
    };
    let error = store.ingest(&batch, &NoProgress).expect_err("the lock is held");
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    assert!(error.to_string().contains(&child.0.id().to_string()), "{error} names pid {}", child.0.id());
    assert!(matches!(store.compact(&NoProgress), Err(Error::Locked { .. })));
    assert_eq!(store.view().live(), 0);

    let mut input = child.0.stdin.take().expect("its input");
    input.write_all(b"go on\n").expect("it reads");
    drop(input);
    line.clear();
    output.read_line(&mut line).expect("its output can be read");
    assert_eq!(line, "committed\n");
    store.ingest(&batch, &NoProgress).expect("the lock is free");
    assert_eq!(store.view().live(), 2, "both commits are there");
}
