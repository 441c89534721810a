//! A whole file: walk, choice of the manifest, contents, metadata.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let opened = rvf_format::recover::open(data);
    let contents = rvf_format::contents::read(data, &opened);
    for block in &contents.blocks {
        assert_eq!(block.rows_of(data).len(), block.stride() * block.count as usize);
    }
    rvf_format::meta::replay(data, &contents.meta_entries, &|id| id % 2 == 0);
});
