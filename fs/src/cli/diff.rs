//! `rvf diff` and `rvf merge`.

use super::failure::Failure;
use super::open::{self, Waiting};
use super::output::Out;
use crate::branches::content::difference_line;
use rvf_cow::{Change, Conflict, Difference};
use serde_json::{Value, json};
use std::path::PathBuf;

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
        None => {
            let view = branch.view();
            view.complete()?;
            view.parent_file().ok_or_else(|| {
                Failure::new(format!(
                    "{}: is no branch, so there is nothing to fold it into",
                    args.branch.display()
                ))
            })?
        }
    };
    let parent = open::writing(&path, &args.waiting)?;
    let report = branch.merge_into(&parent)?;
    if args.json {
        let conflicts: Vec<Value> = report.conflicts.iter().map(conflict).collect();
        out.json(&json!({
            "status": if conflicts.is_empty() { "merged" } else { "conflicts" },
            "parent": path.to_string_lossy(),
            "added": report.added,
            "changed": report.changed,
            "removed": report.removed,
            "already": report.already,
            "conflicts": conflicts,
            "epoch": report.epoch,
            "remaining": report.remaining.added + report.remaining.removed + report.remaining.changed,
        }))?;
    } else if report.conflicts.is_empty() {
        out.line("Merge complete:")?;
        out.pair("Parent:", path.display())?;
        out.pair("Added:", report.added)?;
        out.pair("Changed:", report.changed)?;
        out.pair("Removed:", report.removed)?;
        out.pair("Already there:", report.already)?;
        out.pair("Epoch:", report.epoch)?;
        let left = report.remaining;
        out.pair(
            "Still different:",
            match left.added + left.removed + left.changed {
                0 => "nothing".to_owned(),
                n => format!("{n} vector(s), which only the parent changed"),
            },
        )?;
    } else {
        for conflict in &report.conflicts {
            out.line(conflict_line(conflict, "the branch"))?;
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

/// An id that both sides changed, with the fields.
pub(super) fn conflict(conflict: &Conflict) -> Value {
    let side = |change: &Change| match change {
        Change::Changed { vector, fields } => json!({ "vector": vector, "fields": fields }),
        Change::Added | Change::Removed => Value::Null,
    };
    json!({
        "id": conflict.id,
        "parent": kind(&conflict.parent),
        "branch": kind(&conflict.branch),
        "parent_changes": side(&conflict.parent),
        "branch_changes": side(&conflict.branch),
    })
}

/// The same in words.
pub(super) fn conflict_line(conflict: &Conflict, branch: &str) -> String {
    let side = |change: &Change| {
        let parts: Vec<&str> = match change {
            Change::Changed { vector, fields } => {
                vector.then_some("vector").into_iter().chain(fields.iter().map(String::as_str)).collect()
            }
            Change::Added | Change::Removed => Vec::new(),
        };
        if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
    };
    format!(
        "conflict {}: the parent {} it{}, {branch} {} it{}",
        conflict.id,
        kind(&conflict.parent),
        side(&conflict.parent),
        kind(&conflict.branch),
        side(&conflict.branch)
    )
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
