//! Lines written to `ctl`, and the settings of a query session.
#![no_main]

use rvf_fs::node::Setting;
use rvf_fs::session::Defaults;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        for line in text.lines() {
            if let Err(error) = rvf_fs::ctl::parse(line) {
                let sentence = error.to_string();
                assert!(sentence.len() < 1000 && !sentence.contains('\n'), "{sentence:?}");
            }
        }
    }
    for setting in [Setting::K, Setting::Ef, Setting::Filter, Setting::Exact, Setting::TimeoutMs] {
        let mut defaults = Defaults::default();
        if defaults.set(setting, data).is_ok() {
            // What a file shows can be written back to it.
            let shown = defaults.show(setting);
            let mut again = Defaults::default();
            again.set(setting, shown.as_bytes()).expect("what is shown is taken");
            assert_eq!(again.show(setting), shown);
        } else {
            assert_eq!(defaults, Defaults::default());
        }
    }
});
