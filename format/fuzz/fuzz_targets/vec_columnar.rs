//! Columnar VEC payloads.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(blocks) = rvf_format::vec_seg::decode_columnar(data) {
        for block in blocks {
            block.to_rows();
        }
    }
});
