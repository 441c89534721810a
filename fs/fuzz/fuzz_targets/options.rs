//! The words behind `-o`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let one = rvf_fs::options::words(&[text.to_owned()]);
    // Commas and several -o mean the same.
    let many = rvf_fs::options::words(&text.split(',').map(str::to_owned).collect::<Vec<_>>());
    assert_eq!(one, many);
});
