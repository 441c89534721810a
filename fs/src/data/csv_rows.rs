//! Rows in a table: a header with `id` and `v0`, `v1`, ...; every other column is metadata.
//!
//! A metadata column has one type, found over the whole file before any row is read: integers when every cell is
//! one (no leading zeros or plus, so codes such as `007` stay text), else floats, else true/false, else text. An
//! empty cell is a missing value. Integers keep all their digits; one that does not fit 64 bits makes text.

use super::error::{DataError, Kind, Place, printable};
use super::number;
use super::rows::{Records, Sink};
use super::value::{FieldValue, Fields};
use csv::{ByteRecord, Reader, ReaderBuilder};
use std::collections::HashMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kinds {
    Unsigned,
    Signed,
    Float,
    Bool,
    Text,
}

/// What the cells of a column have been so far.
#[derive(Debug, Clone, Copy)]
struct Seen {
    any: bool,
    integer: bool,
    number: bool,
    boolean: bool,
    negative: bool,
    beyond_i64: bool,
}

impl Seen {
    const NOTHING: Self =
        Self { any: false, integer: true, number: true, boolean: true, negative: false, beyond_i64: false };

    fn cell(&mut self, cell: &str) {
        self.any = true;
        if self.integer {
            match integer(cell) {
                Some(FieldValue::I64(_)) => self.negative = true,
                Some(FieldValue::U64(n)) => self.beyond_i64 |= i64::try_from(n).is_err(),
                _ => self.integer = false,
            }
        }
        if self.number && float(cell).is_none() {
            self.number = false;
        }
        if self.boolean && boolean(cell).is_none() {
            self.boolean = false;
        }
    }

    fn kind(self) -> Kinds {
        if !self.any {
            Kinds::Text
        } else if self.integer && !self.negative {
            Kinds::Unsigned
        } else if self.integer && !self.beyond_i64 {
            Kinds::Signed
        } else if self.number && !self.integer {
            Kinds::Float
        } else if self.boolean {
            Kinds::Bool
        } else {
            Kinds::Text
        }
    }
}

fn integer(cell: &str) -> Option<FieldValue> {
    let digits = cell.strip_prefix('-').unwrap_or(cell);
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if !plain || cell == "-0" {
        return None;
    }
    match cell.parse::<u64>() {
        Ok(n) => Some(FieldValue::U64(n)),
        Err(_) => cell.parse::<i64>().ok().map(FieldValue::I64),
    }
}

fn float(cell: &str) -> Option<f64> {
    let digits = cell.strip_prefix('-').unwrap_or(cell);
    let mut bytes = digits.bytes();
    let first = bytes.next()?;
    let starts = first.is_ascii_digit() || first == b'.';
    let padded = first == b'0' && bytes.next().is_some_and(|b| b.is_ascii_digit());
    // An integer of more than 64 bits would lose digits: it is a code, not a measure.
    let huge = digits.len() > 19 && digits.bytes().all(|b| b.is_ascii_digit()) && integer(cell).is_none();
    if !starts || padded || huge {
        return None;
    }
    cell.parse().ok().filter(|v: &f64| v.is_finite())
}

fn boolean(cell: &str) -> Option<bool> {
    match cell {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

struct Header {
    names: Vec<String>,
    id: Option<usize>,
    /// Column of each component.
    vector: Vec<usize>,
    metadata: Vec<usize>,
}

/// Reads records and knows the line each starts on.
struct Table<'a> {
    bytes: &'a [u8],
    reader: Reader<&'a [u8]>,
    record: ByteRecord,
    /// A byte offset and the line it lies on.
    counted: (usize, u64),
}

impl<'a> Table<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let reader = ReaderBuilder::new().has_headers(true).flexible(false).from_reader(bytes);
        Self { bytes, reader, record: ByteRecord::new(), counted: (0, 1) }
    }

    fn next(&mut self) -> Result<bool, DataError> {
        let more = self.reader.read_byte_record(&mut self.record).map_err(|e| broken(&e, self.bytes))?;
        if more {
            let start = self.record.position().map_or(0, csv::Position::byte);
            let mut at = usize::try_from(start).unwrap_or(usize::MAX).min(self.bytes.len());
            while matches!(self.bytes.get(at), Some(b'\r' | b'\n')) {
                at += 1;
            }
            let between = self.bytes.get(self.counted.0..at).unwrap_or_default();
            self.counted = (at, self.counted.1 + between.iter().filter(|b| **b == b'\n').count() as u64);
        }
        Ok(more)
    }

    fn line(&self) -> u64 {
        self.counted.1
    }

    fn text(&self, at: usize, header: &Header) -> Result<&str, DataError> {
        let cell = self.record.get(at).unwrap_or_default();
        std::str::from_utf8(cell).map_err(|_| {
            DataError::new(
                Kind::Syntax,
                self.place(at, header),
                "the cell is not UTF-8",
                "convert the text to UTF-8",
            )
        })
    }

    fn place(&self, at: usize, header: &Header) -> Place {
        let column = header.names.get(at).map_or_else(String::new, |n| printable(n, 64));
        Place::Cell { line: self.line(), column }
    }
}

/// Line of the record that starts at or after the byte offset. The reader's own count is one behind after blank
/// lines and in files with CRLF, because it passes over line ends when it reads on.
fn line_at(bytes: &[u8], offset: u64) -> u64 {
    let mut at = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    while matches!(bytes.get(at), Some(b'\r' | b'\n')) {
        at += 1;
    }
    1 + bytes.get(..at).unwrap_or_default().iter().filter(|b| **b == b'\n').count() as u64
}

fn broken(e: &csv::Error, bytes: &[u8]) -> DataError {
    let line = e.position().map_or(1, |p| line_at(bytes, p.byte()));
    let place = Place::Line { line, column: 1 };
    match e.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => DataError::new(
            Kind::Syntax,
            place,
            format!("{len} cells where the header has {expected_len}"),
            "a comma inside a cell needs quotes around the cell",
        ),
        _ => DataError::new(
            Kind::Syntax,
            place,
            "the table cannot be read",
            "write it as comma-separated values",
        ),
    }
}

/// The N of a column named vN, without leading zeros.
fn component(name: &str) -> Option<usize> {
    let digits = name.strip_prefix('v')?;
    let plain = digits == "0" || (!digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()));
    if plain { digits.parse().ok() } else { None }
}

fn header(table: &mut Table<'_>, with_vectors: bool) -> Result<Header, DataError> {
    let bytes = table.bytes;
    let record = table.reader.byte_headers().map_err(|e| broken(&e, bytes))?.clone();
    let mut out = Header { names: Vec::new(), id: None, vector: Vec::new(), metadata: Vec::new() };
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut components: Vec<(usize, usize)> = Vec::new();
    let line = |column: usize| Place::Cell { line: 1, column: format!("number {}", column + 1) };
    for (at, cell) in record.iter().enumerate() {
        let name = std::str::from_utf8(cell).map(str::trim);
        let name = name.map_err(|_| {
            DataError::new(Kind::Syntax, line(at), "the name is not UTF-8", "convert the text to UTF-8")
        })?;
        if name.is_empty() {
            return Err(DataError::new(
                Kind::Syntax,
                line(at),
                "the column has no name",
                "name every column",
            ));
        }
        if seen.insert(name.to_owned(), at).is_some() {
            let shown = printable(name, 64);
            return Err(DataError::new(
                Kind::Syntax,
                line(at),
                format!("`{shown}` a second time"),
                "name columns once",
            ));
        }
        match component(name) {
            _ if name == "id" => out.id = Some(at),
            Some(n) if with_vectors => components.push((n, at)),
            _ => out.metadata.push(at),
        }
        out.names.push(name.to_owned());
    }
    components.sort_unstable();
    for (want, (n, at)) in components.iter().enumerate() {
        if *n != want {
            return Err(DataError::new(
                Kind::Syntax,
                Place::Cell { line: 1, column: format!("v{n}") },
                format!("the column v{want} is missing"),
                "components are columns v0, v1, ... without a gap",
            ));
        }
        out.vector.push(*at);
    }
    Ok(out)
}

/// Types of the metadata columns, by one pass over the file.
fn kinds(bytes: &[u8], with_vectors: bool) -> Result<Vec<Kinds>, DataError> {
    let mut table = Table::new(bytes);
    let header = header(&mut table, with_vectors)?;
    let mut seen = vec![Seen::NOTHING; header.metadata.len()];
    while !header.metadata.is_empty() && table.next()? {
        for (column, at) in seen.iter_mut().zip(&header.metadata) {
            let cell = table.text(*at, &header)?;
            if !cell.is_empty() {
                column.cell(cell);
            }
        }
    }
    Ok(seen.into_iter().map(Seen::kind).collect())
}

fn id(table: &Table<'_>, at: usize, header: &Header) -> Result<u64, DataError> {
    let cell = table.text(at, header)?.trim();
    number::parse_u64(cell.as_bytes()).ok_or_else(|| {
        DataError::new(
            Kind::Syntax,
            table.place(at, header),
            format!("`{}` is not an id", printable(cell, 40)),
            "ids are integers from 0 to 18446744073709551615",
        )
    })
}

fn metadata(table: &Table<'_>, header: &Header, kinds: &[Kinds]) -> Result<Fields, DataError> {
    let mut out = Fields::with_capacity(header.metadata.len());
    for (at, kind) in header.metadata.iter().zip(kinds) {
        let cell = table.text(*at, header)?;
        if cell.is_empty() {
            continue;
        }
        let value = match kind {
            Kinds::Unsigned => cell.parse().ok().map(FieldValue::U64),
            Kinds::Signed => cell.parse().ok().map(FieldValue::I64),
            Kinds::Float => float(cell).map(FieldValue::F64),
            Kinds::Bool => boolean(cell).map(FieldValue::Bool),
            Kinds::Text => None,
        };
        let name = header.names.get(*at).cloned().unwrap_or_default();
        out.push((name, value.unwrap_or_else(|| FieldValue::Text(cell.to_owned()))));
    }
    Ok(out)
}

/// Reads rows with vectors.
///
/// # Errors
/// The first thing wrong, with line and column name.
pub(super) fn read(bytes: &[u8], sink: &mut Sink<'_>) -> Result<(), DataError> {
    let kinds = kinds(bytes, true)?;
    let mut table = Table::new(bytes);
    let header = header(&mut table, true)?;
    let dim = sink.dimension();
    if header.vector.len() != dim {
        return Err(DataError::new(
            Kind::Dimension { got: header.vector.len(), want: dim },
            Place::Line { line: 1, column: 1 },
            format!("{} columns named v0, v1, ... where the store's dimension is {dim}", header.vector.len()),
            format!("the header is id, v0 to v{}, then metadata columns", dim.saturating_sub(1)),
        ));
    }
    while table.next()? {
        for at in &header.vector {
            let cell = table.record.get(*at).unwrap_or_default().trim_ascii();
            match number::parse_f32(cell) {
                Some((value, used)) if used == cell.len() => sink.vector().push(value),
                _ => {
                    let shown = printable(&String::from_utf8_lossy(cell), 40);
                    return Err(DataError::new(
                        Kind::Syntax,
                        table.place(*at, &header),
                        format!("`{shown}` is not a number"),
                        "every component needs a number",
                    ));
                }
            }
        }
        let id = header.id.map(|at| id(&table, at, &header)).transpose()?;
        let fields = if header.metadata.is_empty() { None } else { Some(metadata(&table, &header, &kinds)?) };
        sink.row(id, fields, Some(table.line()))?;
    }
    Ok(())
}

/// Reads records without vectors: an `id` column, and every other column a field (also one named `v0`).
pub(super) fn read_records(bytes: &[u8]) -> Result<Records, DataError> {
    let kinds = kinds(bytes, false)?;
    let mut table = Table::new(bytes);
    let header = header(&mut table, false)?;
    let Some(id_at) = header.id else {
        return Err(DataError::new(
            Kind::Shape,
            Place::Line { line: 1, column: 1 },
            "no column is named `id`",
            "records are matched to vectors by id",
        ));
    };
    let mut out = Records::default();
    while table.next()? {
        out.ids.push(id(&table, id_at, &header)?);
        out.fields.push(metadata(&table, &header, &kinds)?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::rows::{BadRow, Format, ReadOptions, Rows, read as read_rows, read_records as records};
    use super::*;
    use FieldValue::{Bool, F64, I64, Text, U64};

    fn csv(text: &str) -> Result<Rows, String> {
        read_rows(Format::Csv, text.as_bytes(), &ReadOptions::new(2)).map_err(|e| e.to_string())
    }

    #[test]
    fn types_come_from_whole_columns() {
        let rows = csv(concat!(
            "\u{feff}id,v1,v0,u,i,f,b,code,mixed,name\n",
            "9007199254740993,2,1,9007199254740993,-1,1.5,true,007,1,\"a, \"\"b\"\"\"\n",
            "2, 4 ,3,,5,2,False,7,x,\n",
        ))
        .unwrap();
        assert_eq!(rows.ids, Some(vec![9_007_199_254_740_993, 2]));
        assert_eq!(rows.vectors, [1.0, 2.0, 3.0, 4.0]);
        let f = |n: &str, v: FieldValue| (n.to_owned(), v);
        assert_eq!(
            rows.metadata,
            vec![
                vec![
                    f("u", U64(9_007_199_254_740_993)),
                    f("i", I64(-1)),
                    f("f", F64(1.5)),
                    f("b", Bool(true)),
                    f("code", Text("007".into())),
                    f("mixed", Text("1".into())),
                    f("name", Text("a, \"b\"".into())),
                ],
                vec![
                    f("i", I64(5)),
                    f("f", F64(2.0)),
                    f("b", Bool(false)),
                    f("code", Text("7".into())),
                    f("mixed", Text("x".into())),
                ],
            ]
        );
    }

    #[test]
    fn columns_that_must_stay_text() {
        for cell in ["99999999999999999999", "+5", "1e999", "nan", "-0", "--1", "0x10"] {
            let text = format!("id,x\n1,{cell}\n2,3\n");
            let fields = records(Format::Csv, text.as_bytes()).unwrap().fields;
            let want = if cell == "-0" { F64(-0.0) } else { Text(cell.into()) };
            assert_eq!(fields[0], vec![("x".to_owned(), want)], "{cell}");
        }
        let fields = records(Format::Csv, b"id,x\n1,18446744073709551615\n2,-1\n").unwrap().fields;
        assert_eq!(fields[1], vec![("x".to_owned(), Text("-1".into()))]);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let cases = [
            (
                "id,v0\n1,2\n",
                "line 1, column 1: 1 columns named v0, v1, ... where the store's dimension is 2",
            ),
            ("id,v0,v2\n", "line 1, column `v2`: the column v1 is missing"),
            ("id,v0,v1,v0\n", "line 1, column `number 4`: `v0` a second time"),
            ("id,v0,v1,\n", "line 1, column `number 4`: the column has no name"),
            ("id,v0,v1\n1,2\n", "line 2, column 1: 2 cells where the header has 3"),
            ("id,v0,v1\n1,2,3\n\n2,x,4\n", "line 4, column `v0`: `x` is not a number"),
            ("id,v0,v1\r\n1,2,3\r\n2,x,4\r\n", "line 3, column `v0`: `x` is not a number"),
            ("id,v0,v1\r\n1,2,3\r\n\r\n2,4\r\n", "line 4, column 1: 2 cells where the header has 3"),
            ("id,v0,v1,x\n1,2,3,\"a\nb\"\n2,x,4,c\n", "line 4, column `v0`: `x` is not a number"),
            ("id,v0,v1\n1,2,\n", "line 2, column `v1`: `` is not a number"),
            ("id,v0,v1\n-1,2,3\n", "line 2, column `id`: `-1` is not an id"),
            ("id,v0,v1\n1,2,inf\n", "line 2: row 0, component 1: inf is not a finite float32"),
            ("id,v0,v1\n", "no rows; there is nothing to ingest"),
            ("", "line 1, column 1: 0 columns named v0"),
        ];
        for (text, want) in cases {
            let e = csv(text).unwrap_err();
            assert!(e.starts_with(want), "{text:?}\n got {e}\nwant {want}");
        }
        let e = read_rows(Format::Csv, b"id,v0,v1,x\n1,2,3,\xff\n", &ReadOptions::new(2)).unwrap_err();
        assert!(e.to_string().starts_with("line 2, column `x`: the cell is not UTF-8"), "{e}");
        let e = records(Format::Csv, b"a,b\n1,2\n").unwrap_err();
        assert!(e.to_string().contains("no column is named `id`"), "{e}");
    }

    #[test]
    fn bad_rows_can_be_left_out() {
        let options = ReadOptions { on_bad_row: BadRow::Skip, ..ReadOptions::new(2) };
        let rows = read_rows(Format::Csv, b"id,v0,v1\n1,2,inf\n2,3,4\n", &options).unwrap();
        assert_eq!((rows.ids, rows.rejected), (Some(vec![2]), 1));
    }
}
