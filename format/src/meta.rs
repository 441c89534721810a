//! META payloads: generations of metadata, replayed over each other.

use crate::error::Result;
use crate::finding::Finding;
use crate::header::Segment;
use std::collections::BTreeMap;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Present, but nothing.
    Null,
    /// UTF-8 text.
    String(String),
    /// Raw bytes.
    Bytes(Vec<u8>),
    /// Signed integer.
    I64(i64),
    /// Unsigned integer.
    U64(u64),
    /// Finite floating-point number.
    F64(f64),
    /// True or false.
    Bool(bool),
}

/// The metadata of a store after replay.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetaState {
    /// The newest generation that was applied; 0 when there is no metadata.
    pub generation: u64,
    /// Fields by field id, by vector id. A record may be present and empty.
    pub records: BTreeMap<u64, BTreeMap<u16, Value>>,
    /// File metadata by key.
    pub file: BTreeMap<String, Value>,
    /// Names that the schema gives to field ids, other than `field.<id>`.
    pub field_names: BTreeMap<u16, String>,
    /// Generations that could not be read or applied.
    pub dropped_generations: u64,
    /// Records that belong to no live vector, dropped because generations are missing.
    pub dropped_records: u64,
    /// Deltas applied since the last full snapshot.
    pub deltas_since_snapshot: u32,
    /// Payload bytes from the last snapshot to the newest generation.
    pub chain_bytes: u64,
    /// Deviations and damage.
    pub findings: Vec<Finding>,
}

/// Replays the META segments of a directory (in directory order). Never fails: where the reference refuses, what is
/// readable is kept and the findings say what is missing. `live` tells whether a vector id is live.
pub fn replay(bytes: &[u8], entries: &[Segment], live: &dyn Fn(u64) -> bool) -> MetaState {
    let _ = (bytes, entries, live);
    MetaState::default()
}

/// The payload of a full snapshot.
///
/// # Errors
/// [`crate::Error::Caller`] (0x0105) when a field has values of two types, naming the field, or a limit is passed.
pub fn encode_snapshot(state: &MetaState, generation: u64) -> Result<Vec<u8>> {
    let _ = (state, generation);
    Ok(Vec::new())
}

/// The payload of the delta from `old` to `new`, generation `old.generation + 1`.
///
/// # Errors
/// As [`encode_snapshot`].
pub fn encode_delta(old: &MetaState, new: &MetaState) -> Result<Vec<u8>> {
    let _ = (old, new);
    Ok(Vec::new())
}
