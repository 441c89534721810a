//! Between the plain types of [`crate::data`] and those of the store. The only place that knows both.

use crate::data::rows::Rows;
use crate::data::{FieldValue, Fields};
use rvf_cow::{BadRow, Batch, Fields as StoreFields, Value};

/// Rows as a batch. They were checked when they were read, so a bad one now is a mistake of ours: refused.
#[must_use]
pub fn batch(rows: Rows) -> Batch {
    Batch {
        dimension: rows.dimension,
        ids: rows.ids,
        vectors: rows.vectors,
        metadata: rows.metadata.into_iter().map(store_fields).collect(),
        on_bad_row: BadRow::Refuse,
    }
}

/// A metadata record as the store takes it.
#[must_use]
pub fn store_fields(fields: Fields) -> StoreFields {
    let value = |value| match value {
        FieldValue::Null => Value::Null,
        FieldValue::Text(text) => Value::String(text),
        FieldValue::Bytes(bytes) => Value::Bytes(bytes),
        FieldValue::I64(number) => Value::I64(number),
        FieldValue::U64(number) => Value::U64(number),
        FieldValue::F64(number) => Value::F64(number),
        FieldValue::Bool(flag) => Value::Bool(flag),
    };
    fields.into_iter().map(|(name, field)| (name, value(field))).collect()
}

/// A stored value as it is shown.
#[must_use]
pub fn shown(value: Value) -> FieldValue {
    value.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let fields: Fields = [
            FieldValue::Null,
            FieldValue::Text("t".into()),
            FieldValue::Bytes(vec![0, 255]),
            FieldValue::I64(-1),
            FieldValue::U64(u64::MAX),
            FieldValue::F64(-0.5),
            FieldValue::Bool(true),
        ]
        .into_iter()
        .enumerate()
        .map(|(n, value)| (format!("f{n}"), value))
        .collect();
        let back: Fields =
            store_fields(fields.clone()).into_iter().map(|(name, value)| (name, shown(value))).collect();
        assert_eq!(back, fields);
    }
}
