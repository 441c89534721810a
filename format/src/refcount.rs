//! REFCOUNT payloads: a count for every cluster of a branch's parent. The reference writes them, with wrong counts, and
//! reads none; `Store::rebuild_refcounts` of `rvf-cow` writes right ones.

use crate::error::{Error, Result, codes};
use crate::reader::Reader;

const REFCOUNT_MAGIC: u32 = 0x5256_5243;
/// Bytes of the header, where the counts start.
const HEADER: u64 = 32;

/// A REFCOUNT payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refcount {
    /// Bytes of a count: 1, 2 or 4.
    pub width: u8,
    /// Clusters.
    pub cluster_count: u32,
    /// Highest count.
    pub max_refcount: u32,
    /// Where the counts start.
    pub array_offset: u64,
    /// Epoch of the snapshot, 0 when it is mutable.
    pub snapshot_epoch: u32,
    /// Counts that are there; fewer than `cluster_count` when the payload is short, as `freeze` writes it.
    pub counts: Vec<u32>,
}

impl Refcount {
    /// Counts in the narrowest width that holds them, right behind the header.
    ///
    /// # Errors
    /// [`Error::Caller`] (0x0304) for 2^32 counts or more.
    pub fn of(counts: Vec<u32>, snapshot_epoch: u32) -> Result<Self> {
        let cluster_count = u32::try_from(counts.len())
            .map_err(|_| Error::caller(codes::SEGMENT_TOO_LARGE, "too many clusters to count"))?;
        let max_refcount = counts.iter().copied().max().unwrap_or(0);
        let width = match max_refcount {
            0..=0xff => 1,
            0x100..=0xffff => 2,
            _ => 4,
        };
        Ok(Self { width, cluster_count, max_refcount, array_offset: HEADER, snapshot_epoch, counts })
    }

    /// The payload; a count that is too large for the width is cut down to it.
    pub fn encode(&self) -> Vec<u8> {
        let width = usize::from(self.width).min(4);
        let mut out = Vec::with_capacity(32 + self.counts.len() * width);
        out.extend_from_slice(&REFCOUNT_MAGIC.to_le_bytes());
        out.extend_from_slice(&1u16.to_le_bytes());
        out.extend_from_slice(&[self.width, 0]);
        out.extend_from_slice(&self.cluster_count.to_le_bytes());
        out.extend_from_slice(&self.max_refcount.to_le_bytes());
        out.extend_from_slice(&self.array_offset.to_le_bytes());
        out.extend_from_slice(&self.snapshot_epoch.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for count in &self.counts {
            out.extend_from_slice(count.to_le_bytes().get(..width).unwrap_or(&[]));
        }
        out
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] on another magic, version or width.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new(payload, "REFCOUNT payload", codes::COW_MAP_CORRUPT);
        let (magic, version, width) = (r.u32()?, r.u16()?, r.u8()?);
        if magic != REFCOUNT_MAGIC || version != 1 || ![1, 2, 4].contains(&width) {
            return r.fail(format!("magic {magic:#010x}, version {version}, width {width}"));
        }
        r.u8()?;
        let cluster_count = r.u32()?;
        let max_refcount = r.u32()?;
        let array_offset = r.u64()?;
        let snapshot_epoch = r.u32()?;
        r.u32()?;
        let array =
            usize::try_from(array_offset).ok().filter(|at| *at >= 32).and_then(|at| payload.get(at..));
        let counts = array
            .unwrap_or(&[])
            .chunks_exact(usize::from(width))
            .take(cluster_count as usize)
            .map(|bytes| bytes.iter().rev().fold(0, |count, byte| count << 8 | u32::from(*byte)))
            .collect();
        Ok(Self { width, cluster_count, max_refcount, array_offset, snapshot_epoch, counts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_declared_layout() {
        let counts = Refcount::of(vec![1, 0, 258], 7).unwrap();
        let payload = counts.encode();
        // Magic, version, width, pad, clusters, highest count, offset of the array, epoch, reserved; then the counts.
        let wanted: [&[u8]; 10] = [
            b"CRVR",
            &[1, 0],
            &[2],
            &[0],
            &[3, 0, 0, 0],
            &[2, 1, 0, 0],
            &[32, 0, 0, 0, 0, 0, 0, 0],
            &[7, 0, 0, 0],
            &[0; 4],
            &[1, 0, 0, 0, 2, 1],
        ];
        assert_eq!(payload, wanted.concat());
        assert_eq!(Refcount::parse(&payload).unwrap(), counts);
        assert_eq!(Refcount::of(vec![255; 4], 0).unwrap().width, 1);
        assert_eq!(Refcount::of(vec![65_536], 0).unwrap().width, 4);
    }
}
