//! The 64-byte segment header and the segment type numbers.

use std::ops::Range;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First four bytes of every segment, read as a little-endian number (on disk: ASCII `SFVR`).
pub const MAGIC: u32 = 0x5256_4653;
/// [`MAGIC`] as it lies on disk.
pub const MAGIC_BYTES: [u8; 4] = *b"SFVR";
/// The only header version that exists.
pub const VERSION: u8 = 1;
/// Bytes of a segment header.
pub const HEADER_LEN: u64 = 64;
/// Segments start at multiples of this many bytes in the wire dialect.
pub const ALIGNMENT: u64 = 64;
/// Largest payload that the reference loads (256 MiB); larger segments make a store unreadable for it.
pub const MAX_PAYLOAD: u64 = 256 * 1024 * 1024;

/// Header flag bits. No writer sets one and no reader interprets one; they are shown.
#[expect(missing_docs, reason = "bit names only")]
pub mod flags {
    pub const COMPRESSED: u16 = 0x0001;
    pub const ENCRYPTED: u16 = 0x0002;
    pub const SIGNED: u16 = 0x0004;
    pub const SEALED: u16 = 0x0008;
    pub const PARTIAL: u16 = 0x0010;
    pub const TOMBSTONE: u16 = 0x0020;
    pub const HOT: u16 = 0x0040;
    pub const OVERLAY: u16 = 0x0080;
    pub const SNAPSHOT: u16 = 0x0100;
    pub const CHECKPOINT: u16 = 0x0200;
    pub const ATTESTED: u16 = 0x0400;
    pub const HAS_LINEAGE: u16 = 0x0800;

    const NAMES: [(u16, &str); 12] = [
        (COMPRESSED, "compressed"),
        (ENCRYPTED, "encrypted"),
        (SIGNED, "signed"),
        (SEALED, "sealed"),
        (PARTIAL, "partial"),
        (TOMBSTONE, "tombstone"),
        (HOT, "hot"),
        (OVERLAY, "overlay"),
        (SNAPSHOT, "snapshot"),
        (CHECKPOINT, "checkpoint"),
        (ATTESTED, "attested"),
        (HAS_LINEAGE, "has_lineage"),
    ];

    /// Lower-case names of the set bits, lowest bit first; reserved bits are left out.
    pub fn names(bits: u16) -> Vec<&'static str> {
        NAMES.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect()
    }
}

/// A segment type number. Every value is legal; unknown ones are kept and shown, never interpreted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegType(pub u8);

macro_rules! seg_types {
    ($($konst:ident = $value:literal, $cli:literal, $dir:literal;)*) => {
        #[expect(missing_docs, reason = "type names only; the payload modules describe them")]
        impl SegType {
            $(pub const $konst: Self = Self($value);)*
        }

        impl SegType {
            /// The name the reference's `inspect` prints; `"Unknown"` for what it has no name for.
            pub fn name(self) -> &'static str {
                match self.0 { $($value => $cli,)* _ => "Unknown" }
            }

            /// Lower-case name for directory entries; `x42` (hexadecimal) for an unknown number.
            pub fn dir_name(self) -> String {
                match self.0 { $($value => $dir.to_owned(),)* other => format!("x{other:02x}") }
            }

            /// Whether the number is assigned.
            pub fn is_known(self) -> bool {
                matches!(self.0, $($value)|*)
            }
        }
    };
}

seg_types! {
    INVALID = 0x00, "Unknown", "invalid";
    VEC = 0x01, "Vec", "vec";
    INDEX = 0x02, "Index", "index";
    OVERLAY = 0x03, "Overlay", "overlay";
    JOURNAL = 0x04, "Journal", "journal";
    MANIFEST = 0x05, "Manifest", "manifest";
    QUANT = 0x06, "Quant", "quant";
    META = 0x07, "Meta", "meta";
    HOT = 0x08, "Hot", "hot";
    SKETCH = 0x09, "Sketch", "sketch";
    WITNESS = 0x0A, "Witness", "witness";
    PROFILE = 0x0B, "Profile", "profile";
    CRYPTO = 0x0C, "Crypto", "crypto";
    META_IDX = 0x0D, "MetaIdx", "metaidx";
    KERNEL = 0x0E, "Kernel", "kernel";
    EBPF = 0x0F, "Ebpf", "ebpf";
    WASM = 0x10, "Unknown", "wasm";
    DASHBOARD = 0x11, "Unknown", "dashboard";
    COW_MAP = 0x20, "CowMap", "cowmap";
    REFCOUNT = 0x21, "Refcount", "refcount";
    MEMBERSHIP = 0x22, "Membership", "membership";
    DELTA = 0x23, "Delta", "delta";
    TRANSFER_PRIOR = 0x30, "Unknown", "transfer_prior";
    POLICY_KERNEL = 0x31, "Unknown", "policy_kernel";
    COST_CURVE = 0x32, "Unknown", "cost_curve";
    FEDERATED_MANIFEST = 0x33, "Unknown", "federated_manifest";
    DIFF_PRIVACY_PROOF = 0x34, "Unknown", "diff_privacy_proof";
    REDACTION_LOG = 0x35, "Unknown", "redaction_log";
    AGGREGATE_WEIGHTS = 0x36, "Unknown", "aggregate_weights";
}

/// A segment header as it lies on disk: 64 bytes, little-endian, any alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SegmentHeader {
    /// [`MAGIC`].
    pub magic: U32,
    /// [`VERSION`].
    pub version: u8,
    /// Type number, see [`SegType`].
    pub seg_type: u8,
    /// See [`flags`]; 0 in every file that is known.
    pub flags: U16,
    /// Number of the segment. Neither unique nor monotonic in real files: never a key.
    pub segment_id: U64,
    /// Payload bytes, without padding.
    pub payload_length: U64,
    /// Nanoseconds since 1970; 0 in every file that is known.
    pub timestamp_ns: U64,
    /// How `content_hash` was made, see [`crate::checksum`].
    pub checksum_algo: u8,
    /// 0; nothing compresses payloads.
    pub compression: u8,
    /// 0.
    pub reserved_0: U16,
    /// 0.
    pub reserved_1: U32,
    /// Hash of the payload; all zero means that none was stored.
    pub content_hash: [u8; 16],
    /// 0.
    pub uncompressed_len: U32,
    /// Zero bytes after the payload (0..63).
    pub alignment_pad: U32,
}

const _: () = {
    assert!(size_of::<SegmentHeader>() == 64);
    assert!(align_of::<SegmentHeader>() == 1);
    assert!(std::mem::offset_of!(SegmentHeader, seg_type) == 0x05);
    assert!(std::mem::offset_of!(SegmentHeader, flags) == 0x06);
    assert!(std::mem::offset_of!(SegmentHeader, segment_id) == 0x08);
    assert!(std::mem::offset_of!(SegmentHeader, payload_length) == 0x10);
    assert!(std::mem::offset_of!(SegmentHeader, timestamp_ns) == 0x18);
    assert!(std::mem::offset_of!(SegmentHeader, checksum_algo) == 0x20);
    assert!(std::mem::offset_of!(SegmentHeader, compression) == 0x21);
    assert!(std::mem::offset_of!(SegmentHeader, content_hash) == 0x28);
    assert!(std::mem::offset_of!(SegmentHeader, uncompressed_len) == 0x38);
    assert!(std::mem::offset_of!(SegmentHeader, alignment_pad) == 0x3C);
};

impl SegmentHeader {
    /// A header as the writer emits it: algorithm 1, everything optional zero.
    pub fn new(seg_type: SegType, segment_id: u64, payload_length: u64, content_hash: [u8; 16]) -> Self {
        Self {
            magic: U32::new(MAGIC),
            version: VERSION,
            seg_type: seg_type.0,
            flags: U16::ZERO,
            segment_id: U64::new(segment_id),
            payload_length: U64::new(payload_length),
            timestamp_ns: U64::ZERO,
            checksum_algo: crate::checksum::ALGO_XXH3,
            compression: 0,
            reserved_0: U16::ZERO,
            reserved_1: U32::ZERO,
            content_hash,
            uncompressed_len: U32::ZERO,
            alignment_pad: U32::new(padding_after(payload_length) as u32),
        }
    }

    /// Reads a header at `offset`; `None` when fewer than 64 bytes remain or magic or version differ.
    pub fn parse(bytes: &[u8], offset: u64) -> Option<Self> {
        let start = usize::try_from(offset).ok()?;
        let (header, _) = Self::read_from_prefix(bytes.get(start..)?).ok()?;
        header.is_valid().then_some(header)
    }

    /// Whether magic and version are right; nothing else is checked by any reader.
    pub fn is_valid(&self) -> bool {
        self.magic.get() == MAGIC && self.version == VERSION
    }

    /// The type.
    pub fn kind(&self) -> SegType {
        SegType(self.seg_type)
    }

    /// The segment id.
    pub fn id(&self) -> u64 {
        self.segment_id.get()
    }

    /// Payload bytes, without padding.
    pub fn payload_len(&self) -> u64 {
        self.payload_length.get()
    }
}

/// Zero bytes that follow a payload of `len` bytes that starts at a multiple of 64.
pub fn padding_after(len: u64) -> u64 {
    len.wrapping_neg() % ALIGNMENT
}

/// One segment of a file: where it lies and what its header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Place in file order, from 0.
    pub ordinal: u32,
    /// File offset of the header.
    pub offset: u64,
    /// The header.
    pub header: SegmentHeader,
    /// File range of the payload.
    pub payload: Range<u64>,
    /// File range of header, payload and padding.
    pub raw: Range<u64>,
}

impl Segment {
    /// The segment whose header starts at `offset`, whole within `bytes`; padding is not counted in `raw`.
    /// `None` when there is no valid header or the payload passes the end.
    pub fn at(bytes: &[u8], offset: u64) -> Option<Self> {
        let header = SegmentHeader::parse(bytes, offset)?;
        let start = offset.checked_add(HEADER_LEN)?;
        let end = start.checked_add(header.payload_len())?;
        (end <= bytes.len() as u64).then_some(Self {
            ordinal: u32::MAX,
            offset,
            header,
            payload: start..end,
            raw: offset..end,
        })
    }

    /// The type.
    pub fn kind(&self) -> SegType {
        self.header.kind()
    }

    /// The payload within the whole file's bytes; empty if `bytes` is not the file this segment came from.
    pub fn payload_of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        slice(bytes, &self.payload)
    }

    /// Hashes the payload and compares. O(payload).
    pub fn verify(&self, bytes: &[u8]) -> crate::checksum::ChecksumState {
        crate::checksum::verify(&self.header, self.payload_of(bytes))
    }
}

/// `bytes[range]`, empty where the range is not inside.
pub(crate) fn slice<'a>(bytes: &'a [u8], range: &Range<u64>) -> &'a [u8] {
    let (Ok(start), Ok(end)) = (usize::try_from(range.start), usize::try_from(range.end)) else { return &[] };
    bytes.get(start..end).unwrap_or(&[])
}
