//! The command beside the reference's own log: same status, same output, and where it differs, why.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "common/cli.rs"]
mod cli;

use cli::{Dir, golden};
use serde_json::Value;

/// Commands of the log that answer differently on purpose: how they start, and what ours does instead.
const DIFFERENT: &[(&str, i32, &str)] = &[
    // Bytes of a second `freeze` are whole, only unaligned: nothing is torn.
    ("rvf status frozen_twice.rvf", 0, ""),
    ("rvf status frozen_twice.rvf --recover", 0, ""),
    // `in` is part of our filter grammar.
    ("rvf query meta_types.rvf -v 1,0,0 -f {\"in\"", 0, ""),
    // Errors that name the file, or the operators we have.
    (
        "rvf ingest basic_l2.rvf -i missing.json",
        1,
        "error: missing.json: No such file or directory (os error 2)\n",
    ),
    // `--format` is ours; the file it speaks of is not there.
    (
        "rvf ingest basic_l2.rvf -i in.json --format json",
        1,
        "error: in.json: No such file or directory (os error 2)\n",
    ),
    (
        "rvf query basic_l2.rvf -v 1,0,0,0 -f {\"foo\":1}",
        1,
        "error: RVF error code 0x0203 (FilterParseError): ",
    ),
];

/// Commands that this program does not have, or whose input the log does not give.
fn left_out(command: &str, succeeded: bool) -> bool {
    let verb = command.split(' ').nth(1).unwrap_or("");
    match verb {
        "derive" | "freeze" | "filter" | "verify-attestation" | "serve" | "launch" => true,
        "ingest" | "create" => succeeded,
        // The one that fails does so because the reference cannot sync the directory of a bare name.
        "compact" => true,
        "delete" => succeeded && !command.contains("--filter"),
        _ => false,
    }
}

#[test]
fn the_log_of_the_reference() {
    let dir = Dir::new();
    for name in [
        "basic_l2",
        "basic_ip",
        "basic_cosine",
        "meta_types",
        "cow_child",
        "cow_parent",
        "empty",
        "frozen_twice",
    ] {
        dir.golden(&format!("{name}.rvf"));
    }
    let log: Value = serde_json::from_slice(&std::fs::read(golden("cli_log.json")).unwrap()).unwrap();
    let mut compared = 0;
    for entry in log.as_array().unwrap() {
        let command = entry["cmd"].as_str().unwrap();
        let status = entry["rc"].as_i64().unwrap() as i32;
        if left_out(command, status == 0) {
            continue;
        }
        let args: Vec<&str> = command.split(' ').skip(1).collect();
        let done = dir.rvf(&args);
        let (out, err) = (entry["stdout"].as_str().unwrap(), entry["stderr"].as_str().unwrap());
        compared += 1;
        if let Some((_, status, err)) =
            DIFFERENT.iter().rev().find(|(start, _, _)| command.starts_with(start))
        {
            assert_eq!(done.status, *status, "{command}\n{}", done.err);
            assert!(done.err.starts_with(err), "{command}\n got {}\nwant {err}", done.err);
            continue;
        }
        assert_eq!((done.status, done.out.as_str()), (status, out), "{command}\n{}", done.err);
        // The reference ends after the code; ours says what it means.
        match err.strip_suffix(")\n").filter(|e| e.starts_with("error: RVF error code")) {
            Some(code) => {
                assert!(done.err.starts_with(&format!("{code}): ")), "{command}\n got {}", done.err)
            }
            None => assert_eq!(done.err, err, "{command}"),
        }
    }
    assert_eq!(compared, 38, "commands of the log that were compared");
}

#[test]
fn queries_answer_bit_for_bit() {
    let mut compared = 0;
    for name in [
        "basic_l2",
        "basic_ip",
        "basic_cosine",
        "meta_types",
        "cow_child",
        "empty",
        "frozen_twice",
        "deleted",
        "sparse_ids",
        "index",
        "compacted_meta",
        "dmg_torn_mid",
        "dmg_flip_witness",
    ] {
        let dir = Dir::new();
        let file = format!("{name}.rvf");
        dir.golden(&file);
        dir.golden("cow_parent.rvf");
        let want: Value =
            serde_json::from_slice(&std::fs::read(golden(&format!("{file}.json"))).unwrap()).unwrap();
        for query in want["queries"].as_array().unwrap() {
            // Only plain queries: filters are given as trees that the command line does not have.
            if query.get("filter").is_some_and(|f| !f.is_null()) || query.get("results").is_none() {
                continue;
            }
            let vector: Vec<String> =
                query["query"].as_array().unwrap().iter().map(ToString::to_string).collect();
            let k = query["k"].to_string();
            let args = ["query", &file, "-v", &vector.join(","), "-k", &k, "--json", "--recover", "--exact"];
            let done = dir.rvf(&args);
            assert_eq!(done.status, 0, "{args:?} {}", done.err);
            let got: Value = serde_json::from_str(&done.out).unwrap();
            let pairs = |v: &Value| -> Vec<(u64, u32)> {
                let list = v["results"].as_array().unwrap();
                list.iter()
                    .map(|r| (r["id"].as_u64().unwrap(), (r["distance"].as_f64().unwrap() as f32).to_bits()))
                    .collect()
            };
            assert_eq!(pairs(&got), pairs(query), "{args:?}");
            compared += 1;
        }
    }
    assert!(compared >= 40, "only {compared} queries compared");
}

#[test]
fn json_keys_are_the_references() {
    let dir = Dir::new();
    dir.golden("basic_l2.rvf");
    let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let status = dir.json(&["status", "basic_l2.rvf"]);
    assert_eq!(
        keys(&status),
        [
            "dead_space_ratio",
            "epoch",
            "file_size",
            "profile_id",
            "read_only",
            "total_segments",
            "total_vectors"
        ]
    );
    assert_eq!(status["read_only"], true);
    let inspect = dir.json(&["inspect", "basic_l2.rvf"]);
    assert_eq!(
        keys(&inspect),
        ["dimension", "epoch", "file_size", "lineage", "path", "segments", "total_segments", "total_vectors"]
    );
    assert_eq!(
        keys(&inspect["segments"][0]),
        ["offset", "payload_length", "seg_id", "seg_type", "seg_type_name"]
    );
    assert_eq!(
        keys(&inspect["lineage"]),
        ["file_id", "is_root", "lineage_depth", "parent_hash", "parent_id"]
    );
    let witness = dir.json(&["verify-witness", "basic_l2.rvf"]);
    assert_eq!(
        keys(&witness),
        [
            "attestation_segments",
            "chain_breaks",
            "first_timestamp_ns",
            "last_timestamp_ns",
            "legacy_segments",
            "segments",
            "status",
            "total_entries",
            "valid_chains",
            "witness_segments"
        ]
    );
    assert_eq!(
        keys(&witness["segments"][0]),
        ["chain_valid", "entry_count", "error", "kind", "segment_index", "segment_offset"]
    );
    let created = dir.json(&["create", "new.rvf", "-d", "2", "-m", "L2"]);
    assert_eq!(
        created,
        serde_json::json!({"status": "created", "path": "new.rvf", "dimension": 2, "metric": "L2", "profile": 0})
    );
    dir.write("in.json", r#"[{"id":1,"vector":[1,2]},{"id":2,"vector":[3,4]}]"#);
    assert_eq!(
        dir.json(&["ingest", "new.rvf", "-i", "in.json"]),
        serde_json::json!({"accepted": 2, "rejected": 0, "epoch": 1})
    );
    assert_eq!(
        dir.json(&["delete", "new.rvf", "--ids", "2,9"]),
        serde_json::json!({"deleted": 1, "epoch": 2})
    );
    let compact = dir.json(&["compact", "new.rvf"]);
    assert_eq!(
        keys(&compact),
        [
            "bytes_reclaimed",
            "epoch",
            "file_size_after",
            "file_size_before",
            "segments_compacted",
            "strip_unknown",
            "vectors_after",
            "vectors_before"
        ]
    );
    assert_eq!((&compact["vectors_after"], &compact["strip_unknown"]), (&1.into(), &false.into()));
}
