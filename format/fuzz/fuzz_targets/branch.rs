//! COW_MAP, MEMBERSHIP, REFCOUNT and DELTA payloads.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(map) = rvf_format::cow_map::CowMap::parse(data) {
        map.encode().expect("what was parsed fits");
    }
    if let Ok(filter) = rvf_format::membership::Membership::parse(data) {
        filter.shows(u64::MAX);
        filter.encode().expect("what was parsed fits");
    }
    let _ = rvf_format::refcount::Refcount::parse(data);
    let _ = rvf_format::refcount::DeltaHeader::parse(data);
});
