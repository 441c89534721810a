//! `rvf branch`, `diff`, `merge`, `freeze`, `reparent`, `derive`, `lineage` and `overlay`, as a shell uses them.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "common/cli.rs"]
mod cli;

use cli::{Dir, npy_f32, npy_u64, three};
use serde_json::{Value, json};

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

    dir.ok(&["branch", "a.exp.rvf", "b.rvf"]);
    std::fs::create_dir(dir.path("away")).unwrap();
    std::fs::rename(dir.path("a.rvf"), dir.path("away/a.rvf")).unwrap();
    let lost = dir.rvf(&["query", "a.exp.rvf", "--vector", "0,1"]);
    assert_eq!(lost.status, 1);
    assert!(lost.err.contains("a.rvf: no such file") && lost.err.contains("reparent"), "{}", lost.err);
    assert!(dir.fails(&["export", "a.exp.rvf"], 1).contains("--recover"));
    let left = dir.rvf(&["export", "a.exp.rvf", "--recover"]);
    assert!(left.status == 0 && !left.out.contains("max") && left.err.contains("warning"), "{}", left.err);
    // Whether the parent is missing, or the parent's.
    for branch in ["a.exp.rvf", "b.rvf"] {
        let said = dir.rvf(&["status", branch]).err;
        assert!(
            said.contains("only its own rows are counted") && said.contains("a.rvf: no such file"),
            "{said}"
        );
    }
    dir.ok(&["reparent", "a.exp.rvf", "away/a.rvf"]);
    assert_eq!(dir.ok(&["export", "a.exp.rvf"]), shown);
    assert!(dir.ok(&["status", "a.exp.rvf"]).contains("Inherited:           1\n"));

    // A compaction keeps the state that the branch stands on in a hidden file; who leaves it behind is told its name.
    std::fs::rename(dir.path("away/a.rvf"), dir.path("a.rvf")).unwrap();
    dir.ok(&["reparent", "a.exp.rvf", "a.rvf"]);
    dir.ok(&["compact", "a.rvf"]);
    assert_eq!(dir.ok(&["export", "a.exp.rvf"]), shown);
    let names = std::fs::read_dir(dir.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names = names.map(|name| name.into_string().unwrap());
    let hidden = names.find(|name| name.starts_with(".a.") && name.ends_with(".pinned")).unwrap();
    std::fs::rename(dir.path(&hidden), dir.path("b")).unwrap();
    let lost = dir.fails(&["query", "a.exp.rvf", "--vector", "0,1"], 1);
    assert!(lost.contains(&format!("keeps that state as {hidden}")), "{lost}");
    std::fs::rename(dir.path("b"), dir.path(&hidden)).unwrap();
    assert_eq!(dir.ok(&["export", "a.exp.rvf"]), shown);
    // Moved with the hidden file, the parent is taken for what it is; without it, the name of that is told again.
    let along = hidden.replacen(".a.", ".z.", 1);
    std::fs::rename(dir.path("a.rvf"), dir.path("z.rvf")).unwrap();
    let alone = dir.fails(&["reparent", "a.exp.rvf", "z.rvf"], 1);
    assert!(alone.contains(&format!("keeps that state as {along}")), "{alone}");
    std::fs::rename(dir.path(&hidden), dir.path(&along)).unwrap();
    dir.ok(&["reparent", "a.exp.rvf", "z.rvf"]);
    assert_eq!(dir.ok(&["export", "a.exp.rvf"]), shown);
    std::fs::rename(dir.path("z.rvf"), dir.path("a.rvf")).unwrap();
    std::fs::rename(dir.path(&along), dir.path(&hidden)).unwrap();
    dir.ok(&["reparent", "a.exp.rvf", "a.rvf"]);

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

/// The parent was found in the state that the branch stands on, which a compaction keeps in a hidden file: the merge was
/// complete, and lost.
#[test]
fn a_merge_goes_into_a_parent_that_was_compacted() {
    let dir = Dir::new();
    three(&dir);
    dir.ok(&["branch", "a.rvf", "a.exp.rvf"]);
    dir.write("more.jsonl", "{\"id\": 30, \"vector\": [3,3]}\n");
    dir.ok(&["ingest", "a.exp.rvf", "-i", "more.jsonl"]);
    dir.ok(&["delete", "a.rvf", "--ids", "1"]);
    dir.ok(&["compact", "a.rvf"]);
    let merged = dir.ok(&["merge", "a.exp.rvf"]);
    assert!(!merged.contains(".pinned"), "{merged}");
    std::fs::remove_file(dir.path("a.exp.rvf")).unwrap();
    dir.ok(&["compact", "a.rvf"]);
    let shown = dir.ok(&["export", "a.rvf"]);
    assert!(shown.contains("\"id\": 30,") && !shown.contains("\"id\": 1,"), "{shown}");
}

/// A directory with a store `p.rvf` of vectors 0 to 19.
fn twenty() -> Dir {
    let dir = Dir::new();
    dir.ok(&["create", "p.rvf", "-d", "2"]);
    let rows: String = (0..20)
        .map(|i| format!("{{\"id\": {i}, \"vector\": [{i},1], \"metadata\": {{\"year\": {}}}}}\n", 2000 + i))
        .collect();
    dir.write("rows.txt", &rows);
    dir.ok(&["ingest", "p.rvf", "-i", "rows.txt", "--format", "jsonl"]);
    dir
}

#[test]
fn children_are_what_their_type_says() {
    let dir = twenty();
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

#[test]
fn children_with_vectors_of_their_own_work_everywhere() {
    let dir = twenty();

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
    std::fs::write(dir.path("m.npy"), npy_f32(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])).unwrap();
    std::fs::write(dir.path("t.npy"), npy_f32(&[3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0])).unwrap();
    std::fs::write(dir.path("b.npy"), npy_f32(&[3], &[0.5, 0.0, 0.0])).unwrap();
    dir.ok(&["derive", "p.rvf", "p.m.rvf", "-t", "transform", "--matrix", "m.npy", "--bias", "b.npy"]);
    dir.ok(&["derive", "p.rvf", "p.t.rvf", "-t", "transform", "--matrix", "t.npy", "--bias", "b.npy"]);
    let shown = dir.ok(&["export", "p.m.rvf"]);
    assert_eq!(shown, dir.ok(&["export", "p.t.rvf"]));
    let second: Value = serde_json::from_str(shown.lines().nth(1).unwrap()).unwrap();
    let numbers: Vec<f64> = second["vector"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
    assert_eq!(numbers, [5.5, 7.0, 9.0]);
    std::fs::write(dir.path("w.npy"), npy_f32(&[3, 3], &[0.0; 9])).unwrap();
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
