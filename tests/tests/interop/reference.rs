//! The reference library, behind the few operations the tests need.

use std::collections::BTreeMap;
use std::path::Path;

use reference_crypto::witness::verify_witness_chain_from;
use rvf_cow::{Metric, Value};
use rvf_runtime::options::{DistanceMetric, VectorMetadata};
use rvf_runtime::{MetadataEntry, MetadataValue, QueryOptions, RvfOptions, RvfStore};
use rvf_tests::model::{Model, Record, Row, same};

/// File metadata key under which we store the name of a numbered field.
const NAME_KEY: &str = "rvf-mount.field.";

pub(crate) fn metric_of(metric: Metric) -> DistanceMetric {
    match metric {
        Metric::L2 => DistanceMetric::L2,
        Metric::InnerProduct => DistanceMetric::InnerProduct,
        Metric::Cosine => DistanceMetric::Cosine,
    }
}

pub(crate) fn create(path: &Path, dimension: u16, metric: Metric) -> RvfStore {
    let options = RvfOptions { dimension, metric: metric_of(metric), ..RvfOptions::default() };
    RvfStore::create(path, options).expect("the reference creates a store")
}

pub(crate) fn open(path: &Path) -> RvfStore {
    RvfStore::open(path).expect("the reference opens the store for writing")
}

pub(crate) fn open_strict(path: &Path) -> RvfStore {
    RvfStore::open_readonly_strict(path).expect("the reference opens the store strictly")
}

pub(crate) fn to_reference(value: &Value) -> MetadataValue {
    match value {
        Value::Null => MetadataValue::Null,
        Value::String(v) => MetadataValue::String(v.clone()),
        Value::Bytes(v) => MetadataValue::Bytes(v.clone()),
        Value::I64(v) => MetadataValue::I64(*v),
        Value::U64(v) => MetadataValue::U64(*v),
        Value::F64(v) => MetadataValue::F64(*v),
        Value::Bool(v) => MetadataValue::Bool(*v),
    }
}

pub(crate) fn from_reference(value: &MetadataValue) -> Value {
    match value {
        MetadataValue::Null => Value::Null,
        MetadataValue::String(v) => Value::String(v.clone()),
        MetadataValue::Bytes(v) => Value::Bytes(v.clone()),
        MetadataValue::I64(v) => Value::I64(*v),
        MetadataValue::U64(v) => Value::U64(*v),
        MetadataValue::F64(v) => Value::F64(*v),
        MetadataValue::Bool(v) => Value::Bool(*v),
        MetadataValue::DeleteField => panic!("a stored value cannot be a deletion"),
    }
}

/// The number of a field name in a store: the one that is written in the file, or that of `field.<n>`.
pub(crate) fn field_number(store: &RvfStore, name: &str) -> Option<u16> {
    if let Some(n) = name.strip_prefix("field.") {
        return n.parse().ok();
    }
    (0..200).find(|n| field_name(store, *n) == name)
}

/// The name of a field number.
pub(crate) fn field_name(store: &RvfStore, number: u16) -> String {
    match store.get_file_metadata(&format!("{NAME_KEY}{number}")) {
        Some(MetadataValue::String(name)) => name.clone(),
        _ => format!("field.{number}"),
    }
}

/// Stores rows. Every field name must have a number in the store already.
pub(crate) fn ingest(store: &mut RvfStore, rows: &[Row]) -> rvf_runtime::IngestResult {
    let vectors: Vec<&[f32]> = rows.iter().map(|r| r.vector.as_slice()).collect();
    let ids: Vec<u64> = rows.iter().map(|r| r.id).collect();
    let records: Vec<VectorMetadata> = rows
        .iter()
        .filter_map(|row| {
            let fields = row.record.as_ref()?.iter().map(|(name, value)| MetadataEntry {
                field_id: field_number(store, name).expect("the field has a number"),
                value: to_reference(value),
            });
            Some(VectorMetadata { vector_id: row.id, fields: fields.collect(), delete_record: false })
        })
        .collect();
    if records.is_empty() {
        store.ingest_batch(&vectors, &ids, None)
    } else {
        store.ingest_batch_with_metadata(&vectors, &ids, &records)
    }
    .expect("the reference ingests")
}

/// The metadata record that the reference shows for a vector.
pub(crate) fn record_of(store: &RvfStore, id: u64) -> Option<Record> {
    let entries = store.get_metadata(id)?;
    Some(entries.iter().map(|e| (field_name(store, e.field_id), from_reference(&e.value))).collect())
}

/// An exact query: ids and the bits of their distances.
pub(crate) fn exact(store: &RvfStore, query: &[f32], k: usize) -> Vec<(u64, u32)> {
    let options = QueryOptions { force_exact: true, ..QueryOptions::default() };
    let results = store.query(query, k, &options).expect("the reference answers");
    results.iter().map(|r| (r.id, r.distance.to_bits())).collect()
}

/// Compares everything that the reference shows of a file with the model.
pub(crate) fn agrees(model: &Model, path: &Path, queries: &[Vec<f32>]) -> Result<(), String> {
    let store =
        RvfStore::open_readonly_strict(path).map_err(|e| format!("the reference refuses the file: {e}"))?;
    same("reference: dimension", usize::from(store.dimension()), model.dimension)?;
    same("reference: metric", store.metric(), metric_of(model.metric))?;
    let status = store.status();
    same("reference: live vectors", status.total_vectors, model.rows.len() as u64)?;
    same("reference: dead space", status.dead_space_ratio, model.dead_ratio())?;
    same(
        "reference: file size",
        status.file_size,
        std::fs::metadata(path).map_err(|e| e.to_string())?.len(),
    )?;
    let recovery = store.metadata_recovery();
    same("reference: dropped metadata", (recovery.dropped_generations, recovery.dropped_records), (0, 0))?;

    let mut rows: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    for (id, row) in store.iter_vectors() {
        rows.insert(id, row.iter().map(|v| v.to_bits()).collect());
    }
    let want: BTreeMap<u64, Vec<u32>> =
        model.rows.iter().map(|(id, row)| (*id, row.iter().map(|v| v.to_bits()).collect())).collect();
    same("reference: vectors", rows, want)?;
    for id in model.rows.keys().chain(&model.deleted) {
        same(
            &format!("reference: metadata of {id}"),
            record_of(&store, *id).as_ref(),
            model.records.get(id),
        )?;
    }
    for query in queries {
        for k in [1, 10] {
            same(
                &format!("reference: the {k} nearest of {query:?}"),
                exact(&store, query, k),
                model.nearest(query, k),
            )?;
        }
    }
    witness_chain_holds(path)
}

/// Every witness of the file, in file order, links to the one before; and the reference and we name the same head.
pub(crate) fn witness_chain_holds(path: &Path) -> Result<(), String> {
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    let opened = rvf_format::recover::open(&bytes);
    let mut head = [0; 32];
    for segment in opened.layout.segments() {
        if segment.kind() == rvf_format::SegType::WITNESS {
            let payload = segment.payload_of(&bytes);
            (_, head) = verify_witness_chain_from(payload, &head)
                .map_err(|e| format!("witness at byte {}: {e}", segment.offset))?;
        }
    }
    let ours = rvf_format::contents::read(&bytes, &opened).witness_head;
    same("witness head, ours", ours, head)?;
    let store = RvfStore::open_readonly(path).map_err(|e| e.to_string())?;
    same("witness head, the reference's", *store.last_witness_hash(), head)
}
