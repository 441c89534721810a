//! A directory into which a branch is being copied.
//!
//! The copy is bound to one state of one branch by its `origin`, or by the kernel copying a member of it (copy_file_range).
//! From then on a hidden child file of that state lies beside the store, and what is written is compared with it; nothing
//! that is written is kept. When all regular files are whole, the child file gets its name: that is the moment the
//! branch exists. Until then nothing of it survives the mount.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;

use super::bound::{Bound, Found, Source};
use super::content::{self, Member, meant_name};
use super::family::Family;
use super::part::Part;
use super::table::Link;
use crate::errno::Error;

pub use rvf_cow::{PENDING, sweep};

/// Most names in one pending directory: the members, the links, and a temporary name for each.
const MAX_PARTS: usize = 64;

/// A directory that becomes a branch.
#[derive(Debug)]
pub struct Pending {
    /// The process that made it.
    pub maker: Option<u32>,
    /// When it was made.
    pub since: SystemTime,
    /// Locked for as long as the copy is bound, compared or made a branch, which wait for disks and for other programs. The
    /// other locks, which are taken after this one, are never held while anything is waited for: whoever answers the kernel
    /// takes them.
    bound: Mutex<Option<Bound>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    name: String,
    parts: BTreeMap<String, Arc<Part>>,
    /// What is copied, from the moment on in which the copy begins to be bound.
    copied: Option<Copied>,
    done: Option<Done>,
    gone: bool,
    last: Instant,
    mode: Option<u16>,
    mtime: Option<SystemTime>,
}

/// The branch that is copied.
#[derive(Debug)]
struct Copied {
    file_id: [u8; 16],
    /// The links that are shown in it.
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
            bound: Mutex::new(None),
            state: Mutex::new(State {
                name: name.to_owned(),
                parts: BTreeMap::new(),
                copied: None,
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

    /// The name, and the file id of the branch it is a copy of, while it is being bound, or bound and not whole.
    #[must_use]
    pub fn copies(&self) -> Option<(String, [u8; 16])> {
        let state = self.state.lock();
        let copied = state.copied.as_ref().filter(|_| state.done.is_none() && !state.gone)?;
        Some((state.name.clone(), copied.file_id))
    }

    /// Whether the copying tool has made everything it will make, or has stopped doing so.
    #[must_use]
    pub fn is_over(&self, idle: std::time::Duration) -> bool {
        let state = self.state.lock();
        let Some(copied) = state.copied.as_ref().filter(|_| state.done.is_some()) else { return state.gone };
        let all =
            copied.links.iter().all(|name| state.parts.get(*name).is_some_and(|part| part.target.is_some()));
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
        let time = |(name, part): (&String, &Arc<Part>)| Some((Member::named(name)?, part.time()?));
        state.parts.iter().filter_map(time).collect()
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
        let part = Part::new(no, name, target, Arc::downgrade(self));
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
        part.set_name(new);
        let replaced = state.parts.insert(new.to_owned(), part);
        state.last = Instant::now();
        Ok(replaced)
    }

    /// Takes a piece of a part. Nothing is kept of it but a hash, or that it is what it should be.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] when it is not what the bound state holds, or not written from start to end.
    pub fn write(&self, part: &Part, offset: u64, data: &[u8]) -> Result<(), Error> {
        let bound = self.bound.lock();
        self.state.lock().last = Instant::now();
        part.take(bound.as_ref(), offset, data)
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
        let mut bound = self.bound.lock();
        self.state.lock().last = Instant::now();
        part.check_next(member, offset)?;
        match &*bound {
            Some(_) if !self.is_copy_of(source) => {
                return Err(Error::denied(format!(
                    "{}: this is a copy of another branch; copy each branch into a directory of its own",
                    part.name()
                )));
            }
            Some(_) => {}
            None => {
                let bound = bound.insert(self.bind(source)?);
                self.compare_earlier(bound)?;
            }
        }
        let taken = len.min(whole.saturating_sub(offset));
        part.copied(taken, whole);
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
        if part.target.is_some() {
            return Ok(false);
        }
        let mut bound = self.bound.lock();
        {
            let mut state = self.state.lock();
            state.last = Instant::now();
            if state.done.is_some() || state.gone {
                return Ok(false);
            }
        }
        if bound.is_none()
            && let Some((text, is_all)) = part.origin()
        {
            let found = find(content::file_id_in(&text)?)?;
            if !is_all || found.origin.as_bytes() != text {
                return Err(moved_on(&found.name));
            }
            let made = self.bind(&found.source())?;
            if made.origin.as_bytes() != text {
                // It changed between the look at it and the child's being made.
                self.state.lock().copied = None;
                return Err(moved_on(&found.name));
            }
            *bound = Some(made);
        }
        let Some(bound) = &mut *bound else { return Ok(false) };
        self.compare_earlier(bound)?;
        part.check()?;
        let parts = self.state.lock().parts.clone();
        if Member::ALL.iter().any(|(_, name)| !parts.contains_key(*name)) {
            return Ok(false);
        }
        // Everything is there: now or never. Tools try another way when the kernel's copying is refused, so it is said again.
        parts.values().try_for_each(|part| part.check())?;
        for (member, name) in Member::ALL {
            match parts.get(name) {
                Some(part) if part.is_whole(member, bound)? => {}
                _ => return Ok(false),
            }
        }
        let path = {
            let state = self.state.lock();
            if state.gone {
                return Ok(false);
            }
            family.path_of(&state.name)
        };
        bound.publish(&path)?;
        self.state.lock().done = Some(Done { path, from_frozen: bound.frozen });
        Ok(true)
    }

    /// Gives the copying up: nothing of it stays.
    pub fn abandon(&self) {
        {
            let mut state = self.state.lock();
            state.gone = true;
            state.parts.clear();
        }
        // Waits for whoever binds it now.
        let mut bound = self.bound.lock();
        if self.state.lock().done.is_none() {
            *bound = None;
        }
    }

    fn is_copy_of(&self, source: &Source<'_>) -> bool {
        self.state.lock().copied.as_ref().is_some_and(|copied| copied.file_id == source.file_id)
    }

    /// Binds the copy to the source's state now. With `bound` locked, and only that: the source may be locked for long.
    fn bind(&self, source: &Source<'_>) -> Result<Bound, Error> {
        let name = {
            let mut state = self.state.lock();
            if state.gone {
                return Err(Error::NotFound);
            }
            state.copied = Some(Copied { file_id: source.file_id, links: source.links.clone() });
            state.name.clone()
        };
        let made = Bound::new(source, &name);
        let mut state = self.state.lock();
        if made.is_err() {
            state.copied = None;
        }
        let gone = state.gone;
        drop(state);
        made.and_then(|made| if gone { Err(Error::NotFound) } else { Ok(made) })
    }

    /// Compares what was written before the copy was bound. What could not be compared then is when this is called again.
    fn compare_earlier(&self, bound: &Bound) -> Result<(), Error> {
        let parts = self.list();
        // Each that differs has to know of it before the first says so.
        let mut result = Ok(());
        for part in &parts {
            if !part.compare(bound)? {
                result = part.check();
            }
        }
        result
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.abandon();
    }
}

fn moved_on(name: &str) -> Error {
    Error::denied(format!("origin: {name} has changed since this copy of it was taken; copy it again"))
}
