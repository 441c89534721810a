//! SKETCH payloads: count-min sketches of how often vectors were found by queries. The reference declares and never
//! writes them; here they are written when access counts are saved.

use crate::error::{Result, codes};
use crate::reader::Reader;

/// Bytes before the counters.
const HEADER_LEN: usize = 64;

const SEEDS: [u64; 8] = [
    0x517c_c1b7_2722_0a95,
    0x6c62_272e_07bb_0142,
    0x44c6_b90e_0f29_4e41,
    0x3b9f_7a3e_2d8f_1c5b,
    0x7e4a_1b3c_5d6f_8a9e,
    0x1a2b_3c4d_5e6f_7089,
    0x9f8e_7d6c_5b4a_3210,
    0xdead_beef_cafe_babe,
];

/// A count-min sketch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub depth: u32,
    /// Accesses counted.
    pub total_accesses: u64,
    /// Counters, `[depth, width]`.
    pub counters: Vec<u8>,
}

impl Sketch {
    /// Reads a payload.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when the counters pass the end or a side is 0.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new(payload, "SKETCH payload", codes::TRUNCATED_SEGMENT);
        let (width, depth) = (r.u32()?, r.u32()?);
        let total_accesses = r.u64()?;
        r.take(48)?;
        let size = (width as usize).checked_mul(depth as usize).filter(|size| *size > 0);
        let Some(size) = size else { return r.fail(format!("{depth} rows of {width} counters")) };
        Ok(Self { width, depth, total_accesses, counters: r.take(size)?.to_vec() })
    }

    /// The payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN + self.counters.len());
        out.extend_from_slice(&self.width.to_le_bytes());
        out.extend_from_slice(&self.depth.to_le_bytes());
        out.extend_from_slice(&self.total_accesses.to_le_bytes());
        out.resize(HEADER_LEN, 0);
        out.extend_from_slice(&self.counters);
        out
    }

    /// How often a key was counted, at most; less where counters were halved to stay within a byte. O(depth).
    pub fn estimate(&self, key: u64) -> u8 {
        let rows = self.counters.chunks_exact(self.width as usize);
        rows.zip(0..)
            .map(|(row, number)| row.get(column(key, number, self.width)).copied().unwrap_or(0))
            .min()
            .unwrap_or(0)
    }
}

/// The counter of a key in a row. `width` is at least 1.
#[inline]
#[must_use]
pub fn column(key: u64, row: usize, width: u32) -> usize {
    let seed = SEEDS.get(row % SEEDS.len()).copied().unwrap_or(0);
    let hash = key.to_le_bytes().iter().fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash % u64::from(width.max(1))) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns as the reference's function gives them, worked out by an independent program.
    #[test]
    fn counters_lie_where_the_reference_looks() {
        let at = |key| (0..9).map(|row| column(key, row, 1000)).collect::<Vec<_>>();
        assert_eq!(at(0), [872, 183, 164, 470, 987, 52, 893, 11, 872]);
        assert_eq!(at(42), [106, 397, 14, 372, 889, 590, 743, 161, 106]);
    }

    #[test]
    fn what_is_written_is_read() {
        let mut sketch = Sketch { width: 8, depth: 3, total_accesses: 5, counters: vec![0; 24] };
        for row in 0..3 {
            sketch.counters[row * 8 + column(7, row, 8)] += 5;
        }
        let payload = sketch.encode();
        assert_eq!(payload.len(), 64 + 24);
        assert_eq!(Sketch::parse(&payload).expect("whole"), sketch);
        assert_eq!(sketch.estimate(7), 5);
        assert!(Sketch::parse(&payload[..payload.len() - 1]).is_err());
    }
}
