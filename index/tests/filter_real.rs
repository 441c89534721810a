//! The filters of the real sample over its metadata: known counts, in both languages.

use rvf_index::filter::{Columns, ColumnsBuilder, Value, parse};
use std::path::PathBuf;

const COLUMNS: [&str; 7] =
    ["id", "name", "section", "priority", "installed_size", "maintainer_domain", "description"];

fn sample(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/debian-packages").join(name)
}

/// The sample's metadata; `installed_size` as the given type.
fn load(number: impl Fn(u64) -> Value) -> (Vec<csv::StringRecord>, Columns) {
    let mut reader = csv::Reader::from_path(sample("meta.csv")).expect("the sample is there");
    assert_eq!(reader.headers().expect("header").iter().collect::<Vec<_>>(), COLUMNS);
    let records: Vec<_> = reader.records().collect::<Result<_, _>>().expect("valid CSV");
    let mut builder = ColumnsBuilder::new(records.len() as u32);
    for (field, name) in COLUMNS.iter().enumerate().skip(1) {
        builder.field(field as u16, name);
    }
    for (row, record) in records.iter().enumerate() {
        for (field, name) in COLUMNS.iter().enumerate().skip(1) {
            let value = match *name {
                "installed_size" => number(record[field].parse().expect("a number")),
                _ => Value::String(record[field].to_owned()),
            };
            builder.set(row as u32, field as u16, value).expect("row exists");
        }
    }
    (records, builder.build())
}

#[test]
fn the_filters_of_the_sample_select_the_known_rows() {
    let filters: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(sample("filters.json")).expect("readable"))
            .expect("JSON");
    let filters = filters["filters"].as_array().expect("an array");
    assert_eq!(filters.len(), 9);
    let numbers: [fn(u64) -> Value; 3] = [Value::U64, |v| Value::I64(v as i64), |v| Value::F64(v as f64)];
    for number in numbers {
        let (records, columns) = load(number);
        assert_eq!(records.len(), 5000);
        for filter in filters {
            let name = filter["name"].as_str().expect("a name");
            let matches = filter["matches"].as_u64().expect("a count");
            let sql = parse(filter["where"].as_str().expect("text")).expect(name);
            let tree = parse(&filter["predicate"].to_string()).expect(name);
            assert_eq!(sql, tree, "{name}");
            let rows = columns.eval(&sql).expect(name);
            assert_eq!(rows.count(), matches, "{name}");
            let (low, high) = columns.estimate(&sql);
            assert!((low.into()..=high.into()).contains(&matches), "{name}: {low}..={high}");
        }
        // Independent of the engine: a filter and its rows by hand.
        let by_hand: Vec<u32> = (0..5000u32)
            .filter(|row| {
                let record = &records[*row as usize];
                record[6].contains("library")
                    && !record[1].starts_with("lib")
                    && record[4].parse::<u64>().expect("n") < 100
            })
            .collect();
        let expr = parse("description LIKE '%library%' AND name NOT LIKE 'lib%' AND installed_size < 100")
            .expect("valid");
        assert_eq!(columns.eval(&expr).expect("evaluates").iter().collect::<Vec<_>>(), by_hand);
        assert!(by_hand.len() > 100);
    }
}

#[test]
fn columns_of_the_sample_stay_compact() {
    let (records, columns) = load(Value::U64);
    let text: usize = records.iter().map(|r| r.as_slice().len()).sum();
    let held = columns.memory_bytes();
    assert!(held < text + 5000 * 6 * 10, "{held} bytes for {text} bytes of text");
    assert!(columns.to_bytes().len() < held + 1000);
}
