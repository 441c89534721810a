//! Reading a store the slow and obvious way, for comparison with what the golden files say.
#![allow(dead_code, reason = "each test program uses its own part")]

use rvf_format::checksum::ChecksumState;
use rvf_format::meta::{MetaState, Value};
use rvf_format::{Contents, Opened, contents, meta, recover};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Everything about one file.
pub(crate) struct Store {
    pub bytes: Vec<u8>,
    pub opened: Opened,
    pub contents: Contents,
    /// Live rows of the file itself.
    pub live: BTreeMap<u64, Vec<f32>>,
    /// All ids of the file itself, deleted ones included.
    pub slab: Vec<u64>,
    pub meta: MetaState,
}

impl Store {
    pub(crate) fn open(bytes: Vec<u8>) -> Self {
        let opened = recover::open(&bytes);
        let contents = contents::read(&bytes, &opened);
        let mut rows: BTreeMap<u64, Vec<f32>> = BTreeMap::new();
        for block in &contents.blocks {
            if !block.verify(&bytes).usable() {
                continue;
            }
            for i in 0..block.count {
                let (id, components) = block.row(&bytes, i).expect("row within the block");
                let values = components
                    .chunks_exact(4)
                    .map(|c| f32::from_le_bytes(c.try_into().expect("4")))
                    .collect();
                rows.insert(id, values);
            }
        }
        let slab = rows.keys().copied().collect();
        rows.retain(|id, _| contents.deleted.binary_search(id).is_err());
        let meta = meta::replay(&bytes, &contents.meta_entries, &|id| rows.contains_key(&id));
        Self { bytes, opened, contents, live: rows, slab, meta }
    }

    pub(crate) fn read(path: &Path) -> Self {
        Self::open(std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    /// Every finding, of all stages.
    pub(crate) fn codes(&self) -> Vec<&'static str> {
        let all = self.opened.findings.iter().chain(&self.contents.findings).chain(&self.meta.findings);
        all.map(|finding| finding.code).collect()
    }

    pub(crate) fn any_bad_block(&self) -> bool {
        self.contents.blocks.iter().any(|block| block.verify(&self.bytes) == ChecksumState::Bad)
    }
}

/// The distance of spec section 10: f32, components in order, one accumulator.
pub(crate) fn distance(metric: u8, q: &[f32], v: &[f32]) -> f32 {
    match metric {
        1 => -q.iter().zip(v).fold(0.0f32, |sum, (a, b)| sum + a * b),
        2 => {
            let (mut dot, mut nq, mut nv) = (0.0f32, 0.0f32, 0.0f32);
            for (a, b) in q.iter().zip(v) {
                dot += a * b;
                nq += a * a;
                nv += b * b;
            }
            let den = (nq * nv).sqrt();
            if den < f32::EPSILON { 1.0 } else { 1.0 - dot / den }
        }
        _ => q.iter().zip(v).fold(0.0f32, |sum, (a, b)| sum + (a - b) * (a - b)),
    }
}

/// The k nearest rows by (distance, id).
pub(crate) fn search<'a>(
    metric: u8,
    q: &[f32],
    rows: impl Iterator<Item = (&'a u64, &'a Vec<f32>)>,
    k: usize,
) -> Vec<(u64, f32)> {
    let mut hits: Vec<(u64, f32)> = rows.map(|(id, v)| (*id, distance(metric, q, v))).collect();
    hits.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    hits.truncate(k);
    hits
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn value_json(value: &Value) -> serde_json::Value {
    use serde_json::json;
    match value {
        Value::Null => json!({ "null": null }),
        Value::String(text) => json!({ "string": text }),
        Value::Bytes(bytes) => json!({ "bytes_hex": hex(bytes) }),
        Value::I64(n) => json!({ "i64": n }),
        Value::U64(n) => json!({ "u64": n }),
        Value::F64(n) => json!({ "f64": n }),
        Value::Bool(b) => json!({ "bool": b }),
    }
}

pub(crate) fn golden(dir: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(dir)
}

pub(crate) fn json(path: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files below a folder, sorted, that do not end in `.json`.
pub(crate) fn data_files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path = entry.expect("directory entry").path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_none_or(|ext| ext != "json") {
                out.push(path);
            }
        }
    }
    out.sort();
    out
}
