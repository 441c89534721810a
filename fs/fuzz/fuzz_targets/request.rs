//! What is written to `query/in`, in every form, and whether it is complete.
#![no_main]

use rvf_fs::data::request::{Completeness, completeness, form, parse};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((first, bytes)) = data.split_first() else { return };
    let dim = usize::from(first % 8) + 1;
    let complete = completeness(bytes, dim);
    let parsed = parse(bytes, dim);
    if let Ok(request) = &parsed {
        assert!(!matches!(complete, Completeness::Wrong(_)), "a good request was called hopeless");
        assert!(request.queries > 0);
        assert!(request.vectors.len() <= bytes.len());
        assert!(request.vectors.iter().all(|number| number.is_finite()));
        if request.by_id.is_empty() {
            assert_eq!(request.vectors.len(), request.queries * dim);
        } else {
            assert!(request.vectors.is_empty());
            assert_eq!(request.by_id.len(), request.queries);
        }
        // Written in two parts, it must not be refused at the first, unless that looks like another form: raw numbers
        // may begin with bytes that are text.
        let (head, _) = bytes.split_at(bytes.len() / 2);
        if form(head) == form(bytes)
            && let Completeness::Wrong(error) = completeness(head, dim)
        {
            panic!("the first half was refused: {error}");
        }
    }
    if let Err(error) = parsed {
        assert!(error.to_string().len() < 2000, "an error of {} bytes", error.to_string().len());
    }
});
