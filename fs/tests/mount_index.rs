//! Indexes built in the background: when one is, when none is, and what happens to it in between.

mod mounted;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mounted::{Mounted, open_store, write_file};
use rvf_cow::{BadRow, Batch, CreateOptions, Metric, NoProgress, Store};
use rvf_format::lock::WriteLock;

const DIM: usize = 16;
/// Enough for a walk to be cheaper than a scan, and quick to build.
const ROWS: u64 = 6000;
/// So many that a build is still under way when something is done to it.
const MANY: u64 = 60_000;

/// Row i of every store here.
fn row(i: u64) -> [f32; DIM] {
    let mut state = (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    std::array::from_fn(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    })
}

fn add(store: &Store, ids: std::ops::Range<u64>) {
    let batch = Batch {
        dimension: DIM,
        vectors: ids.clone().flat_map(row).collect(),
        ids: Some(ids.collect()),
        metadata: Vec::new(),
        on_bad_row: BadRow::Refuse,
    };
    store.ingest(&batch, &NoProgress).expect("rows");
}

fn make(path: &Path, n: u64) -> Arc<Store> {
    let options = CreateOptions { dimension: DIM as u16, metric: Metric::L2, profile: 0 };
    let store = Store::create(path, &options).expect("a new store");
    add(&store, 0..n);
    store
}

fn mounted(n: u64, options: &[&str]) -> Mounted {
    let dir = tempfile::tempdir().expect("a directory");
    let source = dir.path().join("store.rvf");
    drop(make(&source, n));
    Mounted::mount(dir, source, options)
}

fn text(i: u64) -> String {
    row(i).map(|number| format!("{number:?}")).join(",") + "\n"
}

/// Asks for the neighbours of row i in the store below `at`: `out`, and `out.json`.
fn ask(m: &Mounted, at: &str, i: u64) -> (String, String) {
    m.write(&format!("{at}query/in"), text(i)).expect("a query");
    (m.read(&format!("{at}query/out")), m.read(&format!("{at}query/out.json")))
}

/// Waits for the machine, however busy it is with other tests: the build runs at a low priority.
fn wait_until(m: &Mounted, what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(240);
    while !holds() {
        assert!(Instant::now() < end, "not in time: {what}\n{}", m.sh_ok("cat status events 2>&1 || ls"));
        std::thread::yield_now();
    }
}

fn wait_for_index(m: &Mounted, place: &str) {
    wait_until(m, place, || m.status("index_place") == place && !is_busy(&m.status("index_build")));
}

fn is_busy(build: &str) -> bool {
    build == "waiting" || build == "storing" || build.starts_with("running")
}

/// Waits until a build has got somewhere.
fn wait_for_build(m: &Mounted) {
    wait_until(m, "a build under way", || {
        let build = m.status("index_build");
        assert!(build.starts_with("running") || build == "waiting", "too quick, or not begun: {build}");
        build.strip_prefix("running ").is_some_and(|percent| percent != "0%")
    });
}

fn events(m: &Mounted, kind: &str) -> usize {
    let wanted = format!("\"event\": \"{kind}\"");
    m.read("events").lines().filter(|line| line.contains(&wanted)).count()
}

fn rvf(arguments: &[&str], file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rvf"))
        .args(arguments)
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .expect("rvf runs")
}

fn check(file: &Path) {
    let output = rvf(&["check"], file);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_first_query_builds_and_stores_an_index() {
    need_fuse!();
    let mut m = mounted(ROWS, &[]);
    let before = fs::read(&m.source).expect("read");
    m.sh_ok("find . -type f ! -name in -exec cat {} + > /dev/null");
    assert_eq!(m.status("index"), format!("0/{ROWS}"));
    assert_eq!(m.status("index_build"), "none", "reading builds nothing");
    assert_eq!(fs::read(&m.source).expect("read"), before);

    let (out, json) = ask(&m, "", 7);
    assert!(out.starts_with("7\t0.0\n"), "{out}");
    assert!(json.contains("\"exact\": true") && json.contains("\"scan\""), "{json}");
    wait_for_index(&m, "file");
    assert_eq!(m.status("index"), format!("{ROWS}/{ROWS}"));
    assert_eq!(m.status("index_layer"), "C");
    assert_eq!(m.status("index_build"), "none");
    assert_eq!((events(&m, "index-build"), events(&m, "reindex")), (1, 1));
    assert_eq!(m.status("index_loaded"), "none", "only a query has it read");
    let (walked, json) = ask(&m, "", 7);
    assert!(json.contains("\"C\""), "{json}");
    mounted::wait_until("the index is in memory", || m.status("index_loaded") == "A B C");
    assert_eq!(walked, out, "the same neighbours");
    assert_eq!(m.list("segments").iter().filter(|name| name.ends_with("-index")).count(), 2);
    check(&m.source);

    assert!(m.unmount().success());
    m.remount(&[]);
    assert_eq!(m.status("index_place"), "file");
    assert_eq!(ask(&m, "", 7).0, out);
    assert_eq!((m.status("index_build").as_str(), events(&m, "index-build")), ("none", 0));
}

#[test]
fn rows_after_the_index_are_scanned_until_they_are_a_fifth() {
    need_fuse!();
    let m = mounted(ROWS, &[]);
    ask(&m, "", 0);
    wait_for_index(&m, "file");
    let other = open_store(&m.source);
    let fifth = ROWS + ROWS / 4;
    add(&other, ROWS..fifth);
    wait_until(&m, "the rows are seen", || m.status("vectors") == fifth.to_string());
    let (out, json) = ask(&m, "", fifth - 1);
    assert!(out.starts_with(&format!("{}\t0.0\n", fifth - 1)), "{out}");
    assert!(json.contains("\"C\""), "{json}");
    assert_eq!(m.status("index_build"), "none", "four fifths are covered");

    add(&other, fifth..fifth + 1);
    wait_until(&m, "the row is seen", || m.status("vectors") == (fifth + 1).to_string());
    assert!(ask(&m, "", fifth).0.starts_with(&format!("{fifth}\t0.0\n")));
    let whole = format!("{0}/{0}", fifth + 1);
    wait_until(&m, "the index is built again", || m.status("index") == whole);

    // A compaction drops the index; the next query has another built.
    fs::remove_file(m.path("vectors/3")).expect("deleted");
    m.write("ctl", "compact\n").expect("compacted");
    assert_eq!(m.status("index_place"), "none");
    assert!(ask(&m, "", 9).0.starts_with("9\t0.0\n"));
    wait_for_index(&m, "file");
    check(&m.source);
}

#[test]
fn a_read_only_mount_keeps_its_index_in_memory() {
    need_fuse!();
    let m = mounted(ROWS, &["--read-only"]);
    let before = fs::read(&m.source).expect("read");
    let (out, _) = ask(&m, "", 11);
    wait_for_index(&m, "memory");
    assert_eq!(m.status("index"), format!("{ROWS}/{ROWS}"));
    assert_eq!(m.status("index_build"), "none");
    let (walked, json) = ask(&m, "", 11);
    assert_eq!(walked, out);
    assert!(json.contains("\"C\""), "{json}");
    assert_eq!(fs::read(&m.source).expect("read"), before, "not a byte");
    let names: Vec<_> = fs::read_dir(m.source.parent().expect("a parent")).expect("ls").flatten().collect();
    assert_eq!(names.len(), 2, "the store and the mountpoint: {names:?}");
}

#[test]
fn another_writers_lock_leaves_the_index_in_memory_until_it_is_gone() {
    need_fuse!();
    let m = mounted(ROWS, &[]);
    let before = fs::read(&m.source).expect("read");
    let file = fs::File::options().read(true).write(true).open(&m.source).expect("open");
    let lock = WriteLock::acquire(&m.source, &file, Duration::ZERO).expect("locked");
    let (out, _) = ask(&m, "", 13);
    wait_for_index(&m, "memory");
    assert!(m.status("index_build").starts_with("in memory: "), "{}", m.status("index_build"));
    assert!(m.status("index_build").contains("locked by another writer"));
    for _ in 0..20 {
        assert_eq!(ask(&m, "", 13).0, out);
    }
    assert_eq!((events(&m, "index-build"), events(&m, "index-not-stored")), (1, 1), "said once");
    assert_eq!(fs::read(&m.source).expect("read"), before);
    drop(lock);
    // The next commit shows that the way is free.
    write_file(&m.path("vectors/900000"), text(ROWS).as_bytes()).expect("a new vector");
    wait_for_index(&m, "file");
    assert_eq!(m.status("index_build"), "none");
    assert_eq!(m.status("index"), format!("{ROWS}/{}", ROWS + 1));
    assert_eq!(events(&m, "index-build"), 1, "built once");
    check(&m.source);
}

#[test]
fn a_daemon_killed_while_building_leaves_the_file_as_it_was() {
    need_fuse!();
    let mut m = mounted(MANY, &[]);
    let before = fs::read(&m.source).expect("read");
    let (out, _) = ask(&m, "", 17);
    wait_for_build(&m);
    assert_eq!(ask(&m, "", 17).0, out, "queries go on");
    m.signal("-KILL");
    m.wait();
    assert!(fs::read(&m.source).expect("read") == before, "the file is as it was");
    check(&m.source);
    m.remount(&["--no-auto-index"]);
    assert_eq!(ask(&m, "", 17).0, out);
    assert_eq!(m.status("index_place"), "none");
}

#[test]
fn an_unmount_does_not_wait_for_a_build() {
    need_fuse!();
    let mut m = mounted(MANY, &[]);
    let before = fs::read(&m.source).expect("read");
    ask(&m, "", 19);
    wait_for_build(&m);
    assert!(m.unmount().success());
    m.remount(&[]);
    ask(&m, "", 19);
    wait_for_build(&m);
    m.signal("-TERM");
    assert!(m.wait().success());
    assert!(fs::read(&m.source).expect("read") == before, "the file is as it was");
    check(&m.source);
}

#[test]
fn of_many_stores_only_those_asked_are_indexed() {
    need_fuse!();
    let dir = tempfile::tempdir().expect("a directory");
    let source = dir.path().join("stores");
    fs::create_dir(&source).expect("a directory");
    let path = |name: &str| -> PathBuf { source.join(format!("{name}.rvf")) };
    for name in ["a", "b", "c"] {
        drop(make(&path(name), ROWS));
    }
    drop(make(&path("small"), 1000));
    let before: Vec<Vec<u8>> =
        ["b", "small"].iter().map(|name| fs::read(path(name)).expect("read")).collect();
    let m = Mounted::mount(dir, source.clone(), &[]);
    let status = |name: &str, key: &str| {
        let text = m.read(&format!("{name}/status"));
        let value = text.lines().find_map(|line| line.strip_prefix(&format!("{key}: ")));
        value.unwrap_or_else(|| panic!("no {key} in {text}")).to_owned()
    };
    for name in ["a/", "c/", "small/"] {
        assert!(ask(&m, name, 23).0.starts_with("23\t0.0\n"));
    }
    assert_eq!(status("small", "index_build"), "none", "too small for an index");
    for name in ["a", "c"] {
        wait_until(&m, name, || status(name, "index_place") == "file");
    }
    for (name, before) in ["b", "small"].iter().zip(before) {
        assert_eq!(
            (status(name, "index_place"), status(name, "index_build")),
            ("none".into(), "none".into())
        );
        assert!(fs::read(path(name)).expect("read") == before, "{name} was not asked, or wants none");
    }
}

/// A build is claimed before its query is answered, so one look afterwards tells.
#[test]
fn no_build_where_none_is_wanted() {
    need_fuse!();
    for options in [&["--no-auto-index"][..], &["-o", "noautoindex"], &[]] {
        let m = mounted(ROWS, options);
        if options.is_empty() {
            m.write("query/exact", "1").expect("a default");
        }
        assert!(ask(&m, "", 29).0.starts_with("29\t0.0\n"));
        assert_eq!(m.status("index_build"), "none", "{options:?}");
        assert_eq!(events(&m, "index-build"), 0);
        // By hand it can still be done.
        m.write("ctl", "reindex threads=1\n").expect("reindex");
        assert_eq!((m.status("index_place").as_str(), m.status("index_layer").as_str()), ("file", "C"));
    }
}
