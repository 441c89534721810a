//! `rvf delete`.

use super::failure::Failure;
use super::open::{self, Waiting};
use super::output::Out;
use crate::data::error::printable;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Path to the RVF store
    path: PathBuf,
    /// Comma-separated vector ids to delete (e.g. "1,2,3"); wins over --filter
    #[arg(long)]
    ids: Option<String>,
    /// Delete the vectors whose metadata match: year < 1990, or the reference's JSON
    #[arg(long)]
    filter: Option<String>,
    /// Output as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let ids = match &args.ids {
        Some(text) => Some(parse_ids(text)?),
        None if args.filter.is_none() => return Err(Failure::new("must specify --ids or --filter")),
        None => None,
    };
    let store = open::writing(&args.path, &args.waiting)?;
    let ids = match (ids, &args.filter) {
        (Some(ids), _) => ids,
        (None, filter) => store.view().matching_ids(filter.as_deref().unwrap_or_default())?,
    };
    let report = store.delete(&ids)?;
    if args.json {
        return out.json(&json!({ "deleted": report.deleted, "epoch": report.epoch }));
    }
    out.line("Delete complete:")?;
    out.pair("Deleted:", report.deleted)?;
    out.pair("Epoch:", report.epoch)
}

fn parse_ids(text: &str) -> Result<Vec<u64>, Failure> {
    let one = |word: &str| {
        let shown = printable(word, 64);
        word.trim().parse::<u64>().map_err(|e| Failure::new(format!("Invalid ID '{shown}': {e}")))
    };
    text.split(',').map(one).collect()
}
