//! FUSE: the only module that speaks to the kernel. Each request is translated, handed to the tree, and answered.
//!
//! A handler that panics must not end its thread, or the mount with it: the reply it held is dropped, which answers
//! with EIO, and the panic is logged. The kernel cannot interrupt a request here, so nothing waits in a handler; what
//! takes long answers from a worker.

mod kernel;

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    BackingId, BsdFileFlags, Errno, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;

use self::kernel::{caller, done, errno, file_attr, guarded, how, open_flags, sized, text};
use crate::errno::Error;
use crate::handle::MAX_WRITE;
use crate::source::Source;
use crate::tree::{Caching, Change, Tree};

pub use self::kernel::Mounted;

/// Requests that may wait in the kernel at once, such as readahead.
const MAX_BACKGROUND: u16 = 64;

/// Answers the kernel's requests from a tree.
pub struct Adapter {
    tree: Arc<Tree>,
    ended: Option<Ended>,
    passthrough: AtomicBool,
    backed: Mutex<HashMap<u64, Backed>>,
}

/// Called once when the kernel will ask nothing any more.
pub type Ended = Box<dyn FnOnce() + Send + Sync>;

impl std::fmt::Debug for Adapter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adapter").field("tree", &self.tree).finish_non_exhaustive()
    }
}

/// An inode whose contents the kernel reads from the file itself. All of its handles must share one backing.
#[derive(Debug)]
struct Backed {
    id: BackingId,
    handles: HashSet<u64>,
}

impl Adapter {
    /// An adapter over `tree`. With `passthrough`, whole files are read by the kernel directly where it can. `ended` is
    /// called when the last request has been received.
    #[must_use]
    pub fn new(tree: Arc<Tree>, passthrough: bool, ended: Ended) -> Self {
        Self {
            tree,
            ended: Some(ended),
            passthrough: AtomicBool::new(passthrough),
            backed: Mutex::new(HashMap::new()),
        }
    }

    /// Runs a request here, or on a worker when it may take long.
    fn apart(&self, what: &'static str, long: bool, request: impl FnOnce(&Tree) + Send + 'static) {
        if long {
            let tree = self.tree.clone();
            self.tree.pool.run(move || guarded(what, || request(&tree)));
        } else {
            guarded(what, || request(&self.tree));
        }
    }

    /// Opens a backing for the inode, or joins the one it has. `None` where the kernel or the file cannot do it.
    fn opened_through(&self, reply: ReplyOpen, ino: u64, fh: u64, file: &File) -> Option<ReplyOpen> {
        if !self.passthrough.load(Ordering::Relaxed) {
            return Some(reply);
        }
        let mut backed = self.backed.lock();
        if let Some(backing) = backed.get_mut(&ino) {
            backing.handles.insert(fh);
            reply.opened_passthrough(FileHandle(fh), FopenFlags::FOPEN_NOFLUSH, &backing.id);
            return None;
        }
        match reply.open_backing(file) {
            Ok(id) => {
                reply.opened_passthrough(FileHandle(fh), FopenFlags::FOPEN_NOFLUSH, &id);
                backed.insert(ino, Backed { id, handles: HashSet::from([fh]) });
                None
            }
            Err(error) => {
                // Not root, a stacked filesystem, an old kernel: it will not get better while this mount lives. An inode
                // must not mix both ways of reading, so nothing is tried again.
                tracing::debug!(%error, "no passthrough; file.rvf is read through the daemon");
                self.passthrough.store(false, Ordering::Relaxed);
                Some(reply)
            }
        }
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for flag in [
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
            // Without it every write asks for security.capability first.
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
        ] {
            if config.add_capabilities(flag).is_err() {
                tracing::debug!(?flag, "the kernel does not have this");
            }
        }
        if self.passthrough.load(Ordering::Relaxed)
            && (config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_err()
                || config.set_max_stack_depth(1).is_err())
        {
            self.passthrough.store(false, Ordering::Relaxed);
        }
        // Each gives the nearest possible value back when it refuses.
        if let Err(nearest) = config.set_max_write(MAX_WRITE as u32) {
            let _ = config.set_max_write(nearest);
        }
        if let Err(nearest) = config.set_max_readahead(MAX_WRITE as u32) {
            let _ = config.set_max_readahead(nearest);
        }
        let _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn destroy(&mut self) {
        if let Some(ended) = self.ended.take() {
            ended();
        }
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let Some(name) = name.to_str() else { return reply.error(Errno::ENOENT) };
        let looked = move |tree: &Tree, name: &str| match tree.lookup(parent.0, name) {
            Ok(attr) => {
                reply.entry_with_ttls(&attr.attr_ttl, &attr.name_ttl, &file_attr(tree, &attr), Generation(0))
            }
            Err(error) => reply.error(errno(&error)),
        };
        if self.tree.lookup_takes_long(parent.0, name) {
            let name = name.to_owned();
            self.apart("lookup", true, move |tree| looked(tree, &name));
        } else {
            guarded("lookup", || looked(&self.tree, name));
        }
    }

    fn forget(&self, _request: &Request, ino: INodeNo, lookups: u64) {
        guarded("forget", || self.tree.forget(ino.0, lookups));
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.apart("getattr", self.tree.takes_long(ino.0), move |tree| match tree.getattr(ino.0) {
            Ok(attr) => reply.attr(&attr.attr_ttl, &file_attr(tree, &attr)),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = Change {
            size,
            mode: mode.map(|mode| mode as u16),
            mtime: mtime.map(|time| match time {
                TimeOrNow::SpecificTime(time) => time,
                TimeOrNow::Now => SystemTime::now(),
            }),
            owner: uid.is_some() || gid.is_some(),
        };
        let (caller, long) = (caller(request), self.tree.setattr_takes_long(ino.0, change));
        self.apart("setattr", long, move |tree| {
            match tree.setattr(ino.0, fh.map(|fh| fh.0), change, caller) {
                Ok(attr) => reply.attr(&attr.attr_ttl, &file_attr(tree, &attr)),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn mknod(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EPERM);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        guarded("mkdir", || {
            match text(name).and_then(|name| self.tree.mkdir(parent.0, name, caller(request))) {
                Ok(attr) => reply.entry_with_ttls(
                    &attr.attr_ttl,
                    &attr.name_ttl,
                    &file_attr(&self.tree, &attr),
                    Generation(0),
                ),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        self.apart("readlink", self.tree.takes_long(ino.0), move |tree| match tree.readlink(ino.0) {
            Ok(target) => reply.data(target.as_bytes()),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn symlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        guarded("symlink", || {
            match text(name).and_then(|name| self.tree.symlink(parent.0, name, text(target.as_os_str())?)) {
                Ok(attr) => reply.entry_with_ttls(
                    &attr.attr_ttl,
                    &attr.name_ttl,
                    &file_attr(&self.tree, &attr),
                    Generation(0),
                ),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded("unlink", || match text(name) {
            Ok(name) => self.tree.unlink(parent.0, name, done(reply)),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let Ok(name) = text(name).map(str::to_owned) else { return reply.error(Errno::ENOENT) };
        // Removing a branch waits for the disk.
        self.apart("rmdir", true, move |tree| done(reply)(tree.rmdir(parent.0, &name)));
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        guarded("rename", || {
            let no_replace = flags.contains(RenameFlags::RENAME_NOREPLACE);
            if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
                return reply.error(Errno::EINVAL);
            }
            match (text(name), text(new_name)) {
                (Ok(name), Ok(new_name)) => {
                    self.tree.rename(parent.0, name, new_parent.0, new_name, no_replace, done(reply))
                }
                (Err(error), _) | (_, Err(error)) => reply.error(errno(&error)),
            }
        });
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (how, caller) = (how(flags.0), caller(request));
        if self.tree.takes_long(ino.0) {
            return self.apart("open", true, move |tree| match tree.open(ino.0, how, caller) {
                Ok(opened) => reply.opened(FileHandle(opened.fh), open_flags(&opened.caching, how.write)),
                Err(error) => reply.error(errno(&error)),
            });
        }
        guarded("open", || match self.tree.open(ino.0, how, caller) {
            Ok(opened) => {
                let reply = match &opened.caching {
                    Caching::PassThrough(file) => self.opened_through(reply, ino.0, opened.fh, file),
                    Caching::Direct | Caching::Through | Caching::Keep => Some(reply),
                };
                if let Some(reply) = reply {
                    reply.opened(FileHandle(opened.fh), open_flags(&opened.caching, how.write));
                }
            }
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        guarded("create", || {
            let how = how(flags);
            match text(name).and_then(|name| self.tree.create(parent.0, name, how, caller(request))) {
                Ok((attr, opened)) => reply.created(
                    &Duration::ZERO,
                    &file_attr(&self.tree, &attr),
                    Generation(0),
                    FileHandle(opened.fh),
                    open_flags(&opened.caching, true),
                ),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        guarded("read", || {
            self.tree.read(fh.0, offset, size as usize, move |result| match result {
                Ok(bytes) => reply.data(bytes),
                Err(error) => reply.error(errno(&error)),
            });
        });
    }

    fn write(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        guarded("write", || {
            self.tree.write(fh.0, offset, data, caller(request), move |result| match result {
                Ok(len) => reply.written(len as u32),
                Err(error) => reply.error(errno(&error)),
            });
        });
    }

    fn flush(&self, request: &Request, _ino: INodeNo, fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        guarded("flush", || self.tree.flush(fh.0, caller(request), done(reply)));
    }

    fn release(
        &self,
        _request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        guarded("release", || {
            let mut backed = self.backed.lock();
            if let Some(backing) = backed.get_mut(&ino.0)
                && backing.handles.remove(&fh.0)
                && backing.handles.is_empty()
            {
                backed.remove(&ino.0);
            }
            drop(backed);
            self.tree.release(fh.0, move || reply.ok());
        });
    }

    fn fsync(&self, _request: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        guarded("fsync", || self.tree.fsync(fh.0, done(reply)));
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let caller = caller(request);
        self.apart("opendir", self.tree.takes_long(ino.0), move |tree| match tree.opendir(ino.0, caller) {
            Ok(fh) => reply.opened(FileHandle(fh), FopenFlags::empty()),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn readdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        guarded("readdir", || {
            let result = self.tree.readdir(fh.0, offset, |entry| {
                let kind = match entry.node {
                    node if node.is_dir() => FileType::Directory,
                    node if node.is_link() => FileType::Symlink,
                    _ => FileType::RegularFile,
                };
                !reply.add(INodeNo(entry.ino), entry.next, kind, &entry.name)
            });
            match result {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn readdirplus(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        guarded("readdirplus", || {
            let result = self.tree.readdir(fh.0, offset, |entry| {
                // The kernel counts no lookup for "." and "..".
                let own = entry.next <= 2;
                let attr = if own { self.tree.getattr(entry.ino).ok() } else { self.tree.entry_attr(entry) };
                let Some(attr) = attr else { return true };
                let ttl = attr.name_ttl.min(attr.attr_ttl);
                let full = reply.add(
                    INodeNo(entry.ino),
                    entry.next,
                    &entry.name,
                    &ttl,
                    &file_attr(&self.tree, &attr),
                    Generation(0),
                );
                if full && !own {
                    self.tree.forget(attr.ino, 1);
                }
                !full
            });
            match result {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        guarded("releasedir", || {
            self.tree.releasedir(fh.0);
            reply.ok();
        });
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        // Everything that was closed is durable already.
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        guarded("statfs", || {
            let path = match &self.tree.source {
                Source::File(dir) => dir.store.path(),
                Source::Directory(directory) => &directory.path,
            };
            // The name may have become a link into this mount, whose numbers we are just asked for.
            let numbers = rvf_cow::reach(path)
                .ok()
                .and_then(|reached| crate::sys::filesystem(&reached.path).ok())
                .unwrap_or_default();
            let block = u32::try_from(numbers.block).unwrap_or(4096).max(512);
            reply.statfs(numbers.blocks, numbers.free, numbers.available, 0, 0, block, 255, block);
        });
    }

    fn setxattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        guarded("setxattr", || {
            let name = name.to_str().ok_or(Error::NotSupported);
            match name.and_then(|name| self.tree.setxattr(ino.0, name, value)) {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        guarded("getxattr", || {
            let value =
                name.to_str().ok_or(Error::NoAttribute).and_then(|name| self.tree.getxattr(ino.0, name));
            sized(value, size, reply);
        });
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        guarded("listxattr", || sized(self.tree.listxattr(ino.0), size, reply));
    }

    fn removexattr(&self, _request: &Request, _ino: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EOPNOTSUPP);
    }

    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: IoctlFlags,
        cmd: u32,
        input: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        guarded("ioctl", || {
            self.tree.ioctl(fh.0, cmd, input, move |result| match result {
                Ok(answer) => reply.ioctl(0, answer),
                // Terminals are asked for by every program that writes text.
                Err(Error::NotTty) => reply.error(Errno::ENOTTY),
                Err(error) => reply.error(errno(&error)),
            });
        });
    }

    fn poll(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        notifier: PollNotifier,
        events: PollEvents,
        flags: PollFlags,
        reply: ReplyPoll,
    ) {
        guarded("poll", || {
            let waker = flags.contains(PollFlags::FUSE_POLL_SCHEDULE_NOTIFY).then(|| {
                let waker: Box<dyn FnOnce() + Send> = Box::new(move || {
                    // The poller may be gone.
                    let _ = notifier.notify();
                });
                waker
            });
            let readable = PollEvents::POLLIN | PollEvents::POLLRDNORM;
            let writable = PollEvents::POLLOUT | PollEvents::POLLWRNORM;
            match self.tree.poll(fh.0, waker) {
                Ok(true) => reply.poll(events & (readable | writable)),
                Ok(false) => reply.poll(events & writable),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn lseek(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: i64,
        _whence: i32,
        reply: ReplyLseek,
    ) {
        // Meant for good: the kernel then takes every file as data without holes, which is true.
        reply.error(Errno::ENOSYS);
    }

    fn access(&self, _request: &Request, _ino: INodeNo, _mask: fuser::AccessFlags, reply: ReplyEmpty) {
        // Meant for good: modes are the kernel's business when others are allowed in, and nobody's otherwise.
        reply.error(Errno::ENOSYS);
    }

    fn copy_file_range(
        &self,
        _request: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: fuser::CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // Only into a branch to be. EOPNOTSUPP makes the kernel read and write instead, this once.
        let len = len.min(u64::from(u32::MAX >> 1));
        self.apart("copy_file_range", true, move |tree| {
            match tree.copy_file_range(fh_in.0, offset_in, fh_out.0, offset_out, len) {
                Ok(copied) => reply.written(copied as u32),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn fallocate(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EOPNOTSUPP);
    }
}
