//! The action texts that the reference hashes into witness entries, and their type bytes.
//!
//! `epoch` is always the new one. The texts are not stored: to check an entry, build the text again.

/// Type byte of a delete ("data provenance" in the runtime).
pub const KIND_DELETE: u8 = 0x00;
/// Type byte of everything else ("computation" in the runtime).
pub const KIND_COMPUTATION: u8 = 0x01;

/// An ingest of `count` accepted rows.
pub fn ingest(count: u64, epoch: u32) -> String {
    format!("ingest:count={count},epoch={epoch}")
}

/// A delete that removed `count` rows.
pub fn delete(count: u64, epoch: u32) -> String {
    format!("delete:count={count},epoch={epoch}")
}

/// A compaction; the reference counts deleted ids as segments, and ids x dim x 4 as bytes.
pub fn compact(segments: u64, bytes: u64, epoch: u32) -> String {
    format!("compact:segments_compacted={segments},bytes_reclaimed={bytes},epoch={epoch}")
}
