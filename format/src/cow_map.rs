//! COW_MAP payloads: which parent a branch has, and its (opaque) cluster map.

use crate::error::{Error, Result, codes};
use crate::reader::Reader;

const MAGIC: u32 = 0x5256_434D;
const FIXED_LEN: usize = 0x51;

/// State of one cluster. The store never resolves vectors through clusters; the map is kept and checked only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cluster {
    /// No rows.
    Unallocated,
    /// In the parent.
    Parent,
    /// At this offset of the child; never written.
    Local(u64),
}

/// A COW_MAP payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CowMap {
    /// 0 flat array; 1 and 2 are labels without a layout of their own.
    pub map_format: u8,
    /// 0; ignored.
    pub compression_policy: u8,
    /// Bytes of a cluster, a power of two.
    pub cluster_size: u32,
    /// Rows of a cluster, not 0.
    pub vectors_per_cluster: u32,
    /// The parent's file id.
    pub base_file_id: [u8; 16],
    /// [`crate::checksum::parent_hash`] of the parent when the branch was made.
    pub base_file_hash: [u8; 32],
    /// 4 x dimension.
    pub bytes_per_vector: u32,
    /// Whether the branch was frozen.
    pub frozen: bool,
    /// Epoch at freezing.
    pub snapshot_epoch: u32,
    /// Path of the parent, relative to the directory of the child.
    pub parent_path: String,
    /// Clusters in order.
    pub clusters: Vec<Cluster>,
}

impl CowMap {
    /// Reads a payload.
    ///
    /// # Errors
    /// [`Error::Corrupt`] (0x0700) when anything does not hold that the reference checks.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new(payload, "COW_MAP payload", codes::COW_MAP_CORRUPT);
        if r.u32()? != MAGIC {
            return r.fail("wrong magic");
        }
        let version = r.u16()?;
        if version != 1 {
            return r.fail(format!("version {version}, only 1 is known"));
        }
        let map_format = r.u8()?;
        let compression_policy = r.u8()?;
        let cluster_size = r.u32()?;
        if !cluster_size.is_power_of_two() {
            return r.fail(format!("cluster size {cluster_size} is not a power of two"));
        }
        let vectors_per_cluster = r.u32()?;
        if vectors_per_cluster == 0 {
            return r.fail("no vectors in a cluster");
        }
        let base_file_id = r.array()?;
        let base_file_hash = r.array()?;
        let bytes_per_vector = r.u32()?;
        let frozen = match r.u8()? {
            0 => false,
            1 => true,
            other => return r.fail(format!("frozen flag {other}, neither 0 nor 1")),
        };
        let snapshot_epoch = r.u32()?;
        let path_len = r.u32()? as usize;
        let map_len = r.u32()? as usize;
        if path_len == 0 {
            return r.fail("no parent path");
        }
        if FIXED_LEN.checked_add(path_len).and_then(|sum| sum.checked_add(map_len)) != Some(payload.len()) {
            return r.fail(format!("path of {path_len} and map of {map_len} bytes do not fill the payload"));
        }
        let Ok(parent_path) = std::str::from_utf8(r.take(path_len)?) else {
            return r.fail("parent path is not UTF-8");
        };
        let body_format = r.u8()?;
        if body_format != map_format || map_format > 2 {
            return r.fail(format!("map format {map_format} in the header, {body_format} in the map"));
        }
        let count = r.u32()? as usize;
        if count > r.left() / 9 {
            return r.fail(format!("{count} clusters do not fit in {} bytes", r.left()));
        }
        let mut clusters = Vec::with_capacity(count);
        for _ in 0..count {
            let tag = r.u8()?;
            let value = r.u64()?;
            clusters.push(match tag {
                0 => Cluster::Unallocated,
                1 => Cluster::Parent,
                2 => Cluster::Local(value),
                other => return r.fail(format!("cluster tag {other}")),
            });
        }
        Ok(Self {
            map_format,
            compression_policy,
            cluster_size,
            vectors_per_cluster,
            base_file_id,
            base_file_hash,
            bytes_per_vector,
            frozen,
            snapshot_epoch,
            parent_path: parent_path.to_owned(),
            clusters,
        })
    }

    /// The payload bytes.
    ///
    /// # Errors
    /// [`Error::Caller`] when a length does not fit its field.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let too_big = || Error::caller(codes::COW_MAP_CORRUPT, "cluster map or parent path too large");
        let map_len =
            self.clusters.len().checked_mul(9).and_then(|len| len.checked_add(5)).ok_or_else(too_big)?;
        let map_len = u32::try_from(map_len).map_err(|_| too_big())?;
        let path_len = u32::try_from(self.parent_path.len()).map_err(|_| too_big())?;
        let mut out = Vec::with_capacity(FIXED_LEN + self.parent_path.len() + map_len as usize);
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&[1, 0, self.map_format, self.compression_policy]);
        out.extend_from_slice(&self.cluster_size.to_le_bytes());
        out.extend_from_slice(&self.vectors_per_cluster.to_le_bytes());
        out.extend_from_slice(&self.base_file_id);
        out.extend_from_slice(&self.base_file_hash);
        out.extend_from_slice(&self.bytes_per_vector.to_le_bytes());
        out.push(u8::from(self.frozen));
        out.extend_from_slice(&self.snapshot_epoch.to_le_bytes());
        out.extend_from_slice(&path_len.to_le_bytes());
        out.extend_from_slice(&map_len.to_le_bytes());
        out.extend_from_slice(self.parent_path.as_bytes());
        out.push(self.map_format);
        out.extend_from_slice(&(self.clusters.len() as u32).to_le_bytes());
        for cluster in &self.clusters {
            let (tag, value) = match cluster {
                Cluster::Unallocated => (0, 0),
                Cluster::Parent => (1, 0),
                Cluster::Local(offset) => (2, *offset),
            };
            out.push(tag);
            out.extend_from_slice(&u64::to_le_bytes(value));
        }
        Ok(out)
    }

    /// The geometry that the reference writes for a branch: every cluster of the parent's `rows` rows is "parent".
    /// Returns cluster size in bytes, vectors per cluster and the clusters.
    pub fn geometry(dim: u16, rows: u64) -> (u32, u32, Vec<Cluster>) {
        let per_vector = 4 * u32::from(dim).max(1);
        let per_cluster = (4096 / per_vector).max(1);
        let size = (per_cluster * per_vector).max(4096).next_power_of_two();
        let count = rows.div_ceil(u64::from(per_cluster));
        (size, per_cluster, vec![Cluster::Parent; usize::try_from(count).unwrap_or(0)])
    }
}
