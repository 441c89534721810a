//! Between the plain types of [`crate::data`] and those of the store.

use crate::data::rows::Rows;
use crate::data::{FieldValue, Fields};
use rvf_cow::{BadRow, Batch, Fields as StoreFields, Value};

/// Rows as a batch. They were checked when they were read, so a bad one now is a mistake of ours: refused.
pub(super) fn batch(rows: Rows) -> Batch {
    Batch {
        dimension: rows.dimension,
        ids: rows.ids,
        vectors: rows.vectors,
        metadata: rows.metadata.into_iter().map(to_store).collect(),
        on_bad_row: BadRow::Refuse,
    }
}

fn to_store(fields: Fields) -> StoreFields {
    let value = |v| match v {
        FieldValue::Null => Value::Null,
        FieldValue::Text(s) => Value::String(s),
        FieldValue::Bytes(b) => Value::Bytes(b),
        FieldValue::I64(n) => Value::I64(n),
        FieldValue::U64(n) => Value::U64(n),
        FieldValue::F64(n) => Value::F64(n),
        FieldValue::Bool(b) => Value::Bool(b),
    };
    fields.into_iter().map(|(name, v)| (name, value(v))).collect()
}

/// A stored value as it is shown.
pub(super) fn shown(value: Value) -> FieldValue {
    match value {
        Value::Null => FieldValue::Null,
        Value::String(s) => FieldValue::Text(s),
        Value::Bytes(b) => FieldValue::Bytes(b),
        Value::I64(n) => FieldValue::I64(n),
        Value::U64(n) => FieldValue::U64(n),
        Value::F64(n) => FieldValue::F64(n),
        Value::Bool(b) => FieldValue::Bool(b),
    }
}
