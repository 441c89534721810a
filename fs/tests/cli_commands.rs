//! Every command of `rvf`, run as a program.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "common/cli.rs"]
mod cli;

use cli::{Dir, sample};
use rvf_fs::data::npy::{Dtype, Npy, write_header};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::Duration;

fn npy_f32(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let mut out = write_header(Dtype::F32, shape);
    out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    out
}

fn npy_u64(values: &[u64]) -> Vec<u8> {
    let mut out = write_header(Dtype::U64, &[values.len()]);
    out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    out
}

/// A store of three rows with metadata.
fn three(dir: &Dir) {
    dir.ok(&["create", "a.rvf", "-d", "2"]);
    dir.write(
        "rows.jsonl",
        concat!(
            "{\"id\": 1, \"vector\": [1,0], \"metadata\": {\"name\": \"one\", \"year\": 2001, \"ok\": true}}\n",
            "{\"id\": 2, \"vector\": [0,1], \"metadata\": {\"name\": \"two\", \"year\": 2002}}\n",
            "{\"id\": 18446744073709551615, \"vector\": [0.25,-0.5], \"metadata\": {\"name\": \"max\", \"w\": 0.5}}\n",
        ),
    );
    dir.ok(&["ingest", "a.rvf", "-i", "rows.jsonl"]);
}

#[test]
fn every_form_of_rows_gives_the_same_store() {
    let dir = Dir::new();
    dir.write("r.json", r#"[{"id":7,"vector":[0.5,-1]},{"id":9,"vector":[1e-3,2]}]"#);
    dir.write("r.jsonl", "{\"id\":7,\"vector\":[0.5,-1]}\n{\"id\":9,\"vector\":[0.001,2]}\n");
    dir.write("r.csv", "id,v0,v1\n7,0.5,-1\n9,0.001,2\n");
    dir.write("r.npy", npy_f32(&[2, 2], &[0.5, -1.0, 0.001, 2.0]));
    dir.write("ids.npy", npy_u64(&[7, 9]));
    let mut fvecs = Vec::new();
    for row in [[0.5f32, -1.0], [0.001, 2.0]] {
        fvecs.extend_from_slice(&2i32.to_le_bytes());
        fvecs.extend(row.iter().flat_map(|v| v.to_le_bytes()));
    }
    dir.write("r.fvecs", fvecs);
    let want = "{\"id\": 7, \"vector\": [0.5,-1.0]}\n{\"id\": 9, \"vector\": [0.001,2.0]}\n";
    for name in ["r.json", "r.jsonl", "r.csv", "r.npy", "r.fvecs"] {
        let store = format!("{name}.rvf");
        dir.ok(&["create", &store, "-d", "2"]);
        let mut args = vec!["ingest", &store, "-i", name];
        if name.ends_with("npy") || name.ends_with("fvecs") {
            args.extend(["--ids", "ids.npy"]);
        }
        assert_eq!(
            dir.ok(&args),
            "Ingestion complete:\n  Accepted:            2\n  Rejected:            0\n  Epoch:               1\n",
            "{name}"
        );
        assert_eq!(dir.ok(&["export", &store]), want, "{name}");
    }
    // A name without an extension, and a pipe, are told by their first bytes.
    dir.ok(&["create", "p.rvf", "-d", "2"]);
    let done = dir.rvf_with(&["ingest", "p.rvf", "-i", "-"], &dir.read("r.json"));
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    assert_eq!(dir.ok(&["export", "p.rvf"]), want);
    let done = dir.rvf_with(&["ingest", "p.rvf", "-i", "-"], b"what is this");
    assert_eq!(
        (done.status, done.err.as_str()),
        (1, "error: -: cannot tell what kind of file this is; name it .npy, .json, .jsonl, .csv or .fvecs\n")
    );
}

#[test]
fn one_file_is_one_commit_unless_batches_are_asked_for() {
    let dir = Dir::new();
    let rows: Vec<f32> = (0..2500 * 2).map(|i| i as f32).collect();
    dir.write("r.npy", npy_f32(&[2500, 2], &rows));
    dir.ok(&["create", "one.rvf", "-d", "2"]);
    dir.ok(&["create", "many.rvf", "-d", "2"]);
    assert_eq!(dir.json(&["ingest", "one.rvf", "-i", "r.npy"])["epoch"], 1);
    assert_eq!(dir.json(&["ingest", "many.rvf", "-i", "r.npy", "-b", "1000"])["epoch"], 3);
    assert_eq!(dir.ok(&["export", "one.rvf"]), dir.ok(&["export", "many.rvf"]));
    // Rows without ids are numbered on.
    assert_eq!(dir.json(&["ingest", "one.rvf", "-i", "r.npy"])["accepted"], 2500);
    assert_eq!(dir.json(&["status", "one.rvf"])["total_vectors"], 5000);
}

#[test]
fn bad_rows_are_counted_or_refused() {
    let dir = Dir::new();
    dir.ok(&["create", "a.rvf", "-d", "2"]);
    dir.write(
        "r.json",
        "[{\"id\":1,\"vector\":[1,2]},\n{\"id\":2,\"vector\":[1]},\n{\"id\":3,\"vector\":[1,1e40],\"x\":5}]",
    );
    let e = dir.fails(&["ingest", "a.rvf", "-i", "r.json", "--strict"], 1);
    assert_eq!(
        e,
        "error: r.json: line 2: row 1: 1 number where the store's dimension is 2; give 2 numbers a vector"
    );
    assert_eq!(dir.json(&["status", "a.rvf"])["epoch"], 0);
    let done = dir.rvf(&["ingest", "a.rvf", "-i", "r.json"]);
    assert_eq!(done.status, 0);
    assert_eq!(
        done.out,
        "Ingestion complete:\n  Accepted:            1\n  Rejected:            2\n  Epoch:               1\n"
    );
    assert!(done.err.contains("r.json: left out: line 2: row 1: 1 number where"), "{}", done.err);
    assert!(done.err.contains("left out: line 3: row 2, component 1: inf is not a finite"), "{}", done.err);
    assert!(done.err.contains("r.json: ignored keys: x (metadata goes inside \"metadata\")"), "{}", done.err);
    dir.write("bad.json", "[{\"id\":1,\"vector\":[1]}]");
    let done = dir.rvf(&["ingest", "a.rvf", "-i", "bad.json", "--json"]);
    assert_eq!(done.status, 1);
    assert_eq!(serde_json::from_str::<Value>(&done.out).unwrap()["rejected"], 1);
    assert!(
        done.err.ends_with(
            "error: all 1 record(s) were rejected (expected dimension does not match); nothing was ingested\n"
        ),
        "{}",
        done.err
    );
    // The reference does not look at the store for nothing.
    dir.write("empty.json", " [ ] ");
    assert_eq!(dir.ok(&["ingest", "nowhere.rvf", "-i", "empty.json"]), "No records to ingest.\n");
    assert_eq!(
        dir.json(&["ingest", "nowhere.rvf", "-i", "empty.json"]),
        json!({"accepted": 0, "rejected": 0, "epoch": 0})
    );
}

#[test]
fn files_that_lie_are_refused_whole() {
    let dir = Dir::new();
    dir.ok(&["create", "a.rvf", "-d", "2"]);
    let before = dir.read("a.rvf");
    let mut short = npy_f32(&[3, 2], &[1.0; 6]);
    short.truncate(short.len() - 4);
    let cases: [(&str, Vec<u8>, &str); 6] = [
        ("short.npy", short, "shape (3, 2) of <f4 = 24 bytes of data, the file holds 20"),
        ("wide.npy", npy_f32(&[1, 3], &[1.0; 3]), "the array has shape (1, 3), the store's dimension is 2"),
        (
            "cut.json",
            b"[{\"id\":1,\"vector\":[1,2]}".to_vec(),
            "line 1, column 25: expected `,` or `]`, found the end",
        ),
        (
            "mixed.jsonl",
            b"{\"vector\":[1,2]}\n{\"id\":5,\"vector\":[1,2]}".to_vec(),
            "line 2: row 1: an id here and none",
        ),
        ("odd.csv", b"id,v0,v1\n1,2,3\n2,3\n".to_vec(), "line 3, column 1: 2 cells where the header has 3"),
        (
            "twice.jsonl",
            b"{\"id\":5,\"vector\":[1,2]}\n{\"id\":5,\"vector\":[3,4]}".to_vec(),
            "id 5 occurs more than once",
        ),
    ];
    for (name, bytes, want) in cases {
        dir.write(name, bytes);
        let e = dir.fails(&["ingest", "a.rvf", "-i", name], 1);
        assert!(e.contains(want), "{name}\n got {e}\nwant {want}");
        assert_eq!(dir.read("a.rvf"), before, "{name}");
    }
    let e = dir.fails(&["ingest", "a.rvf", "-i", "."], 1);
    assert_eq!(e, "error: .: is a directory, not a file");
}

#[test]
fn metadata_filters_and_fields() {
    let dir = Dir::new();
    three(&dir);
    let out = dir.ok(&["query", "a.rvf", "-v", "1 0", "-k", "2", "--fields", "name,year"]);
    assert_eq!(
        out,
        "Query results (2 neighbors):\n  [0] id=1 distance=0.000000 name=one year=2001\n  [1] id=18446744073709551615 \
         distance=0.812500 name=max\n"
    );
    let found = dir.json(&["query", "a.rvf", "-v", "[1,0]", "-f", "year >= 2002", "--fields", "*"]);
    assert_eq!(
        found,
        json!({"count": 1, "results": [{"id": 2, "distance": 2.0, "fields": {"name": "two", "year": 2002}}]})
    );
    let e = dir.fails(&["query", "a.rvf", "-v", "1,0", "-f", "year >="], 1);
    assert!(e.starts_with("error: RVF error code 0x0203 (FilterParseError): "), "{e}");
    assert_eq!(dir.json(&["delete", "a.rvf", "--filter", "name = 'two' OR ok"])["deleted"], 2);
    assert_eq!(dir.json(&["status", "a.rvf"])["total_vectors"], 1);
    // Metadata from a table beside the rows.
    dir.ok(&["create", "b.rvf", "-d", "2"]);
    dir.write("r.npy", npy_f32(&[2, 2], &[1.0, 0.0, 0.0, 1.0]));
    dir.write("ids.npy", npy_u64(&[5, 6]));
    dir.write("m.csv", "name,id,n\nfive,5,1\nnobody,7,2\n");
    let args = ["ingest", "b.rvf", "-i", "r.npy", "--ids", "ids.npy", "--metadata", "m.csv"];
    let done = dir.rvf(&args);
    assert_eq!((done.status, done.err.as_str()), (0, "warning: m.csv: 1 record(s) belong to no row\n"));
    assert_eq!(
        dir.ok(&["export", "b.rvf"]),
        "{\"id\": 5, \"vector\": [1.0,0.0], \"metadata\": {\"n\": 1, \"name\": \"five\"}}\n{\"id\": 6, \"vector\": \
         [0.0,1.0]}\n"
            .replace("\"n\": 1, \"name\": \"five\"", &order_of(&dir, "b.rvf"))
    );
}

/// Fields print in the order of their numbers, which is the store's business.
fn order_of(dir: &Dir, store: &str) -> String {
    let line = dir.ok(&["export", store]);
    let first = "\"name\": \"five\"";
    if line.find(first) < line.find("\"n\": 1") {
        format!("{first}, \"n\": 1")
    } else {
        format!("\"n\": 1, {first}")
    }
}

#[test]
fn queries_in_every_form() {
    let dir = Dir::new();
    three(&dir);
    let hits =
        |v: &Value| v["results"].as_array().unwrap().iter().map(|r| r["id"].clone()).collect::<Vec<_>>();
    let one = dir.json(&["query", "a.rvf", "-v", "1,0", "-k", "1"]);
    assert_eq!(hits(&one), [json!(1)]);
    assert_eq!(hits(&dir.json(&["query", "a.rvf", "--id", "2", "-k", "1"])), [json!(2)]);
    assert_eq!(hits(&dir.json(&["query", "a.rvf", "-v", "-1,-5", "-k", "1"])), [json!(u64::MAX)]);
    dir.write("q.txt", "1,0\n0 1\n");
    dir.write("q.npy", npy_f32(&[2, 2], &[1.0, 0.0, 0.0, 1.0]));
    dir.write("q.bin", [1.0f32, 0.0, 0.0, 1.0].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
    dir.write("q.json", "{\"ids\": [1, 2], \"k\": 1}");
    for name in ["q.txt", "q.npy", "q.bin", "q.json"] {
        let found = dir.json(&["query", "a.rvf", "-i", name, "-k", "1"]);
        let queries = found["queries"].as_array().unwrap();
        assert_eq!(queries.iter().map(&hits).collect::<Vec<_>>(), [[json!(1)], [json!(2)]], "{name}");
    }
    dir.write("f.json", "{\"id\": 1, \"k\": 1, \"fields\": [\"name\"], \"filter\": \"name = 'two'\"}");
    let found = dir.json(&["query", "a.rvf", "-i", "f.json"]);
    assert_eq!(
        found["queries"][0]["results"],
        json!([{"id": 2, "distance": 2.0, "fields": {"name": "two"}}])
    );
    let text = dir.ok(&["query", "a.rvf", "-i", "q.txt", "-k", "1"]);
    assert_eq!(
        text,
        "Query results (1 neighbors):\n  [0] id=1 distance=0.000000\n\nQuery results (1 neighbors):\n  [0] id=2 \
         distance=0.000000\n"
    );
    let how = dir.json(&["query", "a.rvf", "-v", "1,0", "--explain"]);
    assert_eq!(
        (&how["exact"], &how["layer"], &how["truncated"]),
        (&json!(true), &json!("scan"), &json!(false))
    );
    assert!(how["visited"].as_u64().is_some() && how["microseconds"].as_f64().is_some());
    for (args, want) in [
        (vec!["-v", "1"], "error: RVF error code 0x0200 (DimensionMismatch): "),
        (vec!["-v", "1,,2"], "error: Invalid vector component '': "),
        (vec!["-v", "inf,1"], "error: invalid query vector: component 0 is not finite"),
        (vec!["--id", "77"], "error: no vector with id 77"),
        (
            vec!["-i", "rows.jsonl"],
            "error: rows.jsonl: line 1, column 27: unknown key `metadata`; a request has vector",
        ),
    ] {
        let e = dir.fails(&[&["query", "a.rvf"], args.as_slice()].concat(), 1);
        assert!(e.starts_with(want), "{args:?}\n got {e}");
    }
}

#[test]
fn exports_come_back() {
    let dir = Dir::new();
    three(&dir);
    let report = dir.json(&["export", "a.rvf", "-o", "out.npy"]);
    assert_eq!(report, json!({"vectors": 3, "files": ["out.npy", "out.ids.npy", "out.metadata.jsonl"]}));
    let vectors = dir.read("out.npy");
    let (rows, values) = Npy::parse(&vectors).unwrap().to_f32(2).unwrap();
    assert_eq!((rows, values), (3, vec![1.0, 0.0, 0.0, 1.0, 0.25, -0.5]));
    let ids = dir.read("out.ids.npy");
    assert_eq!(Npy::parse(&ids).unwrap().to_u64().unwrap(), [1, 2, u64::MAX]);
    let whole = dir.ok(&["export", "a.rvf"]);
    dir.ok(&["create", "b.rvf", "-d", "2"]);
    let args =
        ["ingest", "b.rvf", "-i", "out.npy", "--ids", "out.ids.npy", "--metadata", "out.metadata.jsonl"];
    dir.ok(&args);
    assert_eq!(dir.ok(&["export", "b.rvf"]), whole);
    dir.ok(&["export", "a.rvf", "-o", "out.jsonl"]);
    assert_eq!(dir.read("out.jsonl"), whole.as_bytes());
    dir.ok(&["create", "c.rvf", "-d", "2"]);
    dir.ok(&["ingest", "c.rvf", "-i", "out.jsonl"]);
    assert_eq!(dir.ok(&["export", "c.rvf"]), whole);
    assert_eq!(dir.ok(&["export", "a.rvf", "-f", "year = 2001"]).lines().count(), 1);
    assert_eq!(
        dir.fails(&["export", "a.rvf", "--format", "npy"], 1),
        "error: arrays are several files: give --output NAME.npy"
    );
    let e = dir.fails(&["export", "a.rvf", "-o", "no/such/out.npy"], 1);
    assert!(e.contains("no/such/out.npy: No such file or directory"), "{e}");
    let left: Vec<_> = std::fs::read_dir(dir.path(".")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().contains(".tmp")), "{left:?}");
}

#[test]
fn the_sample_can_be_searched_by_name() {
    let dir = Dir::new();
    let path = |name: &str| sample(name).to_string_lossy().into_owned();
    dir.ok(&["create", "deb.rvf", "-d", "384", "-m", "cosine"]);
    let (base, ids, meta) = (path("base.f16.npy"), path("ids.u64.npy"), path("meta.csv"));
    let done = dir.json(&["ingest", "deb.rvf", "-i", &base, "--ids", &ids, "--metadata", &meta]);
    assert_eq!(done, json!({"accepted": 5000, "rejected": 0, "epoch": 1}));
    let found = dir.json(&["query", "deb.rvf", "--id", "7222816631159666", "-k", "1", "--fields", "name"]);
    assert_eq!(found["results"][0]["fields"], json!({"name": "chroma-data"}));
    let gt = std::fs::read(sample("gt_cosine.u64.npy")).unwrap();
    let gt = Npy::parse(&gt).unwrap();
    let (queries, width) = match gt.shape() {
        [q, k] => (*q, *k),
        other => panic!("{other:?}"),
    };
    let answers = dir.json(&["query", "deb.rvf", "-i", &path("queries.f32.npy"), "-k", "1", "--exact"]);
    assert_eq!(answers["queries"].as_array().unwrap().len(), queries);
    assert!(width >= 10);
    let indexed = dir.json(&["reindex", "deb.rvf"]);
    assert_eq!(indexed["indexed"], 5000);
    let how = dir.json(&["query", "deb.rvf", "--id", "7222816631159666", "-k", "1", "--explain"]);
    assert_eq!((&how["results"][0]["id"], &how["layer"]), (&json!(7222816631159666u64), &json!("C")));
    let all = dir.json(&["status", "deb.rvf", "--all"]);
    assert_eq!(
        (&all["indexed_vectors"], &all["dimension"], &all["health"]),
        (&json!(5000), &json!(384), &json!("ok"))
    );
}

#[test]
fn what_is_not_a_store_is_said_at_once() {
    let dir = Dir::new();
    dir.write("empty.rvf", b"");
    dir.write(
        "random.rvf",
        (0..5000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect::<Vec<_>>(),
    );
    std::fs::create_dir(dir.path("dir.rvf")).unwrap();
    let fifo = std::process::Command::new("mkfifo").arg(dir.path("fifo.rvf")).status().unwrap();
    assert!(fifo.success());
    dir.write("q.json", r#"[{"id":1,"vector":[1,2]}]"#);
    for (name, want) in [
        ("missing.rvf", "0x0106 (ManifestNotFound): missing.rvf: no such file"),
        ("empty.rvf", "empty.rvf"),
        ("random.rvf", "random.rvf"),
        ("dir.rvf", "dir.rvf: is a directory"),
        ("fifo.rvf", "fifo.rvf: is a FIFO"),
    ] {
        for args in [
            &["status", name][..],
            &["inspect", name],
            &["query", name, "-v", "1,2"],
            &["delete", name, "--ids", "1"],
            &["compact", name],
            &["reindex", name],
            &["export", name],
            &["ingest", name, "-i", "q.json"],
        ] {
            let e = dir.fails(args, 1);
            assert!(e.contains(want), "{args:?}: {e}");
        }
    }
    assert!(dir.fails(&["check", "fifo.rvf"], 1).contains("not a regular file"));
    assert!(dir.fails(&["verify-witness", "dir.rvf"], 1).contains("not a regular file"));
    assert!(
        dir.fails(&["create", "no/dir/x.rvf", "-d", "2"], 1).contains("no directory no/dir; create it first")
    );
    assert!(dir.fails(&["create", "empty.rvf", "-d", "2"], 1).contains("file exists"));
}

#[test]
fn torn_and_damaged_files() {
    let dir = Dir::new();
    dir.golden("dmg_torn_mid.rvf");
    let e = dir.fails(&["status", "dmg_torn_mid.rvf"], 1);
    assert!(
        e.starts_with(
            "error: RVF error code 0x0104 (TruncatedSegment): dmg_torn_mid.rvf ends inside a segment"
        ),
        "{e}"
    );
    assert!(e.ends_with("re-run with --recover to open the last committed snapshot"), "{e}");
    let done = dir.rvf(&["status", "dmg_torn_mid.rvf", "--recover", "--json"]);
    assert_eq!(done.status, 0);
    assert!(
        done.err
            .starts_with("warning: dmg_torn_mid.rvf: the file ends inside a segment (offset 1728); serving"),
        "{}",
        done.err
    );
    assert_eq!(serde_json::from_str::<Value>(&done.out).unwrap()["total_vectors"], 5);
    for (name, status, want) in [
        ("basic_l2", 0, "  Verdict:             sound\n"),
        ("dmg_torn_mid", 0, "torn-tail"),
        ("dmg_flip_vec_payload", 3, "  Verdict:             DAMAGED\n"),
        ("dmg_all_version2", 3, "segment header of version 2"),
        ("dmg_empty", 3, "the file is empty"),
    ] {
        let file = format!("{name}.rvf");
        dir.golden(&file);
        let done = dir.rvf(&["check", &file]);
        assert_eq!((done.status, done.err.as_str()), (status, ""), "{name}");
        assert!(done.out.contains(want), "{name}\n{}", done.out);
        let done = dir.rvf(&["check", &file, "--json", "--segments"]);
        let report: Value = serde_json::from_str(&done.out).unwrap();
        assert_eq!((done.status, &report["sound"]), (status, &json!(status == 0)), "{name}");
        assert_eq!(
            report["segments"].as_array().unwrap().len() as u64,
            report["segment_count"].as_u64().unwrap()
        );
    }
}

#[test]
fn an_altered_witness_is_found() {
    let dir = Dir::new();
    dir.golden("basic_l2.rvf");
    let mut bytes = dir.read("basic_l2.rvf");
    // The action hash inside the one witness entry: header at 384, 64 bytes, then prev_hash.
    bytes[384 + 64 + 32] ^= 1;
    dir.write("altered.rvf", bytes);
    let done = dir.rvf(&["verify-witness", "altered.rvf"]);
    assert_eq!(done.status, 3);
    assert!(done.out.contains("  FAILED: 1 problem(s) found in the witness chain:"), "{}", done.out);
    assert_eq!(done.err, "error: witness verification failed: 1 problem(s) (see output)\n");
    let done = dir.rvf(&["verify-witness", "altered.rvf", "--json"]);
    let report: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((done.status, &report["status"]), (3, &json!("invalid")));
}

#[test]
fn another_writer_is_status_4() {
    let dir = Dir::new();
    three(&dir);
    let path = dir.path("a.rvf");
    let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    let lock = rvf_format::lock::WriteLock::acquire(&path, &file, Duration::from_secs(5)).unwrap();
    let e = dir.fails(&["delete", "a.rvf", "--ids", "1", "--lock-wait", "0"], 4);
    assert!(e.starts_with("error: RVF error code 0x0300 (LockHeld): a.rvf: locked by another writer"), "{e}");
    // Readers do not care.
    dir.ok(&["status", "a.rvf"]);
    drop(lock);
    assert_eq!(dir.json(&["delete", "a.rvf", "--ids", "1", "--lock-wait", "0"])["deleted"], 1);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let dir = Dir::new();
    let rows: Vec<f32> = (0..20_000 * 2).map(|i| i as f32).collect();
    dir.write("r.npy", npy_f32(&[20_000, 2], &rows));
    dir.ok(&["create", "a.rvf", "-d", "2"]);
    dir.ok(&["ingest", "a.rvf", "-i", "r.npy"]);
    let mut child =
        dir.command(&["export", "a.rvf"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let done = child.wait_with_output().unwrap();
    assert_eq!((done.status.code(), String::from_utf8(done.stderr).unwrap().as_str()), (Some(0), ""));
}

#[test]
fn usage() {
    let dir = Dir::new();
    for args in [&[][..], &["bogus"], &["status"], &["query", "a.rvf"], &["create", "a.rvf", "-d", "x"]] {
        assert_eq!(dir.rvf(args).status, 2, "{args:?}");
    }
    let help = dir.ok(&["--help"]);
    assert!(help.contains("Exit status: 0 done, 1 failed, 2 wrong usage, 3 damage found"), "{help}");
    for verb in [
        "create",
        "ingest",
        "query",
        "delete",
        "status",
        "inspect",
        "compact",
        "reindex",
        "check",
        "export",
        "verify-witness",
        "branch",
        "derive",
        "diff",
        "merge",
        "lineage",
    ] {
        assert!(help.contains(&format!("\n  {verb}")), "{verb}");
        assert!(dir.ok(&[verb, "--help"]).contains("Usage: rvf "), "{verb}");
    }
    assert!(dir.ok(&["--version"]).starts_with("rvf "));
    assert_eq!(dir.fails(&["delete", "a.rvf"], 1), "error: must specify --ids or --filter");
}

#[test]
fn branches_are_made_frozen_and_led_to_their_parent() {
    let dir = Dir::new();
    three(&dir);
    let parent = dir.read("a.rvf");
    let made = dir.ok(&["branch", "a.rvf", "a.exp.rvf"]);
    assert!(made.contains("Lineage depth:       1"), "{made}");
    assert!(dir.read("a.exp.rvf").len() < 2048);
    assert_eq!(dir.ok(&["export", "a.exp.rvf"]), dir.ok(&["export", "a.rvf"]));
    let again = dir.rvf(&["branch", "a.rvf", "a.exp.rvf"]);
    assert_eq!(again.status, 1);
    assert!(again.err.contains("file exists"), "{}", again.err);
    dir.ok(&["delete", "a.exp.rvf", "--ids", "1"]);
    dir.write("more.jsonl", "{\"id\": 2, \"vector\": [7,7]}\n{\"id\": 3, \"vector\": [3,3]}\n");
    dir.ok(&["ingest", "a.exp.rvf", "-i", "more.jsonl"]);
    let shown = dir.ok(&["export", "a.exp.rvf"]);
    assert!(
        !shown.contains("\"id\": 1,") && shown.contains("[7.0,7.0]") && shown.contains("\"max\""),
        "{shown}"
    );
    assert_eq!(dir.read("a.rvf"), parent, "the parent is not written");

    std::fs::create_dir(dir.path("away")).unwrap();
    std::fs::rename(dir.path("a.rvf"), dir.path("away/a.rvf")).unwrap();
    let lost = dir.rvf(&["query", "a.exp.rvf", "--vector", "0,1"]);
    assert_eq!(lost.status, 1);
    assert!(lost.err.contains("a.rvf: no such file") && lost.err.contains("reparent"), "{}", lost.err);
    dir.ok(&["reparent", "a.exp.rvf", "away/a.rvf"]);
    assert_eq!(dir.ok(&["export", "a.exp.rvf"]), shown);

    let frozen: Value = serde_json::from_str(&dir.ok(&["freeze", "a.exp.rvf", "--json"])).unwrap();
    assert_eq!(frozen["status"], json!("frozen"));
    assert!(frozen["snapshot_epoch"].is_u64(), "{frozen}");
    let refused = dir.rvf(&["delete", "a.exp.rvf", "--ids", "2"]);
    assert_eq!(refused.status, 1);
    assert!(refused.err.contains("frozen"), "{}", refused.err);
    let deeper = dir.ok(&["branch", "a.exp.rvf", "deeper.rvf", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&deeper).unwrap()["lineage_depth"], json!(2));
    assert_eq!(dir.ok(&["export", "deeper.rvf"]), shown);
}

#[test]
fn stores_are_compared_and_branches_folded_in() {
    let dir = Dir::new();
    three(&dir);
    dir.ok(&["branch", "a.rvf", "a.exp.rvf"]);
    assert_eq!(dir.ok(&["diff", "a.rvf", "a.exp.rvf"]), "");
    dir.ok(&["delete", "a.exp.rvf", "--ids", "1"]);
    dir.write(
        "more.jsonl",
        "{\"id\": 2, \"vector\": [7,7]}\n{\"id\": 30, \"vector\": [3,3], \"metadata\": {\"x\": 1}}\n",
    );
    dir.ok(&["ingest", "a.exp.rvf", "-i", "more.jsonl"]);
    let differ = dir.rvf(&["diff", "a.rvf", "a.exp.rvf"]);
    assert_eq!((differ.status, differ.out.as_str(), differ.err.as_str()), (1, "- 1\n~ 2 vector\n+ 30\n", ""));
    let summary = dir.rvf(&["diff", "a.rvf", "a.exp.rvf", "--summary", "--json"]);
    assert_eq!(
        serde_json::from_str::<Value>(&summary.out).unwrap(),
        json!({ "added": 1, "removed": 1, "changed": 1 })
    );
    let lines = dir.rvf(&["diff", "a.rvf", "a.exp.rvf", "--json"]).out;
    assert_eq!(lines.lines().next(), Some("{\"id\": 1, \"change\": \"removed\"}"));
    assert_eq!(dir.rvf(&["diff", "a.rvf", "none.rvf"]).status, 2);

    let shown = dir.ok(&["export", "a.exp.rvf"]);
    let merged: Value = serde_json::from_str(&dir.ok(&["merge", "a.exp.rvf", "--json"])).unwrap();
    assert_eq!(merged["status"], json!("merged"));
    assert_eq!((&merged["added"], &merged["changed"], &merged["removed"]), (&json!(1), &json!(1), &json!(1)));
    assert_eq!(dir.ok(&["diff", "a.rvf", "a.exp.rvf"]), "");
    assert_eq!(dir.ok(&["export", "a.exp.rvf"]), shown, "the branch stays as it is");

    dir.write("one.jsonl", "{\"id\": 3, \"vector\": [1,1]}\n");
    dir.write("two.jsonl", "{\"id\": 3, \"vector\": [2,2]}\n");
    dir.ok(&["ingest", "a.rvf", "-i", "one.jsonl"]);
    dir.ok(&["ingest", "a.exp.rvf", "-i", "two.jsonl"]);
    let before = dir.read("a.rvf");
    let refused = dir.rvf(&["merge", "a.exp.rvf"]);
    assert_eq!(refused.status, 1);
    assert!(refused.out.starts_with("conflict 3: the parent "), "{}", refused.out);
    assert!(refused.err.contains("nothing was merged: 1 vector(s)"), "{}", refused.err);
    assert_eq!(dir.read("a.rvf"), before);
    assert!(dir.fails(&["merge", "a.rvf"], 1).contains("is no branch"));
}

#[test]
fn children_are_what_their_type_says() {
    let dir = Dir::new();
    dir.ok(&["create", "p.rvf", "-d", "2"]);
    let rows: String = (0..20)
        .map(|i| format!("{{\"id\": {i}, \"vector\": [{i},1], \"metadata\": {{\"year\": {}}}}}\n", 2000 + i))
        .collect();
    dir.write("rows.txt", &rows);
    dir.ok(&["ingest", "p.rvf", "-i", "rows.txt", "--format", "jsonl"]);
    let parent = dir.read("p.rvf");
    let derived: Value = serde_json::from_str(&dir.ok(&["derive", "p.rvf", "p.c.rvf", "--json"])).unwrap();
    assert_eq!(derived["status"], json!("derived"));
    assert_eq!((&derived["derivation_type"], &derived["lineage_depth"]), (&json!("clone"), &json!(1)));
    assert_eq!(dir.ok(&["export", "p.c.rvf"]), dir.ok(&["export", "p.rvf"]));

    dir.ok(&["derive", "p.rvf", "p.f.rvf", "--type", "filter", "--filter", "year >= 2015"]);
    let ids: Vec<u64> = dir
        .ok(&["export", "p.f.rvf"])
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, [15, 16, 17, 18, 19]);
    let nearest: Value =
        serde_json::from_str(&dir.ok(&["query", "p.f.rvf", "-v", "0,1", "-k", "2", "--json"])).unwrap();
    assert_eq!(nearest["results"][0]["id"], json!(15));

    dir.ok(&["derive", "p.rvf", "p.s.rvf", "-t", "snapshot"]);
    assert_eq!(dir.ok(&["export", "p.s.rvf"]), dir.ok(&["export", "p.rvf"]));
    assert!(dir.fails(&["delete", "p.s.rvf", "--ids", "1"], 1).contains("frozen"));
    assert_eq!(dir.read("p.rvf"), parent, "the parent is not written");

    assert!(dir.fails(&["derive", "p.rvf", "p.c.rvf", "-t", "snapshot"], 1).contains("exists"));
    assert!(dir.fails(&["derive", "p.rvf", "x.rvf", "-t", "filter"], 1).contains("--filter"));
    assert!(
        dir.fails(&["derive", "p.rvf", "x.rvf", "-t", "filter", "--filter", "year >"], 1).contains("filter")
    );
    for (kind, option) in [
        ("merge", "--with"),
        ("quantize", "--precision"),
        ("transform", "--matrix, --bias"),
        ("filter", "--filter"),
    ] {
        let refused = dir.fails(&["derive", "p.rvf", "x.rvf", "-t", kind], 1);
        assert!(refused.contains(&format!("-t {kind} needs {option}")), "{refused}");
    }
    let refused = dir.fails(&["derive", "p.rvf", "x.rvf", "-t", "reindex", "--truncate", "1"], 1);
    assert!(refused.contains("--truncate goes with -t transform"), "{refused}");
    let names: Vec<String> = std::fs::read_dir(dir.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.') || name.contains(".lock") || name == "x.rvf")
        .collect();
    assert!(names.is_empty(), "{names:?}");
}

/// A `.npy` file of float32.
fn npy(shape: &str, values: &[f32]) -> Vec<u8> {
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    bytes
}

#[test]
fn children_with_vectors_of_their_own_work_everywhere() {
    let dir = Dir::new();
    dir.ok(&["create", "p.rvf", "-d", "2"]);
    let rows: String = (0..20)
        .map(|i| format!("{{\"id\": {i}, \"vector\": [{i},1], \"metadata\": {{\"year\": {}}}}}\n", 2000 + i))
        .collect();
    dir.write("rows.txt", &rows);
    dir.ok(&["ingest", "p.rvf", "-i", "rows.txt", "--format", "jsonl"]);

    dir.ok(&["derive", "p.rvf", "p.q.rvf", "-t", "quantize", "--precision", "int8"]);
    let first: Value =
        serde_json::from_str(dir.ok(&["export", "p.q.rvf"]).lines().next_back().unwrap()).unwrap();
    assert_eq!((&first["id"], &first["metadata"]["year"]), (&json!(19), &json!(2019)));
    assert_eq!(first["vector"][0].as_f64(), Some(19.0));
    let status = dir.ok(&["status", "p.q.rvf", "--all"]);
    assert!(status.contains("quantize precision=int8"), "{status}");
    assert!(status.contains("cannot open it: its vectors are rounded"), "{status}");
    let hit: Value =
        serde_json::from_str(&dir.ok(&["query", "p.q.rvf", "-v", "7,1", "-k", "1", "--json"])).unwrap();
    assert_eq!(hit["results"][0]["id"], json!(7));
    dir.ok(&["compact", "p.q.rvf"]);
    dir.ok(&["check", "p.q.rvf"]);
    assert!(dir.ok(&["status", "p.q.rvf", "--all"]).contains("quantize precision=int8"));

    // [2, 3] is x @ M; [3, 2] is M @ x: here they are the same map.
    std::fs::write(dir.path("m.npy"), npy("(2, 3)", &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])).unwrap();
    std::fs::write(dir.path("t.npy"), npy("(3, 2)", &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0])).unwrap();
    std::fs::write(dir.path("b.npy"), npy("(3,)", &[0.5, 0.0, 0.0])).unwrap();
    dir.ok(&["derive", "p.rvf", "p.m.rvf", "-t", "transform", "--matrix", "m.npy", "--bias", "b.npy"]);
    dir.ok(&["derive", "p.rvf", "p.t.rvf", "-t", "transform", "--matrix", "t.npy", "--bias", "b.npy"]);
    let shown = dir.ok(&["export", "p.m.rvf"]);
    assert_eq!(shown, dir.ok(&["export", "p.t.rvf"]));
    let second: Value = serde_json::from_str(shown.lines().nth(1).unwrap()).unwrap();
    let numbers: Vec<f64> = second["vector"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
    assert_eq!(numbers, [5.5, 7.0, 9.0]);
    std::fs::write(dir.path("w.npy"), npy("(3, 3)", &[0.0; 9])).unwrap();
    let refused = dir.fails(&["derive", "p.rvf", "x.rvf", "-t", "transform", "--matrix", "w.npy"], 1);
    assert!(refused.contains("(3, 3) does not fit dimension 2"), "{refused}");

    dir.ok(&["derive", "p.rvf", "p.r.rvf", "-t", "reindex", "--m", "4", "--ef-construction", "32"]);
    let inspected: Value = serde_json::from_str(&dir.ok(&["inspect", "p.r.rvf", "--json"])).unwrap();
    let recorded = &inspected["lineage"]["derivation"];
    assert_eq!((&recorded["derivation"], &recorded["parameters"]["m"]), (&json!("reindex"), &json!("4")));
    assert_eq!(recorded["needs_parent"], json!(false));
}

#[test]
fn a_merged_child_or_all_conflicts() {
    let dir = Dir::new();
    three(&dir);
    dir.ok(&["branch", "a.rvf", "a.one.rvf"]);
    dir.ok(&["branch", "a.rvf", "a.two.rvf"]);
    dir.write("x.jsonl", "{\"id\": 30, \"vector\": [3,3], \"metadata\": {\"x\": 1}}\n");
    dir.write("y.jsonl", "{\"id\": 31, \"vector\": [4,4]}\n");
    dir.ok(&["ingest", "a.one.rvf", "-i", "x.jsonl"]);
    dir.ok(&["ingest", "a.two.rvf", "-i", "y.jsonl"]);
    let made = dir.ok(&["derive", "a.one.rvf", "a.both.rvf", "-t", "merge", "--with", "a.two.rvf", "--json"]);
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!((&made["vectors"], &made["lineage_depth"]), (&json!(5), &json!(2)));
    let lineage: Value = serde_json::from_str(&dir.ok(&["lineage", "a.both.rvf", "--json"])).unwrap();
    let newest = &lineage["lineage"][2];
    assert_eq!((&newest["derivation"], &newest["state"]), (&json!("merge"), &json!("verified")));
    let two: Value = serde_json::from_str(&dir.ok(&["inspect", "a.two.rvf", "--json"])).unwrap();
    assert_eq!(newest["merged_with"][0]["file_id"], two["lineage"]["file_id"]);

    dir.write("z.jsonl", "{\"id\": 31, \"vector\": [9,9], \"metadata\": {\"x\": 2}}\n");
    dir.ok(&["ingest", "a.one.rvf", "-i", "z.jsonl"]);
    let refused = dir.rvf(&["derive", "a.one.rvf", "no.rvf", "-t", "merge", "--with", "a.two.rvf"]);
    assert_eq!(refused.status, 1);
    assert_eq!(refused.out, "conflict 31: the parent added it, the other store added it\n");
    assert!(refused.err.contains("nothing was made: 1 vector(s)"), "{}", refused.err);
    assert!(!dir.path("no.rvf").exists());
}

#[test]
fn a_lineage_is_proven_without_the_parents() {
    let dir = Dir::new();
    three(&dir);
    dir.ok(&["derive", "a.rvf", "b.rvf", "-t", "quantize", "--precision", "f16"]);
    dir.ok(&["derive", "b.rvf", "c.rvf", "-t", "snapshot"]);
    let lines = dir.ok(&["lineage", "c.rvf"]);
    let words: Vec<Vec<&str>> = lines.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(words.len(), 3);
    for (line, expected) in
        words.iter().zip([("0", "a.rvf", "root"), ("1", "b.rvf", "quantize"), ("2", "c.rvf", "snapshot")])
    {
        assert_eq!((line[0], line[2], line[3]), expected);
        assert_eq!(line[4], "verified");
    }
    let proof = dir.ok(&["lineage", "c.rvf", "--prove"]);
    dir.write("proof.json", &proof);
    for gone in ["a.rvf", "b.rvf"] {
        std::fs::remove_file(dir.path(gone)).unwrap();
    }
    assert!(dir.ok(&["lineage", "c.rvf"]).contains("\t-\t-\tmissing"));
    assert!(dir.fails(&["lineage", "c.rvf", "--prove"], 1).contains("parent was not found"));
    let held = dir.ok(&["lineage", "--verify", "proof.json", "c.rvf"]);
    assert!(held.starts_with("Lineage proof holds:\n0\t"), "{held}");
    assert!(held.contains("Signed by:") && held.contains("nobody"), "{held}");
    let json: Value =
        serde_json::from_str(&dir.ok(&["lineage", "--verify", "proof.json", "--json"])).unwrap();
    assert_eq!((&json["status"], &json["steps"][1]["derivation"]), (&json!("verified"), &json!("quantize")));

    dir.ok(&["create", "other.rvf", "-d", "2"]);
    assert!(
        dir.fails(&["lineage", "--verify", "proof.json", "other.rvf"], 3).contains("is not of other.rvf")
    );
    let mut altered: Value = serde_json::from_str(&proof).unwrap();
    let tail = altered["steps"][0]["tail"].as_str().unwrap().to_owned();
    altered["steps"][0]["tail"] = json!(format!("{}00", &tail[..tail.len() - 2].replacen("00", "01", 1)));
    dir.write("altered.json", altered.to_string());
    assert!(dir.fails(&["lineage", "--verify", "altered.json"], 3).contains("does not hold: step 1"));
    let mut swapped: Value = serde_json::from_str(&proof).unwrap();
    swapped["steps"].as_array_mut().unwrap().swap(0, 1);
    dir.write("swapped.json", swapped.to_string());
    assert!(dir.fails(&["lineage", "--verify", "swapped.json"], 3).contains("does not hold"));
    // Parsed, these would take fifty times their bytes.
    dir.write("bad.json", format!("[{}0]", "0,".repeat(100_000)));
    assert!(dir.fails(&["lineage", "--verify", "bad.json"], 1).contains("than a proof can be"));
    for bad in ["", "{}", "[1]", "{\"format\": \"rvf-lineage-proof\", \"version\": 2}"] {
        dir.write("bad.json", bad);
        assert!(dir.fails(&["lineage", "--verify", "bad.json"], 1).contains("bad.json"));
    }
}

#[test]
fn an_overlay_is_stored_as_factors_and_shown_as_sums() {
    let dir = Dir::new();
    dir.ok(&["create", "p.rvf", "-d", "2"]);
    assert_eq!(dir.json(&["rebuild-refcounts", "p.rvf"])["status"], json!("no_cow_map"));
    dir.write("in.csv", "id,v0,v1\n1,1,2\n2,3,4\n");
    dir.ok(&["ingest", "p.rvf", "-i", "in.csv", "--format", "csv"]);
    dir.ok(&["branch", "p.rvf", "p.x.rvf"]);
    dir.write("a.npy", npy_f32(&[2, 1], &[1.0, 2.0]));
    dir.write("b.npy", npy_f32(&[1, 2], &[10.0, -1.0]));
    dir.write("ids.npy", npy_u64(&[2, 1]));
    let overlay = ["overlay", "p.x.rvf", "--a", "a.npy", "--b", "b.npy"];
    let report = dir.json(&[&overlay[..], &["--ids", "ids.npy", "--scale", "-0.5"]].concat());
    assert_eq!((&report["low_rank"], &report["full"], &report["rank"]), (&json!(2), &json!(0), &json!(1)));
    // 2: [3, 4] - 0.5 * 1 * [10, -1]; 1: [1, 2] - 0.5 * 2 * [10, -1].
    for (query, id) in [("-2,4.5", 2), ("-9,3", 1)] {
        let shown = dir.json(&["query", "p.x.rvf", &format!("--vector={query}"), "-k", "1"]);
        assert_eq!(shown["results"][0]["id"], json!(id), "{shown}");
        assert_eq!(shown["results"][0]["distance"].as_f64(), Some(0.0), "{shown}");
    }
    dir.write("short.npy", npy_f32(&[1, 1], &[1.0]));
    let told = dir.fails(&["overlay", "p.x.rvf", "--a", "short.npy", "--b", "b.npy"], 1);
    assert!(told.contains("A has 2 and B 2"), "{told}");
    let counts = dir.json(&["rebuild-refcounts", "p.x.rvf"]);
    let wanted =
        json!({ "status": "rebuilt", "cluster_count": 1, "local_clusters": 0, "epoch": counts["epoch"] });
    assert_eq!(counts, wanted);
    dir.ok(&["check", "p.x.rvf"]);
}
