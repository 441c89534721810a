//! VEC payloads: rows of `id u64, dim x f32`, and the columnar form of rvf-wire.

use crate::error::{Error, Result, codes};
use crate::reader::{Reader, put_varint};
use std::ops::Range;

/// Element type of a columnar block: binary16.
pub const DTYPE_F16: u8 = 1;
/// Element type of a columnar block: one byte, a number or the code of a scalar quantiser.
pub const DTYPE_U8: u8 = 4;

/// Ids of a block are written whole this far apart.
const RESTART: u16 = 128;

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

/// One block of the columnar layout.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Components of a vector.
    pub dim: u16,
    /// 0 f32, 1 f16, 2 bf16, 3 i8, 4 u8; others are taken as one opaque byte an element.
    pub dtype: u8,
    /// 0 hot, 1 warm, 2 cold.
    pub tier: u8,
    /// Vector ids.
    pub ids: Vec<u64>,
    /// Elements, column-major: all values of component 0, then component 1, ...
    pub data: Vec<u8>,
    /// Whether the stored CRC-32C matches; the reference never checks it.
    pub crc_ok: bool,
}

/// Bytes of an element.
pub fn element_size(dtype: u8) -> usize {
    match dtype {
        0 => 4,
        1 | 2 => 2,
        _ => 1,
    }
}

/// `f32`, `f16`, `bf16`, `i8`, `u8`, `i4`, `binary`, `pq` or `custom`.
pub fn dtype_name(dtype: u8) -> &'static str {
    ["f32", "f16", "bf16", "i8", "u8", "i4", "binary", "pq"].get(usize::from(dtype)).unwrap_or(&"custom")
}

impl Block {
    /// Rows of the row layout: id and `dim` f32 each. `None` for a dtype whose values are not numbers.
    pub fn to_rows(&self) -> Option<Vec<u8>> {
        if self.dtype > DTYPE_U8 {
            return None;
        }
        let mut out = Vec::with_capacity(self.ids.len() * row_stride(self.dim));
        let shape = (usize::from(self.dim), self.ids.len(), self.dtype);
        for (row, id) in self.ids.iter().enumerate() {
            out.extend_from_slice(&id.to_le_bytes());
            put_vector(&self.data, shape, row, None, &mut out);
        }
        Some(out)
    }
}

/// Appends the components of one row of a block of (dimension, rows, dtype) whose data these are; 0 for what is not there.
pub(crate) fn put_vector(
    data: &[u8],
    (dim, count, dtype): (usize, usize, u8),
    row: usize,
    scale: Option<&Scale>,
    out: &mut Vec<u8>,
) {
    let size = element_size(dtype);
    for component in 0..dim {
        let at = (component * count + row) * size;
        let element = data.get(at..at + size).unwrap_or(&[]);
        let value = match (scale, element) {
            (Some(scale), [code]) => scale.value(component, *code),
            _ => element_f32(dtype, element).unwrap_or(0.0),
        };
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// What codes of one byte stand for, by component: `min + code * (max - min) / 255`.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    min: Vec<f32>,
    step: Vec<f32>,
}

impl Scale {
    /// From the smallest and largest value of each component. `None` when they do not pair, or are not numbers.
    pub fn new(min: &[f32], max: &[f32]) -> Option<Self> {
        let sound = min.len() == max.len() && min.iter().zip(max).all(|(a, b)| a <= b && (b - a).is_finite());
        let step = min.iter().zip(max).map(|(a, b)| (b - a) / 255.0).collect();
        (sound && min.iter().all(|a| a.is_finite())).then(|| Self { min: min.to_vec(), step })
    }

    /// Components.
    pub fn len(&self) -> usize {
        self.min.len()
    }

    /// Whether it has no components.
    pub fn is_empty(&self) -> bool {
        self.min.is_empty()
    }

    /// The value of a code; 0 for a component that there is not.
    pub fn value(&self, component: usize, code: u8) -> f32 {
        let (Some(min), Some(step)) = (self.min.get(component), self.step.get(component)) else { return 0.0 };
        min + f32::from(code) * step
    }

    /// The code whose value is nearest.
    pub fn code(&self, component: usize, value: f32) -> u8 {
        let (Some(min), Some(step)) = (self.min.get(component), self.step.get(component)) else { return 0 };
        // A component that never varies has no step; the cast saturates, and takes NaN for 0.
        if *step > 0.0 { ((value - min) / step).round() as u8 } else { 0 }
    }
}

/// A columnar payload: a directory, then every block with its id map and checksum. Ids that ascend are written as
/// differences, others as they are.
///
/// # Errors
/// [`Error::Caller`] (0x0200) for a block whose data do not fit its ids; (0x0304) when the payload passes 4 GiB.
pub fn encode_columnar(blocks: &[Block]) -> Result<Vec<u8>> {
    let too_large = || Error::caller(codes::SEGMENT_TOO_LARGE, "a columnar vector segment of 4 GiB or more");
    let narrow = |n: usize| u32::try_from(n).map_err(|_| too_large());
    let mut out = narrow(blocks.len())?.to_le_bytes().to_vec();
    out.resize((4 + 12 * blocks.len()).next_multiple_of(64), 0);
    for (i, block) in blocks.iter().enumerate() {
        let elements = block.ids.len().checked_mul(usize::from(block.dim) * element_size(block.dtype));
        if elements != Some(block.data.len()) {
            let text =
                format!("{} ids do not match {} bytes of components", block.ids.len(), block.data.len());
            return Err(Error::caller(codes::DIMENSION_MISMATCH, text));
        }
        out.resize(out.len().next_multiple_of(64), 0);
        let (start, count) = (narrow(out.len())?, narrow(block.ids.len())?);
        let mut line = Vec::with_capacity(12);
        line.extend_from_slice(&start.to_le_bytes());
        line.extend_from_slice(&count.to_le_bytes());
        line.extend_from_slice(&block.dim.to_le_bytes());
        line.extend_from_slice(&[block.dtype, block.tier]);
        out[4 + 12 * i..16 + 12 * i].copy_from_slice(&line);
        out.extend_from_slice(&block.data);
        let ascending = block.ids.is_sorted();
        out.push(u8::from(ascending));
        out.extend_from_slice(&RESTART.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
        for (at, id) in block.ids.iter().enumerate() {
            match at.checked_sub(1).and_then(|before| block.ids.get(before)) {
                _ if !ascending => out.extend_from_slice(&id.to_le_bytes()),
                Some(before) if at % usize::from(RESTART) != 0 => put_varint(&mut out, id - before),
                _ => put_varint(&mut out, *id),
            }
        }
        let crc = crate::checksum::crc32c(&out[start as usize..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }
    narrow(out.len())?;
    Ok(out)
}

/// The nearest binary16 value of a number; `None` when it is too large for one.
pub fn f32_to_f16(value: f32) -> Option<u16> {
    let half = half::f16::from_f32(value);
    half.is_finite().then(|| half.to_bits())
}

fn element_f32(dtype: u8, bytes: &[u8]) -> Option<f32> {
    Some(match (dtype, bytes) {
        (0, bytes) => f32::from_le_bytes(bytes.try_into().ok()?),
        (1, [low, high]) => f16_to_f32(u16::from_le_bytes([*low, *high])),
        (2, [low, high]) => f32::from_bits(u32::from(u16::from_le_bytes([*low, *high])) << 16),
        (3, [byte]) => f32::from(*byte as i8),
        (4, [byte]) => f32::from(*byte),
        _ => return None,
    })
}

/// IEEE 754 binary16 to binary32, exact.
pub fn f16_to_f32(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let (exponent, fraction) = (u32::from(half >> 10 & 0x1f), u32::from(half & 0x3ff));
    match exponent {
        0 => {
            let magnitude = fraction as f32 / 16_777_216.0;
            if sign == 0 { magnitude } else { -magnitude }
        }
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

/// Whether the bytes start with a block directory that is consistent with the payload's length: what tells the
/// columnar layout from the row layout, since nothing else does. O(blocks).
pub fn looks_columnar(payload: &[u8]) -> bool {
    directory(payload).is_ok_and(|blocks| !blocks.is_empty())
}

struct Line {
    start: usize,
    end: usize,
    count: u32,
    dim: u16,
    dtype: u8,
    tier: u8,
}

fn directory(payload: &[u8]) -> Result<Vec<Line>> {
    let mut r = Reader::new(payload, "VEC block directory", codes::INVALID_CHECKSUM);
    let count = r.u32()? as usize;
    if count > r.left() / 12 {
        return r.fail(format!("{count} blocks in {} bytes", r.left()));
    }
    let first = (4 + 12 * count).next_multiple_of(64);
    let mut out: Vec<Line> = Vec::with_capacity(count);
    for _ in 0..count {
        let start = r.u32()? as usize;
        let rows = r.u32()?;
        let dim = r.u16()?;
        let dtype = r.u8()?;
        let tier = r.u8()?;
        let data =
            (rows as usize).checked_mul(usize::from(dim)).and_then(|n| n.checked_mul(element_size(dtype)));
        // Data, the id map's header, at least a byte an id, and the CRC.
        let least = data.and_then(|data| data.checked_add(7 + rows as usize + 4)).unwrap_or(usize::MAX);
        let floor = out.last().map_or(first, |line| line.start.saturating_add(64));
        if !start.is_multiple_of(64) || start < floor || payload.len().saturating_sub(start) < least {
            return r.fail(format!("block at {start} with {rows} rows of dimension {dim} does not fit"));
        }
        if let Some(last) = out.last_mut() {
            last.end = start;
        }
        out.push(Line { start, end: payload.len(), count: rows, dim, dtype, tier });
    }
    Ok(out)
}

/// A block of a columnar payload, as it is stored.
pub(crate) struct Stored {
    pub(crate) dim: u16,
    pub(crate) dtype: u8,
    pub(crate) tier: u8,
    pub(crate) ids: Vec<u64>,
    /// Elements, by their place in the payload.
    pub(crate) data: Range<usize>,
    pub(crate) crc_ok: bool,
}

/// Reads a columnar payload. O(payload).
///
/// # Errors
/// [`Error::Corrupt`] when a block, an id map or a length does not hold.
pub fn decode_columnar(payload: &[u8]) -> Result<Vec<Block>> {
    let whole = |block: Stored| Block {
        dim: block.dim,
        dtype: block.dtype,
        tier: block.tier,
        ids: block.ids,
        data: payload.get(block.data).unwrap_or(&[]).to_vec(),
        crc_ok: block.crc_ok,
    };
    Ok(stored_blocks(payload)?.into_iter().map(whole).collect())
}

/// As [`decode_columnar`], without copying the elements.
pub(crate) fn stored_blocks(payload: &[u8]) -> Result<Vec<Stored>> {
    let mut out = Vec::new();
    for line in directory(payload)? {
        let bytes = payload.get(line.start..line.end).unwrap_or(&[]);
        let mut r = Reader::new(bytes, "VEC block", codes::INVALID_CHECKSUM);
        r.take(line.count as usize * usize::from(line.dim) * element_size(line.dtype))?;
        let data = line.start..line.start + r.pos();
        let encoding = r.u8()?;
        let restart = usize::from(r.u16()?);
        let ids = r.u32()?;
        if ids != line.count || encoding > 1 || (encoding == 1 && restart == 0) {
            return r.fail(format!("id map of {ids} ids, encoding {encoding}, restart {restart}"));
        }
        let mut list = Vec::with_capacity(ids as usize);
        for i in 0..ids as usize {
            let id = match encoding {
                0 => r.u64()?,
                _ if i % restart == 0 => r.varint()?,
                _ => {
                    let delta = r.varint()?;
                    let next = list.last().and_then(|last: &u64| last.checked_add(delta));
                    let Some(next) = next else { return r.fail("vector id past 2^64") };
                    next
                }
            };
            list.push(id);
        }
        let hashed = bytes.get(..r.pos()).unwrap_or(&[]);
        let crc_ok = r.u32()? == crate::checksum::crc32c(hashed);
        out.push(Stored { dim: line.dim, dtype: line.dtype, tier: line.tier, ids: list, data, crc_ok });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columnar_payloads_come_back() {
        let block = |dtype: u8, ids: Vec<u64>| Block {
            dim: 3,
            dtype,
            tier: 1,
            data: (0..ids.len() * 3 * element_size(dtype)).map(|i| (i * 7) as u8).collect(),
            ids,
            crc_ok: true,
        };
        let ascending = block(DTYPE_U8, (0..300).map(|i| i * i).collect());
        let blocks = [ascending, block(DTYPE_F16, vec![u64::MAX, 0, 5]), block(0, vec![9])];
        let payload = encode_columnar(&blocks).unwrap();
        assert!(looks_columnar(&payload));
        assert_eq!(decode_columnar(&payload).unwrap(), blocks);
        let wrong = Block { ids: vec![1, 2], ..block(0, vec![1]) };
        assert!(encode_columnar(&[wrong]).is_err());
    }

    #[test]
    fn a_code_is_found_again_from_its_value() {
        let scale = Scale::new(&[-1.0, 0.1, 3.0, -1e30], &[1.0, 0.2, 3.0, 1e30]).unwrap();
        for component in [0, 1, 3] {
            for code in 0..=255 {
                assert_eq!(scale.code(component, scale.value(component, code)), code, "{component} {code}");
            }
        }
        assert_eq!((scale.code(2, 3.0), scale.value(2, 0)), (0, 3.0));
        assert_eq!((scale.code(0, 9.0), scale.code(0, -9.0)), (255, 0));
        assert_eq!(Scale::new(&[0.0], &[f32::INFINITY]), None);
        assert_eq!(Scale::new(&[1.0], &[0.0]), None);
        assert_eq!(Scale::new(&[f32::NAN], &[0.0]), None);
    }

    #[test]
    fn halves_are_the_nearest_ones() {
        assert_eq!(f32_to_f16(1.0), Some(0x3c00));
        assert_eq!(f32_to_f16(1.0 + 1.0 / 2048.0), Some(0x3c00), "ties go to the even one");
        assert_eq!(f32_to_f16(-65504.0), Some(0xfbff));
        assert_eq!(f32_to_f16(70_000.0), None);
        for bits in (0..0x7c00).chain(0x8000..0xfc00) {
            assert_eq!(f32_to_f16(f16_to_f32(bits)), Some(bits));
        }
    }
}
