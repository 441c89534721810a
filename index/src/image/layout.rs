//! Where everything is in a search image. `docs/format.md`, section "Search image", has the same table.

use zerocopy::little_endian::{F32, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::IndexError;

pub(crate) const MAGIC: [u8; 8] = *b"RVFIMG\r\n";
pub(crate) const VERSION: u32 = 1;
/// Layers above layer 0 at most.
pub(crate) const MAX_UPPER: usize = 15;
pub(crate) const SECTIONS: usize = 14;
pub(crate) const HEADER_BYTES: usize = 512;
pub(crate) const ALIGN: usize = 64;
pub(crate) const MAX_DEGREE: u32 = 1024;

/// The parts of an image after its header, each starting at a multiple of 64 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Section {
    /// f32 per component: what codes are relative to.
    Centre = 0,
    /// Layer A: codes of the coarse centroids, `centroids x stride`.
    CentroidCodes = 1,
    /// Layer A: f32 scale of each centroid, then (L2 only) f32 squared norm of each.
    CentroidFactors = 2,
    /// Layer A: `centroids + 1` u32 positions in the lists.
    ListOffsets = 3,
    /// Layer A: u32 row ordinals, list after list, the nearest to the centroid first.
    ListRows = 4,
    /// Layers 1.. in turn: `count(layer) x degree_upper` u32 node numbers, each layer padded to 64 bytes.
    Upper = 5,
    /// Layer 0: `nodes x degree` u32 node numbers; `0xFFFFFFFF` ends a shorter row.
    Links = 6,
    /// `nodes x stride` code bytes.
    Codes = 7,
    /// f32 per node.
    Scale = 8,
    /// f32 per node (L2) or empty.
    Bias = 9,
    /// u32 row ordinal per node.
    Ordinals = 10,
    /// u32 node per covered row; `0xFFFFFFFF` where the row has no node.
    NodeOfOrdinal = 11,
    /// u64 vector ids, ascending.
    Ids = 12,
    /// u32 node of each id in `Ids`.
    IdNodes = 13,
}

/// One entry of the section table.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Extent {
    pub(crate) offset: U64,
    pub(crate) len: U64,
}

/// The first 512 bytes.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) magic: [u8; 8],
    pub(crate) version: U32,
    pub(crate) metric: u8,
    pub(crate) reserved_a: [u8; 3],
    pub(crate) dim: U32,
    pub(crate) stride: U32,
    pub(crate) nodes: U32,
    pub(crate) covered_rows: U32,
    pub(crate) degree: U32,
    pub(crate) degree_upper: U32,
    pub(crate) m: U32,
    pub(crate) ef_construction: U32,
    pub(crate) entry: U32,
    pub(crate) centroids: U32,
    pub(crate) len: U64,
    /// XXH3-128 of the whole image with these 16 bytes zero.
    pub(crate) checksum: [u8; 16],
    pub(crate) coverage: [u8; 32],
    pub(crate) min_norm: F32,
    /// Radius of the sphere the rows were put on (inner product); else the median norm of what was coded.
    pub(crate) radius: F32,
    /// Nodes in layers 1, 2, ...; a layer's nodes are `0..count`. Zero from the first layer that does not exist.
    pub(crate) upper_counts: [U32; MAX_UPPER],
    pub(crate) reserved_b: [u8; 4],
    pub(crate) sections: [Extent; SECTIONS],
    pub(crate) reserved_c: [u8; 104],
}

const _: () = {
    assert!(size_of::<Header>() == HEADER_BYTES);
    assert!(std::mem::offset_of!(Header, len) == 56);
    assert!(std::mem::offset_of!(Header, checksum) == 64);
    assert!(std::mem::offset_of!(Header, coverage) == 80);
    assert!(std::mem::offset_of!(Header, upper_counts) == 120);
    assert!(std::mem::offset_of!(Header, sections) == 184);
};

fn bad(offset: usize, what: impl Into<String>) -> IndexError {
    IndexError::Image { offset: offset as u64, what: what.into() }
}

impl Header {
    /// Reads and checks the header against the number of bytes there are. O(1).
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, IndexError> {
        let (header, _) = Self::read_from_prefix(bytes)
            .map_err(|_| bad(0, format!("{} bytes, the header alone takes {HEADER_BYTES}", bytes.len())))?;
        if header.magic != MAGIC {
            return Err(bad(0, "wrong magic, not a search image"));
        }
        if header.version.get() != VERSION {
            return Err(bad(8, format!("version {}, this build reads {VERSION}", header.version)));
        }
        if header.len.get() != bytes.len() as u64 {
            return Err(bad(56, format!("says {} bytes, there are {}", header.len, bytes.len())));
        }
        if crate::Metric::from_code(header.metric).is_none() {
            return Err(bad(12, format!("unknown metric {}", header.metric)));
        }
        let (dim, stride) = (header.dim.get() as usize, header.stride.get() as usize);
        if dim == 0 || dim > 65_535 || stride != crate::codes::stride_of(dim) {
            return Err(bad(16, format!("dimension {dim} with code rows of {stride} bytes")));
        }
        let (degree, upper) = (header.degree.get(), header.degree_upper.get());
        if degree == 0 || degree > MAX_DEGREE || upper == 0 || upper > MAX_DEGREE {
            return Err(bad(32, format!("{degree} and {upper} links per node")));
        }
        let nodes = header.nodes.get();
        if nodes > header.covered_rows.get() || nodes >= 1 << 31 {
            return Err(bad(24, format!("{nodes} nodes over {} rows", header.covered_rows)));
        }
        if nodes > 0 && header.entry.get() >= nodes {
            return Err(bad(48, format!("entry {} of {nodes} nodes", header.entry)));
        }
        let mut above = nodes;
        for (i, count) in header.upper_counts.iter().enumerate() {
            if count.get() > above {
                return Err(bad(
                    120 + 4 * i,
                    format!("layer {} has {count} nodes, the one below {above}", i + 1),
                ));
            }
            above = count.get();
        }
        header.check_sections(bytes.len())?;
        Ok(header)
    }

    fn check_sections(&self, len: usize) -> Result<(), IndexError> {
        let n = u64::from(self.nodes.get());
        let c = u64::from(self.centroids.get());
        let stride = u64::from(self.stride.get());
        let l2 = u64::from(self.metric == crate::Metric::L2.code());
        let upper = (0..MAX_UPPER).map(|l| self.upper_bytes(l) as u64).sum::<u64>();
        let exact = [
            (Section::Centre, u64::from(self.dim.get()) * 4),
            (Section::CentroidCodes, c * stride),
            (Section::CentroidFactors, c * 4 * (1 + l2)),
            (Section::ListOffsets, (c + 1) * 4),
            (Section::ListRows, n * 4),
            (Section::Upper, upper),
            (Section::Links, n * u64::from(self.degree.get()) * 4),
            (Section::Codes, n * stride),
            (Section::Scale, n * 4),
            (Section::Bias, n * 4 * l2),
            (Section::Ordinals, n * 4),
            (Section::NodeOfOrdinal, u64::from(self.covered_rows.get()) * 4),
            (Section::Ids, n * 8),
            (Section::IdNodes, n * 4),
        ];
        for (section, want) in exact {
            let at = 184 + 16 * section as usize;
            let Some(extent) = self.sections.get(section as usize) else { continue };
            let end = extent.offset.get().checked_add(extent.len.get());
            if extent.len.get() != want {
                return Err(bad(
                    at,
                    format!("section {section:?} has {} bytes, {want} expected", extent.len),
                ));
            }
            if extent.offset.get() % ALIGN as u64 != 0 || end.is_none_or(|e| e > len as u64) {
                return Err(bad(
                    at,
                    format!("section {section:?} lies at {} outside the image", extent.offset),
                ));
            }
        }
        Ok(())
    }

    /// Bytes of upper layer `index + 1`, padding included.
    pub(crate) fn upper_bytes(&self, index: usize) -> usize {
        let count = self.upper_counts.get(index).map_or(0, |c| c.get() as usize);
        (count * self.degree_upper.get() as usize * 4).next_multiple_of(ALIGN)
    }

    /// Bytes of a section inside the image.
    pub(crate) fn section<'a>(&self, bytes: &'a [u8], section: Section) -> &'a [u8] {
        self.sections
            .get(section as usize)
            .and_then(|e| bytes.get(e.offset.get() as usize..(e.offset.get() + e.len.get()) as usize))
            .unwrap_or(&[])
    }

    /// Highest layer that exists.
    pub(crate) fn max_level(&self) -> usize {
        self.upper_counts.iter().take_while(|c| c.get() > 0).count()
    }
}

/// Lays sections out after the header, in order.
pub(crate) fn assemble(mut header: Header, sections: [&[u8]; SECTIONS]) -> Vec<u8> {
    let mut at = HEADER_BYTES;
    for (extent, section) in header.sections.iter_mut().zip(sections) {
        at = at.next_multiple_of(ALIGN);
        *extent = Extent { offset: (at as u64).into(), len: (section.len() as u64).into() };
        at += section.len();
    }
    header.len = (at as u64).into();
    header.checksum = [0; 16];
    let mut bytes = Vec::with_capacity(at);
    bytes.extend_from_slice(header.as_bytes());
    for section in sections {
        bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
        bytes.extend_from_slice(section);
    }
    let sum = checksum(&bytes);
    if let Some(to) = bytes.get_mut(64..80) {
        to.copy_from_slice(&sum);
    }
    bytes
}

/// XXH3-128 (canonical big-endian form) of an image with its checksum field taken as zero.
pub(crate) fn checksum(bytes: &[u8]) -> [u8; 16] {
    let mut hash = xxhash_rust::xxh3::Xxh3Default::new();
    hash.update(bytes.get(..64).unwrap_or(bytes));
    hash.update(&[0; 16]);
    hash.update(bytes.get(80..).unwrap_or(&[]));
    hash.digest128().to_be_bytes()
}
