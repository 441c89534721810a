//! `rvf derive` killed at random instants, and on a device that fills up: a whole child or none.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rvf_cow::{
    BadRow, Batch, CreateOptions, Derive, Error, Map, Metric, NoProgress, OpenOptions, Precision,
    ReindexOptions, Store, Value,
};
use rvf_format::Severity;
use rvf_tests::place::Place;
use rvf_tests::programs;
use rvf_tests::random::{Random, vector_of};

use crate::family::names;
use crate::full::SmallDisk;
use crate::kill::Killed;

const DIMENSION: usize = 16;

fn parent(path: &Path, rows: u64) -> std::sync::Arc<Store> {
    let options = CreateOptions { dimension: DIMENSION as u16, metric: Metric::L2, profile: 0 };
    let store = Store::create(path, &options).expect("we create a store");
    let batch = Batch {
        dimension: DIMENSION,
        ids: Some((0..rows).collect()),
        vectors: (0..rows).flat_map(|id| vector_of(id, DIMENSION)).collect(),
        metadata: (0..rows).map(|id| vec![("year".to_owned(), Value::U64(id % 100))]).collect(),
        on_bad_row: BadRow::Refuse,
    };
    store.ingest(&batch, &NoProgress).expect("ingest");
    store
}

#[test]
fn a_killed_rvf_derive_leaves_a_whole_child_or_none() {
    const ROWS: u64 = 3000;
    let place = Place::in_memory().expect("a place");
    let path = place.join("p.rvf");
    let before = {
        parent(&path, ROWS);
        std::fs::read(&path).expect("read")
    };
    let child = place.join("c.rvf");
    let kinds: [(&[&str], u64); 6] = [
        (&["-t", "clone"], ROWS),
        (&["-t", "filter", "--filter", "year < 50"], ROWS / 2),
        (&["-t", "snapshot"], ROWS),
        (&["-t", "quantize", "--precision", "int8"], ROWS),
        (&["-t", "reindex", "--m", "4", "--ef-construction", "16"], ROWS),
        (&["-t", "transform", "--truncate", "5"], ROWS),
    ];
    let derive = |args: &[&str]| {
        let mut command = Command::new(programs::ours());
        command.arg("derive").arg(&path).arg(&child).args(args);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    programs::ours();
    let mut random = Random::new(11);
    let (mut cut, mut whole) = (0, 0);
    for (args, rows) in kinds {
        let begin = Instant::now();
        assert!(derive(args).status().expect("rvf runs").success());
        let longest = begin.elapsed().min(Duration::from_secs(1));
        std::fs::remove_file(&child).expect("remove");
        for _ in 0..20 {
            let mut running = Killed(derive(args).spawn().expect("rvf starts"));
            let until = Instant::now() + longest.mul_f64(random.below(1000) as f64 / 900.0);
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            drop(running.0.kill());
            cut += u32::from(running.0.wait().expect("it ends").code().is_none());
            if child.exists() {
                let view = Store::open(&child, &OpenOptions::default()).expect("it opens").view();
                assert_eq!(view.resolved().len(), rows, "{args:?}");
                assert_eq!(view.status().health, "ok", "{:?}", view.findings());
                assert_eq!(view.frozen().is_some(), args.contains(&"snapshot"));
                assert_eq!(view.image().is_some() && !view.is_child(), args.contains(&"reindex"));
                std::fs::remove_file(&child).expect("remove");
                whole += 1;
            }
        }
    }
    assert!(cut > 20, "only {cut} were killed before their end");
    assert!(derive(&["-t", "snapshot"]).status().expect("rvf runs").success());
    assert_eq!(
        names(place.path()),
        ["c.rvf", "p.rvf"],
        "what the killed ones left is gone; {whole} were whole"
    );
    assert_eq!(std::fs::read(&path).expect("read"), before);
}

/// What is there after a command was killed at some instant: `whole` of the outcome it has when it is not, or nothing of it.
struct Killing<'a> {
    command: &'a dyn Fn() -> Command,
    /// Puts everything back to how it was before.
    reset: &'a dyn Fn(),
    /// Checks what is there, and tells whether it is the outcome.
    done: &'a dyn Fn() -> bool,
}

impl Killing<'_> {
    /// How many of the runs were killed before their end, and how many outcomes were there.
    fn rounds(&self, rounds: u64, random: &mut Random) -> (u32, u32) {
        (self.reset)();
        let begin = Instant::now();
        (self.command)().status().expect("rvf runs");
        let longest = begin.elapsed().min(Duration::from_secs(1));
        (self.reset)();
        let (mut cut, mut whole) = (0, 0);
        for _ in 0..rounds {
            let mut running = Killed((self.command)().spawn().expect("rvf starts"));
            let until = Instant::now() + longest.mul_f64(random.below(1000) as f64 / 900.0);
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            drop(running.0.kill());
            cut += u32::from(running.0.wait().expect("it ends").code().is_none());
            whole += u32::from((self.done)());
            (self.reset)();
        }
        (cut, whole)
    }
}

/// Merging two branches into a new one, one into its parent, with and without conflicts, and an overlay: killed at any instant,
/// each leaves all or nothing.
#[test]
fn killed_merges_and_overlays_leave_all_or_nothing() {
    const ROWS: u64 = 2000;
    let place = Place::in_memory().expect("a place");
    let at = |name: &str| place.join(name);
    let root = parent(&at("p.rvf"), ROWS);
    let branch = |name: &str, first: u64| {
        root.branch(&at(name), &rvf_cow::BranchOptions::default()).expect("branch");
        let store = Store::open(&at(name), &OpenOptions::default()).expect("open");
        let ids: Vec<u64> = (first..first + 500).collect();
        let batch = Batch {
            dimension: DIMENSION,
            vectors: ids.iter().flat_map(|id| vector_of(id + first + 9, DIMENSION)).collect(),
            metadata: ids.iter().map(|_| vec![("year".to_owned(), Value::U64(first))]).collect(),
            ids: Some(ids),
            on_bad_row: BadRow::Refuse,
        };
        store.ingest(&batch, &NoProgress).expect("ingest");
        store.delete(&(first + 600..first + 700).collect::<Vec<_>>()).expect("delete");
    };
    branch("a.rvf", 0);
    branch("b.rvf", 1000);
    // It changes what `a` changes, to something else.
    branch("clash.rvf", 100);
    let npy = |name: &str, rows: usize, columns: usize| {
        let mut header =
            format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
        while (header.len() + 11) % 64 != 0 {
            header.push(' ');
        }
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16 + 1).to_le_bytes());
        bytes.extend(header.bytes().chain([b'\n']));
        bytes.extend(vector_of(7, rows * columns).iter().flat_map(|v| v.to_le_bytes()));
        std::fs::write(at(name), bytes).expect("write");
    };
    npy("a.npy", ROWS as usize - 100, 2);
    npy("b.npy", 2, DIMENSION);
    drop(root);
    let originals: Vec<(String, Vec<u8>)> = names(place.path())
        .into_iter()
        .map(|name| (name.clone(), std::fs::read(at(&name)).expect("read")))
        .collect();
    let reset = || {
        for name in names(place.path()) {
            // What a killed process left must be overcome, not cleared away.
            if name == "n.rvf" {
                std::fs::remove_file(at(&name)).expect("remove");
            }
        }
        for (name, bytes) in &originals {
            std::fs::write(at(name), bytes).expect("write");
        }
    };
    let rvf = |args: &[&str]| {
        let mut command = Command::new(programs::ours());
        command.current_dir(place.path()).args(args).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let view = |name: &str| {
        let view = Store::open(&at(name), &OpenOptions::default()).expect("it opens").view();
        view.complete().expect("its parent is there");
        view
    };
    let shows = |name: &str, id: u64, vector: u64| {
        let view = view(name);
        let want: Vec<u8> = vector_of(vector, DIMENSION).iter().flat_map(|v| v.to_le_bytes()).collect();
        view.resolved().find(id).map(|place| view.resolved().vector(place) == want)
    };
    programs::ours();
    let mut random = Random::new(12);
    let unchanged = |names: &[&str]| {
        for (name, bytes) in &originals {
            if names.contains(&name.as_str()) {
                assert_eq!(&std::fs::read(at(name)).expect("read"), bytes, "{name}");
            }
        }
    };

    let derived = || {
        unchanged(&["p.rvf", "a.rvf", "b.rvf"]);
        if !at("n.rvf").exists() {
            return false;
        }
        assert_eq!(view("n.rvf").resolved().len(), ROWS - 200);
        assert_eq!((shows("n.rvf", 0, 9), shows("n.rvf", 1000, 2009)), (Some(true), Some(true)));
        true
    };
    let merge = Killing {
        command: &|| rvf(&["derive", "a.rvf", "n.rvf", "-t", "merge", "--with", "b.rvf"]),
        reset: &reset,
        done: &derived,
    };
    let (cut, whole) = merge.rounds(25, &mut random);
    println!("derive -t merge: {cut} killed, {whole} whole");
    let mut killed = cut;

    let clash = Killing {
        command: &|| rvf(&["derive", "a.rvf", "n.rvf", "-t", "merge", "--with", "clash.rvf"]),
        reset: &reset,
        done: &|| {
            unchanged(&["p.rvf", "a.rvf", "clash.rvf"]);
            assert!(!at("n.rvf").exists(), "nothing is made of a conflict");
            false
        },
    };
    killed += clash.rounds(10, &mut random).0;

    let into_parent = || {
        unchanged(&["a.rvf", "b.rvf"]);
        let rows = view("p.rvf").resolved().len();
        assert!(rows == ROWS || rows == ROWS - 100, "{rows}");
        let merged = rows < ROWS;
        assert_eq!(
            (shows("p.rvf", 0, 9), shows("p.rvf", 650, 650)),
            (Some(merged), (!merged).then_some(true))
        );
        assert_eq!(shows("p.rvf", 800, 800), Some(true));
        assert_eq!(view("b.rvf").resolved().len(), ROWS - 100, "a branch beside it shows what it showed");
        merged
    };
    let fold = Killing { command: &|| rvf(&["merge", "a.rvf"]), reset: &reset, done: &into_parent };
    let (cut, whole) = fold.rounds(25, &mut random);
    println!("merge: {cut} killed, {whole} whole");
    killed += cut;

    let overlaid = || {
        unchanged(&["p.rvf", "b.rvf"]);
        let view = view("a.rvf");
        assert_eq!(view.resolved().len(), ROWS - 100);
        // A torn end is what a kill may leave.
        let damage = view.findings().iter().find(|finding| finding.severity == Severity::Damage);
        assert!(damage.is_none(), "{damage:?}");
        // One commit: no row changes without the others.
        let changed =
            [0, 499, 500, ROWS - 1].map(|id| shows("a.rvf", id, if id < 500 { id + 9 } else { id }));
        assert!(changed == [Some(true); 4] || changed == [Some(false); 4], "{changed:?}");
        changed[0] == Some(false)
    };
    let overlay = Killing {
        command: &|| rvf(&["overlay", "a.rvf", "--a", "a.npy", "--b", "b.npy"]),
        reset: &reset,
        done: &overlaid,
    };
    let (cut, whole) = overlay.rounds(25, &mut random);
    println!("overlay: {cut} killed, {whole} whole");
    killed += cut;
    assert!(killed > 20, "only {killed} were killed before their end");

    // Nothing that was left stands in the way, and it goes.
    assert!(rvf(&["merge", "a.rvf"]).status().expect("rvf runs").success());
    reset();
    assert!((overlay.command)().status().expect("rvf runs").success());
    assert!(overlaid());
    reset();
    assert!(!(clash.command)().status().expect("rvf runs").success());
    assert!((merge.command)().status().expect("rvf runs").success());
    assert!(derived());
    std::fs::remove_file(at("n.rvf")).expect("remove");
    assert_eq!(names(place.path()), originals.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_leaves_no_child() {
    let Some(disk) = SmallDisk::new("2m") else { return };
    let store = parent(&disk.path.join("p.rvf"), 6000);
    std::fs::write(disk.path.join("rest"), vec![1; 2 << 20]).expect_err("the disk is full to the last byte");
    let before = names(&disk.path);
    let child = disk.path.join("c.rvf");
    let index = ReindexOptions { threads: 1, m: 4, ef_construction: 16, ..ReindexOptions::default() };
    let map = Map { normalize: true, ..Map::default() };
    for how in [
        Derive::Clone,
        Derive::Filter("year < 50"),
        Derive::Snapshot,
        Derive::Quantize(Precision::Int8),
        Derive::Reindex(&index),
        Derive::Transform(&map),
    ] {
        let error = store.derive(&child, "c", &how, &NoProgress).expect_err("no space");
        assert!(matches!(error, Error::NoSpace { .. }), "{how:?}: {error}");
        assert_eq!(names(&disk.path), before, "{how:?}");
    }
}
