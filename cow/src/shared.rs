//! States of files that this process has read: branches of one parent share it, and with it all that was found out about its
//! rows. Nothing is kept alive here.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::parent::Found;
use crate::types::OpenOptions;
use crate::view::View;

/// A state of a file: device, inode, bytes of it that count, path, and whether it is mapped.
type Key = (u64, u64, u64, PathBuf, bool);

#[derive(Default)]
struct Known {
    views: Option<HashMap<Key, Weak<View>>>,
    /// Entries at which dead ones are thrown out.
    limit: usize,
}

static KNOWN: Mutex<Known> = Mutex::new(Known { views: None, limit: 0 });

/// A state was read. A newer look at the same state replaces the older one.
pub(crate) fn remember(view: &Arc<View>, options: &OpenOptions) {
    let stamp = &view.stamp;
    let key = (stamp.dev, stamp.ino, stamp.len, view.path.clone(), options.mmap);
    let mut known = KNOWN.lock();
    let limit = known.limit;
    let views = known.views.get_or_insert_default();
    views.insert(key, Arc::downgrade(view));
    if views.len() > limit {
        views.retain(|_, view| view.strong_count() > 0);
        known.limit = 64.max(2 * known.views.as_ref().map_or(0, HashMap::len));
    }
}

/// The state that a child stands on, if it was read before and nothing about it or its own ancestors has changed. Its chain
/// has fewer than `room` files.
pub(crate) fn find(found: &Found, options: &OpenOptions, room: usize) -> Option<Arc<View>> {
    let key = (found.meta.dev(), found.meta.ino(), found.len, found.path.clone(), options.mmap);
    let view = KNOWN.lock().views.as_ref()?.get(&key)?.upgrade()?;
    (usable(&view, found, options) && stands(&view, room)).then_some(view)
}

/// Whether a view is what reading that state of the file again would give, or better.
pub(crate) fn usable(view: &View, found: &Found, options: &OpenOptions) -> bool {
    let stamp = &view.stamp;
    (stamp.dev, stamp.ino, stamp.len) == (found.meta.dev(), found.meta.ino(), found.len)
        && view.path == found.path
        && view.damaged.is_empty()
        && view.complete().is_ok()
        && view.files().into_iter().all(|view| view.check_ancestor().is_ok())
        // One that grew may have got an index since, which describes this state too.
        && (view.image.is_some() || found.len == found.whole)
        && (view.verified || !options.verify)
}

/// Whether all ancestors were found, and still lie where they were.
fn stands(view: &View, room: usize) -> bool {
    let mut next = view;
    for _ in 1..room {
        match &next.parent {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(parent)) => next = &parent.view,
        }
        let lies = crate::reach::reach(&next.path).is_ok_and(|reached| {
            let meta = &reached.meta;
            (meta.dev(), meta.ino()) == (next.stamp.dev, next.stamp.ino) && meta.len() >= next.stamp.len
        });
        if !lies || next.check_ancestor().is_err() {
            return false;
        }
    }
    false
}
