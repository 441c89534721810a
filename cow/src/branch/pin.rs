//! The pin: which prefix of its parent a child was made from, in a form that can be checked.
//!
//! It is a META_IDX segment, a type whose payload the format leaves open: the existing tools keep it
//! through every commit and compaction and never look at it. Layout in docs/format.md.

use std::fmt;

use rvf_format::Segment;
use rvf_format::checksum::ChecksumState;
use rvf_format::header::SegType;
use rvf_format::layout;
use rvf_format::recover::Opened;

/// First bytes of the payload.
pub(crate) const MAGIC: &[u8; 8] = b"RVFPIN\r\n";

/// Bytes before the name.
const FIXED: usize = 82;

/// The digest covers this many bytes at the end of the prefix, besides all segment headers.
pub(crate) const TAIL: usize = 64 << 10;

/// Longest name of a branch, in bytes.
pub const MAX_NAME: usize = 255;

/// What a child is to its parent. The reference has the names and stores them nowhere; the pin does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Derivation {
    /// The same contents, to go on from.
    #[default]
    Clone,
    /// A part of the contents.
    Filter,
    /// Contents put together from several files.
    Merge,
    /// The same contents, rounded.
    Quantize,
    /// The same contents with another index.
    Reindex,
    /// Contents computed from the parent's.
    Transform,
    /// The same contents, to keep.
    Snapshot,
    /// Anything else.
    Other(u8),
}

impl Derivation {
    /// The number in the file.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Clone => 0,
            Self::Filter => 1,
            Self::Merge => 2,
            Self::Quantize => 3,
            Self::Reindex => 4,
            Self::Transform => 5,
            Self::Snapshot => 6,
            Self::Other(code) => code,
        }
    }

    fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Clone,
            1 => Self::Filter,
            2 => Self::Merge,
            3 => Self::Quantize,
            4 => Self::Reindex,
            5 => Self::Transform,
            6 => Self::Snapshot,
            code => Self::Other(code),
        }
    }
}

impl fmt::Display for Derivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clone => "clone",
            Self::Filter => "filter",
            Self::Merge => "merge",
            Self::Quantize => "quantize",
            Self::Reindex => "reindex",
            Self::Transform => "transform",
            Self::Snapshot => "snapshot",
            Self::Other(code) => return write!(f, "other ({code})"),
        })
    }
}

/// Which state of its parent a child was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// What the child is to its parent.
    pub derivation: Derivation,
    /// The parent's epoch.
    pub epoch: u32,
    /// Bytes of the parent that belong to that state.
    pub prefix: u64,
    /// The parent's file id.
    pub file_id: [u8; 16],
    /// SHAKE-256-256 over file id, length, all segment headers and the last 64 KiB of the prefix.
    pub digest: [u8; 32],
    /// When, in nanoseconds since 1970.
    pub created_ns: u64,
    /// The branch's name.
    pub name: String,
}

impl Pin {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED + self.name.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&1u16.to_le_bytes());
        out.extend_from_slice(&[self.derivation.code(), 0]);
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.prefix.to_le_bytes());
        out.extend_from_slice(&self.file_id);
        out.extend_from_slice(&self.digest);
        out.extend_from_slice(&self.created_ns.to_le_bytes());
        let name = self.name.get(..MAX_NAME).unwrap_or(&self.name);
        out.extend_from_slice(&(name.len() as u16).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        out
    }

    fn parse(payload: &[u8]) -> Option<Self> {
        let word = |at: usize| payload.get(at..)?.first_chunk::<8>().map(|b| u64::from_le_bytes(*b));
        let (fixed, name) = payload.split_at_checked(FIXED)?;
        let name_len = fixed.get(80..)?.first_chunk::<2>().map(|b| usize::from(u16::from_le_bytes(*b)))?;
        if fixed.get(..8)? != MAGIC || fixed.get(8..10)? != [1, 0] || name.len() != name_len {
            return None;
        }
        Some(Self {
            derivation: Derivation::from_code(*fixed.get(10)?),
            epoch: fixed.get(12..)?.first_chunk::<4>().map(|b| u32::from_le_bytes(*b))?,
            prefix: word(16)?,
            file_id: *fixed.get(24..)?.first_chunk()?,
            digest: *fixed.get(40..)?.first_chunk()?,
            created_ns: word(72)?,
            name: String::from_utf8(name.to_vec()).ok()?,
        })
    }

    /// The first hex digits of the digest: part of the name under which an old parent is kept.
    pub(crate) fn key(&self) -> String {
        key_of(&self.digest)
    }
}

pub(crate) fn key_of(digest: &[u8; 32]) -> String {
    digest.iter().take(4).map(|b| format!("{b:02x}")).collect()
}

fn is_pin(segment: &Segment, bytes: &[u8]) -> bool {
    segment.kind() == SegType::META_IDX && segment.payload_of(bytes).starts_with(MAGIC)
}

/// The pin that the manifest lists: the last one. `Err` when there is one that cannot be read: a
/// child must not be taken for one of another kind because of that.
pub(crate) fn read(bytes: &[u8], opened: &Opened) -> Result<Option<Pin>, String> {
    let Some(located) = &opened.manifest else { return Ok(None) };
    let found = located
        .manifest
        .entries_of(SegType::META_IDX)
        .rev()
        .filter_map(|entry| opened.layout.segment_at_offset(entry.offset))
        .find(|segment| is_pin(segment, bytes));
    let Some(segment) = found else { return Ok(None) };
    let sound = segment.verify(bytes) == ChecksumState::Ok;
    match Pin::parse(segment.payload_of(bytes)).filter(|_| sound) {
        Some(pin) => Ok(Some(pin)),
        None => Err("the record of its parent's state (pin) is damaged".into()),
    }
}

/// Digest of a parent's prefix. O(segments): payloads count through the hashes in their headers, the
/// newest ones (the manifest among them) also by themselves.
pub(crate) fn digest(prefix: &[u8], file_id: &[u8; 16]) -> [u8; 32] {
    let layout = layout::walk(prefix);
    let tail = prefix.get(prefix.len().saturating_sub(TAIL)..).unwrap_or(&[]);
    let mut text = Vec::with_capacity(64 + tail.len());
    text.extend_from_slice(b"rvf-mount pin v1");
    text.extend_from_slice(file_id);
    text.extend_from_slice(&(prefix.len() as u64).to_le_bytes());
    for segment in layout.segments() {
        let start = usize::try_from(segment.offset).unwrap_or(usize::MAX);
        text.extend_from_slice(prefix.get(start..start.saturating_add(64)).unwrap_or(&[]));
    }
    text.extend_from_slice(tail);
    rvf_crypto::shake256_256(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin() -> Pin {
        Pin {
            derivation: Derivation::Snapshot,
            epoch: 7,
            prefix: 1 << 40,
            file_id: [3; 16],
            digest: [9; 32],
            created_ns: 12,
            name: "exp".into(),
        }
    }

    #[test]
    fn a_pin_comes_back() {
        let bytes = pin().encode();
        assert_eq!(bytes.len(), 85);
        assert_eq!(Pin::parse(&bytes), Some(pin()));
        assert_eq!(pin().key(), "09090909");
        for len in 0..bytes.len() {
            assert_eq!(Pin::parse(bytes.get(..len).unwrap_or(&[])), None, "{len} bytes");
        }
    }

    #[test]
    fn every_byte_that_counts_changes_the_digest() {
        let base = digest(&[0; 100], &[1; 16]);
        assert_ne!(base, digest(&[0; 101], &[1; 16]));
        assert_ne!(base, digest(&[0; 100], &[2; 16]));
        let mut other = [0; 100];
        other[99] = 1;
        assert_ne!(base, digest(&other, &[1; 16]));
    }
}
