//! JSON text, written by hand where it is written often: one object a line, numbers that read back to the same value.

use std::fmt::Write as _;

use rvf_cow::{Fields, Value};

/// Appends a quoted, escaped string.
pub fn string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape: &str = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0x00..=0x1F | 0x7F => "",
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        if escape.is_empty() {
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.push_str(escape);
        }
        plain = at + 1;
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

/// Appends a float: shortest form that reads back, always recognisable as a float, `null` where it is not finite.
pub fn float(out: &mut String, value: f64) {
    if value.is_finite() {
        let _ = write!(out, "{value:?}");
    } else {
        out.push_str("null");
    }
}

/// Appends an f32 in its own shortest form.
pub fn float32(out: &mut String, value: f32) {
    if value.is_finite() {
        let _ = write!(out, "{value:?}");
    } else {
        out.push_str("null");
    }
}

/// Appends a metadata value. Bytes, which JSON does not have, become `{"$bytes": "hex"}`.
pub fn value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::String(text) => string(out, text),
        Value::Bytes(bytes) => {
            out.push_str("{\"$bytes\": \"");
            hex(out, bytes);
            out.push_str("\"}");
        }
        Value::I64(number) => {
            let _ = write!(out, "{number}");
        }
        Value::U64(number) => {
            let _ = write!(out, "{number}");
        }
        Value::F64(number) => float(out, *number),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
    }
}

/// Appends a metadata record as one object, with `"id"` first when given.
pub fn record(out: &mut String, id: Option<u64>, fields: &Fields) {
    out.push('{');
    let mut first = true;
    if let Some(id) = id {
        let _ = write!(out, "\"id\": {id}");
        first = false;
    }
    for (name, field) in fields {
        if !first {
            out.push_str(", ");
        }
        first = false;
        string(out, name);
        out.push_str(": ");
        value(out, field);
    }
    out.push('}');
}

/// Appends lower-case hexadecimal.
pub fn hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
}

/// Whether the text is a plain JSON number and nothing else.
#[must_use]
pub fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    all_digits(whole) && all_digits(fraction) && (whole == "0" || !whole.starts_with('0')) && text.len() < 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_survive() {
        for text in ["", "plain", "a\"b\\c\n\r\t\u{1}\u{7f}", "\u{e9}\u{1f600}", "{}"] {
            let mut out = String::new();
            string(&mut out, text);
            assert_eq!(serde_json::from_str::<String>(&out).expect("a JSON string"), text);
        }
    }

    #[test]
    fn values_keep_their_kind_and_every_digit() {
        let fields: Fields = vec![
            ("u".into(), Value::U64(u64::MAX)),
            ("i".into(), Value::I64(-5)),
            ("f".into(), Value::F64(1.0)),
            ("g".into(), Value::F64(0.1)),
            ("b".into(), Value::Bool(true)),
            ("n".into(), Value::Null),
            ("x".into(), Value::Bytes(vec![0, 255])),
            ("s".into(), Value::String("t".into())),
        ];
        let mut out = String::new();
        record(&mut out, Some(7), &fields);
        assert_eq!(
            out,
            "{\"id\": 7, \"u\": 18446744073709551615, \"i\": -5, \"f\": 1.0, \"g\": 0.1, \"b\": true, \"n\": null, \
             \"x\": {\"$bytes\": \"00ff\"}, \"s\": \"t\"}"
        );
    }

    #[test]
    fn numbers_are_told_from_words() {
        for text in ["0", "12", "-3", "0.5", "10.25"] {
            assert!(is_number(text), "{text}");
        }
        for text in ["", "-", "01", "1.", ".5", "1e5", "NaN", "1 ", "0x1"] {
            assert!(!is_number(text), "{text}");
        }
    }
}
