//! META payloads. The SHA-256 stops most inputs; `meta_body` goes past it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(generation) = rvf_format::meta::decode(data) {
        let again = rvf_format::meta::encode_generation(&generation).expect("what was decoded fits");
        assert_eq!(rvf_format::meta::decode(&again).expect("what was encoded decodes"), generation);
    }
});
