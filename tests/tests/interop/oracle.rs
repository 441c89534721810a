//! Both readers against the model, and small helpers that all interop tests share.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rvf_cow::{
    Access, BadRow, Batch, CreateOptions, Fields, IngestReport, Metric, NoProgress, OpenOptions, Store, Value,
};
use rvf_tests::model::{Model, Record, Row};
use rvf_tests::random::Random;

use crate::reference;

pub(crate) const METRICS: [Metric; 3] = [Metric::L2, Metric::InnerProduct, Metric::Cosine];

pub(crate) fn create(path: &Path, dimension: u16, metric: Metric) -> Arc<Store> {
    Store::create(path, &CreateOptions { dimension, metric, profile: 0 }).expect("we create a store")
}

pub(crate) fn open(path: &Path) -> Arc<Store> {
    Store::open(path, &OpenOptions::default()).expect("we open the store")
}

pub(crate) fn open_to_read(path: &Path) -> Arc<Store> {
    Store::open(path, &OpenOptions { access: Access::ReadOnly, ..OpenOptions::default() })
        .expect("we open the store for reading")
}

pub(crate) fn fields_of(record: Option<&Record>) -> Fields {
    record.map(|r| r.iter().map(|(k, v)| (k.clone(), v.clone())).collect()).unwrap_or_default()
}

pub(crate) fn batch_of(dimension: usize, rows: &[Row]) -> Batch {
    let has_records = rows.iter().any(|r| r.record.is_some());
    Batch {
        dimension,
        ids: Some(rows.iter().map(|r| r.id).collect()),
        vectors: rows.iter().flat_map(|r| r.vector.iter().copied()).collect(),
        metadata: if has_records {
            rows.iter().map(|r| fields_of(r.record.as_ref())).collect()
        } else {
            Vec::new()
        },
        on_bad_row: BadRow::Refuse,
    }
}

pub(crate) fn ingest(store: &Store, rows: &[Row]) -> IngestReport {
    store.ingest(&batch_of(store.view().dimension(), rows), &NoProgress).expect("we ingest")
}

/// Our reader and the reference's both show what the model says, from a fresh open.
pub(crate) fn both_agree(model: &Model, path: &Path, queries: &[Vec<f32>]) {
    both(model, path, queries).expect("both readers agree with the model");
}

pub(crate) fn both(model: &Model, path: &Path, queries: &[Vec<f32>]) -> Result<(), String> {
    let ours = Store::open(path, &OpenOptions { access: Access::ReadOnly, ..OpenOptions::default() })
        .map_err(|e| format!("we refuse the file: {e}"))?;
    let view = ours.view();
    model.agrees_with(&view, queries)?;
    if view.status().health != "ok" {
        return Err(format!("findings: {:?}", view.findings()));
    }
    reference::agrees(model, path, queries)?;
    let theirs = rvf_runtime::RvfStore::open_readonly(path).map_err(|e| e.to_string())?;
    let status = theirs.status();
    rvf_tests::model::same("epoch", view.epoch(), status.current_epoch)?;
    rvf_tests::model::same(
        "segments listed",
        view.status().listed_segments,
        u64::from(status.total_segments),
    )?;
    rvf_tests::model::same("profile", view.status().profile_id, status.profile_id)
}

/// `n` rows with ids from `first`, their values from `random`.
pub(crate) fn rows(random: &mut Random, first: u64, n: u64, dimension: usize) -> Vec<Row> {
    (first..first + n).map(|id| Row { id, vector: random.vector(dimension), record: None }).collect()
}

pub(crate) fn queries(random: &mut Random, n: usize, dimension: usize) -> Vec<Vec<f32>> {
    (0..n).map(|_| random.vector(dimension)).collect()
}

/// A record with a value of every type, at and around the places where types end.
pub(crate) fn every_type(turn: u64) -> Record {
    let strings = ["", "plain", "two\nlines", "zero\0inside", "\u{e4}\u{1f600}", "'quoted' \"twice\""];
    let numbers = [0, 1, u64::from(u32::MAX), (1 << 53) + 1, i64::MAX as u64, u64::MAX];
    let floats = [0.0, -0.0, 1.5, f64::MIN_POSITIVE, f64::MAX, -1e-300];
    let at = (turn % 6) as usize;
    BTreeMap::from([
        ("text".to_owned(), Value::String(strings[at].to_owned())),
        ("raw".to_owned(), Value::Bytes(vec![0, 255, b'\n'][..at.min(3)].to_vec())),
        ("signed".to_owned(), Value::I64([0, -1, i64::MIN, i64::MAX, 1, -(1 << 53) - 1][at])),
        ("unsigned".to_owned(), Value::U64(numbers[at])),
        ("real".to_owned(), Value::F64(floats[at])),
        ("flag".to_owned(), Value::Bool(turn.is_multiple_of(2))),
        ("maybe".to_owned(), if turn.is_multiple_of(3) { Value::Null } else { Value::String("here".into()) }),
    ])
}

/// The same fields under the names that the reference's numbers have.
pub(crate) fn numbered(record: &Record) -> Record {
    record
        .iter()
        .enumerate()
        .map(|(at, (_, value))| (format!("field.{}", 3 + 5 * at), value.clone()))
        .collect()
}
