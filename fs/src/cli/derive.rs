//! `rvf derive`: a child whose name says what it is to its parent.

use super::branch::name_of;
use super::diff;
use super::failure::Failure;
use super::open;
use super::output::{Out, hex};
use super::progress::Bar;
use crate::data::npy::Npy;
use clap::ValueEnum;
use rvf_cow::{Derive, Derived, Map, Precision, ReindexOptions};
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
    /// The same contents, with the changes of the store --with folded in
    Merge,
    /// The vectors rounded to --precision, in less space
    Quantize,
    /// The same vectors with an index of their own
    Reindex,
    /// The vectors mapped by --matrix, --bias, --truncate, --normalize
    Transform,
}

/// What vectors are rounded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rounding {
    /// Half precision: 2 bytes a component
    F16,
    /// 256 steps from the smallest to the largest value of each component: 1 byte
    Int8,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A clone, filter, snapshot or merge is a copy-on-write branch: a small file that shows what the parent holds now and keeps
standing on it, whatever happens to the parent later (docs/branches.md). The other types have vectors of their own and need no
parent; of what is in the parent they take vectors and metadata, not embedded programs. What a child is to its parent is recorded
in it; see rvf lineage.")]
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
    /// For -t merge: the other store; its changes since both parted, or all of it when they share no file
    #[arg(long, value_name = "STORE")]
    with: Option<PathBuf>,
    /// For -t quantize: what components are rounded to
    #[arg(long, value_enum)]
    precision: Option<Rounding>,
    /// For -t reindex: links a node (default 16)
    #[arg(short, long)]
    m: Option<u16>,
    /// For -t reindex: candidates looked at while linking (default 200)
    #[arg(long)]
    ef_construction: Option<u32>,
    /// For -t transform: a .npy array [dimension, new] (x @ M) or [new, dimension] (M @ x); a square one is x @ M
    #[arg(long, value_name = "NPY")]
    matrix: Option<PathBuf>,
    /// For -t transform: a .npy array [new], added after the matrix
    #[arg(long, value_name = "NPY")]
    bias: Option<PathBuf>,
    /// For -t transform: keep only the first N components
    #[arg(long, value_name = "N")]
    truncate: Option<usize>,
    /// For -t transform: scale vectors to length 1, last of all
    #[arg(long)]
    normalize: bool,
    /// Output as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Refuses options that another type would take.
    fn check(&self) -> Result<(), Failure> {
        let given = [
            ("--filter", self.filter.is_some(), Kind::Filter),
            ("--with", self.with.is_some(), Kind::Merge),
            ("--precision", self.precision.is_some(), Kind::Quantize),
            ("--m", self.m.is_some(), Kind::Reindex),
            ("--ef-construction", self.ef_construction.is_some(), Kind::Reindex),
            ("--matrix", self.matrix.is_some(), Kind::Transform),
            ("--bias", self.bias.is_some(), Kind::Transform),
            ("--truncate", self.truncate.is_some(), Kind::Transform),
            ("--normalize", self.normalize, Kind::Transform),
        ];
        for (option, given, kind) in given {
            if given && kind != self.derivation_type {
                return Err(Failure::new(format!("{option} goes with -t {}", word(kind))));
            }
        }
        let wanted = match self.derivation_type {
            Kind::Filter if self.filter.is_none() => "--filter CONDITION",
            Kind::Merge if self.with.is_none() => "--with STORE",
            Kind::Quantize if self.precision.is_none() => "--precision f16 or int8",
            Kind::Transform
                if self.matrix.is_none()
                    && self.bias.is_none()
                    && self.truncate.is_none()
                    && !self.normalize =>
            {
                "--matrix, --bias, --truncate or --normalize"
            }
            _ => return Ok(()),
        };
        Err(Failure::new(format!("-t {} needs {wanted}", word(self.derivation_type))))
    }

    fn map(&self, dim: usize) -> Result<Map, Failure> {
        Ok(Map {
            matrix: self.matrix.as_ref().map(|path| matrix(path, dim)).transpose()?,
            bias: self.bias.as_ref().map(|path| bias(path)).transpose()?,
            truncate: self.truncate,
            normalize: self.normalize,
        })
    }
}

fn word(kind: Kind) -> String {
    kind.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// The numbers of a matrix as `[dim, new]`.
fn matrix(path: &Path, dim: usize) -> Result<Vec<f32>, Failure> {
    let (bytes, _) = open::input_file(path)?;
    let wrong = |e: crate::data::DataError| Failure::new(format!("{}: {e}", path.display()));
    let npy = Npy::parse(&bytes).map_err(wrong)?;
    let shape = npy.shape().to_vec();
    let values = match *shape {
        [rows, columns] if rows == dim || columns == dim => npy.to_f32(columns).map_err(wrong)?.1,
        _ => {
            return Err(Failure::new(format!(
                "{}: shape {} does not fit dimension {dim}; [{dim}, new] or [new, {dim}] is wanted",
                path.display(),
                crate::data::npy::shape_text(&shape)
            )));
        }
    };
    open::intact(path, &bytes)?;
    match *shape {
        [rows, columns] if rows != dim => {
            let at = |i: usize| values.get((i % rows) * columns + i / rows).copied().unwrap_or(0.0);
            Ok((0..values.len()).map(at).collect())
        }
        _ => Ok(values),
    }
}

fn bias(path: &Path) -> Result<Vec<f32>, Failure> {
    let (bytes, _) = open::input_file(path)?;
    let wrong = |e: crate::data::DataError| Failure::new(format!("{}: {e}", path.display()));
    let npy = Npy::parse(&bytes).map_err(wrong)?;
    let [len] = *npy.shape() else {
        return Err(Failure::new(format!("{}: a bias has one axis", path.display())));
    };
    let values = npy.to_f32(len).map_err(wrong)?.1;
    open::intact(path, &bytes)?;
    Ok(values)
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    args.check()?;
    let store = match args.derivation_type {
        Kind::Clone | Kind::Snapshot => open::glancing(&args.parent, false)?,
        _ => open::reading(&args.parent, false)?,
    };
    let other = args.with.as_ref().map(|path| open::reading(path, false)).transpose()?;
    let map = args.map(store.view().dimension())?;
    let mut index = ReindexOptions::default();
    index.m = args.m.map_or(index.m, usize::from);
    index.ef_construction = args.ef_construction.map_or(index.ef_construction, |ef| ef as usize);
    let how = match (args.derivation_type, &args.filter, &other, args.precision) {
        (Kind::Filter, Some(condition), ..) => Derive::Filter(condition),
        (Kind::Merge, _, Some(other), _) => Derive::Merge(other),
        (Kind::Quantize, .., Some(Rounding::F16)) => Derive::Quantize(Precision::F16),
        (Kind::Quantize, ..) => Derive::Quantize(Precision::Int8),
        (Kind::Snapshot, ..) => Derive::Snapshot,
        (Kind::Reindex, ..) => Derive::Reindex(&index),
        (Kind::Transform, ..) => Derive::Transform(&map),
        (Kind::Clone | Kind::Filter | Kind::Merge, ..) => Derive::Clone,
    };
    let name = name_of(&args.parent, &args.child);
    let report = match store.derive(&args.child, &name, &how, &Bar::new("derive"))? {
        Derived::Made(report) => report,
        Derived::Conflicts(conflicts) => {
            let lines: Vec<_> = conflicts.iter().map(diff::conflict).collect();
            if args.json {
                out.json(&json!({ "status": "conflicts", "conflicts": lines }))?;
            } else {
                for conflict in &conflicts {
                    out.line(diff::conflict_line(conflict, "the other store"))?;
                }
            }
            return Err(Failure::new(format!(
                "nothing was made: {} vector(s) were changed on both sides; make both alike in one of them and derive again",
                conflicts.len()
            )));
        }
    };
    let parent_id =
        store.view().opened().manifest.as_ref().and_then(|m| m.manifest.identity).map(|i| i.file_id);
    let kind = word(args.derivation_type);
    let branch = &report.branch;
    if args.json {
        return out.json(&json!({
            "status": "derived",
            "parent": args.parent.to_string_lossy(),
            "child": args.child.to_string_lossy(),
            "derivation_type": kind,
            "child_file_id": hex(&branch.file_id),
            "parent_file_id": hex(&parent_id.unwrap_or_default()),
            "lineage_depth": branch.depth,
            "vectors": report.vectors,
            "dimension": report.dimension,
            "bytes": branch.bytes,
            "needs_parent": !report.standalone,
        }));
    }
    out.line(format!("Derived child store: {}", args.child.display()))?;
    out.pair("Parent:", args.parent.display())?;
    out.pair("Type:", kind)?;
    out.pair("Child file ID:", hex(&branch.file_id))?;
    out.pair("Lineage depth:", branch.depth)?;
    if report.standalone {
        out.pair(
            "Vectors:",
            format_args!("{} of its own, of dimension {}", report.vectors, report.dimension),
        )?;
        out.pair("File size:", format_args!("{} bytes", branch.bytes))?;
    }
    match &branch.reference {
        Err(why) => out.pair("Existing tools:", format!("cannot open it: {why}")),
        Ok(()) => Ok(()),
    }
}
