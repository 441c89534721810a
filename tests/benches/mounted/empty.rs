//! The yardstick: a filesystem whose daemon does nothing but answer. One cached file of zeros for reads, and one that
//! takes a write, a read or an ioctl as `query/in` does.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    IoctlFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyOpen, ReplyWrite, Request, Session, WriteFlags,
};

/// The name of the file of zeros.
pub(crate) const NAME: &str = "zeros";
/// The name of the file that is asked.
pub(crate) const ASKED: &str = "asked";
/// Bytes of an answer: about ten lines of ids and distances.
const ANSWER: usize = 200;
const LARGEST: usize = 1 << 20;
const ZEROS: INodeNo = INodeNo(2);
const TTL: Duration = Duration::from_secs(3600);

/// Mounts it and serves until it is unmounted.
pub(crate) fn serve(dir: &Path, size: u64) -> io::Result<()> {
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("zeros".into()), MountOption::NoAtime];
    Session::new(Zeros { size, zeros: vec![0; LARGEST] }, dir, &config)?.run()
}

struct Zeros {
    size: u64,
    zeros: Vec<u8>,
}

impl Zeros {
    fn attr(&self, ino: INodeNo) -> FileAttr {
        let root = ino == INodeNo::ROOT;
        FileAttr {
            ino,
            size: if ino == ZEROS { self.size } else { 0 },
            blocks: if ino == ZEROS { self.size.div_ceil(512) } else { 0 },
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if root { FileType::Directory } else { FileType::RegularFile },
            perm: if root { 0o555 } else { 0o666 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 1 << 20,
            flags: 0,
        }
    }
}

impl Filesystem for Zeros {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // As rvf-mount sets them; what the kernel does not have is left out there too.
        let _ = config.add_capabilities(InitFlags::FUSE_EXPLICIT_INVAL_DATA);
        let _ = config.set_max_write(LARGEST as u32);
        if let Err(nearest) = config.set_max_readahead(LARGEST as u32) {
            let _ = config.set_max_readahead(nearest);
        }
        let _ = config.set_max_background(64);
        Ok(())
    }

    fn lookup(&self, _request: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name.to_str() {
            Some(NAME) => reply.entry(&TTL, &self.attr(ZEROS), Generation(0)),
            Some(ASKED) => reply.entry(&TTL, &self.attr(INodeNo(3)), Generation(0)),
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr(ino));
    }

    fn open(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let how = if ino == ZEROS {
            FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH
        } else {
            FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
        };
        reply.opened(FileHandle(0), how);
    }

    fn write(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.written(data.len() as u32);
    }

    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        input: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.ioctl(0, &input[..input.len().min(ANSWER)]);
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let whole = if ino == ZEROS { self.size } else { ANSWER as u64 };
        let len = whole.saturating_sub(offset).min(u64::from(size)) as usize;
        reply.data(&self.zeros[..len.min(LARGEST)]);
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }
}
