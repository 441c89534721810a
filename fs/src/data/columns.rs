//! One type a metadata column.
//!
//! The file keeps one type for a field (spec, section 5.4); JSON does not say whether `5` is unsigned, signed or
//! a float that happens to be whole. So the whole input decides: a column of integers is unsigned when none is
//! negative, else signed; a column with one float is a float column, if no integer in it would be rounded.

use super::error::{DataError, Kind, Place, printable};
use super::value::{FieldValue, Fields};
use std::collections::HashMap;

/// Integers up to here are exact as a float64.
const EXACT_F64: u64 = 1 << 53;

#[derive(Debug, Default)]
struct Column {
    /// First row of each kind.
    text: Option<usize>,
    bytes: Option<usize>,
    boolean: Option<usize>,
    float: Option<usize>,
    unsigned: Option<usize>,
    negative: Option<usize>,
    /// First row with an integer beyond i64, and with one that a float64 would round.
    beyond_i64: Option<usize>,
    beyond_f64: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    AsIs,
    Signed,
    Float,
}

impl Column {
    fn see(&mut self, row: usize, value: &FieldValue) {
        let slot = match value {
            FieldValue::Null => return,
            FieldValue::Text(_) => &mut self.text,
            FieldValue::Bytes(_) => &mut self.bytes,
            FieldValue::Bool(_) => &mut self.boolean,
            FieldValue::F64(_) => &mut self.float,
            FieldValue::U64(n) => {
                if i64::try_from(*n).is_err() {
                    self.beyond_i64.get_or_insert(row);
                }
                if (*n as f64) as u128 != u128::from(*n) {
                    self.beyond_f64.get_or_insert(row);
                }
                &mut self.unsigned
            }
            FieldValue::I64(n) => {
                if n.unsigned_abs() > EXACT_F64 {
                    self.beyond_f64.get_or_insert(row);
                }
                &mut self.negative
            }
        };
        slot.get_or_insert(row);
    }

    /// The column's type, or two rows that disagree and what they hold.
    fn decide(&self) -> Result<Target, (usize, &'static str, usize, &'static str)> {
        let number = self.float.or(self.unsigned).or(self.negative).map(|row| (row, "a number"));
        let kinds = [
            self.text.map(|row| (row, "text")),
            self.bytes.map(|row| (row, "bytes")),
            self.boolean.map(|row| (row, "true or false")),
            number,
        ];
        let mut present = kinds.iter().flatten();
        if let (Some(a), Some(b)) = (present.next(), present.next()) {
            let (a, b) = if a.0 <= b.0 { (a, b) } else { (b, a) };
            return Err((a.0, a.1, b.0, b.1));
        }
        match (self.float, self.negative, self.unsigned) {
            (Some(float), _, _) => match self.beyond_f64 {
                Some(row) => Err((float, "a float", row, "an integer that a float would round")),
                None if self.negative.is_some() || self.unsigned.is_some() => Ok(Target::Float),
                None => Ok(Target::AsIs),
            },
            (None, Some(negative), Some(_)) => match self.beyond_i64 {
                Some(row) => {
                    Err((negative, "a negative integer", row, "an integer beyond 9223372036854775807"))
                }
                None => Ok(Target::Signed),
            },
            _ => Ok(Target::AsIs),
        }
    }
}

/// Gives every column of `metadata` one type, in place. `place` says where a row is, for errors. O(values).
///
/// # Errors
/// A column whose values cannot share a type, naming the field and both rows.
pub fn unify(metadata: &mut [Fields], place: impl Fn(usize) -> Place) -> Result<(), DataError> {
    let mut columns: HashMap<String, Column> = HashMap::new();
    for (row, fields) in metadata.iter().enumerate() {
        for (name, value) in fields {
            match columns.get_mut(name.as_str()) {
                Some(column) => column.see(row, value),
                None => columns.entry(name.clone()).or_default().see(row, value),
            }
        }
    }
    let mut targets: HashMap<String, Target> = HashMap::new();
    let mut conflict: Option<((usize, String), DataError)> = None;
    for (name, column) in columns {
        match column.decide() {
            Ok(Target::AsIs) => {}
            Ok(target) => {
                targets.insert(name, target);
            }
            Err((a, a_kind, b, b_kind)) => {
                // The first in file order, so that the message does not depend on the map's order.
                let key = (a.max(b), name);
                if conflict.as_ref().is_none_or(|(first, _)| key < *first) {
                    let first = place(a).to_string();
                    let problem = format!(
                        "field `{}` holds {b_kind} here and {a_kind} at {}",
                        printable(&key.1, 64),
                        first.trim_end_matches(": ")
                    );
                    let e = DataError::new(
                        Kind::FieldType,
                        place(b),
                        problem,
                        "a field has one type: give the values one type, or use two fields",
                    );
                    conflict = Some((key, e));
                }
            }
        }
    }
    if let Some((_, e)) = conflict {
        return Err(e);
    }
    if targets.is_empty() {
        return Ok(());
    }
    for (name, value) in metadata.iter_mut().flatten() {
        let Some(target) = targets.get(name.as_str()) else { continue };
        let new = match (&*value, target) {
            (FieldValue::U64(n), Target::Signed) => i64::try_from(*n).ok().map(FieldValue::I64),
            (FieldValue::U64(n), Target::Float) => Some(FieldValue::F64(*n as f64)),
            (FieldValue::I64(n), Target::Float) => Some(FieldValue::F64(*n as f64)),
            _ => None,
        };
        if let Some(new) = new {
            *value = new;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use FieldValue::{Bool, F64, I64, Null, Text, U64};

    fn unified(values: &[FieldValue]) -> Result<Vec<FieldValue>, String> {
        let mut rows: Vec<Fields> = values.iter().map(|v| vec![("x".to_owned(), v.clone())]).collect();
        unify(&mut rows, |row| Place::Row { row: row as u64, component: None, line: None })
            .map_err(|e| e.to_string())?;
        Ok(rows.into_iter().flatten().map(|(_, v)| v).collect())
    }

    #[test]
    fn numbers_meet() {
        assert_eq!(unified(&[U64(1), Null, I64(-1)]), Ok(vec![I64(1), Null, I64(-1)]));
        assert_eq!(unified(&[U64(1), F64(0.5), I64(-1)]), Ok(vec![F64(1.0), F64(0.5), F64(-1.0)]));
        assert_eq!(unified(&[U64(u64::MAX), U64(0)]), Ok(vec![U64(u64::MAX), U64(0)]));
        assert_eq!(unified(&[U64(1 << 60), F64(0.5)]), Ok(vec![F64((1u64 << 60) as f64), F64(0.5)]));
    }

    #[test]
    fn what_cannot_meet_is_named() {
        let cases = [
            (vec![Text("a".into()), U64(1)], "row 1: field `x` holds a number here and text at row 0"),
            (
                vec![U64(1), Null, Bool(true)],
                "row 2: field `x` holds true or false here and a number at row 0",
            ),
            (
                vec![F64(0.5), U64((1 << 53) + 1)],
                "row 1: field `x` holds an integer that a float would round here and a float at row 0",
            ),
            (
                vec![U64(u64::MAX), I64(-1)],
                "row 0: field `x` holds an integer beyond 9223372036854775807 here and a negative integer at row 1",
            ),
        ];
        for (values, want) in cases {
            let e = unified(&values).unwrap_err();
            assert!(e.starts_with(want), "{e}");
            assert!(
                e.ends_with("; a field has one type: give the values one type, or use two fields"),
                "{e}"
            );
        }
    }
}
