//! The rows of a columnar VEC segment: their ids, and where each of their components lies.

use std::ops::Range;
use std::sync::Arc;

use crate::vec_seg::{self, Scale, Stored};

/// The rows of a columnar VEC segment that can be used, in their order. Ids are read, 8 bytes a row; vectors stay in the file until
/// they are asked for.
#[derive(Clone, Debug)]
pub struct Columns {
    dim: u16,
    ids: Vec<u64>,
    parts: Vec<Part>,
}

/// One block of the segment.
#[derive(Clone, Debug)]
struct Part {
    /// Its first row.
    first: usize,
    count: usize,
    dtype: u8,
    /// What its codes stand for.
    scale: Option<Arc<Scale>>,
    /// Its components in the file.
    data: Range<usize>,
}

impl Columns {
    pub(crate) fn new(dim: u16) -> Self {
        Self { dim, ids: Vec::new(), parts: Vec::new() }
    }

    /// Adds a block of a payload that begins at `payload` in the file; `false` when its elements are no numbers, or too many for
    /// a row.
    pub(crate) fn push(&mut self, block: Stored, payload: usize, scale: Option<&Arc<Scale>>) -> bool {
        if block.dtype > vec_seg::DTYPE_U8 || block.dim != self.dim {
            return false;
        }
        let fits =
            |scale: &&Arc<Scale>| block.dtype == vec_seg::DTYPE_U8 && scale.len() == usize::from(block.dim);
        self.parts.push(Part {
            first: self.ids.len(),
            count: block.ids.len(),
            dtype: block.dtype,
            scale: scale.filter(fits).cloned(),
            data: payload.saturating_add(block.data.start)..payload.saturating_add(block.data.end),
        });
        self.ids.extend(block.ids);
        true
    }

    /// Components of a vector.
    pub fn dim(&self) -> u16 {
        self.dim
    }

    /// The ids of all rows.
    pub fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// Whether the same bytes stand for the same vectors there.
    pub fn means_the_same(&self, other: &Self) -> bool {
        let meaning = |part: &Part| (part.first, part.dtype, part.data.clone());
        self.parts.len() == other.parts.len()
            && self
                .parts
                .iter()
                .zip(&other.parts)
                .all(|(a, b)| meaning(a) == meaning(b) && a.scale == b.scale)
    }

    /// Appends rows of the row layout, id and `dim` f32 each, from the bytes of the file.
    pub fn put_rows(&self, file: &[u8], rows: Range<usize>, out: &mut Vec<u8>) {
        for row in rows {
            let after = self.parts.partition_point(|part| part.first <= row);
            let (Some(id), Some(part)) = (self.ids.get(row), self.parts.get(after.wrapping_sub(1))) else {
                return;
            };
            out.extend_from_slice(&id.to_le_bytes());
            let data = file.get(part.data.clone()).unwrap_or(&[]);
            let shape = (usize::from(self.dim), part.count, part.dtype);
            vec_seg::put_vector(data, shape, row - part.first, part.scale.as_deref(), out);
        }
    }
}
