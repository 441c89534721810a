//! HOT payloads: a hot set with its neighbours, as rvf-wire codes it. Nothing writes them into a store; they are
//! shown.

use crate::error::{Result, codes};
use crate::reader::Reader;
use crate::vec_seg::element_size;

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
        r.take(64 - 9)?;
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
}
