//! A disk that remembers: a mounted filesystem in memory that records every change, so that what a crash of the machine can
//! leave is known for every moment; that fails when it is told to; and that can do without hard links.
//!
//! What was not synced may be lost, cut short or done in another order, file by file. Names are durable once their directory
//! was synced; until then any of the changes to names may be missing, and those that are not keep their order.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, Session, TimeOrNow,
    WriteFlags,
};
use tempfile::TempDir;

const TTL: Duration = Duration::ZERO;
const ROOT: u64 = 1;

/// SplitMix64, so that a crash is repeatable from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

/// The files of a directory.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// One change that was asked for.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Write(u64, u64, Vec<u8>),
    Truncate(u64, u64),
    Sync(u64),
    /// A new file, or another name of one.
    Name(OsString, u64),
    Unlink(OsString),
    Rename(OsString, OsString),
    SyncNames,
}

impl Change {
    /// Whether a full disk could refuse it.
    fn takes_space(&self) -> bool {
        matches!(self, Self::Write(..) | Self::Name(..))
    }
}

/// What is on the disk for certain, and what was done since.
#[derive(Debug, Clone, Default)]
pub(crate) struct Image {
    files: BTreeMap<u64, FileImage>,
    names: BTreeMap<OsString, u64>,
    durable: BTreeMap<OsString, u64>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone, Default)]
struct FileImage {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

fn change_bytes(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(_, offset, data) => {
            let (from, to) = (*offset as usize, *offset as usize + data.len());
            if bytes.len() < to {
                bytes.resize(to, 0);
            }
            bytes[from..to].copy_from_slice(data);
        }
        Change::Truncate(_, len) => bytes.resize(*len as usize, 0),
        _ => {}
    }
}

fn change_names(names: &mut BTreeMap<OsString, u64>, change: &Change) {
    match change {
        Change::Name(name, file) => {
            names.insert(name.clone(), *file);
        }
        Change::Unlink(name) => {
            names.remove(name);
        }
        Change::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        _ => {}
    }
}

impl Image {
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Write(file, ..) | Change::Truncate(file, _) => {
                let file = self.files.entry(*file).or_default();
                change_bytes(&mut file.live, change);
                file.unsynced.push(change.clone());
            }
            Change::Sync(file) => {
                let file = self.files.entry(*file).or_default();
                file.durable = file.live.clone();
                file.unsynced.clear();
            }
            Change::SyncNames => {
                self.durable = self.names.clone();
                self.unsynced.clear();
            }
            Change::Name(_, file) => {
                self.files.entry(*file).or_default();
                change_names(&mut self.names, change);
                self.unsynced.push(change.clone());
            }
            Change::Unlink(_) | Change::Rename(..) => {
                change_names(&mut self.names, change);
                self.unsynced.push(change.clone());
            }
        }
    }

    /// What may be found after a crash. Seed 0 loses all that was not synced, 1 keeps it all, 2 keeps the names and loses the
    /// bytes, 3 keeps the bytes and loses the names; the others draw. Lock files are left out: they name a process that is
    /// dead after a crash, and that lives in a test.
    pub(crate) fn crashed(&self, seed: u64) -> Files {
        let mut random = Random(seed);
        let mut names = self.durable.clone();
        for change in &self.unsynced {
            let kept = match seed {
                0 | 3 => false,
                1 | 2 => true,
                _ => random.below(3) > 0,
            };
            if kept {
                change_names(&mut names, change);
            }
        }
        let mut out = Files::new();
        for (name, file) in names {
            let name = name.into_string().expect("names are text");
            if name.ends_with(".lock") {
                continue;
            }
            let file = self.files.get(&file).cloned().unwrap_or_default();
            let mut bytes = file.durable;
            let mut changes = file.unsynced;
            match seed {
                0 | 2 => changes.clear(),
                1 | 3 => {}
                _ => {
                    for i in (1..changes.len()).rev() {
                        changes.swap(i, random.below(i as u64 + 1) as usize);
                    }
                    changes.retain_mut(|change| match (random.below(4), change) {
                        (0, _) => false,
                        (1, Change::Write(_, _, data)) => {
                            data.truncate(random.below(data.len() as u64 + 1) as usize);
                            true
                        }
                        _ => true,
                    });
                }
            }
            for change in &changes {
                change_bytes(&mut bytes, change);
            }
            out.insert(name, bytes);
        }
        out
    }

    fn of(files: &Files) -> Self {
        let mut image = Self::default();
        for (number, (name, bytes)) in (ROOT + 1..).zip(files) {
            let file = FileImage { live: bytes.clone(), durable: bytes.clone(), unsynced: Vec::new() };
            image.files.insert(number, file);
            image.names.insert(name.into(), number);
        }
        image.durable = image.names.clone();
        image
    }
}

/// What goes wrong, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// After so many more changes, whatever takes space is refused: the disk is full.
    Full(u64),
    /// After so many more changes nothing works any more: the machine goes down.
    Gone(u64),
    /// The change with this number alone fails with an I/O error.
    Once(u64),
}

#[derive(Debug)]
struct State {
    image: Image,
    /// When recording began, and what was done since.
    begin: Image,
    log: Vec<Change>,
    modes: BTreeMap<u64, (u32, u32, u32)>,
    times: BTreeMap<u64, SystemTime>,
    next: u64,
    done: u64,
    fault: Option<Fault>,
    links: bool,
    exclusive_renames: bool,
}

impl State {
    fn change(&mut self, change: Change) -> Result<(), Errno> {
        let refused = match self.fault {
            Some(Fault::Full(after)) if self.done >= after && change.takes_space() => Some(Errno::ENOSPC),
            Some(Fault::Gone(after)) if self.done >= after => Some(Errno::EIO),
            Some(Fault::Once(at)) if self.done == at => Some(Errno::EIO),
            _ => None,
        };
        self.done += 1;
        if let Some(errno) = refused {
            // A write that is refused has often written something.
            if let Change::Write(file, offset, mut data) = change
                && !matches!(self.fault, Some(Fault::Gone(_)))
            {
                data.truncate(data.len() / 2);
                let part = Change::Write(file, offset, data);
                self.image.apply(&part);
                self.log.push(part);
            }
            return Err(errno);
        }
        if let Change::Write(file, ..) | Change::Truncate(file, _) = change {
            self.times.insert(file, SystemTime::now());
        }
        self.image.apply(&change);
        self.log.push(change);
        Ok(())
    }

    fn file(&self, name: &OsStr) -> Result<u64, Errno> {
        self.image.names.get(name).copied().ok_or(Errno::ENOENT)
    }

    fn attr(&self, ino: u64) -> Result<FileAttr, Errno> {
        let root = ino == ROOT;
        if !root && !self.image.files.contains_key(&ino) {
            return Err(Errno::ENOENT);
        }
        let size = self.image.files.get(&ino).map_or(0, |file| file.live.len() as u64);
        let links = self.image.names.values().filter(|file| **file == ino).count() as u32;
        let (mode, uid, gid) =
            self.modes.get(&ino).copied().unwrap_or((if root { 0o755 } else { 0o644 }, 0, 0));
        let time = self.times.get(&ino).copied().unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: if root { FileType::Directory } else { FileType::RegularFile },
            perm: mode as u16 & 0o7777,
            nlink: if root { 2 } else { links },
            uid,
            gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

struct Served(Arc<Mutex<State>>);

impl Served {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no request panics")
    }
}

/// A mounted disk, unmounted when dropped.
pub(crate) struct Disk {
    state: Arc<Mutex<State>>,
    session: Option<BackgroundSession>,
    at: PathBuf,
    _place: TempDir,
}

impl Disk {
    /// Whether disks can be mounted here. Says loudly why not; with RVF_REQUIRE_FUSE=1 that is a failure.
    pub(crate) fn possible() -> bool {
        match std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
            Ok(_) => true,
            Err(error) => {
                assert!(
                    std::env::var_os("RVF_REQUIRE_FUSE").is_none(),
                    "/dev/fuse: {error}, and RVF_REQUIRE_FUSE is set"
                );
                eprintln!("\n*** SKIPPED: /dev/fuse: {error}; no disk that crashes was tried\n");
                false
            }
        }
    }

    /// A disk that holds these files, all of them durable.
    pub(crate) fn new(files: &Files) -> Self {
        let place = tempfile::tempdir().expect("a place");
        let at = place.path().join("disk");
        std::fs::create_dir(&at).expect("a directory");
        let image = Image::of(files);
        let state = Arc::new(Mutex::new(State {
            begin: image.clone(),
            next: image.files.keys().next_back().map_or(ROOT + 1, |last| last + 1),
            image,
            log: Vec::new(),
            modes: BTreeMap::new(),
            times: BTreeMap::new(),
            done: 0,
            fault: None,
            links: true,
            exclusive_renames: true,
        }));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("disk".into()), MountOption::DefaultPermissions];
        let session = Session::new(Served(Arc::clone(&state)), &at, &config).and_then(Session::spawn);
        Self { state, session: Some(session.expect("it mounts")), at, _place: place }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no request panics")
    }

    /// Begins to record, with all that was done so far durable.
    pub(crate) fn record(&self) {
        let mut state = self.state();
        let mut image = state.image.clone();
        for file in image.files.values_mut() {
            file.durable = file.live.clone();
            file.unsynced.clear();
        }
        image.durable = image.names.clone();
        image.unsynced.clear();
        state.image = image.clone();
        state.begin = image;
        state.log.clear();
        state.done = 0;
    }

    /// The disk at every moment since [`Disk::record`]: after no change, after one, and so on.
    pub(crate) fn moments(&self) -> Vec<Image> {
        let state = self.state();
        let mut image = state.begin.clone();
        let mut out = vec![image.clone()];
        for change in &state.log {
            image.apply(change);
            out.push(image.clone());
        }
        out
    }

    /// The changes since [`Disk::record`].
    pub(crate) fn log(&self) -> Vec<Change> {
        self.state().log.clone()
    }

    /// How many there were since [`Disk::record`], refused ones included.
    pub(crate) fn changes(&self) -> u64 {
        self.state().done
    }

    /// What goes wrong from here on.
    pub(crate) fn fail(&self, fault: Option<Fault>) {
        let mut state = self.state();
        state.done = 0;
        state.fault = fault;
    }

    /// Hard links are refused from here on, and maybe renames that replace nothing.
    pub(crate) fn without_links(&self, exclusive_renames: bool) {
        let mut state = self.state();
        state.links = false;
        state.exclusive_renames = exclusive_renames;
    }

    /// What may be found after a crash at this moment.
    pub(crate) fn crashed(&self, seed: u64) -> Files {
        self.state().image.crashed(seed)
    }

    /// The names in it, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        self.state().image.names.keys().map(|name| name.to_string_lossy().into_owned()).collect()
    }

    /// The files as a reader sees them now.
    pub(crate) fn files(&self) -> Files {
        let state = self.state();
        let bytes = |file: &u64| state.image.files.get(file).map_or(Vec::new(), |file| file.live.clone());
        let names = state.image.names.iter();
        names.map(|(name, file)| (name.to_string_lossy().into_owned(), bytes(file))).collect()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.fail(None);
        if let Some(session) = self.session.take()
            && let Err(error) = session.umount_and_join()
        {
            // A test that fails may hold files of it. What is left must not stay mounted.
            eprintln!("{}: busy: {error}", self.at.display());
            let _ = std::process::Command::new("umount").arg("-l").arg(&self.at).status();
        }
    }
}

/// Puts files into an empty directory.
pub(crate) fn write_out(files: &Files, directory: &Path) {
    for (name, bytes) in files {
        std::fs::write(directory.join(name), bytes).expect("a file");
    }
}

impl Filesystem for Served {
    fn lookup(&self, _req: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.state();
        match state.file(name).and_then(|file| state.attr(file)) {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.state().attr(ino.0) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.state();
        let entry = state.modes.entry(ino.0).or_insert((0o644, 0, 0));
        *entry = (mode.unwrap_or(entry.0), uid.unwrap_or(entry.1), gid.unwrap_or(entry.2));
        if let Some(time) = mtime {
            let time = match time {
                TimeOrNow::SpecificTime(time) => time,
                TimeOrNow::Now => SystemTime::now(),
            };
            state.times.insert(ino.0, time);
        }
        let done = size.map_or(Ok(()), |len| state.change(Change::Truncate(ino.0, len)));
        match done.and_then(|()| state.attr(ino.0)) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn unlink(&self, _req: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut state = self.state();
        match state.file(name).and_then(|_| state.change(Change::Unlink(name.to_owned()))) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn rename(
        &self,
        _req: &Request,
        _parent: INodeNo,
        name: &OsStr,
        _newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut state = self.state();
        if !flags.is_empty() {
            if !state.exclusive_renames || flags != RenameFlags::RENAME_NOREPLACE {
                return reply.error(Errno::EINVAL);
            }
            if state.file(newname).is_ok() {
                return reply.error(Errno::EEXIST);
            }
        }
        match state.file(name).and_then(|_| state.change(Change::Rename(name.to_owned(), newname.to_owned())))
        {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn link(&self, _req: &Request, ino: INodeNo, _newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let mut state = self.state();
        if !state.links {
            return reply.error(Errno::EPERM);
        }
        let done = if state.file(newname).is_ok() {
            Err(Errno::EEXIST)
        } else {
            state.change(Change::Name(newname.to_owned(), ino.0))
        };
        match done.and_then(|()| state.attr(ino.0)) {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn create(
        &self,
        req: &Request,
        _parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let mut state = self.state();
        let file = state.next;
        let done = if state.file(name).is_ok() {
            Err(Errno::EEXIST)
        } else {
            state.change(Change::Name(name.to_owned(), file))
        };
        state.next += 1;
        state.modes.insert(file, (mode & !umask, req.uid(), req.gid()));
        state.times.insert(file, SystemTime::now());
        match done.and_then(|()| state.attr(file)) {
            Ok(attr) => reply.created(&TTL, &attr, Generation(0), FileHandle(0), FopenFlags::empty()),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = self.state();
        let Some(file) = state.image.files.get(&ino.0) else { return reply.error(Errno::ENOENT) };
        let from = (offset as usize).min(file.live.len());
        let to = (from + size as usize).min(file.live.len());
        reply.data(&file.live[from..to]);
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.state().change(Change::Write(ino.0, offset, data.to_vec())) {
            Ok(()) => reply.written(data.len() as u32),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        match self.state().change(Change::Sync(ino.0)) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn fsyncdir(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        match self.state().change(Change::SyncNames) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let state = self.state();
        let dots = [(".", ROOT, FileType::Directory), ("..", ROOT, FileType::Directory)];
        let dots = dots.into_iter().map(|(name, ino, kind)| (OsString::from(name), ino, kind));
        let names = state.image.names.iter().map(|(name, ino)| (name.clone(), *ino, FileType::RegularFile));
        for (at, (name, ino, kind)) in dots.chain(names).enumerate().skip(offset as usize) {
            if reply.add(INodeNo(ino), at as u64 + 1, kind, &name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}
