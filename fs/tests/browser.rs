//! The page of `rvf serve` in a real browser: it searches the file by itself.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod mounted;

use std::process::{Command, Stdio};

use mounted::serving::Serving;
use rvf_cow::{BadRow, Batch, CreateOptions, Metric, NoProgress, OpenOptions, SearchRequest, Store};

const DIM: usize = 37;

/// The page after its scripts have run. A browser that had no time for them gives it back as it came; then it is asked again.
fn visit(url: &str) -> String {
    for _ in 0..5 {
        let profile = tempfile::tempdir().unwrap();
        let out = Command::new("timeout")
            .args(["--kill-after=5", "120", "chromium", "--headless", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-quic", "--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"])
            .args(["--virtual-time-budget=60000", "--dump-dom"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .stderr(Stdio::null())
            .output()
            .unwrap();
        assert!(out.status.success(), "chromium: {}", out.status);
        let page = String::from_utf8(out.stdout).unwrap();
        if !page.contains("data-state=\"loading\"") {
            return page;
        }
    }
    panic!("{url} never ends loading");
}

/// Ids and distances in the table of a page.
fn hits(page: &str) -> Vec<(u64, f32)> {
    let rows = page.split("<tr><td>").skip(1);
    let one = |row: &str| {
        let (id, rest) = row.split_once("</td><td>").unwrap();
        (id.parse().unwrap(), rest.split_once('<').unwrap().0.parse().unwrap())
    };
    rows.map(one).collect()
}

fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn add(store: &Store, ids: std::ops::Range<u64>, seed: u64) {
    let batch = Batch {
        dimension: DIM,
        vectors: numbers(seed, DIM * ids.clone().count()),
        // Ids beyond what a number of JavaScript holds.
        ids: Some(ids.map(|id| id * 12_345_678_901_234_567).collect()),
        metadata: Vec::new(),
        on_bad_row: BadRow::Refuse,
    };
    store.ingest(&batch, &NoProgress).unwrap();
}

#[test]
fn a_page_searches_the_file_as_the_engine_does() {
    if !mounted::has("chromium") {
        return;
    }
    for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.rvf");
        let options = CreateOptions { dimension: DIM as u16, metric, profile: 0 };
        let store = Store::create(&path, &options).unwrap();
        add(&store, 0..1200, 1);
        // Some are overwritten, some deleted, and the file has other segments between.
        add(&store, 1000..1490, 2);
        store.delete(&(0..200).map(|id| id * 3 * 12_345_678_901_234_567).collect::<Vec<_>>()).unwrap();
        let module =
            rvf_kernel::WasmPayload::new(rvf_kernel::QUERY_MODULE, &rvf_kernel::WasmOptions::default());
        let module = module.unwrap();
        let program = rvf_cow::Embedding {
            kind: rvf_format::SegType::WASM,
            payload: &module.pieces(),
            digest: module.digest,
            name: Some("query"),
        };
        store.embed(&program).unwrap();
        let query = numbers(3, DIM);
        let request = SearchRequest {
            queries: &query,
            k: 12,
            ef: None,
            filter: None,
            exact: true,
            deadline: None,
            threads: 1,
        };
        let truth = store.view().search(&request).unwrap().remove(0);
        let truth: Vec<(u64, f32)> = truth.hits.iter().map(|hit| (hit.id, hit.distance)).collect();
        assert_eq!(truth.len(), 12);

        let serving = Serving::new(&path);
        let words: Vec<String> = query.iter().map(f32::to_string).collect();
        let page = visit(&format!("{}?k=12&q={}", serving.url(), words.join(",")));
        assert!(page.contains("data-state=\"ready\""), "{page}");
        assert_eq!(hits(&page), truth, "{metric:?}");
        // By the id of a stored vector, which is nearest to itself where distances say so.
        let id = truth[0].0;
        let page = visit(&format!("{}?k=3&q={id}", serving.url()));
        let vector =
            store.view().resolved().find(id).map(|row| store.view().resolved().vector(row).to_vec()).unwrap();
        let vector: Vec<f32> =
            vector.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let request = SearchRequest { queries: &vector, k: 3, ..request };
        let truth = store.view().search(&request).unwrap().remove(0);
        let truth: Vec<(u64, f32)> = truth.hits.iter().map(|hit| (hit.id, hit.distance)).collect();
        assert_eq!(hits(&page), truth, "{metric:?} by id: {page}");
    }
}

#[test]
fn what_a_page_cannot_search_it_says() {
    if !mounted::has("chromium") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rvf");
    drop(mounted::make_store(&path, 5));
    let page = visit(&Serving::new(&path).url());
    assert!(page.contains("carries no query module"), "{page}");
    let embed = ["embed-wasm", &path.display().to_string()].map(str::to_owned);
    let done = Command::new(env!("CARGO_BIN_EXE_rvf")).args(embed).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let serving = Serving::new(&path);
    let page = visit(&format!("{}?q=1,2", serving.url()));
    assert!(page.contains("2 numbers; a vector of this store has 4"), "{page}");
    let page = visit(&format!("{}?q=1,2,x,4", serving.url()));
    assert!(page.contains("x is no number"), "{page}");
    let page = visit(&format!("{}?q=abc", serving.url()));
    assert!(page.contains("abc is no number"), "{page}");
    let child = dir.path().join("a.b.rvf");
    Store::open(&path, &OpenOptions::default())
        .unwrap()
        .branch(&child, &rvf_cow::BranchOptions::default())
        .unwrap();
    let page = visit(&Serving::new(&child).url());
    assert!(page.contains("this is a branch"), "{page}");
}
