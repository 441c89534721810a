//! JOURNAL, QUANT, SKETCH, HOT, Level-0 and root pages, lock files.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(journal) = rvf_format::journal::Journal::parse(data) {
        journal.encode().expect("what was parsed fits");
    }
    let _ = rvf_format::quant::Quant::parse(data);
    let _ = rvf_format::sketch::Sketch::parse(data).map(|sketch| sketch.estimate(1));
    let _ = rvf_format::hot::Hot::parse(data);
    let _ = rvf_format::level0::decode(data);
    let _ = rvf_format::root_page::RootPage::parse(data);
    let _ = rvf_format::lock::LockFile::parse(data);
});
