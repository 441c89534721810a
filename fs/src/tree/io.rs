//! Reading, writing and closing.

use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Condvar, Mutex};

use super::{Caller, Tree};
use crate::ctl;
use crate::drafts::{Draft, Moment};
use crate::errno::Error;
use crate::handle::{Body, Exchange, Handle, Step};
use crate::node::{Item, Node, QueryFile};
use crate::session::{Outcome, Session, Work};
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

    /// Results of the handle's own request. What was written without an end is taken as whole now.
    fn read_results(
        self: &Arc<Self>,
        handle: Arc<Handle>,
        offset: u64,
        size: usize,
        answer: impl FnOnce(Result<&[u8], Error>) + Send + 'static,
    ) {
        let shared = handle.clone();
        let Body::Request(_, exchange, _) = &shared.body else { return answer(Err(Error::BadHandle)) };
        let mut exchange = exchange.lock();
        if !exchange.running && !exchange.unfinished() {
            return answer(Ok(exchange.read(offset, size)));
        }
        drop(exchange);
        let threads = self.settings.threads;
        self.pool.run(move || {
            let Body::Request(session, exchange, done) = &handle.body else {
                return answer(Err(Error::BadHandle));
            };
            let Some(dir) = &handle.dir else { return answer(Err(Error::BadHandle)) };
            let step = {
                let mut exchange = exchange.lock();
                while exchange.running {
                    done.wait(&mut exchange);
                }
                let step = exchange.finish(&dir.snap(), session);
                exchange.running = matches!(step, Ok(Step::Run(_)));
                step
            };
            // Not under the lock: requests of other threads on this descriptor are told that one is running.
            let result = match step {
                Ok(Step::Run(work)) => {
                    let ended = Ended { exchange, done };
                    let result = work.run(threads);
                    let result = result.map(|outcome| exchange.lock().finished(&outcome));
                    drop(ended);
                    result
                }
                Ok(Step::More) => Ok(()),
                Err(error) => Err(error),
            };
            let mut exchange = exchange.lock();
            match result {
                Ok(()) => answer(Ok(exchange.read(offset, size))),
                Err(error) => {
                    report(session, &exchange, &error);
                    exchange.failed();
                    drop(exchange);
                    answer(Err(error));
                }
            }
        });
    }

    /// Writes. The answer may come from another thread, and later.
    pub fn write(
        self: &Arc<Self>,
        fh: u64,
        offset: u64,
        data: &[u8],
        caller: Caller,
        answer: impl FnOnce(Result<usize, Error>) + Send + 'static,
    ) {
        let handle = match self.handles.get(fh) {
            Ok(handle) => handle,
            Err(error) => return answer(Err(error)),
        };
        if !handle.write {
            return answer(Err(Error::BadHandle));
        }
        let Some(dir) = handle.dir.clone() else { return answer(Err(Error::BadHandle)) };
        let len = data.len();
        let first = handle.mark_used();
        handle.writers.lock().note(caller.thread);
        match &handle.body {
            // What another program has committed before this request began is in its answer. A kept descriptor learns of it
            // from the watch.
            Body::Request(..) if first && dir.store.is_behind() => {
                let (tree, data) = (self.clone(), data.to_vec());
                self.pool.run(move || {
                    if let Err(error) = dir.store.refresh() {
                        tracing::debug!(%error, "the file cannot be looked at; what was read of it stays");
                    }
                    tree.ask(&handle, offset, &data, answer);
                });
            }
            Body::Request(..) => self.ask(&handle, offset, data, answer),
            Body::Setting(session, setting, pending) => {
                let mut pending = pending.lock();
                let result = if offset.saturating_add(len as u64) > 64 * 1024 {
                    Err(Error::TooLarge { what: "a default has at most 65536 bytes".into() })
                } else {
                    put(&mut pending.bytes, offset, data);
                    if pending.bytes.ends_with(b"\n") {
                        pending.applied = pending.bytes.len();
                        session.set(*setting, &pending.bytes)
                    } else {
                        Ok(())
                    }
                };
                answer(result.map(|()| len));
            }
            Body::Ctl(pending) => {
                let mut pending = pending.lock();
                if pending.len() + len > ctl::MAX_LINE {
                    pending.clear();
                    let error =
                        Error::TooLarge { what: format!("a line has at most {} bytes", ctl::MAX_LINE) };
                    dir.refuse(crate::node::Place::Top, "ctl", &error);
                    return answer(Err(error));
                }
                pending.extend_from_slice(data);
                let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') else {
                    return answer(Ok(len));
                };
                let rest = pending.split_off(end + 1);
                let lines = std::mem::replace(&mut *pending, rest);
                drop(pending);
                self.run_verbs(&dir, handle.user, lines, move |result| answer(result.map(|()| len)));
            }
            Body::Draft(draft) => {
                let beside = dir.store.path().parent().unwrap_or(Path::new("."));
                let mut result = draft.write(offset, data, beside);
                if result.is_ok() && first && offset == 0 {
                    result = draft.judge_early(data, dir.snap().view.dimension());
                    if result.is_err() {
                        dir.drafts.hide(draft);
                    }
                }
                if let Err(error) = &result {
                    dir.refuse(draft.place, &draft.name(), error);
                }
                answer(result.map(|()| len));
            }
            Body::Part(part) => {
                let (part, data) = (part.clone(), data.to_vec());
                // What is written is compared with what it is a copy of, which may have to come from the disk.
                self.commits.run(move || {
                    let result = super::branch_copy::write_part(&dir, &part, offset, &data);
                    answer(result.map(|()| len));
                });
            }
            _ => answer(Err(Error::BadHandle)),
        }
    }

    /// A piece of a request.
    fn ask(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        offset: u64,
        data: &[u8],
        answer: impl FnOnce(Result<usize, Error>) + Send + 'static,
    ) {
        let (Body::Request(session, exchange, _), Some(dir)) = (&handle.body, &handle.dir) else {
            return answer(Err(Error::BadHandle));
        };
        let len = data.len();
        let mut exchange = exchange.lock();
        if exchange.through_cache {
            session.knows_privileges(true);
        }
        if exchange.running {
            return answer(Err(Error::Busy {
                what: "a request written through this descriptor is still running".into(),
            }));
        }
        match exchange.write(offset, data, &dir.snap(), session) {
            Err(error) => {
                report(session, &exchange, &error);
                answer(Err(error));
            }
            Ok(Step::More) => answer(Ok(len)),
            Ok(Step::Run(work)) if !work.is_heavy() && !self.is_pressed() => {
                let result = work.run(1).map(|outcome| conclude(session, &mut exchange, outcome));
                if let Err(error) = &result {
                    report(session, &exchange, error);
                    exchange.failed();
                }
                drop(exchange);
                answer(result.map(|()| len));
            }
            Ok(Step::Run(work)) => {
                exchange.running = true;
                drop(exchange);
                self.run_apart(handle.clone(), work, move |result| answer(result.map(|()| len)));
            }
        }
    }

    /// Runs a request on a worker; the exchange is marked as running already.
    fn run_apart(
        &self,
        handle: Arc<Handle>,
        work: Box<Work>,
        answer: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) {
        let threads = self.settings.threads;
        self.pool.run(move || {
            let Body::Request(session, exchange, done) = &handle.body else {
                return answer(Err(Error::BadHandle));
            };
            let ended = Ended { exchange, done };
            let result = work.run(threads);
            let mut exchange = exchange.lock();
            let result = result.map(|outcome| conclude(session, &mut exchange, outcome));
            if let Err(error) = &result {
                report(session, &exchange, error);
                exchange.failed();
            }
            drop(exchange);
            // Before the answer, for the next request may follow it at once.
            drop(ended);
            answer(result);
        });
    }

    /// Runs lines that `user` wrote to `ctl`, one after another; the first that fails ends it.
    fn run_verbs(
        self: &Arc<Self>,
        dir: &Arc<StoreDir>,
        user: u32,
        lines: Vec<u8>,
        answer: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) {
        let parsed = std::str::from_utf8(&lines)
            .map_err(|_| Error::invalid("a verb is UTF-8 text"))
            .and_then(|text| {
                text.lines()
                    .filter_map(|line| ctl::parse(line).transpose())
                    .collect::<Result<Vec<_>, Error>>()
            });
        let verbs = match parsed {
            Ok(verbs) => verbs,
            Err(error) => {
                dir.refuse(crate::node::Place::Top, "ctl", &error);
                return answer(Err(error));
            }
        };
        let (tree, dir) = (self.clone(), dir.clone());
        self.commits.run(move || {
            for (verb, background) in verbs {
                if background {
                    let (apart, dir) = (tree.clone(), dir.clone());
                    tree.commits.run(move || {
                        if let Err(error) = ctl::run(&apart, &dir, user, &verb) {
                            dir.refuse(crate::node::Place::Top, "ctl", &error);
                            dir.events.push(
                                "failed",
                                dir.snap().view.epoch(),
                                &[("reason", &error.to_string())],
                            );
                        }
                    });
                } else if let Err(error) = ctl::run(&tree, &dir, user, &verb) {
                    dir.refuse(crate::node::Place::Top, "ctl", &error);
                    return answer(Err(error));
                }
            }
            answer(Ok(()));
        });
    }

    /// A descriptor was closed: errors given here are what close() returns.
    pub fn flush(
        self: &Arc<Self>,
        fh: u64,
        caller: Caller,
        answer: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) {
        let handle = match self.handles.get(fh) {
            Ok(handle) => handle,
            Err(error) => return answer(Err(error)),
        };
        self.settle(handle, Some(caller), answer);
    }

    /// fsync: as a close, and the file stays open.
    pub fn fsync(self: &Arc<Self>, fh: u64, answer: impl FnOnce(Result<(), Error>) + Send + 'static) {
        match self.handles.get(fh) {
            Ok(handle) => self.settle(handle, None, answer),
            Err(error) => answer(Err(error)),
        }
    }

    fn settle(
        self: &Arc<Self>,
        handle: Arc<Handle>,
        closer: Option<Caller>,
        answer: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) {
        let Some(dir) = handle.dir.clone().filter(|_| handle.write) else { return answer(Ok(())) };
        match &handle.body {
            Body::Request(session, exchange, _) => {
                let mut exchange = exchange.lock();
                if exchange.running {
                    return answer(Ok(()));
                }
                // A program that the writer starts meanwhile closes its copy of the descriptor; that is no end.
                if exchange.unfinished()
                    && closer.is_some_and(|closer| !handle.writers.lock().has(closer.thread))
                {
                    return answer(Ok(()));
                }
                match exchange.finish(&dir.snap(), session) {
                    Ok(Step::More) => answer(Ok(())),
                    Ok(Step::Run(work)) => {
                        exchange.running = true;
                        drop(exchange);
                        self.run_apart(handle.clone(), work, answer);
                    }
                    Err(error) => {
                        report(session, &exchange, &error);
                        answer(Err(error));
                    }
                }
            }
            Body::Setting(session, setting, pending) => {
                let mut pending = pending.lock();
                let result = if pending.applied < pending.bytes.len() {
                    pending.applied = pending.bytes.len();
                    session.set(*setting, &pending.bytes)
                } else {
                    Ok(())
                };
                answer(result);
            }
            Body::Ctl(pending) => {
                let lines = std::mem::take(&mut *pending.lock());
                if lines.is_empty() {
                    return answer(Ok(()));
                }
                self.run_verbs(&dir, handle.user, lines, answer);
            }
            Body::Draft(draft) => {
                if let Some(closer) = closer
                    && dir.has_work(draft, Moment::Close)
                    && let Some(signal) = crate::sys::killed_by(closer.thread)
                    && handle.writers.lock().has(closer.thread)
                    && draft.abandon()
                {
                    let what = format!(
                        "its writer was ended by signal {signal} before it was done; nothing was taken"
                    );
                    dir.refuse(draft.place, &draft.name(), &Error::invalid(what));
                    dir.drafts.hide(draft);
                }
                if !dir.has_work(draft, Moment::Close) {
                    return answer(empty_close(&handle, draft, closer));
                }
                let (tree, draft, handle) = (self.clone(), draft.clone(), handle.clone());
                self.commits.run(move || {
                    if closer.is_some_and(|closer| !closes_for_good(&handle, closer)) {
                        return answer(Ok(()));
                    }
                    answer(tree.commit(&dir, &draft, handle.ino, Moment::Close));
                });
            }
            Body::Part(part) => {
                let (tree, part) = (self.clone(), part.clone());
                self.commits.run(move || answer(tree.part_closed(&dir, &part)));
            }
            _ => answer(Ok(())),
        }
    }

    /// Commits a draft; the kernel learns the new size before the answer. For a worker.
    pub(super) fn commit(
        &self,
        dir: &Arc<StoreDir>,
        draft: &Arc<Draft>,
        ino: u64,
        moment: Moment,
    ) -> Result<(), Error> {
        let result = dir.commit(draft, moment, None);
        if let Some(kernel) = self.kernel() {
            kernel.attributes(ino);
        }
        result
    }

    /// The last descriptor of a handle is closed.
    pub fn release(self: &Arc<Self>, fh: u64, answer: impl FnOnce() + Send + 'static) {
        let Some(handle) = self.handles.remove(fh) else { return answer() };
        let Some(dir) = handle.dir.clone() else { return answer() };
        match &handle.body {
            Body::Setting(session, setting, pending) => {
                let pending = pending.lock();
                // `: > query/filter`: truncated and nothing written means the default.
                if pending.truncated && pending.bytes.is_empty() {
                    // Nothing is a good value for every setting.
                    let _ = session.set(*setting, b"");
                }
                answer();
            }
            Body::Request(_, exchange, _) if exchange.lock().unfinished() => {
                self.settle(handle.clone(), None, move |_| answer());
            }
            Body::Draft(draft) if handle.write && dir.has_work(draft, Moment::Last) => {
                let (tree, draft, ino) = (self.clone(), draft.clone(), handle.ino);
                self.commits.run(move || {
                    // Nobody sees this error any more, except in `error`, in `events` and in the log.
                    let _ = tree.commit(&dir, &draft, ino, Moment::Last);
                    dir.drafts.closed(&draft);
                    answer();
                });
            }
            Body::Draft(draft) => {
                let error = (handle.write && !handle.used.load(Ordering::Acquire))
                    .then(|| nothing_written(draft))
                    .flatten();
                if let Some(error) = error {
                    dir.refuse(draft.place, &draft.name(), &error);
                }
                dir.drafts.closed(draft);
                answer();
            }
            _ => answer(),
        }
    }

    /// Closes a directory.
    pub fn releasedir(&self, fh: u64) {
        self.handles.remove(fh);
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

/// Marks an exchange as done when its run ends, also by a panic, so that nobody waits for it for ever.
struct Ended<'a> {
    exchange: &'a Mutex<Exchange>,
    done: &'a Condvar,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.exchange.lock().running = false;
        self.done.notify_all();
    }
}

/// Results go to the descriptor of a transaction, and to everybody else's `out` otherwise.
fn conclude(session: &Session, exchange: &mut Exchange, outcome: Outcome) {
    if exchange.transaction {
        exchange.finished(&outcome);
        session.succeeded();
    } else {
        session.publish(Arc::new(outcome));
    }
}

/// A refused request: what `out` showed before is not its result.
fn report(session: &Session, exchange: &Exchange, error: &Error) {
    if exchange.transaction {
        session.failed(error);
    } else {
        session.refused(error);
    }
}

/// Whether this close is the last one that counts: neither the closing process nor the one that opened the file has
/// another descriptor for it.
fn closes_for_good(handle: &Handle, closer: Caller) -> bool {
    let open_in = |process: u32| process != 0 && crate::sys::has_open_for_writing(process, handle.ino);
    !open_in(closer.thread) && (closer.thread == handle.opener || !open_in(handle.opener))
}

/// A file that was created and never written to is refused at close; a shell also closes once before it writes, and
/// does not look at the result then.
fn empty_close(handle: &Handle, draft: &Draft, closer: Option<Caller>) -> Result<(), Error> {
    if closer.is_none() || handle.used.load(Ordering::Acquire) {
        return Ok(());
    }
    nothing_written(draft).map_or(Ok(()), Err)
}

fn nothing_written(draft: &Draft) -> Option<Error> {
    let kind = crate::drafts::name_kind(draft.place, &draft.name()).ok()?;
    let attr = draft.attr();
    if kind == crate::drafts::NameKind::Temporary || attr.len > 0 || draft.is_receipt() {
        return None;
    }
    Some(Error::invalid("nothing was written; an empty file adds nothing"))
}

fn piece(text: &[u8], offset: u64, size: usize) -> &[u8] {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
    &text[start..start.saturating_add(size).min(text.len())]
}

fn sub_range(range: &Range<u64>, offset: u64, size: usize) -> Range<u64> {
    let start = range.start.saturating_add(offset).min(range.end);
    start..start.saturating_add(size as u64).min(range.end)
}

fn put(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let start = offset as usize;
    let end = start + data.len();
    if bytes.len() < end {
        bytes.resize(end, b' ');
    }
    bytes[start..end].copy_from_slice(data);
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
