//! One open store: publishes views, notices other writers, and is the only way to change the file.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use rvf_format::contents::VecBlock;
use rvf_index::{Image, ScratchPool};

use crate::accesses::Accesses;
use crate::error::Error;
use crate::load::{BlockKey, Context, is_sound, key_of, listed_indexes, load, remember, segment_is_sound};
use crate::loading::Loaded;
use crate::meta_cache::MetaCache;
use crate::reach::resolve;
use crate::reindex::BuiltIndex;
use crate::shared;
use crate::source::{Device, Given, stamp};
use crate::types::{Access, Event, OpenOptions};
use crate::unchanged::changed_at;
use crate::view::View;

/// Nanoseconds between two ticks of the clock that files' times are taken from, at the most.
const COARSE_NS: i64 = 50_000_000;
/// How long a missing ancestor is not looked for where it should not be.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

type Listener = Box<dyn Fn(&Event) + Send + Sync>;

/// An open `.rvf` file.
///
/// Readers take a [`View`] and keep it as long as they like; writers are serialised here within the
/// process, and by locks on the file between processes. No lock is held between commits.
pub struct Store {
    path: PathBuf,
    options: OpenOptions,
    /// Nobody else writes to the file: it is being made, and has its maker's lock.
    pub(crate) private: bool,
    /// The files of a store whose files are not found by their paths, oldest last. Nobody changes them.
    given: Vec<Given>,
    current: ArcSwap<View>,
    /// The file's time of change when the path was last seen to name it.
    named: AtomicI64,
    /// When a missing ancestor was last looked for everywhere.
    looked: Mutex<Option<Instant>>,
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
        Self::open_as(&resolve(path)?, options, false, Vec::new())
    }

    /// Opens a file that this process is making and nobody else writes to: no lock is taken for its commits.
    pub(crate) fn open_private(path: &Path, options: &OpenOptions) -> Result<Arc<Self>, Error> {
        Self::open_as(path, options, true, Vec::new())
    }

    /// Opens a store that lies on a block device, for reading. The first of `devices` is the store's; a copy-on-write child is
    /// followed by its ancestors, nearest first. Each ancestor has to be what one found by its path has to be: one that is not
    /// counts as missing, as [`View::complete`] tells.
    ///
    /// # Errors
    /// As [`Store::open`]; [`Error::Invalid`] when there is none or one is no block device, [`Error::Io`] when the first is
    /// shorter than its file.
    pub fn open_devices(devices: &[Device], options: &OpenOptions) -> Result<Arc<Self>, Error> {
        Self::open_given(devices.iter().map(Device::open).collect::<Result<_, _>>()?, options)
    }

    pub(crate) fn open_given(given: Vec<Given>, options: &OpenOptions) -> Result<Arc<Self>, Error> {
        let first = given.first().ok_or_else(|| Error::Invalid { what: "no device is given".into() })?;
        let path = first.path.clone();
        Self::open_as(&path, &OpenOptions { access: Access::ReadOnly, ..*options }, false, given)
    }

    fn open_as(
        path: &Path,
        options: &OpenOptions,
        private: bool,
        given: Vec<Given>,
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
            given: &given,
        };
        let view = Arc::new(load(path, options, &context, None)?);
        if given.is_empty() {
            shared::remember(&view, options);
        }
        Ok(Arc::new(Self {
            path: path.to_path_buf(),
            options: *options,
            private,
            given,
            current: ArcSwap::new(view),
            named: AtomicI64::new(i64::MIN),
            looked: Mutex::new(None),
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

    /// The path as given to [`Store::open`], or that of the file itself where that was a symlink.
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

    /// Whether another program has changed or replaced the file since the newest view and is done with it: one fstat. The
    /// file's lock tells one that is still writing; its commit is seen when it is there.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        if !self.given.is_empty() {
            return false;
        }
        let view = self.view();
        let Ok(meta) = view.file.metadata() else { return false };
        let same = meta.len() == view.stamp.len
            && meta.nlink() > 0
            && meta.modified().is_ok_and(|time| time == view.stamp.mtime)
            && self.is_named(&view, &meta);
        if same {
            return self.chain_changed(&view);
        }
        !self.commit.is_locked() && !rvf_format::lock::is_held(&self.path)
    }

    /// Whether the path still names the view's file. A compaction that keeps the old state for branches leaves its length, its
    /// time of writing and the number of its names as they were; that names came and went shows in its time of change. One
    /// stat after such a change.
    fn is_named(&self, view: &View, meta: &Metadata) -> bool {
        let changed = changed_at(meta);
        if self.named.load(Ordering::Relaxed) == changed {
            return true;
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let named = crate::reach::reach(&self.path)
            .is_ok_and(|there| (there.meta.dev(), there.meta.ino()) == (view.stamp.dev, view.stamp.ino));
        // Another change within the same tick of the clock would not show.
        if named && i64::try_from(now.as_nanos()).is_ok_and(|now| now.saturating_sub(changed) > COARSE_NS) {
            self.named.store(changed, Ordering::Relaxed);
        }
        named
    }

    /// Whether the ancestors of a branch have to be looked for anew: one that was read is not any more what it was, or one
    /// that was missing is there now. One fstat an ancestor; where one is missing, an attempt to open it, and once in a while a
    /// look at where else it may be.
    fn chain_changed(&self, view: &View) -> bool {
        match view.layers() {
            Ok(layers) => layers.iter().any(|layer| layer.view.check_ancestor().is_err()),
            Err(_) if !crate::load::is_missing_there(view) && !self.may_look() => false,
            Err(_) => {
                let checked = Mutex::new(HashMap::new());
                let context = self.context(&checked, view.generation, None);
                load(&self.path, &self.options, &context, None).is_ok_and(|view| view.complete().is_ok())
            }
        }
    }

    fn may_look(&self) -> bool {
        let mut looked = self.looked.lock();
        let may = looked.is_none_or(|last| last.elapsed() > LOOK_AGAIN);
        if may {
            *looked = Some(Instant::now());
        }
        may
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

    fn context<'a>(
        &'a self,
        checked: &'a Mutex<HashMap<BlockKey, bool>>,
        generation: u64,
        transient: Option<&'a Arc<Image>>,
    ) -> Context<'a> {
        let Self { scratch, loaded, accesses, given, .. } = self;
        Context { scratch, loaded, accesses, checked, generation, transient, given }
    }

    /// Reads the file and publishes what it holds now.
    pub(crate) fn publish(&self) -> Result<Arc<View>, Error> {
        let guard = self.loading.lock();
        let generation = self.generation.load(Ordering::Relaxed) + 1;
        let transient = self.transient.lock().as_ref().map(|built| Arc::clone(&built.image));
        let context = self.context(&self.checked, generation, transient.as_ref());
        let view = Arc::new(load(&self.path, &self.options, &context, Some(&self.view()))?);
        if self.given.is_empty() {
            shared::remember(&view, &self.options);
        }
        // One that fits no more, or less than what the file has, is not worth its memory. Another may have come meanwhile.
        if let Some(given) = &transient
            && !view.image_in_memory
        {
            self.transient.lock().take_if(|built| Arc::ptr_eq(&built.image, given));
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
