//! INDEX payloads of both codings.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use rvf_format::index_seg::{Coding, decode, decode_frame, encode};
    if let Ok(index) = decode(data) {
        for node in 0..index.adjacency.nodes() {
            for layer in 0..index.adjacency.layers(node) {
                index.adjacency.neighbours(node, layer);
            }
        }
        let _ = encode(&index);
    }
    let _ = decode_frame(data, Coding::Restarts);
    let _ = decode_frame(data, Coding::Deltas);
});
