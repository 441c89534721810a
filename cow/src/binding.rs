//! What a kernel can be bound to: a hash that a file keeps as long as it is the one that was meant.
//!
//! The hash is SHA3-256 over, in this order: the ASCII text `rvf-mount kernel binding v1` and a zero byte, one byte for what is
//! bound (0 identity, 1 contents), the file id (16 bytes), the dimension (2, little-endian) and the metric (1). For contents
//! there follow the number of deleted ids (8) and the ids in ascending order (8 each), and then of every listed segment that
//! holds data, in file order, its type (1), the length of its payload (8) and its payload. Segments hold data unless they are manifests, witnesses,
//! signatures, indexes, programs and their labels, or counts of accesses.

use rvf_format::{SegType, label};
use sha3::{Digest as _, Sha3_256};

use crate::error::Error;
use crate::view::View;

const CONTEXT: &[u8] = b"rvf-mount kernel binding v1\0";

/// Listed segments that may come and go without a bound kernel minding.
const NO_DATA: [SegType; 10] = [
    SegType::MANIFEST,
    SegType::WITNESS,
    SegType::CRYPTO,
    SegType::INDEX,
    SegType::KERNEL,
    SegType::EBPF,
    SegType::WASM,
    SegType::DASHBOARD,
    SegType::HOT,
    SegType::SKETCH,
];

/// What of a file is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The file: its id, dimension and metric. Commits and compactions keep it; another file and a branch have another.
    Identity,
    /// Its vectors and metadata too: every commit that changes them, and compaction, end the binding.
    Contents,
}

impl Bound {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Contents => "contents",
        }
    }
}

impl View {
    /// The hash that binds a kernel to this file. O(1) for the identity, O(file) for the contents.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a file without an id or, for its contents, one that shows rows of another;
    /// [`Error::Damaged`] when another program cut the file off.
    pub fn binding_hash(&self, bound: Bound) -> Result<[u8; 32], Error> {
        let unsupported =
            |what: &str| Error::Unsupported { path: self.path().to_path_buf(), what: what.to_owned() };
        let manifest = self.opened().manifest.as_ref().map(|located| &located.manifest);
        let Some(manifest) = manifest.filter(|m| m.identity.is_some()) else {
            return Err(unsupported("a file without an id, which nothing can be bound to"));
        };
        let mut hash = Sha3_256::new();
        hash.update(CONTEXT);
        hash.update([bound as u8]);
        hash.update(self.file_id());
        hash.update(manifest.dimension.to_le_bytes());
        hash.update([manifest.metric]);
        if bound == Bound::Contents {
            if self.is_child() {
                return Err(unsupported(
                    "a branch, whose contents lie in other files too; bind to its identity",
                ));
            }
            hash.update((manifest.deleted.len() as u64).to_le_bytes());
            for id in &manifest.deleted {
                hash.update(id.to_le_bytes());
            }
            let mut listed: Vec<_> =
                manifest.directory.iter().filter(|entry| !NO_DATA.contains(&entry.kind())).collect();
            listed.sort_by_key(|entry| entry.offset);
            for entry in listed {
                let Some(segment) = self.opened().layout.segment_at_offset(entry.offset) else {
                    return Err(Error::Damaged {
                        path: self.path().to_path_buf(),
                        what: format!("no segment begins at offset {}, where one is listed", entry.offset),
                    });
                };
                let payload = segment.payload_of(self.bytes());
                // The name of a program, which comes with the very commit that embeds it.
                if segment.header.kind() == SegType::META_IDX && payload.starts_with(label::MAGIC) {
                    continue;
                }
                hash.update([segment.header.seg_type]);
                hash.update((payload.len() as u64).to_le_bytes());
                hash.update(payload);
            }
            // Bytes that another program cut away while they were hashed read as zeros.
            self.check_whole()?;
        }
        Ok(hash.finalize().into())
    }
}
