//! A request for a search on its way through a descriptor of `query/in`: written, run, and its results read.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::{Caller, Tree};
use crate::errno::Error;
use crate::handle::{Body, Exchange, Handle, Step};
use crate::session::{Outcome, Session, Work};
use crate::store_dir::StoreDir;

impl Tree {
    /// A piece of a request.
    pub(super) fn ask(
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
                let result = conclude(session, &mut exchange, work.run(1));
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

    /// A descriptor was closed, or nothing more will be written: what was written without an end is taken as whole.
    pub(super) fn finish_request(
        &self,
        handle: &Arc<Handle>,
        dir: &StoreDir,
        closer: Option<Caller>,
        answer: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) {
        let Body::Request(session, exchange, _) = &handle.body else { return answer(Err(Error::BadHandle)) };
        let mut exchange = exchange.lock();
        if exchange.running {
            return answer(Ok(()));
        }
        // A program that the writer starts meanwhile closes its copy of the descriptor; that is no end.
        if exchange.unfinished() && closer.is_some_and(|closer| !handle.writers.lock().has(closer.thread)) {
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
            let result = conclude(session, &mut exchange.lock(), result);
            // Before the answer, for the next request may follow it at once.
            drop(ended);
            answer(result);
        });
    }

    /// Results of the handle's own request. What was written without an end is taken as whole now.
    pub(super) fn read_results(
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

/// A request has run. Its results go to the descriptor of a transaction, and to everybody else's `out` otherwise.
fn conclude(session: &Session, exchange: &mut Exchange, result: Result<Outcome, Error>) -> Result<(), Error> {
    match result {
        Ok(outcome) if exchange.transaction => {
            exchange.finished(&outcome);
            session.succeeded();
        }
        Ok(outcome) => session.publish(Arc::new(outcome)),
        Err(error) => {
            report(session, exchange, &error);
            exchange.failed();
            return Err(error);
        }
    }
    Ok(())
}

/// A refused request: what `out` showed before is not its result.
fn report(session: &Session, exchange: &Exchange, error: &Error) {
    if exchange.transaction {
        session.failed(error);
    } else {
        session.refused(error);
    }
}
