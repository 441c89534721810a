//! A process for the crash tests to kill. It acknowledges on standard output, a line each, what is committed.
//!
//! ```text
//! rvf-test-worker ingest PATH FIRST ROWS     batches FIRST, FIRST+1, ... of ROWS rows until killed
//! rvf-test-worker append PATH COUNT ROWS     COUNT batches of ROWS rows with ids that follow on
//! rvf-test-worker churn PATH                 overwrites, deletes, compacts and reindexes until killed
//! rvf-test-worker hold PATH                  stops in the middle of a commit until standard input ends
//! ```

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use rvf_cow::{BadRow, Batch, NoProgress, OpenOptions, Progress, ReindexOptions, Store, Value};
use rvf_tests::random::vector_of;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().map_err(|e| format!("{text}: {e}"));
    let result = match words[..] {
        ["ingest", path, first, rows] => number(first)
            .and_then(|f| Ok((f, number(rows)?)))
            .map_err(Into::into)
            .and_then(|(first, rows)| ingest(Path::new(path), first, rows)),
        ["append", path, count, rows] => number(count)
            .and_then(|c| Ok((c, number(rows)?)))
            .map_err(Into::into)
            .and_then(|(count, rows)| append(Path::new(path), count, rows)),
        ["churn", path] => churn(Path::new(path)),
        ["hold", path] => hold(Path::new(path)),
        _ => Err("usage: rvf-test-worker ingest|append|churn|hold PATH ...".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("rvf-test-worker: {e}");
            ExitCode::FAILURE
        }
    }
}

fn open(path: &Path) -> Result<std::sync::Arc<Store>, rvf_cow::Error> {
    Store::open(path, &OpenOptions { lock_wait: Duration::from_secs(60), ..OpenOptions::default() })
}

/// The rows `number * rows ..` with their batch number as metadata.
fn batch(dimension: usize, number: u64, rows: u64) -> Batch {
    let ids: Vec<u64> = (number * rows..(number + 1) * rows).collect();
    Batch {
        dimension,
        vectors: ids.iter().flat_map(|id| vector_of(*id, dimension)).collect(),
        metadata: ids.iter().map(|_| vec![("batch".to_owned(), Value::U64(number))]).collect(),
        ids: Some(ids),
        on_bad_row: BadRow::Refuse,
    }
}

fn say(line: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn ingest(path: &Path, first: u64, rows: u64) -> Outcome {
    let store = open(path)?;
    let dimension = store.view().dimension();
    for number in first.. {
        store.ingest(&batch(dimension, number, rows), &NoProgress)?;
        say(&number.to_string())?;
    }
    Ok(())
}

fn append(path: &Path, count: u64, rows: u64) -> Outcome {
    let store = open(path)?;
    let dimension = store.view().dimension();
    for _ in 0..count {
        let rows = rows as usize;
        let batch = Batch {
            dimension,
            ids: None,
            vectors: vec![std::process::id() as f32; rows * dimension],
            metadata: Vec::new(),
            on_bad_row: BadRow::Refuse,
        };
        let report = store.ingest(&batch, &NoProgress)?;
        say(&format!("{} {}", report.first_id.unwrap_or(u64::MAX), report.epoch))?;
    }
    Ok(())
}

/// Rewrites everything again and again, without changing what the store holds.
fn churn(path: &Path) -> Outcome {
    let store = open(path)?;
    let options = ReindexOptions { threads: 1, ef_construction: 16, m: 4, ..ReindexOptions::default() };
    for round in 0u64.. {
        let view = store.view();
        let ids: Vec<u64> = view.live_ordinals().iter().map(|o| view.id(*o)).collect();
        let dimension = view.dimension();
        let id = ids[(round % ids.len() as u64) as usize];
        let again = Batch {
            dimension,
            ids: Some(vec![id]),
            vectors: vector_of(id, dimension),
            metadata: Vec::new(),
            on_bad_row: BadRow::Refuse,
        };
        store.ingest(&again, &NoProgress)?;
        say("ingest")?;
        store.reindex(&options, &NoProgress)?;
        say("reindex")?;
        store.compact(&NoProgress)?;
        say("compact")?;
    }
    Ok(())
}

/// Reports once and then waits for the end of standard input, with the write lock held.
#[derive(Debug)]
struct Wait;

impl Progress for Wait {
    fn step(&self, _done: u64, _total: u64) -> bool {
        let said = say("holding").is_ok();
        let mut rest = Vec::new();
        said && std::io::stdin().read_to_end(&mut rest).is_ok()
    }
}

fn hold(path: &Path) -> Outcome {
    let store = open(path)?;
    let dimension = store.view().dimension();
    store.ingest(&batch(dimension, 1_000_000, 1), &Wait)?;
    say("committed")
}
