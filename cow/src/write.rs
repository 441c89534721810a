//! Commits: ingest, delete and metadata changes.
//!
//! Sequence, in one place: take the lock, look at the file again, append data segments and a
//! witness, sync, append the manifest, sync, publish. Before the second sync nothing counts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rvf_crypto::actions;
use rvf_format::journal::Journal;
use rvf_format::lock::{LockError, WriteLock};
use rvf_format::manifest::{DirEntry, Manifest};
use rvf_format::storage::{FileStorage, Storage};
use rvf_format::writer::{Writer, dir_entry};
use rvf_format::{SegType, Segment, vec_seg};
use rvf_index::Progress;

use crate::error::Error;
use crate::load::{BlockKey, segment_key};
use crate::meta_cache::{MetaCache, cache_of};
use crate::scratch;
use crate::source::open_regular;
use crate::store::Store;
use crate::types::{Access, BadRow, Batch, DeleteReport, Event, Fields, IngestReport};
use crate::view::View;

/// The type of every witness but that of a delete.
pub(crate) use rvf_crypto::actions::KIND_COMPUTATION as WITNESS_CHANGE;

/// Largest vector segment written. The existing tools read at most 256 MiB a segment.
pub(crate) const SEGMENT_BYTES: usize = 64 << 20;

/// Rows are put together in pieces of about this size: they stay in the cache between being copied,
/// hashed and written.
const PIECE_BYTES: usize = 256 << 10;

/// A commit that waited long for others of this process still gets this long for the lock: they may have been busy, not
/// locked out.
const LAST_TRY: Duration = Duration::from_millis(200);

/// An open commit: the lock is held and `view` is what the file holds.
pub(crate) struct Commit<'a> {
    pub(crate) view: Arc<View>,
    pub(crate) base: Manifest,
    pub(crate) writer: Writer<'a>,
    pub(crate) entries: Vec<DirEntry>,
    head: [u8; 32],
    checked: &'a Mutex<HashMap<BlockKey, bool>>,
}

impl std::fmt::Debug for Commit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commit").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

impl Commit<'_> {
    /// Epoch this commit will have.
    pub(crate) fn epoch(&self) -> u32 {
        self.base.epoch.saturating_add(1)
    }

    pub(crate) fn append(&mut self, kind: SegType, payload: &[&[u8]]) -> Result<Segment, Error> {
        let segment = self.writer.append(kind, payload).map_err(|e| self.failed(e))?;
        self.entries.push(dir_entry(&segment));
        Ok(segment)
    }

    fn append_streamed(
        &mut self,
        kind: SegType,
        len: u64,
        fill: &mut dyn FnMut(&mut Vec<u8>),
    ) -> Result<(), Error> {
        let segment = self.writer.append_streamed(kind, len, fill).map_err(|e| self.failed(e))?;
        // Its hash was computed from these very bytes; reading them back would only test the page cache.
        self.checked.lock().insert(segment_key(&segment), true);
        self.entries.push(dir_entry(&segment));
        Ok(())
    }

    pub(crate) fn witness(&mut self, action: &str, kind: u8) -> Result<(), Error> {
        let entry = rvf_crypto::entry(&self.head, action, now_ns(), kind);
        self.append(SegType::WITNESS, &[&entry])?;
        self.head = rvf_crypto::next_head(&entry);
        Ok(())
    }

    /// The manifest of this commit: the old one, plus the new entries.
    pub(crate) fn manifest(&mut self) -> Manifest {
        let mut manifest = self.base.clone();
        manifest.epoch = self.epoch();
        manifest.directory.append(&mut self.entries);
        if self.view.is_child() {
            slim(&mut manifest.directory);
        }
        manifest.hashes = None;
        manifest
    }

    pub(crate) fn finish(&mut self, manifest: &Manifest) -> Result<(), Error> {
        self.writer.commit(manifest).map_err(|e| self.failed(e))?;
        Ok(())
    }

    fn failed(&self, error: rvf_format::Error) -> Error {
        write_error(&self.view, error)
    }
}

/// Takes off a child's directory what no reader looks up there, so that many small edits stay small: journals, and all
/// witnesses but the newest. The chain of witnesses is read by walking the file.
fn slim(directory: &mut Vec<DirEntry>) {
    let newest = directory.iter().rfind(|entry| entry.kind() == SegType::WITNESS).map(|entry| entry.offset);
    directory.retain(|entry| match entry.kind() {
        SegType::JOURNAL => false,
        SegType::WITNESS => Some(entry.offset) == newest,
        _ => true,
    });
}

pub(crate) fn write_error(view: &View, error: rvf_format::Error) -> Error {
    match error {
        rvf_format::Error::Io { source, .. } => Error::io(&view.path, "write", source),
        rvf_format::Error::SignedStore => Error::Policy {
            what: format!(
                "{}: the file is signed; a change would break the signature. Copy it to a new store first",
                view.path.display()
            ),
        },
        other => format_error(other),
    }
}

pub(crate) fn format_error(error: rvf_format::Error) -> Error {
    Error::Invalid { what: error.to_string() }
}

/// Nanoseconds since 1970.
#[must_use]
pub fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

impl Store {
    /// Runs `work` with the write lock held and the file freshly looked at. Publishes a new view
    /// when it succeeds; drops what the writer remembered when it fails.
    pub(crate) fn locked<T>(
        &self,
        work: impl FnOnce(&FileStorage, Arc<View>, &mut Option<MetaCache>) -> Result<T, Error>,
    ) -> Result<(T, Arc<View>), Error> {
        if self.access() == Access::ReadOnly {
            return Err(Error::ReadOnly { path: self.path().to_path_buf() });
        }
        let asked = Instant::now();
        let mut cache = self.commit.lock();
        let (lock, storage) = self.acquire(asked)?;
        if !self.private && !self.swept.swap(true, Ordering::Relaxed) {
            scratch::sweep_beside(self.path());
        }
        self.refresh()?;
        let view = self.view();
        // Another writer came between. Not every commit looks at the cache, but every one passes it on as current.
        if cache.as_ref().is_some_and(|c| c.generation != view.generation) {
            *cache = None;
        }
        let result = work(&storage, view, &mut cache);
        match result {
            Ok(value) => {
                // It is durable: whoever asked must not be told otherwise and do it again. What cannot be read now (no
                // descriptor, no memory) is shown by the next look at the file.
                let view = match self.publish() {
                    Ok(view) => view,
                    Err(error) => {
                        tracing::error!(path = %self.path().display(), %error, "committed, but cannot be read back yet");
                        *cache = None;
                        self.view()
                    }
                };
                if let Some(cache) = cache.as_mut() {
                    cache.generation = view.generation;
                }
                drop(lock);
                Ok((value, view))
            }
            Err(error) => {
                *cache = None;
                drop(lock);
                Err(error)
            }
        }
    }

    /// Takes the lock on the file that the path names now: a compaction may replace it meanwhile. Commits that queued up
    /// behind one that waited for somebody else's lock have waited for it as well, since they `asked`.
    fn acquire(&self, asked: Instant) -> Result<(Option<WriteLock>, FileStorage), Error> {
        const TRIES: usize = 16;
        if self.private {
            let (file, _) = open_regular(self.path(), true)?;
            return Ok((None, FileStorage::new(file)));
        }
        let longest = self.options().lock_wait;
        let wait = longest.saturating_sub(asked.elapsed()).max(longest.min(LAST_TRY));
        for _ in 0..TRIES {
            let (file, meta) = open_regular(self.path(), true)?;
            let lock = WriteLock::acquire(self.path(), &file, wait).map_err(|e| match e {
                LockError::Io { source, .. } => Error::io(self.path(), "lock", source),
                held => Error::Locked { path: self.path().to_path_buf(), holder: held.to_string() },
            })?;
            let (_, now) = open_regular(self.path(), false)?;
            if crate::source::stamp(self.path(), &now)?.ino == crate::source::stamp(self.path(), &meta)?.ino {
                return Ok((Some(lock), FileStorage::new(file)));
            }
        }
        Err(Error::Locked { path: self.path().to_path_buf(), holder: "the file keeps being replaced".into() })
    }

    /// [`Store::locked`] for a commit that appends.
    pub(crate) fn append<T>(
        &self,
        work: impl FnOnce(&mut Commit<'_>, &mut Option<MetaCache>) -> Result<T, Error>,
    ) -> Result<(T, Arc<View>), Error> {
        self.append_unresolved(|commit, cache| {
            commit.view.complete()?;
            work(commit, cache)
        })
    }

    /// [`Store::append`] for a child whose parent may be missing.
    pub(crate) fn append_unresolved<T>(
        &self,
        work: impl FnOnce(&mut Commit<'_>, &mut Option<MetaCache>) -> Result<T, Error>,
    ) -> Result<(T, Arc<View>), Error> {
        self.locked(|storage, view, cache| {
            let mut base = writable(&view)?;
            adopt_witnesses(&view, &mut base);
            let writer = Writer::new(storage, &view.opened).map_err(|e| write_error(&view, e))?;
            let head = view.contents.witness_head;
            let begin = writer.end();
            let mut commit = Commit { view, base, writer, entries: Vec::new(), head, checked: &self.checked };
            let result = work(&mut commit, cache);
            if result.is_err() {
                give_back(storage, begin, &commit.view);
            }
            result
        })
    }

    /// Adds the rows of a batch in one atomic commit. Existing ids are overwritten.
    ///
    /// # Errors
    /// [`Error::Dimension`], [`Error::NotFinite`], [`Error::DuplicateId`], [`Error::Invalid`] for
    /// the batch; [`Error::Locked`], [`Error::NoSpace`], [`Error::Io`], [`Error::ReadOnly`],
    /// [`Error::Policy`] for the file. Nothing is changed then.
    pub fn ingest(&self, batch: &Batch, progress: &dyn Progress) -> Result<IngestReport, Error> {
        let view = self.view();
        let dim = view.dimension();
        let rows = batch.rows();
        if rows > 0 && (batch.dimension != dim || batch.vectors.len() != rows * dim) {
            return Err(Error::Dimension { row: 0, got: batch.dimension, want: dim });
        }
        if let Some(ids) = &batch.ids
            && ids.len() != rows
        {
            return Err(Error::Invalid { what: format!("{} ids for {rows} rows", ids.len()) });
        }
        if !batch.metadata.is_empty() && batch.metadata.len() != rows {
            return Err(Error::Invalid {
                what: format!("{} metadata records for {rows} rows", batch.metadata.len()),
            });
        }
        let mut keep: Vec<usize> = Vec::with_capacity(rows);
        for (row, vector) in batch.vectors.chunks_exact(dim.max(1)).enumerate() {
            match (vector.iter().position(|v| !v.is_finite()), batch.on_bad_row) {
                (None, _) => keep.push(row),
                (Some(component), BadRow::Refuse) => {
                    return Err(Error::NotFinite { row: row as u64, component });
                }
                (Some(_), BadRow::Skip) => {}
            }
        }
        let rejected = (rows - keep.len()) as u64;
        if keep.is_empty() {
            return Ok(IngestReport { accepted: 0, rejected, epoch: view.epoch(), first_id: None });
        }
        if let Some(ids) = &batch.ids {
            let mut sorted: Vec<u64> = keep.iter().filter_map(|row| ids.get(*row).copied()).collect();
            sorted.sort_unstable();
            if let Some(pair) = sorted.windows(2).find(|w| w.first() == w.last()) {
                return Err(Error::DuplicateId { id: pair.first().copied().unwrap_or(0) });
            }
        }
        let ((first_id, accepted), view) =
            self.append(|commit, cache| commit_rows(commit, cache, batch, &keep, progress))?;
        let epoch = view.epoch();
        self.notify(&Event {
            kind: "ingest",
            epoch,
            detail: vec![
                ("accepted".into(), accepted.to_string()),
                ("rejected".into(), rejected.to_string()),
            ],
        });
        Ok(IngestReport { accepted, rejected, epoch, first_id: Some(first_id) })
    }

    /// Deletes vectors and their metadata in one atomic commit. Ids that are not live are counted,
    /// not refused; when none is live nothing is written.
    ///
    /// # Errors
    /// As [`Store::ingest`].
    pub fn delete(&self, ids: &[u64]) -> Result<DeleteReport, Error> {
        let mut wanted = ids.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        self.refresh()?;
        let view = self.view();
        view.complete()?;
        if !wanted.iter().any(|id| view.resolved().find(*id).is_some()) {
            return Ok(DeleteReport { deleted: 0, missing: wanted.len() as u64, epoch: view.epoch() });
        }
        let (deleted, view) = self.append(|commit, cache| {
            let view = Arc::clone(&commit.view);
            let resolved = view.resolved();
            let live: Vec<u64> = wanted.iter().copied().filter(|id| resolved.find(*id).is_some()).collect();
            let epoch = commit.epoch();
            let journal = Journal::of_deletes(epoch, ids).encode().map_err(format_error)?;
            commit.append(SegType::JOURNAL, &[&journal])?;
            let own = forget(commit, cache, &live)?;
            commit.witness(&actions::delete(live.len() as u64, epoch), actions::KIND_DELETE)?;
            let mut manifest = commit.manifest();
            manifest.deleted.extend_from_slice(&own);
            manifest.deleted.sort_unstable();
            manifest.deleted.dedup();
            commit.finish(&manifest)?;
            Ok(live.len() as u64)
        })?;
        let epoch = view.epoch();
        self.notify(&Event { kind: "delete", epoch, detail: vec![("deleted".into(), deleted.to_string())] });
        Ok(DeleteReport { deleted, missing: wanted.len() as u64 - deleted, epoch })
    }

    /// Replaces the metadata of one vector. An empty record removes it. Returns the new epoch.
    ///
    /// # Errors
    /// [`Error::NoSuchId`]; otherwise as [`Store::ingest`].
    pub fn put_metadata(&self, id: u64, fields: &Fields) -> Result<u32, Error> {
        let ((), view) = self.append(|commit, cache| {
            let view = Arc::clone(&commit.view);
            let Some(place) = view.resolved().find(id) else {
                return Err(Error::NoSuchId { id });
            };
            let cache = cache_of(cache, &view);
            let mut file = BTreeMap::new();
            let one = std::slice::from_ref(fields);
            cache.learn(one, &mut file)?;
            let record = cache.record(fields, 0, &mut file)?;
            // In a child an empty record stands for none at all, where an ancestor has one.
            let change = if record.is_empty() && view.pin().is_none() { None } else { Some(record) };
            let payload = cache.advance(BTreeMap::from([(id, change)]), file)?;
            let mut rows = 0;
            if place.layer > 0 && view.pin().is_some() {
                // A record belongs to a row of the same file.
                let dim16 = u16::try_from(view.dimension())
                    .map_err(|_| Error::TooLarge { what: format!("dimension {}", view.dimension()) })?;
                let head = vec_seg::head(dim16, 1);
                let vector = view.resolved().vector(place);
                commit.append(SegType::VEC, &[&head, &id.to_le_bytes(), vector])?;
                rows = 1;
            }
            commit.append(SegType::META, &[&payload])?;
            commit.witness(&format!("metadata:count=1,epoch={}", commit.epoch()), WITNESS_CHANGE)?;
            let mut manifest = commit.manifest();
            manifest.total_vectors += rows;
            view.check_chain()?;
            commit.finish(&manifest)
        })?;
        let epoch = view.epoch();
        self.notify(&Event { kind: "metadata", epoch, detail: vec![("id".into(), id.to_string())] });
        Ok(epoch)
    }
}

/// Hides ids of a child's ancestors and drops their records; returns those with a row in the file itself, which the
/// manifest has to list as deleted.
pub(crate) fn forget(
    commit: &mut Commit<'_>,
    cache: &mut Option<MetaCache>,
    ids: &[u64],
) -> Result<Vec<u64>, Error> {
    let view = Arc::clone(&commit.view);
    let own: Vec<u64> = ids.iter().copied().filter(|id| view.find(*id).is_some()).collect();
    let cache = cache_of(cache, &view);
    // The first metadata segment of a child hides all of its parent's from the existing tools.
    let records = &cache.state.records;
    if !view.is_child() || ids.iter().any(|id| records.contains_key(id)) {
        let changes = ids.iter().map(|id| (*id, None)).collect();
        let payload = cache.advance(changes, BTreeMap::new())?;
        commit.append(SegType::META, &[&payload])?;
    }
    if let Some(parent) = view.parent_view() {
        let above = parent.resolved();
        let inherited: Vec<u64> = ids.iter().copied().filter(|id| above.find(*id).is_some()).collect();
        commit.hide(&inherited)?;
    }
    Ok(own)
}

/// Cuts off what a failed commit wrote. It would count for nothing and the next commit would remove it, but until then
/// it takes space on a device that may be full, and the existing tools refuse to read such a file.
fn give_back(storage: &FileStorage, begin: u64, view: &View) {
    let done = storage.len().and_then(|len| if len > begin { storage.truncate(begin) } else { Ok(()) });
    if let Err(e) = done {
        tracing::warn!(path = %view.path.display(), error = %e, "the end of a failed commit stays until the next one");
    }
}

/// Lists the witnesses that lie after the manifest in force: the existing tools leave the one of a compaction, and
/// those of audited queries, unlisted. The head of the chain is looked for in the directory first, so that a commit
/// that writes no witness of its own would otherwise take the chain back to an older head.
fn adopt_witnesses(view: &View, base: &mut Manifest) {
    let Some(located) = &view.opened.manifest else { return };
    let after = view.opened.layout.segments().filter(|s| s.offset >= located.segment.raw.end);
    base.directory.extend(after.filter(|s| s.kind() == SegType::WITNESS).map(dir_entry));
}

/// The manifest that a commit builds on, or why there is none.
pub(crate) fn writable(view: &View) -> Result<Manifest, Error> {
    let manifest = manifest_of(view)?;
    if let Some(epoch) = view.frozen() {
        return Err(Error::Frozen { path: view.path.clone(), epoch });
    }
    Ok(manifest)
}

/// The manifest in force, or why nothing can build on the file.
pub(crate) fn manifest_of(view: &View) -> Result<Manifest, Error> {
    let Some(located) = &view.opened.manifest else {
        return Err(Error::Policy {
            what: format!(
                "{}: no manifest could be found, so the store is shown read-only; `rvf export` its vectors and \
                 ingest them into a new store",
                view.path.display()
            ),
        });
    };
    Ok(located.manifest.clone())
}

fn put_f32(out: &mut Vec<u8>, values: &[f32]) {
    let from = out.len();
    out.resize(from + 4 * values.len(), 0);
    for (slot, value) in out.get_mut(from..).unwrap_or(&mut []).chunks_exact_mut(4).zip(values) {
        slot.copy_from_slice(&value.to_le_bytes());
    }
}

fn commit_rows(
    commit: &mut Commit<'_>,
    cache: &mut Option<MetaCache>,
    batch: &Batch,
    keep: &[usize],
    progress: &dyn Progress,
) -> Result<(u64, u64), Error> {
    let view = Arc::clone(&commit.view);
    let dim = view.dimension();
    // Another store may have taken the file's place since the batch was checked.
    if batch.dimension != dim {
        return Err(Error::Dimension { row: 0, got: batch.dimension, want: dim });
    }
    // Finding the highest id reads every row, so it is looked for only when it is needed.
    let first_free =
        match &batch.ids {
            Some(_) => 0,
            None => view.resolved().max_id().map_or(Some(0), |max| max.checked_add(1)).ok_or_else(|| {
                Error::Invalid { what: "the highest possible id is in use; give ids".into() }
            })?,
        };
    let id_of = |at: usize, row: usize| match &batch.ids {
        Some(ids) => ids.get(row).copied().unwrap_or(0),
        None => first_free + at as u64,
    };
    let ids: Vec<u64> = keep.iter().enumerate().map(|(at, row)| id_of(at, *row)).collect();

    // Metadata first: what it refuses must not leave vectors behind in the file.
    let mut meta_payload = None;
    let has_fields = batch.metadata.iter().any(|fields| !fields.is_empty());
    if has_fields {
        let cache = cache_of(cache, &view);
        let mut file = BTreeMap::new();
        cache.learn(&batch.metadata, &mut file)?;
        let mut changes = BTreeMap::new();
        for (id, row) in ids.iter().zip(keep) {
            let Some(fields) = batch.metadata.get(*row).filter(|f| !f.is_empty()) else { continue };
            changes.insert(*id, Some(cache.record(fields, *row as u64, &mut file)?));
        }
        meta_payload = Some(cache.advance(changes, file)?);
    }

    let vector = |row: usize| batch.vectors.get(row * dim..row * dim + dim).unwrap_or(&[]);
    let patches = view.patches(ids.iter().copied().zip(keep.iter().map(|row| vector(*row))));
    let full: Vec<(u64, usize)> = match &patches {
        None => Vec::new(),
        Some(patches) => {
            let rows = ids.iter().copied().zip(keep.iter().copied());
            rows.filter(|(id, _)| !patches.has(*id)).collect()
        }
    };
    let (full_ids, full_keep): (Vec<u64>, Vec<usize>) = full.into_iter().unzip();
    let (row_ids, row_keep) =
        if patches.is_some() { (full_ids.as_slice(), full_keep.as_slice()) } else { (ids.as_slice(), keep) };

    let stride = 8 + 4 * dim;
    let per_segment = (SEGMENT_BYTES / stride).max(1);
    let dim16 = u16::try_from(dim).map_err(|_| Error::TooLarge { what: format!("dimension {dim}") })?;
    let mut done: u64 = 0;
    for (ids, rows) in row_ids.chunks(per_segment).zip(row_keep.chunks(per_segment)) {
        let head = vec_seg::head(dim16, ids.len() as u32);
        let len = (head.len() + stride * ids.len()) as u64;
        let mut next = 0;
        commit.append_streamed(SegType::VEC, len, &mut |piece| {
            if next == 0 {
                piece.extend_from_slice(&head);
            }
            let until = ids.len().min(next + (PIECE_BYTES / stride).max(1));
            for (id, row) in ids.iter().zip(rows).take(until).skip(next) {
                piece.extend_from_slice(&id.to_le_bytes());
                put_f32(piece, vector(*row));
            }
            next = until;
        })?;
        done += ids.len() as u64;
        if !progress.step(done, keep.len() as u64) {
            return Err(Error::Cancelled);
        }
    }
    if let Some(patches) = patches {
        commit.put_delta(&patches.encode(&view)?)?;
    }
    if let Some(payload) = &meta_payload {
        commit.append(SegType::META, &[payload])?;
    }
    commit.witness(&actions::ingest(ids.len() as u64, commit.epoch()), WITNESS_CHANGE)?;

    let mut sorted = ids.clone();
    sorted.sort_unstable();
    let mut manifest = commit.manifest();
    count_rows(&view, &mut manifest, &sorted);
    commit.finish(&manifest)?;
    Ok((sorted.first().copied().unwrap_or(0), ids.len() as u64))
}

/// Brings a manifest's counts in line with rows that were appended for `ids` (ascending).
pub(crate) fn count_rows(view: &View, manifest: &mut Manifest, ids: &[u64]) {
    let live_before = ids.iter().filter(|id| view.find(**id).is_some()).count() as u64;
    let deleted_before = manifest.deleted.len();
    manifest.deleted.retain(|id| ids.binary_search(id).is_err());
    let revived = (deleted_before - manifest.deleted.len()) as u64;
    manifest.total_vectors += (ids.len() as u64).saturating_sub(live_before + revived);
    if live_before + revived > 0 {
        // The reference's own graph would keep the old vectors' links; ours knows which rows died.
        let layout = &view.opened.layout;
        manifest.directory.retain(|entry| {
            entry.kind() != SegType::INDEX
                || layout
                    .segment_at_offset(entry.offset)
                    .is_some_and(|s| crate::coverage::open_image(view.bytes(), s).is_some())
        });
    }
}
