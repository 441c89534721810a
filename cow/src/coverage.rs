//! Whether a search image still describes the vectors of a file.
//!
//! An image is made from the rows of the first vector segments. It stores a digest of those
//! segments' hashes and lengths; as long as the digest of the same prefix is unchanged, the image
//! fits, whatever was appended after it and wherever the segments lie.

use rvf_format::FileBytes;
use rvf_format::Segment;
use rvf_format::contents::VecBlock;
use rvf_index::{Image, Metric};

/// Digest of the vector segments in `blocks`.
pub(crate) fn digest(blocks: &[VecBlock]) -> [u8; 32] {
    let mut text = Vec::with_capacity(blocks.len() * 28 + 16);
    text.extend_from_slice(b"rvf-mount vec v1");
    for block in blocks {
        text.extend_from_slice(&block.segment.header.content_hash);
        text.extend_from_slice(&block.segment.header.payload_len().to_le_bytes());
        text.extend_from_slice(&block.count.to_le_bytes());
    }
    rvf_crypto::shake256_256(&text)
}

/// The image in an INDEX segment, if it holds one rather than the reference's own graph.
pub(crate) fn open_image(bytes: &FileBytes, segment: &Segment) -> Option<Image> {
    let start = usize::try_from(segment.payload.start).ok()?;
    let end = usize::try_from(segment.payload.end).ok()?;
    Image::open_range(bytes.clone(), start..end).ok()
}

/// Whether `image` was made from a prefix of `blocks`.
pub(crate) fn fits(image: &Image, dim: usize, metric: Metric, blocks: &[VecBlock]) -> bool {
    if image.dim() != dim || image.metric() != metric {
        return false;
    }
    let mut rows: u64 = 0;
    for (index, block) in blocks.iter().enumerate() {
        rows += u64::from(block.count);
        if rows == u64::from(image.covered_rows()) {
            return blocks.get(..=index).is_some_and(|prefix| digest(prefix) == image.coverage());
        }
        if rows > u64::from(image.covered_rows()) {
            return false;
        }
    }
    false
}
