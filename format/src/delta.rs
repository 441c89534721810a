//! DELTA payloads: rows of a branch told as changes of the rows that it inherits.
//!
//! The 64-byte header is the one that the reference declares and never writes; the bodies are ours, and docs/format.md
//! has them byte by byte. A row of a DELTA is always the row that the *parent* shows for the id, changed: deltas do not
//! stand on each other, so the newest row of an id counts here as it does among VEC segments.

use crate::checksum::fold32;
use crate::error::{Error, Result, codes};
use crate::reader::{Reader, put_varint};

const MAGIC: u32 = 0x5256_444C;
const VERSION: u16 = 1;
/// Bytes of the header.
pub const HEADER: usize = 64;
/// DELTA rows of one id that a file may list. The writer stores a full row then; a reader takes what is more than that
/// for damage, so that a small hostile file cannot ask for memory without end.
pub const MAX_ROWS_PER_ID: u64 = 4;

/// The header of a DELTA payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeltaHeader {
    /// Version.
    pub version: u16,
    /// 0 sparse rows, 1 low rank, 2 full.
    pub encoding: u8,
    /// Cluster that it changes; 0 in ours, whose rows are named by id.
    pub base_cluster_id: u32,
    /// Vectors that it changes.
    pub affected_count: u32,
    /// Bytes of the body.
    pub delta_size: u64,
    /// `fold32` of the body.
    pub delta_hash: [u8; 32],
}

impl DeltaHeader {
    /// Reads the 64 bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the payload is shorter or has another magic.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new(payload, "DELTA header", codes::COW_MAP_CORRUPT);
        if payload.len() < HEADER || r.u32()? != MAGIC {
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

/// How the rows differ from the inherited ones.
#[derive(Clone, Debug, PartialEq)]
pub enum Changes {
    /// For each id, components and their new values, ascending by component and at least one.
    Sparse(Vec<Vec<(u16, f32)>>),
    /// `row = base + scale * (a_i B)`.
    LowRank {
        /// Rank, at least 1.
        rank: u16,
        /// What the product is multiplied with.
        scale: f32,
        /// `[ids, rank]`, row-major.
        a: Vec<f32>,
        /// `[rank, dim]`, row-major.
        b: Vec<f32>,
    },
}

/// A DELTA payload.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// Components of a vector.
    pub dim: u16,
    /// The ids changed, ascending, each once.
    pub ids: Vec<u64>,
    /// How.
    pub changes: Changes,
}

impl Delta {
    /// Reads a payload. Memory is bounded by the payload's length.
    ///
    /// # Errors
    /// [`Error::Corrupt`] (0x0700) on a version or encoding that is not known, a length that does not hold, ids or
    /// components that do not ascend, or a body that does not match its hash.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let header = DeltaHeader::parse(payload)?;
        let body = payload.get(HEADER..).unwrap_or(&[]);
        let mut r = Reader::new(body, "DELTA body", codes::COW_MAP_CORRUPT);
        if header.version != VERSION || header.encoding > 1 {
            return r.fail(format!(
                "version {}, encoding {}; known are version 1 with 0 (sparse) and 1 (low rank)",
                header.version, header.encoding
            ));
        }
        let count = header.affected_count as usize;
        // Every id takes a byte at least.
        if header.delta_size != body.len() as u64 || count > body.len() || count == 0 {
            return r.fail(format!(
                "{count} ids in {} bytes, {} of them declared",
                body.len(),
                header.delta_size
            ));
        }
        if header.delta_hash != fold32(body) {
            return r.fail("the body does not match its hash");
        }
        let dim = r.u16()?;
        let delta =
            if header.encoding == 0 { sparse(&mut r, dim, count)? } else { low_rank(&mut r, dim, count)? };
        if r.left() > 0 {
            return r.fail(format!("{} bytes too many", r.left()));
        }
        Ok(delta)
    }

    /// The payload.
    ///
    /// # Errors
    /// [`Error::Caller`] (0x0200) when shapes disagree or something does not ascend, (0x0304) for 2^32 ids or more.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let shape = |text: &str| Err(Error::caller(codes::DIMENSION_MISMATCH, format!("DELTA: {text}")));
        let count = u32::try_from(self.ids.len())
            .map_err(|_| Error::caller(codes::SEGMENT_TOO_LARGE, "too many rows in one DELTA"))?;
        if count == 0 || !self.ids.is_sorted_by(|x, y| x < y) {
            return shape("ids must be there and ascend");
        }
        let mut body = self.dim.to_le_bytes().to_vec();
        let encoding = match &self.changes {
            Changes::Sparse(rows) => {
                if rows.len() != self.ids.len() {
                    return shape("as many rows as ids are wanted");
                }
                let mut last = None;
                for (id, row) in self.ids.iter().zip(rows) {
                    let within = row.last().is_some_and(|(at, _)| *at < self.dim);
                    if !within || !row.is_sorted_by(|x, y| x.0 < y.0) {
                        return shape("components must be there, ascend, and be below the dimension");
                    }
                    put_step(&mut body, &mut last, *id);
                    put_patch(&mut body, row);
                }
                0
            }
            Changes::LowRank { rank, scale, a, b } => {
                let wide = usize::from(*rank);
                if *rank == 0
                    || Some(a.len()) != wide.checked_mul(self.ids.len())
                    || b.len() != wide * usize::from(self.dim)
                {
                    return shape("A must be [ids, rank] and B [rank, dim]");
                }
                body.extend_from_slice(&rank.to_le_bytes());
                body.extend_from_slice(&scale.to_le_bytes());
                let mut last = None;
                for id in &self.ids {
                    put_step(&mut body, &mut last, *id);
                }
                for value in a.iter().chain(b) {
                    body.extend_from_slice(&value.to_le_bytes());
                }
                1
            }
        };
        let mut out = Vec::with_capacity(HEADER + body.len());
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[encoding, 0]);
        out.extend_from_slice(&0u32.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&(body.len() as u64).to_le_bytes());
        out.extend_from_slice(&fold32(&body));
        out.resize(HEADER, 0);
        out.extend_from_slice(&body);
        Ok(out)
    }

    /// Appends the vector of the id at `index` to `out`, as `dim` little-endian f32, from the inherited one. A sum of a
    /// low-rank row is taken in f64 from the first factor to the last and rounded once, so that every reader gets the
    /// same bits. Appends nothing when `base` is no row of this dimension.
    pub fn apply(&self, index: usize, base: &[u8], out: &mut Vec<u8>) {
        let dim = usize::from(self.dim);
        if base.len() != 4 * dim {
            return;
        }
        match &self.changes {
            Changes::Sparse(rows) => {
                let from = out.len();
                out.extend_from_slice(base);
                for (at, value) in rows.get(index).map_or(&[][..], Vec::as_slice) {
                    let place = from + 4 * usize::from(*at);
                    if let Some(slot) = out.get_mut(place..place + 4) {
                        slot.copy_from_slice(&value.to_le_bytes());
                    }
                }
            }
            Changes::LowRank { rank, scale, a, b } => {
                let wide = usize::from(*rank);
                let factors = a.get(index * wide..(index + 1) * wide).unwrap_or(&[]);
                let mut sums = vec![0.0f64; dim];
                for (factor, row) in factors.iter().zip(b.chunks_exact(dim.max(1))) {
                    for (sum, value) in sums.iter_mut().zip(row) {
                        *sum += f64::from(*factor) * f64::from(*value);
                    }
                }
                for (bytes, sum) in base.as_chunks::<4>().0.iter().zip(&sums) {
                    let value = f64::from(f32::from_le_bytes(*bytes)) + f64::from(*scale) * sum;
                    out.extend_from_slice(&(value as f32).to_le_bytes());
                }
            }
        }
    }
}

/// Bytes that a row takes in a sparse body, its id's step not among them.
pub fn patch_len(row: &[(u16, f32)]) -> usize {
    let mut out = Vec::new();
    put_patch(&mut out, row);
    out.len()
}

fn put_patch(out: &mut Vec<u8>, row: &[(u16, f32)]) {
    put_varint(out, row.len() as u64);
    let mut last = None;
    for (at, _) in row {
        put_step(out, &mut last, u64::from(*at));
    }
    for (_, value) in row {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// The first number as it is, then how much larger each is than the one before, less one.
fn put_step(out: &mut Vec<u8>, last: &mut Option<u64>, value: u64) {
    put_varint(out, last.map_or(value, |last| value.wrapping_sub(last).wrapping_sub(1)));
    *last = Some(value);
}

fn step(r: &mut Reader<'_>, last: &mut Option<u64>) -> Result<u64> {
    let step = r.varint()?;
    let value = match *last {
        None => Some(step),
        Some(last) => last.checked_add(1).and_then(|next| next.checked_add(step)),
    };
    *last = value;
    match value {
        Some(value) => Ok(value),
        None => r.fail("a number past 2^64"),
    }
}

fn floats(r: &mut Reader<'_>, count: Option<usize>) -> Result<Vec<f32>> {
    let bytes = r.take(count.and_then(|count| count.checked_mul(4)).unwrap_or(usize::MAX))?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

fn sparse(r: &mut Reader<'_>, dim: u16, count: usize) -> Result<Delta> {
    let (mut ids, mut rows) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let mut last = None;
    for _ in 0..count {
        ids.push(step(r, &mut last)?);
        let pairs = usize::try_from(r.varint()?).unwrap_or(usize::MAX);
        if pairs == 0 || pairs > usize::from(dim) {
            return r.fail(format!("{pairs} components of dimension {dim} changed"));
        }
        let mut components = Vec::with_capacity(pairs.min(r.left()));
        let mut before = None;
        for _ in 0..pairs {
            let at = step(r, &mut before)?;
            match u16::try_from(at).ok().filter(|at| *at < dim) {
                Some(at) => components.push(at),
                None => return r.fail(format!("component {at} of dimension {dim}")),
            }
        }
        let values = floats(r, Some(pairs))?;
        rows.push(components.into_iter().zip(values).collect());
    }
    Ok(Delta { dim, ids, changes: Changes::Sparse(rows) })
}

fn low_rank(r: &mut Reader<'_>, dim: u16, count: usize) -> Result<Delta> {
    let rank = r.u16()?;
    let scale = f32::from_le_bytes(r.array()?);
    if rank == 0 {
        return r.fail("rank 0");
    }
    let mut ids = Vec::with_capacity(count);
    let mut last = None;
    for _ in 0..count {
        ids.push(step(r, &mut last)?);
    }
    let wide = usize::from(rank);
    let a = floats(r, wide.checked_mul(count))?;
    let b = floats(r, wide.checked_mul(usize::from(dim)))?;
    Ok(Delta { dim, ids, changes: Changes::LowRank { rank, scale, a, b } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> [Delta; 2] {
        let ids = vec![0, 7, 8, u64::MAX];
        let row = |at: u16| vec![(at, 1.5f32), (at + 3, -0.0)];
        [
            Delta {
                dim: 300,
                ids: ids.clone(),
                changes: Changes::Sparse((0..4).map(|i| row(i * 90)).collect()),
            },
            Delta {
                dim: 3,
                ids,
                changes: Changes::LowRank {
                    rank: 2,
                    scale: 0.5,
                    a: (0..8).map(|v| v as f32).collect(),
                    b: vec![1.0, 0.0, 2.0, 0.0, 1.0, -1.0],
                },
            },
        ]
    }

    #[test]
    fn round_trips_and_notices_every_flipped_bit_of_the_body() {
        for delta in both() {
            let payload = delta.encode().unwrap();
            assert_eq!(Delta::parse(&payload).unwrap(), delta);
            for at in (HEADER * 8)..(payload.len() * 8) {
                let mut bad = payload.clone();
                bad[at / 8] ^= 1 << (at % 8);
                assert!(Delta::parse(&bad).is_err(), "bit {at}");
            }
            for len in 0..payload.len() {
                assert!(Delta::parse(&payload[..len]).is_err(), "{len} bytes");
            }
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let body = |encoding: u8, count: u32, body: &[u8]| {
            let mut out = both()[0].encode().unwrap()[..HEADER].to_vec();
            out[6] = encoding;
            out[12..16].copy_from_slice(&count.to_le_bytes());
            out[16..24].copy_from_slice(&(body.len() as u64).to_le_bytes());
            out[24..56].copy_from_slice(&fold32(body));
            out.extend_from_slice(body);
            Delta::parse(&out)
        };
        // dim 2; id 5: one component, number 1, value 0.
        assert!(body(0, 1, &[2, 0, 5, 1, 1, 0, 0, 0, 0]).is_ok());
        for (encoding, count, bytes, why) in [
            (0u8, u32::MAX, &[2u8, 0, 5, 1, 1, 0, 0, 0, 0][..], "more ids than bytes"),
            (0, 0, &[2, 0], "no ids"),
            (0, 1, &[2, 0, 5, 0], "no components"),
            (0, 1, &[2, 0, 5, 3, 0, 0, 0], "more components than the dimension"),
            (0, 1, &[2, 0, 5, 1, 2, 0, 0, 0, 0], "component past the dimension"),
            (0, 1, &[2, 0, 5, 1, 1, 0, 0, 0, 0, 9], "a byte too many"),
            (1, 1, &[2, 0, 0, 0, 0, 0, 0, 0, 5], "rank 0"),
            (1, 1, &[255, 255, 255, 255, 0, 0, 0, 0, 5], "rank larger than the payload"),
            (2, 1, &[2, 0, 5], "unknown encoding"),
        ] {
            assert!(body(encoding, count, bytes).is_err(), "{why}");
        }
    }

    #[test]
    fn rows_stand_on_the_inherited_one() {
        let [sparse, low] = both();
        let row = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let mut out = Vec::new();
        sparse.apply(1, &row(&vec![9.0; 300]), &mut out);
        let mut wanted = vec![9.0; 300];
        (wanted[90], wanted[93]) = (1.5, -0.0);
        assert_eq!(out, row(&wanted));
        out.clear();
        // a = [2, 3]: 2 * [1, 0, 2] + 3 * [0, 1, -1] = [2, 3, 1], halved.
        low.apply(1, &row(&[10.0, 20.0, 30.0]), &mut out);
        assert_eq!(out, row(&[11.0, 21.5, 30.5]));
    }
}
