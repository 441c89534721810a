//! The search image: everything a search needs besides the rows, read in place.
//!
//! Opening checks the header and the bounds of the sections and nothing else, so it costs the same for any size. Bytes
//! inside the sections are taken as they come: a damaged link or code makes a search worse, never wrong in what it
//! reports (distances come from the rows) and never unsafe. [`Image::verify`] checks all of it, to be run in the
//! background.

mod by_id;
mod export;
mod filtered;
pub(crate) mod layout;
mod search;

use std::ops::{Deref, Range};

use crate::codes::{CodeView, u32_at};
use crate::simd::{CodeTable, kernels};
use crate::walk::{LinkView, NO_LINK, numbers};
use crate::{IndexError, Metric};
use by_id::ById;
use layout::{Header, Section};

pub use export::{Csr, ReferenceGraph};
pub use search::{Elsewhere, Hidden, SearchStats};

/// Bytes that an image is read from: anything that derefs to a byte slice and can be shared between threads.
pub trait ImageBytes: Send + Sync + 'static {
    /// The bytes; the same slice every time.
    fn bytes(&self) -> &[u8];
}

impl<T: Deref<Target = [u8]> + Send + Sync + 'static> ImageBytes for T {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// A search image, read in place.
pub struct Image {
    bytes: Box<dyn ImageBytes>,
    range: Range<usize>,
    header: Header,
    metric: Metric,
    by_id: ById,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image")
            .field("nodes", &self.nodes())
            .field("dim", &self.dim())
            .field("metric", &self.metric)
            .field("len_bytes", &self.len_bytes())
            .finish()
    }
}

impl Image {
    /// Opens an image: checks header and section bounds only, O(1).
    ///
    /// # Errors
    /// [`IndexError::Image`] (corruption) naming the offset of what does not fit.
    pub fn open(bytes: impl ImageBytes) -> Result<Self, IndexError> {
        let len = bytes.bytes().len();
        Self::open_range(bytes, 0..len)
    }

    /// Opens an image that is a part of `bytes`, such as a segment's payload in a mapped file. Searches are fastest
    /// when the part starts at a multiple of 64 bytes in memory; any start works.
    ///
    /// # Errors
    /// As [`Image::open`]; also when the range is not inside `bytes`.
    pub fn open_range(bytes: impl ImageBytes, range: Range<usize>) -> Result<Self, IndexError> {
        let part = bytes.bytes().get(range.clone()).ok_or_else(|| IndexError::Image {
            offset: range.start as u64,
            what: format!("lies at {range:?} of {} bytes", bytes.bytes().len()),
        })?;
        let header = Header::parse(part)?;
        let metric = Metric::from_code(header.metric).ok_or_else(|| IndexError::Image {
            offset: 12,
            what: format!("unknown metric {}", header.metric),
        })?;
        Ok(Self { bytes: Box::new(bytes), range, header, metric, by_id: ById::default() })
    }

    fn image_bytes(&self) -> &[u8] {
        self.bytes.bytes().get(self.range.clone()).unwrap_or(&[])
    }

    /// Checks everything: the checksum over all bytes, then that links, ordinals, ids and lists are in range and order.
    /// O(bytes).
    ///
    /// # Errors
    /// [`IndexError::Image`] naming the first place that is wrong.
    pub fn verify(&self) -> Result<(), IndexError> {
        let bytes = self.image_bytes();
        if layout::checksum(bytes) != self.header.checksum {
            return Err(IndexError::Image { offset: 64, what: "checksum does not match".into() });
        }
        let (n, rows) = (self.nodes(), self.covered_rows());
        let below = |section: Section, limit: u32, gaps: bool| {
            let part = self.header.section(bytes, section);
            match numbers(part).position(|v| v >= limit && !(gaps && v == NO_LINK)) {
                None => Ok(()),
                Some(i) => Err(self.at(section, i * 4, "number out of range")),
            }
        };
        below(Section::Links, n, true)?;
        below(Section::Upper, n, true)?;
        below(Section::Ordinals, rows, false)?;
        below(Section::NodeOfOrdinal, n, true)?;
        below(Section::IdNodes, n, false)?;
        below(Section::ListRows, rows, false)?;
        below(Section::ListOffsets, n.saturating_add(1), false)?;
        let ids = self.header.section(bytes, Section::Ids);
        let id = |c: &[u8]| u64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]);
        if let Some(i) = ids.chunks_exact(8).zip(ids.chunks_exact(8).skip(1)).position(|(a, b)| id(a) > id(b))
        {
            return Err(self.at(Section::Ids, i * 8, "ids are not ascending"));
        }
        let offsets = self.header.section(bytes, Section::ListOffsets);
        if numbers(offsets).zip(numbers(offsets).skip(1)).any(|(a, b)| a > b) {
            return Err(self.at(Section::ListOffsets, 0, "list positions are not ascending"));
        }
        Ok(())
    }

    fn at(&self, section: Section, inside: usize, what: &str) -> IndexError {
        let start = self.header.sections.get(section as usize).map_or(0, |e| e.offset.get());
        IndexError::Image { offset: start + inside as u64, what: format!("{section:?}: {what}") }
    }

    /// Digest of what the image was built from, as given to `build`.
    pub fn coverage(&self) -> [u8; 32] {
        self.header.coverage
    }

    /// Number of rows of the table when the image was built; rows at or above it are not covered.
    pub fn covered_rows(&self) -> u32 {
        self.header.covered_rows.get()
    }

    /// Number of nodes: the rows that were live when the image was built.
    pub fn nodes(&self) -> u32 {
        self.header.nodes.get()
    }

    /// Components per row.
    pub fn dim(&self) -> usize {
        self.header.dim.get() as usize
    }

    /// The metric.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// Links per node on upper layers, the `M` of HNSW.
    pub fn m(&self) -> usize {
        self.header.m.get() as usize
    }

    /// Candidates considered per insertion.
    pub fn ef_construction(&self) -> usize {
        self.header.ef_construction.get() as usize
    }

    /// Highest layer that exists; 0 when there is only layer 0.
    pub fn max_level(&self) -> usize {
        self.header.max_level()
    }

    /// Number of coarse centroids in layer A.
    pub fn centroids(&self) -> usize {
        self.header.centroids.get() as usize
    }

    /// Bytes of the image.
    pub fn len_bytes(&self) -> usize {
        self.range.len()
    }

    /// Where the image lies in the bytes it was opened from.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Range of bytes inside the image that layer A takes: what to read first.
    pub fn layer_a_range(&self) -> Range<usize> {
        let end =
            self.header.sections.get(Section::ListRows as usize).map_or(0, |e| e.offset.get() + e.len.get());
        0..end as usize
    }

    /// Range of bytes inside the image that every search touches besides layer A (layer B): upper layers and links.
    pub fn layer_b_range(&self) -> Range<usize> {
        let extent = |s: Section| self.header.sections.get(s as usize).copied().unwrap_or_default();
        let (upper, links) = (extent(Section::Upper), extent(Section::Links));
        upper.offset.get() as usize..(links.offset.get() + links.len.get()) as usize
    }

    /// Row ordinal of a node.
    pub fn ordinal_of_node(&self, node: u32) -> Option<u32> {
        u32_at(self.header.section(self.image_bytes(), Section::Ordinals), node as usize)
    }

    /// Node of a row ordinal; nothing when the row was not live or not there when the image was built.
    pub fn node_of_ordinal(&self, ordinal: u32) -> Option<u32> {
        u32_at(self.header.section(self.image_bytes(), Section::NodeOfOrdinal), ordinal as usize)
            .filter(|n| *n < self.nodes())
    }

    fn view(&self) -> View<'_> {
        let bytes = self.image_bytes();
        let part = |s| self.header.section(bytes, s);
        View {
            nodes: self.nodes(),
            links: LinkView { bytes: part(Section::Links), degree: self.header.degree.get() as usize },
            codes: CodeView {
                table: CodeTable { bytes: part(Section::Codes), stride: self.header.stride.get() as usize },
                scale: part(Section::Scale),
                bias: part(Section::Bias),
                kernels: kernels(),
            },
            centre: part(Section::Centre),
            upper: part(Section::Upper),
            ordinals: part(Section::Ordinals),
            node_of_ordinal: part(Section::NodeOfOrdinal),
        }
    }

    /// Links of upper layer `level` (1-based) and the number of its nodes.
    fn upper<'a>(&self, upper: &'a [u8], level: usize) -> (LinkView<'a>, u32) {
        let start: usize = (0..level.saturating_sub(1)).map(|l| self.header.upper_bytes(l)).sum();
        let len = self.header.upper_bytes(level.saturating_sub(1));
        let count = self.header.upper_counts.get(level.saturating_sub(1)).map_or(0, |c| c.get());
        let bytes = upper.get(start..start + len).unwrap_or(&[]);
        (LinkView { bytes, degree: self.header.degree_upper.get() as usize }, count)
    }

    /// Code view of layer A's centroids.
    fn centroid_view(&self) -> CodeView<'_> {
        let bytes = self.image_bytes();
        let factors = self.header.section(bytes, Section::CentroidFactors);
        let (scale, bias) = factors.split_at(factors.len().min(self.centroids() * 4));
        CodeView {
            table: CodeTable {
                bytes: self.header.section(bytes, Section::CentroidCodes),
                stride: self.header.stride.get() as usize,
            },
            scale,
            bias,
            kernels: kernels(),
        }
    }

    /// The rows of a centroid's list.
    fn list(&self, centroid: u32) -> &[u8] {
        let bytes = self.image_bytes();
        let offsets = self.header.section(bytes, Section::ListOffsets);
        let rows = self.header.section(bytes, Section::ListRows);
        let at = |i: usize| u32_at(offsets, i).map(|o| o as usize * 4);
        match (at(centroid as usize), at(centroid as usize + 1)) {
            (Some(from), Some(to)) => rows.get(from..to).unwrap_or(&[]),
            _ => &[],
        }
    }

    /// Smallest norm of the rows, those next to zero not counted.
    fn min_norm(&self) -> f64 {
        f64::from(self.header.min_norm.get())
    }
}

/// The sections of an image as slices, taken once per search.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) nodes: u32,
    pub(crate) links: LinkView<'a>,
    pub(crate) codes: CodeView<'a>,
    pub(crate) centre: &'a [u8],
    pub(crate) upper: &'a [u8],
    pub(crate) ordinals: &'a [u8],
    pub(crate) node_of_ordinal: &'a [u8],
}
