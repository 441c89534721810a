//! Everything `rvf check` does.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    rvf_format::check::check(data);
});
