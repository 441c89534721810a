//! The walk: every byte in exactly one entry.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let layout = rvf_format::layout::walk(data);
    let mut at = 0;
    for entry in &layout.entries {
        let range = rvf_format::layout::entry_range(entry);
        assert_eq!(range.start, at);
        assert!(range.end > at);
        at = range.end;
    }
    assert_eq!(at, layout.body_end());
});
