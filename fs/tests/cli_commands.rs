//! Every command of `rvf`, run as a program.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "common/cli.rs"]
mod cli;

use cli::{Dir, npy_f32, npy_u64, sample, three};
use rvf_fs::data::npy::Npy;
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::Duration;

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
