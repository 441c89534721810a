//! `rvf derive` killed at random instants, and on a device that fills up: a whole child or none.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rvf_cow::{
    BadRow, Batch, CreateOptions, Derive, Error, Map, Metric, NoProgress, OpenOptions, Precision,
    ReindexOptions, Store, Value,
};
use rvf_tests::place::Place;
use rvf_tests::programs;
use rvf_tests::random::{Random, vector_of};

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

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
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
    let kinds: [(&[&str], u64); 5] = [
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
