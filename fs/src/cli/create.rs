//! `rvf create`.

use super::failure::Failure;
use super::output::Out;
use rvf_cow::{CreateOptions, Metric, Store};
use rvf_format::codes;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Path for the new RVF store file
    path: PathBuf,
    /// Vector dimensionality, 1 to 65535
    #[arg(short, long)]
    dimension: u32,
    /// Distance metric: l2, ip, cosine
    #[arg(short, long, default_value = "l2")]
    metric: String,
    /// Hardware profile: 0-3
    #[arg(short, long, default_value_t = 0)]
    profile: u8,
    /// Output as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let dimension = u16::try_from(args.dimension).ok().filter(|d| *d > 0).ok_or_else(|| {
        Failure::new(format!("Dimension must be between 1 and 65535 (got {})", args.dimension))
    })?;
    let metric = match args.metric.as_str() {
        "l2" | "L2" => Metric::L2,
        "ip" | "inner_product" => Metric::InnerProduct,
        "cosine" => Metric::Cosine,
        other => return Err(Failure::new(format!("Unknown metric: {other}"))),
    };
    if let Some(parent) = args.path.parent().filter(|p| !p.as_os_str().is_empty() && !p.is_dir()) {
        let text =
            format!("{}: there is no directory {}; create it first", args.path.display(), parent.display());
        return Err(Failure::coded(codes::FSYNC_FAILED, &text));
    }
    Store::create(&args.path, &CreateOptions { dimension, metric, profile: args.profile })?;
    if args.json {
        return out.json(&json!({
            "status": "created",
            "path": args.path.to_string_lossy(),
            "dimension": args.dimension,
            "metric": args.metric,
            "profile": args.profile,
        }));
    }
    out.line(format_args!("Created RVF store: {}", args.path.display()))?;
    out.pair("Dimension:", args.dimension)?;
    out.pair("Metric:", &args.metric)?;
    out.pair("Profile:", args.profile)
}
