//! Vectors as text: `vectors/ID`, and numbers as they are written and read back.
#![no_main]

use rvf_fs::data::{number, text};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((first, bytes)) = data.split_first() else { return };
    let dim = usize::from(first % 8) + 1;
    let mut out = Vec::new();
    if let Ok(rows) = text::parse_vectors(bytes, dim, &mut out) {
        assert_eq!(out.len(), rows * dim);
        assert!(out.len() <= bytes.len());
    }
    if let Ok(vector) = text::parse_one(bytes, dim) {
        let raw: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
        let mut again = Vec::new();
        text::write_vector_text(&raw, &mut again);
        assert_eq!(again.len() as u64, text::vector_text_len(dim));
        let back = text::parse_one(&again, dim).expect("what was written is read");
        assert!(vector.iter().zip(&back).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
    // A number reads as the standard library reads it.
    if let Some((value, used)) = number::parse_f32(bytes) {
        let word = std::str::from_utf8(bytes.get(..used).expect("used bytes")).expect("a number is ASCII");
        let want: f32 = word.parse().unwrap_or_else(|error| panic!("{word:?} is no number: {error}"));
        assert!(
            value.to_bits() == want.to_bits() || (value.is_nan() && want.is_nan()),
            "{word}: {value} {want}"
        );
    }
    for chunk in bytes.as_chunks::<4>().0 {
        let value = f32::from_le_bytes(*chunk);
        if value.is_finite() {
            let mut shortest = Vec::new();
            number::write_shortest(value, &mut shortest);
            let (back, used) = number::parse_f32(&shortest).expect("a number");
            assert_eq!((back.to_bits(), used), (value.to_bits(), shortest.len()));
        }
    }
    let _ = number::parse_u64(bytes);
});
