//! Damaged and hostile inputs to the parsers: an answer or an error with a place, never a panic, and never more
//! memory than the input accounts for. And the files that other programs really write.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use proptest::prelude::*;
use rvf_fs::data::npy::{Dtype, Npy, write_header};
use rvf_fs::data::rows::{BadRow, Format, ReadOptions, read, read_records};
use rvf_fs::data::{FieldValue, Kind, json_rows, request, text};
use std::path::Path;

fn samples() -> Vec<(Format, Vec<u8>)> {
    let values = [0.5f32, -1.0, 0.25, 2.0, 3.0, -4.5];
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut npy = write_header(Dtype::F32, &[3, 2]);
    npy.extend_from_slice(&raw);
    let fvecs: Vec<u8> =
        raw.chunks(8).flat_map(|row| 2i32.to_le_bytes().into_iter().chain(row.iter().copied())).collect();
    let json =
        br#"[{"id":1,"vector":[0.5,-1],"metadata":{"a":"x\u00e9","b":-3}},{"id":2,"vector":[0.25,2]}]"#
            .to_vec();
    let jsonl =
        b"{\"id\":1,\"vector\":[0.5,-1],\"metadata\":{\"a\":true}}\n{\"id\":2,\"vector\":[1,2],\"metadata\":null}\n".to_vec();
    let csv = b"id,v0,v1,name,n\n1,0.5,-1,\"a, b\",5\n2,1,2,,-7\n".to_vec();
    vec![
        (Format::Npy, npy),
        (Format::Fvecs, fvecs),
        (Format::Json, json),
        (Format::Jsonl, jsonl),
        (Format::Csv, csv),
    ]
}

#[derive(Debug, Clone)]
enum Damage {
    Flip(usize, u8),
    Cut(usize),
    Insert(usize, Vec<u8>),
    Repeat(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<usize>(), 1u8..).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        any::<usize>().prop_map(Damage::Cut),
        (any::<usize>(), prop::collection::vec(any::<u8>(), 1..8)).prop_map(|(at, b)| Damage::Insert(at, b)),
        (any::<usize>(), 1usize..40).prop_map(|(at, n)| Damage::Repeat(at, n)),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    let len = bytes.len().max(1);
    match damage {
        Damage::Flip(at, bits) => {
            if let Some(b) = bytes.get_mut(at % len) {
                *b ^= bits;
            }
        }
        Damage::Cut(at) => bytes.truncate(at % len),
        Damage::Insert(at, new) => {
            let at = (at % len).min(bytes.len());
            bytes.splice(at..at, new.iter().copied());
        }
        Damage::Repeat(at, n) => {
            let at = (at % len).min(bytes.len());
            let part = bytes[at..(at + n).min(bytes.len())].to_vec();
            bytes.splice(at..at, part);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn damaged_files_end_in_an_answer(which in 0usize..5, hits in prop::collection::vec(damage(), 1..5), skip in any::<bool>()) {
        let (format, mut bytes) = samples().swap_remove(which);
        for hit in &hits {
            apply(&mut bytes, hit);
        }
        let on_bad_row = if skip { BadRow::Skip } else { BadRow::Refuse };
        let options = ReadOptions { on_bad_row, ..ReadOptions::new(2) };
        if let Ok(rows) = read(format, &bytes, &options) {
            prop_assert_eq!(rows.vectors.len(), rows.len() * 2);
            prop_assert!(rows.vectors.iter().all(|v| v.is_finite()));
            prop_assert!(rows.vectors.len() <= bytes.len());
            prop_assert!(rows.ids.is_none_or(|ids| ids.len() == rows.vectors.len() / 2));
            prop_assert!(rows.metadata.is_empty() || rows.metadata.len() == rows.vectors.len() / 2);
            prop_assert!(skip || rows.rejected == 0);
        }
        let _ = read_records(format, &bytes);
        let _ = json_rows::parse_record(&bytes, Some(1));
        let _ = request::parse(&bytes, 2);
        let _ = request::completeness(&bytes, 2);
        let _ = text::parse_one(&bytes, 2);
    }
}

#[test]
fn undamaged_samples_are_read() {
    for (format, bytes) in samples() {
        let rows = read(format, &bytes, &ReadOptions::new(2)).unwrap();
        assert!(rows.len() >= 2, "{format:?}");
    }
}

#[test]
fn claims_do_not_allocate() {
    // Ten bytes that claim exabytes, in every form that can claim.
    let npy = write_header(Dtype::F64, &[1 << 55, 2]);
    assert_eq!(read(Format::Npy, &npy, &ReadOptions::new(2)).unwrap_err().kind, Kind::Shape);
    let fvecs = i32::MAX.to_le_bytes();
    assert!(matches!(
        read(Format::Fvecs, &fvecs, &ReadOptions::new(2)).unwrap_err().kind,
        Kind::Dimension { want: 2, .. }
    ));
    assert_eq!(request::parse(b"[1]", 65_535).unwrap_err().kind, Kind::Dimension { got: 1, want: 65_535 });
}

#[test]
fn nested_json_is_an_error_in_every_place() {
    let deep = "[".repeat(200_000);
    for text in [
        format!("{{\"id\":1,\"vector\":{deep}"),
        format!("{{\"id\":1,\"vector\":[1,2],\"metadata\":{{\"a\":{deep}"),
        format!("[{{\"x\":{deep}"),
        deep.clone(),
    ] {
        for format in [Format::Json, Format::Jsonl] {
            assert!(read(format, text.as_bytes(), &ReadOptions::new(2)).is_err());
        }
        assert!(request::parse(text.as_bytes(), 2).is_err());
    }
}

fn sample(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/debian-packages").join(name))
        .unwrap()
}

/// Files that NumPy and a spreadsheet wrote.
#[test]
fn the_shipped_sample_is_read_whole() {
    let rows = read(Format::Npy, &sample("base.f16.npy"), &ReadOptions::new(384)).unwrap();
    assert_eq!(rows.len(), 5000);
    let norm: f32 = rows.vectors[..384].iter().map(|v| v * v).sum();
    assert!((norm - 1.0).abs() < 1e-3, "{norm}");
    let ids = Npy::parse(&sample("ids.u64.npy")).unwrap().to_u64().unwrap();
    assert_eq!((ids.len(), ids[0]), (5000, 7_222_816_631_159_666));
    let records = read_records(Format::Csv, &sample("meta.csv")).unwrap();
    assert_eq!(records.ids, ids);
    let names: Vec<&str> = records.fields[0].iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["name", "section", "priority", "installed_size", "maintainer_domain", "description"]);
    assert_eq!(records.fields[0][0].1, FieldValue::Text("chroma-data".into()));
    assert_eq!(records.fields[0][3].1, FieldValue::U64(112));
    let queries = request::parse(&sample("queries.f32.npy"), 384).unwrap();
    assert_eq!(queries.queries, 100);
}
