//! Commits of a child: what it hides of its ancestors, freezing, a new place of the parent.

use std::path::Path;

use rvf_format::SegType;
use rvf_format::contents::Cow;
use rvf_format::cow_map::CowMap;
use rvf_format::manifest::DirEntry;
use rvf_format::membership::{Membership, Mode};
use rvf_format::recover::Opened;

use crate::branch::create::relative;
use crate::error::Error;
use crate::parent::{self, directory_of};
use crate::store::Store;
use crate::types::Event;
use crate::view::View;
use crate::write::{Commit, WITNESS_CHANGE, format_error};

/// Bytes that dense filters may take in one file, superseded ones included, before a list is written instead.
const DENSE_BYTES: u64 = 64 << 10;

/// Largest dense filter that the existing tools accept.
const DENSE_MAX: u64 = 64 << 20;

/// First bytes of the record that freezes a store without a parent.
pub(crate) const FROZEN_MAGIC: &[u8; 8] = b"RVFFRZ\r\n";

/// The filter of a child that hides `hidden` (ascending) of its ancestors: one that the existing tools read, as long as
/// they would answer the same and it does not bloat the file. `spent` is what earlier dense filters take in it;
/// with `deltas` in the file they would answer with the inherited rows.
fn filter_for(view: &View, hidden: Vec<u64>, spent: u64, deltas: bool) -> Result<Membership, Error> {
    let nested = view.parent_view().is_some_and(|parent| parent.is_child());
    let capacity = hidden.last().map_or(Some(0), |id| id.checked_add(1));
    let dense = capacity.map(|ids| ids.div_ceil(64).saturating_mul(8)).filter(|bytes| *bytes <= DENSE_MAX);
    let refused = nested || deltas;
    let Some((capacity, bytes)) = capacity.zip(dense).filter(|_| !refused) else {
        return Ok(Membership::hiding(hidden));
    };
    let list = Membership::hiding(hidden);
    let fits = bytes + spent <= DENSE_BYTES || bytes <= list.list.len() as u64;
    if !fits {
        return Ok(list);
    }
    let mut filter = Membership::empty(Mode::Exclude, capacity).map_err(format_error)?;
    for id in list.list.iter() {
        filter.set(*id, true);
    }
    Ok(filter)
}

/// The filter of a child after a compaction, which forgets the list of deleted ids: those that an ancestor has must be
/// hidden by the filter then.
pub(crate) fn compacted_filter(view: &View, cow: &Cow) -> Result<Membership, Error> {
    let Some(parent) = view.parent_view() else { return Ok(cow.membership.clone()) };
    let above = parent.resolved();
    let dead = view.deleted_ids.iter().copied().filter(|id| above.find(*id).is_some());
    match cow.membership.hidden() {
        Some(mut hidden) => {
            hidden.extend(dead);
            hidden.sort_unstable();
            hidden.dedup();
            filter_for(view, hidden, 0, false)
        }
        None => {
            let mut filter = cow.membership.clone();
            for id in dead {
                filter.set(id, false);
            }
            Ok(filter)
        }
    }
}

/// What earlier filters take in the file.
fn spent(view: &View) -> u64 {
    let all = view.opened.layout.segments().filter(|s| s.kind() == SegType::MEMBERSHIP);
    all.map(|s| (s.payload.end - s.payload.start).saturating_sub(96)).sum()
}

/// The filter after hiding more ids, or `None` when nothing changes.
fn hiding(view: &View, ids: &[u64]) -> Result<Option<Membership>, Error> {
    let Some(cow) = &view.contents.cow else { return Ok(None) };
    let fresh: Vec<u64> = ids.iter().copied().filter(|id| cow.membership.shows(*id)).collect();
    if fresh.is_empty() {
        return Ok(None);
    }
    match cow.membership.hidden() {
        Some(mut hidden) => {
            hidden.extend(fresh);
            hidden.sort_unstable();
            hidden.dedup();
            filter_for(view, hidden, spent(view), view.has_deltas()).map(Some)
        }
        None => {
            let mut filter = cow.membership.clone();
            for id in fresh {
                filter.set(id, false);
            }
            Ok(Some(filter))
        }
    }
}

impl Commit<'_> {
    /// Hides ids of the ancestors from here on. Ids that they do not have, or that are hidden already, cost nothing.
    pub(crate) fn hide(&mut self, ids: &[u64]) -> Result<(), Error> {
        let view = std::sync::Arc::clone(&self.view);
        let Some(cow) = &view.contents.cow else { return Ok(()) };
        if let Some(filter) = hiding(&view, ids)? {
            self.put_cow(&cow.map, &filter)?;
        }
        Ok(())
    }

    /// Appends the pair that says what the file is to its parent, and takes the older ones off the directory: the last
    /// pair counts, and a directory that lists them all would grow with every commit.
    pub(crate) fn put_cow(&mut self, map: &CowMap, filter: &Membership) -> Result<(), Error> {
        let old = |entry: &DirEntry| matches!(entry.kind(), SegType::COW_MAP | SegType::MEMBERSHIP);
        self.base.directory.retain(|entry| !old(entry));
        self.append(SegType::COW_MAP, &[&map.encode().map_err(format_error)?])?;
        self.append(SegType::MEMBERSHIP, &[&filter.encode().map_err(format_error)?])?;
        Ok(())
    }
}

/// The epoch in the record that freezes a store without a COW_MAP.
pub(crate) fn frozen_record(bytes: &[u8], opened: &Opened) -> Option<u32> {
    let manifest = &opened.manifest.as_ref()?.manifest;
    let payload = manifest
        .entries_of(SegType::META_IDX)
        .rev()
        .filter_map(|entry| opened.layout.segment_at_offset(entry.offset))
        .map(|segment| segment.payload_of(bytes))
        .find(|payload| payload.starts_with(FROZEN_MAGIC))?;
    Some(payload.get(8..)?.first_chunk::<4>().map_or(0, |b| u32::from_le_bytes(*b)))
}

impl View {
    /// The epoch at which the store was frozen, when it was.
    #[must_use]
    pub fn frozen(&self) -> Option<u32> {
        if let Some(cow) = &self.contents.cow {
            return cow.map.frozen.then_some(cow.map.snapshot_epoch);
        }
        frozen_record(self.bytes(), &self.opened)
    }

    /// Whether the existing tools can open the file and then answer as we do, or why not.
    ///
    /// # Errors
    /// The reason, in one sentence.
    pub fn reference_opens(&self) -> Result<(), String> {
        let columns = |block: &rvf_format::contents::VecBlock| {
            use rvf_format::Rows::{Columns, Unread};
            block.segment.kind() == SegType::VEC && matches!(block.rows, Columns(_) | Unread)
        };
        if self.blocks.iter().any(columns) {
            return Err(crate::branch::copy::COLUMNS.into());
        }
        let Some(parent) = &self.parent else { return Ok(()) };
        let parent = parent.as_ref().map_err(Clone::clone)?;
        match self.contents.cow.as_ref().map(|cow| cow.membership.mode) {
            None => return Err("the record of its parent is damaged".into()),
            Some(Mode::Sparse) if self.has_deltas() => {
                return Err(
                    "it stores vectors as changes of inherited ones (DELTA), which the existing tools pass over; \
                     `rvf compact` writes them in full"
                        .into(),
                );
            }
            Some(Mode::Sparse) if parent.view.is_child() => {
                return Err(
                    "its parent is a branch itself, and the existing tools look at one level only".into()
                );
            }
            Some(Mode::Sparse) => {
                return Err(
                    "the ids that it hides of its parent are too large or too many for a bitmap".into()
                );
            }
            Some(Mode::Include | Mode::Exclude) => {}
        }
        if !parent.unchanged {
            return Err("its parent has changed since, and the existing tools need it unchanged".into());
        }
        parent.view.reference_opens().map_err(|why| format!("its parent: {why}"))
    }
}

impl Store {
    /// Freezes the store for good: every later change of the file is refused, also after it was opened again. A frozen
    /// store can be branched. Returns the epoch; a store that is frozen already stays as it is.
    ///
    /// # Errors
    /// As [`Store::ingest`].
    pub fn freeze(&self) -> Result<u32, Error> {
        self.refresh()?;
        if let Some(epoch) = self.view().frozen() {
            return Ok(epoch);
        }
        let ((), view) = self.append(|commit, _| {
            let epoch = commit.epoch();
            let view = std::sync::Arc::clone(&commit.view);
            match &view.contents.cow {
                Some(cow) => {
                    let map = CowMap { frozen: true, snapshot_epoch: epoch, ..cow.map.clone() };
                    commit.put_cow(&map, &cow.membership)?;
                }
                None => {
                    commit.append(SegType::META_IDX, &[FROZEN_MAGIC, &epoch.to_le_bytes()])?;
                }
            }
            commit.witness(&format!("freeze:epoch={epoch}"), WITNESS_CHANGE)?;
            let manifest = commit.manifest();
            commit.finish(&manifest)
        })?;
        let epoch = view.epoch();
        self.notify(&Event { kind: "freeze", epoch, detail: Vec::new() });
        Ok(epoch)
    }

    /// Records a new place of the parent, after both were moved apart. The file there must hold the very state that the
    /// child was made from, or have it beside it, where a compaction keeps it. Returns the epoch.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it does not, or when this store has no parent; otherwise as [`Store::ingest`].
    pub fn reparent(&self, parent: &Path) -> Result<u32, Error> {
        let ((), view) = self.append_unresolved(|commit, _| {
            let view = std::sync::Arc::clone(&commit.view);
            let Some(cow) = &view.contents.cow else {
                return Err(Error::Invalid { what: format!("{}: has no parent", view.path.display()) });
            };
            let own = [(view.stamp.dev, view.stamp.ino)];
            parent::find_at(parent, cow, view.pin.as_ref(), &own).map_err(|what| Error::Invalid { what })?;
            let place = relative(directory_of(&view.path), parent)?;
            let map = CowMap { parent_path: place, ..cow.map.clone() };
            commit.put_cow(&map, &cow.membership)?;
            commit.witness(&format!("reparent:epoch={}", commit.epoch()), WITNESS_CHANGE)?;
            let manifest = commit.manifest();
            commit.finish(&manifest)
        })?;
        let epoch = view.epoch();
        self.notify(&Event { kind: "reparent", epoch, detail: Vec::new() });
        Ok(epoch)
    }
}
