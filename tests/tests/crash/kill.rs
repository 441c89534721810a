//! Writers killed at random instants, hundreds of times.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rvf_cow::{BadRow, Batch, CreateOptions, Metric, NoProgress, OpenOptions, Store, Value};
use rvf_tests::place::Place;
use rvf_tests::random::{Random, vector_of};

const DIMENSION: usize = 16;
const ROWS: u64 = 50;

/// Starts the worker, lets it acknowledge a few times and a little more happen, kills it, and returns what it said.
fn kill_after(args: &[&str], lines: u64, extra: Duration) -> Vec<String> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rvf-test-worker"))
        .args(args)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the worker starts");
    let mut output = BufReader::new(child.stdout.take().expect("its output"));
    let mut said = Vec::new();
    for _ in 0..lines {
        said.extend(line(&mut output));
    }
    // Where in the next commit the kill falls is left to chance on purpose.
    let until = Instant::now() + extra;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    child.kill().expect("the worker can be killed");
    let status = child.wait().expect("the worker ends");
    assert!(!status.success() && status.code().is_none(), "the worker ended by itself: {status}");
    // Acknowledged is what reached the pipe, read or not.
    while let Some(more) = line(&mut output) {
        said.push(more);
    }
    said
}

fn line(output: &mut impl BufRead) -> Option<String> {
    let mut text = String::new();
    let n = output.read_line(&mut text).expect("its output can be read");
    (n > 0 && text.ends_with('\n')).then(|| text.trim().to_owned())
}

fn open(path: &Path) -> std::sync::Arc<Store> {
    // No waiting: a lock left behind by a dead writer must not delay anybody.
    let options = OpenOptions { lock_wait: Duration::ZERO, ..OpenOptions::default() };
    Store::open(path, &options).expect("the file opens after a kill")
}

/// Commits something harmless, which needs the lock: the overwrite of a row by itself.
fn touch(store: &Store, id: u64) {
    let batch = Batch {
        dimension: DIMENSION,
        ids: Some(vec![id]),
        vectors: vector_of(id, DIMENSION),
        metadata: Vec::new(),
        on_bad_row: BadRow::Refuse,
    };
    store.ingest(&batch, &NoProgress).expect("the lock of a dead writer is taken over at once");
}

/// Whole batches only, those in `known` already checked; how many there are.
fn whole_batches(store: &Store, known: u64) -> u64 {
    let view = store.view();
    let live = view.live();
    assert_eq!(live % ROWS, 0, "half a batch");
    for id in known * ROWS..live {
        let ordinal = view.find(id).expect("an id of a whole batch");
        let want: Vec<u8> = vector_of(id, DIMENSION).iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(view.vector(ordinal), want, "id {id}");
        assert_eq!(view.fields(id), Some(vec![("batch".to_owned(), Value::U64(id / ROWS))]));
    }
    live / ROWS
}

fn create(path: &Path) {
    let options = CreateOptions { dimension: DIMENSION as u16, metric: Metric::Cosine, profile: 0 };
    Store::create(path, &options).expect("we create a store");
}

fn ingest_and_kill(place: &Place, rounds: u64, seed: u64) {
    let path = place.join("killed.rvf");
    let file = path.to_str().expect("a plain path");
    create(&path);
    let mut random = Random::new(seed);
    let mut known = 0;
    for _ in 0..rounds {
        let lines = random.below(4);
        let extra = Duration::from_micros(random.below(if lines == 0 { 12_000 } else { 3_000 }));
        let said = kill_after(&["ingest", file, &known.to_string(), &ROWS.to_string()], lines, extra);
        let acknowledged = said.last().map_or(known, |n| n.parse::<u64>().expect("a batch number") + 1);
        let store = open(&path);
        let found = whole_batches(&store, known);
        assert!(
            found == acknowledged || found == acknowledged + 1,
            "{acknowledged} batches acknowledged, {found} found"
        );
        if found > 0 {
            touch(&store, 0);
            assert_eq!(whole_batches(&store, found), found);
        }
        assert_eq!(place.names().expect("names"), ["killed.rvf"], "something is left behind");
        known = found;
    }
    assert!(known > rounds / 2, "only {known} batches in {rounds} rounds");
    whole_batches(&open(&path), 0);
}

#[test]
fn a_killed_ingest_loses_nothing_acknowledged() {
    ingest_and_kill(&Place::in_memory().expect("a place"), 250, 1);
}

#[test]
fn a_killed_ingest_loses_nothing_acknowledged_on_disk() {
    ingest_and_kill(&Place::on_disk().expect("a place"), 50, 2);
}

/// Overwrites, reindexing and compaction, none of which may change what the store holds.
#[test]
fn a_killed_compaction_or_reindex_changes_nothing() {
    let place = Place::in_memory().expect("a place");
    let path = place.join("churned.rvf");
    let file = path.to_str().expect("a plain path");
    create(&path);
    let store = open(&path);
    for number in 0..20u64 {
        let ids: Vec<u64> = (number * ROWS..(number + 1) * ROWS).collect();
        let batch = Batch {
            dimension: DIMENSION,
            vectors: ids.iter().flat_map(|id| vector_of(*id, DIMENSION)).collect(),
            metadata: ids.iter().map(|_| vec![("batch".to_owned(), Value::U64(number))]).collect(),
            ids: Some(ids),
            on_bad_row: BadRow::Refuse,
        };
        store.ingest(&batch, &NoProgress).expect("we ingest");
    }
    let mut random = Random::new(3);
    let mut seen = [0; 3];
    for round in 0..100 {
        let (lines, extra) = (random.below(4), Duration::from_micros(random.below(40_000)));
        for word in kill_after(&["churn", file], lines, extra) {
            let at = ["ingest", "reindex", "compact"].iter().position(|w| *w == word).expect("a known word");
            seen[at] += 1;
        }
        let again = open(&path);
        assert_eq!(whole_batches(&again, if round % 10 == 0 { 0 } else { 19 }), 20);
        touch(&again, round);
        // Scratch files of a dead process are no danger, but must not pile up.
        let names = place.names().expect("names");
        assert!(names.len() <= 2, "{names:?}");
        for name in names.iter().filter(|n| *n != "churned.rvf") {
            std::fs::remove_file(place.join(name)).expect("a scratch file");
        }
    }
    whole_batches(&open(&path), 0);
    store.refresh().expect("the store that was open all the time follows");
    assert_eq!(whole_batches(&store, 0), 20);
    assert!(seen.iter().all(|n| *n > 10), "{seen:?}");
}

/// A child that is killed even if the test fails.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended already; there is nothing to do then.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Killed in the middle of a commit, with the lock held for sure.
#[test]
fn the_lock_of_a_killed_writer_is_taken_over_at_once() {
    let place = Place::in_memory().expect("a place");
    let path = place.join("held.rvf");
    create(&path);
    let mut child = Killed(
        Command::new(env!("CARGO_BIN_EXE_rvf-test-worker"))
            .args(["hold", path.to_str().expect("a plain path")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the worker starts"),
    );
    let mut output = BufReader::new(child.0.stdout.take().expect("its output"));
    assert_eq!(line(&mut output).as_deref(), Some("holding"));
    assert_eq!(place.names().expect("names"), ["held.rvf", "held.rvf.lock"]);
    child.0.kill().expect("the worker can be killed");
    child.0.wait().expect("the worker ends");
    let store = open(&path);
    assert_eq!(store.view().live(), 0, "nothing of the killed commit shows");
    touch(&store, 5);
    assert_eq!(store.view().live(), 1);
    assert_eq!(place.names().expect("names"), ["held.rvf"]);
}
