//! Filters over the metadata of a view: typed columns by row, stored in the file or built on first use.

use std::sync::{Arc, OnceLock};

use rvf_format::header::SegType;
use rvf_format::{ChecksumState, Segment};
use rvf_index::Bitmap;
use rvf_index::filter::{self, Columns, ColumnsBuilder, FilterCache};

use crate::coverage;
use crate::error::Error;
use crate::metadata::{Metadata, to_filter_value};
use crate::view::View;

/// Columns and recent results of one view.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    columns: OnceLock<Columns>,
    recent: FilterCache,
}

/// First bytes of a stored column index (META_IDX payload).
const MAGIC: &[u8; 8] = b"RVMIDX01";

/// Bytes before the columns: magic, digest of the metadata segments, digest of the vector segments.
const HEADER: usize = 8 + 32 + 32;

impl View {
    /// Live rows that match a filter. O(1) for a recent one, else O(matches) after the columns are
    /// there; the first filter of a file without stored columns decodes all metadata.
    pub(crate) fn matching(&self, text: &str) -> Result<Arc<Bitmap>, Error> {
        if let Some(rows) = self.filters.recent.get(text) {
            return Ok(rows);
        }
        let expr = filter::parse(text).map_err(|e| Error::BadFilter { what: e.to_string() })?;
        let mut rows = self.columns().eval(&expr).map_err(|e| Error::BadFilter { what: e.to_string() })?;
        // A row without metadata matches `!=` and NOT; a dead row must match nothing.
        rows.and(self.live_set());
        let rows = Arc::new(rows);
        self.filters.recent.insert(text, Arc::clone(&rows));
        Ok(rows)
    }

    /// Names in a filter that no record of the store has; such a field is missing everywhere.
    ///
    /// # Errors
    /// [`Error::BadFilter`] when the text does not parse.
    pub fn unknown_fields(&self, text: &str) -> Result<Vec<String>, Error> {
        let expr = filter::parse(text).map_err(|e| Error::BadFilter { what: e.to_string() })?;
        Ok(self.columns().unknown_fields(&expr))
    }

    fn columns(&self) -> &Columns {
        self.filters.columns.get_or_init(|| stored(self).unwrap_or_else(|| build(self)))
    }
}

/// The payload of a META_IDX segment for a view, or `None` when it has no metadata.
pub(crate) fn encode(view: &View) -> Option<Vec<u8>> {
    if !view.has_metadata() {
        return None;
    }
    let mut out = Vec::new();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&metadata_digest(view));
    out.extend_from_slice(&coverage::digest(&view.blocks));
    out.extend_from_slice(&view.columns().to_bytes());
    Some(out)
}

/// Whether a segment holds columns written by [`encode`]. The format leaves META_IDX payloads open, so
/// those of other programs are none of our business.
pub(crate) fn is_ours(segment: &Segment, bytes: &[u8]) -> bool {
    segment.kind() == SegType::META_IDX && segment.payload_of(bytes).starts_with(MAGIC)
}

/// The columns stored in the file, if they are sound and describe exactly this view's metadata.
fn stored(view: &View) -> Option<Columns> {
    let manifest = &view.opened.manifest.as_ref()?.manifest;
    let segment = manifest
        .entries_of(SegType::META_IDX)
        .rev()
        .filter_map(|e| view.opened.layout.segment_at_offset(e.offset))
        .find(|s| is_ours(s, view.bytes()))?;
    let payload = segment.payload_of(view.bytes());
    let (header, columns) = payload.split_at_checked(HEADER)?;
    if header.get(..8)? != MAGIC
        || header.get(8..40)? != metadata_digest(view)
        || header.get(40..)? != coverage::digest(&view.blocks)
        || segment.verify(view.bytes()) != ChecksumState::Ok
    {
        return None;
    }
    Columns::from_bytes(columns).ok().filter(|c| c.rows() == view.rows.total())
}

/// Digest of the metadata segments that count: changes with every metadata commit.
fn metadata_digest(view: &View) -> [u8; 32] {
    let mut text = b"rvf-mount meta v1".to_vec();
    let one = |segment: &Segment, text: &mut Vec<u8>| {
        text.extend_from_slice(&segment.header.content_hash);
        text.extend_from_slice(&segment.header.payload_len().to_le_bytes());
    };
    for segment in &view.contents.meta_entries {
        one(segment, &mut text);
    }
    for id in &view.deleted_ids {
        text.extend_from_slice(&id.to_le_bytes());
    }
    rvf_crypto::shake256_256(&text)
}

fn build(view: &View) -> Columns {
    let metadata: &Metadata = view.metadata();
    let mut builder = ColumnsBuilder::new(view.rows.total());
    for (field, name) in metadata.names() {
        builder.field(*field, name);
    }
    for (id, record) in &metadata.state().records {
        let Some(row) = view.find(*id) else { continue };
        for (field, value) in record {
            // `find` gives rows of the table, so only a field with more than 4 GiB of text can
            // fail; filters then treat the value as missing, which `!=` and NOT let through.
            if let Err(e) = builder.set(row, *field, to_filter_value(value)) {
                tracing::warn!(field = *field, error = %e, "value left out of filters");
            }
        }
    }
    builder.build()
}
