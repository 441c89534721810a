//! The operations of a filesystem on the nodes of the tree.
//!
//! Nothing here knows FUSE. Operations that may take long get a closure for their answer and may call it from a worker
//! thread; the others return.

mod attr;
mod branch;
mod branch_change;
mod branch_copy;
mod change;
mod close;
mod dir;
mod open;
mod read;
mod request;
mod write;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;

use crate::branches::Link;
use crate::branches::registry::Registry;
use crate::branches::table::MAIN;
use crate::errno::Error;
use crate::handle::Handles;
use crate::inode::Inodes;
use crate::node::{Beside, BranchNo, Item, Node, StoreId};
use crate::pool::Pool;
use crate::source::Source;
use crate::store_dir::{Settings, StoreDir};

pub use change::Change;
pub use dir::Entry;
pub use open::{Caching, Open, Opened};

/// What `stat` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: u64,
    /// Exact size in bytes.
    pub size: u64,
    /// Last change of the content.
    pub mtime: SystemTime,
    /// A directory, or a regular file.
    pub is_dir: bool,
    /// A symbolic link.
    pub is_link: bool,
    /// Permission bits.
    pub perm: u16,
    /// How long the kernel may keep the name.
    pub name_ttl: Duration,
    /// How long the kernel may keep these numbers.
    pub attr_ttl: Duration,
    /// Preferred block size for reading and writing.
    pub block_size: u32,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// The thread that made the system call, as the kernel tells it; 0 when unknown.
    pub thread: u32,
    /// The user it acts as. The kernel gives 0 with requests that nobody makes, such as the last close.
    pub user: u32,
}

/// The other side of a mounted tree.
pub trait Kernel: Send + Sync {
    /// Whether further requests wait to be received.
    fn has_waiting(&self) -> bool;
    /// Forget size, times and mode of an inode.
    fn attributes(&self, ino: u64);
    /// Forget a name in a directory. Not to be called from a handler: the kernel may hold the directory's lock then.
    fn name(&self, parent: u64, name: &str);
}

/// A mounted tree.
pub struct Tree {
    /// Inode numbers.
    pub inodes: Inodes,
    /// What is mounted.
    pub source: Source,
    /// The stores of branches that were looked into.
    pub branches: Registry,
    /// Open files.
    pub handles: Handles,
    /// Where long work runs that only reads.
    pub pool: Pool,
    /// Where commits and verbs run. They may all wait for a lock that another program keeps; nobody else waits with them.
    pub commits: Pool,
    /// Where single queries run while others wait, so that a batch or a commit never holds them up.
    pub queries: Pool,
    /// What holds for the whole mount.
    pub settings: Arc<Settings>,
    kernel: OnceLock<Box<dyn Kernel>>,
    /// What was refused last in the mounted directory itself.
    refused: RwLock<(String, SystemTime)>,
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tree").field("source", &self.source).finish_non_exhaustive()
    }
}

/// Threads for single queries: some more than processors, for a page of the file may have to come from the disk.
const QUERIES_PER_PROCESSOR: usize = 8;
/// Worker threads at most: some wait for disks, not for processors.
const WORKERS: usize = 64;
/// Threads for commits: those of one store go one after another anyway.
const COMMITTERS: usize = 16;
/// Vectors whose attributes are invalidated one by one when a store changes; beyond that they expire by themselves.
const MAX_INVALIDATED: usize = 1024;

impl Tree {
    /// The tree over a source.
    #[must_use]
    pub fn new(source: Source, settings: Arc<Settings>) -> Arc<Self> {
        let root = match &source {
            Source::File(dir) => Node::In(dir.id, Item::Top),
            Source::Directory(_) => Node::Root,
        };
        let tree = Arc::new(Self {
            inodes: Inodes::new(root),
            source,
            branches: Registry::new(settings.clone()),
            handles: Handles::default(),
            pool: Pool::new(WORKERS),
            commits: Pool::new(COMMITTERS),
            queries: Pool::new(QUERIES_PER_PROCESSOR * settings.threads),
            settings,
            kernel: OnceLock::new(),
            refused: RwLock::new((String::new(), SystemTime::now())),
        });
        let weak = Arc::downgrade(&tree);
        let listen = move |dir: &Arc<StoreDir>| {
            let weak = weak.clone();
            dir.listen(Box::new(move |id| {
                if let Some(tree) = weak.upgrade() {
                    tree.store_changed(id);
                }
            }));
        };
        match &tree.source {
            Source::File(dir) => listen(dir),
            Source::Directory(directory) => directory.on_open(Box::new(listen.clone())),
        }
        tree.branches.on_open(Box::new(listen));
        tree
    }

    /// The text and time of a file in the mounted directory itself.
    pub(crate) fn beside(&self, file: Beside) -> Result<(String, SystemTime), Error> {
        let Source::Directory(directory) = &self.source else { return Err(Error::Stale) };
        Ok(match file {
            Beside::Readme => (crate::readme::of_directory(directory, &self.settings), directory.changed()),
            Beside::Error => self.refused.read().clone(),
        })
    }

    /// Refuses something in the mounted directory itself; its `error` says why.
    pub(crate) fn refuse(&self, name: &str, error: Error) -> Error {
        let sentence = format!("{name}: {error}");
        tracing::warn!("refused: {sentence}");
        *self.refused.write() = (format!("{sentence}\n"), SystemTime::now());
        error
    }

    /// Sets the way to the kernel's caches; once.
    pub fn connect(&self, kernel: Box<dyn Kernel>) {
        if self.kernel.set(kernel).is_err() {
            tracing::error!("a tree is connected to one kernel only");
        }
    }

    pub(crate) fn kernel(&self) -> Option<&dyn Kernel> {
        self.kernel.get().map(AsRef::as_ref)
    }

    /// Whether others wait while this thread works. A single client is answered fastest by the thread that received its
    /// request; with several, work goes to other threads so that every processor has some.
    pub(crate) fn is_pressed(&self) -> bool {
        // With one processor there is nothing to spread, and a change of threads costs as much as a short answer.
        self.settings.threads > 1 && self.kernel().is_some_and(Kernel::has_waiting)
    }

    /// The store a node belongs to.
    pub(crate) fn store(&self, id: StoreId) -> Result<Arc<StoreDir>, Error> {
        if Registry::owns(id) { self.branches.store(id) } else { self.source.store(id) }
    }

    /// Stores that are open now.
    #[must_use]
    pub fn open_stores(&self) -> Vec<Arc<StoreDir>> {
        let mut stores = self.source.open_stores();
        stores.extend(self.branches.open_stores());
        stores
    }

    pub(crate) fn node(&self, ino: u64) -> Result<Node, Error> {
        self.inodes.node(ino).ok_or(Error::Stale)
    }

    /// A store has a new state: what the kernel may have cached about it is out of date.
    fn store_changed(&self, id: StoreId) {
        let Some(kernel) = self.kernel() else { return };
        // In `branches/` of the store it was found from, a branch has a mode and a time of its own.
        let shown = self.branches.place_of(id).and_then(|(owner, path)| {
            let dir = self.store(owner).ok()?;
            Some(Node::In(owner, Item::Branch(dir.branches.number_at(&path)?)))
        });
        let held = self.inodes.held(|node| match node {
            node if Some(node) == shown => true,
            Node::In(at, item) => {
                at == id
                    && matches!(
                        item,
                        Item::Top
                            | Item::Vectors
                            | Item::Metadata
                            | Item::Segments
                            | Item::Witness
                            | Item::Models
                            | Item::Signatures
                            | Item::Branch(MAIN)
                            | Item::Vector(_)
                    )
            }
            Node::Root | Node::Beside(_) => false,
        });
        let vectors = held.len();
        for ino in held {
            let few = vectors <= MAX_INVALIDATED;
            if few || !matches!(self.inodes.node(ino), Some(Node::In(_, Item::Vector(_)))) {
                kernel.attributes(ino);
            }
        }
    }

    /// Links of a branch lead elsewhere than they did: those of the renamed one itself, and those to it.
    fn links_changed(&self, id: StoreId, no: BranchNo) {
        let Some(kernel) = self.kernel() else { return };
        let held = self.inodes.held(
            |node| matches!(node, Node::In(at, Item::Link(of, link)) if at == id && (of == no || link == Link::Parent)),
        );
        held.into_iter().for_each(|ino| kernel.attributes(ino));
    }

    /// Stores came or went in the mounted directory.
    pub fn directory_changed(&self, names: &[String]) {
        let Some(kernel) = self.kernel() else { return };
        for name in names {
            kernel.name(crate::inode::ROOT_INO, name);
        }
        kernel.attributes(crate::inode::ROOT_INO);
    }

    /// Forgets lookups.
    pub fn forget(&self, ino: u64, lookups: u64) {
        self.inodes.forget(ino, lookups);
    }
}
