//! `rvf ingest`.

use super::failure::Failure;
use super::open::{self, Waiting};
use super::output::{Out, note};
use super::progress::Bar;
use crate::convert;
use crate::data::npy::{MAGIC, Npy, Prefix, read_prefix};
use crate::data::rows::{self, BadRow, Format, ReadOptions, Rows};
use rvf_cow::{IngestReport, ReindexOptions, Store};
use serde_json::json;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use zerocopy::IntoBytes;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Forms of FILE, told by its extension (else by its first bytes):
  .npy    array of shape (n, dimension), float16, float32 or float64
  .json   array of {\"id\", \"vector\", \"metadata\"} objects; other keys are ignored
  .jsonl  one such object a line; other keys are refused
  .csv    header with id, v0, v1, ...; other columns are metadata
  .fvecs  an i32 dimension before each row of float32
Rows without ids are numbered on after the highest id. Rows of another dimension or with NaN or infinities are left
out and counted; --strict refuses the whole file for one of them. Everything is one atomic commit unless -b is given.")]
pub(super) struct Args {
    /// Path to the RVF store
    path: PathBuf,
    /// File of vectors; - reads stdin
    #[arg(short, long, value_name = "FILE")]
    input: PathBuf,
    /// Form of FILE, where its name does not tell
    #[arg(long, value_name = "FORM", value_parser = ["npy", "json", "jsonl", "csv", "fvecs"])]
    format: Option<String>,
    /// Commit every N rows by themselves instead of all rows at once
    #[arg(short, long, value_name = "N")]
    batch_size: Option<usize>,
    /// Ids of the rows, in order: an integer array of shape (n,)
    #[arg(long, value_name = "FILE.npy")]
    ids: Option<PathBuf>,
    /// Metadata of the rows, matched by id: a .csv with an id column, or .jsonl records
    #[arg(long, value_name = "FILE")]
    metadata: Option<PathBuf>,
    /// Refuse the file when one row cannot be stored
    #[arg(long)]
    strict: bool,
    /// Build the search index afterwards
    #[arg(long)]
    index: bool,
    /// Output as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let (bytes, file) = open::input_file(&args.input)?;
    let format = match &args.format {
        // The name is all that tells them apart otherwise.
        Some(form) => format_of(&args.input.with_extension(form), &bytes)?,
        None => format_of(&args.input, &bytes)?,
    };
    if format == Format::Json && bytes.iter().filter(|b| !b.is_ascii_whitespace()).eq(b"[]") {
        // The reference does not look at the store here.
        if args.json {
            return out.json(&json!({ "accepted": 0, "rejected": 0, "epoch": 0 }));
        }
        return out.line("No records to ingest.");
    }
    let store = open::writing(&args.path, &args.waiting)?;
    let dimension = store.view().dimension();
    let matrix = match &file {
        Some(file) if format == Format::Npy => plain_matrix(&args.input, file, &bytes, dimension)?,
        _ => None,
    };
    let rows = read(args, format, &bytes, matrix, dimension)?;
    open::intact(&args.input, &bytes)?;
    drop(bytes);
    let unread = rows.rejected;
    for e in &rows.rejections {
        note(&format!("warning: {}: left out: {e}", args.input.display()));
    }
    if unread > rows.rejections.len() as u64 {
        let more = unread - rows.rejections.len() as u64;
        note(&format!("warning: {}: {more} more row(s) left out", args.input.display()));
    }
    if !rows.ignored.is_empty() {
        note(&format!(
            "warning: {}: ignored keys: {} (metadata goes inside \"metadata\")",
            args.input.display(),
            rows.ignored.join(", ")
        ));
    }
    let report = commit(&store, rows, args.batch_size)?;
    let rejected = report.rejected + unread;
    if args.index && report.accepted > 0 {
        store.reindex(&ReindexOptions::default(), &Bar::new("index"))?;
    }
    let epoch = store.view().epoch();
    if args.json {
        out.json(&json!({ "accepted": report.accepted, "rejected": rejected, "epoch": epoch }))?;
    } else {
        out.line("Ingestion complete:")?;
        out.pair("Accepted:", report.accepted)?;
        out.pair("Rejected:", rejected)?;
        out.pair("Epoch:", epoch)?;
    }
    if report.accepted == 0 && rejected > 0 {
        return Err(Failure::new(format!(
            "all {rejected} record(s) were rejected (expected dimension does not match); nothing was ingested"
        )));
    }
    Ok(())
}

fn format_of(path: &Path, bytes: &[u8]) -> Result<Format, Failure> {
    if let Some(format) = path.to_str().and_then(Format::from_name) {
        return Ok(format);
    }
    let first = bytes.iter().find(|b| !b.is_ascii_whitespace());
    match first {
        _ if bytes.starts_with(MAGIC) => Ok(Format::Npy),
        Some(b'[') => Ok(Format::Json),
        Some(b'{') => Ok(Format::Jsonl),
        _ => Err(Failure::new(format!(
            "{}: cannot tell what kind of file this is; name it {}",
            path.display(),
            Format::EXTENSIONS
        ))),
    }
}

fn about(path: &Path) -> impl Fn(crate::data::DataError) -> Failure + '_ {
    move |e| Failure::new(format!("{}: {e}", path.display()))
}

/// Reads the numbers of a plain float32 array straight into memory of their own: half the time of copying them out of
/// the mapping, which has to be faulted in first. `None` for any other file, and for one whose shape is not its size.
fn plain_matrix(
    path: &Path,
    file: &File,
    bytes: &[u8],
    dimension: usize,
) -> Result<Option<Vec<f32>>, Failure> {
    let Ok(Prefix::Header(header)) = read_prefix(bytes) else { return Ok(None) };
    let whole = header.header_len.checked_add(header.data_len) == Some(bytes.len());
    let Some(rows) = header.plain_rows(dimension).filter(|_| whole) else { return Ok(None) };
    let mut numbers = vec![0f32; rows * dimension];
    file.read_exact_at(numbers.as_mut_slice().as_mut_bytes(), header.header_len as u64)
        .map_err(|e| Failure::file(path, &e))?;
    Ok(Some(numbers))
}

fn read(
    args: &Args,
    format: Format,
    bytes: &[u8],
    matrix: Option<Vec<f32>>,
    dimension: usize,
) -> Result<Rows, Failure> {
    let mut options = ReadOptions::new(dimension);
    options.on_bad_row = if args.strict { BadRow::Refuse } else { BadRow::Skip };
    if let Some(path) = &args.ids {
        let bytes = open::input(path)?;
        let ids = Npy::parse(&bytes).and_then(|npy| npy.to_u64()).map_err(about(path))?;
        open::intact(path, &bytes)?;
        options.ids = Some(ids);
    }
    let rows = match matrix {
        Some(matrix) => rows::from_matrix(matrix, &options),
        None => rows::read(format, bytes, &options),
    };
    let mut rows = rows.map_err(about(&args.input))?;
    if let Some(path) = &args.metadata {
        let bytes = open::input(path)?;
        let format = path.to_str().and_then(Format::from_name).unwrap_or(Format::Jsonl);
        let records = rows::read_records(format, &bytes).map_err(about(path))?;
        open::intact(path, &bytes)?;
        let unmatched = rows.attach(records).map_err(about(path))?;
        if unmatched > 0 {
            note(&format!("warning: {}: {unmatched} record(s) belong to no row", path.display()));
        }
    }
    Ok(rows)
}

/// Commits all rows at once, or every `size` rows by themselves.
fn commit(store: &Store, mut rows: Rows, size: Option<usize>) -> Result<IngestReport, Failure> {
    let bar = Bar::new("ingest");
    let nothing = IngestReport { accepted: 0, rejected: 0, epoch: store.view().epoch(), first_id: None };
    if rows.is_empty() {
        return Ok(nothing);
    }
    let size = size.map_or(rows.len(), |n| n.max(1));
    if size >= rows.len() {
        return Ok(store.ingest(&convert::batch(rows), &bar)?);
    }
    let mut total = nothing;
    let mut metadata = std::mem::take(&mut rows.metadata).into_iter();
    for (n, vectors) in rows.vectors.chunks(size * rows.dimension).enumerate() {
        let count = vectors.len() / rows.dimension;
        let start = n * size;
        let part = Rows {
            dimension: rows.dimension,
            ids: rows.ids.as_ref().map(|ids| ids.iter().skip(start).take(count).copied().collect()),
            vectors: vectors.to_vec(),
            metadata: metadata.by_ref().take(count).collect(),
            ..Rows::default()
        };
        let report = store.ingest(&convert::batch(part), &bar)?;
        total.accepted += report.accepted;
        total.rejected += report.rejected;
        total.epoch = report.epoch;
    }
    Ok(total)
}
