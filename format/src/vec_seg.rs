//! VEC payloads: rows of `id u64, dim x f32`, and the columnar form of rvf-wire.

use crate::error::{Error, Result, codes};

/// Bytes before the first row of the row layout.
pub const ROWS_AT: u64 = 6;

/// Bytes from one row to the next.
pub fn row_stride(dim: u16) -> usize {
    8 + 4 * usize::from(dim)
}

/// Dimension and row count that the first six bytes of a row-layout payload declare; `None` when there are fewer.
pub fn declared(payload: &[u8]) -> Option<(u16, u32)> {
    let head: [u8; 6] = payload.get(..6)?.try_into().ok()?;
    Some((u16::from_le_bytes([head[0], head[1]]), u32::from_le_bytes([head[2], head[3], head[4], head[5]])))
}

/// The first six bytes of a row-layout payload of `count` rows; rows follow as [`row_stride`] bytes each.
pub fn head(dim: u16, count: u32) -> [u8; 6] {
    let (d, c) = (dim.to_le_bytes(), count.to_le_bytes());
    [d[0], d[1], c[0], c[1], c[2], c[3]]
}

/// A whole row-layout payload from ids and rows (`vectors` is `[ids.len(), dim]`, row-major).
///
/// # Errors
/// [`Error::Caller`] (0x0200) when the shapes disagree, (0x0304) when there are more than 2^32-1 rows.
pub fn encode(dim: u16, ids: &[u64], vectors: &[f32]) -> Result<Vec<u8>> {
    let width = usize::from(dim);
    if ids.len().checked_mul(width) != Some(vectors.len()) {
        let text = format!("{} ids of dimension {dim} do not match {} components", ids.len(), vectors.len());
        return Err(Error::caller(codes::DIMENSION_MISMATCH, text));
    }
    let count = u32::try_from(ids.len())
        .map_err(|_| Error::caller(codes::SEGMENT_TOO_LARGE, format!("{} rows in one segment", ids.len())))?;
    let mut out = Vec::with_capacity(6 + ids.len() * row_stride(dim));
    out.extend_from_slice(&head(dim, count));
    for (i, id) in ids.iter().enumerate() {
        out.extend_from_slice(&id.to_le_bytes());
        for value in &vectors[i * width..(i + 1) * width] {
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
    Ok(out)
}
