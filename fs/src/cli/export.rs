//! `rvf export`.

use super::failure::Failure;
use super::open;
use super::output::{Out, note};
use crate::convert;
use crate::data::npy::{Dtype, write_header};
use crate::data::number::write_shortest;
use crate::data::value::write_json_record;
use rvf_cow::{Place, View};
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// NumPy arrays: OUTPUT, OUTPUT's stem.ids.npy, and stem.metadata.jsonl where there is metadata
    Npy,
    /// One {"id", "vector", "metadata"} object a line
    Jsonl,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
What is exported can be ingested again:
  rvf ingest NEW.rvf -i OUT.jsonl
  rvf ingest NEW.rvf -i OUT.npy --ids OUT.ids.npy --metadata OUT.metadata.jsonl")]
pub(super) struct Args {
    /// Path to the RVF store
    path: PathBuf,
    /// Form of the output; told by OUTPUT's extension when not given
    #[arg(long, value_enum)]
    format: Option<Form>,
    /// File to write; jsonl goes to stdout without it
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Only vectors whose metadata match
    #[arg(short, long)]
    filter: Option<String>,
    /// Output as JSON (the report, not the data)
    #[arg(long)]
    json: bool,
    /// Open the last committed snapshot even if the file ends inside a segment, and a branch without its parent
    #[arg(long)]
    recover: bool,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let extension = args.output.as_ref().and_then(|p| p.extension()).and_then(|e| e.to_str());
    let form = match (args.format, extension) {
        (Some(form), _) => form,
        (None, Some("npy")) => Form::Npy,
        (None, Some("jsonl" | "ndjson")) | (None, None) => Form::Jsonl,
        (None, Some(_)) => return Err(Failure::new("give --format npy or --format jsonl")),
    };
    let to_stdout = args.output.as_deref().is_none_or(|p| p.as_os_str() == "-");
    let store = open::reading(&args.path, args.recover)?;
    let view = store.view();
    // What is left without an ancestor looks like a whole store, so it has to be asked for.
    match view.complete() {
        Err(why) if args.recover => note(&format!("warning: only its own rows are exported: {why}")),
        Err(why) => return Err(Failure::new(format!("{why}; --recover exports what is left"))),
        Ok(()) => {}
    }
    let rows = view.resolved();
    let places: Vec<Place> = match &args.filter {
        None => (0..rows.count()).filter_map(|at| rows.at(at)).collect(),
        Some(filter) => view.matching_ids(filter)?.into_iter().filter_map(|id| rows.find(id)).collect(),
    };
    let mut files = Vec::new();
    match (form, &args.output) {
        (Form::Jsonl, _) if to_stdout => {
            let mut line = Vec::new();
            for place in &places {
                json_line(&view, *place, &mut line);
                out.bytes(&line)?;
            }
            view.check_chain()?;
            return Ok(());
        }
        (Form::Npy, _) if to_stdout => {
            return Err(Failure::new("arrays are several files: give --output NAME.npy"));
        }
        (Form::Jsonl, Some(path)) => {
            write_file(path, &view, |to| {
                let mut line = Vec::new();
                for place in &places {
                    json_line(&view, *place, &mut line);
                    to.write_all(&line)?;
                }
                Ok(())
            })?;
            files.push(path.clone());
        }
        (Form::Npy, Some(path)) => arrays(path, &view, &places, &mut files)?,
        (_, None) => {}
    }
    if args.json {
        let files: Vec<_> = files.iter().map(|p| p.to_string_lossy().into_owned()).collect();
        return out.json(&json!({ "vectors": places.len(), "files": files }));
    }
    out.line("Export complete:")?;
    out.pair("Vectors:", places.len())?;
    for file in files {
        out.pair("File:", file.display())?;
    }
    Ok(())
}

fn json_line(view: &View, place: Place, line: &mut Vec<u8>) {
    let rows = view.resolved();
    let id = rows.id(place);
    line.clear();
    line.extend_from_slice(b"{\"id\": ");
    line.extend_from_slice(itoa::Buffer::new().format(id).as_bytes());
    line.extend_from_slice(b", \"vector\": [");
    for (i, number) in rows.vector(place).as_chunks::<4>().0.iter().enumerate() {
        if i > 0 {
            line.push(b',');
        }
        write_shortest(f32::from_le_bytes(*number), line);
    }
    line.push(b']');
    if let Some(fields) = view.fields(id) {
        line.extend_from_slice(b", \"metadata\": ");
        put_record(None, fields, line);
    }
    line.extend_from_slice(b"}\n");
}

fn put_record(id: Option<u64>, fields: rvf_cow::Fields, out: &mut Vec<u8>) {
    let shown: Vec<_> = fields.into_iter().map(|(name, value)| (name, convert::shown(value))).collect();
    write_json_record(id, shown.iter().map(|(name, value)| (name.as_str(), value)), out);
}

/// `base.npy` gives `base.SUFFIX`; any other name gets the suffix after it.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let stem = if path.extension().is_some_and(|e| e == "npy") {
        path.with_extension("")
    } else {
        path.to_path_buf()
    };
    let mut name = stem.into_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

fn arrays(path: &Path, view: &View, places: &[Place], files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let rows = view.resolved();
    write_file(path, view, |to| {
        to.write_all(&write_header(Dtype::F32, &[places.len(), view.dimension()]))?;
        places.iter().try_for_each(|place| to.write_all(rows.vector(*place)))
    })?;
    files.push(path.to_path_buf());
    let ids = beside(path, ".ids.npy");
    write_file(&ids, view, |to| {
        to.write_all(&write_header(Dtype::U64, &[places.len()]))?;
        places.iter().try_for_each(|place| to.write_all(&rows.id(*place).to_le_bytes()))
    })?;
    files.push(ids);
    if view.has_metadata() {
        let records = beside(path, ".metadata.jsonl");
        write_file(&records, view, |to| {
            let mut line = Vec::new();
            for place in places {
                let id = rows.id(*place);
                let Some(fields) = view.fields(id) else { continue };
                line.clear();
                line.extend_from_slice(b"{\"id\": ");
                line.extend_from_slice(itoa::Buffer::new().format(id).as_bytes());
                // Inside "metadata", so that a field may itself be called id.
                line.extend_from_slice(b", \"metadata\": ");
                put_record(None, fields, &mut line);
                line.extend_from_slice(b"}\n");
                to.write_all(&line)?;
            }
            Ok(())
        })?;
        files.push(records);
    }
    Ok(())
}

/// Writes beside the final name and renames when everything is there, so a failure leaves no half file.
fn write_file(
    path: &Path,
    view: &View,
    write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<(), Failure> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let scratch = PathBuf::from(name);
    let written = (|| {
        let mut to = BufWriter::with_capacity(1 << 20, File::create_new(&scratch)?);
        write(&mut to)?;
        to.flush()
    })();
    let done = written
        .map_err(|e| Failure::file(path, &e))
        .and_then(|()| Ok(view.check_chain()?))
        .and_then(|()| std::fs::rename(&scratch, path).map_err(|e| Failure::file(path, &e)));
    if done.is_err() {
        // It may not exist; there is nothing better to say than the first error.
        let _gone = std::fs::remove_file(&scratch);
    }
    done
}
