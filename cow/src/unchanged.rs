//! Whether a file still is what a view read. Committed bytes never change, unless another program overwrites or cuts the file in
//! place; then a mapping shows what is there now, and an answer made of it would be wrong without a word.
//!
//! While nothing happens to a file that is one `fstat`. After each change of it, which most often is a commit that only appends, the
//! headers of the segments that the view knows are compared once: whoever writes another store over a file changes them first,
//! because they hold the hashes of what follows. In files that are small enough to be checked when they are opened, the vectors are
//! hashed again too.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use rvf_format::ChecksumState;
use rvf_format::header::SegmentHeader;

use crate::error::Error;
use crate::types::EAGER_VERIFY_BYTES;
use crate::view::View;

/// What was last seen of a file whose bytes a view has read.
#[derive(Debug)]
pub(crate) struct Seen {
    /// When it was changed in any way, which nobody can set. Nanoseconds since 1970.
    changed: AtomicI64,
    /// When it was written to.
    written: AtomicI64,
    len: AtomicU64,
    /// It was seen to hold something else. What was worked out of its bytes meanwhile cannot be relied on, so that holds for good,
    /// and the file is read anew.
    lost: AtomicBool,
}

impl Seen {
    pub(crate) fn new(meta: &Metadata) -> Self {
        Self {
            changed: AtomicI64::new(changed_at(meta)),
            written: AtomicI64::new(written_at(meta)),
            len: AtomicU64::new(meta.len()),
            lost: AtomicBool::new(false),
        }
    }
}

pub(crate) fn changed_at(meta: &Metadata) -> i64 {
    meta.ctime().wrapping_mul(1_000_000_000).wrapping_add(meta.ctime_nsec())
}

fn written_at(meta: &Metadata) -> i64 {
    meta.mtime().wrapping_mul(1_000_000_000).wrapping_add(meta.mtime_nsec())
}

impl View {
    /// Fails when the file was cut or overwritten since the view was made. Call it after reading and before handing on what was
    /// read.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub(crate) fn check_unchanged(&self) -> Result<(), Error> {
        self.check(false)
    }

    /// The same for an ancestor of what is read. Commits of its own are all that may have been written to it: if it was overwritten
    /// and restored meanwhile, nobody knows what was read of it in between.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub(crate) fn check_ancestor(&self) -> Result<(), Error> {
        self.check(true)
    }

    fn check(&self, ancestor: bool) -> Result<(), Error> {
        self.check_intact()?;
        if !self.bytes().is_mapped() {
            return Ok(());
        }
        let lost = |what: &str| {
            self.seen.lost.store(true, Ordering::Relaxed);
            Err(Error::Damaged {
                path: self.path.clone(),
                what: format!("{what} by another program while it was open"),
            })
        };
        if self.seen.lost.load(Ordering::Relaxed) {
            return lost("cut or overwritten");
        }
        let Ok(meta) = self.file.metadata() else { return Ok(()) };
        let now = changed_at(&meta);
        // A block device has no length in its metadata, and its times tell nothing about its bytes.
        if now == self.seen.changed.load(Ordering::Relaxed) || meta.file_type().is_block_device() {
            return Ok(());
        }
        if meta.len() < self.committed_len() {
            return lost("cut");
        }
        let written = written_at(&meta) != self.seen.written.load(Ordering::Relaxed);
        // A commit changes the length: it appends, after cutting off what an interrupted one left.
        if ancestor && written && meta.len() == self.seen.len.load(Ordering::Relaxed) {
            return lost("written to");
        }
        if !self.is_what_was_read() {
            return lost("overwritten");
        }
        self.check_intact()?;
        self.seen.len.store(meta.len(), Ordering::Relaxed);
        self.seen.written.store(written_at(&meta), Ordering::Relaxed);
        self.seen.changed.store(now, Ordering::Relaxed);
        Ok(())
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
