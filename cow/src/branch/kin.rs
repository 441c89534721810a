//! Who a file is and descends from, without opening it as a store.

use std::path::Path;

use rvf_format::{FileBytes, contents, recover};

use crate::branch::edit::frozen_record;
use crate::error::Error;
use crate::source::open_regular;

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
        let bytes = FileBytes::map(&file, meta.len()).map_err(|e| Error::io(path, "map", e))?;
        let opened = recover::open(&bytes);
        let Some(identity) = opened.manifest.as_ref().and_then(|m| m.manifest.identity) else {
            return Ok(None);
        };
        let frozen = match contents::branch_state(&bytes, &opened) {
            Some(cow) => cow.map.frozen,
            None => frozen_record(&bytes, &opened).is_some(),
        };
        Ok(Some(Self {
            file_id: identity.file_id,
            parent_id: identity.parent_id,
            depth: identity.lineage_depth,
            frozen,
        }))
    }
}
