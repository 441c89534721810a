//! Metadata of a child: its own records over its ancestors'.
//!
//! In a pinned child a record of its own replaces the inherited one of the same id, an empty one removes
//! it, and an id that the child once deleted inherits nothing any more. Records are written for ids that
//! have a row of their own only: changing a record of an inherited vector copies its row. In a child of the
//! existing tools the first metadata segment hides all of the parent's, which is their rule.

use std::collections::BTreeMap;

use rvf_format::meta::{self, MetaState, Value};
use rvf_index::Bitmap;
use rvf_index::filter::{self, Expr, FieldRef};

use crate::branch::resolve::{Layer, Place};
use crate::error::Error;
use crate::metadata::to_filter_value;
use crate::types::Fields;
use crate::view::View;

impl View {
    /// The metadata that the file itself holds. Never fails: what cannot be read becomes a finding.
    pub(crate) fn own_metadata(&self) -> MetaState {
        let old_child = self.parent.is_some() && self.pin.is_none();
        let resolved = self.resolved();
        meta::replay(self.bytes(), &self.contents.meta_entries, &|id| {
            self.find(id).is_some() || (old_child && resolved.find(id).is_some())
        })
    }

    /// Metadata of the file's own rows as they are shown; for a child of the existing tools, of all rows.
    pub(crate) fn replay_metadata(&self) -> MetaState {
        let own = self.own_metadata();
        let Some(parent) = self.parent_view() else { return own };
        let inherited = parent.metadata().state();
        if self.pin.is_none() {
            let none = self.contents.meta_entries.is_empty();
            return if none { MetaState::clone(inherited) } else { own };
        }
        let hidden = self.hidden_ids();
        let above = parent.resolved();
        let mut merged = own;
        let mut records = std::mem::take(&mut merged.records);
        for (key, value) in &inherited.file {
            merged.file.entry(key.clone()).or_insert_with(|| value.clone());
        }
        for (field, name) in &inherited.field_names {
            merged.field_names.entry(*field).or_insert_with(|| name.clone());
        }
        for ordinal in self.live_ordinals() {
            let id = self.id(*ordinal);
            let record = match records.remove(&id) {
                Some(record) => Some(record).filter(|record| !record.is_empty()),
                None if hidden.binary_search(&id).is_ok() => None,
                None => above.find(id).and_then(|place| parent.record(place, id)).cloned(),
            };
            if let Some(record) = record {
                merged.records.insert(id, record);
            }
        }
        merged
    }

    /// The ids that the file's own filter hides of its ancestors, ascending; empty without one, or with one that
    /// names what is shown.
    pub(crate) fn hidden_ids(&self) -> Vec<u64> {
        self.contents.cow.as_ref().and_then(|cow| cow.membership.hidden()).unwrap_or_default()
    }

    /// The file of the chain that holds the metadata of a place.
    fn metadata_view(&self, place: Place) -> &View {
        let resolved = self.resolved();
        let younger = place.layer.checked_sub(1).map(|layer| resolved.view_of(Place { layer, ..place }));
        match younger {
            Some(view) if view.pin.is_none() => view,
            _ => resolved.view_of(place),
        }
    }

    /// The record of the vector `id`, which lies at `place`.
    fn record(&self, place: Place, id: u64) -> Option<&BTreeMap<u16, Value>> {
        self.metadata_view(place).metadata().state().records.get(&id)
    }

    /// Metadata of a vector that the store shows, or `None` when it has no record. The first call
    /// decodes those of the file that holds it.
    #[must_use]
    pub fn fields(&self, id: u64) -> Option<Fields> {
        let place = self.resolved().find(id)?;
        self.metadata_view(place).metadata().fields(id)
    }

    /// Ids shown that have a metadata record, ascending.
    #[must_use]
    pub fn metadata_ids(&self) -> Vec<u64> {
        let resolved = self.resolved();
        let own = self.metadata().state().records.keys().copied();
        if !self.is_child() {
            return own.filter(|id| self.find(*id).is_some()).collect();
        }
        let mut ids: Vec<u64> = own.filter(|id| resolved.find(*id).is_some()).collect();
        for (layer, at) in self.layers().unwrap_or(&[]).iter().zip(1u32..) {
            if self.metadata_view(Place { layer: at, ordinal: 0 }).is_same(&layer.view) {
                let keys = layer.view.metadata().state().records.keys().copied();
                ids.extend(keys.filter(|id| resolved.find(*id).is_some_and(|place| place.layer == at)));
            }
        }
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn is_same(&self, layer: &View) -> bool {
        std::ptr::eq(self, layer)
    }

    /// Whether any metadata is listed by the file or, for a child, an ancestor. O(depth).
    #[must_use]
    pub fn has_metadata(&self) -> bool {
        !self.contents.meta_entries.is_empty()
            || self.parent_view().is_some_and(|parent| parent.has_metadata())
    }

    /// Shown ids whose metadata match a filter, in file order, inherited ones first.
    ///
    /// # Errors
    /// [`Error::BadFilter`] when the text does not parse; [`Error::Unsupported`] when an ancestor cannot be read.
    pub fn matching_ids(&self, filter: &str) -> Result<Vec<u64>, Error> {
        self.complete()?;
        let mut ids = Vec::new();
        for (layer, at) in
            self.layers().unwrap_or(&[]).iter().zip(1u32..).collect::<Vec<_>>().into_iter().rev()
        {
            ids.extend(self.layer_matching(layer, at, filter)?.iter().map(|o| layer.view.id(o)));
        }
        ids.extend(self.matching(filter)?.iter().map(|o| self.id(o)));
        Ok(ids)
    }

    /// Rows of an ancestor that are shown and match a filter.
    pub(crate) fn layer_matching(&self, layer: &Layer, at: u32, text: &str) -> Result<Bitmap, Error> {
        let source = self.metadata_view(Place { layer: at, ordinal: 0 });
        if source.is_same(&layer.view) {
            return Ok(layer.restrict(&*layer.view.matching(text)?));
        }
        let expr = filter::parse(text).map_err(|e| Error::BadFilter { what: e.to_string() })?;
        let rows = layer.visible();
        let matching = rows.iter().filter(|ordinal| source.row_matches(&expr, layer.view.id(*ordinal)));
        Ok(Bitmap::from_ordinals(rows.len(), matching))
    }

    fn row_matches(&self, expr: &Expr, id: u64) -> bool {
        let metadata = self.metadata();
        let record: Vec<(u16, filter::Value)> = metadata
            .state()
            .records
            .get(&id)
            .map(|r| r.iter().map(|(field, value)| (*field, to_filter_value(value))).collect())
            .unwrap_or_default();
        filter::matches(expr, |field| {
            let wanted = match field {
                FieldRef::Id(id) => *id,
                FieldRef::Name(name) => *metadata.names().iter().find(|(_, n)| *n == name)?.0,
            };
            record.iter().find(|(field, _)| *field == wanted).map(|(_, value)| value)
        })
    }
}
