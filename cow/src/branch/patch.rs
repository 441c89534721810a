//! Rows of a branch that are stored as changes of the rows that it inherits (DELTA segments).
//!
//! They are rows of the branch itself from the moment its parent is known: they have ordinals, hide what they change, and are
//! searched as the branch's own, so nothing that reads rows knows of deltas. Their ids are there at once, their vectors when they
//! are read ([`crate::lazy_rows`]).
//! A store without any deltas pays for one look at a flag.

use std::collections::HashMap;
use std::sync::Arc;

use rvf_format::SegType;
use rvf_format::contents::Rows;
use rvf_format::delta::{self, Changes, Delta, MAX_ROWS_PER_ID};
use rvf_format::membership::{Membership, Mode};
use rvf_format::vec_seg::{self, row_stride};
use rvf_format::{Finding, Severity};

use crate::error::Error;
use crate::lazy_rows::LazyRows;
use crate::load::{BlockKey, segment_key};
use crate::store::Store;
use crate::types::{Event, Overlay, OverlayReport};
use crate::view::View;
use crate::write::{Commit, SEGMENT_BYTES, WITNESS_CHANGE, count_rows, format_error};

/// Bytes of a segment beside its body: its header, that of a DELTA, and padding on average.
const SEGMENT_COST: usize = 64 + delta::HEADER + 32;

/// Bytes of the COW_MAP and MEMBERSHIP that the first DELTA of a branch makes necessary, about.
const PAIR_COST: usize = 384;

/// What is to be written as a DELTA.
pub(crate) struct Patches {
    /// Ascending.
    ids: Vec<u64>,
    rows: Vec<Vec<(u16, f32)>>,
}

impl Patches {
    pub(crate) fn has(&self, id: u64) -> bool {
        self.ids.binary_search(&id).is_ok()
    }

    pub(crate) fn encode(self, view: &View) -> Result<Vec<u8>, Error> {
        let delta = Delta { dim: dimension(view)?, ids: self.ids, changes: Changes::Sparse(self.rows) };
        delta.encode().map_err(format_error)
    }
}

fn dimension(view: &View) -> Result<u16, Error> {
    u16::try_from(view.dimension())
        .map_err(|_| Error::TooLarge { what: format!("dimension {}", view.dimension()) })
}

impl View {
    /// Whether rows of the file are stored as changes of inherited ones.
    #[must_use]
    pub fn has_deltas(&self) -> bool {
        self.blocks.iter().any(|block| block.segment.kind() == SegType::DELTA)
    }

    /// Whether a DELTA of this file would mean to every reader what it means to us.
    fn takes_deltas(&self) -> bool {
        self.pin.is_some()
            && matches!(&self.parent, Some(Ok(_)))
            && self.contents.cow.as_ref().is_some_and(|cow| cow.membership.mode != Mode::Include)
    }

    /// How many DELTA rows of an id the file lists, superseded ones included.
    fn delta_rows(&self, id: u64) -> u64 {
        let deltas = self.contents.blocks.iter().filter_map(|block| match &block.rows {
            Rows::Changed(delta) => Some(delta),
            Rows::InFile { .. } | Rows::Columns(_) | Rows::Unread => None,
        });
        deltas.filter(|delta| delta.ids.binary_search(&id).is_ok()).count() as u64
    }

    /// Makes the changed rows readable, now that the parent is known. `before` is an older view of the same file.
    pub(crate) fn resolve_deltas(&mut self, before: Option<&View>) {
        if !self.has_deltas() {
            return;
        }
        let parent = self.parent_view().filter(|parent| parent.complete().is_ok()).map(Arc::clone);
        let known = parent.as_ref().map_or_else(HashMap::new, |parent| taken_over(self, parent, before));
        let shown = parent.as_ref().map_or(0, |parent| parent.resolved().len());
        let mut left = shown.saturating_mul(MAX_ROWS_PER_ID);
        let mut unusable = Vec::new();
        for index in 0..self.blocks.len() {
            let Some((block, range)) = self.blocks.get(index).zip(self.rows.block_ordinals(index)) else {
                continue;
            };
            let Rows::Changed(delta) = &block.rows else { continue };
            let allowed = left.checked_sub(u64::from(block.count));
            let rows = match (&parent, allowed, known.get(&segment_key(&block.segment))) {
                // The finding about the parent says it.
                (None, ..) => Err(None),
                (_, None, _) => Err(Some(format!(
                    "is one of too many: more than {MAX_ROWS_PER_ID} for each inherited vector"
                ))),
                (_, Some(_), Some(rows)) => Ok(Arc::clone(rows)),
                (Some(parent), Some(_), None) => LazyRows::of_changes(parent, delta)
                    .map(Arc::new)
                    .map_err(|id| Some(format!("changes vector {id}, which the parent does not have"))),
            };
            left = allowed.unwrap_or(left);
            let offset = block.segment.offset;
            match rows {
                Ok(rows) => self.rows.put_lazy(index, rows),
                Err(why) => {
                    self.damaged.push(range);
                    unusable.extend(why.map(|why| (offset, why)));
                }
            }
        }
        for (offset, why) in unusable {
            self.findings.push(Finding {
                severity: Severity::Damage,
                code: "delta-unusable",
                offset,
                text: format!("the DELTA segment at byte {offset} {why}; its changes are left out"),
                mend: None,
            });
        }
        self.findings.sort_by_key(|f| std::cmp::Reverse(f.severity));
    }

    /// Which of these rows are worth a DELTA: little of the inherited vector changes, and all of them together take less
    /// than half of what full rows would. An id that has been patched often gets a full row. None in a file that the
    /// existing tools can open: an ordinary edit must not take it from them.
    pub(crate) fn patches<'r>(&self, rows: impl Iterator<Item = (u64, &'r [f32])>) -> Option<Patches> {
        if !self.takes_deltas() || self.reference_opens().is_ok() {
            return None;
        }
        let above = self.parent_view()?.resolved();
        let stride = 8 + 4 * self.dimension();
        let mut found: Vec<(u64, Vec<(u16, f32)>)> = Vec::new();
        let (mut cost, mut saved) = (SEGMENT_COST, 0);
        if !self.has_deltas() {
            cost += PAIR_COST;
        }
        for (id, row) in rows {
            let Some(place) = above.find(id) else { continue };
            let Some(patch) = differences(above.vector(place), row, stride / 8) else { continue };
            // The step to the next id takes up to ten bytes.
            let len = delta::patch_len(&patch) + 10;
            if len * 2 <= stride && self.delta_rows(id) < MAX_ROWS_PER_ID {
                cost += len;
                saved += stride;
                found.push((id, patch));
            }
        }
        if found.is_empty() || cost * 2 > saved {
            return None;
        }
        found.sort_unstable_by_key(|(id, _)| *id);
        let (ids, rows) = found.into_iter().unzip();
        Some(Patches { ids, rows })
    }
}

/// The rows that `before` has of the same segments over the same state of the parent, with what was put together of them.
fn taken_over(view: &View, parent: &Arc<View>, before: Option<&View>) -> HashMap<BlockKey, Arc<LazyRows>> {
    let Some(before) = before.filter(|b| (b.stamp.dev, b.stamp.ino) == (view.stamp.dev, view.stamp.ino))
    else {
        return HashMap::new();
    };
    let rows = before.blocks.iter().enumerate().filter_map(|(index, block)| {
        let rows = before
            .rows
            .changed(index)
            .filter(|rows| rows.parent().is_some_and(|above| Arc::ptr_eq(above, parent)))?;
        Some((segment_key(&block.segment), Arc::clone(rows)))
    });
    rows.collect()
}

/// The components in which `row` differs from `base`, bit for bit; `None` when there are none or more than `most`.
fn differences(base: &[u8], row: &[f32], most: usize) -> Option<Vec<(u16, f32)>> {
    let mut out = Vec::new();
    for ((at, bytes), value) in (0u16..=u16::MAX).zip(base.as_chunks::<4>().0).zip(row) {
        if *bytes != value.to_le_bytes() {
            if out.len() == most {
                return None;
            }
            out.push((at, *value));
        }
    }
    (!out.is_empty()).then_some(out)
}

impl Commit<'_> {
    /// Appends a DELTA, and before the first one of a file a filter that the existing tools refuse: they pass a DELTA over
    /// and would answer with the inherited rows.
    pub(crate) fn put_delta(&mut self, payload: &[u8]) -> Result<(), Error> {
        let view = Arc::clone(&self.view);
        if let Some(cow) = &view.contents.cow
            && let Some(hidden) = cow.membership.hidden().filter(|_| cow.membership.mode != Mode::Sparse)
        {
            self.put_cow(&cow.map, &Membership::hiding(hidden))?;
        }
        self.append(SegType::DELTA, &[payload])?;
        Ok(())
    }
}

impl Store {
    /// Adds `scale * (a_i B)` to the vectors of a branch in one atomic commit. Inherited vectors are stored as the factors,
    /// `rank * (n + dimension)` numbers in all; vectors that have a row in the branch already, and those changed by deltas
    /// too often, as full rows. Every value is summed in f64 and rounded once.
    ///
    /// The changed vectors are rows of the branch itself for a search: looked at one by one until the branch is indexed.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a store that is no branch of ours, shapes that disagree or an empty overlay;
    /// [`Error::DuplicateId`], [`Error::NoSuchId`]; [`Error::NotFinite`] for a factor or a sum; otherwise as
    /// [`Store::ingest`].
    pub fn overlay(&self, overlay: &Overlay<'_>) -> Result<OverlayReport, Error> {
        let (mut report, view) = self.append(|commit, _| {
            let view = Arc::clone(&commit.view);
            let planned = plan(&view, overlay)?;
            let mut body = Vec::new();
            let stride = row_stride(planned.delta.dim);
            let full: Vec<u64> = planned.full.iter().map(|(id, _)| *id).collect();
            for part in planned.full.chunks((SEGMENT_BYTES / stride).max(1)) {
                body.clear();
                for (id, row) in part {
                    body.extend_from_slice(&id.to_le_bytes());
                    body.extend_from_slice(row);
                }
                let count = u32::try_from(part.len()).unwrap_or(u32::MAX);
                commit.append(SegType::VEC, &[&vec_seg::head(planned.delta.dim, count), &body])?;
            }
            if !planned.delta.ids.is_empty() {
                commit.put_delta(&planned.delta.encode().map_err(format_error)?)?;
            }
            view.check_chain()?;
            let mut ids = [planned.delta.ids.as_slice(), full.as_slice()].concat();
            ids.sort_unstable();
            commit
                .witness(&format!("overlay:count={},epoch={}", ids.len(), commit.epoch()), WITNESS_CHANGE)?;
            let mut manifest = commit.manifest();
            count_rows(&view, &mut manifest, &ids);
            commit.finish(&manifest)?;
            Ok(OverlayReport { low_rank: planned.delta.ids.len() as u64, full: full.len() as u64, epoch: 0 })
        })?;
        report.epoch = view.epoch();
        let detail = vec![("count".into(), (report.low_rank + report.full).to_string())];
        self.notify(&Event { kind: "overlay", epoch: report.epoch, detail });
        Ok(report)
    }
}

struct Planned {
    delta: Delta,
    full: Vec<(u64, Vec<u8>)>,
}

fn plan(view: &View, overlay: &Overlay<'_>) -> Result<Planned, Error> {
    let invalid = |what: String| Err(Error::Invalid { what });
    if !view.takes_deltas() {
        return invalid(format!(
            "{}: an overlay changes what a branch inherits, and this is no branch made by this program; make one with \
             `rvf branch`",
            view.path.display()
        ));
    }
    let resolved = view.resolved();
    let shown: Vec<u64>;
    let ids = match overlay.ids {
        Some(ids) => ids,
        None => {
            shown = resolved.places().iter().map(|place| resolved.id(*place)).collect();
            &shown
        }
    };
    let (dim, wide) = (view.dimension(), usize::from(overlay.rank));
    if ids.is_empty() || wide == 0 {
        return invalid("an overlay of no vectors or of rank 0".into());
    }
    if wide.checked_mul(ids.len()) != Some(overlay.a.len()) || wide * dim != overlay.b.len() {
        return invalid(format!(
            "factors of {} and {} numbers; for {} vectors of dimension {dim} and rank {wide}, A has {} and B {}",
            overlay.a.len(),
            overlay.b.len(),
            ids.len(),
            wide.saturating_mul(ids.len()),
            wide * dim
        ));
    }
    for (values, width) in [(overlay.a, wide), (overlay.b, dim), (&[overlay.scale], 1)] {
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(Error::NotFinite { row: (at / width) as u64, component: at % width });
        }
    }
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_unstable_by_key(|at| ids.get(*at));
    let sorted: Vec<u64> = order.iter().filter_map(|at| ids.get(*at).copied()).collect();
    if let Some(pair) = sorted.windows(2).find(|pair| pair.first() == pair.last()) {
        return Err(Error::DuplicateId { id: pair.first().copied().unwrap_or(0) });
    }
    let factors = |kept: &[usize]| -> Vec<f32> {
        kept.iter().flat_map(|at| overlay.a.get(at * wide..(at + 1) * wide).unwrap_or(&[])).copied().collect()
    };
    let dim16 = dimension(view)?;
    let all = Delta {
        dim: dim16,
        ids: sorted,
        changes: Changes::LowRank {
            rank: overlay.rank,
            scale: overlay.scale,
            a: factors(&order),
            b: overlay.b.to_vec(),
        },
    };
    let (mut kept, mut kept_ids, mut full) = (Vec::new(), Vec::new(), Vec::new());
    let mut row = Vec::with_capacity(4 * dim);
    for ((at, id), source) in all.ids.iter().enumerate().zip(&order) {
        let Some(place) = resolved.find(*id) else { return Err(Error::NoSuchId { id: *id }) };
        row.clear();
        all.apply(at, resolved.vector(place), &mut row);
        let infinite =
            row.as_chunks::<4>().0.iter().position(|bytes| !f32::from_le_bytes(*bytes).is_finite());
        if let Some(component) = infinite {
            return Err(Error::NotFinite { row: *source as u64, component });
        }
        if place.layer > 0 && view.delta_rows(*id) < MAX_ROWS_PER_ID {
            kept.push(*source);
            kept_ids.push(*id);
        } else {
            full.push((*id, row.clone()));
        }
    }
    let changes = Changes::LowRank {
        rank: overlay.rank,
        scale: overlay.scale,
        a: factors(&kept),
        b: overlay.b.to_vec(),
    };
    Ok(Planned { delta: Delta { dim: dim16, ids: kept_ids, changes }, full })
}
