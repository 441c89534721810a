//! Manifest payloads.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(manifest) = rvf_format::Manifest::parse(data) {
        let again = manifest.encode().expect("what was parsed fits");
        assert_eq!(rvf_format::Manifest::parse(&again).expect("what was encoded parses"), manifest);
    }
});
