//! Our `rvf` beside the reference's: the same commands on the same files, JSON for JSON.
//!
//! Ours may say more: every key of the reference must be there, with the same value.

use std::path::{Path, PathBuf};

use rvf_cow::{Metric, NoProgress};
use rvf_tests::place::Place;
use rvf_tests::programs::{self, Run, run};
use rvf_tests::random::Random;
use serde_json::Value;

use crate::oracle::{create, every_type, ingest, numbered, rows};
use crate::reference;

/// The first difference between a value and what it must at least contain. Numbers are compared as `f32` when they
/// have a fraction: both programs print distances, which are `f32`, with as many digits as they like.
fn lacks(got: &Value, want: &Value, at: &str) -> Option<String> {
    match (got, want) {
        (Value::Object(got), Value::Object(want)) => want.iter().find_map(|(key, want)| match got.get(key) {
            Some(got) => lacks(got, want, &format!("{at}.{key}")),
            None => Some(format!("{at}.{key} is missing")),
        }),
        (Value::Array(got), Value::Array(want)) if got.len() == want.len() => {
            got.iter().zip(want).enumerate().find_map(|(n, (g, w))| lacks(g, w, &format!("{at}[{n}]")))
        }
        (Value::Number(got), Value::Number(want)) if !want.is_u64() => {
            let both = (got.as_f64().map(|v| v as f32), want.as_f64().map(|v| v as f32));
            (both.0 != both.1).then(|| format!("{at} is {got} instead of {want}"))
        }
        (got, want) => (got != want).then(|| format!("{at} is {got} instead of {want}")),
    }
}

fn both(theirs: &Path, args: &[&str]) -> (Run, Run) {
    (run(programs::ours(), args), run(theirs, args))
}

/// Runs a reading command with both programs on one file.
fn same_answer(theirs: &Path, args: &[&str]) {
    let (ours, theirs) = both(theirs, args);
    assert_eq!(ours.status, theirs.status, "{args:?}\nours: {ours:?}\ntheirs: {theirs:?}");
    if theirs.status == 0 {
        assert_eq!(lacks(&ours.json(), &theirs.json(), "json"), None, "{args:?}");
    }
    assert_eq!(code(&ours), code(&theirs), "{args:?}\nours: {ours:?}\ntheirs: {theirs:?}");
}

/// The reference's error number that a program printed, if it did.
fn code(run: &Run) -> Option<&str> {
    let at = run.stderr.find("0x0")?;
    run.stderr.get(at..at + 6)
}

/// Runs a writing command with both programs, each on its own copy of one file; keys in `apart` may differ in
/// value, not in being there.
fn same_change(
    theirs: &Path,
    file: &Path,
    command: &str,
    rest: &[&str],
    apart: &[&str],
) -> (PathBuf, PathBuf) {
    let copies = [file.with_extension("ours.rvf"), file.with_extension("theirs.rvf")];
    let runs: Vec<Run> = [programs::ours(), theirs]
        .iter()
        .zip(&copies)
        .map(|(program, copy)| {
            if file.exists() {
                std::fs::copy(file, copy).expect("a copy");
            }
            let mut args = vec![command, copy.to_str().expect("a plain path")];
            args.extend_from_slice(rest);
            run(program, &args)
        })
        .collect();
    assert_eq!(runs[0].status, runs[1].status, "{command} {rest:?}: {runs:?}");
    if runs[1].status == 0 {
        let (got, mut want) = (runs[0].json(), runs[1].json());
        let object = want.as_object_mut().expect("an object");
        for key in apart {
            assert!(got.get(key).is_some(), "{command}: {key} is missing in {got}");
            assert!(object.remove(*key).is_some(), "{command}: the reference has no {key}");
        }
        assert_eq!(lacks(&got, &want, "json"), None, "{command} {rest:?}");
    }
    let [ours, theirs] = copies;
    (ours, theirs)
}

fn text(vector: &[f32]) -> String {
    vector.iter().map(f32::to_string).collect::<Vec<_>>().join(",")
}

/// Reads the same things from a file with both programs.
fn reads_the_same(theirs: &Path, file: &Path, dimension: usize, random: &mut Random) {
    let file = file.to_str().expect("a plain path");
    same_answer(theirs, &["status", file, "--json"]);
    same_answer(theirs, &["inspect", file, "--json"]);
    same_answer(theirs, &["verify-witness", file, "--json"]);
    for k in ["1", "10", "1000"] {
        let vector = text(&random.vector(dimension));
        same_answer(theirs, &["query", file, &format!("--vector={vector}"), "-k", k, "--json"]);
    }
    for filter in [r#"{"eq":{"field":3,"value":true}}"#, r#"{"not":{"ge":{"field":33,"value":{"u64":2}}}}"#] {
        let vector = text(&random.vector(dimension));
        same_answer(theirs, &["query", file, &format!("--vector={vector}"), "--filter", filter, "--json"]);
    }
    // What is refused is refused by both.
    same_answer(theirs, &["query", file, "--vector=1,2", "--json"]);
    same_answer(theirs, &["query", file, "--vector=NaN,1,2,3,4", "--json"]);
    same_answer(theirs, &["query", file, "--vector=x", "--json"]);
}

#[test]
fn both_programs_say_the_same() {
    let Some(theirs) = programs::reference() else { return };
    let place = Place::in_memory().expect("a place");
    let mut random = Random::new(12);

    // A file of ours and one of the reference's, with the same history.
    let mut batch = rows(&mut random, 0, 40, 5);
    for row in batch.iter_mut().step_by(2) {
        row.record = Some(numbered(&every_type(row.id)));
    }
    let mine = place.join("mine.rvf");
    let store = create(&mine, 5, Metric::Cosine);
    ingest(&store, &batch);
    store.delete(&[3, 4, 777]).expect("we delete");
    store.compact(&NoProgress).expect("we compact");
    let more = rows(&mut random, 100, 5, 5);
    ingest(&store, &more);
    store.delete(&[100, 7]).expect("we delete");

    let other = place.join("other.rvf");
    let mut reference = reference::create(&other, 5, Metric::Cosine);
    reference::ingest(&mut reference, &batch);
    reference.delete(&[3, 4, 777]).expect("the reference deletes");
    reference.compact().expect("the reference compacts");
    reference::ingest(&mut reference, &more);
    reference.delete(&[100, 7]).expect("the reference deletes");
    reference.close().expect("close");

    for file in [&mine, &other] {
        reads_the_same(theirs, file, 5, &mut random);
        let input = place.join("rows.json");
        let rows = r#"[{"id": 1, "vector": [1,2,3,4,5]}, {"id": 500, "vector": [0.1,-0.2,1e-3,4,5]},
                       {"id": 501, "vector": [1,2]}, {"id": 502, "vector": [1e99,2,3,4,5], "extra": true}]"#;
        std::fs::write(&input, rows).expect("input");
        let input = input.to_str().expect("a plain path");
        let (a, b) = same_change(theirs, file, "ingest", &["--input", input, "--json"], &[]);
        reads_the_same(theirs, &a, 5, &mut random);
        reads_the_same(theirs, &b, 5, &mut random);
        let (a, b) = same_change(theirs, file, "delete", &["--ids", "1,2,9999", "--json"], &[]);
        reads_the_same(theirs, &a, 5, &mut random);
        reads_the_same(theirs, &b, 5, &mut random);
        let filter = r#"{"eq":{"field":3,"value":true}}"#;
        let (a, b) = same_change(theirs, file, "delete", &["--filter", filter, "--json"], &[]);
        reads_the_same(theirs, &a, 5, &mut random);
        reads_the_same(theirs, &b, 5, &mut random);
        let (a, b) = same_change(theirs, file, "compact", &["--json"], &["file_size_after"]);
        reads_the_same(theirs, &a, 5, &mut random);
        reads_the_same(theirs, &b, 5, &mut random);

        // Nothing accepted: both print the counts and fail.
        std::fs::write(place.join("bad.json"), r#"[{"id": 1, "vector": [1]}]"#).expect("input");
        let bad = place.join("bad.json");
        same_change(theirs, file, "ingest", &["--input", bad.to_str().expect("a plain path"), "--json"], &[]);
        std::fs::write(&bad, "[]").expect("input");
        same_change(theirs, file, "ingest", &["--input", bad.to_str().expect("a plain path"), "--json"], &[]);
        same_change(theirs, file, "ingest", &["--input", "/nonexistent.json", "--json"], &[]);
    }
}

#[test]
fn both_programs_create_the_same() {
    let Some(theirs) = programs::reference() else { return };
    let place = Place::in_memory().expect("a place");
    let mut random = Random::new(13);
    for (n, rest) in [
        &["-d", "5", "--json"][..],
        &["--dimension", "5", "--metric", "cosine", "--profile", "2", "--json"],
        &["-d", "5", "-m", "ip", "--json"],
        &["-d", "5", "-m", "inner_product", "--json"],
        &["-d", "5", "-m", "L2", "-p", "3", "--json"],
        &["-d", "0", "--json"],
        &["-d", "5", "-m", "hamming", "--json"],
        &["--json"],
    ]
    .into_iter()
    .enumerate()
    {
        let file = place.join(&format!("new{n}.rvf"));
        let (a, b) = same_change(theirs, &file, "create", rest, &["path"]);
        assert_eq!(a.exists(), b.exists(), "{rest:?}");
        if a.exists() {
            reads_the_same(theirs, &a, 5, &mut random);
            reads_the_same(theirs, &b, 5, &mut random);
            // It exists now.
            let (ours, theirs) = both(theirs, &["create", a.to_str().expect("a plain path"), "-d", "5"]);
            assert_eq!((ours.status, theirs.status), (1, 1));
        }
    }
}

/// Missing, empty, foreign and torn files: the same exit status.
#[test]
fn both_programs_refuse_the_same() {
    let Some(theirs) = programs::reference() else { return };
    let place = Place::in_memory().expect("a place");
    let mut random = Random::new(14);
    let whole = place.join("whole.rvf");
    let store = create(&whole, 5, Metric::L2);
    ingest(&store, &rows(&mut random, 0, 20, 5));
    let bytes = std::fs::read(&whole).expect("the file");

    let files: [(&str, Vec<u8>); 3] = [
        ("empty.rvf", Vec::new()),
        ("text.rvf", b"hello\n".repeat(100)),
        ("torn.rvf", bytes[..bytes.len() - 30].to_vec()),
    ];
    for (name, content) in files {
        let path = place.join(name);
        std::fs::write(&path, content).expect("a file");
        let path = path.to_str().expect("a plain path");
        same_answer(theirs, &["status", path, "--json"]);
        same_answer(theirs, &["inspect", path, "--json"]);
        same_answer(theirs, &["query", path, "--vector=1,2,3,4,5", "--json"]);
        same_answer(theirs, &["status", path, "--recover", "--json"]);
        same_answer(theirs, &["query", path, "--vector=1,2,3,4,5", "--recover", "--json"]);
    }
    let missing = place.join("missing.rvf");
    let missing = missing.to_str().expect("a plain path");
    for args in [
        &["status", missing, "--json"][..],
        &["query", missing, "--vector=1", "--json"],
        &["delete", missing, "--ids", "1", "--json"],
        &["compact", missing, "--json"],
        &["create", "/nonexistent/x.rvf", "-d", "3", "--json"],
        &["status"],
        &["frobnicate", missing],
    ] {
        same_answer(theirs, args);
    }
}
