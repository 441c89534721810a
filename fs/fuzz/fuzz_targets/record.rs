//! `metadata/ID.json`: a record as it is written, and as it is shown again.
#![no_main]

use rvf_fs::data::json_rows::parse_record;
use rvf_fs::data::value::write_json_record;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = rvf_fs::data::json::balanced(data);
    let Ok(fields) = parse_record(data, Some(1)) else { return };
    let mut shown = Vec::new();
    write_json_record(Some(1), fields.iter().map(|(name, value)| (name.as_str(), value)), &mut shown);
    let back = parse_record(&shown, Some(1))
        .unwrap_or_else(|error| panic!("{}: {error}", String::from_utf8_lossy(&shown)));
    assert_eq!(back, fields, "{}", String::from_utf8_lossy(&shown));
});
