//! Rows to ingest, whatever file they come from.

use super::error::{DataError, Kind, Place};
use super::npy::Npy;
use super::number;
use super::value::Fields;
use super::{columns, csv_rows, fvecs, json_rows};
use std::collections::HashMap;

/// A form that rows are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A NumPy array of shape `[n, dim]`.
    Npy,
    /// One JSON array of row objects, or one row object. Keys other than id, vector and metadata are ignored, as
    /// the reference's `rvf ingest` does.
    Json,
    /// A row object a line. Keys other than id, vector and metadata are refused.
    Jsonl,
    /// A table with a header.
    Csv,
    /// Rows with an i32 dimension before each.
    Fvecs,
}

impl Format {
    /// The format a file name's extension asks for, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "npy" => Some(Self::Npy),
            "json" => Some(Self::Json),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "csv" => Some(Self::Csv),
            "fvecs" => Some(Self::Fvecs),
            _ => None,
        }
    }

    /// The extensions of [`Format::from_name`], for messages.
    pub const EXTENSIONS: &'static str = ".npy, .json, .jsonl, .csv or .fvecs";
}

/// What to do with a row of the wrong dimension or with a number that is not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BadRow {
    /// Refuse the whole input, naming the row.
    #[default]
    Refuse,
    /// Leave the row out and count it, as the reference does.
    Skip,
}

/// How to read rows.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// The store's dimension.
    pub dimension: usize,
    /// Bad rows.
    pub on_bad_row: BadRow,
    /// Ids given beside the file (NAME.ids.npy); their number must be the number of rows.
    pub ids: Option<Vec<u64>>,
}

impl ReadOptions {
    /// For a store of this dimension: bad rows refused, ids from the file.
    #[must_use]
    pub fn new(dimension: usize) -> Self {
        Self { dimension, on_bad_row: BadRow::Refuse, ids: None }
    }
}

/// Rows read from a file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    /// The store's dimension.
    pub dimension: usize,
    /// Ids in row order; `None` when the file has none (they follow on after the store's highest).
    pub ids: Option<Vec<u64>>,
    /// n * dimension numbers, row-major, all finite.
    pub vectors: Vec<f32>,
    /// One record a row, or empty when the file has no metadata at all.
    pub metadata: Vec<Fields>,
    /// Rows left out ([`BadRow::Skip`]).
    pub rejected: u64,
    /// Why, for the first few.
    pub rejections: Vec<DataError>,
    /// Keys that were ignored ([`Format::Json`]), each once, at most a few.
    pub ignored: Vec<String>,
}

/// Reasons kept for rows that were left out, and ignored keys kept.
const KEPT: usize = 5;

impl Rows {
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.vectors.len().checked_div(self.dimension).unwrap_or(0)
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds records to the rows of the same ids; records already there are replaced. Returns how many records
    /// belong to no row. O(rows + records).
    ///
    /// # Errors
    /// The rows have no ids; two records for one id; field types that cannot share a column.
    pub fn attach(&mut self, records: Records) -> Result<u64, DataError> {
        let Some(ids) = &self.ids else {
            return Err(DataError::new(
                Kind::Shape,
                Place::Whole,
                "metadata is matched by id, and the rows have none",
                "give ids too",
            ));
        };
        let total = records.ids.len() as u64;
        let mut by_id: HashMap<u64, Fields> = HashMap::with_capacity(records.ids.len());
        for (n, (id, fields)) in records.ids.into_iter().zip(records.fields).enumerate() {
            if by_id.insert(id, fields).is_some() {
                return Err(DataError::new(
                    Kind::Shape,
                    Place::Row { row: n as u64, component: None, line: None },
                    format!("a second record for id {id}"),
                    "give one record an id",
                ));
            }
        }
        self.metadata.resize(ids.len(), Fields::new());
        let mut used = 0;
        for (id, fields) in ids.iter().zip(&mut self.metadata) {
            if let Some(record) = by_id.remove(id) {
                *fields = record;
                used += 1;
            }
        }
        columns::unify(&mut self.metadata, |row| Place::Row {
            row: row as u64,
            component: None,
            line: None,
        })?;
        Ok(total - used)
    }
}

/// Metadata records without vectors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Records {
    /// The id of each record.
    pub ids: Vec<u64>,
    /// The records.
    pub fields: Vec<Fields>,
}

/// Reads a file of rows. Memory: a small multiple of `bytes.len()`.
///
/// # Errors
/// Whatever is wrong first, with its place. A file without rows is [`Kind::Empty`], except an empty JSON array,
/// which the reference accepts as nothing to do.
pub fn read(format: Format, bytes: &[u8], options: &ReadOptions) -> Result<Rows, DataError> {
    let mut sink = Sink::new(options);
    match format {
        Format::Npy => {
            let npy = Npy::parse(bytes)?;
            let (_, vectors) = npy.to_f32(options.dimension)?;
            sink.whole(vectors)?;
        }
        Format::Fvecs => sink.whole(fvecs::parse(bytes, options.dimension)?)?,
        Format::Json => json_rows::read_array(bytes, &mut sink)?,
        Format::Jsonl => json_rows::read_lines(bytes, &mut sink)?,
        Format::Csv => csv_rows::read(bytes, &mut sink)?,
    }
    sink.finish(format == Format::Json)
}

/// Rows that are a matrix already: n * dimension numbers, row-major, without ids or metadata of their own. O(n).
///
/// # Errors
/// As [`read`].
pub fn from_matrix(vectors: Vec<f32>, options: &ReadOptions) -> Result<Rows, DataError> {
    let dim = options.dimension.max(1);
    if !vectors.len().is_multiple_of(dim) {
        let place = Place::Row { row: (vectors.len() / dim) as u64, component: None, line: None };
        return Err(DataError::dimension(place, vectors.len() % dim, dim));
    }
    let mut sink = Sink::new(options);
    sink.whole(vectors)?;
    sink.finish(false)
}

/// Reads metadata records without vectors: `.csv` (an `id` column) or `.json`/`.jsonl` (`{"id": ..., field: ...}`
/// or `{"id": ..., "metadata": {...}}`).
///
/// # Errors
/// Whatever is wrong first, with its place; another format.
pub fn read_records(format: Format, bytes: &[u8]) -> Result<Records, DataError> {
    match format {
        Format::Csv => csv_rows::read_records(bytes),
        Format::Json | Format::Jsonl => json_rows::read_records(bytes),
        Format::Npy | Format::Fvecs => Err(DataError::new(
            Kind::Unsupported,
            Place::Whole,
            "metadata is not read from this kind of file",
            "give a .csv or .jsonl file",
        )),
    }
}

/// Collects rows: counts, finiteness, ids for all or none, and the reference's way with bad rows.
#[derive(Debug)]
pub struct Sink<'o> {
    options: &'o ReadOptions,
    rows: Rows,
    /// Where the row being read starts in `rows.vectors`.
    start: usize,
    /// Rows seen, bad ones too.
    seen: u64,
    /// Line of each kept row, when the input has lines.
    lines: Vec<u64>,
    any_metadata: bool,
    with_id: Option<(bool, Place)>,
}

impl<'o> Sink<'o> {
    /// An empty one.
    #[must_use]
    pub fn new(options: &'o ReadOptions) -> Self {
        let rows = Rows { dimension: options.dimension, ..Rows::default() };
        Self { options, rows, start: 0, seen: 0, lines: Vec::new(), any_metadata: false, with_id: None }
    }

    /// The store's dimension.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.options.dimension
    }

    /// Where the numbers of the row being read go.
    pub fn vector(&mut self) -> &mut Vec<f32> {
        &mut self.rows.vectors
    }

    /// Notes a key that is passed over.
    pub fn ignore(&mut self, key: &str) {
        if self.rows.ignored.len() < KEPT && !self.rows.ignored.iter().any(|k| k == key) {
            self.rows.ignored.push(key.to_owned());
        }
    }

    /// Ends the row whose numbers were put into [`Sink::vector`].
    ///
    /// # Errors
    /// A bad row when those are refused; an id where other rows have none, or the reverse.
    pub fn row(
        &mut self,
        id: Option<u64>,
        metadata: Option<Fields>,
        line: Option<u64>,
    ) -> Result<(), DataError> {
        let row = self.seen;
        self.seen += 1;
        let place =
            |component: Option<usize>| Place::Row { row, component: component.map(|c| c as u64), line };
        if self.options.ids.is_none() {
            match &self.with_id {
                None => self.with_id = Some((id.is_some(), place(None))),
                Some((with, first)) if *with != id.is_some() => {
                    let first = first.to_string();
                    let (here, there) = if *with { ("no", "one") } else { ("an", "none") };
                    return Err(DataError::new(
                        Kind::Shape,
                        place(None),
                        format!("{here} id here and {there} at {}", first.trim_end_matches(": ")),
                        "give every row an id, or none",
                    ));
                }
                Some(_) => {}
            }
        }
        let numbers = self.rows.vectors.get(self.start..).unwrap_or_default();
        let problem = if numbers.len() == self.options.dimension {
            numbers.iter().position(|v| !v.is_finite()).map(|c| {
                DataError::not_finite(
                    place(Some(c)),
                    &numbers.get(c).copied().unwrap_or_default().to_string(),
                )
            })
        } else {
            Some(DataError::dimension(place(None), numbers.len(), self.options.dimension))
        };
        if let Some(e) = problem {
            self.rows.vectors.truncate(self.start);
            return self.reject(e);
        }
        self.start = self.rows.vectors.len();
        if let Some(given) = &self.options.ids {
            // Ids beside the file count rows as they lie in it, bad ones too.
            let Some(id) = usize::try_from(row).ok().and_then(|r| given.get(r)) else {
                return Err(self.ids_mismatch(None));
            };
            self.rows.ids.get_or_insert_with(Vec::new).push(*id);
        } else if let Some(id) = id {
            self.rows.ids.get_or_insert_with(Vec::new).push(id);
        }
        self.any_metadata |= metadata.is_some();
        self.rows.metadata.push(metadata.unwrap_or_default());
        self.lines.push(line.unwrap_or(0));
        Ok(())
    }

    fn reject(&mut self, e: DataError) -> Result<(), DataError> {
        if self.options.on_bad_row == BadRow::Refuse {
            return Err(e);
        }
        self.rows.rejected += 1;
        if self.rows.rejections.len() < KEPT {
            self.rows.rejections.push(e);
        }
        Ok(())
    }

    fn ids_mismatch(&self, rows: Option<u64>) -> DataError {
        let ids = self.options.ids.as_ref().map_or(0, Vec::len);
        let rows = rows.map_or_else(|| "more rows".to_owned(), |n| format!("{n} rows"));
        DataError::new(
            Kind::Shape,
            Place::Whole,
            format!("{ids} ids for {rows}"),
            "give one id a row, in the same order",
        )
    }

    /// Takes all rows at once: n * dimension numbers, without ids or metadata of their own.
    fn whole(&mut self, vectors: Vec<f32>) -> Result<(), DataError> {
        let dim = self.options.dimension.max(1);
        if let Some(ids) = &self.options.ids
            && ids.len() != vectors.len() / dim
        {
            return Err(self.ids_mismatch(Some((vectors.len() / dim) as u64)));
        }
        if number::all_finite(&vectors) {
            self.seen = (vectors.len() / dim) as u64;
            self.rows.ids.clone_from(&self.options.ids);
            self.start = vectors.len();
            self.rows.vectors = vectors;
            return Ok(());
        }
        for row in vectors.chunks_exact(dim) {
            self.rows.vectors.extend_from_slice(row);
            self.row(None, None, None)?;
        }
        Ok(())
    }

    fn finish(mut self, empty_is_fine: bool) -> Result<Rows, DataError> {
        if let Some(ids) = &self.options.ids
            && ids.len() as u64 != self.seen
        {
            return Err(self.ids_mismatch(Some(self.seen)));
        }
        if self.seen == 0 && !empty_is_fine {
            return Err(DataError::new(Kind::Empty, Place::Whole, "no rows", "there is nothing to ingest"));
        }
        if self.any_metadata {
            let lines = &self.lines;
            let place = |row: usize| Place::Row {
                row: row as u64,
                component: None,
                line: lines.get(row).copied().filter(|line| *line > 0),
            };
            columns::unify(&mut self.rows.metadata, place)?;
        } else {
            self.rows.metadata = Vec::new();
        }
        Ok(self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::super::npy::{Dtype, write_header};
    use super::super::value::FieldValue;
    use super::*;

    fn npy(values: &[f32], shape: &[usize]) -> Vec<u8> {
        let mut out = write_header(Dtype::F32, shape);
        out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        out
    }

    #[test]
    fn names() {
        for (name, want) in [
            ("a.npy", Some(Format::Npy)),
            ("a.b.JSONL", Some(Format::Jsonl)),
            ("x.json", Some(Format::Json)),
            ("x.csv", Some(Format::Csv)),
            ("x.fvecs", Some(Format::Fvecs)),
            ("npy", None),
            ("x.txt", None),
            ("x.npy.part", None),
        ] {
            assert_eq!(Format::from_name(name), want, "{name}");
        }
    }

    #[test]
    fn npy_with_ids_beside_it() {
        let bytes = npy(&[1.0, 2.0, 3.0, 4.0], &[2, 2]);
        let mut options = ReadOptions::new(2);
        assert_eq!(read(Format::Npy, &bytes, &options).unwrap().ids, None);
        options.ids = Some(vec![7, 5]);
        let rows = read(Format::Npy, &bytes, &options).unwrap();
        assert_eq!((rows.len(), rows.ids, rows.vectors), (2, Some(vec![7, 5]), vec![1.0, 2.0, 3.0, 4.0]));
        options.ids = Some(vec![7]);
        assert_eq!(
            read(Format::Npy, &bytes, &options).unwrap_err().to_string(),
            "1 ids for 2 rows; give one id a row, in the same order"
        );
    }

    #[test]
    fn bad_rows_are_refused_or_left_out_with_their_ids() {
        let bytes = npy(&[1.0, 2.0, f32::NAN, 4.0, 5.0, 6.0], &[3, 2]);
        let mut options = ReadOptions::new(2);
        let e = read(Format::Npy, &bytes, &options).unwrap_err();
        assert!(e.to_string().starts_with("row 1, component 0: NaN is not a finite float32 number"), "{e}");
        options.on_bad_row = BadRow::Skip;
        options.ids = Some(vec![10, 11, 12]);
        let rows = read(Format::Npy, &bytes, &options).unwrap();
        assert_eq!(
            (rows.rejected, rows.ids, rows.vectors),
            (1, Some(vec![10, 12]), vec![1.0, 2.0, 5.0, 6.0])
        );
        assert_eq!(rows.rejections.len(), 1);
    }

    #[test]
    fn records_join_by_id() {
        let mut rows =
            Rows { dimension: 1, ids: Some(vec![3, 1]), vectors: vec![0.0, 1.0], ..Rows::default() };
        let record = |n: u64| vec![("n".to_owned(), FieldValue::U64(n))];
        let unmatched = rows.attach(Records { ids: vec![1, 9], fields: vec![record(1), record(9)] }).unwrap();
        assert_eq!((unmatched, &rows.metadata), (1, &vec![vec![], record(1)]));
        let twice = Records { ids: vec![1, 1], fields: vec![record(1), record(2)] };
        assert!(rows.attach(twice).unwrap_err().to_string().contains("a second record for id 1"));
    }

    #[test]
    fn nothing_to_ingest() {
        let options = ReadOptions::new(2);
        assert_eq!(read(Format::Npy, &npy(&[], &[0, 2]), &options).unwrap_err().kind, Kind::Empty);
        assert_eq!(read(Format::Fvecs, b"", &options).unwrap_err().kind, Kind::Empty);
        assert_eq!(read(Format::Jsonl, b"\n", &options).unwrap_err().kind, Kind::Empty);
        assert!(read(Format::Json, b"[]", &options).unwrap().is_empty());
    }
}
