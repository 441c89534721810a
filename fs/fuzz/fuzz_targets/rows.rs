//! Files dropped into `ingest/`: .npy, .json, .jsonl, .csv and .fvecs.
#![no_main]

use rvf_fs::data::rows::{BadRow, Format, ReadOptions, read, read_records};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((first, bytes)) = data.split_first() else { return };
    let format = match first % 5 {
        0 => Format::Npy,
        1 => Format::Json,
        2 => Format::Jsonl,
        3 => Format::Csv,
        _ => Format::Fvecs,
    };
    let dimension = usize::from(first / 5 % 4) + 1;
    let strict = ReadOptions::new(dimension);
    let lenient = ReadOptions { on_bad_row: BadRow::Skip, ..strict.clone() };
    let refusing = read(format, bytes, &strict);
    let skipping = read(format, bytes, &lenient);
    for rows in [&refusing, &skipping].into_iter().flatten() {
        assert_eq!(rows.vectors.len(), rows.len() * dimension);
        assert!(rows.vectors.len() <= bytes.len());
        assert!(rows.vectors.iter().all(|number| number.is_finite()));
        assert!(rows.ids.as_ref().is_none_or(|ids| ids.len() == rows.len()));
        assert!(rows.metadata.is_empty() || rows.metadata.len() == rows.len());
    }
    match (refusing, skipping) {
        // Debug text, because a minus zero and a zero are not the same row.
        (Ok(strict), Ok(lenient)) => assert_eq!(format!("{strict:?}"), format!("{lenient:?}")),
        (Ok(_), Err(error)) => panic!("good rows, refused when bad ones may be skipped: {error}"),
        (Err(error), _) => assert!(error.to_string().len() < 4000, "{}", error.to_string().len()),
    }
    if let Ok(records) = read_records(format, bytes) {
        assert_eq!(records.ids.len(), records.fields.len());
    }
});
