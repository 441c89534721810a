//! `rvf derive`: a child whose name says what it is to its parent.

use super::branch::name_of;
use super::diff::open_new;
use super::failure::Failure;
use super::open;
use super::output::Out;
use clap::ValueEnum;
use rvf_cow::{BranchOptions, Derivation, Store};
use serde_json::json;
use std::path::{Path, PathBuf};

/// What a child is to its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The same contents, to go on from
    Clone,
    /// The vectors that match --filter, and no others
    Filter,
    /// The same contents, frozen
    Snapshot,
    #[value(hide = true)]
    Merge,
    #[value(hide = true)]
    Quantize,
    #[value(hide = true)]
    Reindex,
    #[value(hide = true)]
    Transform,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The child is a copy-on-write branch: a small file that shows what the parent holds now and keeps standing on it, whatever
happens to the parent later (docs/branches.md). What it is to its parent is recorded in it.")]
pub(super) struct Args {
    /// Path to the parent, which is not written
    parent: PathBuf,
    /// Path of the child to make; it must not exist
    child: PathBuf,
    /// What the child is to its parent
    #[arg(short = 't', long, visible_alias = "type", value_enum, default_value = "clone")]
    derivation_type: Kind,
    /// For -t filter: the condition over metadata, such as year > 2000
    #[arg(long, value_name = "CONDITION")]
    filter: Option<String>,
    /// Output as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let derivation = match (args.derivation_type, &args.filter) {
        (Kind::Filter, None) => return Err(Failure::new("-t filter needs --filter CONDITION")),
        (Kind::Filter, Some(_)) => Derivation::Filter,
        (_, Some(_)) => return Err(Failure::new("--filter goes with -t filter")),
        (Kind::Clone, None) => Derivation::Clone,
        (Kind::Snapshot, None) => Derivation::Snapshot,
        (Kind::Merge, None) => {
            return Err(Failure::new(
                "-t merge is not made by this version; rvf merge folds a branch into its parent",
            ));
        }
        (Kind::Quantize | Kind::Reindex | Kind::Transform, None) => {
            return Err(Failure::new(
                "this version makes the types clone, filter and snapshot; the others would need vectors of their own",
            ));
        }
    };
    let store = match args.filter {
        Some(_) => open::reading(&args.parent, false)?,
        None => open::glancing(&args.parent, false)?,
    };
    let name = name_of(&args.parent, &args.child);
    let options = BranchOptions { name, derivation };
    let report = if derivation == Derivation::Clone {
        store.branch(&args.child, &options)?
    } else {
        // Nobody may see the child before it is what its type says.
        let scratch = hidden(&args.child)?;
        if args.child.symlink_metadata().is_ok() {
            return Err(rvf_cow::Error::Exists { path: args.child.clone() }.into());
        }
        let made = make(&store, &scratch, &options, args.filter.as_deref()).and_then(|report| {
            std::fs::hard_link(&scratch, &args.child).map_err(|e| Failure::file(&args.child, &e))?;
            crate::branches::content::sync_directory(directory_of(&args.child))
                .map_err(|e| Failure::new(e.to_string()))?;
            Ok(report)
        });
        for leftover in [scratch.clone(), scratch.with_added_extension("lock")] {
            let _ = std::fs::remove_file(leftover);
        }
        made?
    };
    let parent_id =
        store.view().opened().manifest.as_ref().and_then(|m| m.manifest.identity).map(|i| i.file_id);
    let hex = |id: &[u8]| {
        let mut text = String::new();
        crate::json::hex(&mut text, id);
        text
    };
    let kind =
        args.derivation_type.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    if args.json {
        return out.json(&json!({
            "status": "derived",
            "parent": args.parent.to_string_lossy(),
            "child": args.child.to_string_lossy(),
            "derivation_type": kind,
            "child_file_id": hex(&report.file_id),
            "parent_file_id": hex(&parent_id.unwrap_or_default()),
            "lineage_depth": report.depth,
        }));
    }
    out.line(format!("Derived child store: {}", args.child.display()))?;
    out.pair("Parent:", args.parent.display())?;
    out.pair("Type:", kind)?;
    out.pair("Child file ID:", hex(&report.file_id))?;
    out.pair("Lineage depth:", report.depth)
}

fn make(
    store: &Store,
    scratch: &Path,
    options: &BranchOptions,
    filter: Option<&str>,
) -> Result<rvf_cow::BranchReport, Failure> {
    let report = store.branch(scratch, options)?;
    let child = open_new(scratch)?;
    match filter {
        Some(filter) => {
            let view = child.view();
            let mut keep = view.matching_ids(filter)?;
            keep.sort_unstable();
            let rows = view.resolved();
            let others: Vec<u64> = (0..rows.count())
                .filter_map(|at| Some(rows.id(rows.at(at)?)))
                .filter(|id| keep.binary_search(id).is_err())
                .collect();
            child.delete(&others)?;
        }
        None => {
            child.freeze()?;
        }
    }
    Ok(report)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A hidden name in the same directory, where the parent's place is the same as seen from the child's.
fn hidden(child: &Path) -> Result<PathBuf, Failure> {
    let name = child
        .file_name()
        .ok_or_else(|| Failure::new(format!("{}: not a file name", child.display())))?
        .to_string_lossy();
    Ok(child.with_file_name(format!("{}{}-{name}", crate::branches::pending::PENDING, std::process::id())))
}
