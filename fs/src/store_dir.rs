//! One store of the mount: its current state, and everything that belongs to it but not to its file: sessions, drafts,
//! events, the last refusals, and what was computed once about segments.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use rvf_cow::{Access, Event, OpenOptions, Progress, Store, View};
use rvf_crypto::Content;
use rvf_format::ChecksumState;

use crate::branches::Branches;
use crate::drafts::Drafts;
use crate::errno::Error;
use crate::events::Events;
use crate::indexing::{Indexer, Indexing};
use crate::infos::Infos;
use crate::node::{Place, SegmentKey, StateNo, StoreId};
use crate::programs;
use crate::session::Sessions;
use crate::signatures;
use crate::snapshot::{Part, Snap};

/// What holds for the whole mount.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Every change is refused.
    pub read_only: bool,
    /// Where the tree is mounted, for the examples in `README`.
    pub mountpoint: PathBuf,
    /// Owner of everything.
    pub uid: u32,
    /// Group of everything.
    pub gid: u32,
    /// Threads a batch of queries is spread over.
    pub threads: usize,
    /// Map files (the default) or read them into memory.
    pub mmap: bool,
    /// The first query of a store without an index has one built.
    pub auto_index: bool,
    /// What builds it.
    pub indexer: Indexer,
    /// Embedded programs may be run: their entries have execute permission.
    pub exec: bool,
    /// The program that runs them: what the first line of an executable entry names.
    pub helper: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        let (uid, gid) = crate::sys::ids();
        Self {
            read_only: false,
            mountpoint: PathBuf::from("."),
            uid,
            gid,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            mmap: true,
            auto_index: true,
            indexer: Indexer::default(),
            exec: false,
            helper: crate::executable::helper(),
        }
    }
}

/// Segments up to this size are hashed and decoded in a moment.
const QUICK_BYTES: u64 = 4 << 20;

/// Told when a store has a new state; invalidates what the kernel has cached.
pub type Listener = Box<dyn Fn(StoreId) + Send + Sync>;

/// One store.
pub struct StoreDir {
    /// Its number in the mount.
    pub id: StoreId,
    /// Its directory's path as users see it.
    pub shown_as: PathBuf,
    /// The mount's settings.
    pub settings: Arc<Settings>,
    /// The store itself.
    pub store: Arc<Store>,
    /// What happened.
    pub events: Events,
    /// Query sessions.
    pub sessions: Sessions,
    /// Dropped files and receipts.
    pub drafts: Drafts,
    /// Its branches.
    pub branches: Branches,
    /// Where the index built in the background stands.
    pub indexing: Indexing,
    /// When this directory came to be; the time of what never changes.
    pub since: SystemTime,
    snap: ArcSwap<Snap>,
    history: Mutex<Vec<(StateNo, Weak<Snap>)>>,
    first_seen: Mutex<HashMap<SegmentKey, SystemTime>>,
    checksums: Mutex<HashMap<SegmentKey, ChecksumState>>,
    contents: Mutex<HashMap<SegmentKey, Content>>,
    judged: Mutex<HashMap<SegmentKey, Judged>>,
    infos: Mutex<Infos>,
    refusals: RwLock<BTreeMap<Place, (String, SystemTime)>>,
    jobs: Mutex<BTreeMap<u64, JobState>>,
    next_job: AtomicU64,
    listener: RwLock<Option<Listener>>,
}

impl std::fmt::Debug for StoreDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreDir")
            .field("id", &self.id)
            .field("path", &self.store.path())
            .finish_non_exhaustive()
    }
}

/// What the signatures of a program were worth when its `info.json` was rendered, or found to be the same later.
#[derive(Debug)]
struct Judged {
    state: StateNo,
    at: Instant,
    verdict: String,
}

/// How far a long job is.
#[derive(Debug, Clone)]
pub struct JobState {
    /// What it does, such as `ingest data.npy`.
    pub what: String,
    /// Work done.
    pub done: u64,
    /// Work in all; 0 while unknown.
    pub total: u64,
}

impl StoreDir {
    /// Opens the store in `path`.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open(
        id: StoreId,
        path: &Path,
        shown_as: PathBuf,
        settings: Arc<Settings>,
    ) -> Result<Arc<Self>, Error> {
        let options = OpenOptions {
            access: if settings.read_only { Access::ReadOnly } else { Access::ReadWrite },
            mmap: settings.mmap,
            verify: false,
            ..OpenOptions::default()
        };
        let store = Store::open(path, &options)?;
        Ok(Self::of_store(id, store, shown_as, settings))
    }

    /// The directory of a store that is open already.
    #[must_use]
    pub fn of_store(id: StoreId, store: Arc<Store>, shown_as: PathBuf, settings: Arc<Settings>) -> Arc<Self> {
        let dir = Arc::new_cyclic(|own| {
            let snap = Arc::new(Snap::new(store.view(), own.clone()));
            Self {
                id,
                shown_as,
                settings,
                events: Events::default(),
                sessions: Sessions::default(),
                drafts: Drafts::default(),
                branches: Branches::new(store.path()),
                indexing: Indexing::default(),
                since: SystemTime::now(),
                history: Mutex::new(vec![(snap.no, Arc::downgrade(&snap))]),
                snap: ArcSwap::new(snap),
                first_seen: Mutex::new(HashMap::new()),
                checksums: Mutex::new(HashMap::new()),
                contents: Mutex::new(HashMap::new()),
                judged: Mutex::new(HashMap::new()),
                infos: Mutex::new(Infos::default()),
                refusals: RwLock::new(BTreeMap::new()),
                jobs: Mutex::new(BTreeMap::new()),
                next_job: AtomicU64::new(0),
                listener: RwLock::new(None),
                store,
            }
        });
        let weak = Arc::downgrade(&dir);
        dir.store.subscribe(Box::new(move |event| {
            if let Some(dir) = weak.upgrade() {
                dir.happened(event);
            }
        }));
        dir.publish();
        dir
    }

    /// Sets who is told about new states.
    pub fn listen(&self, listener: Listener) {
        *self.listener.write() = Some(listener);
    }

    /// The current state.
    #[must_use]
    pub fn snap(&self) -> Arc<Snap> {
        self.snap.load_full()
    }

    /// The state of that number, while anybody still holds it.
    #[must_use]
    pub fn snap_of(&self, no: StateNo) -> Option<Arc<Snap>> {
        let current = self.snap.load();
        if current.no == no {
            return Some(arc_swap::Guard::into_inner(current));
        }
        self.history.lock().iter().find(|(at, _)| *at == no)?.1.upgrade()
    }

    fn happened(self: &Arc<Self>, event: &Event) {
        self.publish();
        let detail: Vec<(&str, &str)> =
            event.detail.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        self.events.push(event.kind, event.epoch, &detail);
        tracing::info!(path = %self.store.path().display(), kind = event.kind, epoch = event.epoch, "store changed");
        if let Some(listener) = &*self.listener.read() {
            listener(self.id);
        }
        self.settings.indexer.changed(self);
    }

    /// Shows the store's newest view, for changes that the store tells nobody about.
    pub fn look_again(self: &Arc<Self>) {
        self.publish();
    }

    /// Makes the store's newest view the current state. Views may arrive out of order; the newest stays.
    fn publish(self: &Arc<Self>) {
        let view = self.store.view();
        let next = Arc::new(Snap::new(view, Arc::downgrade(self)));
        let mut history = self.history.lock();
        if next.no > self.snap.load().no {
            history.retain(|(_, snap)| snap.strong_count() > 0);
            history.push((next.no, Arc::downgrade(&next)));
            self.snap.store(next);
        }
        drop(history);
        self.forget_gone_parts();
    }

    fn forget_gone_parts(&self) {
        let snap = self.snap();
        // Not worth building the list for: nothing was computed about any segment yet.
        if self.first_seen.lock().is_empty() {
            return;
        }
        self.first_seen.lock().retain(|key, _| snap.part(*key).is_some());
        self.checksums.lock().retain(|key, _| snap.part(*key).is_some());
        self.contents.lock().retain(|key, _| snap.part(*key).is_some());
        self.judged.lock().retain(|key, _| snap.part(*key).is_some());
    }

    /// Modification time of a segment's files: when this state of the file was first seen with it.
    #[must_use]
    pub fn part_time(&self, snap: &Snap, key: SegmentKey) -> SystemTime {
        *self.first_seen.lock().entry(key).or_insert_with(|| snap.modified())
    }

    /// The checksum verdict on a segment; computed once, O(payload).
    #[must_use]
    pub fn checksum(&self, snap: &Snap, part: &Part) -> ChecksumState {
        let Some(segment) = part.segment() else { return ChecksumState::Unset };
        if let Some(known) = self.checksums.lock().get(&part.key) {
            return *known;
        }
        let state = segment.verify(snap.view.bytes());
        self.first_seen.lock().entry(part.key).or_insert_with(|| snap.modified());
        self.checksums.lock().insert(part.key, state);
        state
    }

    /// Length and SHA3-256 of a segment's payload; computed once, O(payload).
    #[must_use]
    pub fn content(&self, snap: &Snap, part: &Part) -> Option<Content> {
        let segment = part.segment()?;
        if let Some(known) = self.contents.lock().get(&part.key) {
            return Some(*known);
        }
        let content = Content::of(segment.payload_of(snap.view.bytes()));
        self.contents.lock().insert(part.key, content);
        Some(content)
    }

    /// Whether [`StoreDir::content`] is known, or quick to find out.
    #[must_use]
    pub fn knows_content(&self, snap: &Snap, key: SegmentKey) -> bool {
        let quick = |part: &Part| part.raw.end - part.raw.start <= QUICK_BYTES;
        snap.part(key).is_none_or(quick) || self.contents.lock().contains_key(&key)
    }

    /// Whether header and info of a segment can be shown at once: they were computed before, or are quick to.
    #[must_use]
    pub fn knows(&self, snap: &Snap, key: SegmentKey) -> bool {
        let quick = |part: &Part| part.raw.end - part.raw.start <= QUICK_BYTES;
        snap.part(key).is_none_or(quick)
            || (self.checksums.lock().contains_key(&key) && self.infos.lock().length(snap.no, key).is_some())
    }

    /// `info.json` of a segment, O(payload).
    #[must_use]
    pub fn info(&self, snap: &Snap, part: &Part) -> Arc<[u8]> {
        let kept = self.infos.lock().text(snap.no, part.key);
        if let Some(kept) = kept.filter(|_| self.judges_alike(snap, part)) {
            return kept;
        }
        let at = Instant::now();
        let verdict = programs::is_program(part).then(|| signatures::of_program(self, snap, part));
        let text: Arc<[u8]> = crate::info::render(self, snap, part, verdict.as_deref()).into();
        self.first_seen.lock().entry(part.key).or_insert_with(|| snap.modified());
        let mut infos = self.infos.lock();
        infos.put(snap.no, part.key, &text);
        if let Some(verdict) = verdict {
            // Under the same lock: it is the verdict of the text that is kept, whoever else renders one.
            self.judged.lock().insert(part.key, Judged { state: snap.no, at, verdict });
        }
        drop(infos);
        text
    }

    /// Whether what was last said of a program's signatures still holds: keys come and go. All else that is said of it
    /// follows from the state, and need not be found out again.
    fn judges_alike(&self, snap: &Snap, part: &Part) -> bool {
        if !programs::is_program(part) {
            return true;
        }
        match self.judged.lock().get(&part.key) {
            Some(judged) if judged.state != snap.no => return false,
            Some(judged) if judged.at.elapsed() < signatures::FRESH => return true,
            Some(_) => {}
            None => return false,
        }
        let verdict = signatures::of_program(self, snap, part);
        match self.judged.lock().get_mut(&part.key) {
            Some(judged) if judged.state == snap.no && judged.verdict == verdict => {
                judged.at = Instant::now();
                true
            }
            _ => false,
        }
    }

    /// Bytes of `info.json` of a segment; O(payload) once in each state of the store.
    #[must_use]
    pub fn info_len(&self, snap: &Snap, part: &Part) -> u64 {
        let known = self.infos.lock().length(snap.no, part.key);
        known.filter(|_| self.judges_alike(snap, part)).unwrap_or_else(|| self.info(snap, part).len() as u64)
    }

    /// The file id of the store; zeros when it has none.
    #[must_use]
    pub fn file_id(&self) -> [u8; 16] {
        file_id(&self.snap().view)
    }

    /// Fails when the mount is read-only, or the store frozen: then nothing written would be taken, and opening says so.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], or that of the store.
    pub fn writable(&self) -> Result<(), Error> {
        self.mount_writable()?;
        match self.snap().view.frozen() {
            Some(epoch) => {
                Err(rvf_cow::Error::Frozen { path: self.store.path().to_path_buf(), epoch }.into())
            }
            None => Ok(()),
        }
    }

    /// Fails when the mount is read-only.
    ///
    /// # Errors
    /// [`Error::ReadOnly`].
    pub fn mount_writable(&self) -> Result<(), Error> {
        if self.settings.read_only { Err(Error::ReadOnly) } else { Ok(()) }
    }

    /// Remembers why a write in a directory was refused; the store's own `error` shows the last of all.
    pub fn refuse(&self, place: Place, what: &str, error: &Error) {
        if !error.is_worth_recording() {
            return;
        }
        let sentence = if what.is_empty() { error.to_string() } else { format!("{what}: {error}") };
        tracing::warn!(path = %self.store.path().display(), "refused: {sentence}");
        let now = SystemTime::now();
        let mut refusals = self.refusals.write();
        refusals.insert(Place::Top, (sentence.clone(), now));
        refusals.insert(place, (sentence, now));
    }

    /// Forgets the last refusal of a directory.
    pub fn forgive(&self, place: Place) {
        self.refusals.write().remove(&place);
    }

    /// The text of an `error` file and its time.
    #[must_use]
    pub fn refusal(&self, place: Place) -> (String, SystemTime) {
        match self.refusals.read().get(&place) {
            Some((sentence, time)) => (format!("{sentence}\n"), *time),
            None => (String::new(), self.since),
        }
    }

    /// Registers a long job; it is shown in `status` until the guard is dropped.
    #[must_use]
    pub fn job(self: &Arc<Self>, what: impl Into<String>) -> Job {
        let number = self.next_job.fetch_add(1, Ordering::Relaxed);
        self.jobs.lock().insert(number, JobState { what: what.into(), done: 0, total: 0 });
        Job { dir: self.clone(), number }
    }

    /// Long jobs under way.
    #[must_use]
    pub fn jobs(&self) -> Vec<JobState> {
        self.jobs.lock().values().cloned().collect()
    }
}

/// The file id in a state of a store; zeros when it has none.
pub(crate) fn file_id(view: &View) -> [u8; 16] {
    let manifest = view.opened().manifest.as_ref().map(|located| &located.manifest);
    manifest.and_then(|manifest| manifest.identity.as_ref()).map_or([0; 16], |identity| identity.file_id)
}

/// A long job under way.
#[derive(Debug)]
pub struct Job {
    dir: Arc<StoreDir>,
    number: u64,
}

impl Progress for Job {
    fn step(&self, done: u64, total: u64) -> bool {
        if let Some(job) = self.dir.jobs.lock().get_mut(&self.number) {
            job.done = done;
            job.total = total;
        }
        true
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.dir.jobs.lock().remove(&self.number);
    }
}
