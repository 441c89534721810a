//! Notices what other programs do to the files: appended to, replaced, come and gone.
//!
//! The kernel's file notifications tell at once; a look at the files every few seconds catches what they miss (network
//! filesystems, a full queue). Both only lead to a look, so a wrong or late notification does no harm.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use notify::{RecursiveMode, Watcher as _};

use crate::source::Source;
use crate::store_dir::StoreDir;
use crate::tree::Tree;

/// How often files are looked at without a notification.
const PERIOD: Duration = Duration::from_secs(2);
/// A writer that appends in small pieces is let finish, but not for longer than this.
const SETTLE: Duration = Duration::from_millis(30);
const SETTLE_LIMIT: Duration = Duration::from_millis(300);
/// Large files are verified in the background this long after they were opened at the earliest, when first answers
/// have been given.
const VERIFY_AFTER: Duration = Duration::from_secs(3);

enum Message {
    /// These; nobody knows which when there are none.
    Changed(Vec<PathBuf>),
    End,
}

/// Watches until it is dropped.
pub struct Watch {
    sender: Sender<Message>,
    /// Ends the thread that verifies when it is dropped.
    _verifying: Sender<()>,
    _watcher: Option<notify::RecommendedWatcher>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The thread may be gone already; then there is nobody to tell.
        let _ = self.sender.send(Message::End);
    }
}

/// Starts watching what a tree shows.
///
/// # Errors
/// When the thread cannot be started. Without notifications it goes on by looking now and then.
pub fn start(tree: &Arc<Tree>) -> std::io::Result<Watch> {
    let (sender, receiver) = mpsc::channel();
    let place = match &tree.source {
        Source::File(dir) => parent_of(dir.store.path()),
        Source::Directory(directory) => directory.path.clone(),
    };
    let told = sender.clone();
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let paths = match event {
            Ok(event) if event.kind.is_access() => return,
            Ok(event) => event.paths,
            // Something was lost; so it was when the queue overflowed, which is told as an event without paths.
            Err(_) => Vec::new(),
        };
        // Fails only when the watching thread has ended.
        let _ = told.send(Message::Changed(paths));
    })
    .and_then(|mut watcher| watcher.watch(&place, RecursiveMode::NonRecursive).map(|()| watcher))
    .inspect_err(|error| tracing::warn!(path = %place.display(), %error, "no file notifications; looking every {PERIOD:?} instead"))
    .ok();
    let weak = Arc::downgrade(tree);
    std::thread::Builder::new().name("rvf-watch".into()).spawn(move || watch(&weak, &receiver))?;
    let (verifying, end) = mpsc::channel();
    let weak = Arc::downgrade(tree);
    // Not on the thread above, which would see nothing for as long as a large store takes.
    std::thread::Builder::new().name("rvf-verify".into()).spawn(move || verify(&weak, &end))?;
    Ok(Watch { sender, _verifying: verifying, _watcher: watcher })
}

fn parent_of(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf()
}

fn watch(tree: &Weak<Tree>, receiver: &Receiver<Message>) {
    let mut looked = Instant::now();
    loop {
        let mut changed = Changed::default();
        match receiver.recv_timeout(PERIOD.saturating_sub(looked.elapsed())) {
            Ok(Message::Changed(paths)) => {
                changed.add(paths);
                let limit = Instant::now() + SETTLE_LIMIT;
                while Instant::now() < limit {
                    match receiver.recv_timeout(SETTLE) {
                        Ok(Message::Changed(paths)) => changed.add(paths),
                        Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => return,
                        Err(RecvTimeoutError::Timeout) => break,
                    }
                }
            }
            Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => changed.all = true,
        }
        // Also when notifications keep coming: they need not be about what they missed.
        changed.all |= looked.elapsed() >= PERIOD;
        let Some(tree) = tree.upgrade() else { return };
        look(&tree, (!changed.all).then_some(&changed.names));
        if changed.all {
            for dir in tree.open_stores() {
                dir.settings.indexer.tick(&dir);
            }
            looked = Instant::now();
        }
    }
}

/// What to look at.
#[derive(Debug, Default)]
struct Changed {
    all: bool,
    names: BTreeSet<OsString>,
}

impl Changed {
    fn add(&mut self, paths: Vec<PathBuf>) {
        self.all |= paths.is_empty();
        self.names.extend(paths.iter().filter_map(|path| path.file_name()).map(OsStr::to_owned));
    }
}

/// Looks at the files that changed, or at all. Stores of branches that are gone are closed; the mounted store itself shows its
/// last state.
fn look(tree: &Tree, names: Option<&BTreeSet<OsString>>) {
    if let Source::Directory(directory) = &tree.source {
        match directory.rescan() {
            Ok(changed) if !changed.is_empty() => tree.directory_changed(&changed),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(path = %directory.path.display(), %error, "cannot list the directory")
            }
        }
    }
    let meant =
        |path: &Path| names.is_none_or(|names| path.file_name().is_some_and(|name| names.contains(name)));
    let is_gone = |path: &Path| {
        let looked = meant(path).then(|| path.symlink_metadata());
        looked.is_some_and(|looked| looked.is_err_and(|error| error.kind() == ErrorKind::NotFound))
    };
    tree.branches.forget_gone(is_gone);
    for dir in tree.open_stores() {
        dir.branches.forget_gone(is_gone);
        let path = dir.store.path();
        if !meant(path) {
            continue;
        }
        if let Err(error) = dir.store.refresh() {
            tracing::debug!(path = %path.display(), %error, "the file cannot be looked at; what was read of it stays");
        }
    }
}

/// Verifies every store once, some time after it was opened.
fn verify(tree: &Weak<Tree>, end: &Receiver<()>) {
    crate::sys::yield_to_others();
    let mut done = BTreeSet::new();
    while end.recv_timeout(VERIFY_AFTER) == Err(RecvTimeoutError::Timeout) {
        let Some(stores) = tree.upgrade().map(|tree| tree.open_stores()) else { return };
        for dir in stores {
            if end.try_recv() == Err(TryRecvError::Disconnected) {
                return;
            }
            if done.insert(dir.id) && !dir.snap().view.status().verified {
                verify_store(&dir);
            }
        }
    }
}

fn verify_store(dir: &Arc<StoreDir>) {
    let path = dir.store.path().display();
    match dir.store.verify_vectors() {
        Ok(true) => tracing::info!(%path, "all vectors verified"),
        Ok(false) => tracing::warn!(%path, "damaged vectors are left out; see status"),
        Err(error) => tracing::warn!(%path, %error, "cannot verify"),
    }
    dir.look_again();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_without_paths_is_about_everything() {
        let mut changed = Changed::default();
        changed.add(vec!["/a/x.rvf".into(), "/a/x.rvf".into(), "/a/y".into()]);
        assert!(!changed.all);
        assert_eq!(changed.names.len(), 2);
        changed.add(Vec::new());
        assert!(changed.all);
    }
}
