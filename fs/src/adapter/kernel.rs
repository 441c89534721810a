//! The kernel's side of a mount: what requests and answers look like, and what it is told unasked.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use fuser::{
    Errno, FileAttr, FileType, FopenFlags, INodeNo, Notifier, OpenAccMode, OpenFlags, ReplyEmpty, ReplyXattr,
    Request,
};

use crate::errno::{Error, to_errno};
use crate::tree::{Attr, Caching, Caller, Kernel, Open, Tree};

pub(super) fn file_attr(tree: &Tree, attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        // Tools take fewer blocks than bytes for a sparse file and copy it differently.
        blocks: attr.size.div_ceil(512),
        atime: attr.mtime,
        mtime: attr.mtime,
        ctime: attr.mtime,
        crtime: attr.mtime,
        kind: match (attr.is_dir, attr.is_link) {
            (true, _) => FileType::Directory,
            (_, true) => FileType::Symlink,
            _ => FileType::RegularFile,
        },
        perm: attr.perm,
        // 1 for directories too: the number of subdirectories is not promised.
        nlink: 1,
        uid: tree.settings.uid,
        gid: tree.settings.gid,
        rdev: 0,
        blksize: attr.block_size,
        flags: 0,
    }
}

pub(super) fn errno(error: &Error) -> Errno {
    tracing::debug!(%error, "answered with an error");
    Errno::from_i32(to_errno(error))
}

pub(super) fn guarded(what: &'static str, f: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(f)).is_err() {
        tracing::error!(what, "a request handler panicked; the request was answered with EIO");
    }
}

pub(super) fn text(name: &OsStr) -> Result<&str, Error> {
    name.to_str().ok_or_else(|| Error::invalid("names here are UTF-8"))
}

pub(super) fn caller(request: &Request) -> Caller {
    Caller { thread: request.pid(), user: request.uid() }
}

pub(super) fn how(flags: i32) -> Open {
    let mode = OpenFlags(flags).acc_mode();
    Open {
        read: mode != OpenAccMode::O_WRONLY,
        write: mode != OpenAccMode::O_RDONLY,
        truncate: flags & libc::O_TRUNC != 0 && mode != OpenAccMode::O_RDONLY,
        exclusive: flags & libc::O_EXCL != 0,
    }
}

pub(super) fn open_flags(caching: &Caching, write: bool) -> FopenFlags {
    let flags = match caching {
        Caching::Direct => FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES,
        Caching::Through => FopenFlags::empty(),
        Caching::Keep | Caching::PassThrough(_) => FopenFlags::FOPEN_KEEP_CACHE,
    };
    // Nothing happens when a reader closes.
    if write { flags } else { flags | FopenFlags::FOPEN_NOFLUSH }
}

pub(super) fn done(reply: ReplyEmpty) -> impl FnOnce(Result<(), Error>) + Send + 'static {
    move |result| match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn sized(value: Result<Vec<u8>, Error>, size: u32, reply: ReplyXattr) {
    match value {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() <= size as usize => reply.data(&value),
        Ok(_) => reply.error(errno(&Error::Range)),
        Err(error) => reply.error(errno(&error)),
    }
}

/// The kernel's side of one mount.
#[derive(Debug)]
pub struct Mounted {
    /// Sends invalidations.
    pub notifier: Notifier,
    /// The connection, to see whether requests wait in it.
    pub connection: OwnedFd,
}

impl Kernel for Mounted {
    fn has_waiting(&self) -> bool {
        crate::sys::is_readable(self.connection.as_fd())
    }

    fn attributes(&self, ino: u64) {
        // A negative offset leaves the contents alone.
        if let Err(error) = self.notifier.inval_inode(INodeNo(ino), -1, 0) {
            tracing::debug!(%error, ino, "cannot invalidate attributes");
        }
    }

    fn name(&self, parent: u64, name: &str) {
        if let Err(error) = self.notifier.inval_entry(INodeNo(parent), OsStr::new(name)) {
            tracing::debug!(%error, name, "cannot invalidate a name");
        }
    }
}
