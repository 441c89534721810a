//! WITNESS payloads: chain, attestation, legacy.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    rvf_format::witness::decode(data);
    rvf_format::witness::head_after(data);
});
