//! META payloads: generations of metadata, replayed over each other.
//!
//! A generation is a full snapshot or a delta to the one before it. The state of a store is its newest snapshot with
//! the deltas after it applied in order. The reference refuses the whole store when the only snapshot is damaged;
//! here vectors stay readable whatever happens to the metadata, and what can be read of it is kept.

mod decode;
mod encode;

pub use decode::{Change, Field, Generation, Record, decode};
pub use encode::{encode_delta, encode_generation, encode_snapshot};

use crate::finding::Finding;
use crate::header::Segment;
use std::collections::{BTreeMap, BTreeSet};

const MAGIC: [u8; 8] = *b"RVFMETA\0";
const TRAILER_MAGIC: [u8; 8] = *b"RVFDONE\0";
/// Largest string or byte value.
pub const MAX_VALUE: usize = 16 << 20;
/// After this many deltas the reference writes a full snapshot again.
pub const DELTAS_PER_SNAPSHOT: u32 = 32;
/// Deltas that the reference is willing to replay; more make a store unreadable for it.
pub const MAX_DELTAS: u32 = 64;

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

impl Value {
    /// The type number on disk.
    pub fn tag(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::String(_) => 1,
            Self::Bytes(_) => 2,
            Self::I64(_) => 3,
            Self::U64(_) => 4,
            Self::F64(_) => 5,
            Self::Bool(_) => 6,
        }
    }

    /// Equality of stored bytes: unlike `==`, 0.0 and -0.0 differ.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::F64(a), Self::F64(b)) => a.to_bits() == b.to_bits(),
            _ => self == other,
        }
    }
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
    /// Records dropped because they belong to no live vector.
    pub dropped_records: u64,
    /// Deltas applied since the last full snapshot.
    pub deltas_since_snapshot: u32,
    /// Payload bytes from the last snapshot to the newest generation.
    pub chain_bytes: u64,
    /// Deviations and damage.
    pub findings: Vec<Finding>,
}

impl MetaState {
    /// Applies a generation: later values override, removals remove. Nothing is checked.
    pub fn apply(&mut self, generation: Generation) {
        if generation.full {
            self.records.clear();
            self.file.clear();
            self.deltas_since_snapshot = 0;
        } else {
            self.deltas_since_snapshot += 1;
        }
        for field in generation.schema {
            if field.name != format!("field.{}", field.id) {
                self.field_names.insert(field.id, field.name);
            }
        }
        for (key, change) in generation.file {
            match change {
                Some(value) => self.file.insert(key, value),
                None => self.file.remove(&key),
            };
        }
        for (id, record) in generation.records {
            match record {
                Record::Delete => {
                    self.records.remove(&id);
                }
                Record::Upsert(fields) => {
                    let record = self.records.entry(id).or_default();
                    for (field, change) in fields {
                        match change {
                            Some(value) => record.insert(field, value),
                            None => record.remove(&field),
                        };
                    }
                }
            }
        }
        self.generation = generation.number;
    }

    /// Whether the next generation should be a full snapshot: the first one, after 32 deltas, or after damage.
    pub fn wants_snapshot(&self) -> bool {
        self.generation == 0
            || self.deltas_since_snapshot >= DELTAS_PER_SNAPSHOT
            || self.dropped_generations > 0
    }
}

/// Replays META segments given in directory order. Never fails: where the reference refuses, what is readable is
/// kept and the findings say what is missing. `live` tells whether a vector id is live; records of others are
/// dropped. O(payloads from the newest snapshot on).
///
/// With a snapshot, the first missing generation ends the replay, as in the reference: the state is that of an
/// earlier moment, whole. Without one, the newest unbroken run of deltas is applied: what it says is current, but
/// what only the lost generations said is missing.
pub fn replay(bytes: &[u8], entries: &[Segment], live: &dyn Fn(u64) -> bool) -> MetaState {
    let mut state = MetaState::default();
    let (mut newest_first, damaged) = collect(bytes, entries, &mut state.findings);
    state.dropped_generations = damaged;
    if newest_first.is_empty() {
        return state;
    }
    let has_snapshot = newest_first.last().is_some_and(|(generation, _)| generation.full);
    if has_snapshot {
        newest_first.reverse();
    } else {
        let run = newest_first
            .windows(2)
            .position(|pair| pair[0].0.base != Some(pair[1].0.number))
            .map_or(newest_first.len(), |at| at + 1);
        state.dropped_generations += (newest_first.len() - run) as u64;
        newest_first.truncate(run);
        newest_first.reverse();
        let text = format!(
            "no readable metadata snapshot: only what {run} later generation(s) changed is known, the rest of the \
             metadata is lost; the reference refuses this store (0x0109)"
        );
        let offset = entries.first().map_or(0, |segment| segment.offset);
        state.findings.push(Finding::damage("meta-no-snapshot", offset, text).mend(
            "vectors are not affected; the next metadata change writes a new snapshot of what is left",
        ));
    }
    let mut previous = None;
    let mut chain = newest_first.into_iter();
    for (generation, len) in chain.by_ref() {
        if previous.is_some_and(|previous| generation.base != Some(previous)) {
            state.dropped_generations += 1;
            break;
        }
        previous = Some(generation.number);
        state.chain_bytes = if generation.full { len } else { state.chain_bytes + len };
        state.apply(generation);
    }
    state.dropped_generations += chain.count() as u64;
    finish(&mut state, entries, live);
    state
}

fn finish(state: &mut MetaState, entries: &[Segment], live: &dyn Fn(u64) -> bool) {
    let before = state.records.len();
    state.records.retain(|id, _| live(*id));
    state.dropped_records = (before - state.records.len()) as u64;
    let offset = entries.last().map_or(0, |segment| segment.offset);
    if state.dropped_generations > 0 {
        let text = format!(
            "{} metadata generation(s) are lost, {} record(s) without a live vector dropped; metadata is that of \
             generation {}",
            state.dropped_generations, state.dropped_records, state.generation
        );
        state.findings.push(Finding::damage("meta-lost-generations", offset, text));
    } else if state.dropped_records > 0 {
        let text = format!(
            "{} metadata record(s) belong to no live vector and are left out; the reference refuses this store \
             (0x0109)",
            state.dropped_records
        );
        state.findings.push(
            Finding::warning("meta-orphan-records", offset, text)
                .mend("the next metadata change removes them"),
        );
    }
    if state.deltas_since_snapshot > MAX_DELTAS {
        let text = format!(
            "{} metadata deltas since the last snapshot; the reference refuses more than 64 (0x010A)",
            state.deltas_since_snapshot
        );
        state.findings.push(Finding::warning("meta-long-chain", offset, text).mend("compact the store"));
    }
}

/// Decodes from the newest entry back to a snapshot. Returns generations newest first, with payload lengths, and how
/// many segments are damaged.
fn collect(bytes: &[u8], entries: &[Segment], findings: &mut Vec<Finding>) -> (Vec<(Generation, u64)>, u64) {
    let mut out: Vec<(Generation, u64)> = Vec::new();
    let mut damaged = 0;
    let mut seen = BTreeSet::new();
    // Honest generations do not overlap, so their lengths add up to less than the file; a hostile directory may list
    // overlapping ones.
    let mut budget = bytes.len() as u64;
    for segment in entries.iter().rev() {
        let payload = segment.payload_of(bytes);
        let Some(left) = budget.checked_sub(payload.len() as u64) else {
            damaged += 1;
            findings.push(Finding::damage(
                "meta-overlap",
                segment.offset,
                "metadata segments overlap; ignored",
            ));
            continue;
        };
        budget = left;
        match decode(payload) {
            Ok(generation) if !seen.insert(generation.number) => {
                damaged += 1;
                let text = format!(
                    "metadata generation {} occurs twice; the older one is ignored",
                    generation.number
                );
                findings.push(Finding::warning("meta-duplicate", segment.offset, text));
            }
            Ok(generation) => {
                let full = generation.full;
                out.push((generation, payload.len() as u64));
                if full {
                    break;
                }
            }
            Err(error) => {
                damaged += 1;
                let text = format!("metadata segment is damaged: {error}");
                findings.push(Finding::damage("meta-damaged", segment.offset, text));
            }
        }
    }
    (out, damaged)
}
