//! `rvf diff` and `rvf merge`.

use super::failure::Failure;
use super::open::{self, Waiting};
use super::output::Out;
use crate::branches::content::difference_line;
use rvf_cow::{Access, Change, Difference, OpenOptions, Store};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// Status 1 of `diff`: the stores differ.
const DIFFERENT: u8 = 1;
/// Status 2 of `diff`: they could not be compared.
const TROUBLE: u8 = 2;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A line a vector, by id: `+ ID` only NEW has it, `- ID` only OLD has it, `~ ID` both have it and not alike: `vector` when the
numbers differ, then the names of the fields that do. Exit status: 0 alike, 1 different, 2 not compared.")]
pub(super) struct DiffArgs {
    /// One store
    old: PathBuf,
    /// The other
    new: PathBuf,
    /// One JSON object a line, as in branches/NAME/diff.jsonl
    #[arg(long)]
    json: bool,
    /// Print numbers only
    #[arg(long)]
    summary: bool,
}

pub(super) fn diff(args: &DiffArgs, out: &mut Out) -> Result<(), Failure> {
    let trouble = |failure: Failure| Failure { status: TROUBLE, ..failure };
    let (old, new) = (
        open::reading(&args.old, false).map_err(trouble)?.view(),
        open::reading(&args.new, false).map_err(trouble)?.view(),
    );
    let mut failed = None;
    let report = rvf_cow::diff(&old, &new, &mut |difference| {
        if args.summary {
            return true;
        }
        let line = if args.json {
            let mut line = String::new();
            difference_line(&difference, &mut line);
            line.truncate(line.trim_end().len());
            line
        } else {
            plain(&difference)
        };
        failed = out.line(&line).err();
        failed.is_none()
    })
    .map_err(|error| trouble(error.into()))?;
    if let Some(error) = failed {
        return Err(error);
    }
    if args.summary && args.json {
        out.json(&json!({ "added": report.added, "removed": report.removed, "changed": report.changed }))?;
    } else if args.summary {
        out.pair("Added:", report.added)?;
        out.pair("Removed:", report.removed)?;
        out.pair("Changed:", report.changed)?;
    }
    if report.added + report.removed + report.changed > 0 {
        return Err(Failure { status: DIFFERENT, message: None });
    }
    Ok(())
}

fn plain(difference: &Difference) -> String {
    let id = difference.id;
    match &difference.kind {
        Change::Added => format!("+ {id}"),
        Change::Removed => format!("- {id}"),
        Change::Changed { vector, fields } => {
            let parts: Vec<&str> =
                vector.then_some("vector").into_iter().chain(fields.iter().map(String::as_str)).collect();
            format!("~ {id} {}", parts.join(" "))
        }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct MergeArgs {
    /// The branch
    branch: PathBuf,
    /// Where its parent is, if not where the branch says
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
    /// Output as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub(super) fn merge(args: &MergeArgs, out: &mut Out) -> Result<(), Failure> {
    let branch = open::reading(&args.branch, false)?;
    let path = match &args.into {
        Some(path) => path.clone(),
        None => match branch.view().parent_view() {
            Some(parent) => parent.path().to_path_buf(),
            None => {
                return Err(Failure::new(format!(
                    "{}: is no branch, or its parent is missing; say where that is with --into",
                    args.branch.display()
                )));
            }
        },
    };
    let parent = open::writing(&path, &args.waiting)?;
    let report = branch.merge_into(&parent)?;
    if args.json {
        let conflicts: Vec<Value> = report
            .conflicts
            .iter()
            .map(|c| json!({ "id": c.id, "parent": kind(&c.parent), "branch": kind(&c.branch) }))
            .collect();
        out.json(&json!({
            "status": if conflicts.is_empty() { "merged" } else { "conflicts" },
            "parent": path.to_string_lossy(),
            "added": report.added,
            "changed": report.changed,
            "removed": report.removed,
            "already": report.already,
            "conflicts": conflicts,
            "epoch": report.epoch,
        }))?;
    } else if report.conflicts.is_empty() {
        out.line("Merge complete:")?;
        out.pair("Parent:", path.display())?;
        out.pair("Added:", report.added)?;
        out.pair("Changed:", report.changed)?;
        out.pair("Removed:", report.removed)?;
        out.pair("Already there:", report.already)?;
        out.pair("Epoch:", report.epoch)?;
    } else {
        for conflict in &report.conflicts {
            let (parent, branch) = (kind(&conflict.parent), kind(&conflict.branch));
            out.line(format!("conflict {}: the parent {parent} it, the branch {branch} it", conflict.id))?;
        }
    }
    if report.conflicts.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "nothing was merged: {} vector(s) were changed on both sides; make both alike in one of them and merge again",
        report.conflicts.len()
    )))
}

fn kind(change: &Change) -> &'static str {
    match change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Changed { .. } => "changed",
    }
}

/// A child that was just made, to be edited before anybody sees it.
pub(super) fn open_new(path: &std::path::Path) -> Result<std::sync::Arc<Store>, Failure> {
    let options = OpenOptions {
        access: Access::ReadWrite,
        lock_wait: Duration::from_secs(10),
        verify: false,
        ..OpenOptions::default()
    };
    Ok(Store::open(path, &options)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_one_line_each() {
        let line = |kind| plain(&Difference { id: 7, kind });
        assert_eq!(line(Change::Added), "+ 7");
        assert_eq!(line(Change::Removed), "- 7");
        assert_eq!(
            line(Change::Changed { vector: true, fields: vec!["a".into(), "b".into()] }),
            "~ 7 vector a b"
        );
        assert_eq!(line(Change::Changed { vector: false, fields: vec!["a".into()] }), "~ 7 a");
    }
}
