//! Signature records: what is signed, and how it lies in a CRYPTO segment.
//!
//! A record is the whole payload of one CRYPTO segment (0x0C), which the existing tools keep and ignore:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `RVFSIG\r\n` |
//! | 8 | 2 | version, 1 |
//! | 10 | 2 | algorithm: 0 Ed25519, 1 ML-DSA-65 |
//! | 12 | 1 | scope: 0 a segment in any file, 1 a segment of this file, 2 the beginning of this file |
//! | 13 | 1 | type of the segment; 0 for scope 2 |
//! | 14 | 2 | zero |
//! | 16 | 8 | length of what is signed |
//! | 24 | 32 | SHA3-256 of what is signed: the payload, or the file's first bytes |
//! | 56 | 16 | file id; zero for scope 0 |
//! | 72 | 8 | time of signing, ns since 1970 |
//! | 80 | 8 | valid until, ns since 1970; 0 for no end |
//! | 88 | 8 | offset of the segment's header when it was signed: where to look first; 0 for scope 2 |
//! | 96 | 16 | id of the key |
//! | 112 | 2 | length of the comment, up to 255 |
//! | 114 | 2 | length of the signature |
//! | 116 | | comment, UTF-8; then the signature, which ends the payload |
//!
//! Signed is the ASCII text `rvf-mount signature v1`, a zero byte, and the payload up to the signature.

use rvf_format::checksum::sha3_256;

use crate::key::{Algorithm, KeyId, PublicKey, SecretKey};

/// First bytes of a record.
pub const MAGIC: &[u8; 8] = b"RVFSIG\r\n";

const CONTEXT: &[u8] = b"rvf-mount signature v1\0";
const VERSION: u16 = 1;
const FIXED: usize = 116;

/// Longest comment, bytes.
pub const MAX_COMMENT: usize = 255;

/// What a signature is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// A payload of this type, in whatever file it lies: what a maker of kernels or programs signs.
    Segment {
        /// Type number.
        kind: u8,
    },
    /// A payload of this type in the file with this id.
    SegmentOf {
        /// Type number.
        kind: u8,
        /// The file.
        file_id: [u8; 16],
    },
    /// The first bytes of the file with this id, up to the end of a manifest.
    Prefix {
        /// The file.
        file_id: [u8; 16],
    },
}

impl Scope {
    const fn code(self) -> u8 {
        match self {
            Self::Segment { .. } => 0,
            Self::SegmentOf { .. } => 1,
            Self::Prefix { .. } => 2,
        }
    }

    /// The type of segment it is about.
    pub const fn kind(self) -> Option<u8> {
        match self {
            Self::Segment { kind } | Self::SegmentOf { kind, .. } => Some(kind),
            Self::Prefix { .. } => None,
        }
    }

    /// The file it is bound to.
    pub const fn file_id(self) -> Option<[u8; 16]> {
        match self {
            Self::Segment { .. } => None,
            Self::SegmentOf { file_id, .. } | Self::Prefix { file_id } => Some(file_id),
        }
    }

    /// Its name in text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Segment { .. } => "segment",
            Self::SegmentOf { .. } => "segment of this file",
            Self::Prefix { .. } => "file",
        }
    }
}

/// What bytes a signature may be about: their length and SHA3-256, so that they are hashed once for many signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Content {
    /// Bytes.
    pub length: u64,
    /// SHA3-256.
    pub digest: [u8; 32],
}

impl Content {
    /// Hashes the bytes. O(n).
    pub fn of(bytes: &[u8]) -> Self {
        Self { length: bytes.len() as u64, digest: sha3_256(bytes) }
    }
}

/// Hashes beginnings of the same bytes, each going on from the one before when it is longer, as signatures of a growing file
/// are in file order: O(n) for all of them.
#[derive(Clone, Debug, Default)]
pub struct Prefixes {
    hasher: sha3::Sha3_256,
    hashed: usize,
}

impl Prefixes {
    /// Bytes that [`Prefixes::content`] would hash for this length.
    pub fn cost(&self, length: usize) -> usize {
        length.checked_sub(self.hashed).unwrap_or(length)
    }

    /// What the first `length` of these bytes are; `None` when there are fewer. The bytes are the same at every call.
    pub fn content(&mut self, bytes: &[u8], length: usize) -> Option<Content> {
        use sha3::Digest as _;
        if length < self.hashed {
            *self = Self::default();
        }
        self.hasher.update(bytes.get(self.hashed..length)?);
        self.hashed = length;
        Some(Content { length: length as u64, digest: self.hasher.clone().finalize().into() })
    }
}

/// What is said of some bytes, before it is signed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Statement {
    /// What it is about.
    pub scope: Scope,
    /// What is signed.
    pub content: Content,
    /// Nanoseconds since 1970.
    pub signed_ns: u64,
    /// Nanoseconds since 1970 after which it is not to be relied on; 0 for no end.
    pub until_ns: u64,
    /// Where the segment's header was; a hint only.
    pub offset: u64,
    /// Free text, cut to [`MAX_COMMENT`] bytes.
    pub comment: String,
}

impl Statement {
    /// A statement about these bytes, valid without end.
    pub fn of(scope: Scope, content: Content, signed_ns: u64) -> Self {
        Self { scope, content, signed_ns, until_ns: 0, offset: 0, comment: String::new() }
    }

    /// Signs it.
    pub fn sign(&self, key: &SecretKey) -> Signature {
        let mut statement = self.clone();
        let mut end = statement.comment.len().min(MAX_COMMENT);
        while !statement.comment.is_char_boundary(end) {
            end -= 1;
        }
        statement.comment.truncate(end);
        let mut record = Signature {
            statement,
            algorithm: key.algorithm(),
            key: key.public().id(),
            bytes: Vec::with_capacity(key.algorithm().signature_len()),
        };
        record.bytes = key.sign(&record.message());
        record
    }
}

/// A signed statement.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Signature {
    /// What was signed.
    pub statement: Statement,
    /// How.
    pub algorithm: Algorithm,
    /// By which key.
    pub key: KeyId,
    bytes: Vec<u8>,
}

/// Why a payload is no signature record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// Another kind of CRYPTO payload.
    #[error("no signature record: it does not begin with RVFSIG")]
    Magic,
    /// Made by a later version.
    #[error("signature record of version {0}; this program reads version 1")]
    Version(u16),
    /// Numbers that this version does not know.
    #[error("signature record with unknown {what} {value}")]
    Unknown {
        /// Which field.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// Lengths that do not fill the payload.
    #[error("signature record of {found} bytes where its fields make {expected}")]
    Length {
        /// By the fields.
        expected: u64,
        /// There.
        found: u64,
    },
    /// Bytes that must be zero or UTF-8 and are not.
    #[error("signature record with malformed {0}")]
    Malformed(&'static str),
}

fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = to.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn array<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    from.get(at..at + N).and_then(|b| b.try_into().ok()).unwrap_or([0; N])
}

impl Signature {
    /// The payload without the signature.
    fn head(&self) -> Vec<u8> {
        let s = &self.statement;
        let mut head = vec![0u8; FIXED];
        put(&mut head, 0, MAGIC);
        put(&mut head, 8, &VERSION.to_le_bytes());
        put(&mut head, 10, &self.algorithm.code().to_le_bytes());
        put(&mut head, 12, &[s.scope.code(), s.scope.kind().unwrap_or(0)]);
        put(&mut head, 16, &s.content.length.to_le_bytes());
        put(&mut head, 24, &s.content.digest);
        put(&mut head, 56, &s.scope.file_id().unwrap_or_default());
        put(&mut head, 72, &s.signed_ns.to_le_bytes());
        put(&mut head, 80, &s.until_ns.to_le_bytes());
        put(&mut head, 88, &s.offset.to_le_bytes());
        put(&mut head, 96, &self.key.0);
        put(&mut head, 112, &(s.comment.len() as u16).to_le_bytes());
        put(&mut head, 114, &(self.algorithm.signature_len() as u16).to_le_bytes());
        head.extend_from_slice(s.comment.as_bytes());
        head
    }

    fn message(&self) -> Vec<u8> {
        let mut message = CONTEXT.to_vec();
        message.extend(self.head());
        message
    }

    /// The payload of its CRYPTO segment.
    pub fn encode(&self) -> Vec<u8> {
        let mut payload = self.head();
        payload.extend_from_slice(&self.bytes);
        payload
    }

    /// Reads a payload. What it says is not yet checked.
    ///
    /// # Errors
    /// [`SignatureError`]: another kind of record ([`SignatureError::Magic`]), or a damaged one (corruption).
    pub fn decode(payload: &[u8]) -> Result<Self, SignatureError> {
        if !payload.starts_with(MAGIC) {
            return Err(SignatureError::Magic);
        }
        let found = payload.len() as u64;
        let Some((fixed, rest)) = payload.split_at_checked(FIXED) else {
            return Err(SignatureError::Length { expected: FIXED as u64, found });
        };
        let version = u16::from_le_bytes(array(fixed, 8));
        if version != VERSION {
            return Err(SignatureError::Version(version));
        }
        let code = u16::from_le_bytes(array(fixed, 10));
        let unknown = |what, value: u64| SignatureError::Unknown { what, value };
        let algorithm = Algorithm::from_code(code).ok_or_else(|| unknown("algorithm", u64::from(code)))?;
        let [scope, kind, zero @ ..] = array::<4>(fixed, 12);
        let file_id: [u8; 16] = array(fixed, 56);
        let offset = u64::from_le_bytes(array(fixed, 88));
        if zero != [0, 0] {
            return Err(SignatureError::Malformed("reserved bytes"));
        }
        let scope = match scope {
            0 if file_id != [0; 16] => return Err(SignatureError::Malformed("file id")),
            0 => Scope::Segment { kind },
            1 => Scope::SegmentOf { kind, file_id },
            2 if kind != 0 || offset != 0 => return Err(SignatureError::Malformed("segment")),
            2 => Scope::Prefix { file_id },
            other => return Err(unknown("scope", u64::from(other))),
        };
        let comment_len = usize::from(u16::from_le_bytes(array(fixed, 112)));
        let signature_len = usize::from(u16::from_le_bytes(array(fixed, 114)));
        if comment_len > MAX_COMMENT || signature_len != algorithm.signature_len() {
            return Err(SignatureError::Malformed("lengths"));
        }
        let expected = (FIXED + comment_len + signature_len) as u64;
        let Some((comment, bytes)) = rest.split_at_checked(comment_len).filter(|_| found == expected) else {
            return Err(SignatureError::Length { expected, found });
        };
        let comment = std::str::from_utf8(comment).map_err(|_| SignatureError::Malformed("comment"))?;
        let statement = Statement {
            scope,
            content: Content { length: u64::from_le_bytes(array(fixed, 16)), digest: array(fixed, 24) },
            signed_ns: u64::from_le_bytes(array(fixed, 72)),
            until_ns: u64::from_le_bytes(array(fixed, 80)),
            offset,
            comment: comment.to_owned(),
        };
        Ok(Self { statement, algorithm, key: KeyId(array(fixed, 96)), bytes: bytes.to_vec() })
    }

    /// Whether the holder of this key made exactly this statement. Whether it is true of some bytes is for the caller to
    /// compare: [`Statement::content`].
    pub fn verify(&self, key: &PublicKey) -> bool {
        key.algorithm() == self.algorithm && key.id() == self.key && key.verify(&self.message(), &self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: [u8; 16] = [7; 16];

    fn signed(algorithm: Algorithm, scope: Scope) -> (Signature, SecretKey) {
        let key = SecretKey::from_seed(algorithm, &[3; 32]);
        let mut statement = Statement::of(scope, Content::of(b"payload"), 1_700_000_000_000_000_000);
        statement.comment = "released by us".into();
        (statement.sign(&key), key)
    }

    #[test]
    fn records_survive_their_bytes_and_every_bit_counts() {
        for scope in [
            Scope::Segment { kind: 14 },
            Scope::SegmentOf { kind: 14, file_id: FILE },
            Scope::Prefix { file_id: FILE },
        ] {
            let (record, key) = signed(Algorithm::Ed25519, scope);
            let payload = record.encode();
            let back = Signature::decode(&payload).unwrap();
            assert_eq!(back, record);
            assert!(back.verify(&key.public()));
            for bit in 0..payload.len() * 8 {
                let mut bad = payload.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                let accepted = Signature::decode(&bad).is_ok_and(|r| r.verify(&key.public()));
                assert!(!accepted, "bit {bit} does not count");
            }
        }
    }

    #[test]
    fn prefixes_are_hashed_as_if_alone() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut prefixes = Prefixes::default();
        for length in [0, 7, 7, 200, 256, 3, 136] {
            assert_eq!(prefixes.content(&bytes, length), Some(Content::of(&bytes[..length])), "{length}");
        }
        assert_eq!((prefixes.cost(136), prefixes.cost(140), prefixes.cost(5)), (0, 4, 5));
        assert_eq!(prefixes.content(&bytes, 257), None);
    }

    #[test]
    fn cut_and_odd_payloads_are_refused() {
        let (record, key) = signed(Algorithm::MlDsa65, Scope::Segment { kind: 16 });
        let payload = record.encode();
        assert!(Signature::decode(&payload).unwrap().verify(&key.public()));
        for end in 0..payload.len() {
            assert!(Signature::decode(&payload[..end]).is_err(), "{end}");
        }
        let mut longer = payload.clone();
        longer.push(0);
        assert!(matches!(Signature::decode(&longer), Err(SignatureError::Length { .. })));
        let mut later = payload;
        later[8] = 2;
        assert_eq!(Signature::decode(&later), Err(SignatureError::Version(2)));
        assert_eq!(Signature::decode(b"another record"), Err(SignatureError::Magic));
    }

    #[test]
    fn long_comments_are_cut_between_characters() {
        let key = SecretKey::from_seed(Algorithm::Ed25519, &[3; 32]);
        let mut statement = Statement::of(Scope::Segment { kind: 1 }, Content::of(b""), 0);
        statement.comment = "ä".repeat(200);
        let record = statement.sign(&key);
        assert_eq!(record.statement.comment.len(), 254);
        assert!(Signature::decode(&record.encode()).unwrap().verify(&key.public()));
    }
}
