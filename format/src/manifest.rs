//! The runtime manifest: the payload of a MANIFEST segment, which alone decides what a store contains.

use crate::error::{Error, Result, codes};
use crate::header::SegType;
use crate::reader::Reader;

const IDENTITY_MARKER: u32 = 0x4649_4449;
const HASHES_MARKER: u32 = 0x4744_4853;
const FIXED_LEN: usize = 22;
const ENTRY_LEN: usize = 25;
/// Marker and identity together.
const IDENTITY_LEN: usize = 72;

/// One line of the directory: a segment that is part of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The segment's id, which need not be unique.
    pub segment_id: u64,
    /// File offset of its header.
    pub offset: u64,
    /// Payload bytes.
    pub payload_length: u64,
    /// Type number.
    pub seg_type: u8,
}

impl DirEntry {
    /// The type.
    pub fn kind(&self) -> SegType {
        SegType(self.seg_type)
    }
}

/// Who a file is and where it descends from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileIdentity {
    /// This file's id; never all zero in a stored identity.
    pub file_id: [u8; 16],
    /// The parent's id, zero for a root.
    pub parent_id: [u8; 16],
    /// [`crate::checksum::parent_hash`] of the parent when the child was made, zero for a root.
    pub parent_hash: [u8; 32],
    /// 0 for a root, the parent's depth + 1 otherwise.
    pub lineage_depth: u32,
}

impl FileIdentity {
    /// Whether the file has no parent.
    pub fn is_root(&self) -> bool {
        self.parent_id == [0; 16] && self.lineage_depth == 0
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            file_id: reader.array()?,
            parent_id: reader.array()?,
            parent_hash: reader.array()?,
            lineage_depth: reader.u32()?,
        })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.file_id);
        out.extend_from_slice(&self.parent_id);
        out.extend_from_slice(&self.parent_hash);
        out.extend_from_slice(&self.lineage_depth.to_le_bytes());
    }
}

/// What a store contains, as of one commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Commit counter of the reference; 0 at create.
    pub epoch: u32,
    /// Components of every vector.
    pub dimension: u16,
    /// Rows including soft-deleted ones.
    pub total_vectors: u64,
    /// Hardware profile, any value.
    pub profile_id: u8,
    /// 0 L2, 1 inner product, 2 cosine; unknown numbers count as L2.
    pub metric: u8,
    /// The committed segments in commit order.
    pub directory: Vec<DirEntry>,
    /// Soft-deleted vector ids, ascending.
    pub deleted: Vec<u64>,
    /// Present in every file that is known.
    pub identity: Option<FileIdentity>,
    /// Signed stores only: segment id and content hash of every directory entry, same order.
    pub hashes: Option<Vec<(u64, [u8; 16])>>,
}

impl Manifest {
    /// Reads a manifest payload. O(payload).
    ///
    /// # Errors
    /// [`Error::Corrupt`] (0x0105) when it is shorter than 22 bytes, the directory does not fit, or the hash trailer
    /// is inconsistent. A short deletion list is read as far as it goes and other trailing bytes are ignored, as the
    /// reference does.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new(payload, "MANIFEST payload", codes::INVALID_MANIFEST);
        let epoch = r.u32()?;
        let dimension = r.u16()?;
        let total_vectors = r.u64()?;
        let count = r.u32()? as usize;
        let profile_id = r.u8()?;
        let metric = r.u8()?;
        r.u16()?;
        if count > payload.len().saturating_sub(FIXED_LEN) / ENTRY_LEN {
            return r.fail(format!("{count} directory entries do not fit in {} bytes", r.left()));
        }
        let mut directory = Vec::with_capacity(count);
        for _ in 0..count {
            directory.push(DirEntry {
                segment_id: r.u64()?,
                offset: r.u64()?,
                payload_length: r.u64()?,
                seg_type: r.u8()?,
            });
        }
        let mut deleted = Vec::new();
        if r.left() >= 4 {
            let declared = r.u32()? as usize;
            let count = declared.min(r.left() / 8);
            deleted.reserve_exact(count);
            for _ in 0..count {
                deleted.push(r.u64()?);
            }
        }
        let mut identity = None;
        if r.left() >= IDENTITY_LEN && r.clone().u32()? == IDENTITY_MARKER {
            r.u32()?;
            identity = Some(FileIdentity::read(&mut r)?);
        }
        let mut hashes = None;
        if r.left() >= 8 && r.clone().u32()? == HASHES_MARKER {
            r.u32()?;
            let count = r.u32()? as usize;
            if count.checked_mul(24) != Some(r.left()) {
                return r.fail(format!("hash trailer of {count} entries, {} bytes left", r.left()));
            }
            let mut list = Vec::with_capacity(count);
            for _ in 0..count {
                list.push((r.u64()?, r.array()?));
            }
            hashes = Some(list);
        }
        Ok(Self { epoch, dimension, total_vectors, profile_id, metric, directory, deleted, identity, hashes })
    }

    /// The payload bytes, as the reference writes them.
    ///
    /// # Errors
    /// [`Error::Caller`] (0x0105) when a list has more than 2^32-1 entries.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let count = |len: usize, what: &str| {
            u32::try_from(len)
                .map_err(|_| Error::caller(codes::INVALID_MANIFEST, format!("{len} {what} in a manifest")))
        };
        let mut out = Vec::with_capacity(
            FIXED_LEN + self.directory.len() * ENTRY_LEN + self.deleted.len() * 8 + 4 + IDENTITY_LEN,
        );
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.dimension.to_le_bytes());
        out.extend_from_slice(&self.total_vectors.to_le_bytes());
        out.extend_from_slice(&count(self.directory.len(), "directory entries")?.to_le_bytes());
        out.extend_from_slice(&[self.profile_id, self.metric, 0, 0]);
        for entry in &self.directory {
            out.extend_from_slice(&entry.segment_id.to_le_bytes());
            out.extend_from_slice(&entry.offset.to_le_bytes());
            out.extend_from_slice(&entry.payload_length.to_le_bytes());
            out.push(entry.seg_type);
        }
        out.extend_from_slice(&count(self.deleted.len(), "deleted ids")?.to_le_bytes());
        for id in &self.deleted {
            out.extend_from_slice(&id.to_le_bytes());
        }
        if let Some(identity) = &self.identity {
            out.extend_from_slice(&IDENTITY_MARKER.to_le_bytes());
            identity.write(&mut out);
        }
        if let Some(hashes) = &self.hashes {
            out.extend_from_slice(&HASHES_MARKER.to_le_bytes());
            out.extend_from_slice(&count(hashes.len(), "hashes")?.to_le_bytes());
            for (id, hash) in hashes {
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(hash);
            }
        }
        Ok(out)
    }

    /// The reference's name of the metric: `L2`, `InnerProduct` or `Cosine`.
    pub fn metric_name(&self) -> &'static str {
        match self.metric {
            1 => "InnerProduct",
            2 => "Cosine",
            _ => "L2",
        }
    }

    /// Directory entries of one type, in commit order.
    pub fn entries_of(&self, kind: SegType) -> impl DoubleEndedIterator<Item = &DirEntry> {
        self.directory.iter().filter(move |entry| entry.kind() == kind)
    }
}
