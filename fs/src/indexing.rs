//! Indexes built in the background: the first query against a store that wants one starts it.
//!
//! One thread a mount, so that a directory of stores is indexed one by one, and only those that are asked something.
//! Queries go on meanwhile and are answered exactly; the view published at the end has the index. It is stored in the
//! file by a normal commit. Where that cannot be done now (another writer, a full device) or ever (a read-only mount),
//! it is kept in memory; a later change or a timer tries again to store it.
//!
//! Reading a file of the tree never comes here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rvf_cow::{BuiltIndex, Progress, ReindexOptions, View};

use crate::store_dir::{Job, StoreDir};

/// An index that could not be stored is tried again after this long, then after twice as long, and so on.
const FIRST_RETRY: Duration = Duration::from_secs(30);
const LAST_RETRY: Duration = Duration::from_secs(3600);

/// Builds indexes for all stores of a mount. Cloning gives another handle to the same one.
#[derive(Debug, Clone, Default)]
pub struct Indexer {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    stored: Condvar,
    ending: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Queue {
    tasks: VecDeque<(Arc<StoreDir>, Task)>,
    /// The thread is there.
    running: bool,
    /// A commit is under way: the process should not end now.
    storing: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Build,
    /// Store what was built before and kept.
    Store,
}

/// What tells whether a store is still what it was when an index was last tried.
type Key = (u32, u64);

fn key_of(view: &View) -> Key {
    (view.epoch(), view.file_len())
}

/// Where the index of one store stands.
#[derive(Debug, Default)]
pub struct Indexing {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// The state of the store that a build was last started for: another is not, whatever became of it.
    tried: Option<Key>,
    kept: Option<Kept>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum Phase {
    #[default]
    Idle,
    Waiting,
    Running {
        done: u64,
        total: u64,
    },
    Storing,
    Failed(String),
}

/// An index that is in memory because it could not be stored.
#[derive(Debug)]
struct Kept {
    why: String,
    retry: Option<Retry>,
}

#[derive(Debug, Clone, Copy)]
struct Retry {
    at: Instant,
    wait: Duration,
    /// Another writer was in the way; a new commit shows that it is through.
    locked: bool,
}

impl Indexing {
    /// What `status` says: `none`, `waiting`, `running NN%`, `storing`, `in memory: why`, or `failed: why`.
    #[must_use]
    pub fn show(&self, view: &View) -> String {
        let state = self.state.lock();
        match &state.phase {
            Phase::Waiting => "waiting".into(),
            Phase::Running { done, total } => {
                let percent = done.min(total).saturating_mul(100).checked_div(*total).unwrap_or(0);
                format!("running {percent}%")
            }
            Phase::Storing => "storing".into(),
            // What failed does not matter any more once there is an index, by whatever way.
            Phase::Failed(why) if view.wants_index() => format!("failed: {why}"),
            Phase::Idle | Phase::Failed(_) => match &state.kept {
                Some(kept) if view.index_state().place == "memory" => format!("in memory: {}", kept.why),
                _ => "none".into(),
            },
        }
    }

    fn set(&self, phase: Phase) {
        self.state.lock().phase = phase;
    }

    /// Becomes `Waiting` unless something is under way already.
    fn claim(&self, key: Option<Key>) -> bool {
        let mut state = self.state.lock();
        if !matches!(state.phase, Phase::Idle | Phase::Failed(_)) || (key.is_some() && state.tried == key) {
            return false;
        }
        state.tried = key.or(state.tried);
        state.phase = Phase::Waiting;
        true
    }
}

impl Indexer {
    /// A store was asked something that an index would answer faster. Cheap when it has one.
    pub fn queried(&self, dir: &Arc<StoreDir>, view: &View) {
        if dir.settings.auto_index && view.wants_index() && dir.indexing.claim(Some(key_of(view))) {
            self.push(dir, Task::Build);
        }
    }

    /// A store has a new state: a writer that was in the way may be through.
    pub fn changed(&self, dir: &Arc<StoreDir>) {
        let due = |retry: &Retry| retry.locked;
        self.store_kept_if(dir, due);
    }

    /// Some time has passed.
    pub fn tick(&self, dir: &Arc<StoreDir>) {
        let now = Instant::now();
        self.store_kept_if(dir, |retry| retry.at <= now);
    }

    fn store_kept_if(&self, dir: &Arc<StoreDir>, due: impl Fn(&Retry) -> bool) {
        let kept = dir.indexing.state.lock().kept.as_ref().and_then(|kept| kept.retry);
        if kept.as_ref().is_some_and(due) && dir.indexing.claim(None) {
            self.push(dir, Task::Store);
        }
    }

    /// Ends what is under way: a build is dropped where it is, a commit is waited for, at most this long.
    pub fn end(&self, limit: Duration) {
        self.shared.ending.store(true, Ordering::Release);
        let end = Instant::now() + limit;
        let mut queue = self.shared.queue.lock();
        queue.tasks.clear();
        while queue.storing {
            if self.shared.stored.wait_until(&mut queue, end).timed_out() {
                return;
            }
        }
    }

    fn push(&self, dir: &Arc<StoreDir>, task: Task) {
        let mut queue = self.shared.queue.lock();
        queue.tasks.push_back((dir.clone(), task));
        if queue.running {
            return;
        }
        queue.running = true;
        let shared = self.shared.clone();
        let started = std::thread::Builder::new().name("rvf-indexer".into()).spawn(move || shared.work());
        if let Err(error) = started {
            queue.running = false;
            for (dir, _) in queue.tasks.drain(..) {
                dir.indexing.set(Phase::Failed(format!("cannot start a thread: {error}")));
            }
        }
    }
}

impl Shared {
    fn work(&self) {
        loop {
            let mut queue = self.queue.lock();
            let Some((dir, task)) = queue.tasks.pop_front() else {
                queue.running = false;
                return;
            };
            drop(queue);
            if self.is_ending() {
                continue;
            }
            let phase = match task {
                Task::Build => self.build(&dir),
                Task::Store => self.store_kept(&dir),
            };
            dir.indexing.set(phase);
        }
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Builds and stores. Gives what `status` shows afterwards.
    fn build(&self, dir: &Arc<StoreDir>) -> Phase {
        let view = dir.store.view();
        // Somebody may have built one since it was asked for.
        if !view.wants_index() {
            return Phase::Idle;
        }
        dir.indexing.set(Phase::Running { done: 0, total: 0 });
        dir.events.push("index-build", view.epoch(), &[("vectors", &view.live().to_string())]);
        tracing::info!(path = %dir.store.path().display(), vectors = view.live(), "building an index");
        drop(view);
        match self.built(dir).and_then(|built| self.keep(dir, &built)) {
            Ok(()) => Phase::Idle,
            Err(Stopped::Ending) => Phase::Idle,
            Err(Stopped::Failed(why)) => {
                dir.events.push("index-failed", dir.store.view().epoch(), &[("reason", &why)]);
                tracing::warn!(path = %dir.store.path().display(), reason = %why, "no index was built");
                Phase::Failed(why)
            }
        }
    }

    fn built(&self, dir: &Arc<StoreDir>) -> Result<BuiltIndex, Stopped> {
        // What queries may come to wait for is not left to a thread that runs only when nobody else wants to.
        dir.store.verify_vectors()?;
        dir.look_again();
        let _ = dir.store.view().live_ordinals();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let options =
            ReindexOptions { threads: processors.div_ceil(2), adopt: true, ..ReindexOptions::default() };
        let watched = Watched { shared: self, dir, job: dir.job("index") };
        let built = std::thread::scope(|scope| {
            let build = || {
                // The threads it starts inherit this.
                crate::sys::yield_to_others();
                dir.store.build_index(&options, &watched)
            };
            let thread = std::thread::Builder::new().name("rvf-index".into()).spawn_scoped(scope, build);
            match thread {
                Ok(thread) => thread.join().map_err(|_| Stopped::Failed("it panicked; see the log".into())),
                Err(error) => Err(Stopped::Failed(format!("cannot start a thread: {error}"))),
            }
        })??;
        crate::sys::give_back_memory();
        built.ok_or_else(|| Stopped::Failed("there are no vectors any more".into()))
    }

    /// Stores an index, or keeps it in memory when that cannot be.
    fn keep(&self, dir: &Arc<StoreDir>, built: &BuiltIndex) -> Result<(), Stopped> {
        if dir.settings.read_only {
            dir.store.use_index(built)?;
            return Ok(());
        }
        let Err(error) = self.store(dir, built)? else {
            dir.indexing.state.lock().kept = None;
            return Ok(());
        };
        // Fails in its turn when the index does not fit any more.
        dir.store.use_index(built)?;
        let why = error.to_string();
        let locked = matches!(error, rvf_cow::Error::Locked { .. });
        let again = locked || matches!(error, rvf_cow::Error::NoSpace { .. });
        let retry = again.then(|| Retry { at: Instant::now() + FIRST_RETRY, wait: FIRST_RETRY, locked });
        let before = dir.indexing.state.lock().kept.replace(Kept { why: why.clone(), retry });
        // Said once, however often it is tried.
        if before.is_none() {
            dir.events.push("index-not-stored", dir.store.view().epoch(), &[("reason", &why)]);
            tracing::warn!(path = %dir.store.path().display(), reason = %why, "the index is kept in memory only");
        }
        Ok(())
    }

    /// The commit, unless the process is about to end.
    fn store(&self, dir: &StoreDir, built: &BuiltIndex) -> Result<Result<(), rvf_cow::Error>, Stopped> {
        let mut queue = self.queue.lock();
        if self.is_ending() {
            return Err(Stopped::Ending);
        }
        queue.storing = true;
        drop(queue);
        let _done = Storing(self);
        dir.indexing.set(Phase::Storing);
        // Not after a long wait for another writer: users' own commits would wait behind this one.
        Ok(dir.store.check_lock().and_then(|()| dir.store.store_index(built)).map(drop))
    }

    fn store_kept(&self, dir: &Arc<StoreDir>) -> Phase {
        let Some(built) = dir.store.kept_index() else {
            // The store was rewritten, or somebody else stored an index.
            dir.indexing.state.lock().kept = None;
            return Phase::Idle;
        };
        match self.store(dir, &built) {
            Ok(Ok(())) => dir.indexing.state.lock().kept = None,
            Ok(Err(error)) => {
                tracing::debug!(path = %dir.store.path().display(), %error, "the index stays in memory");
                let mut state = dir.indexing.state.lock();
                if let Some(kept) = &mut state.kept {
                    kept.why = error.to_string();
                    kept.retry = kept.retry.map(|retry| {
                        let wait = retry.wait.saturating_mul(2).min(LAST_RETRY);
                        Retry { at: Instant::now() + wait, wait, ..retry }
                    });
                }
            }
            Err(_) => {}
        }
        Phase::Idle
    }
}

/// A commit under way.
struct Storing<'a>(&'a Shared);

impl Drop for Storing<'_> {
    fn drop(&mut self) {
        self.0.queue.lock().storing = false;
        self.0.stored.notify_all();
    }
}

/// Why there is no index.
#[derive(Debug)]
enum Stopped {
    Ending,
    Failed(String),
}

impl From<rvf_cow::Error> for Stopped {
    fn from(error: rvf_cow::Error) -> Self {
        match error {
            rvf_cow::Error::Cancelled => Self::Ending,
            other => Self::Failed(other.to_string()),
        }
    }
}

/// Shows how far a build is, and ends it with the mount.
struct Watched<'a> {
    shared: &'a Shared,
    dir: &'a StoreDir,
    job: Job,
}

impl Progress for Watched<'_> {
    fn step(&self, done: u64, total: u64) -> bool {
        self.job.step(done, total);
        self.dir.indexing.set(Phase::Running { done, total });
        !self.shared.is_ending()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use rvf_cow::{BadRow, Batch, CreateOptions, Metric, NoProgress, Store};
    use rvf_format::lock::WriteLock;

    use crate::node::StoreId;
    use crate::store_dir::Settings;

    fn store_dir(path: &Path, rows: u64) -> Arc<StoreDir> {
        let options = CreateOptions { dimension: 2, metric: Metric::L2, profile: 0 };
        let store = Store::create(path, &options).expect("a new store");
        let batch = Batch {
            dimension: 2,
            ids: Some((0..rows).collect()),
            vectors: (0..rows).flat_map(|i| [i as f32, 1.0]).collect(),
            metadata: Vec::new(),
            on_bad_row: BadRow::Refuse,
        };
        store.ingest(&batch, &NoProgress).expect("rows");
        StoreDir::of_store(StoreId(0), store, path.to_path_buf(), Arc::new(Settings::default()))
    }

    fn shown(dir: &StoreDir) -> String {
        dir.indexing.show(&dir.store.view())
    }

    fn place(dir: &StoreDir) -> &'static str {
        dir.store.view().index_state().place
    }

    fn wait(dir: &StoreDir, what: &str) {
        let end = Instant::now() + Duration::from_secs(100);
        while !matches!(dir.indexing.state.lock().phase, Phase::Idle | Phase::Failed(_)) {
            assert!(Instant::now() < end, "{what}");
            std::thread::yield_now();
        }
    }

    fn query(dir: &Arc<StoreDir>) {
        dir.snap().queried();
    }

    fn events(dir: &StoreDir) -> String {
        let mut out = Vec::new();
        dir.events.read(0, usize::MAX, &mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn what_could_not_be_stored_is_stored_when_its_time_has_come() {
        let place_of = tempfile::tempdir().expect("a directory");
        let path = place_of.path().join("a.rvf");
        let dir = store_dir(&path, 1100);
        let file = std::fs::File::options().read(true).write(true).open(&path).expect("open");
        let lock = WriteLock::acquire(&path, &file, Duration::ZERO).expect("locked");
        query(&dir);
        wait(&dir, "built");
        assert_eq!(place(&dir), "memory");
        assert!(shown(&dir).starts_with("in memory: "), "{}", shown(&dir));
        let indexer = &dir.settings.indexer;
        indexer.tick(&dir);
        assert!(dir.indexing.state.lock().phase == Phase::Idle, "not before half a minute");

        let make_due = || {
            let mut state = dir.indexing.state.lock();
            let retry = state.kept.as_mut().and_then(|kept| kept.retry.as_mut()).expect("is tried again");
            retry.at = Instant::now();
            retry.wait
        };
        assert_eq!(make_due(), FIRST_RETRY);
        indexer.tick(&dir);
        wait(&dir, "tried");
        assert_eq!(place(&dir), "memory", "the lock is still held");
        assert_eq!(make_due(), 2 * FIRST_RETRY);
        drop(lock);
        indexer.tick(&dir);
        wait(&dir, "tried");
        assert_eq!((place(&dir), shown(&dir).as_str()), ("file", "none"));
        assert!(dir.indexing.state.lock().kept.is_none());
        assert_eq!(events(&dir).matches("index-not-stored").count(), 1);
    }

    #[test]
    fn a_build_that_failed_is_not_repeated_until_something_changed() {
        let place_of = tempfile::tempdir().expect("a directory");
        let path = place_of.path().join("a.rvf");
        let dir = store_dir(&path, 1100);
        let away = place_of.path().join("b.rvf");
        std::fs::rename(&path, &away).expect("renamed");
        query(&dir);
        wait(&dir, "failed");
        assert!(shown(&dir).starts_with("failed: "), "{}", shown(&dir));
        std::fs::rename(&away, &path).expect("renamed back");
        query(&dir);
        assert!(shown(&dir).starts_with("failed: "), "nothing new was committed");
        assert_eq!(events(&dir).matches("index-failed").count(), 1);
        dir.store.delete(&[1]).expect("a change");
        query(&dir);
        wait(&dir, "built");
        assert_eq!((place(&dir), shown(&dir).as_str()), ("file", "none"));
    }

    #[test]
    fn nothing_is_stored_once_the_mount_ends() {
        let place_of = tempfile::tempdir().expect("a directory");
        let path = place_of.path().join("a.rvf");
        let dir = store_dir(&path, 1100);
        let before = std::fs::read(&path).expect("read");
        dir.settings.indexer.end(Duration::ZERO);
        assert_eq!(dir.settings.indexer.shared.build(&dir), Phase::Idle);
        assert_eq!(place(&dir), "none");
        assert_eq!(std::fs::read(&path).expect("read"), before);
        assert!(!events(&dir).contains("index-failed"));
    }
}
