//! Open files and directories. A handle keeps the state it was opened with, or what is being written through it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, RwLock};

use crate::branches::part::Part;
use crate::data::request::{self, Completeness};
use crate::drafts::Draft;
use crate::errno::Error;
use crate::node::{Node, Setting};
use crate::session::{Outcome, Session, Work};
use crate::snapshot::Snap;
use crate::store_dir::StoreDir;

/// What a handle gives when it is read.
#[derive(Debug)]
pub enum Body {
    /// A text rendered when the file was opened.
    Text(Arc<[u8]>),
    /// A range of the mapped file.
    Range(Arc<Snap>, Range<u64>),
    /// A NumPy array: its header, then rows gathered as they are read.
    Rows(Arc<Snap>, Vec<u8>),
    /// The same for ids.
    Ids(Arc<Snap>, Vec<u8>),
    /// `metadata.jsonl`.
    Jsonl(Arc<Snap>),
    /// `events`, which goes on growing.
    Events,
    /// `query/in`.
    Request(Arc<Session>, Mutex<Exchange>, Condvar),
    /// A default of a session, being written.
    Setting(Arc<Session>, Setting, Mutex<Pending>),
    /// `ctl`.
    Ctl(Mutex<Vec<u8>>),
    /// A file being dropped, or its receipt.
    Draft(Arc<Draft>),
    /// A file being copied into a branch to be.
    Part(Arc<Part>),
    /// A listing.
    List(Listing),
}

/// A listing as it was when the directory was opened.
#[derive(Debug)]
pub struct Listing {
    /// Names that were collected.
    pub fixed: Vec<(String, Node)>,
    /// After them, one name a live vector.
    pub vectors: Option<Arc<Snap>>,
    /// Or one name a metadata record.
    pub records: Option<Arc<Snap>>,
}

/// An open file or directory.
#[derive(Debug)]
pub struct Handle {
    /// The node it was opened on.
    pub node: Node,
    /// The node's inode number.
    pub ino: u64,
    /// The store it belongs to.
    pub dir: Option<Arc<StoreDir>>,
    /// Whether it may be read.
    pub read: bool,
    /// Whether it may be written.
    pub write: bool,
    /// The thread that opened it.
    pub opener: u32,
    /// The user who opened it, whose rights count for what is written through it: the kernel may close it in nobody's name, and
    /// a program with more rights may be made to write into a descriptor that it was given.
    pub user: u32,
    /// What it gives or takes.
    pub body: Body,
    /// What pollers saw last: a count of events or results.
    pub seen: AtomicU64,
    /// Something was written through it.
    pub used: AtomicBool,
    /// Processes that wrote through it, and the thread that did last.
    pub writers: Mutex<Writers>,
}

/// Who wrote through a handle.
#[derive(Debug, Default)]
pub struct Writers {
    last: u32,
    processes: Vec<u32>,
}

/// Most processes remembered; a group of commands has a few.
const MAX_WRITERS: usize = 64;

impl Writers {
    /// This thread writes.
    pub fn note(&mut self, thread: u32) {
        if thread == self.last || thread == 0 {
            return;
        }
        self.last = thread;
        let process = crate::sys::process_of(thread).unwrap_or(thread);
        if !self.processes.contains(&process) && self.processes.len() < MAX_WRITERS {
            self.processes.push(process);
        }
    }

    /// The processes that have written, as far as they are remembered.
    #[must_use]
    pub fn processes(&self) -> &[u32] {
        &self.processes
    }

    /// Whether this thread's process has written.
    #[must_use]
    pub fn has(&self, thread: u32) -> bool {
        thread == self.last
            || crate::sys::process_of(thread).is_some_and(|process| self.processes.contains(&process))
    }
}

/// A small value being written.
#[derive(Debug, Default)]
pub struct Pending {
    /// Written so far.
    pub bytes: Vec<u8>,
    /// How much of it has been applied.
    pub applied: usize,
    /// The file was truncated when opened.
    pub truncated: bool,
}

/// A request being written, and the results of the last one.
#[derive(Debug, Default)]
pub struct Exchange {
    /// The descriptor is open for reading too: results are its own.
    pub transaction: bool,
    /// What is written through this descriptor passes the page cache: the kernel knows the file's privileges after it.
    pub through_cache: bool,
    request: Vec<u8>,
    /// Offset of the first byte of `request`.
    base: u64,
    writes: u32,
    /// Bytes of the request that have been run.
    ran: usize,
    /// The results were read, so the next write starts over.
    was_read: bool,
    /// The offset at which the results begin for this reader. See [`Exchange::read`].
    origin: u64,
    /// A worker runs the request now; the condition of [`Body::Request`] tells when it is done.
    pub running: bool,
    out: Vec<u8>,
}

/// Largest piece in which the kernel hands over what is written; a piece that large is probably not the last.
pub const MAX_WRITE: usize = 1 << 20;

/// What a write to `in` led to.
#[derive(Debug)]
pub enum Step {
    /// More has to come.
    More,
    /// This is to be run.
    Run(Box<Work>),
}

impl Exchange {
    /// For a new handle.
    #[must_use]
    pub fn new(transaction: bool) -> Self {
        Self { transaction, ..Self::default() }
    }

    /// Takes what was written. A request that is whole is given back to be run, unless more of it is likely to follow.
    ///
    /// # Errors
    /// What is wrong with the request; the handle starts over then.
    pub fn write(
        &mut self,
        offset: u64,
        data: &[u8],
        snap: &Arc<Snap>,
        session: &Session,
    ) -> Result<Step, Error> {
        let fresh = self.request.is_empty() || self.was_read || (self.transaction && offset == 0);
        if fresh {
            self.start_over();
            self.base = offset;
        }
        if offset != self.base.saturating_add(self.request.len() as u64) {
            self.start_over();
            return Err(Error::invalid("a request is written from its first byte on, without gaps"));
        }
        if self.request.len().saturating_add(data.len()) > request::MAX_REQUEST {
            self.start_over();
            return Err(Error::TooLarge {
                what: format!(
                    "a request has at most {} bytes; send the queries in several requests",
                    request::MAX_REQUEST
                ),
            });
        }
        self.request.extend_from_slice(data);
        self.writes = self.writes.saturating_add(1);
        let result = match request::completeness(&self.request, snap.view.dimension()) {
            Completeness::Wrong(error) => Err(error.into()),
            Completeness::Incomplete => Ok(Step::More),
            Completeness::Complete if data.len() >= MAX_WRITE || (!self.transaction && self.writes > 1) => {
                Ok(Step::More)
            }
            Completeness::Complete => self.prepare(snap, session),
        };
        if result.is_err() {
            self.start_over();
        }
        result
    }

    /// What is left to run at close, or before results are read.
    ///
    /// # Errors
    /// What is wrong with the request; the handle starts over then.
    pub fn finish(&mut self, snap: &Arc<Snap>, session: &Session) -> Result<Step, Error> {
        if !self.unfinished() {
            return Ok(Step::More);
        }
        let result = self.prepare(snap, session);
        if result.is_err() {
            self.start_over();
        }
        result
    }

    /// Whether something was written that has not run.
    #[must_use]
    pub fn unfinished(&self) -> bool {
        self.ran < self.request.len()
    }

    fn prepare(&mut self, snap: &Arc<Snap>, session: &Session) -> Result<Step, Error> {
        let work = Work::prepare(snap.clone(), &self.request, session.defaults().0)?;
        self.ran = self.request.len();
        Ok(Step::Run(Box::new(work)))
    }

    fn start_over(&mut self) {
        self.request.clear();
        if self.request.capacity() > 4 * MAX_WRITE {
            self.request = Vec::new();
        }
        self.writes = 0;
        self.ran = 0;
        self.was_read = false;
        self.origin = 0;
        self.out.clear();
    }

    /// Keeps the results for whoever reads this handle.
    pub fn finished(&mut self, outcome: &Outcome) {
        self.out.clear();
        outcome.write_text(&mut self.out);
    }

    /// The request failed: the handle starts over.
    pub fn failed(&mut self) {
        self.start_over();
    }

    /// The results from `offset` on. A program that reads on where its request ended, without seeking, means the first
    /// byte of the results too: results begin there for it until its next request.
    pub fn read(&mut self, offset: u64, size: usize) -> &[u8] {
        if !self.was_read && offset == self.base.saturating_add(self.request.len() as u64) {
            self.origin = offset;
        }
        self.was_read = true;
        let at = offset.checked_sub(self.origin).unwrap_or(offset);
        let start = usize::try_from(at).unwrap_or(usize::MAX).min(self.out.len());
        &self.out[start..start.saturating_add(size).min(self.out.len())]
    }
}

/// All open handles.
#[derive(Debug, Default)]
pub struct Handles {
    table: RwLock<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Option<Arc<Handle>>>,
    free: Vec<usize>,
}

impl Handles {
    /// Adds one; gives its number.
    pub fn add(&self, handle: Handle) -> u64 {
        let handle = Some(Arc::new(handle));
        let mut table = self.table.write();
        let at = match table.free.pop() {
            Some(at) => {
                table.slots[at] = handle;
                at
            }
            None => {
                table.slots.push(handle);
                table.slots.len() - 1
            }
        };
        at as u64 + 1
    }

    /// The handle of that number.
    ///
    /// # Errors
    /// [`Error::BadHandle`].
    pub fn get(&self, number: u64) -> Result<Arc<Handle>, Error> {
        let at = usize::try_from(number.wrapping_sub(1)).map_err(|_| Error::BadHandle)?;
        self.table.read().slots.get(at).and_then(Clone::clone).ok_or(Error::BadHandle)
    }

    /// One that fits. O(open handles).
    pub fn find(&self, fits: impl Fn(&Handle) -> bool) -> Option<Arc<Handle>> {
        self.table.read().slots.iter().flatten().find(|handle| fits(handle)).cloned()
    }

    /// Takes one away.
    pub fn remove(&self, number: u64) -> Option<Arc<Handle>> {
        let at = usize::try_from(number.wrapping_sub(1)).ok()?;
        let mut table = self.table.write();
        let handle = table.slots.get_mut(at)?.take();
        if handle.is_some() {
            table.free.push(at);
        }
        handle
    }

    /// How many are open.
    #[must_use]
    pub fn len(&self) -> usize {
        let table = self.table.read();
        table.slots.len() - table.free.len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Handle {
    /// Marks that something was written through it; `true` the first time.
    pub fn mark_used(&self) -> bool {
        !self.used.swap(true, Ordering::AcqRel)
    }
}
