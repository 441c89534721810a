//! Compaction: the live contents rewritten into a new file, which then takes the old one's name.

use std::sync::Arc;

use rvf_crypto::actions;
use rvf_format::header::SegType;
use rvf_format::manifest::Manifest;
use rvf_format::recover;
use rvf_format::storage::FileStorage;
use rvf_format::writer::{Writer, dir_entry};
use rvf_format::{ChecksumState, Rows, Severity, VecBlock, vec_seg};
use rvf_index::Progress;

use crate::branch::copy::thinned;
use crate::branch::edit::compacted_filter;
use crate::branch::keep::{drop_unneeded, keep_for_children};
use crate::branch::pin::Derivation;
use crate::create::{beside, create_new};
use crate::error::Error;
use crate::filters;
use crate::meta_cache::{MetaCache, cache_of};
use crate::permissions::Permissions;
use crate::scratch::COMPACT;
use crate::sign;
use crate::source::sync_parent;
use crate::store::Store;
use crate::types::{CompactReport, Event};
use crate::view::View;
use crate::write::{SEGMENT_BYTES, WITNESS_CHANGE, format_error, now_ns, writable, write_error};

impl Store {
    /// Rewrites the file without dead rows, superseded metadata and abandoned bytes. The new file replaces
    /// the old one in one step after it is durable; readers of older views are not disturbed.
    ///
    /// Branches of the store that lie in its directory keep the state they were made from, under a hidden name beside it.
    /// Of a branch, its own rows are rewritten; what it hides of its ancestors stays hidden.
    ///
    /// The search index is not carried over: reindex afterwards. Segments of other types are copied
    /// byte for byte; those that the manifest did not list stay unlisted.
    ///
    /// # Errors
    /// [`Error::Damaged`] while rows or metadata are unreadable, because compacting would drop them
    /// for good; [`Error::Policy`] when the old state cannot be kept for the branches; otherwise as
    /// [`Store::ingest`].
    pub fn compact(&self, progress: &dyn Progress) -> Result<CompactReport, Error> {
        self.verify_vectors()?;
        let (report, view) = self.locked(|_, view, remembered| {
            let base = writable(&view)?;
            refuse_if_damaged(&view)?;
            // What a branch hides is worked out against its ancestors.
            view.complete()?;
            let cache = cache_of(remembered, &view);
            if cache.state().dropped_generations > 0 || cache.state().dropped_records > 0 {
                return Err(damaged(&view, "part of the metadata cannot be read"));
            }
            let scratch = beside(&view.path, COMPACT)?;
            let file = create_new(&scratch)?;
            // It is the same store for whoever may open it.
            match Permissions::of(&view.file) {
                Ok(permissions) => permissions.give(&file),
                Err(error) => tracing::debug!(%error, "owner and mode not carried over"),
            }
            let result = rewrite(&view, &base, cache, file, progress).and_then(|()| {
                let kept = keep_for_children(&view)?;
                std::fs::rename(&scratch, &view.path).map_err(|e| Error::io(&view.path, "rename", e))?;
                Ok(kept)
            });
            let kept = result.inspect_err(|_| {
                // The original is untouched; only the scratch file has to go.
                if let Err(e) = std::fs::remove_file(&scratch) {
                    tracing::warn!(path = %scratch.display(), error = %e, "cannot remove scratch file");
                }
            })?;
            // The new file counts its metadata generations in its own way, or has none.
            *remembered = None;
            sync_parent(&view.path)?;
            drop_unneeded(&view.path, &kept);
            Ok(CompactReport {
                vectors_before: view.live(),
                vectors_after: view.live(),
                file_size_before: view.file_len(),
                file_size_after: 0,
                segments_compacted: base.deleted.len() as u64,
                bytes_reclaimed: base.deleted.len() as u64 * 4 * view.dimension() as u64,
                epoch: base.epoch.saturating_add(1),
            })
        })?;
        let report = CompactReport { file_size_after: view.file_len(), ..report };
        self.notify(&Event {
            kind: "compact",
            epoch: report.epoch,
            detail: vec![
                ("file_size_before".into(), report.file_size_before.to_string()),
                ("file_size_after".into(), report.file_size_after.to_string()),
            ],
        });
        Ok(report)
    }
}

fn refuse_if_damaged(view: &View) -> Result<(), Error> {
    if !view.damaged.is_empty() {
        return Err(damaged(view, "vector segments fail their checksum"));
    }
    match view.findings.iter().find(|f| f.severity == Severity::Damage) {
        Some(finding) => Err(damaged(view, &finding.text)),
        None => Ok(()),
    }
}

fn damaged(view: &View, what: &str) -> Error {
    Error::Damaged {
        path: view.path.clone(),
        what: format!("not compacted, because that would drop damaged data for good: {what}"),
    }
}

/// Live rows that are written alike.
enum Run<'v> {
    /// As rows.
    Rows(&'v [u32]),
    /// In columns, as they are: the block, its first ordinal, and which of its rows live.
    Columns(&'v VecBlock, u32, &'v [u32]),
}

/// The live rows in file order. Columns stay columns where the file is `rounded`: as rows they would take the space again
/// that rounding saved. Columns of other writers become rows, which the existing tools read.
fn runs<'v>(view: &'v View, live: &'v [u32], rounded: bool) -> Vec<Run<'v>> {
    if !rounded {
        return vec![Run::Rows(live)];
    }
    let mut out = Vec::new();
    for (index, block) in view.blocks.iter().enumerate() {
        let Some(range) = view.rows.block_ordinals(index) else { continue };
        let from = live.partition_point(|ordinal| *ordinal < range.start);
        let to = live.partition_point(|ordinal| *ordinal < range.end);
        let rows = live.get(from..to).unwrap_or(&[]);
        match &block.rows {
            Rows::Columns(_) | Rows::Unread if block.segment.kind() == SegType::VEC => {
                out.push(Run::Columns(block, range.start, rows));
            }
            Rows::Columns(_) | Rows::Unread | Rows::InFile { .. } | Rows::Changed(_) => {
                out.push(Run::Rows(rows))
            }
        }
    }
    out
}

fn rewrite(
    view: &Arc<View>,
    base: &Manifest,
    cache: &mut MetaCache,
    file: std::fs::File,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let fail = |e: rvf_format::Error| write_error(view, e);
    let storage = FileStorage::new(file);
    let opened = recover::open(&[]);
    let mut writer = Writer::new(&storage, &opened).map_err(fail)?;
    let mut directory = Vec::new();
    let mut moved = Vec::new();

    let live = view.live_ordinals();
    let stride = 8 + 4 * view.dimension();
    let rounded = view.derived().is_some_and(|pin| pin.derivation == Derivation::Quantize);
    let mut body = Vec::new();
    let mut done: u64 = 0;
    for rows in runs(view, live, rounded) {
        let rows = match rows {
            Run::Rows(rows) => rows,
            Run::Columns(block, first, rows) => {
                let keep = |at: usize| {
                    let ordinal = u32::try_from(at).ok().and_then(|at| first.checked_add(at));
                    ordinal.is_some_and(|ordinal| rows.binary_search(&ordinal).is_ok())
                };
                let payload = block.segment.payload_of(view.bytes());
                if let Some((payload, _)) = thinned(payload, base.dimension, &keep)? {
                    directory.push(dir_entry(&writer.append(SegType::VEC, &[&payload]).map_err(fail)?));
                }
                done += rows.len() as u64;
                continue;
            }
        };
        for rows in rows.chunks((SEGMENT_BYTES / stride).max(1)) {
            body.clear();
            for ordinal in rows {
                body.extend_from_slice(&view.id(*ordinal).to_le_bytes());
                body.extend_from_slice(view.vector(*ordinal));
            }
            let head = vec_seg::head(base.dimension, rows.len() as u32);
            let segment = writer.append(SegType::VEC, &[&head, &body]).map_err(fail)?;
            directory.push(dir_entry(&segment));
            done += rows.len() as u64;
            if !progress.step(done, live.len() as u64) {
                return Err(Error::Cancelled);
            }
        }
    }

    let rewritten = |kind| {
        matches!(kind, SegType::VEC | SegType::MANIFEST | SegType::JOURNAL | SegType::INDEX | SegType::META)
            || (view.contents.cow.is_some()
                && matches!(kind, SegType::COW_MAP | SegType::MEMBERSHIP | SegType::DELTA))
    };
    let removed = view.removed_programs();
    for segment in view.opened.layout.segments() {
        let payload = segment.payload_of(view.bytes());
        if rewritten(segment.kind())
            || removed.contains(&segment.offset)
            || filters::is_ours(segment, view.bytes())
            || (segment.kind() == SegType::CRYPTO
                && sign::ends_with_compaction(payload, |kind| !rewritten(kind)))
        {
            continue;
        }
        if segment.verify(view.bytes()) == ChecksumState::Bad && segment.kind() == SegType::WITNESS {
            tracing::warn!(
                offset = segment.offset,
                "a witness that fails its checksum is carried over as it is"
            );
        }
        let copied = writer.append_copy(&segment.header, payload).map_err(fail)?;
        moved.push((segment.offset, copied.offset));
        let listed = base.directory.iter().any(|e| e.offset == segment.offset);
        // The existing tools leave the witness of a compaction unlisted; the chain needs it.
        if listed || segment.kind() == SegType::WITNESS {
            directory.push(dir_entry(&copied));
        }
    }

    crate::embed::keep_order(&mut directory, &base.directory, &moved);

    if let Some(cow) = &view.contents.cow {
        let filter = compacted_filter(view, cow)?;
        for (kind, payload) in [(SegType::COW_MAP, cow.map.encode()), (SegType::MEMBERSHIP, filter.encode())]
        {
            let payload = payload.map_err(format_error)?;
            directory.push(dir_entry(&writer.append(kind, &[&payload]).map_err(fail)?));
        }
    }

    let state = cache.state();
    if !state.records.is_empty() || !state.file.is_empty() {
        let generation = state.generation + 1;
        let payload = rvf_format::meta::encode_snapshot(state, generation).map_err(format_error)?;
        let segment = writer.append(SegType::META, &[&payload]).map_err(fail)?;
        directory.push(dir_entry(&segment));
    }

    let epoch = base.epoch.saturating_add(1);
    let deleted = base.deleted.len() as u64;
    let action = actions::compact(deleted, deleted * 4 * view.dimension() as u64, epoch);
    let entry = rvf_crypto::entry(&view.contents.witness_head, &action, now_ns(), WITNESS_CHANGE);
    let segment = writer.append(SegType::WITNESS, &[&entry]).map_err(fail)?;
    directory.push(dir_entry(&segment));

    let manifest = Manifest {
        epoch,
        total_vectors: live.len() as u64,
        directory,
        deleted: Vec::new(),
        hashes: None,
        ..base.clone()
    };
    writer.commit(&manifest).map_err(fail)?;
    // Patches and overlays were worked out with ancestors too.
    view.check_chain()
}
