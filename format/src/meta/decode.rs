//! One META payload to one generation.

use super::{MAGIC, MAX_VALUE, TRAILER_MAGIC, Value};
use crate::checksum::sha256;
use crate::error::{Result, codes};
use crate::reader::Reader;
use std::collections::BTreeMap;

const TRAILER_LEN: usize = 40;
const NO_BASE: u64 = u64::MAX;

/// A value, or `None` for "this field (or key) is removed".
pub type Change = Option<Value>;

/// What a generation says about one record.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Fields to set or remove; the others stay.
    Upsert(Vec<(u16, Change)>),
    /// The record is gone.
    Delete,
}

/// A schema line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Field id.
    pub id: u16,
    /// 1 string, 2 bytes, 3 i64, 4 u64, 5 f64, 6 bool.
    pub kind: u8,
    /// Whether a null occurs.
    pub nullable: bool,
    /// Name, `field.<id>` from the reference.
    pub name: String,
}

/// A decoded META payload.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// Whether it stands alone.
    pub full: bool,
    /// Its number, from 1.
    pub number: u64,
    /// The generation it is a delta to.
    pub base: Option<u64>,
    /// Fields that occur.
    pub schema: Vec<Field>,
    /// File metadata set or removed.
    pub file: Vec<(String, Change)>,
    /// Records set or removed, by vector id.
    pub records: Vec<(u64, Record)>,
}

/// Reads a META payload. O(payload).
///
/// # Errors
/// [`crate::Error::Corrupt`] (0x0109) when its SHA-256, a bound, an order or a type does not hold.
pub fn decode(payload: &[u8]) -> Result<Generation> {
    let mut r = Reader::new(payload, "META payload", codes::INVALID_METADATA);
    if r.array::<8>()? != MAGIC {
        return r.fail("wrong magic");
    }
    let Some((body, trailer)) =
        payload.len().checked_sub(TRAILER_LEN).and_then(|at| payload.split_at_checked(at))
    else {
        return r.fail("too short for its trailer");
    };
    if !trailer.starts_with(&TRAILER_MAGIC) {
        return r.fail("end marker missing");
    }
    if sha256(body) != trailer[8..] {
        return r.fail("SHA-256 does not match");
    }
    let mut r = Reader::new(body, "META payload", codes::INVALID_METADATA);
    r.take(8)?;
    let version = r.u16()?;
    if version != 1 {
        return r.fail(format!("version {version}, only 1 is known"));
    }
    let full = r.u16()? & 1 == 1;
    let number = r.u64()?;
    let base = Some(r.u64()?).filter(|base| *base != NO_BASE);
    match base {
        None if !full => return r.fail("delta without a base generation"),
        Some(_) if full => return r.fail("snapshot with a base generation"),
        Some(base) if base.checked_add(1) != Some(number) => {
            return r.fail(format!("generation {number} does not follow its base {base}"));
        }
        _ => {}
    }
    let (fields, keys, records) = (r.u32()?, r.u32()?, r.u32()?);
    if fields > 65536 || keys > 65536 || records > 1 << 24 {
        return r.fail(format!("{fields} fields, {keys} keys, {records} records: too many"));
    }
    let schema = schema(&mut r, fields)?;
    let types: BTreeMap<u16, (u8, bool)> = schema.iter().map(|f| (f.id, (f.kind, f.nullable))).collect();
    let file = file_metadata(&mut r, keys)?;
    let records = read_records(&mut r, records, &types)?;
    if r.left() != 0 {
        return r.fail(format!("{} bytes too many", r.left()));
    }
    Ok(Generation { full, number, base, schema, file, records })
}

fn schema(r: &mut Reader<'_>, count: u32) -> Result<Vec<Field>> {
    let mut out: Vec<Field> = Vec::with_capacity((count as usize).min(r.left() / 6));
    for _ in 0..count {
        let id = r.u16()?;
        let kind = r.u8()?;
        let nullable = match r.u8()? {
            0 => false,
            1 => true,
            other => return r.fail(format!("nullable flag {other}")),
        };
        let len = usize::from(r.u16()?);
        if !(1..=6).contains(&kind) || len == 0 || len > 4096 {
            return r.fail(format!("field {id}: type {kind}, name of {len} bytes"));
        }
        if out.last().is_some_and(|last| last.id >= id) {
            return r.fail(format!("field {id} out of order"));
        }
        out.push(Field { id, kind, nullable, name: text(r, len)? });
    }
    Ok(out)
}

fn file_metadata(r: &mut Reader<'_>, count: u32) -> Result<Vec<(String, Change)>> {
    let mut out: Vec<(String, Change)> = Vec::with_capacity((count as usize).min(r.left() / 3));
    for _ in 0..count {
        let len = usize::from(r.u16()?);
        let key = text(r, len)?;
        if out.last().is_some_and(|(last, _)| last.as_bytes() >= key.as_bytes()) {
            return r.fail(format!("file metadata key {key:?} out of order"));
        }
        let value = value(r)?;
        out.push((key, value));
    }
    Ok(out)
}

fn read_records(
    r: &mut Reader<'_>,
    count: u32,
    types: &BTreeMap<u16, (u8, bool)>,
) -> Result<Vec<(u64, Record)>> {
    let mut out: Vec<(u64, Record)> = Vec::with_capacity((count as usize).min(r.left() / 13));
    for _ in 0..count {
        let id = r.u64()?;
        if out.last().is_some_and(|(last, _)| *last >= id) {
            return r.fail(format!("record {id} out of order"));
        }
        let op = r.u8()?;
        let fields = r.u32()?;
        match (op, fields) {
            (0, _) => {}
            (1, 0) => {
                out.push((id, Record::Delete));
                continue;
            }
            _ => return r.fail(format!("record {id}: operation {op} with {fields} fields")),
        }
        let mut list: Vec<(u16, Change)> = Vec::with_capacity((fields as usize).min(r.left() / 3));
        for _ in 0..fields {
            let field = r.u16()?;
            if list.last().is_some_and(|(last, _)| *last >= field) {
                return r.fail(format!("record {id}: field {field} out of order"));
            }
            let change = value(r)?;
            let Some((kind, nullable)) = types.get(&field) else {
                return r.fail(format!("record {id}: field {field} is not in the schema"));
            };
            let fits = match &change {
                None => true,
                Some(Value::Null) => *nullable,
                Some(value) => value.tag() == *kind,
            };
            if !fits {
                return r.fail(format!("record {id}: field {field} is not of its schema type {kind}"));
            }
            list.push((field, change));
        }
        out.push((id, Record::Upsert(list)));
    }
    Ok(out)
}

fn value(r: &mut Reader<'_>) -> Result<Change> {
    Ok(Some(match r.u8()? {
        0 => Value::Null,
        1 => {
            let len = bounded(r)?;
            Value::String(text(r, len)?)
        }
        2 => {
            let len = bounded(r)?;
            Value::Bytes(r.take(len)?.to_vec())
        }
        3 => Value::I64(i64::from_le_bytes(r.array()?)),
        4 => Value::U64(r.u64()?),
        5 => {
            let number = f64::from_le_bytes(r.array()?);
            if !number.is_finite() {
                return r.fail("number that is not finite");
            }
            Value::F64(number)
        }
        6 => match r.u8()? {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            other => return r.fail(format!("boolean {other}")),
        },
        7 => return Ok(None),
        other => return r.fail(format!("value type {other}")),
    }))
}

fn bounded(r: &mut Reader<'_>) -> Result<usize> {
    let len = r.u32()? as usize;
    if len > MAX_VALUE {
        return r.fail(format!("value of {len} bytes, above 16 MiB"));
    }
    Ok(len)
}

fn text(r: &mut Reader<'_>, len: usize) -> Result<String> {
    match std::str::from_utf8(r.take(len)?) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => r.fail("text that is not UTF-8"),
    }
}
