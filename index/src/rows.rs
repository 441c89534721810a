//! What the index needs to know about stored vectors, and the answers it gives.

use std::cmp::Ordering;

/// A table of rows addressed by ordinal. Implemented over a mapped file by the store, over arrays in tests.
///
/// `vector` returns `4 * dim` bytes: `dim` little-endian f32, at any byte alignment. An ordinal out of range must
/// return an empty slice, not panic; the index treats a short row as absent (infinitely far away).
pub trait Rows: Sync {
    /// Number of rows, deleted ones included.
    fn len(&self) -> u32;
    /// The bytes of a row.
    fn vector(&self, ordinal: u32) -> &[u8];
    /// The id of a row; unspecified for an ordinal out of range.
    fn id(&self, ordinal: u32) -> u64;
    /// True when there are no rows.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Rows held in memory: `dim` f32 each, little-endian, in one buffer.
#[derive(Debug, Clone, Default)]
pub struct OwnedRows {
    dim: usize,
    bytes: Vec<u8>,
    ids: Vec<u64>,
}

impl OwnedRows {
    /// No rows yet, of `dim` components.
    pub fn new(dim: usize) -> Self {
        Self { dim, bytes: Vec::new(), ids: Vec::new() }
    }

    /// Appends a row and returns its ordinal. Components beyond `dim` are dropped, missing ones are zero.
    pub fn push(&mut self, id: u64, vector: &[f32]) -> u32 {
        let ordinal = self.ids.len() as u32;
        for i in 0..self.dim {
            self.bytes.extend_from_slice(&vector.get(i).copied().unwrap_or(0.0).to_le_bytes());
        }
        self.ids.push(id);
        ordinal
    }
}

impl Rows for OwnedRows {
    fn len(&self) -> u32 {
        self.ids.len() as u32
    }

    fn vector(&self, ordinal: u32) -> &[u8] {
        let stride = self.dim * 4;
        let start = ordinal as usize * stride;
        self.bytes.get(start..start + stride).unwrap_or(&[])
    }

    fn id(&self, ordinal: u32) -> u64 {
        self.ids.get(ordinal as usize).copied().unwrap_or(u64::MAX)
    }
}

/// One answer, by vector id.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Vector id.
    pub id: u64,
    /// Distance as the format defines it.
    pub distance: f32,
}

/// One answer, by row ordinal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Row ordinal.
    pub ordinal: u32,
    /// Distance as the format defines it.
    pub distance: f32,
}

impl Candidate {
    /// The answer with the row's id.
    pub fn hit(self, rows: &dyn Rows) -> Hit {
        Hit { id: rows.id(self.ordinal), distance: self.distance }
    }
}

impl Hit {
    /// Order of answers: by distance, then by id. Both zeros are equal; a NaN comes last.
    pub fn order(&self, other: &Hit) -> Ordering {
        sort_key(self.distance).cmp(&sort_key(other.distance)).then(self.id.cmp(&other.id))
    }
}

/// An integer that orders distances: ascending, both zeros equal, every NaN last.
#[inline]
pub fn sort_key(distance: f32) -> u32 {
    if distance.is_nan() {
        return u32::MAX;
    }
    // Adding zero turns -0.0 into 0.0.
    let bits = (distance + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_like_distances() {
        let mut d = [f32::NAN, f32::INFINITY, 1.0, 1e-40, 0.0, -1e-40, -2.5, f32::NEG_INFINITY];
        d.reverse();
        assert!(d.windows(2).all(|w| sort_key(w[0]) < sort_key(w[1])));
        assert_eq!(sort_key(-0.0), sort_key(0.0));
        assert_eq!(sort_key(-f32::NAN), u32::MAX);
    }
}
