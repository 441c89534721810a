//! Level-0 pages with Level-1 TLV records, as rvf-manifest builds them. No file writer uses them; they are recognised
//! for display.

use crate::checksum::crc32c;
use crate::error::{Result, codes};
use crate::layout::{ROOT_PAGE_LEN, ROOT_PAGE_MAGIC};
use crate::manifest::FileIdentity;
use crate::reader::Reader;

/// Where a hot set lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pointer {
    /// Segment offset.
    pub segment_offset: u64,
    /// Block offset in the segment.
    pub block_offset: u32,
    /// Count or size.
    pub count: u32,
}

/// A Level-0 page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level0 {
    /// 1.
    pub version: u16,
    /// Flags.
    pub flags: u16,
    /// Start of the TLV bytes.
    pub l1_offset: u64,
    /// Bytes of TLV records.
    pub l1_length: u64,
    /// Vectors.
    pub total_vectors: u64,
    /// Components of a vector.
    pub dimension: u16,
    /// 0 f32, 1 f16.
    pub base_dtype: u8,
    /// Profile.
    pub profile_id: u8,
    /// Epoch.
    pub epoch: u32,
    /// Entry points, top layer, centroids, quantisation dictionary, hot cache.
    pub hotset: [Pointer; 5],
    /// Offset and entries of the prefetch table.
    pub prefetch: (u64, u32),
    /// Who the file is.
    pub identity: FileIdentity,
    /// Whether the page matches its CRC-32C.
    pub crc_ok: bool,
}

/// One Level-1 record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The segments.
    SegmentDir(Vec<DirLine>),
    /// The manifest before this one.
    OverlayChain {
        /// Its epoch.
        epoch: u32,
        /// Its offset.
        prev_manifest_offset: u64,
        /// Its id.
        prev_manifest_id: u64,
        /// A hash.
        checkpoint_hash: [u8; 16],
    },
    /// A tag without a defined value, or an unknown one.
    Other {
        /// Tag.
        tag: u16,
        /// Bytes of the value.
        len: usize,
    },
}

/// A line of a Level-1 segment directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirLine {
    /// Segment id.
    pub segment_id: u64,
    /// Type.
    pub seg_type: u8,
    /// Tier.
    pub tier: u8,
    /// Flags.
    pub flags: u16,
    /// Offset of the header.
    pub file_offset: u64,
    /// Payload bytes.
    pub payload_length: u64,
    /// Compressed bytes.
    pub compressed_length: u64,
    /// Shard.
    pub shard_id: u16,
    /// Compression.
    pub compression: u16,
    /// Blocks.
    pub block_count: u32,
    /// Hash of the payload.
    pub content_hash: [u8; 16],
}

/// Whether a MANIFEST payload ends with a Level-0 page.
pub fn looks_like(payload: &[u8]) -> bool {
    let page = payload.len().checked_sub(ROOT_PAGE_LEN as usize).and_then(|at| payload.get(at..));
    page.is_some_and(|page| page.starts_with(&ROOT_PAGE_MAGIC))
}

/// Reads a payload of TLV records and the page after them.
///
/// # Errors
/// [`crate::Error::Corrupt`] when the page or a record does not hold.
pub fn decode(payload: &[u8]) -> Result<(Level0, Vec<Record>)> {
    let at = payload.len().saturating_sub(ROOT_PAGE_LEN as usize);
    let page = decode_page(payload.get(at..).unwrap_or(&[]))?;
    Ok((page, decode_records(payload.get(..at).unwrap_or(&[]))?))
}

/// Reads a page of 4096 bytes.
///
/// # Errors
/// [`crate::Error::Corrupt`] when it is shorter or has another magic.
pub fn decode_page(page: &[u8]) -> Result<Level0> {
    let mut r = Reader::new(page, "Level-0 page", codes::INVALID_MANIFEST);
    if page.len() != ROOT_PAGE_LEN as usize || r.array::<4>()? != ROOT_PAGE_MAGIC {
        return r.fail("not a page of 4096 bytes with the right magic");
    }
    let version = r.u16()?;
    let flags = r.u16()?;
    let l1_offset = r.u64()?;
    let l1_length = r.u64()?;
    let total_vectors = r.u64()?;
    let dimension = r.u16()?;
    let base_dtype = r.u8()?;
    let profile_id = r.u8()?;
    let epoch = r.u32()?;
    r.take(16)?;
    let mut hotset = [Pointer::default(); 5];
    for pointer in &mut hotset {
        *pointer = Pointer { segment_offset: r.u64()?, block_offset: r.u32()?, count: r.u32()? };
    }
    let prefetch = (r.u64()?, r.u32()?);
    let mut id = Reader::new(page.get(0xF00..).unwrap_or(&[]), "Level-0 identity", codes::INVALID_MANIFEST);
    let identity = FileIdentity::read(&mut id)?;
    let mut crc = Reader::new(page.get(0xFFC..).unwrap_or(&[]), "Level-0 CRC", codes::INVALID_MANIFEST);
    let crc_ok = crc.u32()? == crc32c(page.get(..0xFFC).unwrap_or(&[]));
    Ok(Level0 {
        version,
        flags,
        l1_offset,
        l1_length,
        total_vectors,
        dimension,
        base_dtype,
        profile_id,
        epoch,
        hotset,
        prefetch,
        identity,
        crc_ok,
    })
}

/// Reads Level-1 TLV records.
///
/// # Errors
/// [`crate::Error::Corrupt`] when a record passes the end.
pub fn decode_records(bytes: &[u8]) -> Result<Vec<Record>> {
    let mut r = Reader::new(bytes, "Level-1 records", codes::INVALID_MANIFEST);
    let mut out = Vec::new();
    while r.left() >= 8 {
        let tag = r.u16()?;
        let len = r.u32()? as usize;
        r.u16()?;
        let value = r.take(len)?;
        let pad = (len.next_multiple_of(8) - len).min(r.left());
        r.take(pad)?;
        out.push(match tag {
            1 if len.is_multiple_of(64) => Record::SegmentDir(segment_dir(value)?),
            4 if len == 40 => {
                let mut v = Reader::new(value, "overlay chain", codes::INVALID_MANIFEST);
                let epoch = v.u32()?;
                v.u32()?;
                Record::OverlayChain {
                    epoch,
                    prev_manifest_offset: v.u64()?,
                    prev_manifest_id: v.u64()?,
                    checkpoint_hash: v.array()?,
                }
            }
            _ => Record::Other { tag, len },
        });
    }
    Ok(out)
}

fn segment_dir(value: &[u8]) -> Result<Vec<DirLine>> {
    let mut r = Reader::new(value, "segment directory", codes::INVALID_MANIFEST);
    let mut out = Vec::with_capacity(value.len() / 64);
    while r.left() > 0 {
        let segment_id = r.u64()?;
        let seg_type = r.u8()?;
        let tier = r.u8()?;
        let flags = r.u16()?;
        r.u32()?;
        out.push(DirLine {
            segment_id,
            seg_type,
            tier,
            flags,
            file_offset: r.u64()?,
            payload_length: r.u64()?,
            compressed_length: r.u64()?,
            shard_id: r.u16()?,
            compression: r.u16()?,
            block_count: r.u32()?,
            content_hash: r.array()?,
        });
    }
    Ok(out)
}
