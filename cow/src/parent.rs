//! Reading a copy-on-write child through its chain of parents.
//!
//! A child shows its own rows, and of each ancestor the rows that every membership filter on the way
//! shows and no younger file holds an id of. A parent is read as it was when the child was made:
//! files only grow, so that state is a prefix of the file, found again by its hash.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rvf_format::checksum::fold32;
use rvf_format::contents::Cow;
use rvf_format::layout;
use rvf_format::{FileBytes, FileIdentity};
use rvf_index::Bitmap;
use rvf_index::filter::{self, Expr, FieldRef};

use crate::error::Error;
use crate::metadata::to_filter_value;
use crate::source::open_regular;
use crate::view::View;

/// Deepest chain of parents that is followed.
pub(crate) const MAX_DEPTH: usize = 64;

/// The format hashes this many bytes at a parent's end.
const TAIL: usize = 64 << 10;

/// States of the parent that are tried, newest first, when it has grown since.
const MAX_PREFIXES: usize = 4096;

/// The parent of a child, as it was when the child was made.
#[derive(Debug)]
pub(crate) struct Parent {
    pub(crate) view: Arc<View>,
    /// Rows of each ancestor that the child shows, nearest ancestor first.
    shown: OnceLock<Vec<(Arc<View>, Bitmap)>>,
}

/// Why the parent cannot be read, in one sentence that names the file wanted.
pub(crate) type Missing = String;

/// Where the parent is, and how much of it belonged to the child's state.
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
}

/// Finds a child's parent and the prefix of it that its hash stands for. O(segments of the parent).
pub(crate) fn find(
    child: &Path,
    cow: &Cow,
    identity: Option<&FileIdentity>,
    visited: &[(u64, u64)],
) -> Result<Found, Missing> {
    if visited.len() > MAX_DEPTH {
        return Err(format!("the chain of parents is longer than {MAX_DEPTH}"));
    }
    let base = match child.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let path = base.join(&cow.map.parent_path);
    let wanted = path.display().to_string();
    let (file, meta) = open_regular(&path, false).map_err(|e| format!("its parent cannot be opened: {e}"))?;
    if visited.contains(&(meta.dev(), meta.ino())) {
        return Err(format!("{wanted} is its own ancestor"));
    }
    let hash = cow.map.base_file_hash;
    if identity.is_some_and(|i| i.parent_hash != hash || i.parent_id != cow.map.base_file_id) {
        return Err("its two records of the parent disagree".into());
    }
    let bytes = FileBytes::map(&file, meta.len()).map_err(|e| format!("{wanted}: {e}"))?;
    let matches = |end: usize| {
        bytes.get(..end).is_some_and(|b| fold32(b.get(end.saturating_sub(TAIL)..).unwrap_or(&[])) == hash)
    };
    let len = bytes.len();
    if matches(len) {
        return Ok(Found { path, len: len as u64 });
    }
    let layout = layout::walk(&bytes);
    let ends = layout.segments().rev().flat_map(|s| [s.raw.end, s.payload.end]);
    for end in ends.take(MAX_PREFIXES) {
        if usize::try_from(end).is_ok_and(&matches) {
            return Ok(Found { path, len: end });
        }
    }
    Err(format!(
        "{wanted} is not the parent it was made from, or was rewritten since (no state of it has the hash recorded)"
    ))
}

impl Parent {
    pub(crate) fn new(view: Arc<View>) -> Self {
        Self { view, shown: OnceLock::new() }
    }

    /// Rows of the ancestors that `child` shows. O(rows of the ancestors), once.
    pub(crate) fn shown(&self, child: &View) -> &[(Arc<View>, Bitmap)] {
        self.shown.get_or_init(|| {
            let mut sources: Vec<(Arc<View>, Bitmap)> = Vec::new();
            let mut filters: Vec<&View> = vec![child];
            let mut next = Some(&self.view);
            while let Some(view) = next {
                let visible = view.live_ordinals().iter().copied().filter(|ordinal| {
                    let id = view.id(*ordinal);
                    filters.iter().all(|younger| younger.lets_through(id))
                });
                sources.push((Arc::clone(view), Bitmap::from_ordinals(view.rows.total(), visible)));
                filters.push(view);
                next = view.parent.as_ref().and_then(|p| p.as_ref().ok()).map(|p| &p.view);
            }
            sources
        })
    }
}

impl View {
    /// Whether an ancestor's row with this id shows through this file.
    fn lets_through(&self, id: u64) -> bool {
        self.contents.cow.as_ref().is_some_and(|cow| cow.membership.shows(id))
            && self.find(id).is_none()
            && self.deleted_ids.binary_search(&id).is_err()
    }

    /// Inherited rows that match a filter, or all of them.
    pub(crate) fn inherited(&self, filter: Option<&str>) -> Result<Vec<(Arc<View>, Bitmap)>, Error> {
        let parent = match &self.parent {
            None => return Ok(Vec::new()),
            Some(Err(missing)) => {
                return Err(Error::Unsupported {
                    path: self.path.clone(),
                    what: format!("a copy-on-write child whose answers need its parent: {missing}"),
                });
            }
            Some(Ok(parent)) => parent,
        };
        let shown = parent.shown(self);
        let Some(text) = filter.filter(|t| !t.trim().is_empty()) else {
            return Ok(shown.to_vec());
        };
        let expr = filter::parse(text).map_err(|e| Error::BadFilter { what: e.to_string() })?;
        Ok(shown
            .iter()
            .map(|(view, rows)| {
                let matching = rows.iter().filter(|o| self.inherited_matches(&expr, view.id(*o)));
                (Arc::clone(view), Bitmap::from_ordinals(rows.len(), matching))
            })
            .collect())
    }

    fn inherited_matches(&self, expr: &Expr, id: u64) -> bool {
        let metadata = self.metadata();
        let record: Vec<(u16, filter::Value)> = metadata
            .state()
            .records
            .get(&id)
            .map(|r| r.iter().map(|(field, value)| (*field, to_filter_value(value))).collect())
            .unwrap_or_default();
        filter::matches(expr, |field| {
            let wanted = match field {
                FieldRef::Id(id) => *id,
                FieldRef::Name(name) => *metadata.names().iter().find(|(_, n)| *n == name)?.0,
            };
            record.iter().find(|(field, _)| *field == wanted).map(|(_, value)| value)
        })
    }

    /// How many vectors of its ancestors a child shows; 0 for other files. O(n) on first use.
    #[must_use]
    pub fn inherited_count(&self) -> u64 {
        match &self.parent {
            Some(Ok(parent)) => parent.shown(self).iter().map(|(_, rows)| rows.count()).sum(),
            _ => 0,
        }
    }

    /// The parent's path and why it cannot be read, for a copy-on-write child.
    #[must_use]
    pub fn parent_state(&self) -> Option<Result<PathBuf, String>> {
        self.parent.as_ref().map(|p| match p {
            Ok(parent) => Ok(parent.view.path.clone()),
            Err(missing) => Err(missing.clone()),
        })
    }
}
