//! One open store: publishes views, notices other writers, and is the only way to change the file.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use rvf_format::contents::{self, VecBlock};
use rvf_format::header::SegType;
use rvf_format::recover;
use rvf_format::{ChecksumState, FileBytes, Segment};
use rvf_format::{Finding, Severity};
use rvf_index::{Image, Metric, SCAN_BELOW_ROWS, ScratchPool};

use crate::accesses::Accesses;
use crate::branch::pin;
use crate::coverage;
use crate::error::Error;
use crate::filters::Filters;
use crate::loading::{Loaded, Loading};
use crate::meta_cache::MetaCache;
use crate::parent::{self, Missing, Parent};
use crate::reindex::BuiltIndex;
use crate::rows::RowTable;
use crate::shared;
use crate::source::{open_device, open_regular, stamp};
use crate::types::{Access, EAGER_VERIFY_BYTES, Event, OpenOptions};
use crate::unchanged::Seen;
use crate::view::View;

type Listener = Box<dyn Fn(&Event) + Send + Sync>;

/// Identifies a vector segment's bytes: offset, length, stored hash.
pub(crate) type BlockKey = (u64, u64, [u8; 16]);

/// An open `.rvf` file.
///
/// Readers take a [`View`] and keep it as long as they like; writers are serialised here within the
/// process, and by locks on the file between processes. No lock is held between commits.
pub struct Store {
    path: PathBuf,
    options: OpenOptions,
    /// Nobody else writes to the file: it is being made, and has its maker's lock.
    pub(crate) private: bool,
    /// Length of a store on a block device, which nobody changes while it is open.
    device: Option<u64>,
    current: ArcSwap<View>,
    generation: AtomicU64,
    /// One writer at a time; what the last commit knew of the metadata.
    pub(crate) commit: Mutex<Option<MetaCache>>,
    /// One refresh at a time, so that generations and contents agree.
    loading: Mutex<()>,
    pub(crate) checked: Mutex<HashMap<BlockKey, bool>>,
    /// A search image kept in memory only.
    pub(crate) transient: Mutex<Option<BuiltIndex>>,
    scratch: Arc<ScratchPool>,
    loaded: Loaded,
    /// What queries found since the counts were last saved.
    pub(crate) accesses: Arc<Accesses>,
    /// Left-overs of compactions were looked for, which is done with the first commit.
    pub(crate) swept: AtomicBool,
    listeners: RwLock<Vec<Listener>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.path)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens a store. A damaged file opens as far as it can be read; its findings say what is wrong.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotRegular`], [`Error::NotRvf`] when nothing can be used.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Arc<Self>, Error> {
        Self::open_as(path, options, false, None)
    }

    /// Opens a file that this process is making and nobody else writes to: no lock is taken for its commits.
    pub(crate) fn open_private(path: &Path, options: &OpenOptions) -> Result<Arc<Self>, Error> {
        Self::open_as(path, options, true, None)
    }

    /// Opens a store that lies on a block device, in its first `len` bytes, for reading. A device is as long as its
    /// sectors and does not know where the store ends.
    ///
    /// # Errors
    /// As [`Store::open`]; [`Error::Invalid`] when it is no block device, [`Error::Io`] when it is shorter.
    pub fn open_device(path: &Path, len: u64, options: &OpenOptions) -> Result<Arc<Self>, Error> {
        Self::open_as(path, &OpenOptions { access: Access::ReadOnly, ..*options }, false, Some(len))
    }

    fn open_as(
        path: &Path,
        options: &OpenOptions,
        private: bool,
        device: Option<u64>,
    ) -> Result<Arc<Self>, Error> {
        let scratch = Arc::new(ScratchPool::new());
        let loaded = Loaded::default();
        let checked = Mutex::new(HashMap::new());
        let accesses = Arc::new(Accesses::default());
        let context = Context {
            scratch: &scratch,
            loaded: &loaded,
            accesses: &accesses,
            checked: &checked,
            generation: 1,
            transient: None,
            device,
        };
        let view = Arc::new(load(path, options, &context, None)?);
        if device.is_none() {
            shared::remember(&view, options);
        }
        Ok(Arc::new(Self {
            path: path.to_path_buf(),
            options: *options,
            private,
            device,
            current: ArcSwap::new(view),
            generation: AtomicU64::new(1),
            commit: Mutex::new(None),
            loading: Mutex::new(()),
            checked,
            transient: Mutex::new(None),
            scratch,
            loaded,
            accesses,
            swept: AtomicBool::new(false),
            listeners: RwLock::new(Vec::new()),
        }))
    }

    /// The path as given to [`Store::open`].
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether changes are possible.
    #[must_use]
    pub fn access(&self) -> Access {
        self.options.access
    }

    /// The options the store was opened with.
    #[must_use]
    pub fn options(&self) -> &OpenOptions {
        &self.options
    }

    /// The newest published state.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.current.load_full()
    }

    /// Calls `listener` after every change. It runs on the thread that made or noticed the change.
    pub fn subscribe(&self, listener: Listener) {
        self.listeners.write().push(listener);
    }

    pub(crate) fn notify(&self, event: &Event) {
        for listener in self.listeners.read().iter() {
            listener(event);
        }
    }

    /// Whether another program has changed the file since the newest view and is done with it: one fstat. The file's
    /// lock tells one that is still writing; its commit is seen when it is there.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        if self.device.is_some() {
            return false;
        }
        let view = self.view();
        let Ok(meta) = view.file.metadata() else { return false };
        let same = meta.len() == view.stamp.len
            && meta.nlink() > 0
            && meta.modified().is_ok_and(|time| time == view.stamp.mtime);
        if same {
            return self.chain_changed(&view);
        }
        !self.commit.is_locked() && !rvf_format::lock::lock_path(&self.path).exists()
    }

    /// Whether the ancestors of a branch have to be looked for anew: one that was read is not any more what it was, or one
    /// that was missing is there now. One fstat an ancestor; where one is missing, an attempt to open it.
    fn chain_changed(&self, view: &View) -> bool {
        match view.layers() {
            Ok(layers) => layers.iter().any(|layer| layer.view.check_ancestor().is_err()),
            Err(_) => {
                let checked = Mutex::new(HashMap::new());
                let context = Context {
                    scratch: &self.scratch,
                    loaded: &self.loaded,
                    accesses: &self.accesses,
                    checked: &checked,
                    generation: view.generation,
                    transient: None,
                    device: self.device,
                };
                load(&self.path, &self.options, &context, None).is_ok_and(|view| view.complete().is_ok())
            }
        }
    }

    /// Looks at the file again. `true` when another process changed it and a new view was published.
    /// When the file cannot be read any more the old view stays.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn refresh(&self) -> Result<bool, Error> {
        let meta = crate::reach::reach(&self.path)?.meta;
        let view = self.view();
        if stamp(&self.path, &meta)? == view.stamp && !self.chain_changed(&view) {
            return Ok(false);
        }
        let epoch = self.publish()?.epoch();
        self.notify(&Event { kind: "refresh", epoch, detail: Vec::new() });
        Ok(true)
    }

    /// Reads the file and publishes what it holds now.
    pub(crate) fn publish(&self) -> Result<Arc<View>, Error> {
        let guard = self.loading.lock();
        let generation = self.generation.load(Ordering::Relaxed) + 1;
        let transient = self.transient.lock().as_ref().map(|built| Arc::clone(&built.image));
        let given = transient.clone();
        let context = Context {
            scratch: &self.scratch,
            loaded: &self.loaded,
            accesses: &self.accesses,
            checked: &self.checked,
            generation,
            transient,
            device: self.device,
        };
        let view = Arc::new(load(&self.path, &self.options, &context, Some(&self.view()))?);
        if self.device.is_none() {
            shared::remember(&view, &self.options);
        }
        // One that fits no more, or less than what the file has, is not worth its memory. Another may have come meanwhile.
        if let Some(given) = given
            && !view.image_in_memory
        {
            self.transient.lock().take_if(|built| Arc::ptr_eq(&built.image, &given));
        }
        self.generation.store(generation, Ordering::Relaxed);
        self.current.store(Arc::clone(&view));
        drop(guard);
        Ok(view)
    }

    /// Checks the checksum of every vector and index segment not checked yet, and publishes a view
    /// without the rows and indexes of those that fail. `true` when all are well. O(bytes), once.
    ///
    /// # Errors
    /// As [`Store::refresh`].
    pub fn verify_vectors(&self) -> Result<bool, Error> {
        let view = self.view();
        if view.verified {
            return Ok(view.damaged.is_empty());
        }
        let mut sound = true;
        for block in &view.contents.blocks {
            sound &= self.check_block(&view, block);
        }
        if view.image.is_some() {
            for segment in listed_indexes(&view.opened) {
                sound &= remember(&self.checked, &segment, segment_is_sound(&segment, view.bytes()));
            }
        }
        view.check_intact()?;
        let published = self.publish()?;
        if !sound {
            let detail = vec![("findings".into(), published.findings.len().to_string())];
            self.notify(&Event { kind: "damage", epoch: published.epoch(), detail });
        }
        Ok(sound)
    }

    fn check_block(&self, view: &View, block: &VecBlock) -> bool {
        let key = key_of(block);
        if let Some(sound) = self.checked.lock().get(&key) {
            return *sound;
        }
        let sound = is_sound(block, view.bytes());
        self.checked.lock().insert(key, sound);
        sound
    }
}

fn key_of(block: &VecBlock) -> BlockKey {
    segment_key(&block.segment)
}

pub(crate) fn segment_key(segment: &Segment) -> BlockKey {
    (segment.offset, segment.header.payload_len(), segment.header.content_hash)
}

fn segment_is_sound(segment: &Segment, bytes: &[u8]) -> bool {
    matches!(segment.verify(bytes), ChecksumState::Ok | ChecksumState::Unset)
}

fn remember(checked: &Mutex<HashMap<BlockKey, bool>>, segment: &Segment, sound: bool) -> bool {
    checked.lock().insert(segment_key(segment), sound);
    sound
}

fn is_sound(block: &VecBlock, bytes: &[u8]) -> bool {
    match block.verify(bytes) {
        ChecksumState::Ok | ChecksumState::Unset => true,
        ChecksumState::Bad | ChecksumState::Unsupported => false,
    }
}

struct Context<'a> {
    scratch: &'a Arc<ScratchPool>,
    loaded: &'a Loaded,
    accesses: &'a Arc<Accesses>,
    checked: &'a Mutex<HashMap<BlockKey, bool>>,
    generation: u64,
    transient: Option<Arc<Image>>,
    device: Option<u64>,
}

/// Reads a file into a view, and for a copy-on-write child the whole chain of its parents. O(segments), plus checksums
/// as the options ask. Parents that `before` holds already are not read again.
fn load(
    path: &Path,
    options: &OpenOptions,
    context: &Context<'_>,
    before: Option<&View>,
) -> Result<View, Error> {
    let (file, meta) = match context.device {
        Some(_) => open_device(path)?,
        None => open_regular(path, false)?,
    };
    let mut view = load_one(path, file, &meta, context.device.unwrap_or(meta.len()), options, context)?;
    let mut visited = vec![(view.stamp.dev, view.stamp.ino)];
    // The files of the chain, oldest last; each but the last has a parent, which is the next.
    let mut chain: Vec<(View, bool)> = Vec::new();
    let last = before;
    let mut before = before.and_then(View::parent_view);
    let mut end: Option<Result<Parent, Missing>> = None;
    // Where the file last found should lie.
    let mut place: Option<PathBuf> = None;
    loop {
        let youngest = chain.last().map_or(&view, |(view, _)| view);
        let Some(Ok(cow)) = cow_of(youngest) else {
            if let Some(Err(missing)) = cow_of(youngest) {
                end = Some(Err(missing));
            }
            break;
        };
        let identity = youngest.opened.manifest.as_ref().and_then(|m| m.manifest.identity.as_ref());
        let found = match parent::find(&youngest.path, cow, identity, youngest.pin.as_ref(), &visited) {
            Ok(found) => found,
            Err(missing) => {
                let moved = place
                    .as_ref()
                    .and_then(|place| parent::find_moved(youngest, cow, place, identity, &visited));
                match moved {
                    Some(found) => found,
                    None => {
                        end = Some(Err(missing));
                        break;
                    }
                }
            }
        };
        place = Some(parent::directory_of(&youngest.path).join(&cow.map.parent_path));
        let unchanged = found.len == found.meta.len();
        let dim = youngest.dimension();
        let own = before.filter(|view| shared::usable(view, &found, options)).map(Arc::clone);
        let room = parent::MAX_DEPTH - visited.len();
        // What somebody else has read may have got an index since.
        let known = match own {
            Some(own) if own.image.is_some() => Some(own),
            own => shared::find(&found, options, room).or(own),
        };
        if let Some(known) = known.filter(|known| known.dimension() == dim) {
            end = Some(Ok(Parent::new(known, unchanged)));
            break;
        }
        before = before.and_then(|view| view.parent_view());
        visited.push((found.meta.dev(), found.meta.ino()));
        // Checksums of the parent are looked at anew: the map of known ones is keyed by offset.
        let checked = Mutex::new(HashMap::new());
        let context = Context {
            scratch: context.scratch,
            loaded: context.loaded,
            accesses: context.accesses,
            checked: &checked,
            generation: 1,
            transient: None,
            device: None,
        };
        match load_one(&found.path, found.file, &found.meta, found.len, options, &context) {
            Ok(parent) if !parent.damaged.is_empty() => {
                let what =
                    "has vector segments that fail their checksum; what is left of it can be read by itself";
                end = Some(Err(format!("its parent {} {what}; restore it", found.path.display())));
                break;
            }
            Ok(mut parent) if parent.dimension() == dim => {
                if !unchanged && parent.image.is_none() {
                    parent.image = later_image(&parent, found.meta.len());
                }
                chain.push((parent, unchanged));
            }
            Ok(_) => {
                end = Some(Err(format!("{} has another dimension", found.path.display())));
                break;
            }
            Err(error) => {
                end = Some(Err(format!("its parent cannot be read: {error}")));
                break;
            }
        }
    }
    // Each file gets its parent, from the oldest on.
    while let Some((mut parent, unchanged)) = chain.pop() {
        attach(&mut parent, end.take(), None);
        let parent = Arc::new(parent);
        shared::remember(&parent, options);
        end = Some(Ok(Parent::new(parent, unchanged)));
    }
    attach(&mut view, end, last);
    if let Some(last) = last {
        view.inherit_codes(last);
    }
    Ok(view)
}

/// The search image that was made for a file's rows after the state of it that `state` shows. It describes that state too
/// when it covers the same vector segments and as many rows were live: rows only die, so they are the same rows.
fn later_image(state: &View, len: u64) -> Option<Arc<Image>> {
    if !state.damaged.is_empty() || u64::from(state.rows.total()) < SCAN_BELOW_ROWS {
        return None;
    }
    let bytes = FileBytes::map(&state.file, len).ok()?;
    let opened = recover::open(&bytes);
    let image = listed_indexes(&opened)
        .into_iter()
        .rev()
        .filter(|segment| segment_is_sound(segment, &bytes))
        .filter_map(|segment| coverage::open_image(&bytes, &segment))
        .find(|image| coverage::fits(image, state.dimension(), state.metric, &state.blocks))?;
    let same = image.covered_rows() == state.rows.total() && u64::from(image.nodes()) == state.live();
    same.then(|| Arc::new(image))
}

/// The branch state of a file, when it lists one. A child whose record cannot be read is still a child: answering from
/// its own rows alone would be silently wrong.
fn cow_of(view: &View) -> Option<Result<&contents::Cow, Missing>> {
    let listed = |kind| {
        let manifest = view.opened.manifest.as_ref().map(|m| &m.manifest);
        manifest.is_some_and(|m| m.entries_of(kind).next().is_some())
    };
    // Without a COW_MAP it is the record of a child that needs no parent.
    if let Some(damage) = view.pin_damage.as_ref().filter(|_| listed(SegType::COW_MAP)) {
        return Some(Err(damage.clone()));
    }
    match &view.contents.cow {
        Some(cow) => Some(Ok(cow)),
        None => {
            let mut entries = view.opened.manifest.as_ref()?.manifest.entries_of(SegType::COW_MAP);
            entries.next()?;
            Some(Err("the record of its parent (COW_MAP or MEMBERSHIP) is damaged".into()))
        }
    }
}

/// Which ancestor of those that a file shows cannot be read, and why.
fn missing_above(view: &View) -> Option<Missing> {
    let mut next = view;
    loop {
        match &next.parent {
            None => return None,
            Some(Err(missing)) if std::ptr::eq(next, view) => return Some(missing.clone()),
            Some(Err(missing)) => return Some(format!("{}: {missing}", next.path.display())),
            // The existing tools look at one level only, and their children mean just that.
            Some(Ok(_)) if next.pin.is_none() => return None,
            Some(Ok(parent)) => next = &parent.view,
        }
    }
}

fn attach(view: &mut View, parent: Option<Result<Parent, Missing>>, before: Option<&View>) {
    view.parent = parent;
    if let Some(missing) = missing_above(view) {
        view.findings.push(Finding {
            severity: Severity::Warning,
            code: "parent-missing",
            offset: 0,
            text: format!("copy-on-write child: {missing}; only its own rows are shown"),
            mend: Some("put the parent back where the child expects it".into()),
        });
        view.findings.sort_by_key(|f| std::cmp::Reverse(f.severity));
    }
    view.resolve_deltas(before);
}

/// Reads the first `len` bytes of an open file into a view that knows no parent yet.
fn load_one(
    path: &Path,
    file: std::fs::File,
    meta: &std::fs::Metadata,
    len: u64,
    options: &OpenOptions,
    context: &Context<'_>,
) -> Result<View, Error> {
    let mut stamp = stamp(path, meta)?;
    stamp.len = if context.device.is_some() { len } else { len.min(stamp.len) };
    let bytes =
        if options.mmap { FileBytes::map(&file, stamp.len) } else { FileBytes::read(&file, stamp.len) }
            .map_err(|e| Error::io(path, "map", e))?;
    let opened = recover::open(&bytes);
    let contents = contents::read(&bytes, &opened);
    let mut findings: Vec<Finding> = opened.findings.clone();
    findings.extend(contents.findings.iter().cloned());
    if opened.manifest.is_none() && contents.blocks.is_empty() {
        return Err(unusable(path, &bytes, &findings, opened.layout.segments().count()));
    }

    let dim = match &opened.manifest {
        Some(m) => usize::from(m.manifest.dimension),
        None => contents.blocks.first().map_or(0, |b| usize::from(b.dim)),
    };
    let metric =
        opened.manifest.as_ref().and_then(|m| Metric::from_code(m.manifest.metric)).unwrap_or(Metric::L2);
    let blocks: Vec<VecBlock> =
        contents.blocks.iter().filter(|b| usize::from(b.dim) == dim).cloned().collect();
    let rows = RowTable::new(bytes.clone(), dim, &blocks)?;

    let total: u64 = blocks.iter().map(|b| b.segment.header.payload_len()).sum();
    let eager = options.verify || total <= EAGER_VERIFY_BYTES;
    let mut verified = true;
    let mut damaged = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        let known = context.checked.lock().get(&key_of(block)).copied();
        let sound = match known {
            Some(sound) => sound,
            None if eager => {
                let sound = is_sound(block, &bytes);
                context.checked.lock().insert(key_of(block), sound);
                sound
            }
            None => {
                verified = false;
                true
            }
        };
        if !sound && let Some(range) = rows.block_ordinals(index) {
            findings.push(Finding {
                severity: Severity::Damage,
                code: "vectors-damaged",
                offset: block.segment.offset,
                text: format!(
                    "{} segment {} at byte {} fails its checksum; its {} rows are left out",
                    if block.segment.kind() == SegType::DELTA { "DELTA" } else { "VEC" },
                    block.segment.ordinal + 1,
                    block.segment.offset,
                    range.len()
                ),
                mend: Some("restore these vectors from a copy and ingest them again".into()),
            });
            damaged.push(range);
        }
    }

    let mut image = None;
    let mut stale_index = false;
    for segment in listed_indexes(&opened).into_iter().rev() {
        let Some(found) = coverage::open_image(&bytes, &segment) else { continue };
        if !coverage::fits(&found, dim, metric, &blocks) {
            stale_index = true;
            continue;
        }
        let known = context.checked.lock().get(&segment_key(&segment)).copied();
        let sound = known.unwrap_or_else(|| {
            verified &= eager;
            !eager || remember(context.checked, &segment, segment_is_sound(&segment, &bytes))
        });
        if sound {
            image = Some(Arc::new(found));
            break;
        }
        stale_index = true;
        findings.push(Finding {
            severity: Severity::Warning,
            code: "index-damaged",
            offset: segment.offset,
            text: format!(
                "INDEX segment {} at byte {} fails its checksum and is not used; no vector is affected",
                segment.ordinal + 1,
                segment.offset
            ),
            mend: Some("run `rvf reindex`, or write `reindex` to ctl".into()),
        });
    }
    let mut image_in_memory = false;
    if let Some(own) = context.transient.clone()
        && image.as_ref().is_none_or(|stored| stored.covered_rows() < own.covered_rows())
        && coverage::fits(&own, dim, metric, &blocks)
    {
        image = Some(own);
        image_in_memory = true;
    }
    stale_index &= image.is_none();
    let (pin, pin_damage) = match pin::read(&bytes, &opened) {
        Ok(pin) => (pin, None),
        Err(damage) => (None, Some(damage)),
    };
    let (origin, pin) = match pin {
        Some(pin) if pin.standalone => (Some(pin), None),
        pin => (None, pin),
    };
    findings.sort_by_key(|f| std::cmp::Reverse(f.severity));

    let mut deleted = opened.manifest.as_ref().map(|m| m.manifest.deleted.clone()).unwrap_or_default();
    deleted.sort_unstable();
    deleted.dedup();
    Ok(View {
        path: path.to_path_buf(),
        file: Arc::new(file),
        stamp,
        seen: Seen::new(meta),
        generation: context.generation,
        opened,
        contents,
        blocks,
        deleted_ids: deleted,
        rows,
        metric,
        image,
        image_in_memory,
        stale_index,
        damaged,
        verified,
        findings,
        parent: None,
        pin,
        origin,
        pin_damage,
        digest: std::sync::OnceLock::new(),
        places: std::sync::OnceLock::new(),
        scratch: Arc::clone(context.scratch),
        loading: Loading::new(context.loaded, (stamp.dev, stamp.ino)),
        accesses: Arc::clone(context.accesses),
        live: std::sync::OnceLock::new(),
        meta: std::sync::OnceLock::new(),
        filters: Filters::default(),
        max_id: std::sync::OnceLock::new(),
        live_set: std::sync::OnceLock::new(),
        codes: crate::coded::Codes::default(),
    })
}

/// The INDEX segments that the manifest lists, in its order.
fn listed_indexes(opened: &recover::Opened) -> Vec<Segment> {
    let Some(manifest) = &opened.manifest else { return Vec::new() };
    manifest
        .manifest
        .entries_of(SegType::INDEX)
        .filter_map(|e| opened.layout.segment_at_offset(e.offset).cloned())
        .collect()
}

fn unusable(path: &Path, bytes: &[u8], findings: &[Finding], segments: usize) -> Error {
    let reason = if bytes.is_empty() {
        "the file is empty; `rvf create` makes a store".to_owned()
    } else if segments == 0 {
        format!("none of its {} bytes form an RVF segment", bytes.len())
    } else {
        let worst = findings.iter().max_by_key(|f| f.severity);
        worst.map_or_else(
            || format!("{segments} segments, but no manifest and no vectors"),
            |f| f.text.clone(),
        )
    };
    // A file that starts like RVF in another version is reported as that, everything else as a
    // store whose manifest is not there.
    let version = bytes.first_chunk::<5>();
    let code = match version {
        Some([b'S', b'F', b'V', b'R', v]) if *v != 1 => 0x0101,
        _ => 0x0106,
    };
    Error::NotRvf { path: path.to_path_buf(), reason, code }
}
