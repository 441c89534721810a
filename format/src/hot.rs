//! HOT payloads: a hot set with its neighbours, as rvf-wire codes it. The reference never puts one into a store; here the
//! vectors that queries found most often are written, hottest first, without neighbours.

use crate::error::{Result, codes};
use crate::reader::Reader;
use crate::vec_seg::element_size;

/// Bytes before the first entry.
const HEADER_LEN: usize = 64;

/// One vector of the hot set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HotEntry {
    /// Vector id.
    pub id: u64,
    /// Its elements.
    pub data: Vec<u8>,
    /// Neighbour ids.
    pub neighbours: Vec<u64>,
}

/// A HOT payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hot {
    /// Components of a vector.
    pub dim: u16,
    /// Element type, see [`crate::vec_seg::dtype_name`].
    pub dtype: u8,
    /// Links per node.
    pub neighbour_m: u16,
    /// The vectors.
    pub entries: Vec<HotEntry>,
}

impl Hot {
    /// Reads a payload. O(payload).
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when an entry passes the end.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new(payload, "HOT payload", codes::TRUNCATED_SEGMENT);
        let count = r.u32()? as usize;
        let (dim, dtype, neighbour_m) = (r.u16()?, r.u8()?, r.u16()?);
        r.take(HEADER_LEN - 9)?;
        let mut entries = Vec::with_capacity(count.min(r.left() / 64 + 1));
        for _ in 0..count {
            let id = r.u64()?;
            let data = r.take(usize::from(dim) * element_size(dtype))?.to_vec();
            let neighbours = (0..r.u16()?).map(|_| r.u64()).collect::<Result<_>>()?;
            // Entries start at multiples of 64; the last one's padding may be missing.
            let pad = (r.pos().next_multiple_of(64) - r.pos()).min(r.left());
            r.take(pad)?;
            entries.push(HotEntry { id, data, neighbours });
        }
        Ok(Self { dim, dtype, neighbour_m, entries })
    }

    /// The payload. Entries begin at multiples of 64; counts are cut to what their fields can say. O(payload).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let count = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&self.dim.to_le_bytes());
        out.push(self.dtype);
        out.extend_from_slice(&self.neighbour_m.to_le_bytes());
        out.resize(HEADER_LEN, 0);
        for entry in self.entries.iter().take(count as usize) {
            let neighbours = u16::try_from(entry.neighbours.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&entry.id.to_le_bytes());
            out.extend_from_slice(&entry.data);
            out.extend_from_slice(&neighbours.to_le_bytes());
            for id in entry.neighbours.iter().take(usize::from(neighbours)) {
                out.extend_from_slice(&id.to_le_bytes());
            }
            out.resize(out.len().next_multiple_of(64), 0);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let entry = |id: u64, neighbours: &[u64]| HotEntry {
            id,
            data: [0.5_f32, id as f32, -1.0].iter().flat_map(|v| v.to_le_bytes()).collect(),
            neighbours: neighbours.to_vec(),
        };
        let hot = Hot { dim: 3, dtype: 0, neighbour_m: 2, entries: vec![entry(9, &[1, 2]), entry(4, &[])] };
        let payload = hot.encode();
        assert_eq!(payload.len(), 64 + 64 + 64);
        assert_eq!(Hot::parse(&payload).expect("whole"), hot);
        assert!(Hot::parse(&payload[..80]).is_err());
        let empty = Hot { dim: 3, dtype: 0, neighbour_m: 0, entries: Vec::new() };
        assert_eq!(Hot::parse(&empty.encode()).expect("whole"), empty);
    }
}
