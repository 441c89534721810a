//! Which manifest counts, what lies after it, and what went wrong.

use crate::checksum::ChecksumState;
use crate::finding::Finding;
use crate::header::Segment;
use crate::layout::Layout;
use crate::manifest::Manifest;

/// A manifest and where it was found.
#[derive(Clone, Debug)]
pub struct Located {
    /// Its segment.
    pub segment: Segment,
    /// What it says.
    pub manifest: Manifest,
    /// Whether its payload is what was written: `Ok` or `Unset`.
    pub checksum: ChecksumState,
}

/// What lies after the manifest that counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// Bytes between the end of the manifest (with padding) and the root page or the end of the file.
    pub bytes_after_manifest: u64,
    /// Complete segments after the manifest that are not manifests.
    pub uncommitted_segments: u32,
    /// Where an interrupted write starts; only the next commit removes it.
    pub torn_at: Option<u64>,
}

/// A file, understood as far as it can be.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Every byte of the file.
    pub layout: Layout,
    /// The newest complete, verified manifest.
    pub manifest: Option<Located>,
    /// What lies after it.
    pub tail: Tail,
    /// The same three values as the reference would report them; they decide what its tools do with the file.
    pub reference_tail: Tail,
    /// Deviations and damage.
    pub findings: Vec<Finding>,
}

/// Opens a file. Never fails: an unusable file has no manifest, and findings that say why and what is recoverable.
pub fn open(bytes: &[u8]) -> Opened {
    Opened {
        layout: crate::layout::walk(bytes),
        manifest: None,
        tail: Tail::default(),
        reference_tail: Tail::default(),
        findings: Vec::new(),
    }
}
