//! The stored columns of a file, damaged behind a right checksum.
#![no_main]

use std::sync::OnceLock;

use rvf_index::filter::{Columns, ColumnsBuilder, Value, parse};
use xxhash_rust::xxh3::xxh3_64;

const ROWS: u32 = 20;

fn valid() -> &'static Vec<u8> {
    static VALID: OnceLock<Vec<u8>> = OnceLock::new();
    VALID.get_or_init(|| {
        let mut builder = ColumnsBuilder::new(ROWS);
        for (id, name) in [(1, "a"), (2, "b"), (3, "c")] {
            builder.field(id, name);
        }
        for row in 0..ROWS {
            let text = ["x", "yy", "zzz"][row as usize % 3].to_owned();
            builder.set(row, 1, Value::String(text)).expect("a row");
            builder
                .set(row, 2, if row % 2 == 0 { Value::U64(row.into()) } else { Value::F64(0.5) })
                .expect("a row");
            if row % 8 == 0 {
                builder.set(row, 3, Value::Bool(row == 8)).expect("a row");
            }
        }
        builder.build().to_bytes()
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut bytes = valid().clone();
    let end = bytes.len() - 8;
    bytes.truncate(end);
    for edit in data.as_chunks::<4>().0 {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]]));
        match edit[2] {
            0 => bytes.truncate(at.max(8)),
            1 => bytes.insert(at.min(bytes.len()), edit[3]),
            2 if at + 4 <= bytes.len() => bytes[at..at + 4].fill(edit[3]),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= edit[3];
                }
            }
        }
    }
    let sum = xxh3_64(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    let Ok(columns) = Columns::from_bytes(&bytes) else { return };
    // Answers are as large as the table, so whoever reads columns compares its size first.
    if columns.rows() != ROWS {
        return;
    }
    for filter in [
        "a = 'yy'",
        "a LIKE '%z%' AND b > 3",
        "b IN (2, 0.5) OR NOT c",
        "a != 'x'",
        "EXISTS c",
        "field.3 IS NULL",
    ] {
        let expr = parse(filter).expect("a filter");
        columns.eval(&expr).expect("columns that were taken answer");
        columns.estimate(&expr);
    }
    for row in 0..columns.rows().min(64) {
        for id in 0..5 {
            columns.value(row, &rvf_index::filter::FieldRef::Id(id));
        }
    }
    let again = Columns::from_bytes(&columns.to_bytes()).expect("what was taken is written and read");
    assert_eq!(again.rows(), columns.rows());
});
