//! `rvf branch`, `rvf freeze`, `rvf reparent`: copy-on-write children.

use super::failure::Failure;
use super::open::{self, Waiting};
use super::output::Out;
use serde_json::json;
use std::path::{Path, PathBuf};

use rvf_cow::BranchOptions;

#[derive(Debug, clap::Args)]
pub(super) struct BranchArgs {
    /// Path to the parent, which is not written
    parent: PathBuf,
    /// Path of the child to make; it must not exist
    child: PathBuf,
    /// The branch's name; taken from PARENT.NAME.rvf when the child is called so
    #[arg(long)]
    name: Option<String>,
    /// Output as JSON
    #[arg(long)]
    json: bool,
}

/// `child` of `parent` is called `<stem>.NAME.rvf`, or anything.
pub(super) fn name_of(parent: &Path, child: &Path) -> String {
    let stem = |path: &Path| path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let own = stem(child);
    own.strip_prefix(&format!("{}.", stem(parent))).map_or(own.clone(), str::to_owned)
}

pub(super) fn branch(args: &BranchArgs, out: &mut Out) -> Result<(), Failure> {
    let store = open::glancing(&args.parent, false)?;
    let name = args.name.clone().unwrap_or_else(|| name_of(&args.parent, &args.child));
    let report = store.branch(&args.child, &BranchOptions { name, ..BranchOptions::default() })?;
    let reference = report.reference.as_ref().err();
    if args.json {
        return out.json(&json!({
            "path": report.path.to_string_lossy(),
            "bytes": report.bytes,
            "parent_epoch": report.parent_epoch,
            "lineage_depth": report.depth,
            "reference_opens": reference.is_none(),
        }));
    }
    out.line("Branch complete:")?;
    out.pair("File:", report.path.display())?;
    out.pair("Bytes:", report.bytes)?;
    out.pair("Parent epoch:", report.parent_epoch)?;
    out.pair("Lineage depth:", report.depth)?;
    match reference {
        Some(why) => out.pair("Existing tools:", format!("cannot open it: {why}")),
        None => Ok(()),
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct FreezeArgs {
    /// Path to the RVF store
    path: PathBuf,
    /// Output as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub(super) fn freeze(args: &FreezeArgs, out: &mut Out) -> Result<(), Failure> {
    let epoch = open::appending(&args.path, &args.waiting)?.freeze()?;
    if args.json {
        return out.json(&json!({ "status": "frozen", "snapshot_epoch": epoch }));
    }
    out.line("Store frozen:")?;
    out.pair("Snapshot epoch:", epoch)
}

#[derive(Debug, clap::Args)]
pub(super) struct ReparentArgs {
    /// Path to the child
    path: PathBuf,
    /// Where its parent is now
    parent: PathBuf,
    /// Output as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub(super) fn reparent(args: &ReparentArgs, out: &mut Out) -> Result<(), Failure> {
    let epoch = open::appending(&args.path, &args.waiting)?.reparent(&args.parent)?;
    if args.json {
        return out.json(&json!({ "parent": args.parent.to_string_lossy(), "epoch": epoch }));
    }
    out.line("Parent recorded:")?;
    out.pair("Parent:", args.parent.display())?;
    out.pair("Epoch:", epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_is_named_by_its_file() {
        let name = |parent: &str, child: &str| name_of(Path::new(parent), Path::new(child));
        assert_eq!(name("a/p.rvf", "b/p.exp.rvf"), "exp");
        assert_eq!(name("p.rvf", "other.rvf"), "other");
        assert_eq!(name("p.x.rvf", "p.x.y.z.rvf"), "y.z");
    }
}
