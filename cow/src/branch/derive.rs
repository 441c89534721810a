//! Deriving: a child whose name says what it is to its parent.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rvf_format::Severity;
use rvf_index::Progress;

use crate::branch::copy::{Form, Map, Precision, copy};
use crate::branch::create::{BranchOptions, BranchReport, prefix_bytes};
use crate::branch::merge::{Conflict, common, fold};
use crate::branch::pin::{Derivation, MAX_NAME, source_of};
use crate::error::Error;
use crate::scratch::Scratch;
use crate::store::Store;
use crate::types::{Access, OpenOptions, ReindexOptions};
use crate::view::View;

/// What a child is to its parent.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Derive<'a> {
    /// The same contents, to go on from.
    Clone,
    /// The vectors whose metadata match, and no others.
    Filter(&'a str),
    /// The same contents, frozen.
    Snapshot,
    /// The same contents with the changes of another store since both parted. Stores that share no file are put together:
    /// all that the other holds is a change then.
    Merge(&'a Store),
    /// The vectors rounded, in less space.
    Quantize(Precision),
    /// The same vectors with an index of their own.
    Reindex(&'a ReindexOptions),
    /// The vectors mapped, maybe to another dimension.
    Transform(&'a Map),
}

impl Derive<'_> {
    fn derivation(&self) -> Derivation {
        match self {
            Self::Clone => Derivation::Clone,
            Self::Filter(_) => Derivation::Filter,
            Self::Snapshot => Derivation::Snapshot,
            Self::Merge(_) => Derivation::Merge,
            Self::Quantize(_) => Derivation::Quantize,
            Self::Reindex(_) => Derivation::Reindex,
            Self::Transform(_) => Derivation::Transform,
        }
    }
}

/// A child that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeriveReport {
    /// Its file.
    pub branch: BranchReport,
    /// Whether it has vectors of its own, and does not need its parent.
    pub standalone: bool,
    /// Vectors it shows.
    pub vectors: u64,
    /// Components a vector.
    pub dimension: usize,
}

/// How a derivation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Derived {
    /// There is a child now.
    Made(DeriveReport),
    /// Both sides changed these, not alike, and nothing was made.
    Conflicts(Vec<Conflict>),
}

impl Store {
    /// Makes a child of what the store shows now. Its name appears when it is whole and durable; the parent is not written.
    ///
    /// # Errors
    /// As [`Store::branch`]; [`Error::BadFilter`]; [`Error::Invalid`] for a map that does not fit or numbers that cannot be
    /// held; [`Error::Dimension`] for a merge of stores of different dimension; [`Error::Cancelled`].
    pub fn derive(
        &self,
        path: &Path,
        name: &str,
        how: &Derive<'_>,
        progress: &dyn Progress,
    ) -> Result<Derived, Error> {
        if name.len() > MAX_NAME {
            return Err(Error::Invalid {
                what: format!("a branch name has at most {MAX_NAME} bytes, this one has {}", name.len()),
            });
        }
        let mut scratch = Scratch::for_file(path)?;
        let mut options =
            BranchOptions { name: name.to_owned(), derivation: how.derivation(), ..BranchOptions::default() };
        let mut parameter = |key: &str, value: String| options.parameters.push((key.to_owned(), value));
        let mut dimension = self.view().dimension();
        let standalone = match how {
            Derive::Clone | Derive::Snapshot => false,
            Derive::Filter(condition) => {
                parameter("filter", (*condition).to_owned());
                false
            }
            Derive::Merge(other) => {
                other.refresh()?;
                let view = other.view();
                options.others.push(source_of(&view, prefix_bytes(&view))?);
                false
            }
            Derive::Quantize(precision) => {
                parameter("precision", precision.name().to_owned());
                true
            }
            Derive::Reindex(index) => {
                parameter("m", index.m.to_string());
                parameter("ef_construction", index.ef_construction.to_string());
                parameter("seed", index.seed.to_string());
                true
            }
            Derive::Transform(map) => {
                options.parameters = map.parameters(dimension);
                dimension = usize::from(map.width(dimension)?);
                true
            }
        };
        let branch = if standalone {
            self.copy(&scratch, &options, how, progress)?
        } else {
            let other = match how {
                Derive::Merge(other) => Some(other.view()),
                _ => None,
            };
            self.branch_with(&scratch, &options, other.as_deref())?.0
        };
        let open = || {
            let options = OpenOptions {
                access: Access::ReadWrite,
                lock_wait: Duration::from_secs(10),
                verify: false,
                ..OpenOptions::default()
            };
            Store::open_private(scratch.path(), &options)
        };
        let mut vectors = None;
        match how {
            Derive::Clone | Derive::Quantize(_) | Derive::Transform(_) => {}
            Derive::Snapshot => {
                open()?.freeze()?;
            }
            Derive::Filter(condition) => vectors = Some(keep(&open()?, condition)?),
            Derive::Reindex(index) => {
                open()?.reindex(&ReindexOptions { persist: true, ..**index }, progress)?;
            }
            Derive::Merge(other) => {
                let (child, other) = (open()?, other.view());
                let base = common(&child.view(), &other)?;
                let report = fold(base.as_deref(), &other, &child)?;
                if !report.conflicts.is_empty() {
                    return Ok(Derived::Conflicts(report.conflicts));
                }
                vectors = Some(child.view().resolved().len());
            }
        }
        let bytes = std::fs::metadata(scratch.path()).map_err(|e| Error::io(path, "stat", e))?.len();
        scratch.publish(path)?;
        let vectors = vectors.unwrap_or_else(|| self.view().resolved().len());
        let branch = BranchReport { path: path.to_path_buf(), bytes, ..branch };
        Ok(Derived::Made(DeriveReport { branch, standalone, vectors, dimension }))
    }

    fn copy(
        &self,
        scratch: &Scratch,
        options: &BranchOptions,
        how: &Derive<'_>,
        progress: &dyn Progress,
    ) -> Result<BranchReport, Error> {
        self.refresh()?;
        self.verify_vectors()?;
        let view = self.view();
        view.complete()?;
        for file in view.files() {
            refuse_if_damaged(file)?;
        }
        scratch.made_of(view.files())?;
        let form = match how {
            Derive::Quantize(precision) => Form::Rounded(*precision),
            Derive::Transform(map) => Form::Mapped(map),
            _ => Form::Same,
        };
        copy(&view, scratch, options, form, progress)
    }
}

/// A copy would hide for good that something is missing, and give damaged bytes a fresh checksum.
fn refuse_if_damaged(view: &View) -> Result<(), Error> {
    let sound = view.contents.blocks.iter().all(|block| block.verify(view.bytes()).usable());
    let finding = view.findings.iter().find(|finding| finding.severity == Severity::Damage);
    let state = view.has_metadata().then(|| view.metadata().state());
    let dropped = state.is_some_and(|state| state.dropped_generations > 0 || state.dropped_records > 0);
    view.check_intact()?;
    if sound && finding.is_none() && !dropped {
        return Ok(());
    }
    let what = finding.map_or("vectors or metadata cannot be read", |finding| finding.text.as_str());
    Err(Error::Damaged {
        path: view.path.clone(),
        what: format!("not copied, because a copy would hide what is damaged: {what}"),
    })
}

/// Deletes from a fresh child what does not match; how many are left.
fn keep(child: &Arc<Store>, condition: &str) -> Result<u64, Error> {
    let view = child.view();
    let mut wanted = view.matching_ids(condition)?;
    wanted.sort_unstable();
    let rows = view.resolved();
    let others: Vec<u64> = (0..rows.count())
        .filter_map(|at| Some(rows.id(rows.at(at)?)))
        .filter(|id| wanted.binary_search(id).is_err())
        .collect();
    child.delete(&others)?;
    Ok(wanted.len() as u64)
}
