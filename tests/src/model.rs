//! What a store must hold after any sequence of operations, written down in the plainest way.
//!
//! The distances are computed here once more, from the format's definition, so that neither our code nor the
//! reference's is its own judge.

use std::collections::{BTreeMap, BTreeSet};

use rvf_cow::{Metric, SearchRequest, Value, View};

/// Field name to value.
pub type Record = BTreeMap<String, Value>;

/// One row to store.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its id.
    pub id: u64,
    /// Its components.
    pub vector: Vec<f32>,
    /// Its metadata, if any are given.
    pub record: Option<Record>,
}

/// What happens to the fields that an overwritten row had and its new record does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// They stay: the reference.
    Merge,
    /// They go: ours.
    Replace,
}

/// The contents of a store.
#[derive(Debug, Clone)]
pub struct Model {
    /// Components a vector.
    pub dimension: usize,
    /// How distances are measured.
    pub metric: Metric,
    /// Live vectors.
    pub rows: BTreeMap<u64, Vec<f32>>,
    /// Ids that were deleted since the last compaction and not stored again.
    pub deleted: BTreeSet<u64>,
    /// Metadata of live vectors.
    pub records: BTreeMap<u64, Record>,
}

impl Model {
    /// An empty store.
    #[must_use]
    pub fn new(dimension: usize, metric: Metric) -> Self {
        Self { dimension, metric, rows: BTreeMap::new(), deleted: BTreeSet::new(), records: BTreeMap::new() }
    }

    /// Stores rows.
    pub fn ingest(&mut self, rows: &[Row], fate: Fate) {
        for row in rows {
            self.rows.insert(row.id, row.vector.clone());
            self.deleted.remove(&row.id);
            if let Some(record) = &row.record {
                let held = self.records.entry(row.id).or_default();
                if fate == Fate::Replace {
                    held.clear();
                }
                held.extend(record.clone());
            }
        }
    }

    /// Deletes vectors; how many of them were live.
    pub fn delete(&mut self, ids: &[u64]) -> u64 {
        let mut count = 0;
        for id in ids {
            if self.rows.remove(id).is_some() {
                count += 1;
                self.deleted.insert(*id);
                self.records.remove(id);
            }
        }
        count
    }

    /// Replaces the record of a live vector; an empty one removes it.
    pub fn put(&mut self, id: u64, record: Record) {
        if record.is_empty() {
            self.records.remove(&id);
        } else {
            self.records.insert(id, record);
        }
    }

    /// Forgets what was deleted.
    pub fn compact(&mut self) {
        self.deleted.clear();
    }

    /// Share of the rows that are deleted, as `status` shows it.
    #[must_use]
    pub fn dead_ratio(&self) -> f64 {
        let all = self.rows.len() + self.deleted.len();
        if all == 0 { 0.0 } else { self.deleted.len() as f64 / all as f64 }
    }

    /// The `k` nearest live vectors: id and the bits of the distance, nearest first, ties by id.
    #[must_use]
    pub fn nearest(&self, query: &[f32], k: usize) -> Vec<(u64, u32)> {
        let mut all: Vec<(f32, u64)> =
            self.rows.iter().map(|(id, row)| (distance(self.metric, query, row), *id)).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        all.into_iter().take(k).map(|(d, id)| (id, d.to_bits())).collect()
    }

    /// Compares with what a view shows: numbers, ids, every bit of every vector, metadata, and exact answers to
    /// `queries`.
    ///
    /// # Errors
    /// The first difference, in words.
    pub fn agrees_with(&self, view: &View, queries: &[Vec<f32>]) -> Result<(), String> {
        same("dimension", view.dimension(), self.dimension)?;
        same("metric", view.metric(), self.metric)?;
        same("live vectors", view.live(), self.rows.len() as u64)?;
        let status = view.status();
        same("status: vectors", status.vectors, self.rows.len() as u64)?;
        same("status: deleted", status.deleted, self.deleted.len() as u64)?;
        same("status: dead space", status.dead_space_ratio, self.dead_ratio())?;

        let mut ids: Vec<u64> = view.live_ordinals().iter().map(|o| view.id(*o)).collect();
        ids.sort_unstable();
        same("ids", ids, self.rows.keys().copied().collect::<Vec<_>>())?;
        for (id, row) in &self.rows {
            let ordinal = view.find(*id).ok_or_else(|| format!("id {id} is not found"))?;
            let bytes: Vec<u8> = row.iter().flat_map(|v| v.to_le_bytes()).collect();
            same(&format!("vector {id}"), view.vector(ordinal), bytes.as_slice())?;
        }
        for id in &self.deleted {
            same(&format!("deleted id {id}"), view.find(*id), None)?;
        }
        let mut with_record = view.metadata_ids();
        with_record.sort_unstable();
        same("ids with metadata", with_record, self.records.keys().copied().collect::<Vec<_>>())?;
        for id in self.rows.keys() {
            let shown: Option<Record> = view.fields(*id).map(|f| f.into_iter().collect());
            same(&format!("metadata of {id}"), shown.as_ref(), self.records.get(id))?;
        }
        for query in queries {
            for k in [1, 10] {
                let request = SearchRequest {
                    queries: query,
                    k,
                    ef: None,
                    filter: None,
                    exact: true,
                    deadline: None,
                    threads: 1,
                };
                let answers = view.search(&request).map_err(|e| e.to_string())?;
                let hits: Vec<(u64, u32)> = answers
                    .first()
                    .map(|a| a.hits.iter().map(|h| (h.id, h.distance.to_bits())).collect())
                    .unwrap_or_default();
                same(&format!("the {k} nearest of {query:?}"), hits, self.nearest(query, k))?;
            }
        }
        view.check_intact().map_err(|e| e.to_string())
    }
}

/// The distance of the format: components in order, one `f32` accumulator, no fused operations.
#[must_use]
pub fn distance(metric: Metric, query: &[f32], row: &[f32]) -> f32 {
    let pairs = || query.iter().zip(row);
    match metric {
        Metric::L2 => {
            let mut sum = 0.0f32;
            for (q, v) in pairs() {
                let d = q - v;
                sum += d * d;
            }
            sum
        }
        Metric::InnerProduct => {
            let mut dot = 0.0f32;
            for (q, v) in pairs() {
                dot += q * v;
            }
            -dot
        }
        Metric::Cosine => {
            let (mut dot, mut nq, mut nv) = (0.0f32, 0.0f32, 0.0f32);
            for (q, v) in pairs() {
                dot += q * v;
                nq += q * q;
                nv += v * v;
            }
            let den = (nq * nv).sqrt();
            if den < f32::EPSILON { 1.0 } else { 1.0 - dot / den }
        }
    }
}

/// `Ok` when both are equal, otherwise a sentence.
///
/// # Errors
/// The sentence.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, want: T) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("{what}: {got:?} instead of {want:?}")) }
}
