//! Metadata states and decoded generations to META payloads.

use super::decode::{Field, Generation, Record};
use super::{MAGIC, MAX_VALUE, MetaState, TRAILER_MAGIC, Value};
use crate::checksum::sha256;
use crate::error::{Error, Result, codes};
use crate::header::MAX_PAYLOAD;
use std::collections::BTreeMap;

/// The payload of a full snapshot of every record, empty ones included, and of all file metadata. O(state).
///
/// # Errors
/// [`Error::Caller`] (0x0105) when a field has values of two types (the message names the field), a number is not
/// finite, or a limit of the format is passed.
pub fn encode_snapshot(state: &MetaState, generation: u64) -> Result<Vec<u8>> {
    let mut schema = Schema::default();
    for (id, fields) in &state.records {
        for (field, value) in fields {
            schema.see(*id, *field, Some(value))?;
        }
    }
    let mut out = Encoder::new(true, generation, u64::MAX, &schema, &state.field_names)?;
    out.counts(state.file.len(), state.records.len())?;
    for (key, value) in &state.file {
        out.key(key, Some(value))?;
    }
    for (id, fields) in &state.records {
        out.record(*id, fields.len())?;
        for (field, value) in fields {
            out.field(*field, Some(value))?;
        }
    }
    out.finish()
}

/// The payload of the delta from `old` to `new`, with generation `old.generation + 1`: changed and removed fields,
/// removed records, changed and removed file metadata. O(both states).
///
/// # Errors
/// As [`encode_snapshot`]; a field that has two types anywhere in `new` is refused too, because no later snapshot
/// could be written.
pub fn encode_delta(old: &MetaState, new: &MetaState) -> Result<Vec<u8>> {
    let mut whole = Schema::default();
    for (id, fields) in &new.records {
        for (field, value) in fields {
            whole.see(*id, *field, Some(value))?;
        }
    }
    let mut schema = Schema::default();
    let mut records: Vec<(u64, Option<FieldChanges<'_>>)> = Vec::new();
    for (id, fields) in &new.records {
        let before = old.records.get(id);
        let changes = changed_fields(before, fields);
        if before.is_none() || !changes.is_empty() {
            for (field, value) in &changes {
                schema.see(*id, *field, *value)?;
            }
            records.push((*id, Some(changes)));
        }
    }
    records.extend(old.records.keys().filter(|id| !new.records.contains_key(id)).map(|id| (*id, None)));
    records.sort_unstable_by_key(|(id, _)| *id);

    let mut keys: Vec<(&String, Option<&Value>)> = new
        .file
        .iter()
        .filter(|(key, value)| old.file.get(*key) != Some(value))
        .map(|(k, v)| (k, Some(v)))
        .collect();
    keys.extend(old.file.keys().filter(|key| !new.file.contains_key(*key)).map(|key| (key, None)));
    keys.sort_unstable_by_key(|(key, _)| key.as_bytes());

    let generation = old
        .generation
        .checked_add(1)
        .ok_or_else(|| Error::caller(codes::INVALID_MANIFEST, "metadata generations are used up"))?;
    let mut out = Encoder::new(false, generation, old.generation, &schema, &new.field_names)?;
    out.counts(keys.len(), records.len())?;
    for (key, value) in keys {
        out.key(key, value)?;
    }
    for (id, changes) in records {
        match changes {
            Some(changes) => {
                out.record(id, changes.len())?;
                for (field, value) in changes {
                    out.field(field, value)?;
                }
            }
            None => out.delete(id),
        }
    }
    out.finish()
}

/// The payload of a decoded generation, with its schema as it stands. Decoding and encoding again gives the same
/// bytes.
///
/// # Errors
/// [`Error::Caller`] (0x0105) when a limit of the format is passed.
pub fn encode_generation(generation: &Generation) -> Result<Vec<u8>> {
    let names: BTreeMap<u16, String> = generation.schema.iter().map(|f| (f.id, f.name.clone())).collect();
    let schema = Schema {
        fields: generation
            .schema
            .iter()
            .map(|f| (f.id, Seen { kind: Some(f.kind), nullable: f.nullable }))
            .collect(),
    };
    let base = generation.base.unwrap_or(u64::MAX);
    let mut out = Encoder::new(generation.full, generation.number, base, &schema, &names)?;
    out.counts(generation.file.len(), generation.records.len())?;
    for (key, value) in &generation.file {
        out.key(key, value.as_ref())?;
    }
    for (id, record) in &generation.records {
        match record {
            Record::Upsert(fields) => {
                out.record(*id, fields.len())?;
                for (field, change) in fields {
                    out.field(*field, change.as_ref())?;
                }
            }
            Record::Delete => out.delete(*id),
        }
    }
    out.finish()
}

/// Fields with their new values, `None` for a removed one.
type FieldChanges<'a> = Vec<(u16, Option<&'a Value>)>;

fn changed_fields<'a>(
    before: Option<&BTreeMap<u16, Value>>,
    now: &'a BTreeMap<u16, Value>,
) -> FieldChanges<'a> {
    let same =
        |field: &u16, value: &Value| before.and_then(|old| old.get(field)).is_some_and(|old| old.same(value));
    let mut out: Vec<(u16, Option<&Value>)> = now
        .iter()
        .filter(|(field, value)| !same(field, value))
        .map(|(field, value)| (*field, Some(value)))
        .collect();
    if let Some(before) = before {
        out.extend(before.keys().filter(|field| !now.contains_key(field)).map(|field| (*field, None)));
        out.sort_unstable_by_key(|(field, _)| *field);
    }
    out
}

#[derive(Clone, Copy, Default)]
struct Seen {
    kind: Option<u8>,
    nullable: bool,
}

#[derive(Default)]
struct Schema {
    fields: BTreeMap<u16, Seen>,
}

impl Schema {
    fn see(&mut self, id: u64, field: u16, value: Option<&Value>) -> Result<()> {
        let seen = self.fields.entry(field).or_default();
        match value {
            None => {}
            Some(Value::Null) => seen.nullable = true,
            Some(value) => match seen.kind {
                None => seen.kind = Some(value.tag()),
                Some(kind) if kind == value.tag() => {}
                Some(kind) => {
                    let text = format!(
                        "field {field} of vector {id} is {}, but other values of the field are {}; a field has one type",
                        Field::kind_name(value.tag()),
                        Field::kind_name(kind)
                    );
                    return Err(Error::caller(codes::INVALID_MANIFEST, text));
                }
            },
        }
        Ok(())
    }
}

impl Field {
    /// `string`, `bytes`, `i64`, `u64`, `f64` or `bool`.
    pub fn kind_name(kind: u8) -> &'static str {
        match kind {
            1 => "string",
            2 => "bytes",
            3 => "i64",
            4 => "u64",
            5 => "f64",
            6 => "bool",
            _ => "unknown",
        }
    }
}

struct Encoder {
    out: Vec<u8>,
}

impl Encoder {
    fn new(
        full: bool,
        generation: u64,
        base: u64,
        schema: &Schema,
        names: &BTreeMap<u16, String>,
    ) -> Result<Self> {
        let mut this = Self { out: Vec::with_capacity(256) };
        let out = &mut this.out;
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&1u16.to_le_bytes());
        out.extend_from_slice(&u16::from(full).to_le_bytes());
        out.extend_from_slice(&generation.to_le_bytes());
        out.extend_from_slice(&base.to_le_bytes());
        out.extend_from_slice(&(schema.fields.len() as u32).to_le_bytes());
        // Counts of keys and records come in between, see `counts`.
        out.extend_from_slice(&[0; 8]);
        for (id, seen) in &schema.fields {
            let default = format!("field.{id}");
            let name = names.get(id).unwrap_or(&default).as_bytes();
            let len =
                u16::try_from(name.len()).ok().filter(|len| (1..=4096).contains(len)).ok_or_else(|| {
                    invalid(format!("name of field {id} has {} bytes; 1 to 4096 are possible", name.len()))
                })?;
            out.extend_from_slice(&id.to_le_bytes());
            // A field that is only ever null or removed is declared a string, as the reference does.
            out.extend_from_slice(&[seen.kind.unwrap_or(1), u8::from(seen.nullable)]);
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(name);
        }
        Ok(this)
    }

    fn counts(&mut self, keys: usize, records: usize) -> Result<()> {
        if keys > 65536 {
            return Err(invalid(format!("{keys} file metadata entries; at most 65536 are possible")));
        }
        if records > 1 << 24 {
            return Err(invalid(format!(
                "{records} metadata records; at most 16777216 fit in one generation"
            )));
        }
        self.out[0x20..0x24].copy_from_slice(&(keys as u32).to_le_bytes());
        self.out[0x24..0x28].copy_from_slice(&(records as u32).to_le_bytes());
        Ok(())
    }

    fn key(&mut self, key: &str, value: Option<&Value>) -> Result<()> {
        let len = u16::try_from(key.len()).map_err(|_| invalid(format!("key of {} bytes", key.len())))?;
        self.out.extend_from_slice(&len.to_le_bytes());
        self.out.extend_from_slice(key.as_bytes());
        self.value(value)
    }

    fn record(&mut self, id: u64, fields: usize) -> Result<()> {
        self.fits()?;
        self.out.extend_from_slice(&id.to_le_bytes());
        self.out.push(0);
        self.out.extend_from_slice(&(fields as u32).to_le_bytes());
        Ok(())
    }

    fn delete(&mut self, id: u64) {
        self.out.extend_from_slice(&id.to_le_bytes());
        self.out.extend_from_slice(&[1, 0, 0, 0, 0]);
    }

    fn field(&mut self, field: u16, value: Option<&Value>) -> Result<()> {
        self.out.extend_from_slice(&field.to_le_bytes());
        self.value(value)
    }

    fn value(&mut self, change: Option<&Value>) -> Result<()> {
        let out = &mut self.out;
        let Some(value) = change else {
            out.push(7);
            return Ok(());
        };
        out.push(value.tag());
        match value {
            Value::Null => {}
            Value::String(text) => sized(out, text.as_bytes())?,
            Value::Bytes(bytes) => sized(out, bytes)?,
            Value::I64(number) => out.extend_from_slice(&number.to_le_bytes()),
            Value::U64(number) => out.extend_from_slice(&number.to_le_bytes()),
            Value::F64(number) if number.is_finite() => out.extend_from_slice(&number.to_le_bytes()),
            Value::F64(number) => {
                return Err(invalid(format!("{number} cannot be stored; numbers must be finite")));
            }
            Value::Bool(flag) => out.push(u8::from(*flag)),
        }
        Ok(())
    }

    fn fits(&self) -> Result<()> {
        if self.out.len() as u64 + 40 > MAX_PAYLOAD {
            return Err(Error::caller(
                codes::SEGMENT_TOO_LARGE,
                "metadata of one generation is above 256 MiB",
            ));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.fits()?;
        let digest = sha256(&self.out);
        self.out.extend_from_slice(&TRAILER_MAGIC);
        self.out.extend_from_slice(&digest);
        Ok(self.out)
    }
}

fn sized(out: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    if bytes.len() > MAX_VALUE {
        return Err(invalid(format!("value of {} bytes; at most 16 MiB are possible", bytes.len())));
    }
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

fn invalid(text: String) -> Error {
    Error::caller(codes::INVALID_MANIFEST, text)
}
