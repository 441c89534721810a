//! Recent filters and the rows they selected.

use super::columns::Columns;
use super::error::FilterError;
use super::expr::Expr;
use super::parse;
use crate::Bitmap;
use parking_lot::Mutex;
use std::sync::Arc;

/// A filter and the rows it selected.
#[derive(Debug, Clone)]
pub struct Cached {
    /// The parsed filter, to be applied to rows newer than the columns.
    pub expr: Arc<Expr>,
    /// The rows of the columns for which it is true.
    pub rows: Arc<Bitmap>,
}

/// Keeps the results of the filters used last, for one set of columns (one view of a file).
///
/// Entries are found by text: the text as given, and its canonical form, so that differently written equal filters share
/// one bitmap. The least recently used entries go first when either limit is reached. Shared by threads; the lock is never
/// held while a filter is parsed or evaluated, so two threads may evaluate the same new filter at the same time.
#[derive(Debug)]
pub struct FilterCache {
    /// Most recently used last.
    entries: Mutex<Vec<(Box<str>, Cached)>>,
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

    /// The result for a text, as given earlier or canonical.
    pub fn get(&self, text: &str) -> Option<Cached> {
        let mut entries = self.entries.lock();
        let at = entries.iter().rposition(|(known, _)| **known == *text)?;
        let last = entries.len() - 1;
        if at != last {
            let entry = entries.remove(at);
            entries.push(entry);
        }
        entries.last().map(|(_, cached)| cached.clone())
    }

    /// Keeps a result under a text, dropping the least recently used ones to make room.
    pub fn insert(&self, text: &str, cached: Cached) {
        let mut entries = self.entries.lock();
        entries.retain(|(known, _)| **known != *text);
        entries.push((text.into(), cached));
        // Aliases of one result share its bitmap, but counting each keeps the sum an upper bound.
        let mut bytes = 0;
        let keep = entries
            .iter()
            .rev()
            .take(self.max_entries)
            .take_while(|(text, cached)| {
                bytes += text.len() * 2 + cached.rows.words().len() * 8;
                bytes <= self.max_bytes
            })
            .count();
        let excess = entries.len() - keep;
        entries.drain(..excess);
    }

    /// The rows for an expression, from the cache or evaluated and kept under its canonical text.
    ///
    /// # Errors
    /// As [`Columns::eval`].
    pub fn eval(&self, columns: &Columns, expr: &Expr) -> Result<Arc<Bitmap>, FilterError> {
        let text = expr.to_string();
        if let Some(cached) = self.get(&text) {
            return Ok(cached.rows);
        }
        let cached = Cached { expr: Arc::new(expr.clone()), rows: Arc::new(columns.eval(expr)?) };
        self.insert(&text, cached.clone());
        Ok(cached.rows)
    }

    /// The filter and rows for a text in either language, from the cache or parsed, evaluated and kept.
    ///
    /// # Errors
    /// As [`parse`] and [`Columns::eval`].
    pub fn eval_text(&self, columns: &Columns, text: &str) -> Result<Cached, FilterError> {
        if let Some(cached) = self.get(text) {
            return Ok(cached);
        }
        let expr = parse(text)?;
        let canonical = expr.to_string();
        let cached = match self.get(&canonical) {
            Some(cached) => cached,
            None => {
                let rows = Arc::new(columns.eval(&expr)?);
                let cached = Cached { expr: Arc::new(expr), rows };
                self.insert(&canonical, cached.clone());
                cached
            }
        };
        if canonical != text {
            self.insert(text, cached.clone());
        }
        Ok(cached)
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.entries.lock().clear();
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
