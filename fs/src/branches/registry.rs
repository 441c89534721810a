//! The stores of branches that were looked into. A branch has a full store directory, `.stores/NAME`, in the store it was
//! found from; the same file seen from two stores is two directories.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::RwLock;

use crate::errno::Error;
use crate::node::StoreId;
use crate::source::{Opened, Slot};
use crate::store_dir::{Settings, StoreDir};

/// Numbers from here on are branches'.
const FIRST: u32 = 1 << 31;

/// Opens stores of branches when they are first looked at, and keeps them open.
pub struct Registry {
    settings: Arc<Settings>,
    slots: RwLock<Slots>,
    next: AtomicU32,
    opened: RwLock<Option<Opened>>,
}

#[derive(Debug, Default)]
struct Slots {
    by_path: HashMap<(StoreId, PathBuf), Arc<Slot>>,
    by_id: BTreeMap<StoreId, Arc<Slot>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Registry {
    /// An empty one.
    #[must_use]
    pub fn new(settings: Arc<Settings>) -> Self {
        Self { settings, slots: RwLock::default(), next: AtomicU32::new(FIRST), opened: RwLock::new(None) }
    }

    /// Sets who is told about stores being opened.
    pub fn on_open(&self, opened: Opened) {
        *self.opened.write() = Some(opened);
    }

    /// Whether a number is a branch's.
    #[must_use]
    pub fn owns(id: StoreId) -> bool {
        id.0 >= FIRST
    }

    /// The number of the store in `path`, a branch of `owner`. Opens nothing.
    #[must_use]
    pub fn id_of(&self, owner: &StoreDir, name: &str, path: &Path) -> StoreId {
        let key = (owner.id, path.to_path_buf());
        if let Some(slot) = self.slots.read().by_path.get(&key) {
            return slot.id();
        }
        let mut slots = self.slots.write();
        if let Some(slot) = slots.by_path.get(&key) {
            return slot.id();
        }
        let id = StoreId(self.next.fetch_add(1, Ordering::Relaxed));
        let shown = owner.shown_as.join(".stores").join(name);
        let slot = Arc::new(Slot::new(id, shown.to_string_lossy().into_owned(), path.to_path_buf()));
        slots.by_path.insert(key, slot.clone());
        slots.by_id.insert(id, slot);
        id
    }

    /// The store of that number.
    ///
    /// # Errors
    /// [`Error::NotFound`] when its branch is gone; why it cannot be opened otherwise.
    pub fn store(&self, id: StoreId) -> Result<Arc<StoreDir>, Error> {
        let slot = self.slots.read().by_id.get(&id).cloned().ok_or(Error::NotFound)?;
        slot.open(&self.settings, &self.opened)
    }

    /// Whether the number still belongs to a branch.
    #[must_use]
    pub fn has(&self, id: StoreId) -> bool {
        self.slots.read().by_id.contains_key(&id)
    }

    /// The store that a branch's store was found from, and its file.
    #[must_use]
    pub fn place_of(&self, id: StoreId) -> Option<(StoreId, PathBuf)> {
        let slots = self.slots.read();
        slots.by_path.iter().find(|(_, slot)| slot.id() == id).map(|(place, _)| place.clone())
    }

    /// The store in `path`, a branch of `owner`, if it is open and nobody is at work opening it.
    #[must_use]
    pub fn opened(&self, owner: StoreId, path: &Path) -> Option<Arc<StoreDir>> {
        let slot = self.slots.read().by_path.get(&(owner, path.to_path_buf())).cloned()?;
        slot.get_now()
    }

    /// A branch of `owner` was removed or renamed.
    pub fn forget(&self, owner: StoreId, path: &Path) {
        let mut slots = self.slots.write();
        let mut gone = vec![(owner, path.to_path_buf())];
        while let Some(slot) = gone.pop().and_then(|place| slots.by_path.remove(&place)) {
            slots.by_id.remove(&slot.id());
            // What was found from it can be reached no more.
            gone.extend(slots.by_path.keys().filter(|(owner, _)| *owner == slot.id()).cloned());
        }
    }

    /// Other programs removed files: closes the stores of those that are `gone`.
    pub fn forget_gone(&self, gone: impl Fn(&Path) -> bool) {
        let places: Vec<(StoreId, PathBuf)> = self.slots.read().by_path.keys().cloned().collect();
        for (owner, path) in places.into_iter().filter(|(_, path)| gone(path)) {
            self.forget(owner, &path);
        }
    }

    /// Stores that are open now.
    #[must_use]
    pub fn open_stores(&self) -> Vec<Arc<StoreDir>> {
        let slots: Vec<_> = self.slots.read().by_id.values().cloned().collect();
        slots.iter().filter_map(|slot| slot.get()).collect()
    }
}
