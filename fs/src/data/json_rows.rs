//! Rows and metadata records in JSON.
//!
//! A row is `{"id": 7, "vector": [0.1, ...], "metadata": {"field": value}}`; id and metadata may be absent.
//! Metadata is flat: text, numbers, true, false, null, and `{"$bytes": "hex"}`. Integers keep all their digits.

use super::columns;
use super::error::{DataError, Kind, Place, printable};
use super::json::Scanner;
use super::rows::{Records, Sink};
use super::value::{FieldValue, Fields};
use std::collections::HashSet;

/// Longest field name the file can keep, in bytes.
const MAX_FIELD_NAME: usize = 4096;

/// Keeps the line of the scanner's position without counting from the start each time.
struct Lines {
    line: u64,
    from: usize,
}

impl Lines {
    fn here(&mut self, s: &Scanner<'_>) -> u64 {
        self.line = s.line_from(self.from, self.line);
        self.from = s.offset();
        self.line
    }
}

/// Reads one array of rows, or one row. Unknown keys are ignored and noted.
///
/// # Errors
/// The first thing wrong, with line and column or row.
pub(super) fn read_array(bytes: &[u8], sink: &mut Sink<'_>) -> Result<(), DataError> {
    let mut s = Scanner::new(bytes);
    let mut lines = Lines { line: 1, from: 0 };
    match s.peek() {
        Some(b'{') => row(&mut s, sink, &mut lines, false)?,
        Some(b'[') => {
            s.expect(b'[', "`[`")?;
            if !s.take(b']') {
                loop {
                    row(&mut s, sink, &mut lines, false)?;
                    if !s.more(b']')? {
                        break;
                    }
                }
            }
        }
        _ => {
            let found = s.found();
            return Err(s.error(
                format!("expected an array of rows, found {found}"),
                "a row is {\"id\": 1, \"vector\": [...]}",
            ));
        }
    }
    s.end()
}

/// Reads rows one after another, as lines of JSON. Unknown keys are refused.
///
/// # Errors
/// The first thing wrong, with line and column or row.
pub(super) fn read_lines(bytes: &[u8], sink: &mut Sink<'_>) -> Result<(), DataError> {
    let mut s = Scanner::new(bytes);
    let mut lines = Lines { line: 1, from: 0 };
    while s.peek().is_some() {
        row(&mut s, sink, &mut lines, true)?;
    }
    Ok(())
}

fn once<T>(slot: Option<&T>, key: &str, s: &Scanner<'_>) -> Result<(), DataError> {
    match slot {
        None => Ok(()),
        Some(_) => Err(s.error(format!("the key `{key}` a second time in one object"), "")),
    }
}

fn row(s: &mut Scanner<'_>, sink: &mut Sink<'_>, lines: &mut Lines, strict: bool) -> Result<(), DataError> {
    s.expect(b'{', "a row object")?;
    let line = lines.here(s);
    let (mut id, mut count, mut metadata) = (None, None, None);
    if !s.take(b'}') {
        loop {
            let at = s.clone();
            let key = s.key()?;
            match key.as_ref() {
                "id" => {
                    once(id.as_ref(), "id", &at)?;
                    id = Some(s.u64("`id`")?);
                }
                "vector" => {
                    once(count.as_ref(), "vector", &at)?;
                    count = Some(s.floats(sink.vector())?);
                }
                "metadata" => {
                    once(metadata.as_ref(), "metadata", &at)?;
                    if s.null() {
                        metadata = Some(Fields::new());
                    } else {
                        metadata = Some(fields(s)?);
                    }
                }
                other if strict => {
                    return Err(at.error(
                        format!("unknown key `{}`", printable(other, 64)),
                        "a row has id, vector and metadata: put other values inside \"metadata\"",
                    ));
                }
                other => {
                    sink.ignore(other);
                    s.skip()?;
                }
            }
            if !s.more(b'}')? {
                break;
            }
        }
    }
    if count.is_none() {
        return Err(s.error("the row has no `vector`", "a row is {\"id\": 1, \"vector\": [...]}"));
    }
    sink.row(id, metadata, Some(line))
}

/// Takes an object of fields.
fn fields(s: &mut Scanner<'_>) -> Result<Fields, DataError> {
    s.expect(b'{', "an object of fields")?;
    let mut out = Fields::new();
    if s.take(b'}') {
        return Ok(out);
    }
    let mut many: HashSet<String> = HashSet::new();
    loop {
        let at = s.clone();
        let name = s.key()?.into_owned();
        if name.is_empty() || name.len() > MAX_FIELD_NAME {
            return Err(at.error(format!("a field name has 1 to {MAX_FIELD_NAME} bytes"), ""));
        }
        // Few fields are compared one by one; a hostile object of many must not cost the square.
        let twice = if out.len() < 16 {
            out.iter().any(|(n, _)| *n == name)
        } else {
            if many.is_empty() {
                many.extend(out.iter().map(|(n, _)| n.clone()));
            }
            !many.insert(name.clone())
        };
        if twice {
            return Err(
                at.error(format!("the field `{}` a second time in one record", printable(&name, 64)), "")
            );
        }
        let value = value(s, &name)?;
        out.push((name, value));
        if !s.more(b'}')? {
            return Ok(out);
        }
    }
}

fn value(s: &mut Scanner<'_>, name: &str) -> Result<FieldValue, DataError> {
    let name = || printable(name, 64);
    match s.peek() {
        Some(b'"') => Ok(FieldValue::Text(s.string()?.into_owned())),
        Some(b't' | b'f') => Ok(FieldValue::Bool(s.bool(&format!("field `{}`", name()))?)),
        Some(b'n') if s.null() => Ok(FieldValue::Null),
        Some(b'-' | b'0'..=b'9') => {
            let at = s.clone();
            let n = s.number()?;
            number_value(n.text, n.float).ok_or_else(|| {
                at.error(
                    format!("field `{}`: {} is beyond what can be kept", name(), printable(n.text, 40)),
                    "integers have 64 bits, floats at most 1.7e308: write it as text",
                )
            })
        }
        Some(b'{') => {
            let at = s.clone();
            bytes_value(s).map_or_else(|| Err(nested(&at, &name())), Ok)
        }
        Some(b'[') => Err(nested(s, &name())),
        _ => {
            let found = s.found();
            Err(s.error(format!("field `{}`: expected a value, found {found}", name()), ""))
        }
    }
}

fn nested(s: &Scanner<'_>, name: &str) -> DataError {
    let mut e = s.error(
        format!("field `{name}` holds a nested value"),
        "metadata is flat: give each part a field of its own, or write it as text",
    );
    e.kind = Kind::Unsupported;
    e
}

/// A JSON number as the narrowest value: unsigned when not negative, signed, or a finite float.
fn number_value(text: &str, float: bool) -> Option<FieldValue> {
    if float {
        text.parse().ok().filter(|v: &f64| v.is_finite()).map(FieldValue::F64)
    } else if let Ok(n) = text.parse::<u64>() {
        Some(FieldValue::U64(n))
    } else {
        match text.parse::<i64>() {
            Ok(0) => Some(FieldValue::U64(0)),
            Ok(n) => Some(FieldValue::I64(n)),
            Err(_) => None,
        }
    }
}

/// `{"$bytes": "00ff"}`; `None` for any other object.
fn bytes_value(s: &mut Scanner<'_>) -> Option<FieldValue> {
    s.expect(b'{', "`{`").ok()?;
    if s.key().ok()? != "$bytes" {
        return None;
    }
    let text = s.string().ok()?;
    s.expect(b'}', "`}`").ok()?;
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let nibble = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    let pairs = digits.as_chunks::<2>().0.iter();
    pairs
        .map(|[a, b]| Some(nibble(*a)? << 4 | nibble(*b)?))
        .collect::<Option<Vec<u8>>>()
        .map(FieldValue::Bytes)
}

/// Reads one record: an object of fields, nothing after it. With an id, a key `id` that names the same id is
/// passed over, so a line of `metadata.jsonl` is accepted as it is.
///
/// # Errors
/// The first thing wrong, with line and column; another id than `id`.
pub fn parse_record(bytes: &[u8], id: Option<u64>) -> Result<Fields, DataError> {
    let mut s = Scanner::new(bytes);
    let mut record = fields(&mut s)?;
    s.end()?;
    if let Some(id) = id
        && let Some(at) = record.iter().position(|(name, _)| name == "id")
    {
        match record.get(at).map(|(_, v)| v.clone()) {
            Some(FieldValue::U64(n)) if n == id => {
                record.remove(at);
            }
            _ => {
                return Err(DataError::new(
                    Kind::Shape,
                    Place::Key("id".into()),
                    format!("the record is for another id than {id}"),
                    format!("write {id}, or leave the key out"),
                ));
            }
        }
    }
    Ok(record)
}

/// Reads records with ids, one after another or in one array: `{"id": 1, "name": "x"}`, or with the fields
/// inside `"metadata"`.
pub(super) fn read_records(bytes: &[u8]) -> Result<Records, DataError> {
    let mut s = Scanner::new(bytes);
    let array = s.take(b'[');
    let mut out = Records::default();
    let mut lines = Lines { line: 1, from: 0 };
    let mut at_lines = Vec::new();
    if array && s.take(b']') {
        s.end()?;
        return Ok(out);
    }
    while s.peek().is_some() {
        at_lines.push(lines.here(&s));
        let (id, record) = record_with_id(&mut s)?;
        out.ids.push(id);
        out.fields.push(record);
        if array && !s.more(b']')? {
            break;
        }
    }
    s.end()?;
    let place =
        |row: usize| Place::Row { row: row as u64, component: None, line: at_lines.get(row).copied() };
    columns::unify(&mut out.fields, place)?;
    Ok(out)
}

fn record_with_id(s: &mut Scanner<'_>) -> Result<(u64, Fields), DataError> {
    let start = s.clone();
    s.expect(b'{', "a record object")?;
    let (mut id, mut record, mut inside) = (None, Fields::new(), false);
    let mut names: HashSet<String> = HashSet::new();
    if !s.take(b'}') {
        loop {
            let at = s.clone();
            let name = s.key()?.into_owned();
            if !names.insert(name.clone()) {
                return Err(
                    at.error(format!("the field `{}` a second time in one record", printable(&name, 64)), "")
                );
            }
            match name.as_str() {
                "id" => id = Some(s.u64("`id`")?),
                "metadata" if s.peek() == Some(b'{') => {
                    record.extend(fields(s)?);
                    inside = true;
                }
                // Rows with vectors serve as records too.
                "vector" if s.peek() == Some(b'[') => {
                    s.skip()?;
                }
                _ => {
                    if name.is_empty() || name.len() > MAX_FIELD_NAME {
                        return Err(at.error(format!("a field name has 1 to {MAX_FIELD_NAME} bytes"), ""));
                    }
                    let value = value(s, &name)?;
                    record.push((name, value));
                }
            }
            if !s.more(b'}')? {
                break;
            }
        }
    }
    if inside {
        let mut seen = HashSet::new();
        if let Some((twice, _)) = record.iter().find(|(name, _)| !seen.insert(name.as_str())) {
            let twice = printable(twice, 64);
            return Err(start.error(format!("the field `{twice}` both inside and beside \"metadata\""), ""));
        }
    }
    match id {
        Some(id) => Ok((id, record)),
        None => Err(start.error("the record has no `id`", "a record is {\"id\": 1, \"field\": value}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::{BadRow, Format, ReadOptions, Rows, read};
    use super::*;
    use FieldValue::{Bool, Bytes, F64, I64, Null, Text, U64};

    fn json(text: &str) -> Result<Rows, String> {
        read(Format::Json, text.as_bytes(), &ReadOptions::new(2)).map_err(|e| e.to_string())
    }

    fn jsonl(text: &str) -> Result<Rows, String> {
        read(Format::Jsonl, text.as_bytes(), &ReadOptions::new(2)).map_err(|e| e.to_string())
    }

    #[test]
    fn the_references_rows() {
        let rows = json(
            r#"[{"id":1,"vector":[0.5,-1],"tag":{"x":[1]}},{"vector":[2e0,3],"id":18446744073709551615}]"#,
        );
        let rows = rows.unwrap();
        assert_eq!(rows.ids, Some(vec![1, u64::MAX]));
        assert_eq!(rows.vectors, [0.5, -1.0, 2.0, 3.0]);
        assert_eq!((rows.metadata.len(), rows.ignored), (0, vec!["tag".to_owned()]));
        assert_eq!(json(r#" {"vector":[1,2]} "#).unwrap().ids, None);
    }

    #[test]
    fn metadata_keeps_types_and_digits() {
        let rows = jsonl(concat!(
            r#"{"id":1,"vector":[1,2],"metadata":{"s":"\u00e9","u":9007199254740993,"i":-1,"f":3.0,"b":true,"n":null}}"#,
            "\n\n",
            r#"{"id":2,"vector":[3,4]}"#,
            "\r\n",
            r#"{"id":3,"vector":[5,6],"metadata":{"i":5,"x":{"$bytes":"00fF"},"f":2}}"#,
        ))
        .unwrap();
        let f = |n: &str, v: FieldValue| (n.to_owned(), v);
        assert_eq!(
            rows.metadata,
            vec![
                vec![
                    f("s", Text("\u{e9}".into())),
                    f("u", U64(9_007_199_254_740_993)),
                    f("i", I64(-1)),
                    f("f", F64(3.0)),
                    f("b", Bool(true)),
                    f("n", Null)
                ],
                vec![],
                vec![f("i", I64(5)), f("x", Bytes(vec![0, 255])), f("f", F64(2.0))],
            ]
        );
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let cases = [
            ("[{\"id\":1,\"vector\":[1,2]},\n {\"id\":2}]", "line 2, column 10: the row has no `vector`"),
            (
                "[{\"id\":1,\"vector\":[1,2]},\n {\"id\":2,\"vector\":[1]}]",
                "line 2: row 1: 1 number where the store's",
            ),
            ("[{\"id\":1,\"vector\":[1,1e40]}]", "line 1: row 0, component 1: inf is not a finite"),
            ("[{\"id\":1,\"vector\":[NaN,1]}]", "line 1: row 0, component 0: NaN is not a finite"),
            ("[{\"id\":-1,\"vector\":[1,2]}]", "line 1, column 8: `id` must be an integer from 0 to"),
            ("[{\"id\":1.0,\"vector\":[1,2]}]", "line 1, column 8: `id` must be an integer from 0 to"),
            ("[{\"id\":\"1\",\"vector\":[1,2]}]", "line 1, column 8: `id` must be an integer from 0 to"),
            ("[{\"id\":18446744073709551616,\"vector\":[1,2]}]", "line 1, column 8: `id` must be an integer"),
            ("[{\"id\":1,\"id\":2,\"vector\":[1,2]}]", "line 1, column 10: the key `id` a second time"),
            (
                "[{\"vector\":[1,2]},{\"id\":2,\"vector\":[1,2]}]",
                "line 1: row 1: an id here and none at line 1: row 0;",
            ),
            (
                "[{\"vector\":[1,2],\"metadata\":{\"a\":[1]}}]",
                "line 1, column 34: field `a` holds a nested value; metadata is",
            ),
            (
                "[{\"vector\":[1,2],\"metadata\":{\"a\":{\"b\":1}}}]",
                "line 1, column 34: field `a` holds a nested value",
            ),
            (
                "[{\"vector\":[1,2],\"metadata\":{\"a\":1,\"a\":2}}]",
                "line 1, column 36: the field `a` a second time",
            ),
            (
                "[{\"vector\":[1,2],\"metadata\":{\"a\":1e999}}]",
                "line 1, column 34: field `a`: 1e999 is beyond",
            ),
            (
                "[{\"vector\":[1,2],\"metadata\":5}]",
                "line 1, column 29: expected an object of fields, found `5}]`",
            ),
            ("[{\"vector\":[1,2]}", "line 1, column 18: expected `,` or `]`, found the end"),
            ("[{\"vector\":[1,2]}] 5", "line 1, column 20: `5` after the end of the value"),
            ("[{\"vector\":[1,2],}]", "line 1, column 18: expected a string, found `}]`"),
            ("[{\"vector\":[1 2]}]", "line 1, column 15: expected `,` or `]`, found `2]}]`"),
            ("", "line 1, column 1: expected an array of rows, found the end"),
            ("5", "line 1, column 1: expected an array of rows, found `5`"),
            (
                "[{\"vector\":[1,2],\"metadata\":{\"a\":1}},\n{\"vector\":[1,2],\"metadata\":{\"a\":\"x\"}}]",
                "line 2: row 1: field `a` holds text here and a number at line 1: row 0; a field has one type",
            ),
        ];
        for (text, want) in cases {
            let e = json(text).unwrap_err();
            assert!(e.starts_with(want), "{text}\n got {e}\nwant {want}");
        }
        let e = jsonl("{\"id\":1,\"vector\":[1,2],\"title\":\"x\"}").unwrap_err();
        assert!(
            e.starts_with("line 1, column 24: unknown key `title`; a row has id, vector and metadata"),
            "{e}"
        );
    }

    #[test]
    fn the_references_way_with_bad_rows() {
        let options = ReadOptions { on_bad_row: BadRow::Skip, ..ReadOptions::new(2) };
        let text = br#"[{"id":1,"vector":[1]},{"id":2,"vector":[1,1e40]},{"id":3,"vector":[1,2]},{"id":4,"vector":[]}]"#;
        let rows = read(Format::Json, text, &options).unwrap();
        assert_eq!((rows.ids, rows.vectors, rows.rejected), (Some(vec![3]), vec![1.0, 2.0], 3));
    }

    #[test]
    fn records() {
        let f = |n: &str, v: FieldValue| vec![(n.to_owned(), v)];
        for text in [
            "{\"id\": 7, \"a\": 1}\n{\"id\": 8, \"metadata\": {\"a\": -1}}\n",
            "[{\"a\": 1, \"id\": 7}, {\"id\": 8, \"vector\": [1], \"a\": -1}]",
        ] {
            let records = read_records(text.as_bytes()).unwrap();
            assert_eq!(records.ids, [7, 8]);
            assert_eq!(records.fields, [f("a", I64(1)), f("a", I64(-1))]);
        }
        assert!(
            read_records(b"{\"a\":1}")
                .unwrap_err()
                .to_string()
                .starts_with("line 1, column 1: the record has no `id`")
        );
        assert!(read_records(b"[{\"id\":1}").is_err());
        assert_eq!(parse_record(b"{\"id\": 5, \"a\": true}\n", Some(5)).unwrap(), f("a", Bool(true)));
        assert!(parse_record(b"{\"id\": 6}", Some(5)).unwrap_err().to_string().contains("another id than 5"));
        assert_eq!(parse_record(b"{\"id\": 6}", None).unwrap(), f("id", U64(6)));
        assert!(parse_record(b"{} {}", None).is_err());
    }

    #[test]
    fn a_record_of_very_many_fields_is_read_in_linear_time() {
        let mut text = String::from("{");
        for n in 0..100_000 {
            text.push_str(&format!("\"f{n}\":{n},"));
        }
        text.push_str("\"f5\":1}");
        let e = parse_record(text.as_bytes(), None).unwrap_err();
        assert!(e.to_string().contains("the field `f5` a second time"), "{e}");
    }
}
