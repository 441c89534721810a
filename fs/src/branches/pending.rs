//! A directory into which a branch is being copied.
//!
//! The copy is bound to one state of one branch by its `origin`, or by the kernel copying a member of it (copy_file_range).
//! From then on a hidden child file of that state lies beside the store, and what is written is compared with it; nothing
//! that is written is kept. When all regular files are whole, the child file gets its name: that is the moment the
//! branch exists. Until then nothing of it survives the mount.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use rvf_cow::{Access, BranchOptions, OpenOptions, Scratch, Store};
use xxhash_rust::xxh3::Xxh3;

use super::content::{self, MAX_ORIGIN, Member, meant_name};
use super::family::Family;
use super::table::Link;
use crate::errno::Error;
use crate::snapshot::Snap;
use crate::store_dir::StoreDir;

pub use rvf_cow::{PENDING, sweep};

/// A piece of a hole.
static ZEROS: [u8; 4096] = [0; 4096];
/// Largest hole that is taken into a hash, in bytes: before a copy is bound nobody knows how long the file may be.
const MAX_HOLE: u64 = 1 << 30;

/// Most names in one pending directory: the members, the links, and a temporary name for each.
const MAX_PARTS: usize = 64;

/// One name in a pending directory.
#[derive(Debug)]
pub struct Part {
    /// Its number in the store.
    pub no: u64,
    /// The target, when it is a symbolic link.
    pub target: Option<String>,
    pending: Weak<Pending>,
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
    /// Of everything written before the copy was bound.
    hash: Option<Box<Hash>>,
    /// The kernel copied all of a member.
    copied: bool,
    /// It differs from what it should be.
    wrong: bool,
    mode: Option<u16>,
    mtime: SystemTime,
}

impl Now {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            len: 0,
            reach: 0,
            head: Vec::new(),
            hash: None,
            copied: false,
            wrong: false,
            mode: None,
            mtime: SystemTime::now(),
        }
    }
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
    /// A link that stands in no copy: `rsync` makes it beside one that it means to replace.
    #[must_use]
    pub fn spare(no: u64, name: &str, target: &str) -> Arc<Self> {
        let now = Now::new(name);
        Arc::new(Self { no, target: Some(target.to_owned()), pending: Weak::new(), now: Mutex::new(now) })
    }

    /// Its name now.
    #[must_use]
    pub fn name(&self) -> String {
        self.now.lock().name.clone()
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

    /// Its size was set beyond what is written: room for what comes, or a hole at its end.
    pub fn set_reach(&self, size: u64) {
        self.now.lock().reach = size;
    }

    /// The directory it is in, while that is pending.
    #[must_use]
    pub fn pending(&self) -> Option<Arc<Pending>> {
        self.pending.upgrade()
    }
}

/// A directory that becomes a branch.
#[derive(Debug)]
pub struct Pending {
    /// The process that made it.
    pub maker: Option<u32>,
    /// When it was made.
    pub since: SystemTime,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    name: String,
    parts: BTreeMap<String, Arc<Part>>,
    bound: Option<Bound>,
    done: Option<Done>,
    gone: bool,
    last: Instant,
    mode: Option<u16>,
    mtime: Option<SystemTime>,
}

/// The state that is copied.
#[derive(Debug)]
struct Bound {
    source: [u8; 16],
    frozen: bool,
    origin: String,
    /// The child, not whole yet. Removed when this is dropped, unless it was published.
    scratch: Scratch,
    mmap: bool,
    /// Its parent's.
    snap: Arc<Snap>,
    links: BTreeSet<&'static str>,
}

/// How the copying ended.
#[derive(Debug, Clone)]
pub struct Done {
    /// The branch's file.
    pub path: PathBuf,
    /// Its parent was frozen, so copying tools will take its mode over.
    pub from_frozen: bool,
}

impl Pending {
    /// A new one.
    #[must_use]
    pub fn new(name: &str, maker: Option<u32>) -> Arc<Self> {
        Arc::new(Self {
            maker,
            since: SystemTime::now(),
            state: Mutex::new(State {
                name: name.to_owned(),
                parts: BTreeMap::new(),
                bound: None,
                done: None,
                gone: false,
                last: Instant::now(),
                mode: None,
                mtime: None,
            }),
        })
    }

    /// Whether the branch exists, and how it came to be.
    #[must_use]
    pub fn done(&self) -> Option<Done> {
        self.state.lock().done.clone()
    }

    /// The name, and the file id of the branch it is a copy of, while it is bound and not whole.
    #[must_use]
    pub fn copies(&self) -> Option<(String, [u8; 16])> {
        let state = self.state.lock();
        let bound = state.bound.as_ref().filter(|_| state.done.is_none() && !state.gone)?;
        Some((state.name.clone(), bound.source))
    }

    /// Whether the copying tool has made everything it will make, or has stopped doing so.
    #[must_use]
    pub fn is_over(&self, idle: std::time::Duration) -> bool {
        let state = self.state.lock();
        let Some(bound) = state.bound.as_ref().filter(|_| state.done.is_some()) else { return state.gone };
        let all =
            bound.links.iter().all(|name| state.parts.get(*name).is_some_and(|part| part.target.is_some()));
        all || state.last.elapsed() > idle
    }

    /// Mode and time of the directory, where they were set.
    #[must_use]
    pub fn attr(&self) -> (Option<u16>, Option<SystemTime>) {
        let state = self.state.lock();
        (state.mode, state.mtime)
    }

    /// Copying tools set mode and times of directories too.
    pub fn set_attr(&self, mode: Option<u16>, mtime: Option<SystemTime>) {
        let mut state = self.state.lock();
        state.mode = mode.or(state.mode);
        state.mtime = mtime.or(state.mtime);
        state.last = Instant::now();
    }

    /// Modification times that were given to members.
    #[must_use]
    pub fn times(&self) -> Vec<(Member, SystemTime)> {
        let state = self.state.lock();
        let parts = state.parts.iter().filter_map(|(name, part)| Some((Member::named(name)?, part)));
        parts
            .filter(|(_, part)| part.now.lock().mode.is_some() || part.now.lock().len > 0)
            .map(|(m, p)| (m, p.now.lock().mtime))
            .collect()
    }

    /// What is in it.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Part>> {
        self.state.lock().parts.values().cloned().collect()
    }

    /// The part of that name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Arc<Part>> {
        self.state.lock().parts.get(name).cloned()
    }

    /// Another name of the directory.
    pub fn rename(&self, name: &str) {
        self.state.lock().name = name.to_owned();
    }

    /// Takes a new name: a file (members, their temporary names, and what archivers put in a link's place for the time
    /// being), or a link with its target.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] for names that no branch has, [`Error::Exists`].
    pub fn make(self: &Arc<Self>, no: u64, name: &str, target: Option<&str>) -> Result<Arc<Part>, Error> {
        let meant = meant_name(name).unwrap_or(name);
        match target {
            Some(target) if !Link::is_target(meant, target) => {
                return Err(Error::denied(format!(
                    "{name}: a branch has no such link; copy a directory of branches/ as it is"
                )));
            }
            None if Member::named(meant).is_none() && Link::named(meant).is_none() => {
                return Err(Error::denied(format!(
                    "{name}: a branch consists of origin, vectors.npy, ids.npy and metadata.jsonl; data goes into its ingest/"
                )));
            }
            _ => {}
        }
        let mut state = self.state.lock();
        if state.parts.contains_key(name) {
            return Err(Error::Exists { what: format!("{name} exists") });
        }
        if state.parts.len() >= MAX_PARTS {
            return Err(Error::TooLarge { what: format!("a branch has no more than {MAX_PARTS} files") });
        }
        let part = Arc::new(Part {
            no,
            target: target.map(str::to_owned),
            pending: Arc::downgrade(self),
            now: Mutex::new(Now::new(name)),
        });
        state.parts.insert(name.to_owned(), part.clone());
        state.last = Instant::now();
        Ok(part)
    }

    /// Takes a name away.
    pub fn remove(&self, name: &str) -> Option<Arc<Part>> {
        let mut state = self.state.lock();
        state.last = Instant::now();
        state.parts.remove(name)
    }

    /// Renames a part, as copying tools do from a temporary name; a part of the new name goes.
    ///
    /// # Errors
    /// As [`Pending::make`]; [`Error::NotFound`].
    pub fn rename_part(&self, name: &str, new: &str) -> Result<Option<Arc<Part>>, Error> {
        let mut state = self.state.lock();
        let part = state.parts.get(name).cloned().ok_or(Error::NotFound)?;
        let meant = meant_name(new).unwrap_or(new);
        let fits = match &part.target {
            Some(target) => Link::is_target(meant, target),
            None => Member::meant(new) == Member::meant(name) && Member::meant(new).is_some(),
        };
        if !fits {
            return Err(Error::denied(format!("{new}: the files of a branch keep their names")));
        }
        state.parts.remove(name);
        part.now.lock().name = new.to_owned();
        let replaced = state.parts.insert(new.to_owned(), part);
        state.last = Instant::now();
        Ok(replaced)
    }

    /// A part is truncated to nothing: it is written anew.
    pub fn truncate(&self, part: &Part) {
        let mut now = part.now.lock();
        now.len = 0;
        now.reach = 0;
        now.head.clear();
        now.hash = None;
        now.copied = false;
        now.wrong = false;
    }

    /// Takes a piece of a part. Nothing is kept of it but a hash, or that it is what it should be.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] when it is not what the bound state holds, or not written from start to end.
    pub fn write(&self, part: &Part, offset: u64, data: &[u8]) -> Result<(), Error> {
        let mut state = self.state.lock();
        state.last = Instant::now();
        let mut now = part.now.lock();
        let Some(member) = Member::meant(&now.name) else {
            return Err(Error::denied(format!("{}: this is a link in every branch", now.name)));
        };
        if let Some(bound) = state.bound.as_ref().filter(|_| offset > now.len && member != Member::Origin) {
            if !is_hole(member, &bound.snap, now.len, offset)? {
                now.wrong = true;
                return Err(differs(&now.name, offset));
            }
            now.len = offset;
        }
        if state.bound.is_none()
            && offset > now.len
            && offset - now.len <= MAX_HOLE
            && member != Member::Origin
        {
            let mut left = offset - now.len;
            let hash = now.hash.get_or_insert_default();
            while left > 0 {
                let piece = left.min(ZEROS.len() as u64);
                hash.0.update(ZEROS.get(..usize::try_from(piece).unwrap_or(0)).unwrap_or(&[]));
                left -= piece;
            }
            now.len = offset;
        }
        if offset != now.len {
            return Err(Error::denied(format!(
                "{}: byte {offset} is written, {} comes next; a copy is written from start to end",
                now.name, now.len
            )));
        }
        if now.head.len() < MAX_ORIGIN {
            let room = (MAX_ORIGIN - now.head.len()).min(data.len());
            now.head.extend_from_slice(data.get(..room).unwrap_or(&[]));
        }
        match &state.bound {
            Some(bound) => {
                let same = match member {
                    Member::Origin => part_of(bound.origin.as_bytes(), offset, data.len()) == Some(data),
                    member => member.holds(&bound.snap, offset, data)?,
                };
                if !same {
                    now.wrong = true;
                    return Err(differs(&now.name, offset));
                }
            }
            None => now.hash.get_or_insert_default().0.update(data),
        }
        now.len += data.len() as u64;
        Ok(())
    }

    /// The kernel copies `len` bytes of `member` of the branch `source` from `offset` on, of `whole` in all. Moves nothing.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] when the copy is bound to another branch, or the piece does not come next; what
    /// making the child refuses.
    pub fn copy(
        &self,
        part: &Part,
        member: Member,
        source: &Source<'_>,
        offset: u64,
        len: u64,
        whole: u64,
    ) -> Result<u64, Error> {
        let mut state = self.state.lock();
        state.last = Instant::now();
        {
            let now = part.now.lock();
            if Member::meant(&now.name) != Some(member) {
                return Err(Error::denied(format!("{}: this is not {}", now.name, member.name())));
            }
            if offset != now.len {
                return Err(Error::denied(format!("{}: a copy is written from start to end", now.name)));
            }
        }
        match &state.bound {
            Some(bound) if bound.source != source.file_id => {
                return Err(Error::denied(format!(
                    "{}: this is a copy of another branch; copy each branch into a directory of its own",
                    part.name()
                )));
            }
            Some(_) => {}
            None => {
                bind(&mut state, source)?;
                verify_earlier(&state)?;
            }
        }
        let taken = len.min(whole.saturating_sub(offset));
        let mut now = part.now.lock();
        now.len += taken;
        // The branch is the state that it was bound to, also when its source has gone on since.
        now.copied = now.len >= whole;
        Ok(taken)
    }

    /// A part was closed or got its name. Binds the copy when it is a whole origin; makes the branch when everything is
    /// whole. Gives whether it did that.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] when something that was written is not what the state holds; what making the child refuses.
    pub fn closed(
        &self,
        part: &Part,
        family: &Family,
        find: impl FnOnce([u8; 16]) -> Result<Found, Error>,
    ) -> Result<bool, Error> {
        let mut state = self.state.lock();
        state.last = Instant::now();
        if state.done.is_some() || state.gone || part.target.is_some() {
            return Ok(false);
        }
        if state.bound.is_none() && Member::meant(&part.name()) == Some(Member::Origin) {
            let head = part.now.lock().head.clone();
            if head.is_empty() {
                return Ok(false);
            }
            let found = find(content::file_id_in(&head)?)?;
            if part.now.lock().len != head.len() as u64 || found.origin.as_bytes() != head {
                return Err(moved_on(&found.name));
            }
            bind(&mut state, &found.source())?;
            if state.bound.as_ref().is_some_and(|bound| bound.origin.as_bytes() != head) {
                // It changed between the look at it and the child's being made.
                state.bound = None;
                return Err(moved_on(&found.name));
            }
            verify_earlier(&state)?;
        }
        let Some(bound) = &state.bound else { return Ok(false) };
        let own = part.now.lock();
        if own.wrong {
            return Err(differs(&own.name, own.len));
        }
        drop(own);
        if Member::ALL.iter().any(|(_, name)| !state.parts.contains_key(*name)) {
            return Ok(false);
        }
        // Everything is there: now or never. Tools try another way when the kernel's copying is refused, so it is said again.
        if let Some((name, part)) = state.parts.iter().find(|(_, part)| part.now.lock().wrong) {
            return Err(differs(name, part.now.lock().len));
        }
        for (member, name) in Member::ALL {
            let Some(part) = state.parts.get(name) else { return Ok(false) };
            let mut now = part.now.lock();
            if now.hash.is_some() {
                return Ok(false);
            }
            if now.copied {
                // How long it is was known when the kernel copied it; to ask anew would render all metadata.
                continue;
            }
            let want = match member {
                Member::Origin => bound.origin.len() as u64,
                member => member.len(&bound.snap),
            };
            let end = now.reach.min(want);
            if member != Member::Origin && end > now.len && is_hole(member, &bound.snap, now.len, end)? {
                now.len = end;
            }
            if now.len != want {
                return Ok(false);
            }
        }
        check_whole(bound)?;
        let path = family.path_of(&state.name);
        let Some(bound) = &mut state.bound else { return Ok(false) };
        bound.scratch.publish(&path)?;
        let from_frozen = bound.frozen;
        state.done = Some(Done { path, from_frozen });
        Ok(true)
    }

    /// Gives the copying up: nothing of it stays.
    pub fn abandon(&self) {
        let mut state = self.state.lock();
        state.gone = true;
        state.parts.clear();
        if state.done.is_none() {
            state.bound = None;
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.abandon();
    }
}

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

/// Makes the hidden child file of the source's state now.
fn bind(state: &mut State, source: &Source<'_>) -> Result<(), Error> {
    if state.gone {
        return Err(Error::NotFound);
    }
    let stem = source.base.file_stem().unwrap_or_default().to_string_lossy();
    let extension = source.base.extension().map_or("rvf".into(), |e| e.to_string_lossy());
    let name = format!("{stem}.{}.{extension}", state.name);
    let scratch = Scratch::new(&source.base.with_file_name(name))?;
    let options = BranchOptions { name: state.name.clone(), ..BranchOptions::default() };
    // The name it gets at the end is made durable, this one need not be.
    let (_, view) = source.dir.store.branch_into(&scratch, &options)?;
    // What the branch shows is what its parent shows in that state; what is known of it need not be found out again.
    let newest = source.dir.snap();
    let snap = if Arc::ptr_eq(&newest.view, &view) { newest } else { Arc::new(Snap::new(view, Weak::new())) };
    state.bound = Some(Bound {
        source: source.file_id,
        frozen: snap.view.frozen().is_some(),
        origin: content::origin(&snap),
        scratch,
        mmap: source.dir.settings.mmap,
        snap,
        links: source.links.clone(),
    });
    Ok(())
}

/// Fails when the branch would not find its parent: another program may have moved or removed it since the copy was bound.
fn check_whole(bound: &Bound) -> Result<(), Error> {
    let open =
        OpenOptions { access: Access::ReadOnly, mmap: bound.mmap, verify: false, ..OpenOptions::default() };
    let store = Store::open(bound.scratch.path(), &open)?;
    store.view().complete().map_err(|error| {
        Error::denied(format!("the branch that is copied was moved or removed meanwhile: {error}"))
    })
}

/// Whether the state holds nothing but zeros from `from` to `to`, which some tools leave out. O(bytes) up to the first other one.
fn is_hole(member: Member, snap: &Arc<Snap>, from: u64, to: u64) -> Result<bool, Error> {
    if to > member.len(snap) {
        return Ok(false);
    }
    let mut at = from;
    while at < to {
        let len = (to - at).min(ZEROS.len() as u64);
        let piece = ZEROS.get(..usize::try_from(len).unwrap_or(0)).unwrap_or(&[]);
        if !member.holds(snap, at, piece)? {
            return Ok(false);
        }
        at += len;
    }
    Ok(true)
}

/// Compares what was written before the copy was bound.
fn verify_earlier(state: &State) -> Result<(), Error> {
    let Some(bound) = &state.bound else { return Ok(()) };
    let mut result = Ok(());
    for part in state.parts.values() {
        let mut now = part.now.lock();
        let (Some(member), Some(hash)) = (Member::meant(&now.name), now.hash.take()) else { continue };
        if member == Member::Origin {
            continue;
        }
        let (mut own, mut seen) = (Xxh3::new(), 0);
        member.walk(&bound.snap, now.len, |piece| {
            own.update(piece);
            seen += piece.len() as u64;
        })?;
        if seen != now.len || own.digest128() != hash.0.digest128() {
            now.wrong = true;
            result = Err(differs(&now.name, now.len));
        }
    }
    result
}

fn differs(name: &str, offset: u64) -> Error {
    Error::denied(format!(
        "{name}: differs from the branch that is copied, at or before byte {offset}; a branch is made by copying one as it is, and changed afterwards"
    ))
}

fn moved_on(name: &str) -> Error {
    Error::denied(format!("origin: {name} has changed since this copy of it was taken; copy it again"))
}

fn part_of(whole: &[u8], offset: u64, len: usize) -> Option<&[u8]> {
    let from = usize::try_from(offset).ok()?;
    whole.get(from..from.checked_add(len)?)
}
