//! Worker threads for what takes longer than a FUSE thread may be busy: commits, batches, exhaustive scans.
//!
//! A job carries its own reply, so nobody waits for the pool. Threads are started when no idle one is left and end
//! after a while without work. A job that panics is logged; the reply it held is answered by being dropped.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

type Job = Box<dyn FnOnce() + Send>;

const IDLE: Duration = Duration::from_secs(20);

/// A pool of at most `limit` threads.
#[derive(Debug, Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    done: Condvar,
    limit: usize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("limit", &self.limit).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
    running: usize,
}

impl Pool {
    /// A pool of at most `limit` (at least one) threads; none is started yet.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State::default()),
                work: Condvar::new(),
                done: Condvar::new(),
                limit: limit.max(1),
            }),
        }
    }

    /// Runs the job on a worker, after those given before it. Runs it here when no thread can be started.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.state.lock();
        state.queue.push_back(Box::new(job));
        if state.idle >= state.queue.len() {
            self.shared.work.notify_one();
            return;
        }
        if state.threads >= self.shared.limit {
            return;
        }
        state.threads += 1;
        drop(state);
        let shared = self.shared.clone();
        let started = std::thread::Builder::new().name("rvf-worker".into()).spawn(move || work(&shared));
        if let Err(error) = started {
            tracing::warn!(%error, "cannot start a worker thread");
            let mut state = self.shared.state.lock();
            state.threads -= 1;
            if state.threads == 0 {
                while let Some(job) = state.queue.pop_front() {
                    drop(state);
                    guarded(job);
                    state = self.shared.state.lock();
                }
            }
        }
    }

    /// Waits until every job is finished, at most this long; `true` when they are.
    pub fn drain(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut state = self.shared.state.lock();
        while state.running > 0 || !state.queue.is_empty() {
            if self.shared.done.wait_until(&mut state, end).timed_out() {
                return false;
            }
        }
        true
    }
}

fn work(shared: &Shared) {
    let mut state = shared.state.lock();
    loop {
        if let Some(job) = state.queue.pop_front() {
            state.running += 1;
            drop(state);
            guarded(job);
            state = shared.state.lock();
            state.running -= 1;
            if state.running == 0 && state.queue.is_empty() {
                shared.done.notify_all();
            }
            continue;
        }
        state.idle += 1;
        let timed_out = shared.work.wait_for(&mut state, IDLE).timed_out();
        state.idle -= 1;
        if timed_out && state.queue.is_empty() {
            state.threads -= 1;
            return;
        }
    }
}

fn guarded(job: Job) {
    if catch_unwind(AssertUnwindSafe(job)).is_err() {
        tracing::error!("a worker job panicked; its request is answered with an I/O error");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_job_runs_once_and_a_panic_does_not_stop_the_pool() {
        let pool = Pool::new(3);
        let count = Arc::new(AtomicUsize::new(0));
        for n in 0..200 {
            let count = count.clone();
            pool.run(move || {
                assert!(n != 50, "expected in this test");
                count.fetch_add(1, Ordering::SeqCst);
            });
        }
        assert!(pool.drain(Duration::from_secs(30)));
        assert_eq!(count.load(Ordering::SeqCst), 199);
    }

    #[test]
    fn draining_an_idle_pool_returns_at_once() {
        assert!(Pool::new(0).drain(Duration::ZERO));
    }
}
