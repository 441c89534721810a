//! One immutable state of a store: what every reader holds while it works.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use rvf_format::FileBytes;
use rvf_format::contents::{Contents, VecBlock};
use rvf_format::header::SegType;
use rvf_format::layout::Dialect;
use rvf_format::meta::MetaState;
use rvf_format::recover::Opened;
use rvf_format::{Finding, Severity};
use rvf_index::{Bitmap, Image, Metric, SCAN_BELOW_ROWS, ScratchPool};

use crate::accesses::Accesses;
use crate::branch::pin::Pin;
use crate::branch::resolve::Place;
use crate::coded::Codes;
use crate::error::Error;
use crate::filters::Filters;
use crate::live::Live;
use crate::loading::Loading;
use crate::metadata::Metadata;
use crate::parent::{Missing, Parent};
use crate::rows::RowTable;
use crate::types::{IndexState, Status};
use crate::unchanged::Seen;

/// An immutable snapshot of a store. Cheap to keep; everything O(n) is computed on first use.
#[derive(Debug)]
pub struct View {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<File>,
    pub(crate) stamp: Stamp,
    /// Bytes that the file had. Of an ancestor only the first of them, as many as the stamp says, belong to the state.
    pub(crate) whole: u64,
    pub(crate) seen: Seen,
    pub(crate) generation: u64,
    pub(crate) opened: Opened,
    pub(crate) contents: Contents,
    /// The vector segments behind `rows`, in the same order.
    pub(crate) blocks: Vec<VecBlock>,
    /// Ascending.
    pub(crate) deleted_ids: Vec<u64>,
    pub(crate) rows: RowTable,
    pub(crate) metric: Metric,
    pub(crate) image: Option<Arc<Image>>,
    /// The image is not the file's.
    pub(crate) image_in_memory: bool,
    /// An index is listed that does not fit the vectors any more.
    pub(crate) stale_index: bool,
    pub(crate) damaged: Vec<Range<u32>>,
    pub(crate) verified: bool,
    pub(crate) findings: Vec<Finding>,
    /// For a copy-on-write child: its parent, or why it cannot be read.
    pub(crate) parent: Option<Result<Parent, Missing>>,
    /// Which state of its parent it was made from, for a child that this program made.
    pub(crate) pin: Option<Pin>,
    /// The record of a derived child that shows nothing of its parent.
    pub(crate) origin: Option<Pin>,
    /// Why the pin that is there cannot be read.
    pub(crate) pin_damage: Option<Missing>,
    /// Of the state that children stand on.
    pub(crate) digest: OnceLock<[u8; 32]>,
    pub(crate) places: OnceLock<Vec<Place>>,
    pub(crate) scratch: Arc<ScratchPool>,
    pub(crate) loading: Loading,
    /// Shared by all views of a store.
    pub(crate) accesses: Arc<Accesses>,
    pub(crate) live: OnceLock<Live>,
    pub(crate) meta: OnceLock<Metadata>,
    pub(crate) filters: Filters,
    pub(crate) max_id: OnceLock<Option<u64>>,
    pub(crate) live_set: OnceLock<Bitmap>,
    pub(crate) codes: Codes,
}

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    pub(crate) len: u64,
    pub(crate) mtime: SystemTime,
}

impl View {
    /// Commit counter of the manifest in force.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.opened.manifest.as_ref().map_or(0, |m| m.manifest.epoch)
    }

    /// Components a vector.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.rows.dim()
    }

    /// How distances are measured.
    #[must_use]
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// The file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file as it was opened for this view; reading it needs no further permission.
    #[must_use]
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Bytes of the file when this view was made. For an ancestor of a copy-on-write child: in the state that the child was
    /// made from.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.stamp.len
    }

    /// Bytes of the file when this view was made, with those of an ancestor that came after the state that its child was made
    /// from.
    #[must_use]
    pub fn whole_len(&self) -> u64 {
        self.whole
    }

    /// The bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> &FileBytes {
        self.rows.bytes()
    }

    /// Layout, manifest, tail and findings of the file.
    #[must_use]
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// The segments that make up the store's contents.
    #[must_use]
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Increases with every view that a `Store` publishes.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Modification time of the file when this view was made.
    #[must_use]
    pub fn modified(&self) -> SystemTime {
        self.stamp.mtime
    }

    /// The row table.
    #[must_use]
    pub fn rows(&self) -> &RowTable {
        &self.rows
    }

    /// Everything that was found wrong or odd, the worst first.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The search image that answers, when there is one that fits: the file's, or one kept in memory.
    #[must_use]
    pub fn image(&self) -> Option<&Arc<Image>> {
        self.image.as_ref()
    }

    pub(crate) fn live_state(&self) -> &Live {
        self.live.get_or_init(|| Live::new(&self.rows, self.image.clone(), &self.deleted_ids, &self.damaged))
    }

    /// Live vectors. O(1) for an intact file: the manifest counts them.
    #[must_use]
    pub fn live(&self) -> u64 {
        if let Some(live) = self.live.get() {
            return live.count();
        }
        let counted = self.opened.manifest.as_ref().and_then(|m| {
            let deleted = self.deleted_ids.len() as u64;
            m.manifest.total_vectors.checked_sub(deleted)
        });
        match counted {
            Some(n)
                if self.image.is_none()
                    && self.damaged.is_empty()
                    && n <= u64::from(self.rows.total())
                    && u64::from(self.rows.total()) >= SCAN_BELOW_ROWS =>
            {
                n
            }
            _ => self.live_state().count(),
        }
    }

    /// Ids in the manifest's deletion list.
    #[must_use]
    pub fn deleted(&self) -> u64 {
        self.deleted_ids.len() as u64
    }

    /// Live rows in file order. O(n) on first use.
    #[must_use]
    pub fn live_ordinals(&self) -> &[u32] {
        self.live_state().ordinals()
    }

    /// Id of a row.
    #[must_use]
    pub fn id(&self, ordinal: u32) -> u64 {
        self.rows.id(ordinal)
    }

    /// Vector of a row: `dimension` little-endian `f32`, at any alignment.
    #[must_use]
    pub fn vector(&self, ordinal: u32) -> &[u8] {
        self.rows.vector(ordinal)
    }

    /// The live row of an id. O(log n), O(1) where ids are spread evenly.
    #[must_use]
    pub fn find(&self, id: u64) -> Option<u32> {
        self.live_state().find(id, &self.rows)
    }

    /// Largest id among all rows, dead ones included. O(n) on first use.
    #[must_use]
    pub fn max_id(&self) -> Option<u64> {
        *self.max_id.get_or_init(|| (0..self.rows.total()).map(|o| self.rows.id(o)).max())
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        self.meta.get_or_init(|| Metadata::new(Arc::new(self.replay_metadata())))
    }

    /// The decoded metadata chain: records by id, file-level entries, what was dropped.
    #[must_use]
    pub fn metadata_state(&self) -> &MetaState {
        self.metadata().state()
    }

    /// Field numbers and names in use.
    #[must_use]
    pub fn field_names(&self) -> Vec<(u16, String)> {
        self.metadata().names().iter().map(|(id, name)| (*id, name.clone())).collect()
    }

    pub(crate) fn live_set(&self) -> &Bitmap {
        self.live_set
            .get_or_init(|| Bitmap::from_ordinals(self.rows.total(), self.live_ordinals().iter().copied()))
    }

    /// How much of the store the index covers.
    #[must_use]
    pub fn index_state(&self) -> IndexState {
        let total = self.live();
        let (indexed, layer) = match &self.image {
            Some(_) => (self.live_state().indexed(), "C"),
            None if total < SCAN_BELOW_ROWS => (0, "small"),
            None => (0, "none"),
        };
        let loaded = self.image.as_ref().map_or("none", |image| {
            let done = if self.image_in_memory { usize::MAX } else { self.loading.done(&image.range()) };
            match done {
                done if done >= image.len_bytes() => "A B C",
                done if done >= image.layer_b_range().end => "A B",
                done if done >= image.layer_a_range().end => "A",
                _ => "none",
            }
        });
        let place = match (&self.image, self.image_in_memory) {
            (None, _) => "none",
            (Some(_), false) => "file",
            (Some(_), true) => "memory",
        };
        IndexState { indexed, total, layer, loaded, place, stale: self.stale_index }
    }

    /// Fails when the mapped file shrank or was overwritten since the view was made. Call it after
    /// copying bytes out and before handing them on.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn check_intact(&self) -> Result<(), Error> {
        if self.bytes().is_poisoned() {
            return Err(Error::Damaged {
                path: self.path.clone(),
                what: "the file was truncated by another program while mapped; restore it".into(),
            });
        }
        Ok(())
    }

    /// That bytes of the view are gone, where they are: `meta` is what the file is now. A block device has no length in it, and
    /// keeps the one it has.
    fn cut(&self, meta: &fs::Metadata) -> Option<String> {
        let is_cut = !meta.file_type().is_block_device() && meta.len() < self.stamp.len;
        (self.bytes().is_poisoned() || is_cut).then(|| {
            format!(
                "truncated by another program: {} of {} bytes are left; restore the file",
                meta.len().min(self.stamp.len),
                self.stamp.len
            )
        })
    }

    /// What became of the file since the view was made, where the view cannot be trusted or outlives it. One fstat.
    #[must_use]
    pub fn lost(&self) -> Option<String> {
        let meta = self.file.metadata().ok()?;
        let removed =
            || (meta.nlink() == 0).then(|| "removed by another program; its last state is shown".into());
        self.cut(&meta).or_else(removed)
    }

    /// Fails also when the file shrank and nobody noticed yet. One fstat.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn check_whole(&self) -> Result<(), Error> {
        self.check_intact()?;
        let cut = self.file.metadata().ok().and_then(|meta| self.cut(&meta));
        cut.map_or(Ok(()), |what| Err(Error::Damaged { path: self.path.clone(), what }))
    }

    /// The state in numbers. O(segments).
    #[must_use]
    pub fn status(&self) -> Status {
        let identity = self.opened.manifest.as_ref().and_then(|m| m.manifest.identity.as_ref());
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let total_rows = self.opened.manifest.as_ref().map_or(0, |m| m.manifest.total_vectors);
        let vectors = self.live();
        let row_bytes = 8 + 4 * self.dimension() as u64;
        let listed = self.opened.manifest.as_ref().map_or(&[][..], |m| &m.manifest.directory);
        // Rows are live one by one; of other segments the listed ones that still count are live.
        let other: u64 = listed
            .iter()
            .filter(|e| {
                !matches!(
                    SegType(e.seg_type),
                    SegType::VEC | SegType::DELTA | SegType::MANIFEST | SegType::JOURNAL
                )
            })
            .map(|e| 64 + e.payload_length)
            .sum();
        let live_bytes = (vectors * row_bytes + other).min(self.stamp.len);
        Status {
            file_id: identity.map(|i| hex(&i.file_id)).unwrap_or_default(),
            parent_id: identity
                .filter(|i| i.lineage_depth > 0)
                .map(|i| hex(&i.parent_id))
                .unwrap_or_default(),
            lineage_depth: identity.map_or(0, |i| i.lineage_depth),
            dimension: self.dimension(),
            metric: self.metric,
            vectors,
            deleted: self.deleted(),
            segments: self.opened.layout.segments().count() as u64,
            listed_segments: listed.len() as u64,
            file_size: self.stamp.len,
            live_bytes,
            dead_bytes: self.stamp.len - live_bytes,
            epoch: self.epoch(),
            profile_id: self.opened.manifest.as_ref().map_or(0, |m| m.manifest.profile_id),
            profile: domain_profile(&self.path),
            dialect: match self.opened.layout.dialect {
                Dialect::Wire => "wire",
                Dialect::Legacy => "legacy",
            },
            index: self.index_state(),
            verified: self.verified,
            health: self.lost().unwrap_or_else(|| health(&self.findings)),
            dead_space_ratio: if total_rows == 0 { 0.0 } else { self.deleted() as f64 / total_rows as f64 },
        }
    }
}

/// `ok`, or the worst severity with how many findings have it.
fn health(findings: &[Finding]) -> String {
    let count = |s: Severity| findings.iter().filter(|f| f.severity == s).count();
    match (count(Severity::Damage), count(Severity::Warning)) {
        (0, 0) => "ok".into(),
        (0, n) => format!("warnings ({n})"),
        (n, _) => format!("damaged ({n})"),
    }
}

/// The domain profile that a file's extension stands for.
#[must_use]
pub fn domain_profile(path: &Path) -> &'static str {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    match extension.as_str() {
        "rvdna" => "RVDNA",
        "rvtext" => "RVText",
        "rvgraph" => "RVGraph",
        "rvvis" => "RVVision",
        _ => "Generic",
    }
}
