//! META payloads behind a right SHA-256.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut payload = b"RVFMETA\0".to_vec();
    payload.extend_from_slice(data);
    let digest = rvf_format::checksum::sha256(&payload);
    payload.extend_from_slice(b"RVFDONE\0");
    payload.extend_from_slice(&digest);
    if let Ok(generation) = rvf_format::meta::decode(&payload) {
        rvf_format::meta::encode_generation(&generation).expect("what was decoded fits");
        rvf_format::meta::MetaState::default().apply(generation);
    }
});
