//! Numbers to text and back, exactly and fast.
//!
//! Reading takes a short way for the numbers that people and programs write (at most 19 significant digits, a
//! small exponent) and leaves the rest to the standard library, so every result is the nearest float32.
//! Writing has two forms: the shortest text that reads back to the same value, and a fixed width of
//! [`FIXED_WIDTH`] characters for files whose size must be known without rendering them.

/// Characters of a fixed-width number: sign, digit, point, eight digits, `e`, sign, two digits.
pub const FIXED_WIDTH: usize = 15;

/// Powers of ten that a float64 holds exactly.
const EXACT_POW10: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// The eight bytes are all ASCII digits (SWAR; little-endian load).
#[inline]
fn eight_digits(block: u64) -> bool {
    let high = block & 0xf0f0_f0f0_f0f0_f0f0;
    let above = block.wrapping_add(0x0606_0606_0606_0606) & 0xf0f0_f0f0_f0f0_f0f0;
    high == 0x3030_3030_3030_3030 && above == 0x3030_3030_3030_3030
}

/// The value of eight ASCII digits, first digit in the lowest byte.
#[inline]
fn eight_digits_value(block: u64) -> u64 {
    let pairs = (block & 0x0f0f_0f0f_0f0f_0f0f).wrapping_mul(2561) >> 8;
    let quads = (pairs & 0x00ff_00ff_00ff_00ff).wrapping_mul(6_553_601) >> 16;
    (quads & 0x0000_ffff_0000_ffff).wrapping_mul(42_949_672_960_001) >> 32
}

/// Reads digits from `at` on into `mantissa`; returns where they end and how many there were. The mantissa
/// saturates: callers look at the number of digits before they trust it.
#[inline]
fn digits(b: &[u8], mut at: usize, mantissa: &mut u64) -> (usize, usize) {
    let start = at;
    while let Some(block) = b.get(at..at + 8) {
        let mut word = [0u8; 8];
        word.copy_from_slice(block);
        let word = u64::from_le_bytes(word);
        if !eight_digits(word) {
            break;
        }
        *mantissa = mantissa.wrapping_mul(100_000_000).wrapping_add(eight_digits_value(word));
        at += 8;
    }
    while let Some(d) = b.get(at).map(|c| c.wrapping_sub(b'0')).filter(|d| *d < 10) {
        *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(d));
        at += 1;
    }
    (at, at - start)
}

/// Reads the number at the start of `b` as the nearest float32: decimal with an optional sign, point and
/// exponent, or `nan`, `inf`, `infinity` in any case. Returns the value and the bytes it took; `None` when no
/// number starts here. The caller checks what follows. Too large gives an infinity. O(length of the number).
#[inline]
#[must_use]
pub fn parse_f32(b: &[u8]) -> Option<(f32, usize)> {
    let (negative, start) = match b.first()? {
        b'-' => (true, 1),
        b'+' => (false, 1),
        _ => (false, 0),
    };
    let mut mantissa = 0u64;
    let (mut at, whole) = digits(b, start, &mut mantissa);
    let mut count = whole;
    let mut scale = 0i64;
    if b.get(at) == Some(&b'.') {
        let (end, fraction) = digits(b, at + 1, &mut mantissa);
        if whole + fraction == 0 {
            return None;
        }
        at = end;
        count += fraction;
        scale = -(fraction as i64);
    } else if whole == 0 {
        return word(b, start, negative);
    }
    if matches!(b.get(at), Some(b'e' | b'E')) {
        let (down, first) = match b.get(at + 1) {
            Some(b'-') => (true, at + 2),
            Some(b'+') => (false, at + 2),
            _ => (false, at + 1),
        };
        let mut exponent = 0u64;
        let (end, n) = digits(b, first, &mut exponent);
        if n > 0 {
            at = end;
            // Nine digits of exponent are beyond any float; more would wrap.
            let exponent = if n > 9 { 999_999_999 } else { exponent as i64 };
            scale += if down { -exponent } else { exponent };
        }
    }
    if count <= 19 && mantissa <= 1 << 53 && scale.unsigned_abs() <= 22 {
        let power = EXACT_POW10.get(scale.unsigned_abs() as usize).copied().unwrap_or(1.0);
        // Both operands are exact, so this is the float64 nearest to the decimal value.
        let wide = if scale < 0 { mantissa as f64 / power } else { mantissa as f64 * power };
        // Rounding twice errs only when the float64 lies exactly between two float32s, or below their normal range.
        let halfway = wide.to_bits() & 0x1fff_ffff == 0x1000_0000;
        if !halfway && (wide >= f64::from(f32::MIN_POSITIVE) || mantissa == 0) {
            let value = wide as f32;
            return Some((if negative { -value } else { value }, at));
        }
    }
    let text = std::str::from_utf8(b.get(..at)?).ok()?;
    Some((text.parse().ok()?, at))
}

#[cold]
fn word(b: &[u8], start: usize, negative: bool) -> Option<(f32, usize)> {
    let rest = b.get(start..)?;
    for (name, value) in [("infinity", f32::INFINITY), ("inf", f32::INFINITY), ("nan", f32::NAN)] {
        if rest.get(..name.len()).is_some_and(|w| w.eq_ignore_ascii_case(name.as_bytes())) {
            return Some((if negative { -value } else { value }, start + name.len()));
        }
    }
    None
}

/// Whether every number is finite. In blocks without an early end inside, so that it is vectorised. O(n).
#[must_use]
pub fn all_finite(values: &[f32]) -> bool {
    values.chunks(1024).all(|block| block.iter().fold(true, |good, v| good & v.is_finite()))
}

/// Reads an unsigned integer that is all of `b`: digits only, no sign, within 64 bits.
#[must_use]
pub fn parse_u64(b: &[u8]) -> Option<u64> {
    if b.is_empty() || b.len() > 20 {
        return None;
    }
    b.iter().try_fold(0u64, |n, c| {
        let d = c.wrapping_sub(b'0');
        if d > 9 { None } else { n.checked_mul(10)?.checked_add(u64::from(d)) }
    })
}

/// 10^p for p in -40..=53 at index p + 40, each the nearest float64.
const POW10: [f64; 94] = [
    1e-40, 1e-39, 1e-38, 1e-37, 1e-36, 1e-35, 1e-34, 1e-33, 1e-32, 1e-31, 1e-30, 1e-29, 1e-28, 1e-27, 1e-26,
    1e-25, 1e-24, 1e-23, 1e-22, 1e-21, 1e-20, 1e-19, 1e-18, 1e-17, 1e-16, 1e-15, 1e-14, 1e-13, 1e-12, 1e-11,
    1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8,
    1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22, 1e23, 1e24, 1e25,
    1e26, 1e27, 1e28, 1e29, 1e30, 1e31, 1e32, 1e33, 1e34, 1e35, 1e36, 1e37, 1e38, 1e39, 1e40, 1e41, 1e42,
    1e43, 1e44, 1e45, 1e46, 1e47, 1e48, 1e49, 1e50, 1e51, 1e52, 1e53,
];

#[inline]
fn pow10(p: i32) -> f64 {
    POW10.get((p + 40) as usize).copied().unwrap_or(f64::NAN)
}

/// Writes a float32 in exactly [`FIXED_WIDTH`] characters, as `format!("{:+.8e}")` with a two-digit signed
/// exponent: nine significant digits, so it reads back to the same value. A value that is not finite (only a
/// foreign file can hold one) is right-aligned `nan`, `+inf` or `-inf`.
#[inline]
pub fn write_fixed(value: f32, out: &mut [u8; FIXED_WIDTH]) {
    out[0] = if value.is_sign_negative() { b'-' } else { b'+' };
    let wide = f64::from(value.abs());
    if !value.is_finite() {
        *out = *match (value.is_nan(), value > 0.0) {
            (true, _) => b"            nan",
            (false, true) => b"           +inf",
            (false, false) => b"           -inf",
        };
        return;
    }
    if wide == 0.0 {
        out[1..].copy_from_slice(b"0.00000000e+00");
        return;
    }
    // log10(x) = log2(x) * 0.30103, from the exponent bits: at most one too small.
    let binary = ((wide.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    let mut exponent = (binary * 78_913) >> 18;
    let mut scaled = wide * pow10(8 - exponent);
    if scaled >= 999_999_999.5 {
        exponent += 1;
        scaled = wide * pow10(8 - exponent);
    }
    let floor = scaled as u64;
    let fraction = scaled - floor as f64;
    // The product is off by at most two units in the last place (2.5e-7 here): near a tie only exact arithmetic decides.
    if (fraction - 0.5).abs() < 1e-6 || !(99_999_999.6..999_999_999.4).contains(&scaled) {
        fixed_exact(value, out);
        return;
    }
    let mantissa = floor + u64::from(fraction > 0.5);
    if mantissa >= 1_000_000_000 {
        fixed_exact(value, out);
        return;
    }
    put_digits(mantissa as u32, exponent, out);
}

#[inline]
fn put_digits(mantissa: u32, exponent: i32, out: &mut [u8; FIXED_WIDTH]) {
    let (first, rest) = (mantissa / 100_000_000, mantissa % 100_000_000);
    let (high, low) = (rest / 10_000, rest % 10_000);
    out[1] = b'0' + first as u8;
    out[2] = b'.';
    for (pair, at) in [(high / 100, 3), (high % 100, 5), (low / 100, 7), (low % 100, 9)] {
        out[at] = b'0' + (pair / 10) as u8;
        out[at + 1] = b'0' + (pair % 10) as u8;
    }
    out[11] = b'e';
    out[12] = if exponent < 0 { b'-' } else { b'+' };
    let e = exponent.unsigned_abs();
    out[13] = b'0' + (e / 10 % 10) as u8;
    out[14] = b'0' + (e % 10) as u8;
}

#[cold]
fn fixed_exact(value: f32, out: &mut [u8; FIXED_WIDTH]) {
    let text = format!("{:.8e}", value.abs());
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let mantissa = digits.bytes().filter(u8::is_ascii_digit).fold(0u32, |n, d| n * 10 + u32::from(d - b'0'));
    put_digits(mantissa, exponent.parse().unwrap_or(0), out);
}

/// Appends the shortest text that reads back to the same float32. Not finite: `nan`, `inf`, `-inf`.
#[inline]
pub fn write_shortest(value: f32, out: &mut Vec<u8>) {
    if value.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else if value.is_nan() {
        out.extend_from_slice(b"nan");
    } else {
        out.extend_from_slice(if value > 0.0 { b"inf" } else { b"-inf" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn std_fixed(value: f32) -> String {
        let text = format!("{value:+.8e}");
        let (digits, exponent) = text.split_once('e').unwrap();
        let exponent: i32 = exponent.parse().unwrap();
        format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
    }

    fn fixed(value: f32) -> String {
        let mut out = [0; FIXED_WIDTH];
        write_fixed(value, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn fixed_is_std_and_reads_back() {
        for value in [
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.1,
            f32::from_bits(0x411f_ffff),
            99_999_999.0,
            999_999_940.0,
            f32::MAX,
            f32::MIN,
            f32::MIN_POSITIVE,
            f32::from_bits(1),
            f32::EPSILON,
            1e10,
            9.999_999e-5,
        ] {
            assert_eq!(fixed(value), std_fixed(value));
            assert_eq!(fixed(value).parse::<f32>().unwrap().to_bits(), value.to_bits());
        }
        for (value, want) in [(f32::NAN, "nan"), (f32::INFINITY, "+inf"), (f32::NEG_INFINITY, "-inf")] {
            assert_eq!(fixed(value).trim(), want);
        }
    }

    #[test]
    fn parses_what_is_a_number() {
        let cases: &[(&str, Option<(f32, usize)>)] = &[
            ("1", Some((1.0, 1))),
            ("-1.5,", Some((-1.5, 4))),
            ("+.5 ", Some((0.5, 3))),
            ("5.", Some((5.0, 2))),
            ("1e3x", Some((1000.0, 3))),
            ("1e", Some((1.0, 1))),
            ("1e+", Some((1.0, 1))),
            ("1E-2", Some((0.01, 4))),
            ("3.4028235e38", Some((f32::MAX, 12))),
            ("1e39", Some((f32::INFINITY, 4))),
            ("1e99999999999999999999", Some((f32::INFINITY, 22))),
            ("1e-99999999999999999999", Some((0.0, 23))),
            (
                "0.00000000000000000000000000000000000000000000140129846432481707",
                Some((f32::from_bits(1), 64)),
            ),
            ("16777217", Some((16_777_216.0, 8))),
            ("16777217.0000000000000000001", Some((16_777_218.0, 28))),
            ("-inf", Some((f32::NEG_INFINITY, 4))),
            ("Infinity", Some((f32::INFINITY, 8))),
            ("", None),
            ("-", None),
            (".", None),
            ("e5", None),
            ("x", None),
            ("+-1", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse_f32(text.as_bytes()), *want, "{text:?}");
        }
        assert!(parse_f32(b"NaN").unwrap().0.is_nan());
        assert_eq!(parse_f32(b"-0").unwrap().0.to_bits(), (-0.0f32).to_bits());
    }

    #[test]
    fn parses_u64_exactly() {
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"9007199254740993"), Some(9_007_199_254_740_993));
        for bad in ["", "18446744073709551616", "-1", "+1", "1.0", "1e3", " 1", "000000000000000000001"] {
            assert_eq!(parse_u64(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn any_float_survives_both_forms(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            prop_assume!(value.is_finite());
            prop_assert_eq!(fixed(value), std_fixed(value));
            let fixed = fixed(value);
            prop_assert_eq!(parse_f32(fixed.as_bytes()).map(|(v, n)| (v.to_bits(), n)), Some((bits, FIXED_WIDTH)));
            let mut short = Vec::new();
            write_shortest(value, &mut short);
            prop_assert_eq!(parse_f32(&short).map(|(v, n)| (v.to_bits(), n)), Some((bits, short.len())));
        }

        #[test]
        fn any_decimal_reads_as_std_reads_it(text in "[+-]?[0-9]{0,24}(\\.[0-9]{0,24})?([eE][+-]?[0-9]{1,3})?") {
            let ours = parse_f32(text.as_bytes());
            match text.parse::<f32>() {
                Ok(v) => prop_assert_eq!(ours.map(|(v, n)| (v.to_bits(), n)), Some((v.to_bits(), text.len()))),
                Err(_) => prop_assert!(ours.is_none_or(|(_, n)| n < text.len())),
            }
        }
    }
}
