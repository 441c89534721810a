//! Closing and fsync: what was written is taken, and why it cannot be is what they return.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Caller, Tree};
use crate::drafts::{Draft, Moment, NameKind, name_kind};
use crate::errno::Error;
use crate::handle::{Body, Handle};
use crate::node::Place;
use crate::store_dir::StoreDir;

impl Tree {
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
            Body::Request(..) => self.finish_request(&handle, &dir, closer, answer),
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
                if pending.lock().is_empty() {
                    return answer(Ok(()));
                }
                if let Some(signal) = closer.and_then(|closer| killed(&handle, closer)) {
                    pending.lock().clear();
                    let what = format!(
                        "its writer was ended by signal {signal} in the middle of a line, which was not run"
                    );
                    dir.refuse(Place::Top, "ctl", &Error::invalid(what));
                    return answer(Ok(()));
                }
                let (tree, handle) = (self.clone(), handle.clone());
                self.commits.run(move || {
                    // A program that the writer starts closes its copy of the descriptor; the rest of the line comes then.
                    if closer.is_some_and(|closer| !closes_for_good(&handle, closer)) {
                        return answer(Ok(()));
                    }
                    let Body::Ctl(pending) = &handle.body else { return answer(Ok(())) };
                    let line = std::mem::take(&mut *pending.lock());
                    tree.run_verbs(&dir, handle.user, line, answer);
                });
            }
            Body::Draft(draft) => {
                if let Some(closer) = closer
                    && dir.has_work(draft, Moment::Close)
                    && let Some(signal) = killed(&handle, closer)
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
            Body::Ctl(pending) if !pending.lock().is_empty() => {
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
}

/// The signal that ends the closing process, when that has written something.
fn killed(handle: &Handle, closer: Caller) -> Option<i32> {
    crate::sys::killed_by(closer.thread).filter(|_| handle.writers.lock().has(closer.thread))
}

/// Whether this close is the last one that counts: neither the closing process, nor the one that opened the file, nor one that
/// has written to it has another descriptor for it.
fn closes_for_good(handle: &Handle, closer: Caller) -> bool {
    let open_in = |process: u32| process != 0 && crate::sys::has_open_for_writing(process, handle.ino);
    let mut others = handle.writers.lock().processes().to_vec();
    others.push(handle.opener);
    others.retain(|other| *other != closer.thread);
    !open_in(closer.thread) && !others.into_iter().any(open_in)
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
    let kind = name_kind(draft.place, &draft.name()).ok()?;
    let attr = draft.attr();
    if kind == NameKind::Temporary || attr.len > 0 || draft.is_receipt() {
        return None;
    }
    Some(Error::invalid("nothing was written; an empty file adds nothing"))
}
