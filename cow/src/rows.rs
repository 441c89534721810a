//! Row ordinals: every row of every listed vector segment, numbered in file order from 0.
//!
//! An ordinal names a place in the file, not a vector: a row may be dead (deleted, overwritten by
//! a later row of the same id, or in a segment whose checksum is wrong). [`crate::live`] says which.

use std::ops::Range;
use std::sync::Arc;

use rvf_format::FileBytes;
use rvf_format::contents::{Rows as BlockRows, VecBlock};

use crate::error::Error;
use crate::lazy_rows::LazyRows;

/// One vector segment's rows: `count` records of `8 + 4 * dim` bytes.
#[derive(Debug)]
struct Block {
    first: u32,
    count: u32,
    records: Records,
}

/// Where they are.
#[derive(Debug)]
enum Records {
    /// From this offset in the file on.
    File(usize),
    /// Put together when they are read.
    Lazy(Arc<LazyRows>),
    /// Nothing can be read of them, or not yet.
    Unread,
}

/// All rows of a store, mapped. Looking one up costs a binary search over the segments.
#[derive(Debug)]
pub struct RowTable {
    bytes: FileBytes,
    dim: usize,
    stride: usize,
    blocks: Vec<Block>,
    total: u32,
}

impl RowTable {
    /// Numbers the rows of `blocks`; those of another dimension are passed over, as the existing
    /// tools do.
    ///
    /// # Errors
    /// More than `u32::MAX - 1` rows.
    pub fn new(bytes: FileBytes, dim: usize, vec_blocks: &[VecBlock]) -> Result<Self, Error> {
        let stride = 8 + 4 * dim;
        let mut blocks = Vec::with_capacity(vec_blocks.len());
        let mut total: u32 = 0;
        for block in vec_blocks {
            if usize::from(block.dim) != dim {
                continue;
            }
            let (records, available) = match &block.rows {
                BlockRows::InFile { offset } => {
                    let offset = usize::try_from(*offset).unwrap_or(usize::MAX);
                    (Records::File(offset), bytes.len().saturating_sub(offset))
                }
                BlockRows::Columns(columns) => {
                    (Records::Lazy(Arc::new(LazyRows::of_columns(bytes.clone(), columns))), usize::MAX)
                }
                // Numbered, and empty until the parent is known.
                BlockRows::Changed(_) => (Records::Unread, usize::MAX),
                BlockRows::Unread => (Records::Unread, 0),
            };
            // The parser has checked this; the slice arithmetic below relies on it.
            let count = block.count.min(u32::try_from(available / stride).unwrap_or(u32::MAX));
            let next = total.checked_add(count).filter(|n| *n < u32::MAX).ok_or_else(|| Error::TooLarge {
                what: format!("more than {} rows in one file are not supported", u32::MAX - 1),
            })?;
            blocks.push(Block { first: total, count, records });
            total = next;
        }
        Ok(Self { bytes, dim, stride, blocks, total })
    }

    /// Rows in all, dead ones included.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Components a row.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The ordinals of block `index` (in the order given to [`RowTable::new`], other dimensions
    /// left out).
    #[must_use]
    pub fn block_ordinals(&self, index: usize) -> Option<Range<u32>> {
        self.blocks.get(index).map(|b| b.first..b.first + b.count)
    }

    /// Reads the rows of this block so from now on: the parent of a branch is known, or another view has put some of them together.
    pub(crate) fn put_lazy(&mut self, index: usize, rows: Arc<LazyRows>) {
        if let Some(block) = self.blocks.get_mut(index) {
            block.records = Records::Lazy(rows);
        }
    }

    /// The rows of a block that are put together when they are read.
    pub(crate) fn lazy(&self, index: usize) -> Option<&Arc<LazyRows>> {
        match &self.blocks.get(index)?.records {
            Records::Lazy(rows) => Some(rows),
            Records::File(_) | Records::Unread => None,
        }
    }

    /// The changed rows of a block.
    pub(crate) fn changed(&self, index: usize) -> Option<&Arc<LazyRows>> {
        self.lazy(index).filter(|rows| rows.parent().is_some())
    }

    /// The block of a row, and the row's place in it.
    fn place(&self, ordinal: u32) -> Option<(&Block, usize)> {
        // One segment is the common case after a compaction; skip the search for it.
        let block = match self.blocks.as_slice() {
            [only] => only,
            many => {
                let after = many.partition_point(|b| b.first <= ordinal);
                many.get(after.wrapping_sub(1))?
            }
        };
        Some((block, ordinal.wrapping_sub(block.first) as usize))
    }

    fn record(&self, offset: usize, row: usize) -> &[u8] {
        let at = offset + row * self.stride;
        self.bytes.get(at..at + self.stride).unwrap_or(&[])
    }

    /// The id of a row; 0 for an ordinal outside the table.
    #[must_use]
    pub fn id(&self, ordinal: u32) -> u64 {
        let Some((block, row)) = self.place(ordinal) else { return 0 };
        let record = match &block.records {
            Records::File(offset) => self.record(*offset, row),
            Records::Unread => return 0,
            Records::Lazy(rows) => return rows.id(row),
        };
        record.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b))
    }

    /// The vector of a row: `dim` little-endian `f32`, at any alignment. Empty for an ordinal
    /// outside the table.
    #[must_use]
    pub fn vector(&self, ordinal: u32) -> &[u8] {
        let Some((block, row)) = self.place(ordinal) else { return &[] };
        let record = match &block.records {
            Records::File(offset) => self.record(*offset, row),
            Records::Unread => return &[],
            Records::Lazy(rows) => return rows.vector(row),
        };
        record.get(8..).unwrap_or(&[])
    }

    /// Records as they lie side by side, the first that of `first`, `most` at the most: each an id (8 bytes) and a vector, little-endian
    /// at any alignment. At least one where `first` is in the table and `most` is not 0; where the next row lies elsewhere, no more.
    #[must_use]
    pub fn records(&self, first: u32, most: u32) -> &[u8] {
        let Some((block, row)) = self.place(first) else { return &[] };
        let count = (block.count as usize).saturating_sub(row).min(most as usize);
        let offset = match &block.records {
            Records::File(offset) => *offset,
            Records::Unread => return &[],
            Records::Lazy(rows) => return rows.records(row, count),
        };
        let start = offset + row * self.stride;
        self.bytes.get(start..start + count * self.stride).unwrap_or(&[])
    }

    /// The bytes behind the table.
    #[must_use]
    pub fn bytes(&self) -> &FileBytes {
        &self.bytes
    }
}

impl rvf_index::Rows for RowTable {
    fn len(&self) -> u32 {
        self.total
    }
    fn vector(&self, ordinal: u32) -> &[u8] {
        RowTable::vector(self, ordinal)
    }
    fn id(&self, ordinal: u32) -> u64 {
        RowTable::id(self, ordinal)
    }
}
