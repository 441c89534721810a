//! Access counts: `rvf hot`, and the verb `checkpoint` of a mounted store.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "common/cli.rs"]
mod cli;
mod mounted;

use std::fs;

use cli::Dir;
use mounted::Mounted;

#[test]
fn accesses_are_counted_from_the_command_line() {
    let dir = Dir::new();
    dir.ok(&["create", "a.rvf", "--dimension", "2"]);
    dir.write("rows.csv", "id,v0,v1\n1,1,0\n2,2,0\n3,3,0\n4,4,0\n");
    dir.ok(&["ingest", "a.rvf", "-i", "rows.csv"]);
    assert!(dir.ok(&["hot", "a.rvf"]).contains("No accesses"));
    dir.write("q.txt", "3.1 0\n3.2 0\n1.1 0\n");
    let said = dir.json(&["hot", "a.rvf", "--queries", "q.txt", "-k", "1"]);
    assert_eq!((&said["counted"], &said["hot"]), (&3.into(), &2.into()));
    dir.write("ids", "4, 4\n4 4\n");
    let said = dir.json(&["hot", "a.rvf", "--ids", "ids", "--count", "2"]);
    assert_eq!((&said["counted"], &said["total"], &said["hot"]), (&4.into(), &7.into(), &2.into()));
    let shown = dir.json(&["hot", "a.rvf"]);
    let hot: Vec<_> =
        shown["hot"].as_array().unwrap().iter().map(|v| (v["id"].clone(), v["count"].clone())).collect();
    assert_eq!(hot, [(4.into(), 4.into()), (3.into(), 2.into()), (1.into(), 1.into())]);
    assert!(dir.ok(&["hot", "a.rvf", "--count", "1"]).ends_with("\n4\t4\n"));
    dir.ok(&["check", "a.rvf"]);
    dir.ok(&["verify-witness", "a.rvf"]);

    let before = fs::read(dir.path("a.rvf")).unwrap();
    for (text, word) in [("9", "no vector 9"), ("x", "'x' is not an id"), ("", "nothing to count")] {
        dir.write("ids", text);
        assert!(dir.fails(&["hot", "a.rvf", "--ids", "ids"], 1).contains(word), "{text}");
    }
    assert_eq!(fs::read(dir.path("a.rvf")).unwrap(), before);
}

#[test]
fn a_mount_saves_what_its_queries_found_when_asked_to() {
    need_fuse!();
    let m = Mounted::new(500);
    let before = fs::read(&m.source).unwrap();
    for _ in 0..5 {
        m.sh_ok("echo '{\"vector\": [300,1,0,0], \"k\": 1}' > query/in && cat query/out");
    }
    m.sh_ok("cat vectors.npy metadata.jsonl vectors/10 > /dev/null");
    assert_eq!(fs::read(&m.source).unwrap(), before, "neither queries nor reading write");
    let id: u64 = m.read("query/out").split('\t').next().unwrap().parse().unwrap();
    m.sh_ok("echo checkpoint > ctl");
    let names = m.list("segments");
    assert_eq!(
        names.iter().filter(|name| name.ends_with("-hot") || name.ends_with("-sketch")).count(),
        2,
        "{names:?}"
    );
    let view = mounted::open_store(&m.source).view();
    let hottest = view.hottest(1);
    assert_eq!((hottest.ids, hottest.counted), (vec![id], 1));
    assert_eq!(view.sketch().unwrap().estimate(id), 5);
    assert!(m.read("events").contains("\"event\": \"accesses\""));
    // Nothing was found since: nothing is written.
    let after = fs::metadata(&m.source).unwrap().len();
    m.sh_ok("echo checkpoint > ctl");
    assert_eq!(fs::metadata(&m.source).unwrap().len(), after);
}
