//! `rvf hot`: which vectors are found most often, and counting accesses that did not come through a mount.

use super::failure::Failure;
use super::open::{self, Waiting};
use super::output::Out;
use crate::data::npy::Npy;
use crate::data::request;
use rvf_cow::{HOT_VECTORS, SearchRequest, View};
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --queries and --ids only shows, hottest first, what is saved in the store. A mount counts what its queries find in memory
and saves it with `echo checkpoint > ctl`. With --queries or --ids the counts are added to those of the store, and its hot set is
written anew, in one commit. `./ebpf/distance` answers from the hottest vectors.")]
pub(super) struct Args {
    /// Path to the RVF store
    path: PathBuf,
    /// Run these queries and count what they find: text lines, JSON, .npy or raw float32; - reads stdin
    #[arg(long, value_name = "FILE")]
    queries: Option<PathBuf>,
    /// Results that count for each query
    #[arg(short, long, default_value_t = 10, requires = "queries")]
    k: usize,
    /// Count these vectors: ids as text, one a line or separated by commas or blanks, or a .npy file of whole numbers
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    /// Vectors to show or, when counting, to write as the hot set
    #[arg(short, long, value_name = "N", default_value_t = HOT_VECTORS)]
    count: usize,
    /// Output as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    if args.queries.is_none() && args.ids.is_none() {
        let store = open::reading(&args.path, false)?;
        return show(&store.view(), args, out);
    }
    if args.count > MOST {
        return Err(Failure::new(format!("--count {}: at most {MOST} vectors are written", args.count)));
    }
    let store = open::appending(&args.path, &args.waiting)?;
    let view = store.view();
    if let Some(path) = &args.queries {
        let bytes = open::input(path)?;
        let request = request::parse(&bytes, view.dimension()).map_err(|e| about(path, &e))?;
        open::intact(path, &bytes)?;
        // Answering counts.
        view.search(&SearchRequest {
            queries: &request.vectors,
            k: request.k.unwrap_or(args.k),
            ef: request.ef,
            filter: request.filter.as_deref(),
            exact: request.exact.unwrap_or(false),
            deadline: None,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        })?;
    }
    if let Some(path) = &args.ids {
        let ids = ids(path)?;
        if let Some(id) = ids.iter().find(|id| view.resolved().find(**id).is_none()) {
            return Err(Failure::new(format!(
                "{}: the store has no vector {id}; nothing was counted",
                path.display()
            )));
        }
        store.count_accesses(&ids);
    }
    let Some(report) = store.save_accesses(args.count)? else {
        return Err(Failure::new("there was nothing to count"));
    };
    if args.json {
        return out.json(&json!({
            "counted": report.counted,
            "total": report.total,
            "hot": report.hot,
            "epoch": report.epoch,
        }));
    }
    out.line("Accesses counted:")?;
    out.pair("Counted:", report.counted)?;
    out.pair("In all:", report.total)?;
    out.pair("Hot vectors:", report.hot)?;
    out.pair("Epoch:", report.epoch)
}

/// Vectors of a hot set, at most: as many as a program takes.
const MOST: usize = 4096;

fn show(view: &View, args: &Args, out: &mut Out) -> Result<(), Failure> {
    let hottest = view.hottest(args.count);
    let sketch = view.sketch();
    let total = sketch.as_ref().map_or(0, |sketch| sketch.total_accesses);
    let counted = hottest.ids.get(..hottest.counted).unwrap_or(&[]);
    let estimate = |id: &u64| sketch.as_ref().map_or(0, |sketch| sketch.estimate(*id));
    if args.json {
        let hot: Vec<_> = counted.iter().map(|id| json!({"id": id, "count": estimate(id)})).collect();
        return out.json(&json!({ "total": total, "hot": hot }));
    }
    if counted.is_empty() {
        return out.line("No accesses are saved in this store.");
    }
    out.line(format_args!(
        "{total} accesses are saved; the hottest {} vectors, with their counts:",
        counted.len()
    ))?;
    for id in counted {
        out.line(format_args!("{id}\t{}", estimate(id)))?;
    }
    Ok(())
}

fn ids(path: &Path) -> Result<Vec<u64>, Failure> {
    let bytes = open::input(path)?;
    let found = if bytes.starts_with(b"\x93NUMPY") {
        Npy::parse(&bytes).and_then(|npy| npy.to_u64()).map_err(|e| about(path, &e))?
    } else {
        let text = std::str::from_utf8(&bytes).map_err(|_| about(path, &"neither text nor a .npy file"))?;
        let words = text.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter(|word| !word.is_empty());
        let number = |word: &str| {
            let shown: String = word.chars().take(40).map(|c| if c.is_control() { '?' } else { c }).collect();
            word.parse::<u64>().map_err(|_| about(path, &format!("'{shown}' is not an id")))
        };
        words.map(number).collect::<Result<_, _>>()?
    };
    open::intact(path, &bytes)?;
    Ok(found)
}

fn about(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}
