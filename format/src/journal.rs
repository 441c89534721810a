//! JOURNAL payloads: the ids a delete was given. Informational; never replayed.

use crate::error::{Error, Result, codes};
use crate::reader::Reader;

const ENTRY_LEN: usize = 12;
/// Entry type: delete a vector.
pub const DELETE_VECTOR: u8 = 1;

/// One journal entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The vector id was given to a delete.
    Delete(u64),
    /// A type that nobody writes, kept as it is.
    Other {
        /// Type number.
        kind: u8,
        /// Its bytes.
        data: Vec<u8>,
    },
}

/// A journal segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journal {
    /// Epoch that the delete commits.
    pub epoch: u32,
    /// 0 in every file that is known.
    pub previous_segment: u64,
    /// Entries in the order given, unknown and duplicate ids included.
    pub entries: Vec<Entry>,
}

impl Journal {
    /// The journal of a delete.
    pub fn of_deletes(epoch: u32, ids: &[u64]) -> Self {
        Self { epoch, previous_segment: 0, entries: ids.iter().map(|id| Entry::Delete(*id)).collect() }
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when an entry passes the end.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new(payload, "JOURNAL payload", codes::TRUNCATED_SEGMENT);
        let count = r.u32()? as usize;
        let epoch = r.u32()?;
        let previous_segment = r.u64()?;
        let mut entries = Vec::with_capacity(count.min(r.left() / 4));
        for _ in 0..count {
            let kind = r.u8()?;
            r.u8()?;
            let len = usize::from(r.u16()?);
            let data = r.take(len)?;
            entries.push(match (kind, <[u8; 8]>::try_from(data)) {
                (DELETE_VECTOR, Ok(id)) => Entry::Delete(u64::from_le_bytes(id)),
                _ => Entry::Other { kind, data: data.to_vec() },
            });
        }
        Ok(Self { epoch, previous_segment, entries })
    }

    /// The payload bytes.
    ///
    /// # Errors
    /// [`Error::Caller`] when a count or length does not fit its field.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let too_many = || Error::caller(codes::SEGMENT_TOO_LARGE, "too many journal entries");
        let mut out = Vec::with_capacity(16 + self.entries.len() * ENTRY_LEN);
        out.extend_from_slice(&u32::try_from(self.entries.len()).map_err(|_| too_many())?.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.previous_segment.to_le_bytes());
        for entry in &self.entries {
            match entry {
                Entry::Delete(id) => {
                    out.extend_from_slice(&[DELETE_VECTOR, 0, 8, 0]);
                    out.extend_from_slice(&id.to_le_bytes());
                }
                Entry::Other { kind, data } => {
                    out.extend_from_slice(&[*kind, 0]);
                    out.extend_from_slice(&u16::try_from(data.len()).map_err(|_| too_many())?.to_le_bytes());
                    out.extend_from_slice(data);
                }
            }
        }
        Ok(out)
    }

    /// The deleted ids, in order.
    pub fn deleted(&self) -> impl Iterator<Item = u64> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Delete(id) => Some(*id),
            Entry::Other { .. } => None,
        })
    }
}
