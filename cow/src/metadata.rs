//! Metadata of a view: records by id, and field names.

use std::collections::BTreeMap;
use std::sync::Arc;

use rvf_format::meta::{MetaState, Value};
use rvf_index::filter;

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
}

impl Metadata {
    pub(crate) fn new(state: Arc<MetaState>) -> Self {
        let names = field_names(&state);
        Self { state, names }
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
