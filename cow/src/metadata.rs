//! Metadata of a view: records by id, field names, and the columns that filters run over.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use rvf_format::meta::{MetaState, Value};
use rvf_index::filter::{self, Cached, Columns, ColumnsBuilder, Expr, FieldRef, FilterCache};
use rvf_index::Bitmap;

use crate::error::Error;
use crate::types::Fields;

/// Key of the file metadata entry that names a field: `rvf-mount.field.<id>`. The existing tools
/// number fields and keep file metadata entries they do not know, so a name stored here survives
/// their writes.
pub(crate) const FIELD_NAME_KEY: &str = "rvf-mount.field.";

/// Metadata of the live vectors, decoded once.
#[derive(Debug)]
pub(crate) struct Metadata {
    state: Arc<MetaState>,
    names: BTreeMap<u16, String>,
    columns: OnceLock<Columns>,
    filters: FilterCache,
}

impl Metadata {
    pub(crate) fn new(state: Arc<MetaState>) -> Self {
        let names = field_names(&state);
        Self { state, names, columns: OnceLock::new(), filters: FilterCache::default() }
    }

    pub(crate) fn state(&self) -> &Arc<MetaState> {
        &self.state
    }

    /// Name of a field: the stored name, or `field.<id>`.
    pub(crate) fn name(&self, id: u16) -> String {
        self.names.get(&id).cloned().unwrap_or_else(|| format!("field.{id}"))
    }

    pub(crate) fn names(&self) -> &BTreeMap<u16, String> {
        &self.names
    }

    pub(crate) fn fields(&self, id: u64) -> Option<Fields> {
        let record = self.state.records.get(&id)?;
        Some(record.iter().map(|(field, value)| (self.name(*field), value.clone())).collect())
    }

    /// The rows of `live` that match a filter, as a bitmap over all ordinals.
    pub(crate) fn matching(
        &self,
        text: &str,
        live: &Bitmap,
        find: &dyn Fn(u64) -> Option<u32>,
    ) -> Result<Arc<Bitmap>, Error> {
        if let Some(hit) = self.filters.get(text) {
            return Ok(hit.rows);
        }
        let expr = parse(text)?;
        let columns = self.columns.get_or_init(|| self.build_columns(live.len(), find));
        let mut bitmap = columns.eval(&expr).map_err(|e| Error::BadFilter { what: e.to_string() })?;
        // A row without metadata matches `!=` and NOT; a dead row must match nothing.
        bitmap.and(live);
        let bitmap = Arc::new(bitmap);
        self.filters.insert(text, Cached { expr: Arc::new(expr), rows: Arc::clone(&bitmap) });
        Ok(bitmap)
    }

    /// Names in a filter that no record of this store has.
    pub(crate) fn unknown_fields(&self, text: &str) -> Result<Vec<String>, Error> {
        let expr = parse(text)?;
        let mut unknown: Vec<String> = expr
            .fields()
            .into_iter()
            .filter_map(|field| match field {
                FieldRef::Name(name) if !self.names.values().any(|n| n == name) => Some(name.clone()),
                FieldRef::Name(_) | FieldRef::Id(_) => None,
            })
            .collect();
        unknown.dedup();
        Ok(unknown)
    }

    fn build_columns(&self, total: u32, find: &dyn Fn(u64) -> Option<u32>) -> Columns {
        let mut builder = ColumnsBuilder::new(total);
        let mut seen = std::collections::BTreeSet::new();
        for (id, record) in &self.state.records {
            let Some(row) = find(*id) else { continue };
            for (field, value) in record {
                if seen.insert(*field) {
                    builder.field(*field, &self.name(*field));
                }
                // `find` gives rows of the table, so only a field with more than 4 GiB of text can
                // fail; it is then missing from filters, never wrong in them.
                if let Err(e) = builder.set(row, *field, to_filter_value(value)) {
                    tracing::warn!(field = *field, error = %e, "value left out of filters");
                }
            }
        }
        for (field, name) in &self.names {
            if seen.insert(*field) {
                builder.field(*field, name);
            }
        }
        builder.build()
    }
}

fn parse(text: &str) -> Result<Expr, Error> {
    filter::parse(text).map_err(|e| Error::BadFilter { what: e.to_string() })
}

/// Field names of a metadata state: file metadata first, then schema names other than `field.<id>`.
pub(crate) fn field_names(state: &MetaState) -> BTreeMap<u16, String> {
    let mut names = state.field_names.clone();
    for (key, value) in &state.file {
        if let (Some(id), Value::String(name)) = (key.strip_prefix(FIELD_NAME_KEY), value)
            && let Ok(id) = id.parse()
        {
            names.insert(id, name.clone());
        }
    }
    names
}

/// The number of a field name in `state`, given one if it has none. `field.<n>` is number n.
pub(crate) fn field_id(
    names: &mut BTreeMap<u16, String>,
    state_file: &mut BTreeMap<String, Value>,
    used: &dyn Fn(u16) -> bool,
    name: &str,
) -> Result<u16, Error> {
    if let Some((id, _)) = names.iter().find(|(_, n)| *n == name) {
        return Ok(*id);
    }
    if let Some(id) = name.strip_prefix("field.").and_then(|n| n.parse::<u16>().ok()) {
        return Ok(id);
    }
    if name.is_empty() || name.len() > 4096 {
        return Err(Error::Invalid {
            what: format!("a field name must have 1 to 4096 bytes, this one has {}", name.len()),
        });
    }
    let id = (0..=u16::MAX)
        .find(|id| !names.contains_key(id) && !used(*id))
        .ok_or_else(|| Error::TooLarge { what: "more than 65,536 metadata fields".into() })?;
    names.insert(id, name.to_owned());
    state_file.insert(format!("{FIELD_NAME_KEY}{id}"), Value::String(name.to_owned()));
    Ok(id)
}

pub(crate) fn to_filter_value(value: &Value) -> filter::Value {
    match value {
        Value::Null => filter::Value::Null,
        Value::String(s) => filter::Value::String(s.clone()),
        Value::Bytes(b) => filter::Value::Bytes(b.clone()),
        Value::I64(v) => filter::Value::I64(*v),
        Value::U64(v) => filter::Value::U64(*v),
        Value::F64(v) => filter::Value::F64(*v),
        Value::Bool(v) => filter::Value::Bool(*v),
    }
}
