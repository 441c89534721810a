//! Filters in both languages: what is read prints and is read again, and the columns agree with the rows.
#![no_main]

use std::sync::OnceLock;

use rvf_index::filter::{Columns, ColumnsBuilder, FieldRef, FilterError, Value, matches, parse};

const NAMES: [(u16, &str); 5] = [(1, "a"), (2, "b"), (3, "c"), (7, "two words"), (9, "field.2")];

fn values() -> Vec<Vec<(u16, Value)>> {
    let of = |n: i64| match n.rem_euclid(9) {
        0 => Value::Null,
        1 => Value::String(String::new()),
        2 => Value::String("Abc".repeat((n % 3) as usize + 1)),
        3 => Value::Bytes(vec![0, 1]),
        4 => Value::I64(-n),
        5 => Value::U64(n as u64),
        6 => Value::F64(n as f64 / 2.0),
        7 => Value::Bool(n % 2 == 0),
        _ => Value::U64(u64::MAX),
    };
    (0..40)
        .map(|row| {
            NAMES
                .iter()
                .enumerate()
                .filter(|(at, _)| (row + *at as i64) % 4 != 0)
                .map(|(at, (id, _))| (*id, of(row * 3 + at as i64)))
                .collect()
        })
        .collect()
}

fn fixture() -> &'static (Columns, Vec<Vec<(u16, Value)>>) {
    static FIXTURE: OnceLock<(Columns, Vec<Vec<(u16, Value)>>)> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let rows = values();
        let mut builder = ColumnsBuilder::new(rows.len() as u32);
        for (id, name) in NAMES {
            builder.field(id, name);
        }
        for (row, fields) in rows.iter().enumerate() {
            for (id, value) in fields {
                builder.set(row as u32, *id, value.clone()).expect("a row");
            }
        }
        (builder.build(), rows)
    })
}

/// As the columns look a field up: a name first, then the id that the name spells.
fn id_of(field: &FieldRef) -> Option<u16> {
    let named = |name: &String| NAMES.iter().find(|(_, known)| known == name).map(|(id, _)| *id);
    match field {
        FieldRef::Name(name) => named(name).or_else(|| field.numbered_id()),
        FieldRef::Id(id) => Some(*id),
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let expr = match parse(text) {
        Ok(expr) => expr,
        Err(error) => {
            assert!(error.to_string().len() < 4000, "{}", error.to_string().len());
            return;
        }
    };
    let canonical = expr.to_string();
    let again = match parse(&canonical) {
        Ok(again) => again,
        // Canonical text can be longer than what was written.
        Err(FilterError::TooLong { .. }) => return,
        Err(error) => panic!("{canonical}: {error}"),
    };
    assert_eq!(again.to_string(), canonical);
    let (columns, rows) = fixture();
    let found = columns.eval(&expr).expect("an expression that was read is evaluated");
    let (low, high) = columns.estimate(&expr);
    let mut count = 0;
    for (row, fields) in rows.iter().enumerate() {
        let get = |field: &FieldRef| {
            id_of(field).and_then(|id| fields.iter().find(|(known, _)| *known == id).map(|(_, value)| value))
        };
        let want = matches(&expr, get);
        assert_eq!(found.get(row as u32), want, "{canonical}, row {row}");
        assert_eq!(matches(&again, get), want, "{canonical}, row {row}");
        count += u32::from(want);
    }
    assert!(low <= count && count <= high, "{canonical}: {low} <= {count} <= {high}");
});
