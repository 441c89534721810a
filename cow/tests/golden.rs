//! Files written by the existing tools, opened as a store: counts, vectors, metadata and answers must be what those tools report, bit for
//! bit. Where they refuse intact data or accept damage silently, the table below says what a store here gives and why.

use std::path::{Path, PathBuf};

use rvf_cow::{Access, OpenOptions, SearchRequest, Store};
use serde_json::Value as Json;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../format/tests/golden/core")
}

/// Files where a store here differs on purpose, with the reason. Everything else must agree.
const DIFFERENT: &[(&str, &str)] = &[
    ("dmg_flip_man_epoch.rvf", "the newest manifest fails its checksum, so the one before counts"),
    ("dmg_flip_man_metric.rvf", "the newest manifest fails its checksum, so the one before counts"),
    ("dmg_flip_man_segcount.rvf", "the newest manifest fails its checksum, so the one before counts"),
    ("dmg_man_reserved.rvf", "the newest manifest fails its checksum, so the one before counts"),
    ("crafted_columnar.rvf", "the columnar vectors are read, where the existing tools see none"),
];

fn options() -> OpenOptions {
    OpenOptions { access: Access::ReadOnly, ..OpenOptions::default() }
}

fn floats(json: &Json) -> Vec<f32> {
    json.as_array()
        .map(|a| a.iter().map(|v| v.as_f64().unwrap_or(f64::NAN) as f32).collect())
        .unwrap_or_default()
}

/// The filters that the expected readings name in words, in the existing tools' own JSON.
fn filter_of(words: &str) -> &'static str {
    match words {
        "u64 field 0 >= 1" => r#"{"ge":{"field":0,"value":{"u64":1}}}"#,
        "u64 field 1 in [40,90)" => {
            r#"{"and":[{"ge":{"field":1,"value":{"u64":40}}},{"lt":{"field":1,"value":{"u64":90}}}]}"#
        }
        "field 4 != true" => r#"{"ne":{"field":4,"value":{"bool":true}}}"#,
        other => panic!("a filter this test does not know: {other}"),
    }
}

#[test]
fn every_golden_file_answers_as_the_existing_tools_do() {
    let mut compared = 0;
    let mut queries = 0;
    let mut failures = Vec::new();
    for entry in std::fs::read_dir(golden()).expect("golden files") {
        let json_path = entry.expect("entry").path();
        let name = json_path.file_name().and_then(|n| n.to_str()).unwrap_or("").to_owned();
        let Some(file) = name.strip_suffix(".json").filter(|f| f.contains(".rv")) else { continue };
        let want: Json = serde_json::from_slice(&std::fs::read(&json_path).expect("read")).expect("json");
        if want["open_readonly"] != "ok" || DIFFERENT.iter().any(|(f, _)| *f == file) {
            continue;
        }
        let store = match Store::open(&golden().join(file), &options()) {
            Ok(store) => store,
            Err(error) => {
                failures.push(format!("{file}: {error}"));
                continue;
            }
        };
        compared += 1;
        let view = store.view();
        let live = want["vector_count"].as_u64();
        if Some(view.live()) != live {
            failures.push(format!("{file}: {} live, want {live:?}", view.live()));
        }
        for vector in want["vectors"].as_array().into_iter().flatten() {
            let id = vector["id"].as_u64().expect("id");
            let got: Option<String> =
                view.find(id).map(|o| view.vector(o).iter().map(|b| format!("{b:02x}")).collect());
            if got.as_deref() != vector["hex"].as_str() {
                failures.push(format!("{file}: vector {id} is {got:?}"));
            }
        }
        for query in want["queries"].as_array().into_iter().flatten() {
            let values = floats(&query["query"]);
            let request = SearchRequest {
                queries: &values,
                k: query["k"].as_u64().unwrap_or(0) as usize,
                ef: None,
                filter: query["filter"].as_str().map(filter_of),
                exact: query["force_exact"].as_bool().unwrap_or(true),
                deadline: None,
                threads: 1,
            };
            let wanted: Vec<(u64, String)> = query["results"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|r| {
                    (r["id"].as_u64().unwrap_or(0), r["distance_bits"].as_str().unwrap_or("").to_owned())
                })
                .collect();
            let got = match view.search(&request) {
                Ok(answers) => answers[0]
                    .hits
                    .iter()
                    .map(|h| (h.id, format!("{:08x}", h.distance.to_bits())))
                    .collect::<Vec<_>>(),
                Err(error) => {
                    failures.push(format!("{file}: query: {error}"));
                    continue;
                }
            };
            queries += 1;
            let same = if query["force_exact"].as_bool() == Some(false) {
                // Its graph walk computes distances with fused operations: ids agree, last bits may not.
                got.iter().map(|h| h.0).eq(wanted.iter().map(|h| h.0))
            } else {
                got == wanted
            };
            if !same {
                failures.push(format!("{file}: query {values:?}\n   got {got:?}\n  want {wanted:?}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n"));
    assert!(compared >= 60 && queries >= 200, "{compared} files, {queries} queries");
}

fn search(path: &Path, query: &[f32], k: usize) -> Result<Vec<(u64, f32)>, String> {
    let store = Store::open(path, &options()).map_err(|e| e.to_string())?;
    let request =
        SearchRequest { queries: query, k, ef: None, filter: None, exact: true, deadline: None, threads: 1 };
    let answers = store.view().search(&request).map_err(|e| e.to_string())?;
    Ok(answers[0].hits.iter().map(|h| (h.id, h.distance)).collect())
}

#[test]
fn children_answer_through_their_parents() {
    let root = golden().join("../branch");
    let mut compared = 0;
    for set in ["set-1", "set-2"] {
        for case in ["cow-basic", "cow-edited", "cow-compacted"] {
            let dir = root.join(set).join(case);
            let want: Json = serde_json::from_slice(&std::fs::read(dir.join("expected.json")).expect("read"))
                .expect("json");
            for query in want["queries"].as_array().expect("queries") {
                let file = query["file"].as_str().unwrap_or("child.rvf");
                let k = query["k"].as_u64().unwrap_or(10) as usize;
                let wanted: Vec<(u64, f32)> = query["exact"]
                    .as_array()
                    .expect("results")
                    .iter()
                    .map(|r| (r[0].as_u64().expect("id"), r[1].as_f64().expect("distance") as f32))
                    .collect();
                let got = search(&dir.join(file), &floats(&query["vector"]), k.max(wanted.len()))
                    .unwrap_or_else(|e| panic!("{set}/{case}/{file}: {e}"));
                assert_eq!(got, wanted, "{set}/{case}/{file}");
                compared += 1;
            }
        }
    }
    assert!(compared >= 8, "{compared} queries");
}

#[test]
fn a_child_of_constant_size_answers_as_its_parent() {
    let dir = golden().join("../branch/o1-child");
    let query = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8];
    let parent = search(&dir.join("p.rvf"), &query, 4).expect("parent");
    assert_eq!(parent.iter().map(|h| h.0).collect::<Vec<_>>(), [1506, 13259, 2094, 7855]);
    for child in ["c_big_excl0.rvf", "c_zero_excl0.rvf", "c_big_excl3.rvf"] {
        assert_eq!(search(&dir.join(child), &query, 4).expect(child), parent, "{child}");
    }
    let store = Store::open(&dir.join("c_big_excl3.rvf"), &options()).expect("open");
    assert_eq!(store.view().inherited_count(), 2997, "ids 1, 8 and 15 are deleted in the child");
}

/// The existing tools refuse every child whose parent has grown; the state it was made from is
/// still there, as a prefix.
#[test]
fn a_parent_that_went_on_living_does_not_break_its_child() {
    for set in ["set-1", "set-2"] {
        let dir = golden().join("../branch").join(set).join("cow-parent-changed");
        let child = Store::open(&dir.join("child.rvf"), &options()).expect("open");
        let parent = Store::open(&dir.join("parent.rvf"), &options()).expect("open");
        assert!(matches!(child.view().parent_state(), Some(Ok(_))), "{:?}", child.view().findings());
        assert_eq!(child.view().inherited_count() + 1, parent.view().live(), "{set}");
    }
}

/// A child that cannot find its vectors says so instead of answering from its own rows alone.
#[test]
fn a_child_with_a_damaged_map_or_no_parent_refuses_to_search() {
    for set in ["set-1", "set-2"] {
        let dir = golden().join("../branch").join(set).join("cow-damaged");
        for file in ["bad-base-hash.rvf", "bad-base-id.rvf", "bad-map-tag.rvf", "bad-cluster-size.rvf"] {
            let store = Store::open(&dir.join(file), &options()).expect(file);
            let query = vec![0.5; store.view().dimension()];
            let error = search(&dir.join(file), &query, 3).expect_err(file);
            assert!(error.contains("parent"), "{file}: {error}");
        }
    }
    let dir = tempfile::tempdir().expect("dir");
    let alone = dir.path().join("child.rvf");
    std::fs::copy(golden().join("../branch/set-1/cow-basic/child.rvf"), &alone).expect("copy");
    let error = search(&alone, &[0.0; 4], 3).expect_err("no parent");
    assert!(error.contains("parent.rvf"), "{error}");
}
