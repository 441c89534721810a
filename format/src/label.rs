//! The label of an embedded program: its name, in a META_IDX segment, a type whose payload the format leaves open. The existing
//! tools keep it through every commit and compaction and never look at it.
//!
//! A label finds its program by what the program's header says of the payload: type, length and content hash, and the segment
//! id where several have the same. So it holds wherever a compaction moves the segment.

use crate::error::{Result, codes};
use crate::header::{SegType, Segment};
use crate::reader::Reader;

/// First bytes of the payload.
pub const MAGIC: &[u8; 8] = b"RVFPRG\r\n";

/// Longest name, in bytes: a file name with any suffix that the tree gives it.
pub const MAX_NAME: usize = 200;

/// What a label says of one program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Segment type: KERNEL, EBPF or WASM.
    pub kind: u8,
    /// The program was taken out of the store; its bytes are dropped by the next compaction.
    pub removed: bool,
    /// Id of the program's segment.
    pub segment_id: u64,
    /// Bytes of its payload.
    pub length: u64,
    /// The content hash in its header.
    pub hash: [u8; 16],
    /// Its name.
    pub name: String,
}

impl Label {
    /// The label of a segment.
    #[must_use]
    pub fn of(segment: &Segment, name: &str, removed: bool) -> Self {
        Self {
            kind: segment.header.seg_type,
            removed,
            segment_id: segment.header.id(),
            length: segment.header.payload_len(),
            hash: segment.header.content_hash,
            name: name.to_owned(),
        }
    }

    /// The payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let name = self.name.get(..self.name.floor_char_boundary(MAX_NAME)).unwrap_or_default();
        let mut out = Vec::with_capacity(46 + name.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&1_u16.to_le_bytes());
        out.extend_from_slice(&[self.kind, u8::from(self.removed)]);
        out.extend_from_slice(&self.segment_id.to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.hash);
        out.extend_from_slice(&(name.len() as u16).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        out
    }

    /// Reads a payload. O(payload).
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] for another magic or version, a name that cannot be one, or bytes too many or too few.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new(payload, "label of a program", codes::INVALID_CHECKSUM);
        if r.array::<8>()? != *MAGIC {
            return r.fail("no label");
        }
        let version = r.u16()?;
        if version != 1 {
            return r.fail(format!("version {version}, written by a newer program"));
        }
        let kind = r.u8()?;
        let removed = match r.u8()? {
            0 => false,
            1 => true,
            flags => return r.fail(format!("flags {flags:#x}, written by a newer program")),
        };
        let (segment_id, length, hash) = (r.u64()?, r.u64()?, r.array()?);
        let len = usize::from(r.u16()?);
        let name = match String::from_utf8(r.take(len)?.to_vec()) {
            Ok(name) => name,
            Err(_) => return r.fail("a name that is not UTF-8"),
        };
        if let Err(why) = check_name(&name) {
            return r.fail(why);
        }
        if r.left() > 0 {
            return r.fail(format!("{} bytes too many", r.left()));
        }
        Ok(Self { kind, removed, segment_id, length, hash, name })
    }

    /// Whether it speaks of this segment, as far as its payload goes.
    #[must_use]
    pub fn fits(&self, segment: &Segment) -> bool {
        let header = &segment.header;
        (self.kind, self.length, self.hash) == (header.seg_type, header.payload_len(), header.content_hash)
    }
}

/// Whether a segment holds a label, readable or not.
#[must_use]
pub fn is_label(segment: &Segment, bytes: &[u8]) -> bool {
    segment.kind() == SegType::META_IDX && segment.payload_of(bytes).starts_with(MAGIC)
}

/// What a program may be called: a file name, which is shown with and without a suffix.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> std::result::Result<(), &'static str> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err("a name of a program has 1 to 200 bytes");
    }
    if name.starts_with('.') || name.starts_with('-') {
        return Err("a name of a program begins with neither a dot nor a dash");
    }
    if name.chars().any(|c| c == '/' || c.is_control()) {
        return Err("a name of a program has no slashes and no control characters");
    }
    let reserved = [".bin", ".o", ".wasm", ".json", "~", ".tmp", ".part"];
    if name == "error" || reserved.iter().any(|end| name.ends_with(end)) {
        return Err(
            "a name of a program is not 'error' and does not end in .bin, .o, .wasm, .json, .tmp, .part or ~",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label() -> Label {
        Label {
            kind: 0x0E,
            removed: false,
            segment_id: 7,
            length: 1 << 33,
            hash: [3; 16],
            name: "linux".into(),
        }
    }

    #[test]
    fn labels_are_read_as_written() {
        for label in [label(), Label { removed: true, name: "ä".repeat(100), ..label() }] {
            assert_eq!(Label::parse(&label.encode()).ok(), Some(label));
        }
    }

    #[test]
    fn what_is_no_label_is_refused() {
        let good = label().encode();
        for at in 0..good.len() {
            assert!(Label::parse(&good[..at]).is_err(), "cut at {at}");
        }
        let changed = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Label::parse(&bytes)
        };
        for (at, byte) in [(0, 0), (8, 2), (11, 2), (44, 4), (44, 6), (46, b'.'), (46, b'/'), (46, 0xff)] {
            assert!(changed(at, byte).is_err(), "byte {at} as {byte}");
        }
        assert!(changed(10, 0x0F).is_ok());
    }

    #[test]
    fn names_are_file_names() {
        for good in ["linux", "vmlinuz-6.1.0-56-cloud-amd64", "xdp.v2", "größe"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "-n", "a/b", "a\nb", "error", "x.bin", "x.o", "x.wasm", "x.json", "x~"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(check_name(&"x".repeat(201)).is_err());
    }
}
