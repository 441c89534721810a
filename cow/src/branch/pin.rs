//! The pin of a child: which state of its parent it was made from. The bytes are in `rvf_format::pin`.

use rvf_format::layout;
use rvf_format::recover::Opened;

pub(crate) use rvf_format::pin::{Derivation, MAX_NAME, Pin, Source, TAIL, find, key_of, read};

use crate::error::Error;
use crate::view::View;
use crate::write::manifest_of;

/// Digest of a parent's prefix. O(segments): payloads count through the hashes in their headers, the
/// newest ones (the manifest among them) also by themselves.
pub(crate) fn digest(prefix: &[u8], file_id: &[u8; 16]) -> [u8; 32] {
    let tail = prefix.get(prefix.len().saturating_sub(TAIL)..).unwrap_or(&[]);
    rvf_crypto::lineage::state_digest(file_id, prefix.len() as u64, &headers(prefix), tail)
}

/// The headers of all segments, one after another.
pub(crate) fn headers(prefix: &[u8]) -> Vec<u8> {
    let layout = layout::walk(prefix);
    let mut out = Vec::with_capacity(64 * layout.segments().count());
    for segment in layout.segments() {
        let start = usize::try_from(segment.offset).unwrap_or(usize::MAX);
        out.extend_from_slice(prefix.get(start..start.saturating_add(64)).unwrap_or(&[]));
    }
    out
}

/// The payload of a file's own pin; empty without one.
pub(crate) fn record<'b>(bytes: &'b [u8], opened: &Opened) -> &'b [u8] {
    find(bytes, opened).map_or(&[], |segment| segment.payload_of(bytes))
}

/// The state that a view shows, as a child records it. `prefix` is what [`crate::branch::create::prefix_bytes`] gives.
pub(crate) fn source_of(view: &View, prefix: &[u8]) -> Result<Source, Error> {
    let base = manifest_of(view)?;
    let file_id = base.identity.map_or([0; 16], |identity| identity.file_id);
    Ok(Source {
        epoch: base.epoch,
        prefix: prefix.len() as u64,
        file_id,
        // One parent is branched again and again.
        digest: *view.digest.get_or_init(|| digest(prefix, &file_id)),
        record: rvf_crypto::lineage::record_digest(record(view.bytes(), &view.opened)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
