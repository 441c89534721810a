//! What the writer remembers of the metadata between commits: the records as they are, the numbers of the fields and their
//! types. A commit writes what changed against it.

use std::collections::BTreeMap;

use rvf_format::meta::{self, MetaState, Value};

use crate::error::Error;
use crate::metadata::{field_id, field_names};
use crate::types::Fields;
use crate::view::View;
use crate::write::format_error;

/// Deltas after which the metadata are written in full again, as the existing tools do.
const DELTAS_PER_SNAPSHOT: u32 = 32;

/// Bytes of metadata chain after which they are written in full again.
const CHAIN_BYTES: u64 = 128 << 20;

/// What the writer knows of the metadata after its last commit.
#[derive(Debug)]
pub(crate) struct MetaCache {
    pub(crate) generation: u64,
    pub(crate) state: MetaState,
    names: BTreeMap<u16, String>,
    kinds: BTreeMap<u16, Kind>,
}

/// The type of a metadata field; a field keeps one type for the life of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    String,
    Bytes,
    I64,
    U64,
    F64,
    Bool,
}

impl Kind {
    fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Null => return None,
            Value::String(_) => Self::String,
            Value::Bytes(_) => Self::Bytes,
            Value::I64(_) => Self::I64,
            Value::U64(_) => Self::U64,
            Value::F64(_) => Self::F64,
            Value::Bool(_) => Self::Bool,
        })
    }

    fn word(self) -> &'static str {
        match self {
            Self::String => "text",
            Self::Bytes => "bytes",
            Self::I64 => "signed integers",
            Self::U64 => "unsigned integers",
            Self::F64 => "numbers with a fraction",
            Self::Bool => "true/false",
        }
    }

    /// The kind that can hold both without loss, as far as kinds tell.
    fn join(self, other: Self) -> Option<Self> {
        match (self, other) {
            (a, b) if a == b => Some(a),
            (Self::I64, Self::U64) | (Self::U64, Self::I64) => Some(Self::I64),
            (Self::F64, Self::I64 | Self::U64) | (Self::I64 | Self::U64, Self::F64) => Some(Self::F64),
            _ => None,
        }
    }

    /// `value` as this kind, or `None` when it would not be the same value.
    fn convert(self, value: Value) -> Option<Value> {
        Some(match (self, value) {
            (_, Value::Null) => Value::Null,
            (Self::I64, Value::U64(v)) => Value::I64(i64::try_from(v).ok()?),
            (Self::U64, Value::I64(v)) => Value::U64(u64::try_from(v).ok()?),
            (Self::F64, Value::U64(v)) => Value::F64(exact_f64(i128::from(v))?),
            (Self::F64, Value::I64(v)) => Value::F64(exact_f64(i128::from(v))?),
            (kind, value) if Self::of(&value) == Some(kind) => value,
            _ => return None,
        })
    }
}

fn learn_kinds(state: &MetaState, kinds: &mut BTreeMap<u16, Kind>) {
    for record in state.records.values() {
        for (field, value) in record {
            if let Some(kind) = Kind::of(value) {
                kinds.entry(*field).or_insert(kind);
            }
        }
    }
}

fn exact_f64(v: i128) -> Option<f64> {
    let f = v as f64;
    (f as i128 == v).then_some(f)
}

impl MetaCache {
    fn of(view: &View) -> Self {
        let state = match view.meta.get() {
            Some(decoded) if !view.is_child() => MetaState::clone(decoded.state()),
            _ => match view.parent_view() {
                // In a child of the existing tools the first metadata segment hides the parent's, so it has to repeat
                // them.
                Some(parent) if view.pin().is_none() && view.contents.meta_entries.is_empty() => {
                    let mut state = MetaState::clone(parent.metadata().state());
                    state.records.retain(|id, _| view.resolved().find(*id).is_some());
                    MetaState { generation: 0, deltas_since_snapshot: 0, chain_bytes: 0, ..state }
                }
                _ => view.own_metadata(),
            },
        };
        let mut names = field_names(&state);
        let mut kinds = BTreeMap::new();
        learn_kinds(&state, &mut kinds);
        // A child goes on with the numbers and types that its ancestors gave to fields.
        let mut above = view.parent_view();
        while let Some(ancestor) = above {
            let state = ancestor.metadata().state();
            for (field, name) in field_names(state) {
                names.entry(field).or_insert(name);
            }
            learn_kinds(state, &mut kinds);
            above = ancestor.parent_view();
        }
        Self { generation: view.generation, state, names, kinds }
    }

    /// Field numbers and values for named fields, each converted to its field's kind.
    pub(crate) fn record(
        &mut self,
        fields: &Fields,
        row: u64,
        file: &mut BTreeMap<String, Value>,
    ) -> Result<BTreeMap<u16, Value>, Error> {
        let mut record = BTreeMap::new();
        for (name, value) in fields {
            let kinds = &self.kinds;
            let id = field_id(&mut self.names, file, &|id| kinds.contains_key(&id), name)?;
            if let Value::F64(v) = value
                && !v.is_finite()
            {
                return Err(Error::Invalid {
                    what: format!("row {row}: field '{name}' is not a finite number"),
                });
            }
            let value = match self.kinds.get(&id) {
                None => value.clone(),
                Some(kind) => kind.convert(value.clone()).ok_or_else(|| Error::Invalid {
                    what: format!(
                        "row {row}: field '{name}' holds {} in this store, not {value:?}",
                        kind.word()
                    ),
                })?,
            };
            if record.insert(id, value).is_some() {
                return Err(Error::Invalid { what: format!("row {row}: field '{name}' is given twice") });
            }
        }
        Ok(record)
    }

    /// Decides the kind of fields that are new with this batch, so that one odd value late in a
    /// batch does not clash with the first.
    pub(crate) fn learn(
        &mut self,
        metadata: &[Fields],
        file: &mut BTreeMap<String, Value>,
    ) -> Result<(), Error> {
        let mut fresh: BTreeMap<&str, Kind> = BTreeMap::new();
        for (row, fields) in metadata.iter().enumerate() {
            for (name, value) in fields {
                let Some(kind) = Kind::of(value) else { continue };
                match fresh.get_mut(name.as_str()) {
                    None => {
                        fresh.insert(name, kind);
                    }
                    Some(known) => {
                        *known = known.join(kind).ok_or_else(|| Error::Invalid {
                            what: format!(
                                "row {row}: field '{name}' holds {} here and {} in earlier rows; \
                                 a field has one type",
                                kind.word(),
                                known.word()
                            ),
                        })?;
                    }
                }
            }
        }
        for (name, kind) in fresh {
            let kinds = &self.kinds;
            let id = field_id(&mut self.names, file, &|id| kinds.contains_key(&id), name)?;
            self.kinds.entry(id).or_insert(kind);
        }
        Ok(())
    }

    /// The payload of the next generation, and the state after it.
    pub(crate) fn advance(
        &mut self,
        changes: BTreeMap<u64, Option<BTreeMap<u16, Value>>>,
        file: BTreeMap<String, Value>,
    ) -> Result<Vec<u8>, Error> {
        let state = &mut self.state;
        let damaged = state.dropped_generations > 0 || state.dropped_records > 0;
        let generation = state.generation + state.dropped_generations + 1;
        let full = state.generation == 0
            || damaged
            || state.deltas_since_snapshot >= DELTAS_PER_SNAPSHOT
            || state.chain_bytes > CHAIN_BYTES;
        // Only the records that change go through the delta encoder: O(changes), not O(store).
        let mut old =
            MetaState { generation: state.generation, file: state.file.clone(), ..MetaState::default() };
        let mut new = MetaState { generation, file: state.file.clone(), ..MetaState::default() };
        new.file.extend(file.clone());
        for (id, record) in changes {
            match &record {
                Some(record) => {
                    new.records.insert(id, record.clone());
                }
                None if !state.records.contains_key(&id) => continue,
                None => {}
            }
            let before = match record {
                Some(record) => state.records.insert(id, record),
                None => state.records.remove(&id),
            };
            if let Some(before) = before {
                old.records.insert(id, before);
            }
        }
        state.file.extend(file);
        let payload =
            if full { meta::encode_snapshot(state, generation) } else { meta::encode_delta(&old, &new) }
                .map_err(format_error)?;
        state.generation = generation;
        state.dropped_generations = 0;
        state.dropped_records = 0;
        if full {
            state.deltas_since_snapshot = 0;
            state.chain_bytes = payload.len() as u64;
        } else {
            state.deltas_since_snapshot += 1;
            state.chain_bytes += payload.len() as u64;
        }
        Ok(payload)
    }

    /// The state, for a full rewrite of the file.
    pub(crate) fn state(&self) -> &MetaState {
        &self.state
    }
}

/// All metadata that a store shows, its ancestors' included, as the first generation of another file; `None` without any.
/// Fields keep their numbers. O(records).
pub(crate) fn metadata_copy(view: &View) -> Result<Option<Vec<u8>>, Error> {
    if !view.has_metadata() {
        return Ok(None);
    }
    let mut cache = MetaCache::of(view);
    let mut file = BTreeMap::new();
    let mut above = Some(view);
    while let Some(state) = above.map(|view| view.metadata().state()) {
        for (key, value) in &state.file {
            file.entry(key.clone()).or_insert_with(|| value.clone());
        }
        above = above.and_then(|view| view.parent_view()).map(|parent| &**parent);
    }
    for (id, name) in &cache.names {
        file.insert(format!("{}{id}", crate::metadata::FIELD_NAME_KEY), Value::String(name.clone()));
    }
    cache.state = MetaState::default();
    let mut changes = BTreeMap::new();
    for id in view.metadata_ids() {
        let fields = view.fields(id).unwrap_or_default();
        changes.insert(id, Some(cache.record(&fields, id, &mut file)?));
    }
    if changes.is_empty() && file.is_empty() {
        return Ok(None);
    }
    cache.advance(changes, file).map(Some)
}

pub(crate) fn cache_of<'c>(slot: &'c mut Option<MetaCache>, view: &View) -> &'c mut MetaCache {
    if slot.as_ref().is_none_or(|c| c.generation != view.generation) {
        *slot = None;
    }
    slot.get_or_insert_with(|| MetaCache::of(view))
}
