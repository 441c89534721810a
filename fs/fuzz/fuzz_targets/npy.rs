//! NumPy files, with whatever header.
#![no_main]

use rvf_fs::data::npy::{Npy, Prefix, read_prefix, write_header};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((first, bytes)) = data.split_first() else { return };
    let dim = usize::from(first % 8) + 1;
    // Half of the inputs start behind the magic, which a fuzzer need not find again and again.
    let mut whole = if first & 0x80 == 0 { Vec::new() } else { b"\x93NUMPY\x01\x00".to_vec() };
    whole.extend_from_slice(bytes);
    let prefix = read_prefix(&whole);
    let Ok(npy) = Npy::parse(&whole) else { return };
    assert!(matches!(prefix, Ok(Prefix::Header(_))), "parsed without a header");
    let count: usize = npy.shape().iter().product();
    assert!(count.saturating_mul(npy.dtype().size()) <= whole.len());
    if let Ok((rows, vectors)) = npy.to_f32(dim) {
        assert_eq!(vectors.len(), rows * dim);
        assert_eq!(vectors.len(), count);
    }
    if let Ok(ids) = npy.to_u64() {
        assert_eq!(ids.len(), count);
    }
    let header = write_header(npy.dtype(), npy.shape());
    match read_prefix(&header) {
        Ok(Prefix::Header(again)) => assert_eq!(again.header_len, header.len()),
        other => panic!("a header of ours is {other:?}"),
    }
});
