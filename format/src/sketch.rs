//! SKETCH payloads: count-min sketches of accesses. Nothing writes them into a store; they are shown.

use crate::error::{Result, codes};
use crate::reader::Reader;

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

    /// How often a key was counted, at least. O(depth).
    pub fn estimate(&self, key: u64) -> u8 {
        let rows = self.counters.chunks_exact(self.width as usize);
        rows.zip(SEEDS.iter().cycle())
            .map(|(row, seed)| {
                let hash = key.to_le_bytes().iter().fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, byte| {
                    (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
                });
                row.get((hash % u64::from(self.width)) as usize).copied().unwrap_or(0)
            })
            .min()
            .unwrap_or(0)
    }
}
