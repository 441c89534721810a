//! Packets of the XDP program: what a query and an answer look like inside UDP. Integers are little-endian.
//!
//! | query | | answer | |
//! | --- | --- | --- | --- |
//! | 0 | `RVFQ` | 0 | `RVFA` |
//! | 4 | version, 1 | 4 | version, 1 |
//! | 5 | operation: 0 nearest, 1 describe, 2 look up an id | 5 | operation |
//! | 6 | bytes a component: 1, 2 or 3 | 6 | status, see [`Status`] |
//! | 7 | shift | 7 | metric |
//! | 8 | dimension, u16 | 8 | dimension, u16 |
//! | 10 | k, u16, 1 to 16 | 10 | results, u16 |
//! | 12 | token, u32, comes back | 12 | token, u32 |
//! | 16 | components, two's complement | 16 | hot vectors, u32 |
//! | | zeros, at least to the answer's length | 20 | epoch of the store, u32 |
//! | | | 24 | step, f64 |
//! | | | 32 | results: id, u64, and raw value, i64; for describe the file id, 16 bytes |
//!
//! An answer is never longer than its query, so that a forged sender cannot make the program send more than it gets.

use crate::hot::{Metric, Scale};

/// Bytes before the components.
pub const QUERY_HEAD: usize = 16;

/// Bytes before the results.
pub const ANSWER_HEAD: usize = 32;

/// Bytes a result.
pub const RESULT: usize = 16;

/// Largest payload: what Ethernet carries with IPv6 and UDP around it. (IPv4 would leave 20 more.)
pub const MAX_PAYLOAD: usize = 1452;

/// The port that is used where none is given.
pub const PORT: u16 = 7474;

/// What a query asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// The nearest hot vectors.
    Nearest = 0,
    /// What the hot set is.
    Describe = 1,
    /// Nothing that the XDP program answers: the filter looks at the id, which follows at offset 16.
    Lookup = 2,
}

/// Begins a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What is asked.
    pub op: Op,
    /// Bytes a component.
    pub width: u8,
    /// The query's steps are `2^shift` of the hot vectors'.
    pub shift: u8,
    /// Components.
    pub dimension: u16,
    /// Results that are wanted.
    pub k: u16,
    /// Comes back in the answer.
    pub token: u32,
}

impl Header {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"RVFQ\x01".to_vec();
        out.extend_from_slice(&[self.op as u8, self.width, self.shift]);
        out.extend_from_slice(&self.dimension.to_le_bytes());
        out.extend_from_slice(&self.k.to_le_bytes());
        out.extend_from_slice(&self.token.to_le_bytes());
        out
    }
}

/// Asks what the hot set is.
#[must_use]
pub fn describe(token: u32) -> Vec<u8> {
    let mut out = Header { op: Op::Describe, width: 0, shift: 0, dimension: 0, k: 0, token }.encode();
    out.resize(ANSWER_HEAD + 16, 0);
    out
}

/// Asks for a vector by its id, from who may have it.
#[must_use]
pub fn lookup(id: u64, token: u32) -> Vec<u8> {
    let mut out = Header { op: Op::Lookup, width: 0, shift: 0, dimension: 0, k: 0, token }.encode();
    out.extend_from_slice(&id.to_le_bytes());
    out
}

/// What became of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Answered.
    Ok,
    /// The version is not known.
    Version,
    /// The operation is not known.
    Op,
    /// Another dimension than the store's.
    Dimension,
    /// k is not 1 to 16.
    K,
    /// Bytes a component are not 1 to 3.
    Width,
    /// The query is shorter than its components or its answer.
    Short,
    /// The shift is more than 5.
    Shift,
    /// One that is not known here.
    Other(u8),
}

impl Status {
    fn from_code(code: u8) -> Self {
        let known = [
            Self::Ok,
            Self::Version,
            Self::Op,
            Self::Dimension,
            Self::K,
            Self::Width,
            Self::Short,
            Self::Shift,
        ];
        known.get(usize::from(code)).copied().unwrap_or(Self::Other(code))
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What became of the query.
    pub status: Status,
    /// As in the query.
    pub token: u32,
    /// Vectors that were compared.
    pub hot_vectors: u32,
    /// State of the store that they are of.
    pub epoch: u32,
    /// What a client has to know to ask.
    pub scale: Scale,
    /// Ids and raw values, nearest first.
    pub results: Vec<(u64, i64)>,
    /// The store's file id, where it was asked for.
    pub file_id: Option<[u8; 16]>,
}

impl Answer {
    /// Reads a payload; `None` when it is no answer.
    #[must_use]
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let (head, rest) = payload.split_first_chunk::<ANSWER_HEAD>()?;
        let half = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let word = |at: usize| u32::from(half(at)) | u32::from(half(at + 2)) << 16;
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if !head.starts_with(b"RVFA\x01") {
            return None;
        }
        let results = usize::from(half(10));
        let mut found = Vec::with_capacity(results.min(crate::hot::MAX_K));
        for result in rest.get(..results * RESULT)?.chunks_exact(RESULT) {
            let (id, raw) = result.split_at(8);
            found.push((u64::from_le_bytes(id.try_into().ok()?), i64::from_le_bytes(raw.try_into().ok()?)));
        }
        let status = Status::from_code(head[6]);
        let described = head[5] == Op::Describe as u8 && status == Status::Ok;
        Some(Self {
            status,
            token: word(12),
            hot_vectors: word(16),
            epoch: word(20),
            scale: Scale {
                metric: Metric::from_code(head[7])?,
                dimension: usize::from(half(8)),
                step: f64::from_bits(long(24)),
            },
            results: found,
            file_id: if described { rest.first_chunk().copied() } else { None },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_at_least_as_long_as_their_answers() {
        assert_eq!(describe(1).len(), 48);
        let scale = Scale { metric: Metric::L2, dimension: 2, step: 0.5 };
        let query = crate::hot::Query::new(&scale, &[1.0, -1.0]).expect("a query");
        let bytes = query.payload(16, 0x0102_0304);
        assert_eq!(bytes.len(), 32 + 16 * 16);
        assert_eq!(
            bytes[..22],
            *b"RVFQ\x01\x00\x03\x00\x02\x00\x10\x00\x04\x03\x02\x01\x02\x00\x00\xFE\xFF\xFF"
        );
        assert_eq!(lookup(7, 0)[16..], 7_u64.to_le_bytes());
    }

    #[test]
    fn answers_are_read_and_other_packets_are_not() {
        let mut bytes = b"RVFA\x01\x00\x00\x02".to_vec();
        bytes.extend_from_slice(&[3, 0, 1, 0, 9, 0, 0, 0, 5, 0, 0, 0, 4, 0, 0, 0]);
        bytes.extend_from_slice(&0.25_f64.to_le_bytes());
        bytes.extend_from_slice(&77_u64.to_le_bytes());
        bytes.extend_from_slice(&(-6_i64).to_le_bytes());
        let answer = Answer::decode(&bytes).expect("an answer");
        assert_eq!((answer.token, answer.hot_vectors, answer.epoch), (9, 5, 4));
        assert_eq!(answer.scale, Scale { metric: Metric::Cosine, dimension: 3, step: 0.25 });
        assert_eq!((answer.results, answer.file_id), (vec![(77, -6)], None));
        for len in 0..bytes.len() {
            assert_eq!(Answer::decode(&bytes[..len]), None, "cut to {len}");
        }
        bytes[3] = b'Q';
        assert_eq!(Answer::decode(&bytes), None);
    }
}
