//! Notices what other programs do to the files: appended to, replaced, come and gone.
//!
//! The kernel's file notifications tell at once; a look at the files every few seconds catches what they miss (network
//! filesystems, a full queue). Both only lead to a look, so a wrong or late notification does no harm.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use notify::{RecursiveMode, Watcher as _};

use crate::source::Source;
use crate::tree::Tree;

/// How often files are looked at without a notification.
const PERIOD: Duration = Duration::from_secs(2);
/// A writer that appends in small pieces is let finish, but not for longer than this.
const SETTLE: Duration = Duration::from_millis(30);
const SETTLE_LIMIT: Duration = Duration::from_millis(300);
/// Large files are verified in the background this long after mounting, when first answers have been given.
const VERIFY_AFTER: Duration = Duration::from_secs(3);

enum Message {
    Changed(Vec<PathBuf>),
    End,
}

/// Watches until it is dropped.
pub struct Watch {
    sender: Sender<Message>,
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
        if let Ok(event) = event
            && !event.kind.is_access()
        {
            // Fails only when the watching thread has ended.
            let _ = told.send(Message::Changed(event.paths));
        }
    })
    .and_then(|mut watcher| watcher.watch(&place, RecursiveMode::NonRecursive).map(|()| watcher))
    .inspect_err(|error| tracing::warn!(path = %place.display(), %error, "no file notifications; looking every {PERIOD:?} instead"))
    .ok();
    let weak = Arc::downgrade(tree);
    std::thread::Builder::new().name("rvf-watch".into()).spawn(move || watch(&weak, &receiver))?;
    Ok(Watch { sender, _watcher: watcher })
}

fn parent_of(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf()
}

fn watch(tree: &Weak<Tree>, receiver: &Receiver<Message>) {
    let started = Instant::now();
    let mut verified = false;
    loop {
        match receiver.recv_timeout(PERIOD) {
            Ok(Message::Changed(mut paths)) => {
                let limit = Instant::now() + SETTLE_LIMIT;
                while Instant::now() < limit {
                    match receiver.recv_timeout(SETTLE) {
                        Ok(Message::Changed(more)) => paths.extend(more),
                        Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => return,
                        Err(RecvTimeoutError::Timeout) => break,
                    }
                }
                let Some(tree) = tree.upgrade() else { return };
                look(&tree, Some(&paths));
            }
            Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let Some(tree) = tree.upgrade() else { return };
                look(&tree, None);
                for dir in tree.source.open_stores() {
                    dir.settings.indexer.tick(&dir);
                }
            }
        }
        if !verified && started.elapsed() > VERIFY_AFTER {
            verified = true;
            let Some(tree) = tree.upgrade() else { return };
            verify(&tree);
        }
    }
}

/// Looks at the files that changed, or at all.
fn look(tree: &Tree, paths: Option<&[PathBuf]>) {
    if let Source::Directory(directory) = &tree.source {
        match directory.rescan() {
            Ok(changed) if !changed.is_empty() => tree.directory_changed(&changed),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(path = %directory.path.display(), %error, "cannot list the directory")
            }
        }
    }
    for dir in tree.source.open_stores() {
        let path = dir.store.path();
        if paths.is_some_and(|paths| !paths.iter().any(|changed| changed.file_name() == path.file_name())) {
            continue;
        }
        if let Err(error) = dir.store.refresh() {
            tracing::debug!(path = %path.display(), %error, "the file cannot be looked at; what was read of it stays");
        }
    }
}

fn verify(tree: &Tree) {
    for dir in tree.source.open_stores() {
        if dir.snap().view.status().verified {
            continue;
        }
        match dir.store.verify_vectors() {
            Ok(true) => tracing::info!(path = %dir.store.path().display(), "all vectors verified"),
            Ok(false) => {
                tracing::warn!(path = %dir.store.path().display(), "damaged vectors are left out; see status")
            }
            Err(error) => tracing::warn!(path = %dir.store.path().display(), %error, "cannot verify"),
        }
        dir.look_again();
    }
}
