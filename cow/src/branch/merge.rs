//! Folding a branch into its parent.

use std::collections::BTreeMap;
use std::sync::Arc;

use rvf_format::journal::Journal;
use rvf_format::{SegType, vec_seg};

use crate::branch::diff::{Change, DiffReport, Difference, compare, diff};
use crate::branch::keep::is_kept;
use crate::error::Error;
use crate::meta_cache::{MetaCache, cache_of};
use crate::store::Store;
use crate::types::{Event, Fields};
use crate::view::View;
use crate::write::{Commit, SEGMENT_BYTES, WITNESS_CHANGE, count_rows, format_error};

/// An id that both sides changed since the branch was made, not alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The id.
    pub id: u64,
    /// What the parent did to it.
    pub parent: Change,
    /// What the branch did to it.
    pub branch: Change,
}

/// What a merge did, or why it did nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MergeReport {
    /// Vectors added to the parent.
    pub added: u64,
    /// Vectors removed from it.
    pub removed: u64,
    /// Vectors or records changed in it.
    pub changed: u64,
    /// Edits of the branch that the parent had already.
    pub already: u64,
    /// When there is any, nothing was written.
    pub conflicts: Vec<Conflict>,
    /// The parent's epoch afterwards.
    pub epoch: u32,
    /// How the parent differs from the branch after a merge: what only the parent's own changes account for. The branch
    /// goes on standing on the older state.
    pub remaining: DiffReport,
}

impl Store {
    /// Folds the edits of this branch into its parent, in one atomic commit of the parent. An id that the parent changed too
    /// since the branch was made, to something else, is a conflict: then all of them are reported and nothing is
    /// written. The branch stays as it is. O(edits x depth x log n).
    ///
    /// # Errors
    /// [`Error::Invalid`] when `parent` is not the store that this one is a branch of, or an old state of it that a
    /// compaction kept; [`Error::Unsupported`] when an ancestor cannot be read; otherwise as [`Store::ingest`] on the parent.
    pub fn merge_into(&self, parent: &Store) -> Result<MergeReport, Error> {
        self.refresh()?;
        let branch = self.view();
        branch.complete()?;
        let Some(base) = branch.parent_view().map(Arc::clone) else {
            return Err(Error::Invalid { what: format!("{}: is not a branch", self.path().display()) });
        };
        if file_id(&base) != file_id(&parent.view()) {
            return Err(Error::Invalid {
                what: format!("{}: is not the parent of {}", parent.path().display(), self.path().display()),
            });
        }
        if is_kept(parent.path()) {
            return Err(Error::Invalid {
                what: format!(
                    "{}: is an old state that a compaction kept, which goes when no branch needs it; merge into the file that \
                     was compacted",
                    parent.path().display()
                ),
            });
        }
        let mut report = fold(Some(&base), &branch, parent)?;
        if report.conflicts.is_empty() {
            report.remaining = diff(&branch, &parent.view(), &mut |_| true)?;
        }
        if report.added + report.removed + report.changed == 0 || !report.conflicts.is_empty() {
            return Ok(report);
        }
        let counts = [("added", report.added), ("removed", report.removed), ("changed", report.changed)];
        parent.notify(&Event {
            kind: "merge",
            epoch: report.epoch,
            detail: counts.iter().map(|(name, count)| ((*name).to_owned(), count.to_string())).collect(),
        });
        Ok(report)
    }
}

/// Brings the changes from `base` to `branch` into `into`, in one commit; without a base, all that `branch` holds is a change.
/// With a conflict nothing is written.
pub(crate) fn fold(base: Option<&View>, branch: &View, into: &Store) -> Result<MergeReport, Error> {
    let mut changes: Vec<Difference> = Vec::new();
    match base {
        Some(base) => {
            diff(base, branch, &mut |difference| {
                changes.push(difference);
                true
            })?;
        }
        None => {
            branch.complete()?;
            let rows = branch.resolved();
            let ids = (0..rows.count()).filter_map(|at| rows.at(at)).map(|place| rows.id(place));
            changes.extend(ids.map(|id| Difference { id, kind: Change::Added }));
            changes.sort_unstable_by_key(|change| change.id);
        }
    }
    let mut report = MergeReport::default();
    let result = into.append(|commit, cache| {
        let wanted = pick(base, branch, &commit.view, changes, &mut report);
        if wanted.is_empty() || !report.conflicts.is_empty() {
            // Ends the commit before anything is written.
            return Err(Error::Cancelled);
        }
        apply(commit, cache, branch, &wanted, &mut report)
    });
    let settled = report.conflicts.is_empty() && report.added + report.removed + report.changed > 0;
    report.epoch = match result {
        Err(Error::Cancelled) if !settled => into.view().epoch(),
        other => other?.1.epoch(),
    };
    Ok(report)
}

/// The state that two stores have in common: of the youngest file that both are seen through, the older of the two states.
/// `None` when they share no file.
pub(crate) fn common(a: &View, b: &View) -> Result<Option<Arc<View>>, Error> {
    if a.dimension() != b.dimension() {
        return Err(Error::Dimension { row: 0, got: b.dimension(), want: a.dimension() });
    }
    if a.metric() != b.metric() {
        return Err(Error::Invalid {
            what: format!(
                "{} measures distances by {}, {} by {}; they cannot be merged",
                a.path().display(),
                a.metric().name(),
                b.path().display(),
                b.metric().name()
            ),
        });
    }
    // The first is a fresh child, so its own file is nobody's ancestor.
    let left = ancestors(a);
    let right = ancestors(b);
    if let Some(state) = left.iter().find(|x| file_id(x).is_some() && file_id(x) == file_id(b)) {
        return older(state, None, b).map(Some);
    }
    for x in &left {
        if let Some(y) = right.iter().find(|y| file_id(x).is_some() && file_id(x) == file_id(y)) {
            return older(x, Some(y), y).map(Some);
        }
    }
    Ok(None)
}

fn ancestors(view: &View) -> Vec<Arc<View>> {
    let mut out = Vec::new();
    let mut above = view.parent_view().map(Arc::clone);
    while let Some(parent) = above {
        above = parent.parent_view().map(Arc::clone);
        out.push(parent);
    }
    out
}

/// The older of two states of one file, when the other one came from it.
fn older(x: &Arc<View>, shared: Option<&Arc<View>>, y: &View) -> Result<Arc<View>, Error> {
    let x_first = x.epoch() <= y.epoch();
    let (old, new): (&View, &View) = if x_first { (x, y) } else { (y, x) };
    if !descends(old, new) {
        return Err(Error::Invalid {
            what: format!(
                "{} and {} have the same file id, but neither state came from the other: copies of one file that went \
                 different ways have no common state to merge from",
                x.path().display(),
                y.path().display()
            ),
        });
    }
    match (x_first, shared) {
        (true, _) => Ok(Arc::clone(x)),
        (false, Some(shared)) => Ok(Arc::clone(shared)),
        (false, None) => Err(Error::Invalid {
            what: format!(
                "{}: is an older state of {}, and has nothing to merge",
                y.path().display(),
                x.path().display()
            ),
        }),
    }
}

/// Whether one state of a file goes on from another: its chain of witnesses passes through the other's newest.
fn descends(old: &View, new: &View) -> bool {
    if (old.stamp.dev, old.stamp.ino) == (new.stamp.dev, new.stamp.ino) {
        return true;
    }
    let head = old.contents.witness_head;
    let witnesses = new.opened.layout.segments().filter(|s| s.kind() == SegType::WITNESS);
    let mut entries = witnesses.flat_map(|s| s.payload_of(new.bytes()).chunks_exact(73));
    head == [0; 32] || entries.any(|entry| rvf_crypto::next_head(entry) == head)
}

fn file_id(view: &View) -> Option<[u8; 16]> {
    Some(view.opened.manifest.as_ref()?.manifest.identity.as_ref()?.file_id)
}

/// The edits of the branch that the parent does not have yet. Fills in conflicts.
fn pick(
    base: Option<&View>,
    branch: &View,
    now: &View,
    changes: Vec<Difference>,
    report: &mut MergeReport,
) -> Vec<Difference> {
    let mut wanted = Vec::new();
    for change in changes {
        let parent = match base {
            Some(base) => compare(base, now, change.id, true),
            None => now.resolved().find(change.id).map(|_| Change::Added),
        };
        match parent {
            None => wanted.push(change),
            Some(_) if compare(now, branch, change.id, true).is_none() => report.already += 1,
            Some(parent) => {
                report.conflicts.push(Conflict { id: change.id, parent, branch: change.kind });
            }
        }
    }
    wanted
}

fn apply(
    commit: &mut Commit<'_>,
    cache: &mut Option<MetaCache>,
    branch: &View,
    wanted: &[Difference],
    report: &mut MergeReport,
) -> Result<(), Error> {
    let view = Arc::clone(&commit.view);
    let into = view.resolved();
    let from = branch.resolved();
    let mut rows: Vec<u64> = Vec::new();
    let mut removed: Vec<u64> = Vec::new();
    let mut records: Vec<(u64, Fields)> = Vec::new();
    for Difference { id, kind } in wanted {
        let fields = match kind {
            Change::Removed => {
                removed.push(*id);
                report.removed += 1;
                continue;
            }
            Change::Added => {
                report.added += 1;
                rows.push(*id);
                true
            }
            Change::Changed { vector, fields } => {
                report.changed += 1;
                // In a branch, a record belongs to a row of the same file.
                let inherited = view.pin().is_some() && into.find(*id).is_some_and(|place| place.layer > 0);
                if *vector || inherited {
                    rows.push(*id);
                }
                !fields.is_empty()
            }
        };
        let record = branch.fields(*id).unwrap_or_default();
        if fields && (!record.is_empty() || *kind != Change::Added) {
            records.push((*id, record));
        }
    }

    let mut meta = None;
    if !records.is_empty() || (view.has_metadata() && !removed.is_empty()) {
        let cache = cache_of(cache, &view);
        let mut file = BTreeMap::new();
        let all: Vec<Fields> = records.iter().map(|(_, fields)| fields.clone()).collect();
        cache.learn(&all, &mut file)?;
        let mut changes = BTreeMap::new();
        for (id, fields) in &records {
            let record = cache.record(fields, *id, &mut file)?;
            changes.insert(*id, Some(record).filter(|r| !r.is_empty() || view.pin().is_some()));
        }
        changes.extend(removed.iter().map(|id| (*id, None)));
        meta = Some(cache.advance(changes, file)?);
    }

    let dim = view.dimension();
    let dim16 = u16::try_from(dim).map_err(|_| Error::TooLarge { what: format!("dimension {dim}") })?;
    for part in rows.chunks((SEGMENT_BYTES / (8 + 4 * dim)).max(1)) {
        let mut body = Vec::with_capacity(part.len() * (8 + 4 * dim));
        for id in part {
            let Some(place) = from.find(*id) else { continue };
            body.extend_from_slice(&id.to_le_bytes());
            body.extend_from_slice(from.vector(place));
        }
        let head = vec_seg::head(dim16, part.len() as u32);
        commit.append(SegType::VEC, &[&head, &body])?;
    }
    branch.check_chain()?;
    if !removed.is_empty() {
        let journal = Journal::of_deletes(commit.epoch(), &removed).encode().map_err(format_error)?;
        commit.append(SegType::JOURNAL, &[&journal])?;
    }
    if let Some(payload) = &meta {
        commit.append(SegType::META, &[payload])?;
    }
    if let Some(parent) = view.parent_view() {
        let above = parent.resolved();
        let inherited: Vec<u64> = removed.iter().copied().filter(|id| above.find(*id).is_some()).collect();
        commit.hide(&inherited)?;
    }
    commit.witness(&format!("merge:count={},epoch={}", wanted.len(), commit.epoch()), WITNESS_CHANGE)?;
    let mut manifest = commit.manifest();
    rows.sort_unstable();
    count_rows(&view, &mut manifest, &rows);
    manifest.deleted.extend(removed.iter().filter(|id| view.find(**id).is_some()));
    manifest.deleted.sort_unstable();
    manifest.deleted.dedup();
    commit.finish(&manifest)
}
