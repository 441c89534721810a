//! The state of a branch that a copy is bound to.
//!
//! A hidden child file of that state lies beside the store from the moment on in which the copy is bound. It gets its name
//! when the copy is whole, and goes when the copy is given up.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use rvf_cow::{Access, BranchOptions, OpenOptions, Scratch, Store};

use super::content::{self, Member};
use crate::errno::Error;
use crate::snapshot::Snap;
use crate::store_dir::StoreDir;

/// A piece of a hole.
pub(super) static ZEROS: [u8; 4096] = [0; 4096];

/// A branch that can be copied.
#[derive(Debug)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its store.
    pub dir: Arc<StoreDir>,
    /// Its `origin` now.
    pub origin: String,
    /// Its file id.
    pub file_id: [u8; 16],
    /// Where branches of the store lie that the copy is made in.
    pub family: PathBuf,
    /// The links that are shown in it.
    pub links: BTreeSet<&'static str>,
}

impl Found {
    /// As what is bound to.
    #[must_use]
    pub fn source(&self) -> Source<'_> {
        Source { dir: &self.dir, file_id: self.file_id, base: &self.family, links: &self.links }
    }
}

/// What a copy is bound to.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its store.
    pub dir: &'a StoreDir,
    /// Its file id.
    pub file_id: [u8; 16],
    /// The file of the store that the copy is made in.
    pub base: &'a Path,
    /// The links that are shown in it.
    pub links: &'a BTreeSet<&'static str>,
}

/// The state that is copied.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) frozen: bool,
    pub(super) origin: String,
    /// The child, not whole yet. Removed when this is dropped, unless it was published.
    scratch: Scratch,
    mmap: bool,
    /// Its parent's.
    snap: Arc<Snap>,
}

impl Bound {
    /// Makes the hidden child file of the source's state now, for a branch of this name.
    pub(super) fn new(source: &Source<'_>, name: &str) -> Result<Self, Error> {
        let stem = source.base.file_stem().unwrap_or_default().to_string_lossy();
        let extension = source.base.extension().map_or("rvf".into(), |e| e.to_string_lossy());
        let scratch = Scratch::new(&source.base.with_file_name(format!("{stem}.{name}.{extension}")))?;
        let options = BranchOptions { name: name.to_owned(), ..BranchOptions::default() };
        // The name it gets at the end is made durable, this one need not be.
        let (_, view) = source.dir.store.branch_into(&scratch, &options)?;
        // What the branch shows is what its parent shows in that state; what is known of it need not be found out again.
        let newest = source.dir.snap();
        let snap =
            if Arc::ptr_eq(&newest.view, &view) { newest } else { Arc::new(Snap::new(view, Weak::new())) };
        Ok(Self {
            frozen: snap.view.frozen().is_some(),
            origin: content::origin(&snap),
            scratch,
            mmap: source.dir.settings.mmap,
            snap,
        })
    }

    /// Bytes of a member.
    pub(super) fn len(&self, member: Member) -> u64 {
        match member {
            Member::Origin => self.origin.len() as u64,
            member => member.len(&self.snap),
        }
    }

    /// Whether `data` is what a member holds at `offset`.
    pub(super) fn holds(&self, member: Member, offset: u64, data: &[u8]) -> Result<bool, Error> {
        match member {
            Member::Origin => Ok(part_of(self.origin.as_bytes(), offset, data.len()) == Some(data)),
            member => member.holds(&self.snap, offset, data),
        }
    }

    /// Gives the first `len` bytes of a member other than `origin` to `each`, piece by piece.
    pub(super) fn walk(&self, member: Member, len: u64, each: impl FnMut(&[u8])) -> Result<(), Error> {
        member.walk(&self.snap, len, each)
    }

    /// Whether a member holds nothing but zeros from `from` to `to`, which some tools leave out. O(bytes) up to the first other
    /// one.
    pub(super) fn has_hole(&self, member: Member, from: u64, to: u64) -> Result<bool, Error> {
        if to > self.len(member) {
            return Ok(false);
        }
        let mut at = from;
        while at < to {
            let len = (to - at).min(ZEROS.len() as u64);
            let piece = ZEROS.get(..usize::try_from(len).unwrap_or(0)).unwrap_or(&[]);
            if !self.holds(member, at, piece)? {
                return Ok(false);
            }
            at += len;
        }
        Ok(true)
    }

    /// Gives the child file its name: from now on the branch exists.
    ///
    /// # Errors
    /// When the branch would not find its parent, which another program may have moved or removed since the copy was bound;
    /// [`Error::Exists`] when a file has that name.
    pub(super) fn publish(&mut self, path: &Path) -> Result<(), Error> {
        let open = OpenOptions {
            access: Access::ReadOnly,
            mmap: self.mmap,
            verify: false,
            ..OpenOptions::default()
        };
        Store::open(self.scratch.path(), &open)?.view().complete().map_err(|error| {
            Error::denied(format!("the branch that is copied was moved or removed meanwhile: {error}"))
        })?;
        Ok(self.scratch.publish(path)?)
    }
}

fn part_of(whole: &[u8], offset: u64, len: usize) -> Option<&[u8]> {
    let from = usize::try_from(offset).ok()?;
    whole.get(from..from.checked_add(len)?)
}
