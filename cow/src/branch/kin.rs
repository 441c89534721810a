//! Who a file is and descends from, without opening it as a store.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rvf_format::{FileBytes, contents, recover};

use crate::branch::edit::frozen_record;
use crate::error::Error;
use crate::source::open_regular;

/// Files up to this size are read and not mapped.
const READ_BYTES: u64 = 64 << 10;

/// Identity and descent of a store, as its manifest tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kin {
    /// Its file id.
    pub file_id: [u8; 16],
    /// The file id of what it was derived from; zero for a root.
    pub parent_id: [u8; 16],
    /// Generations above it.
    pub depth: u32,
    /// It was frozen.
    pub frozen: bool,
}

impl Kin {
    /// Reads it from a file; `None` when the file has no manifest, or one without an identity. O(segments), whatever the
    /// number and form of the vectors: branches are listed with this.
    ///
    /// # Errors
    /// [`Error::NotRegular`], [`Error::NotFound`], [`Error::Io`].
    pub fn of(path: &Path) -> Result<Option<Self>, Error> {
        let (file, meta) = open_regular(path, false)?;
        Self::read(path, &file, meta.len())
    }

    /// The same from the first `len` bytes of an open file. A small one, as fresh branches are, is read: mapping it costs more.
    pub(crate) fn read(path: &Path, file: &File, len: u64) -> Result<Option<Self>, Error> {
        if len <= READ_BYTES {
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
            return match file.read_exact_at(&mut bytes, 0) {
                Ok(()) => Ok(Self::told_by(&bytes)),
                // It was cut meanwhile; who looks again sees what is left.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
                Err(error) => Err(Error::io(path, "read", error)),
            };
        }
        let bytes = FileBytes::map(file, len).map_err(|e| Error::io(path, "map", e))?;
        Ok(Self::told_by(&bytes))
    }

    fn told_by(bytes: &[u8]) -> Option<Self> {
        let opened = recover::open(bytes);
        let identity = opened.manifest.as_ref().and_then(|m| m.manifest.identity)?;
        let frozen = match contents::branch_state(bytes, &opened) {
            Some(cow) => cow.map.frozen,
            None => frozen_record(bytes, &opened).is_some(),
        };
        Some(Self {
            file_id: identity.file_id,
            parent_id: identity.parent_id,
            depth: identity.lineage_depth,
            frozen,
        })
    }
}
