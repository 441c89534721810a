//! The shipped sample: 5,000 Debian package descriptions as embeddings, with metadata and exact ground truth.

use std::io;
use std::path::{Path, PathBuf};

use rvf_cow::{Fields, Value};

use crate::npy;

/// A data set with its ground truth.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Components a vector.
    pub dimension: usize,
    /// One id a row.
    pub ids: Vec<u64>,
    /// `[n, dimension]`, row-major.
    pub base: Vec<f32>,
    /// `[q, dimension]`, row-major.
    pub queries: Vec<f32>,
    /// For every query the ids of the nearest rows by cosine distance, nearest first.
    pub truth: Vec<Vec<u64>>,
}

/// One predicate with its ground truth.
#[derive(Debug, Clone)]
pub struct Filter {
    /// A short name.
    pub name: String,
    /// The predicate as SQL-like text.
    pub text: String,
    /// The predicate as JSON.
    pub json: String,
    /// Rows that match.
    pub matches: u64,
    /// For every query the ids of the nearest matching rows by cosine distance.
    pub truth: Vec<Vec<u64>>,
}

/// Where the sample is.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/debian-packages")
}

impl Sample {
    /// Reads a data set: `base.f16.npy`, `ids.u64.npy`, `queries.f32.npy`, `gt_cosine.u64.npy`.
    ///
    /// # Errors
    /// The files', or `InvalidData` when they do not belong together.
    pub fn load(dir: &Path) -> io::Result<Self> {
        let base = npy::read_f32(&dir.join("base.f16.npy"))?;
        let ids = npy::read_u64(&dir.join("ids.u64.npy"))?;
        let queries = npy::read_f32(&dir.join("queries.f32.npy"))?;
        let truth = npy::read_u64(&dir.join("gt_cosine.u64.npy"))?;
        if base.rows != ids.rows || base.columns != queries.columns || truth.rows != queries.rows {
            return Err(invalid(format!("{}: the files do not belong together", dir.display())));
        }
        let truth = truth.values.chunks_exact(truth.columns).map(<[u64]>::to_vec).collect();
        Ok(Self {
            dimension: base.columns,
            ids: ids.values,
            base: base.values,
            queries: queries.values,
            truth,
        })
    }

    /// Vector of a row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        &self.base[row * self.dimension..(row + 1) * self.dimension]
    }

    /// One query.
    #[must_use]
    pub fn query(&self, query: usize) -> &[f32] {
        &self.queries[query * self.dimension..(query + 1) * self.dimension]
    }
}

/// The metadata of every row of a data set, in row order: name, section, priority, `installed_size` (a number),
/// `maintainer_domain` and description. Empty columns are left out.
///
/// # Errors
/// The file's, or `InvalidData`.
pub fn metadata(dir: &Path) -> io::Result<Vec<(u64, Fields)>> {
    let mut reader = csv::Reader::from_path(dir.join("meta.csv"))?;
    let names: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record?;
        let mut id = None;
        let mut fields = Fields::new();
        for (name, text) in names.iter().zip(record.iter()) {
            if name == "id" {
                id = text.parse().ok();
            } else if !text.is_empty() {
                let value = match (name.as_str(), text.parse::<u64>()) {
                    ("installed_size", Ok(n)) => Value::U64(n),
                    _ => Value::String(text.to_owned()),
                };
                fields.push((name.clone(), value));
            }
        }
        let id = id.ok_or_else(|| invalid("meta.csv: a row without an id".into()))?;
        rows.push((id, fields));
    }
    Ok(rows)
}

/// The predicates of a data set, with their ground truth.
///
/// # Errors
/// The file's, or `InvalidData`.
pub fn filters(dir: &Path) -> io::Result<Vec<Filter>> {
    let text = std::fs::read(dir.join("filters.json"))?;
    let all: serde_json::Value = serde_json::from_slice(&text)?;
    let mut filters = Vec::new();
    for one in all["filters"].as_array().ok_or_else(|| invalid("filters.json: no filters".into()))? {
        let truth = one["gt_cosine_ids"]
            .as_array()
            .ok_or_else(|| invalid("filters.json: no ground truth".into()))?
            .iter()
            .map(|row| row.as_array().into_iter().flatten().filter_map(serde_json::Value::as_u64).collect())
            .collect();
        filters.push(Filter {
            name: one["name"].as_str().unwrap_or_default().to_owned(),
            text: one["where"].as_str().unwrap_or_default().to_owned(),
            json: one["predicate"].to_string(),
            matches: one["matches"].as_u64().unwrap_or_default(),
            truth,
        });
    }
    Ok(filters)
}

/// Share of the first `k` of `truth` that are among the first `k` of `found`, over all queries. 1.0 when there
/// is nothing to find.
#[must_use]
pub fn recall(found: &[Vec<u64>], truth: &[Vec<u64>], k: usize) -> f64 {
    let mut hits = 0;
    let mut wanted = 0;
    for (found, truth) in found.iter().zip(truth) {
        let truth = &truth[..k.min(truth.len())];
        wanted += truth.len();
        hits += found.iter().take(k).filter(|id| truth.contains(id)).count();
    }
    if wanted == 0 { 1.0 } else { hits as f64 / wanted as f64 }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
