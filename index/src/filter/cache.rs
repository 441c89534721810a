//! Recent filters and the rows they selected.

use crate::Bitmap;
use parking_lot::Mutex;
use std::sync::Arc;

/// Keeps the results of the filters used last, for one set of columns (one view of a file).
///
/// Entries are found by the text of the filter. The least recently used go first when either limit is reached. Shared by
/// threads.
#[derive(Debug)]
pub struct FilterCache {
    /// Most recently used last.
    entries: Mutex<Vec<(Box<str>, Arc<Bitmap>)>>,
    max_entries: usize,
    max_bytes: usize,
}

impl Default for FilterCache {
    /// 64 entries, 4 MiB.
    fn default() -> Self {
        Self::new(64, 4 << 20)
    }
}

impl FilterCache {
    /// A cache of at most `max_entries` texts whose bitmaps and texts take at most `max_bytes` together. A result larger
    /// than `max_bytes` on its own is not kept. Look-up is linear in the entries: meant for tens of them.
    pub fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self { entries: Mutex::new(Vec::new()), max_entries, max_bytes }
    }

    /// The rows that a filter selected earlier.
    pub fn get(&self, text: &str) -> Option<Arc<Bitmap>> {
        let mut entries = self.entries.lock();
        let at = entries.iter().rposition(|(known, _)| **known == *text)?;
        let last = entries.len() - 1;
        if at != last {
            let entry = entries.remove(at);
            entries.push(entry);
        }
        entries.last().map(|(_, rows)| Arc::clone(rows))
    }

    /// Keeps a result under a text, dropping the least recently used ones to make room.
    pub fn insert(&self, text: &str, rows: Arc<Bitmap>) {
        let mut entries = self.entries.lock();
        entries.retain(|(known, _)| **known != *text);
        entries.push((text.into(), rows));
        let mut bytes = 0;
        let keep = entries
            .iter()
            .rev()
            .take(self.max_entries)
            .take_while(|(text, rows)| {
                bytes += text.len() * 2 + rows.words().len() * 8;
                bytes <= self.max_bytes
            })
            .count();
        let excess = entries.len() - keep;
        entries.drain(..excess);
    }

    /// Number of texts kept.
    pub fn len(&self) -> usize {
        self.entries.lock().len()
    }

    /// True when nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
