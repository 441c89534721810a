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
    let _ = rvf_format::delta::DeltaHeader::parse(data);
    if let Ok(delta) = rvf_format::delta::Delta::parse(data) {
        let base = vec![0; 4 * usize::from(delta.dim)];
        let mut row = Vec::new();
        delta.apply(delta.ids.len() - 1, &base, &mut row);
        assert_eq!(row.len(), base.len());
        assert_eq!(
            rvf_format::delta::Delta::parse(&delta.encode().expect("what was read can be written"))
                .expect("and read again")
                .ids,
            delta.ids
        );
    }
});
