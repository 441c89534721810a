//! The pin: the record of what a child is to its parent, in a META_IDX segment, a type whose payload the format leaves
//! open. The existing tools keep it through every commit and compaction and never look at it.

use std::fmt;

use crate::checksum::ChecksumState;
use crate::error::{Result, codes};
use crate::header::{SegType, Segment};
use crate::reader::Reader;
use crate::recover::Opened;

/// First bytes of the payload.
pub const MAGIC: &[u8; 8] = b"RVFPIN\r\n";

/// The digest of a parent covers this many bytes at the end of its prefix, besides all segment headers.
pub const TAIL: usize = 64 << 10;

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

/// A state of another file that went into a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its epoch.
    pub epoch: u32,
    /// Bytes of the file that belong to that state.
    pub prefix: u64,
    /// Its file id.
    pub file_id: [u8; 16],
    /// SHAKE-256-256 over file id, length, all segment headers and the last 64 KiB of the prefix.
    pub digest: [u8; 32],
    /// SHAKE-256-256 of the payload of its own pin; zero when it has none.
    pub record: [u8; 32],
}

/// Which state of its parent a child was made from, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Of the layout: 1 has nothing behind the name, and no hash of the parent's own pin.
    pub version: u16,
    /// What the child is to its parent.
    pub derivation: Derivation,
    /// The child has vectors of its own only, and does not show its parent's.
    pub standalone: bool,
    /// The parent.
    pub parent: Source,
    /// When, in nanoseconds since 1970.
    pub created_ns: u64,
    /// The branch's name.
    pub name: String,
    /// How it was made: names and values.
    pub parameters: Vec<(String, String)>,
    /// What else went into it: the files that were merged.
    pub others: Vec<Source>,
}

impl Pin {
    /// The payload, of the version that the pin has.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&[self.derivation.code(), u8::from(self.standalone)]);
        out.extend_from_slice(&self.parent.epoch.to_le_bytes());
        out.extend_from_slice(&self.parent.prefix.to_le_bytes());
        out.extend_from_slice(&self.parent.file_id);
        out.extend_from_slice(&self.parent.digest);
        out.extend_from_slice(&self.created_ns.to_le_bytes());
        let name = cut(&self.name, MAX_NAME);
        out.extend_from_slice(&(name.len() as u16).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        if self.version == 1 {
            return out;
        }
        out.extend_from_slice(&self.parent.record);
        let parameters = self.parameters.get(..usize::from(u16::MAX)).unwrap_or(&self.parameters);
        out.extend_from_slice(&(parameters.len() as u16).to_le_bytes());
        for (key, value) in parameters {
            let key = cut(key, usize::from(u8::MAX));
            out.push(key.len() as u8);
            out.extend_from_slice(key.as_bytes());
            let value = cut(value, u32::MAX as usize);
            out.extend_from_slice(&(value.len() as u32).to_le_bytes());
            out.extend_from_slice(value.as_bytes());
        }
        let others = self.others.get(..usize::from(u16::MAX)).unwrap_or(&self.others);
        out.extend_from_slice(&(others.len() as u16).to_le_bytes());
        for source in others {
            out.extend_from_slice(&source.epoch.to_le_bytes());
            out.extend_from_slice(&source.prefix.to_le_bytes());
            out.extend_from_slice(&source.file_id);
            out.extend_from_slice(&source.digest);
            out.extend_from_slice(&source.record);
        }
        out
    }

    /// Reads a payload. O(payload).
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] for another magic or version, a text that is not UTF-8, or bytes too many or too few.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new(payload, "pin", codes::INVALID_CHECKSUM);
        if r.array::<8>()? != *MAGIC {
            return r.fail("no pin");
        }
        let version = r.u16()?;
        if !(1..=2).contains(&version) {
            return r.fail(format!("version {version}, written by a newer program"));
        }
        let derivation = Derivation::from_code(r.u8()?);
        let flags = r.u8()?;
        if version > 1 && flags > 1 {
            return r.fail(format!("flags {flags:#x}, written by a newer program"));
        }
        let mut parent = Source {
            epoch: r.u32()?,
            prefix: r.u64()?,
            file_id: r.array()?,
            digest: r.array()?,
            record: [0; 32],
        };
        let created_ns = r.u64()?;
        let len = usize::from(r.u16()?);
        let name = text(&mut r, len)?;
        let (mut parameters, mut others) = (Vec::new(), Vec::new());
        if version > 1 {
            parent.record = r.array()?;
            for _ in 0..r.u16()? {
                let len = usize::from(r.u8()?);
                let key = text(&mut r, len)?;
                let len = r.u32()? as usize;
                parameters.push((key, text(&mut r, len)?));
            }
            for _ in 0..r.u16()? {
                others.push(Source {
                    epoch: r.u32()?,
                    prefix: r.u64()?,
                    file_id: r.array()?,
                    digest: r.array()?,
                    record: r.array()?,
                });
            }
        }
        if r.left() > 0 {
            return r.fail(format!("{} bytes too many", r.left()));
        }
        Ok(Self {
            version,
            derivation,
            standalone: version > 1 && flags == 1,
            parent,
            created_ns,
            name,
            parameters,
            others,
        })
    }

    /// The first hex digits of the digest: part of the name under which an old parent is kept.
    #[must_use]
    pub fn key(&self) -> String {
        key_of(&self.parent.digest)
    }
}

/// [`Pin::key`] of a digest.
#[must_use]
pub fn key_of(digest: &[u8; 32]) -> String {
    digest.iter().take(4).map(|b| format!("{b:02x}")).collect()
}

/// The longest beginning of a text that has at most so many bytes.
fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

fn text(r: &mut Reader<'_>, len: usize) -> Result<String> {
    let bytes = r.take(len)?.to_vec();
    String::from_utf8(bytes).or_else(|_| r.fail("a text that is not UTF-8"))
}

/// Whether a segment holds a pin, readable or not.
#[must_use]
pub fn is_pin(segment: &Segment, bytes: &[u8]) -> bool {
    segment.kind() == SegType::META_IDX && segment.payload_of(bytes).starts_with(MAGIC)
}

/// The segment of the pin that counts: the last one that the manifest lists.
#[must_use]
pub fn find<'a>(bytes: &[u8], opened: &'a Opened) -> Option<&'a Segment> {
    let manifest = &opened.manifest.as_ref()?.manifest;
    let mut listed = manifest.entries_of(SegType::META_IDX).rev();
    listed.find_map(|entry| opened.layout.segment_at_offset(entry.offset).filter(|s| is_pin(s, bytes)))
}

/// The pin that counts. `Err` when there is one that cannot be read: a child must not be taken for one of another
/// kind because of that.
///
/// # Errors
/// Why, in one sentence.
pub fn read(bytes: &[u8], opened: &Opened) -> std::result::Result<Option<Pin>, String> {
    let Some(segment) = find(bytes, opened) else { return Ok(None) };
    if segment.verify(bytes) != ChecksumState::Ok {
        return Err("the record of its parent's state (pin) is damaged".into());
    }
    Pin::parse(segment.payload_of(bytes))
        .map(Some)
        .map_err(|error| format!("the record of its parent's state (pin) is damaged: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(byte: u8) -> Source {
        Source { epoch: 7, prefix: 1 << 40, file_id: [byte; 16], digest: [9; 32], record: [0; 32] }
    }

    fn pin() -> Pin {
        Pin {
            version: 1,
            derivation: Derivation::Snapshot,
            standalone: false,
            parent: source(3),
            created_ns: 12,
            name: "exp".into(),
            parameters: Vec::new(),
            others: Vec::new(),
        }
    }

    #[test]
    fn a_pin_comes_back() {
        let rich = Pin {
            version: 2,
            standalone: true,
            parent: Source { record: [5; 32], ..source(3) },
            parameters: vec![("filter".into(), "year > 2000".into()), (String::new(), "\u{e9}".into())],
            others: vec![source(1), Source { record: [8; 32], ..source(2) }],
            ..pin()
        };
        for (pin, len) in [(pin(), 85), (Pin { version: 2, ..pin() }, 121), (rich, 334)] {
            let bytes = pin.encode();
            assert_eq!(bytes.len(), len);
            assert_eq!(Pin::parse(&bytes).unwrap(), pin);
            assert_eq!(pin.key(), "09090909");
            for len in 0..bytes.len() {
                assert!(Pin::parse(&bytes[..len]).is_err(), "{len} bytes");
            }
            assert!(Pin::parse(&[&bytes[..], &[0]].concat()).is_err());
            let mut newer = bytes.clone();
            newer[8] = 3;
            assert!(Pin::parse(&newer).is_err());
        }
    }

    #[test]
    fn texts_are_cut_between_letters() {
        let long = Pin { version: 2, name: "\u{e9}".repeat(200), ..pin() };
        assert_eq!(Pin::parse(&long.encode()).unwrap().name, "\u{e9}".repeat(127));
    }
}
