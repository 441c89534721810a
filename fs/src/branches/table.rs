//! The entries of `branches/`: a number for each, what is being made, and what is being taken away.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::content::Member;
use super::family::{Family, Found, Members};
use super::part::Part;
use super::pending::{Pending, sweep};
use crate::errno::Error;
use crate::node::BranchNo;

/// A symbolic link of a branch, into its store directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Link {
    /// The branch it was made from.
    Parent,
    /// What it shows otherwise than its parent did then.
    Diff,
    /// One of [`Link::INTO`], by place.
    Into(u8),
}

impl Link {
    /// Names of the links to the same name in the store directory.
    pub const INTO: [&'static str; 9] =
        ["query", "ingest", "vectors", "metadata", "segments", "witness", "status", "ctl", "error"];

    /// The link of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "parent" => Some(Self::Parent),
            "diff.jsonl" => Some(Self::Diff),
            _ => Self::INTO.iter().position(|known| *known == name).map(|at| Self::Into(at as u8)),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Parent => "parent",
            Self::Diff => "diff.jsonl",
            Self::Into(at) => Self::INTO.get(usize::from(at)).copied().unwrap_or(""),
        }
    }

    /// The links of a branch; the store itself may have no parent.
    #[must_use]
    pub fn of(has_parent: bool) -> Vec<Self> {
        let own = if has_parent { vec![Self::Parent, Self::Diff] } else { Vec::new() };
        own.into_iter().chain((0..Self::INTO.len()).map(|at| Self::Into(at as u8))).collect()
    }

    /// Whether some branch has a link of that name and target: a copy has the links of what it was copied from.
    #[must_use]
    pub fn is_target(name: &str, target: &str) -> bool {
        match Self::named(name) {
            None => false,
            Some(Self::Parent) => {
                target.strip_prefix("../").is_some_and(|rest| !rest.is_empty() && !rest.contains('/'))
            }
            Some(Self::Diff | Self::Into(_)) => target.strip_prefix("../../").is_some_and(|rest| {
                let inside = rest
                    .strip_prefix(".stores/")
                    .and_then(|rest| rest.split_once('/'))
                    .filter(|(branch, _)| !branch.is_empty());
                inside.map_or(rest, |(_, inside)| inside) == name
            }),
        }
    }
}

/// What an entry is.
#[derive(Debug, Clone)]
pub enum What {
    /// The store itself.
    Main,
    /// A branch's file.
    File(Found),
    /// Something is being copied into it.
    Pending(Arc<Pending>),
}

/// One entry.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its number.
    pub no: BranchNo,
    /// Its name.
    pub name: String,
    /// What it is.
    pub what: What,
    /// The copy that made it, as long as the copying tool may still be at work in it.
    pub copying: Option<Arc<Pending>>,
}

/// Names that were unlinked in a branch come back when the branch itself is not removed within this time.
const HIDDEN: Duration = Duration::from_secs(60);
/// A copying tool that makes nothing for so long is done.
const IDLE: Duration = Duration::from_secs(2);
/// Links under temporary names in one branch.
const MAX_SPARE: usize = 16;
/// Directories being copied into at once.
const MAX_PENDING: usize = 1024;

/// The number of the store itself.
pub const MAIN: BranchNo = BranchNo(0);

/// The branches of one store.
#[derive(Debug)]
pub struct Branches {
    /// Finds those that exist.
    pub family: Family,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u32,
    next_part: u64,
    swept: bool,
    files: HashMap<PathBuf, BranchNo>,
    known: HashMap<BranchNo, Known>,
    parts: HashMap<u64, Arc<Part>>,
}

#[derive(Debug, Default)]
struct Known {
    path: Option<PathBuf>,
    pending: Option<(String, Arc<Pending>)>,
    /// The process that copied it from a frozen branch.
    thawed_by: Option<u32>,
    hidden: HashSet<String>,
    hidden_at: Option<Instant>,
    /// Links under temporary names, which are about to take the place of those that are there.
    spare: BTreeMap<String, Arc<Part>>,
    times: BTreeMap<Member, SystemTime>,
    time: Option<SystemTime>,
    /// How long the file was when they were set: a change of the branch is newer than they are.
    len: u64,
}

impl Known {
    fn length(&self, family: &Family) -> u64 {
        let path = self.path.as_deref().unwrap_or(family.base());
        std::fs::metadata(path).map_or(0, |meta| meta.len())
    }
}

impl Branches {
    /// Those of the store in `base`.
    #[must_use]
    pub fn new(base: &Path) -> Self {
        Self { family: Family::new(base), inner: Mutex::default() }
    }

    /// All entries: `main`, the branches by path, and what is being made.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn list(&self, own: [u8; 16]) -> Result<Vec<Row>, Error> {
        let found = self.found(own)?;
        let mut inner = self.inner.lock();
        inner.sweep(&self.family);
        let mut rows = vec![row(MAIN, "main", What::Main)];
        for found in &found.list {
            let no = inner.number(&found.path);
            rows.push(inner.file_row(no, found));
        }
        let mut pending: Vec<Row> = inner
            .known
            .iter()
            .filter(|(_, known)| known.path.is_none())
            .filter_map(|(no, known)| {
                let (name, pending) = known.pending.as_ref()?;
                Some(row(*no, name, What::Pending(pending.clone())))
            })
            .collect();
        pending.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        rows.extend(pending);
        Ok(rows)
    }

    /// The entry of that name.
    ///
    /// # Errors
    /// [`Error::NotFound`]; when the directory cannot be listed.
    pub fn named(&self, own: [u8; 16], name: &str) -> Result<Row, Error> {
        if name == "main" {
            return Ok(row(MAIN, "main", What::Main));
        }
        // First, for it needs no look at the disk; a file of that name could only have come since, and keeps this one from
        // becoming a branch.
        if let Some(row) = self.inner.lock().pending_named(name) {
            return Ok(row);
        }
        let found = self.found(own)?;
        let found = found.named(name).ok_or(Error::NotFound)?;
        let mut inner = self.inner.lock();
        let no = inner.number(&found.path);
        Ok(inner.file_row(no, found))
    }

    /// The entry of that number.
    ///
    /// # Errors
    /// [`Error::Stale`] when it is gone.
    pub fn numbered(&self, own: [u8; 16], no: BranchNo) -> Result<Row, Error> {
        if no == MAIN {
            return Ok(row(MAIN, "main", What::Main));
        }
        let path = {
            let inner = self.inner.lock();
            let known = inner.known.get(&no).ok_or(Error::Stale)?;
            match (&known.path, &known.pending) {
                (Some(path), _) => path.clone(),
                (None, Some((name, pending))) => return Ok(row(no, name, What::Pending(pending.clone()))),
                (None, None) => return Err(Error::Stale),
            }
        };
        let found = self.found(own)?;
        let found = found.at(&path).ok_or(Error::Stale)?;
        Ok(self.inner.lock().file_row(no, found))
    }

    /// The name of the branch with that file id.
    #[must_use]
    pub fn name_of(&self, own: [u8; 16], file_id: [u8; 16]) -> Option<String> {
        let found = self.found(own).ok()?;
        let mut of_it = found.list.iter().filter(|found| found.kin.is_some_and(|kin| kin.file_id == file_id));
        of_it.next().map(|found| found.name.clone())
    }

    /// Whether [`Branches::named`] answers without reading a file.
    #[must_use]
    pub fn knows_name(&self, own: [u8; 16], name: &str) -> bool {
        name == "main" || self.inner.lock().pending_named(name).is_some() || self.family.is_fresh(own)
    }

    /// Whether [`Branches::numbered`] answers without reading a file.
    #[must_use]
    pub fn knows_number(&self, own: [u8; 16], no: BranchNo) -> bool {
        let pending = || self.inner.lock().known.get(&no).is_none_or(|known| known.path.is_none());
        no == MAIN || pending() || self.family.is_fresh(own)
    }

    /// The number of the branch in that file, if it was ever looked at.
    #[must_use]
    pub fn number_at(&self, path: &Path) -> Option<BranchNo> {
        self.inner.lock().files.get(path).copied()
    }

    fn found(&self, own: [u8; 16]) -> Result<Arc<Members>, Error> {
        self.family
            .members(own)
            .map_err(|error| Error::io(self.family.directory().display().to_string(), error))
    }

    /// A new directory to copy into.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that cannot be a file's; [`Error::Exists`].
    pub fn make(&self, own: [u8; 16], name: &str, maker: Option<u32>) -> Result<BranchNo, Error> {
        self.check_name(name)?;
        match self.named(own, name) {
            Ok(_) => return Err(Error::Exists { what: format!("branches/{name} exists") }),
            Err(Error::NotFound) => {}
            Err(error) => return Err(error),
        }
        // A file of that name that is no branch of this store would be in the way when the copy is whole.
        let path = self.family.path_of(name);
        if path.symlink_metadata().is_ok() {
            return Err(Error::Exists {
                what: format!("{} exists and is no branch of this store", path.display()),
            });
        }
        let mut inner = self.inner.lock();
        if inner.known.values().filter(|known| known.pending.is_some() && known.path.is_none()).count()
            >= MAX_PENDING
        {
            return Err(Error::TooLarge {
                what: format!("more than {MAX_PENDING} branches are being copied"),
            });
        }
        let no = inner.give_number();
        let known = Known { pending: Some((name.to_owned(), Pending::new(name, maker))), ..Known::default() };
        inner.known.insert(no, known);
        Ok(no)
    }

    /// Whether a branch could have that name.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NameTooLong`], [`Error::Exists`] for `main`.
    pub fn check_name(&self, name: &str) -> Result<(), Error> {
        if name == "main" {
            return Err(Error::Exists { what: "main is the store itself".into() });
        }
        if name.is_empty() || name.starts_with('.') || name.chars().any(|c| c.is_control() || c == '/') {
            return Err(Error::invalid(format!(
                "'{}': the name of a branch is part of a file name; it has no /, no control characters and no . in front",
                name.escape_debug()
            )));
        }
        let path = self.family.path_of(name);
        // The hidden names a branch has while it is made are longer by so much.
        if path.file_name().is_none_or(|file| file.len() + 48 > 255) {
            return Err(Error::NameTooLong);
        }
        Ok(())
    }

    /// A copy is whole: the entry is a branch now.
    pub fn settled(&self, no: BranchNo, path: &Path) {
        self.family.changed();
        let mut inner = self.inner.lock();
        inner.files.insert(path.to_path_buf(), no);
        if let Some(known) = inner.known.get_mut(&no) {
            known.path = Some(path.to_path_buf());
            if let Some((_, pending)) = &known.pending
                && pending.done().is_some_and(|done| done.from_frozen)
            {
                known.thawed_by = pending.maker;
            }
        }
    }

    /// The process that copied a branch from a frozen one, while this mount lives.
    #[must_use]
    pub fn thawed_by(&self, no: BranchNo) -> Option<u32> {
        self.inner.lock().known.get(&no)?.thawed_by
    }

    /// A pending directory is given up.
    pub fn abandon(&self, no: BranchNo) {
        let known = self.inner.lock().known.remove(&no);
        if let Some((_, pending)) = known.and_then(|known| known.pending) {
            self.drop_parts(&pending);
            pending.abandon();
        }
    }

    /// A pending directory gets another name.
    pub fn rename_pending(&self, no: BranchNo, new: &str) {
        let pending = {
            let mut inner = self.inner.lock();
            let Some((name, pending)) = inner.known.get_mut(&no).and_then(|k| k.pending.as_mut()) else {
                return;
            };
            new.clone_into(name);
            pending.clone()
        };
        // Not with the table locked: a copy that is being closed holds its own lock and looks into the table.
        pending.rename(new);
    }

    /// Names of the directories into which the branch with that file id is being copied.
    #[must_use]
    pub fn copied_into(&self, file_id: [u8; 16]) -> Vec<String> {
        let inner = self.inner.lock();
        let pending: Vec<Arc<Pending>> =
            inner.known.values().filter_map(|known| Some(known.pending.as_ref()?.1.clone())).collect();
        drop(inner);
        let copies = pending.iter().filter_map(|pending| pending.copies());
        let mut names: Vec<String> = copies.filter(|(_, of)| *of == file_id).map(|(name, _)| name).collect();
        names.sort_unstable();
        names
    }

    /// A branch's file is gone.
    pub fn removed(&self, no: BranchNo) {
        self.family.changed();
        let mut inner = self.inner.lock();
        if let Some(path) = inner.known.remove(&no).and_then(|known| known.path) {
            inner.files.remove(&path);
        }
    }

    /// Other programs removed files: forgets the branches of those that are `gone`.
    pub fn forget_gone(&self, gone: impl Fn(&Path) -> bool) {
        let paths: Vec<PathBuf> = self.inner.lock().files.keys().cloned().collect();
        for path in paths.into_iter().filter(|path| gone(path)) {
            let known = {
                let mut inner = self.inner.lock();
                inner.files.remove(&path).and_then(|no| inner.known.remove(&no))
            };
            if let Some((_, pending)) = known.and_then(|known| known.pending) {
                self.drop_parts(&pending);
            }
        }
    }

    /// A branch's file has another name; the entry keeps its number.
    pub fn renamed(&self, no: BranchNo, path: &Path) {
        self.family.changed();
        let mut inner = self.inner.lock();
        // Whoever looked while the file had neither name may have forgotten the entry.
        let old = inner.known.entry(no).or_default().path.replace(path.to_path_buf());
        if let Some(old) = old {
            inner.files.remove(&old);
        }
        inner.files.insert(path.to_path_buf(), no);
    }

    /// A part gets a number.
    pub fn part_number(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.next_part += 1;
        inner.next_part
    }

    /// Remembers a part by its number.
    pub fn keep_part(&self, part: &Arc<Part>) {
        self.inner.lock().parts.insert(part.no, part.clone());
    }

    /// Takes a link under a temporary name into a branch that exists.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when there are many already.
    pub fn put_spare(&self, no: BranchNo, part: &Arc<Part>) -> Result<(), Error> {
        let mut inner = self.inner.lock();
        let spare = &mut inner.known.entry(no).or_default().spare;
        if spare.len() >= MAX_SPARE {
            return Err(Error::TooLarge {
                what: format!("more than {MAX_SPARE} temporary links in a branch"),
            });
        }
        spare.insert(part.name(), part.clone());
        inner.parts.insert(part.no, part.clone());
        Ok(())
    }

    /// The link under that temporary name.
    #[must_use]
    pub fn spare(&self, no: BranchNo, name: &str) -> Option<Arc<Part>> {
        self.inner.lock().known.get(&no)?.spare.get(name).cloned()
    }

    /// Takes it away.
    pub fn drop_spare(&self, no: BranchNo, name: &str) {
        let mut inner = self.inner.lock();
        let part = inner.known.get_mut(&no).and_then(|known| known.spare.remove(name));
        if let Some(part) = part {
            inner.parts.remove(&part.no);
        }
    }

    /// Forgets a part.
    pub fn drop_part(&self, part: &Part) {
        self.inner.lock().parts.remove(&part.no);
    }

    fn drop_parts(&self, pending: &Pending) {
        let parts = pending.list();
        let mut inner = self.inner.lock();
        for part in parts {
            inner.parts.remove(&part.no);
        }
    }

    /// The part of that number.
    #[must_use]
    pub fn part(&self, no: u64) -> Option<Arc<Part>> {
        self.inner.lock().parts.get(&no).cloned()
    }

    /// The number of a directory that was being copied into.
    #[must_use]
    pub fn number_of(&self, pending: &Arc<Pending>) -> Option<BranchNo> {
        let inner = self.inner.lock();
        let of = |known: &Known| known.pending.as_ref().is_some_and(|(_, own)| Arc::ptr_eq(own, pending));
        inner.known.iter().find(|(_, known)| of(known)).map(|(no, _)| *no)
    }

    /// A name was unlinked in a branch: it is hidden until the branch is removed, or has not been for a while.
    pub fn hide(&self, no: BranchNo, name: &str) {
        let mut inner = self.inner.lock();
        let known = inner.known.entry(no).or_default();
        if known.hidden_at.is_none_or(|at| at.elapsed() > HIDDEN) {
            known.hidden.clear();
        }
        known.hidden.insert(name.to_owned());
        known.hidden_at = Some(Instant::now());
    }

    /// Something was to be made in a branch, so it is not being removed: `cp` unlinks what it means to replace. All names are back.
    pub fn show(&self, no: BranchNo) {
        if let Some(known) = self.inner.lock().known.get_mut(&no) {
            known.hidden.clear();
            known.hidden_at = None;
        }
    }

    /// The names that are hidden in a branch now.
    #[must_use]
    pub fn hidden(&self, no: BranchNo) -> HashSet<String> {
        let inner = self.inner.lock();
        let known = inner.known.get(&no).filter(|k| k.hidden_at.is_some_and(|at| at.elapsed() <= HIDDEN));
        known.map(|known| known.hidden.clone()).unwrap_or_default()
    }

    /// Sets the time of a branch (`None`) or a member, as copying tools do. It holds until the branch changes.
    pub fn set_time(&self, no: BranchNo, member: Option<Member>, time: SystemTime) {
        let mut inner = self.inner.lock();
        let known = inner.known.entry(no).or_default();
        let len = known.length(&self.family);
        if known.len != len {
            known.times.clear();
            known.time = None;
            known.len = len;
        }
        match member {
            Some(member) => {
                known.times.insert(member, time);
            }
            None => known.time = Some(time),
        }
    }

    /// The time that was set on a branch (`None`) or a member, if the file has not changed since.
    #[must_use]
    pub fn time(&self, no: BranchNo, member: Option<Member>) -> Option<SystemTime> {
        let inner = self.inner.lock();
        let known = inner.known.get(&no)?;
        let time = match member {
            Some(member) => known.times.get(&member).copied(),
            None => known.time,
        }?;
        (known.length(&self.family) == known.len).then_some(time)
    }

    /// Names of the links of an entry.
    #[must_use]
    pub fn link_names(has_parent: bool) -> BTreeSet<&'static str> {
        Link::of(has_parent).into_iter().map(Link::name).collect()
    }
}

impl Inner {
    fn pending_named(&self, name: &str) -> Option<Row> {
        self.known.iter().find_map(|(no, known)| {
            let (of, pending) = known.pending.as_ref().filter(|_| known.path.is_none())?;
            (of == name).then(|| row(*no, name, What::Pending(pending.clone())))
        })
    }

    fn sweep(&mut self, family: &Family) {
        if !std::mem::replace(&mut self.swept, true) {
            sweep(family.directory());
        }
    }

    fn give_number(&mut self) -> BranchNo {
        self.next += 1;
        BranchNo(self.next)
    }

    fn number(&mut self, path: &Path) -> BranchNo {
        if let Some(no) = self.files.get(path) {
            return *no;
        }
        let no = self.give_number();
        self.files.insert(path.to_path_buf(), no);
        self.known.insert(no, Known { path: Some(path.to_path_buf()), ..Known::default() });
        no
    }

    fn file_row(&mut self, no: BranchNo, found: &Found) -> Row {
        let mut copying = None;
        let mut over = None;
        if let Some(known) = self.known.get_mut(&no)
            && let Some((_, pending)) = &known.pending
        {
            if pending.is_over(IDLE) {
                for (member, time) in pending.times() {
                    known.times.entry(member).or_insert(time);
                }
                if let (_, Some(time)) = pending.attr() {
                    known.time.get_or_insert(time);
                }
                if known.len == 0 {
                    known.len = std::fs::metadata(&found.path).map_or(0, |meta| meta.len());
                }
                over = known.pending.take();
            } else {
                copying = Some(pending.clone());
            }
        }
        if let Some((_, pending)) = over {
            for part in pending.list() {
                self.parts.remove(&part.no);
            }
        }
        Row { no, name: found.name.clone(), what: What::File(found.clone()), copying }
    }
}

fn row(no: BranchNo, name: &str, what: What) -> Row {
    Row { no, name: name.to_owned(), what, copying: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_those_of_some_branch() {
        for (name, target, fits) in [
            ("parent", "../main", true),
            ("parent", "../a.b", true),
            ("parent", "../../x", false),
            ("parent", "/etc/passwd", false),
            ("query", "../../query", true),
            ("query", "../../.stores/exp/query", true),
            ("query", "../../.stores/exp/ingest", false),
            ("query", "../../.stores/query", false),
            ("query", "../../../query", false),
            ("diff.jsonl", "../../.stores/exp/diff.jsonl", true),
            ("other", "../../other", false),
        ] {
            assert_eq!(Link::is_target(name, target), fits, "{name} -> {target}");
        }
        for link in Link::of(true) {
            assert_eq!(Link::named(link.name()), Some(link));
        }
        assert_eq!(Link::of(false).len(), Link::INTO.len());
    }

    #[test]
    fn names_of_branches_are_parts_of_file_names() {
        let branches = Branches::new(Path::new("/nowhere/f.rvf"));
        for good in ["exp", "a b", "v1.2", "\u{e9}"] {
            branches.check_name(good).expect(good);
        }
        for bad in ["", ".x", "a/b", "a\nb", "main"] {
            assert!(branches.check_name(bad).is_err(), "{bad:?}");
        }
        assert!(matches!(branches.check_name(&"x".repeat(250)), Err(Error::NameTooLong)));
    }
}
