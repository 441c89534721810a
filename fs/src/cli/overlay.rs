//! `rvf overlay` and `rvf rebuild-refcounts`.

use super::failure::Failure;
use super::open::{self, Waiting};
use super::output::Out;
use crate::data::npy::Npy;
use rvf_cow::Overlay;
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Adds scale * A B to the vectors of a branch, as a low-rank adapter does: A is [n, rank], B is [rank, dimension]. Inherited
vectors are stored as the factors; the branch shows, searches and exports the sums.")]
pub(super) struct OverlayArgs {
    /// Path to the branch
    path: PathBuf,
    /// A, a .npy file of floats: a row for each vector
    #[arg(long, value_name = "FILE")]
    a: PathBuf,
    /// B, a .npy file of floats: a row for each column of A
    #[arg(long, value_name = "FILE")]
    b: PathBuf,
    /// The vectors that the rows of A belong to, a .npy file of whole numbers; without it all, in the order of ids.npy
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    /// Multiplies the product
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    scale: f32,
    /// Output as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub(super) fn overlay(args: &OverlayArgs, out: &mut Out) -> Result<(), Failure> {
    let store = open::writing(&args.path, &args.waiting)?;
    let (rank, b) = matrix(&args.b, store.view().dimension())?;
    let (_, a) = matrix(&args.a, rank)?;
    let ids = args.ids.as_deref().map(|path| {
        let bytes = std::fs::read(path).map_err(|e| Failure::file(path, &e))?;
        Npy::parse(&bytes).and_then(|npy| npy.to_u64()).map_err(|e| about(path, &e))
    });
    let ids = ids.transpose()?;
    let rank = u16::try_from(rank)
        .map_err(|_| Failure::new(format!("{}: rank {rank}; at most 65535", args.b.display())))?;
    let report = store.overlay(&Overlay { ids: ids.as_deref(), rank, a: &a, b: &b, scale: args.scale })?;
    if args.json {
        return out.json(&json!({
            "rank": rank,
            "low_rank": report.low_rank,
            "full": report.full,
            "epoch": report.epoch,
        }));
    }
    out.line("Overlay stored:")?;
    out.pair("Rank:", rank)?;
    out.pair("As factors:", report.low_rank)?;
    out.pair("As full rows:", report.full)?;
    out.pair("Epoch:", report.epoch)
}

fn about(path: &Path, error: &crate::data::DataError) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}

/// Rows and numbers of a matrix with this many columns.
fn matrix(path: &Path, columns: usize) -> Result<(usize, Vec<f32>), Failure> {
    let bytes = std::fs::read(path).map_err(|e| Failure::file(path, &e))?;
    let npy = Npy::parse(&bytes).map_err(|e| about(path, &e))?;
    npy.to_f32(columns).map_err(|e| about(path, &e))
}

#[derive(Debug, clap::Args)]
pub(super) struct RefcountArgs {
    /// Path to the RVF store
    path: PathBuf,
    /// Output as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub(super) fn rebuild_refcounts(args: &RefcountArgs, out: &mut Out) -> Result<(), Failure> {
    let store = open::reading(&args.path, false)?;
    if !store.view().is_child() {
        if args.json {
            return out.json(&json!({
                "message": "No COW map found; nothing to rebuild",
                "status": "no_cow_map",
            }));
        }
        return out.line("No COW map found in file. Nothing to rebuild.");
    }
    drop(store);
    let report = open::writing(&args.path, &args.waiting)?.rebuild_refcounts()?;
    let Some(report) = report else {
        return Err(Failure::new(format!("{}: the record of its parent is damaged", args.path.display())));
    };
    if args.json {
        return out.json(&json!({
            "status": "rebuilt",
            "cluster_count": report.counts.len(),
            "local_clusters": report.local,
            "epoch": report.epoch,
        }));
    }
    out.line("Refcounts rebuilt:")?;
    out.pair("Cluster count:", report.counts.len())?;
    out.pair("Local clusters:", report.local)?;
    out.pair("Epoch:", report.epoch)
}
