//! Whether a file still is what a view read. Committed bytes never change, unless another program overwrites or cuts the file in
//! place; then a mapping shows what is there now, and an answer made of it would be wrong without a word.
//!
//! While nothing happens to a file that is one `fstat`. After each change of it, which most often is a commit that only appends, the
//! headers of the segments that the view knows are compared once: whoever writes another store over a file changes them first,
//! because they hold the hashes of what follows. In files that are small enough to be checked when they are opened, the vectors are
//! hashed again too.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;

use rvf_format::ChecksumState;
use rvf_format::header::SegmentHeader;

use crate::error::Error;
use crate::types::EAGER_VERIFY_BYTES;
use crate::view::View;

/// When a file was last changed in any way, which nobody can set. Nanoseconds since 1970.
pub(crate) fn changed_at(meta: &Metadata) -> i64 {
    meta.ctime().wrapping_mul(1_000_000_000).wrapping_add(meta.ctime_nsec())
}

impl View {
    /// Fails when the file was cut or overwritten since the view was made. Call it after reading and before handing on what was
    /// read.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub(crate) fn check_unchanged(&self) -> Result<(), Error> {
        self.check_intact()?;
        if !self.bytes().is_mapped() {
            return Ok(());
        }
        let Ok(meta) = self.file.metadata() else { return Ok(()) };
        let now = changed_at(&meta);
        if now == self.seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        let what = if meta.len() < self.committed_len() {
            "cut by another program while it was open; restore it"
        } else if !self.is_what_was_read() {
            "overwritten by another program while it was open; restore it"
        } else {
            self.check_intact()?;
            self.seen.store(now, Ordering::Relaxed);
            return Ok(());
        };
        Err(Error::Damaged { path: self.path.clone(), what: what.into() })
    }

    /// Bytes that the next writer does not cut off.
    fn committed_len(&self) -> u64 {
        let manifest = self.opened.manifest.as_ref();
        manifest.map_or(self.stamp.len, |located| located.segment.payload.end).min(self.stamp.len)
    }

    fn is_what_was_read(&self) -> bool {
        let end = self.committed_len();
        let bytes = self.bytes();
        let known = self.opened.layout.segments().take_while(|segment| segment.payload.end <= end);
        let mut known = known.into_iter();
        if !known.all(|segment| SegmentHeader::parse(bytes, segment.offset) == Some(segment.header)) {
            return false;
        }
        let total: u64 = self.blocks.iter().map(|block| block.segment.header.payload_len()).sum();
        if total > EAGER_VERIFY_BYTES {
            return true;
        }
        self.blocks.iter().enumerate().all(|(index, block)| {
            let left_out = self.rows.block_ordinals(index).is_none_or(|range| self.damaged.contains(&range));
            left_out || matches!(block.verify(bytes), ChecksumState::Ok | ChecksumState::Unset)
        })
    }
}
