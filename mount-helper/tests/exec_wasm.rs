//! WASM programs as a user runs them: queries, calls, limits, and what is left behind.

#![cfg(feature = "wasm")]
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use common::{Place, open, text, wasm};
use rvf_cow::{BadRow, Batch, BranchOptions, CreateOptions, Metric, SearchRequest, Store};
use rvf_index::NoProgress;
use rvf_kernel::{ExecEntry, ExecKind, QUERY_MODULE};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A small generator of numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From -1 to 1, of few values, so that there are ties.
    fn coarse(&mut self) -> f32 {
        (self.next() % 9) as f32 / 4.0 - 1.0
    }

    fn fine(&mut self) -> f32 {
        (self.next() % 2_000_001) as f32 / 1_000_000.0 - 1.0
    }
}

/// A place whose store has this module in it, signed.
fn place_with(module: &str) -> Place {
    let place = Place::new();
    place.embed_signed(ExecKind::Wasm, &wasm(&wat::parse_str(module).unwrap()));
    place
}

fn run(place: &Place, arguments: &[&str]) -> Output {
    place.exec(&[&["a.rvf", "--kind", "wasm", "--"], arguments].concat())
}

fn status(output: &Output) -> (i32, String) {
    (output.status.code().unwrap_or(-1), text(&output.stderr))
}

fn line(vector: &[f32]) -> String {
    vector.iter().map(f32::to_string).collect::<Vec<_>>().join(",")
}

fn rows(random: &mut Random, ids: std::ops::Range<u64>, dim: usize, coarse: bool) -> Batch {
    let n = (ids.end - ids.start) as usize;
    let value = |random: &mut Random| if coarse { random.coarse() } else { random.fine() };
    Batch {
        dimension: dim,
        ids: Some(ids.collect()),
        vectors: (0..n * dim).map(|_| value(random)).collect(),
        metadata: Vec::new(),
        on_bad_row: BadRow::Refuse,
    }
}

/// The engine's exact answer, as `rvf-exec` prints it.
fn exact(store: &Store, queries: &[f32], k: usize) -> String {
    let view = store.view();
    let request =
        SearchRequest { queries, k, ef: None, filter: None, exact: true, deadline: None, threads: 1 };
    let answers = view.search(&request).unwrap();
    let mut out = Vec::new();
    rvf_cow::query::answer::text(&answers, &mut out);
    text(&out)
}

#[test]
fn answers_are_those_of_the_engine_to_the_last_bit() {
    let place = Place::new();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
        for (dim, coarse) in [(1, true), (3, true), (32, false), (100, false), (384, true), (385, false)] {
            let path = place.path("q.rvf");
            let _old = fs::remove_file(&path);
            let options = CreateOptions { dimension: dim as u16, metric, profile: 0 };
            let store = Store::create(&path, &options).unwrap();
            // Several segments, rows that were replaced, rows that were deleted.
            for ids in [0..700, 600..1300, 5000..5001] {
                store.ingest(&rows(&mut random, ids, dim, coarse), &NoProgress).unwrap();
            }
            store.delete(&(0..1300).step_by(7).collect::<Vec<_>>()).unwrap();
            embed(&place, &path, &wasm(QUERY_MODULE));
            let queries: Vec<f32> = (0..3 * dim).map(|_| random.fine()).collect();
            let lines: String = queries.chunks(dim).map(|q| line(q) + "\n").collect();
            for k in [1, 10, 2000] {
                let done = asked(&place, "q.rvf", &["-k", &k.to_string()], &lines);
                assert_eq!(status(&done), (0, String::new()), "{metric:?} {dim}");
                let want = exact(&open(&path), &queries, k);
                assert_eq!(text(&done.stdout), want, "{metric:?} {dim} k={k}");
            }
        }
    }
}

/// Rows that do not fit into the module's memory go through it block by block, for each query.
#[test]
fn answers_are_the_same_where_the_rows_do_not_fit() {
    let place = Place::new();
    let mut random = Random(0x51_7CC1_B727_220A);
    let path = place.path("q.rvf");
    let options = CreateOptions { dimension: 384, metric: Metric::Cosine, profile: 0 };
    let store = Store::create(&path, &options).unwrap();
    store.ingest(&rows(&mut random, 0..1300, 384, false), &NoProgress).unwrap();
    store.delete(&[3, 700]).unwrap();
    embed(&place, &path, &wasm(QUERY_MODULE));
    let queries: Vec<f32> = (0..2 * 384).map(|_| random.fine()).collect();
    let lines: String = queries.chunks(384).map(|q| line(q) + "\n").collect();
    let want = exact(&open(&path), &queries, 10);
    for memory in ["1", "2", "3", "64"] {
        let done = asked(&place, "q.rvf", &["--memory", memory], &lines);
        assert_eq!(status(&done), (0, String::new()), "{memory} MiB");
        assert_eq!(text(&done.stdout), want, "{memory} MiB");
    }
}

/// Runs the module with queries from stdin.
fn asked(place: &Place, store: &str, arguments: &[&str], lines: &str) -> Output {
    let mut child = place
        .command(&[store, "--kind", "wasm", "--"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// A module that answers with how often it was asked for room, or was opened elsewhere the second time.
#[test]
fn rows_are_put_in_place_once_for_all_queries_of_a_run() {
    let module = |step: u32| {
        format!(
            r#"(module (memory (export "memory") 1) (global $rooms (mut i32) (i32.const 0))
                (global $place (mut i32) (i32.const 64))
                (func (export "rvf_abi") (result i32) (i32.const 1))
                (func (export "rvf_open") (param i32 i32 i32) (result i32)
                    (global.set $place (i32.add (global.get $place) (i32.const {step})))
                    (global.get $place))
                (func (export "rvf_alloc") (param i32) (result i32)
                    (global.set $rooms (i32.add (global.get $rooms) (i32.const 1)))
                    (i32.store (i32.const 1024) (global.get $rooms))
                    (i32.const 4096))
                (func (export "rvf_begin"))
                (func (export "rvf_rows") (param i32 i32))
                (func (export "rvf_finish") (result i32) (i32.const 1))
                (func (export "rvf_results") (result i32) (i32.const 1024)))"#
        )
    };
    let three = "1,2,3\n4,5,6\n7,8,9\n";
    let place = place_with(&module(0));
    assert_eq!(text(&asked(&place, "a.rvf", &["-k", "1"], three).stdout), "1\t0.0\n\n1\t0.0\n\n1\t0.0\n");
    let (code, error) = status(&asked(&place_with(&module(16)), "a.rvf", &["-k", "1"], three));
    assert!(code == 1 && error.contains("another place"), "{code} {error}");
}

fn embed(place: &Place, store: &Path, payload: &[u8]) {
    place.embed_signed_in(store, ExecKind::Wasm, payload, None);
}

#[test]
fn zeros_and_large_numbers_are_answered_as_the_engine_does() {
    let place = Place::new();
    for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
        let path = place.path("q.rvf");
        let _old = fs::remove_file(&path);
        let store = Store::create(&path, &CreateOptions { dimension: 2, metric, profile: 0 }).unwrap();
        let values = [0.0, -0.0, 1e-38, 1e-20, 1.0, 1e18, -1e18, f32::MIN_POSITIVE, 1e-45];
        let vectors: Vec<f32> =
            values.iter().flat_map(|a| values.iter().flat_map(move |b| [*a, *b])).collect();
        let ids = (0..vectors.len() as u64 / 2).rev().collect();
        let batch =
            Batch { dimension: 2, ids: Some(ids), vectors, metadata: Vec::new(), on_bad_row: BadRow::Refuse };
        store.ingest(&batch, &NoProgress).unwrap();
        embed(&place, &path, &wasm(QUERY_MODULE));
        for query in [[0.0, 0.0], [1.0, -1.0], [1e18, -1e18], [1e-30, 1e-42], [-0.0, 1.0]] {
            for k in ["1", "5", "81"] {
                let asked = line(&query);
                let done = place.exec(&["q.rvf", "--kind", "wasm", "--", "-k", k, &asked]);
                let want = exact(&open(&path), &query, k.parse().unwrap());
                assert_eq!((status(&done).0, text(&done.stdout)), (0, want), "{metric:?} {query:?} k={k}");
            }
        }
        // Too far for a float32: an error here and there.
        if metric != Metric::Cosine {
            let (code, error) =
                status(&place.exec(&["q.rvf", "--kind", "wasm", "--", "-k", "81", "3e38,3e38"]));
            assert!(code == 1 && error.contains("finite"), "{metric:?}: {code} {error}");
        }
    }
}

#[test]
fn a_branch_is_searched_with_what_it_inherits() {
    let place = Place::new();
    let path = place.path("q.rvf");
    let mut random = Random(77);
    let store =
        Store::create(&path, &CreateOptions { dimension: 48, metric: Metric::Cosine, profile: 0 }).unwrap();
    store.ingest(&rows(&mut random, 0..900, 48, false), &NoProgress).unwrap();
    let child = place.path("q.exp.rvf");
    store.branch(&child, &BranchOptions::default()).unwrap();
    let branch = open(&child);
    branch.ingest(&rows(&mut random, 850..1000, 48, false), &NoProgress).unwrap();
    branch.delete(&[3, 5, 860, 999]).unwrap();
    embed(&place, &child, &wasm(QUERY_MODULE));
    let query: Vec<f32> = (0..48).map(|_| random.fine()).collect();
    let done = place.exec(&["q.exp.rvf", "--kind", "wasm", "--", "-k", "50", &line(&query)]);
    assert_eq!((status(&done), text(&done.stdout)), ((0, String::new()), exact(&open(&child), &query, 50)));
    // Without its parent it has no answers, rather than wrong ones.
    fs::rename(&path, place.path("elsewhere.rvf")).unwrap();
    let done = place.exec(&["q.exp.rvf", "--kind", "wasm", "--", &line(&query)]);
    assert_eq!((done.status.code(), text(&done.stdout)), (Some(1), String::new()));
}

#[test]
fn an_entry_runs_by_its_name() {
    let place = Place::new();
    let payload = wasm(QUERY_MODULE);
    let offset = place.embed_signed(ExecKind::Wasm, &payload);
    // A first line holds a short path only, and a program that was just written cannot be run while it is open.
    let helper = place.path("rvf-exec");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rvf-exec"), &helper).unwrap();
    let entry = ExecEntry { helper, ..place.entry(ExecKind::Wasm, offset, &payload) };
    let path = place.path("query");
    fs::write(&path, entry.render().unwrap()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&path);
    place.configure(command.args(["2,0,1", "-k", "2"]));
    let done = command.output().unwrap();
    assert_eq!(status(&done), (0, String::new()));
    assert_eq!(text(&done.stdout), "2\t0.0\n1\t1.0\n");
}

#[test]
fn functions_are_called_with_numbers() {
    let place = place_with(
        r#"(module
            (func (export "add") (param i32 i64) (result i64) (i64.add (i64.extend_i32_s (local.get 0)) (local.get 1)))
            (func (export "half") (param f64) (result f64 f32) (f64.mul (local.get 0) (f64.const 0.5)) (f32.const 1.5))
            (func (export "nothing")))"#,
    );
    let print = |arguments: &[&str]| text(&run(&place, arguments).stdout);
    assert_eq!(print(&["--invoke", "add", "-2", "44"]), "42\n");
    assert_eq!(print(&["--invoke", "half", "5"]), "2.5 1.5\n");
    assert_eq!(print(&["--invoke", "nothing"]), "\n");
    for (arguments, code, word) in [
        (&["--invoke", "add", "1"][..], 127, "takes 2"),
        (&["--invoke", "add", "x", "1"], 127, "'x'"),
        (&["--invoke", "mul"], 127, "mul"),
        (&["--invoke"], 2, "name"),
        (&["1,2,3"], 127, "--invoke"),
        (&["1,2"], 2, "3"),
        (&["1,2,3", "-k", "0"], 2, "-k"),
        (&["1,2,3", "--colour"], 2, "--colour"),
        (&["1,2,3", "4,5,6"], 2, "stdin"),
        (&["--memory", "99999", "1,2,3"], 2, "4096"),
    ] {
        let (got, error) = status(&run(&place, arguments));
        assert!(got == code && error.contains(word), "{arguments:?}: {got} {error}");
    }
    assert!(text(&place.exec(&["--help-of", "wasm"]).stdout).contains("--time-limit"));
}

#[test]
fn a_module_that_loops_is_ended() {
    let place = place_with(
        r#"(module
            (func (export "loop") (loop br 0))
            (func $deep (export "deep") (call $deep))
            (func (export "trap") unreachable)
            (func (export "divide") (result i32) (i32.div_s (i32.const 1) (i32.const 0))))"#,
    );
    let (code, error) = status(&run(&place, &["--fuel", "1000000", "--invoke", "loop"]));
    assert!(code == 124 && error.contains("fuel"), "{code} {error}");
    let start = Instant::now();
    let (code, error) =
        status(&run(&place, &["--time-limit", "1", "--fuel", "1000000000000000", "--invoke", "loop"]));
    assert!(code == 124 && error.contains("stopped"), "{code} {error}");
    assert!(start.elapsed() >= Duration::from_millis(900), "it was let run");
    let (code, error) = status(&run(&place, &["--invoke", "deep"]));
    assert!(code == 124 && error.contains("stack"), "{code} {error}");
    for name in ["trap", "divide"] {
        let (code, error) = status(&run(&place, &["--invoke", name]));
        assert!(code == 1 && error.contains("failed"), "{code} {error}");
    }
}

#[test]
fn a_module_that_grows_gets_no_more_than_its_limit() {
    let place = place_with(
        r#"(module
            (memory (export "memory") 1)
            (func (export "grow") (result i32)
                (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
                (memory.size)))"#,
    );
    let pages = |mib: &str| text(&run(&place, &["--memory", mib, "--invoke", "grow"]).stdout);
    assert_eq!(pages("1"), "16\n");
    assert_eq!(pages("64"), "1024\n");
    let declared = place_with(r#"(module (memory (export "memory") 2000) (func (export "f")))"#);
    let (code, error) = status(&run(&declared, &["--invoke", "f"]));
    assert!(code == 124 && error.contains("memory"), "{code} {error}");
    assert_eq!(status(&run(&declared, &["--memory", "200", "--invoke", "f"])).0, 0);
    let tables = place_with(r#"(module (table 20000 funcref) (func (export "f")))"#);
    assert_eq!(status(&run(&tables, &["--invoke", "f"])).0, 124);
}

#[test]
fn a_module_that_wants_or_lacks_something_is_not_run() {
    let imports = r#"(module (import "env" "open" (func)) (func (export "f")))"#;
    let (code, error) = status(&run(&place_with(imports), &["--invoke", "f"]));
    assert!(code == 127 && error.contains("'open' of 'env'"), "{code} {error}");
    let starts = r#"(module (func $f (loop br 0)) (start $f) (func (export "f")))"#;
    assert_eq!(status(&run(&place_with(starts), &["--fuel", "1000", "--invoke", "f"])).0, 124);
    // Query functions that lie.
    let abi = |version: u32, open: u32, finish: u32, results: u32| {
        format!(
            r#"(module (memory (export "memory") 1)
                (func (export "rvf_abi") (result i32) (i32.const {version}))
                (func (export "rvf_open") (param i32 i32 i32) (result i32) (i32.const {open}))
                (func (export "rvf_alloc") (param i32) (result i32) (i32.const 64))
                (func (export "rvf_begin"))
                (func (export "rvf_rows") (param i32 i32))
                (func (export "rvf_finish") (result i32) (i32.const {finish}))
                (func (export "rvf_results") (result i32) (i32.const {results})))"#
        )
    };
    for (module, code, word) in [
        (abi(2, 64, 0, 64), 127, "version"),
        (abi(1, 0, 0, 64), 124, "--memory"),
        (abi(1, 65_535, 0, 64), 1, "65535"),
        (abi(1, 64, 4, 64), 1, "4 results"),
        (abi(1, 64, u32::MAX, 64), 1, "results"),
        (abi(1, 64, 3, u32::MAX), 1, "bytes at"),
        (abi(1, 64, 3, 65_500), 1, "bytes at"),
    ] {
        let (got, error) = status(&run(&place_with(&module), &["1,2,3", "-k", "3"]));
        assert!(got == code && error.contains(word), "{got} {error}\n{module}");
    }
    let quiet = run(&place_with(&abi(1, 64, 2, 30_000)), &["1,2,3"]);
    assert_eq!((quiet.status.code(), text(&quiet.stdout)), (Some(0), "0\t0.0\n0\t0.0\n".into()));
}

#[test]
fn what_was_compiled_is_kept_for_this_user_alone() {
    let place = place_with(r#"(module (func (export "f") (result i32) (i32.const 7)))"#);
    let cache = place.path("cache/rvf/wasm");
    let runs = || assert_eq!(text(&run(&place, &["--invoke", "f"]).stdout), "7\n");
    runs();
    let file = fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
    let kept = fs::read(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    runs();
    // What was written to is compiled anew.
    let mut bad = kept.clone();
    let end = bad.len();
    bad[end / 2..].fill(0xCC);
    fs::write(&file, &bad).unwrap();
    runs();
    assert_eq!(fs::read(&file).unwrap(), kept, "and kept again");
    fs::write(&file, &bad).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
    runs();
    assert_eq!(fs::read(&file).unwrap(), bad, "a place that others may write to is not used");
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(text(&run(&place, &["--no-cache", "--invoke", "f"]).stdout), "7\n");
    assert_eq!(fs::read(&file).unwrap(), bad);
    let said = run(&place, &["--invoke", "f"]);
    assert!(said.stderr.is_empty());
    let verbose = text(&place.exec(&["-v", "a.rvf", "--kind", "wasm", "--", "--invoke", "f"]).stderr);
    for word in ["check 7 of 7", "capabilities: none", "landlock: ", "fuel used: "] {
        assert!(verbose.contains(word), "{verbose}");
    }
}

/// Processes that have this store in their command line.
fn left(place: &Place) -> Vec<String> {
    let mark = place.path("").to_str().unwrap().to_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if text(&line).contains(&mark) {
            found.push(name);
        }
    }
    found
}

#[test]
fn a_helper_that_is_killed_leaves_nothing_behind() {
    let place = place_with(r#"(module (func (export "loop") (loop br 0)))"#);
    let store = place.store();
    let mut random = Random(4242);
    for n in 0..40 {
        let arguments = [store.to_str().unwrap(), "--kind", "wasm", "--", "--invoke", "loop"];
        let mut child = place.command(&arguments).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(random.next() % 60_000));
        child.kill().unwrap();
        child.wait().unwrap();
        let since = Instant::now();
        while !left(&place).is_empty() && since.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(left(&place), Vec::<String>::new(), "round {n}");
    }
    // Nothing half-written counts either: the next run is as good as the first.
    let (code, _) = status(&run(&place, &["--fuel", "1000", "--invoke", "loop"]));
    assert_eq!(code, 124);
}
