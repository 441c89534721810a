//! `rvf ingest` killed at random instants.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rvf_cow::{CreateOptions, Metric, OpenOptions, Store};
use rvf_tests::place::Place;
use rvf_tests::programs;
use rvf_tests::random::{Random, vector_of};

use crate::kill::Killed;

const DIMENSION: usize = 24;
const ROWS: u64 = 6000;

fn npy(rows: u64) -> Vec<u8> {
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {DIMENSION}), }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend((0..rows).flat_map(|row| vector_of(row, DIMENSION)).flat_map(f32::to_le_bytes));
    bytes
}

/// Ids follow on, so row `id` of the store is row `id % ROWS` of the file: whatever was committed is checked in full.
fn check(store: &Store, from: u64) -> u64 {
    let view = store.view();
    for id in from..view.live() {
        let want: Vec<u8> = vector_of(id % ROWS, DIMENSION).iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(view.vector(view.find(id).expect("ids follow on")), want, "id {id}");
    }
    view.live()
}

/// Kills the program after up to `longest`, again and again; `unit` rows are committed at a time.
fn kill_ingests(place: &Place, rounds: u32, unit: u64, seed: u64) {
    let (path, input) = (place.join("killed.rvf"), place.join("rows.npy"));
    std::fs::write(&input, npy(ROWS)).expect("input");
    let options = CreateOptions { dimension: DIMENSION as u16, metric: Metric::L2, profile: 0 };
    drop(Store::create(&path, &options).expect("we create a store"));
    let ingest = |path: &Path| {
        let mut command = Command::new(programs::ours());
        command.arg("ingest").arg(path).arg("--input").arg(&input).args(["--lock-wait", "0"]);
        if unit < ROWS {
            command.args(["--batch-size", &unit.to_string()]);
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    // Building the program, where that is still to be done, is not part of an ingest.
    programs::ours();
    let begin = Instant::now();
    assert!(ingest(&path).status().expect("rvf runs").success());
    let longest = begin.elapsed().min(Duration::from_secs(1));
    let mut random = Random::new(seed);
    let mut known = ROWS;
    let mut cut = 0;
    for _ in 0..rounds {
        // Whole files only in front of the next one, so that rows and ids stay in step.
        let store = Store::open(&path, &OpenOptions { lock_wait: Duration::ZERO, ..OpenOptions::default() })
            .expect("the file opens after a kill");
        let odd: Vec<u64> = (known - known % ROWS..known).collect();
        assert_eq!(store.delete(&odd).expect("the lock is taken over at once").deleted, odd.len() as u64);
        if !odd.is_empty() {
            store.compact(&rvf_cow::NoProgress).expect("we compact");
            known -= odd.len() as u64;
        }
        let mut child = Killed(ingest(&path).spawn().expect("rvf starts"));
        let until = Instant::now() + longest.mul_f64(random.below(1000) as f64 / 900.0);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        drop(child.0.kill());
        let killed = child.0.wait().expect("it ends").code().is_none();
        cut += u32::from(killed);
        let store = Store::open(&path, &OpenOptions::default()).expect("the file opens after a kill");
        let found = check(&store, known);
        assert_eq!(found % unit, 0, "{found} rows: a commit is half there");
        assert!(
            found == known + ROWS || killed && (known..known + ROWS).contains(&found),
            "{known} to {found}"
        );
        known = found;
    }
    assert!(cut > rounds / 4, "only {cut} of {rounds} were killed before their end");
    check(&Store::open(&path, &OpenOptions::default()).expect("it opens"), 0);
}

#[test]
fn a_killed_rvf_ingest_is_all_or_nothing() {
    kill_ingests(&Place::in_memory().expect("a place"), 100, ROWS, 5);
}

#[test]
fn a_killed_rvf_ingest_in_batches_keeps_whole_batches() {
    kill_ingests(&Place::in_memory().expect("a place"), 60, 500, 6);
}
