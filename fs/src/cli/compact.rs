//! `rvf compact` and `rvf reindex`.

use super::failure::Failure;
use super::open::{self, Waiting};
use super::output::Out;
use super::progress::Bar;
use rvf_cow::ReindexOptions;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct CompactArgs {
    /// Path to the RVF store
    path: PathBuf,
    /// Accepted and reported as by the reference, which keeps unknown segments too
    #[arg(long)]
    strip_unknown: bool,
    /// Output as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub(super) fn compact(args: &CompactArgs, out: &mut Out) -> Result<(), Failure> {
    if args.strip_unknown {
        super::output::note("warning: --strip-unknown changes nothing: segments of unknown types are kept");
    }
    let store = open::writing(&args.path, &args.waiting)?;
    let report = store.compact(&Bar::new("compact"))?;
    if args.json {
        return out.json(&json!({
            "segments_compacted": report.segments_compacted,
            "bytes_reclaimed": report.bytes_reclaimed,
            "epoch": report.epoch,
            "vectors_before": report.vectors_before,
            "vectors_after": report.vectors_after,
            "file_size_before": report.file_size_before,
            "file_size_after": report.file_size_after,
            "strip_unknown": args.strip_unknown,
        }));
    }
    out.line("Compaction complete:")?;
    out.pair("Segments compacted:", report.segments_compacted)?;
    out.pair("Bytes reclaimed:", report.bytes_reclaimed)?;
    out.pair("Epoch:", report.epoch)?;
    out.pair("Vectors before:", report.vectors_before)?;
    out.pair("Vectors after:", report.vectors_after)?;
    out.pair("File size before:", format_args!("{} bytes", report.file_size_before))?;
    out.pair("File size after:", format_args!("{} bytes", report.file_size_after))?;
    if args.strip_unknown {
        out.pair("Strip unknown:", "yes")?;
    }
    Ok(())
}

#[derive(Debug, clap::Args)]
pub(super) struct ReindexArgs {
    /// Path to the RVF store
    path: PathBuf,
    /// Links a node on the upper layers; twice as many on the lowest
    #[arg(short, long, default_value_t = 16)]
    m: usize,
    /// Width of the search that finds a new node's neighbours
    #[arg(long, default_value_t = 200)]
    ef_construction: usize,
    /// Threads; 0 for all
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Seed of the level draw
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Output as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub(super) fn reindex(args: &ReindexArgs, out: &mut Out) -> Result<(), Failure> {
    let store = open::writing(&args.path, &args.waiting)?;
    let options = ReindexOptions {
        m: args.m,
        ef_construction: args.ef_construction,
        threads: args.threads,
        seed: args.seed,
        ..ReindexOptions::default()
    };
    let report = store.reindex(&options, &Bar::new("index"))?;
    if args.json {
        return out.json(&json!({ "indexed": report.indexed, "bytes": report.bytes, "epoch": report.epoch }));
    }
    out.line("Reindex complete:")?;
    out.pair("Indexed:", report.indexed)?;
    out.pair("Index size:", format_args!("{} bytes", report.bytes))?;
    out.pair("Epoch:", report.epoch)
}
