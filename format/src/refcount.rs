//! REFCOUNT and DELTA payloads. The reference's CLI writes the first, nothing writes the second, and nothing reads
//! either; they are shown.

use crate::error::{Result, codes};
use crate::reader::Reader;

const REFCOUNT_MAGIC: u32 = 0x5256_5243;
const DELTA_MAGIC: u32 = 0x5256_444C;

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

/// A DELTA header; what follows it is not defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeltaHeader {
    /// Version.
    pub version: u16,
    /// 0 sparse rows, 1 low rank, 2 full.
    pub encoding: u8,
    /// Cluster that it changes.
    pub base_cluster_id: u32,
    /// Vectors that it changes.
    pub affected_count: u32,
    /// Bytes of the delta.
    pub delta_size: u64,
    /// Its hash.
    pub delta_hash: [u8; 32],
}

impl DeltaHeader {
    /// Reads the 64 bytes.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when the payload is shorter or has another magic.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new(payload, "DELTA header", codes::COW_MAP_CORRUPT);
        if payload.len() < 64 || r.u32()? != DELTA_MAGIC {
            return r.fail("shorter than 64 bytes, or wrong magic");
        }
        let version = r.u16()?;
        let encoding = r.u8()?;
        r.u8()?;
        Ok(Self {
            version,
            encoding,
            base_cluster_id: r.u32()?,
            affected_count: r.u32()?,
            delta_size: r.u64()?,
            delta_hash: r.array()?,
        })
    }
}
