//! One name in a directory into which a branch is being copied, and what is remembered of what was written to it.
//!
//! No byte is kept. What comes before the copy is bound goes into a hash, what comes afterwards is compared at once with
//! the state that is copied.

use std::sync::{Arc, Weak};
use std::time::SystemTime;

use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3;

use super::bound::{Bound, ZEROS};
use super::content::{MAX_ORIGIN, Member};
use super::pending::Pending;
use crate::errno::Error;

/// Largest hole that is taken into a hash, in bytes: before a copy is bound nobody knows how long the file may be.
const MAX_HOLE: u64 = 1 << 30;

/// One name in a pending directory.
#[derive(Debug)]
pub struct Part {
    /// Its number in the store.
    pub no: u64,
    /// The target, when it is a symbolic link.
    pub target: Option<String>,
    pending: Weak<Pending>,
    /// Not locked while anything is looked up in the state that is copied: that may have to come from the disk, and whoever
    /// asks for attributes must not wait for it.
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    name: String,
    len: u64,
    /// The size that was set: what lies behind the last byte written is a hole.
    reach: u64,
    /// The first bytes, enough for an `origin`.
    head: Vec<u8>,
    /// Of everything written before the copy was bound, until it is compared.
    hash: Option<Box<Hash>>,
    /// The kernel copied all of a member.
    copied: bool,
    /// It differs from what it should be.
    wrong: bool,
    mode: Option<u16>,
    mtime: SystemTime,
}

#[derive(Default)]
struct Hash(Xxh3);

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hash")
    }
}

/// What `stat` shows of a part.
#[derive(Debug, Clone, Copy)]
pub struct PartAttr {
    /// Bytes written.
    pub len: u64,
    /// Permission bits.
    pub mode: u16,
    /// Modification time.
    pub mtime: SystemTime,
}

impl Part {
    pub(super) fn new(no: u64, name: &str, target: Option<&str>, pending: Weak<Pending>) -> Arc<Self> {
        let now = Now {
            name: name.to_owned(),
            len: 0,
            reach: 0,
            head: Vec::new(),
            hash: None,
            copied: false,
            wrong: false,
            mode: None,
            mtime: SystemTime::now(),
        };
        Arc::new(Self { no, target: target.map(str::to_owned), pending, now: Mutex::new(now) })
    }

    /// A link that stands in no copy: `rsync` makes it beside one that it means to replace.
    #[must_use]
    pub fn spare(no: u64, name: &str, target: &str) -> Arc<Self> {
        Self::new(no, name, Some(target), Weak::new())
    }

    /// Its name now.
    #[must_use]
    pub fn name(&self) -> String {
        self.now.lock().name.clone()
    }

    pub(super) fn set_name(&self, name: &str) {
        self.now.lock().name = name.to_owned();
    }

    /// What `stat` shows.
    #[must_use]
    pub fn attr(&self) -> PartAttr {
        let now = self.now.lock();
        let len = self.target.as_ref().map_or(now.len, |target| target.len() as u64);
        PartAttr { len, mode: now.mode.unwrap_or(0o644), mtime: now.mtime }
    }

    /// Copying tools set mode and times.
    pub fn set_attr(&self, mode: Option<u16>, mtime: Option<SystemTime>) {
        let mut now = self.now.lock();
        now.mode = mode.or(now.mode);
        now.mtime = mtime.unwrap_or(now.mtime);
    }

    /// Its modification time, once something was written to it or its mode was set.
    pub(super) fn time(&self) -> Option<SystemTime> {
        let now = self.now.lock();
        (now.mode.is_some() || now.len > 0).then_some(now.mtime)
    }

    /// Its size was set beyond what is written: room for what comes, or a hole at its end.
    pub fn set_reach(&self, size: u64) {
        self.now.lock().reach = size;
    }

    /// It is truncated to nothing: it is written anew.
    pub fn truncate(&self) {
        let mut now = self.now.lock();
        now.len = 0;
        now.reach = 0;
        now.head.clear();
        now.hash = None;
        now.copied = false;
        now.wrong = false;
    }

    /// The directory it is in, while that is pending.
    #[must_use]
    pub fn pending(&self) -> Option<Arc<Pending>> {
        self.pending.upgrade()
    }

    /// Takes the piece at `offset`.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] when it is not what the state holds that the copy is bound to, or does not come next.
    pub(super) fn take(&self, bound: Option<&Bound>, offset: u64, data: &[u8]) -> Result<(), Error> {
        let (name, len) = {
            let now = self.now.lock();
            (now.name.clone(), now.len)
        };
        let Some(member) = Member::meant(&name) else {
            return Err(Error::denied(format!("{name}: this is a link in every branch")));
        };
        let is_hole = offset > len && member != Member::Origin;
        if offset != len && !is_hole {
            return Err(out_of_order(&name, offset, len));
        }
        if let Some(bound) = bound
            && ((is_hole && !bound.has_hole(member, len, offset)?) || !bound.holds(member, offset, data)?)
        {
            return Err(self.now.lock().went_wrong(offset));
        }
        let mut now = self.now.lock();
        if now.len == len && is_hole {
            match bound {
                Some(_) => now.len = offset,
                None => now.hash_hole(offset),
            }
        }
        // The hole was too large, or it was truncated meanwhile.
        if now.len != offset {
            return Err(out_of_order(&name, offset, now.len));
        }
        if now.head.len() < MAX_ORIGIN {
            let room = (MAX_ORIGIN - now.head.len()).min(data.len());
            now.head.extend_from_slice(data.get(..room).unwrap_or(&[]));
        }
        if bound.is_none() {
            now.hash.get_or_insert_default().0.update(data);
        }
        now.len += data.len() as u64;
        Ok(())
    }

    /// Fails unless the kernel may copy `member` to it from `offset` on.
    pub(super) fn check_next(&self, member: Member, offset: u64) -> Result<(), Error> {
        let now = self.now.lock();
        if Member::meant(&now.name) != Some(member) {
            return Err(Error::denied(format!("{}: this is not {}", now.name, member.name())));
        }
        if offset != now.len {
            return Err(Error::denied(format!("{}: a copy is written from start to end", now.name)));
        }
        Ok(())
    }

    /// The kernel copied the next `len` bytes of a member that has `whole`.
    pub(super) fn copied(&self, len: u64, whole: u64) {
        let mut now = self.now.lock();
        now.len += len;
        // The branch is the state that it was bound to, also when its source has gone on since.
        now.copied = now.len >= whole;
    }

    /// The text written to it, when it is an `origin`: its first bytes, and whether there are no others.
    pub(super) fn origin(&self) -> Option<(Vec<u8>, bool)> {
        let now = self.now.lock();
        let is_one = Member::meant(&now.name) == Some(Member::Origin) && !now.head.is_empty();
        is_one.then(|| (now.head.clone(), now.len == now.head.len() as u64))
    }

    /// Compares what was written before the copy was bound. Gives whether it is what it should be.
    ///
    /// # Errors
    /// When a file of the chain was changed underneath; it can be compared again.
    pub(super) fn compare(&self, bound: &Bound) -> Result<bool, Error> {
        let (member, len, written, head) = {
            let now = self.now.lock();
            let (Some(member), Some(hash)) = (Member::meant(&now.name), &now.hash) else { return Ok(true) };
            (member, now.len, hash.0.digest128(), now.head.clone())
        };
        let alike = if member == Member::Origin {
            len == head.len() as u64 && bound.holds(member, 0, &head)?
        } else {
            let (mut own, mut seen) = (Xxh3::new(), 0);
            bound.walk(member, len, |piece| {
                own.update(piece);
                seen += piece.len() as u64;
            })?;
            seen == len && own.digest128() == written
        };
        let mut now = self.now.lock();
        // Else it was truncated meanwhile, and nothing was written to it before the copy was bound.
        if now.hash.take().is_some() {
            now.wrong |= !alike;
        }
        Ok(!now.wrong)
    }

    /// Fails when something in it is not what it should be.
    pub(super) fn check(&self) -> Result<(), Error> {
        let now = self.now.lock();
        if now.wrong { Err(differs(&now.name, now.len)) } else { Ok(()) }
    }

    /// Whether all of the member was written. What may be missing at its end are zeros that its size makes up for.
    ///
    /// # Errors
    /// When a file of the chain was changed underneath.
    pub(super) fn is_whole(&self, member: Member, bound: &Bound) -> Result<bool, Error> {
        let (len, reach) = {
            let now = self.now.lock();
            if now.hash.is_some() {
                return Ok(false);
            }
            if now.copied {
                // How long it is was known when the kernel copied it; to ask anew would render all metadata.
                return Ok(true);
            }
            (now.len, now.reach)
        };
        let want = bound.len(member);
        let end = reach.min(want);
        let has_hole = member != Member::Origin && end > len && bound.has_hole(member, len, end)?;
        let mut now = self.now.lock();
        if has_hole && now.len == len {
            now.len = end;
        }
        Ok(now.len == want)
    }
}

impl Now {
    /// Takes zeros up to an offset into the hash, unless they are more than a copy may leave out.
    fn hash_hole(&mut self, to: u64) {
        let mut left = to - self.len;
        if left > MAX_HOLE {
            return;
        }
        let hash = self.hash.get_or_insert_default();
        while left > 0 {
            let piece = left.min(ZEROS.len() as u64);
            hash.0.update(ZEROS.get(..usize::try_from(piece).unwrap_or(0)).unwrap_or(&[]));
            left -= piece;
        }
        self.len = to;
    }

    fn went_wrong(&mut self, offset: u64) -> Error {
        self.wrong = true;
        differs(&self.name, offset)
    }
}

fn out_of_order(name: &str, offset: u64, next: u64) -> Error {
    Error::denied(format!(
        "{name}: byte {offset} is written, {next} comes next; a copy is written from start to end"
    ))
}

fn differs(name: &str, offset: u64) -> Error {
    Error::denied(format!(
        "{name}: differs from the branch that is copied, at or before byte {offset}; a branch is made by copying one as it is, and changed afterwards"
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rvf_cow::{BadRow, Batch, CreateOptions, Metric, NoProgress, Store};

    use super::super::bound::Source;
    use super::*;
    use crate::node::StoreId;
    use crate::store_dir::{Settings, StoreDir};

    #[test]
    fn what_could_not_be_compared_is_not_whole() {
        let place = tempfile::tempdir().expect("a place");
        let path = place.path().join("a.rvf");
        let options = CreateOptions { dimension: 4, metric: Metric::L2, profile: 0 };
        let store = Store::create(&path, &options).expect("a store");
        let batch = Batch {
            dimension: 4,
            ids: None,
            vectors: vec![1.0; 4 * 5000],
            metadata: Vec::new(),
            on_bad_row: BadRow::Refuse,
        };
        store.ingest(&batch, &NoProgress).expect("rows");
        let settings = Arc::new(Settings::default());
        let dir = StoreDir::of_store(StoreId(0), store, place.path().to_owned(), settings);
        let (file_id, links) = (dir.file_id(), BTreeSet::new());
        let bound = Bound::new(&Source { dir: &dir, file_id, base: &path, links: &links }, "exp");
        let bound = bound.expect("a hidden child");
        let part = Part::new(1, "vectors.npy", None, Weak::new());
        let len = bound.len(Member::VectorsNpy);
        part.take(None, 0, &vec![7; usize::try_from(len).expect("small")]).expect("not bound yet");
        let bytes = std::fs::read(&path).expect("read");
        // The file is gone for a moment.
        std::fs::File::options().write(true).open(&path).and_then(|file| file.set_len(4096)).expect("cut");
        for _ in 0..2 {
            part.compare(&bound).expect_err("it cannot be compared");
            assert!(!part.is_whole(Member::VectorsNpy, &bound).expect("no reading"));
            std::fs::write(&path, &bytes).expect("it comes back");
        }
    }
}
