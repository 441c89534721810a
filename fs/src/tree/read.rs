//! Reading, and waiting until there is something to read.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Tree;
use crate::ctl;
use crate::errno::Error;
use crate::handle::{Body, Handle};
use crate::node::{Item, Node, QueryFile};
use crate::store_dir::StoreDir;

thread_local! {
    /// What a read gathers before it is answered; kept, so that reading allocates nothing.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A read of this size is worth another thread when others wait.
const LARGE_READ: usize = 128 << 10;

impl Tree {
    /// Reads. The answer may come from another thread, and later.
    pub fn read(
        self: &Arc<Self>,
        fh: u64,
        offset: u64,
        size: usize,
        answer: impl FnOnce(Result<&[u8], Error>) + Send + 'static,
    ) {
        let handle = match self.handles.get(fh) {
            Ok(handle) => handle,
            Err(error) => return answer(Err(error)),
        };
        if !handle.read {
            return answer(Err(Error::BadHandle));
        }
        let copies = matches!(handle.body, Body::Range(..) | Body::Rows(..) | Body::Ids(..) | Body::Jsonl(_));
        if copies && size >= LARGE_READ && self.is_pressed() {
            let tree = self.clone();
            return self.pool.run(move || tree.read_handle(handle, offset, size, answer));
        }
        self.read_handle(handle, offset, size, answer);
    }

    fn read_handle(
        self: &Arc<Self>,
        handle: Arc<Handle>,
        offset: u64,
        size: usize,
        answer: impl FnOnce(Result<&[u8], Error>) + Send + 'static,
    ) {
        match &handle.body {
            Body::Text(text) => answer(Ok(piece(text, offset, size))),
            // Straight from the mapped file: if it shrank meanwhile, the kernel gives the reader EIO.
            Body::Range(snap, range) => match snap.view.check_intact() {
                Ok(()) => answer(Ok(snap.slice(&sub_range(range, offset, size)))),
                Err(error) => answer(Err(error.into())),
            },
            Body::Rows(snap, header) => gathered(answer, |out| {
                with_header(header, offset, size, out, |offset, size, out| snap.read_rows(offset, size, out));
                Ok(snap.view.check_chain()?)
            }),
            Body::Ids(snap, header) => gathered(answer, |out| {
                with_header(header, offset, size, out, |offset, size, out| snap.read_ids(offset, size, out));
                Ok(snap.view.check_chain()?)
            }),
            Body::Jsonl(snap) => gathered(answer, |out| {
                snap.read_jsonl(offset, size, out);
                Ok(())
            }),
            Body::Events => match &handle.dir {
                Some(dir) => {
                    handle.seen.store(dir.events.seq(), Ordering::Release);
                    gathered(answer, |out| {
                        dir.events.read(offset, size, out);
                        Ok(())
                    });
                }
                None => answer(Err(Error::BadHandle)),
            },
            Body::Request(..) => self.read_results(handle, offset, size, answer),
            Body::Setting(session, setting, _) => {
                let text = session.defaults().0.show(*setting);
                answer(Ok(piece(text.as_bytes(), offset, size)));
            }
            Body::Ctl(_) => answer(Ok(piece(ctl::HELP.as_bytes(), offset, size))),
            Body::Draft(draft) => gathered(answer, |out| draft.read(offset, size, out)),
            // What is copied is compared, not kept.
            Body::Part(_) => answer(Err(Error::BadHandle)),
            Body::List(_) => answer(Err(Error::IsDirectory)),
        }
    }

    /// Whether what a poller waits for has happened since the handle was opened or last read. If not, `waker` is called
    /// when it does. Only `events` and the results of a session are ever waited for.
    ///
    /// # Errors
    /// [`Error::BadHandle`].
    pub fn poll(&self, fh: u64, waker: Option<Box<dyn FnOnce() + Send>>) -> Result<bool, Error> {
        let handle = self.handles.get(fh)?;
        let Some(dir) = &handle.dir else { return Ok(true) };
        let session;
        let bell = match handle.node {
            Node::In(_, Item::Events) => &dir.events.bell,
            Node::In(
                _,
                Item::QueryFile(
                    id,
                    QueryFile::Out | QueryFile::OutJson | QueryFile::OutIds | QueryFile::OutDistances,
                ),
            ) => {
                session = dir.sessions.get(id).ok_or(Error::Stale)?;
                &session.bell
            }
            _ => return Ok(true),
        };
        let happened = || progress_of(dir, handle.node) > handle.seen.load(Ordering::Acquire);
        if happened() {
            return Ok(true);
        }
        if let Some(waker) = waker {
            bell.wait(waker);
        }
        // It may have happened between looking and waiting.
        Ok(happened())
    }
}

/// What pollers compare: events written, or requests finished.
pub(super) fn progress_of(dir: &StoreDir, node: Node) -> u64 {
    match node {
        Node::In(_, Item::Events) => dir.events.seq(),
        Node::In(_, Item::QueryFile(id, _)) => dir.sessions.get(id).map_or(0, |session| session.finished()),
        _ => 0,
    }
}

fn piece(text: &[u8], offset: u64, size: usize) -> &[u8] {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
    &text[start..start.saturating_add(size).min(text.len())]
}

fn sub_range(range: &Range<u64>, offset: u64, size: usize) -> Range<u64> {
    let start = range.start.saturating_add(offset).min(range.end);
    start..start.saturating_add(size as u64).min(range.end)
}

fn gathered(answer: impl FnOnce(Result<&[u8], Error>), fill: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>) {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        match fill(scratch) {
            Ok(()) => answer(Ok(scratch)),
            Err(error) => answer(Err(error)),
        }
    });
}

fn with_header(
    header: &[u8],
    offset: u64,
    size: usize,
    out: &mut Vec<u8>,
    body: impl FnOnce(u64, usize, &mut Vec<u8>),
) {
    out.extend_from_slice(piece(header, offset, size));
    let left = size - out.len();
    if left > 0 {
        let at = offset.saturating_add(out.len() as u64).saturating_sub(header.len() as u64);
        body(at, left, out);
    }
}
