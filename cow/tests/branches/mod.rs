//! What the tests of branches share.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::Path;
use std::sync::Arc;

use rvf_cow::{
    BadRow, Batch, BranchOptions, CreateOptions, Metric, NoProgress, OpenOptions, SearchRequest, Store, Value,
};

pub(crate) const DIM: usize = 8;

/// Numbers that look random and are the same on every run.
pub(crate) fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

pub(crate) fn batch(ids: &[u64], seed: u64) -> Batch {
    Batch {
        dimension: DIM,
        ids: Some(ids.to_vec()),
        vectors: ids.iter().flat_map(|id| noise(seed ^ id.wrapping_mul(31), DIM)).collect(),
        metadata: Vec::new(),
        on_bad_row: BadRow::Refuse,
    }
}

pub(crate) fn create(path: &Path, ids: std::ops::Range<u64>) -> Arc<Store> {
    let options = CreateOptions { dimension: DIM as u16, metric: Metric::L2, profile: 0 };
    let store = Store::create(path, &options).expect("create");
    let ids: Vec<u64> = ids.collect();
    store.ingest(&batch(&ids, 1), &NoProgress).expect("ingest");
    store
}

pub(crate) fn branch(store: &Store, path: &Path) -> Arc<Store> {
    store.branch(path, &BranchOptions::default()).expect("branch");
    open(path)
}

pub(crate) fn open(path: &Path) -> Arc<Store> {
    Store::open(path, &OpenOptions::default()).expect("open")
}

pub(crate) fn request(query: &[f32], k: usize, exact: bool) -> SearchRequest<'_> {
    SearchRequest { queries: query, k, ef: None, filter: None, exact, deadline: None, threads: 1 }
}

pub(crate) fn nearest(store: &Store, query: &[f32], k: usize, exact: bool) -> Vec<(u64, f32)> {
    let answers = store.view().search(&request(query, k, exact)).expect("search");
    answers[0].hits.iter().map(|h| (h.id, h.distance)).collect()
}

/// What a scan of everything shown gives, in the plainest way.
pub(crate) fn truth(store: &Store, query: &[f32], k: usize) -> Vec<(u64, f32)> {
    let view = store.view();
    let resolved = view.resolved();
    let mut all: Vec<(u64, f32)> = resolved
        .places()
        .iter()
        .map(|place| {
            let row = resolved.vector(*place).chunks_exact(4);
            let sum = query.iter().zip(row).fold(0.0f32, |sum, (q, v)| {
                let d = q - f32::from_le_bytes(v.try_into().expect("four bytes"));
                sum + d * d
            });
            (resolved.id(*place), sum)
        })
        .collect();
    all.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    all.truncate(k);
    all
}

pub(crate) fn ids(store: &Store) -> Vec<u64> {
    let view = store.view();
    let resolved = view.resolved();
    let mut ids: Vec<u64> = resolved.places().iter().map(|place| resolved.id(*place)).collect();
    ids.sort_unstable();
    assert_eq!(ids.len() as u64, resolved.len(), "the count agrees with the places");
    ids
}

pub(crate) fn put(store: &Store, ids: &[u64], seed: u64) {
    store.ingest(&batch(ids, seed), &NoProgress).expect("ingest");
}

pub(crate) fn field(name: &str, value: &str) -> Vec<(String, Value)> {
    vec![(name.to_owned(), Value::String(value.to_owned()))]
}
