//! Metadata values, and their JSON form.

use rvf_format::meta::Value;

/// One metadata value. The types are those the file can keep (spec, section 5.4).
#[derive(Debug, Clone, PartialEq)]
pub enum FieldValue {
    /// Present, without a value.
    Null,
    /// Text.
    Text(String),
    /// Bytes; in JSON `{"$bytes": "hex"}`.
    Bytes(Vec<u8>),
    /// A signed integer; in JSON an integer.
    I64(i64),
    /// An unsigned integer; in JSON an integer.
    U64(u64),
    /// A finite float; in JSON a number with a point or an exponent.
    F64(f64),
    /// True or false.
    Bool(bool),
}

/// A metadata record: field names and values, in the order given.
pub type Fields = Vec<(String, FieldValue)>;

impl FieldValue {
    /// The type's name in messages.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::I64(_) | Self::U64(_) => "an integer",
            Self::F64(_) => "a float",
            Self::Bool(_) => "a boolean",
        }
    }

    /// Appends the value as JSON. Floats print shortest and always with a point or exponent, so that they read
    /// back as floats; a float that is not finite (never written by us) prints as null.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Text(s) => write_json_string(s, out),
            Self::Bytes(b) => {
                out.extend_from_slice(b"{\"$bytes\":\"");
                for byte in b {
                    out.extend_from_slice(&hex_pair(*byte));
                }
                out.extend_from_slice(b"\"}");
            }
            Self::I64(n) => out.extend_from_slice(itoa::Buffer::new().format(*n).as_bytes()),
            Self::U64(n) => out.extend_from_slice(itoa::Buffer::new().format(*n).as_bytes()),
            Self::F64(n) if n.is_finite() => {
                out.extend_from_slice(zmij::Buffer::new().format_finite(*n).as_bytes());
            }
            Self::F64(_) => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
        }
    }
}

/// A stored value as it is shown.
impl From<Value> for FieldValue {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::String(text) => Self::Text(text),
            Value::Bytes(bytes) => Self::Bytes(bytes),
            Value::I64(number) => Self::I64(number),
            Value::U64(number) => Self::U64(number),
            Value::F64(number) => Self::F64(number),
            Value::Bool(flag) => Self::Bool(flag),
        }
    }
}

fn hex_pair(byte: u8) -> [u8; 2] {
    let digit = |n: u8| if n < 10 { b'0' + n } else { b'a' + n - 10 };
    [digit(byte >> 4), digit(byte & 15)]
}

/// Appends a JSON string: quotes, backslashes and control characters escaped, everything else as UTF-8.
pub fn write_json_string(s: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = s.as_bytes();
    let mut start = 0;
    for (i, b) in bytes.iter().enumerate() {
        let short: &[u8] = match b {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..=0x1f | 0x7f => b"",
            _ => continue,
        };
        out.extend_from_slice(bytes.get(start..i).unwrap_or_default());
        start = i + 1;
        if short.is_empty() {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&hex_pair(*b));
        } else {
            out.extend_from_slice(short);
        }
    }
    out.extend_from_slice(bytes.get(start..).unwrap_or_default());
    out.push(b'"');
}

/// Appends `{"name": value, ...}` on one line; with an id, it comes first.
pub fn write_json_record<'a>(
    id: Option<u64>,
    fields: impl IntoIterator<Item = (&'a str, &'a FieldValue)>,
    out: &mut Vec<u8>,
) {
    out.push(b'{');
    let mut first = true;
    if let Some(id) = id {
        out.extend_from_slice(b"\"id\": ");
        out.extend_from_slice(itoa::Buffer::new().format(id).as_bytes());
        first = false;
    }
    for (name, value) in fields {
        if !first {
            out.extend_from_slice(b", ");
        }
        first = false;
        write_json_string(name, out);
        out.extend_from_slice(b": ");
        value.write_json(out);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_of_every_type() {
        let fields = [
            ("t", FieldValue::Text("a\"b\\c\n\u{1}\u{e9}".into())),
            ("n", FieldValue::Null),
            ("b", FieldValue::Bytes(vec![0, 0xab])),
            ("i", FieldValue::I64(-5)),
            ("u", FieldValue::U64(u64::MAX)),
            ("f", FieldValue::F64(3.0)),
            ("g", FieldValue::F64(1e-300)),
            ("y", FieldValue::Bool(true)),
        ];
        let mut out = Vec::new();
        write_json_record(Some(7), fields.iter().map(|(n, v)| (*n, v)), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"id\": 7, \"t\": \"a\\\"b\\\\c\\n\\u0001\u{e9}\", \"n\": null, \"b\": {\"$bytes\":\"00ab\"}, \"i\": -5, \
             \"u\": 18446744073709551615, \"f\": 3.0, \"g\": 1e-300, \"y\": true}"
        );
    }
}
