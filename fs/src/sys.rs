//! The few system calls that std does not have, each behind a safe function.
#![expect(unsafe_code, reason = "direct system calls: fork, signals, umount2, statvfs, priorities")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Numbers of a filesystem, as `statvfs` gives them.
#[derive(Debug, Clone, Copy, Default)]
pub struct FsNumbers {
    /// Block size in bytes.
    pub block: u64,
    /// Blocks in all.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Blocks free for unprivileged users.
    pub available: u64,
}

fn path_of(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Size and free space of the filesystem that holds `path`.
///
/// # Errors
/// What `statvfs` reports.
pub fn filesystem(path: &Path) -> io::Result<FsNumbers> {
    let path = path_of(path)?;
    let mut numbers = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: `path` is a NUL-terminated string and `numbers` a writable statvfs; both outlive the call.
    let result = unsafe { libc::statvfs(path.as_ptr(), numbers.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed is a valid statvfs, and the call succeeded.
    let numbers = unsafe { numbers.assume_init() };
    Ok(FsNumbers {
        block: numbers.f_frsize,
        blocks: numbers.f_blocks,
        free: numbers.f_bfree,
        available: numbers.f_bavail,
    })
}

/// Takes a mount away at once; processes with files open in it keep them until they close them.
///
/// # Errors
/// What `umount2` reports.
pub fn detach(mountpoint: &Path) -> io::Result<()> {
    let path = path_of(mountpoint)?;
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    match unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The user and group this process acts as.
#[must_use]
pub fn ids() -> (u32, u32) {
    // SAFETY: neither call has preconditions or can fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// Which side of a fork this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The process that called; the child's pid.
    Parent(i32),
    /// The new process.
    Child,
}

/// Forks. Only to be called while the process has a single thread.
///
/// # Errors
/// What `fork` reports.
pub fn fork() -> io::Result<Side> {
    // SAFETY: the caller is single-threaded (see above), so the child may use everything the parent could.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(pid)),
    }
}

/// Leaves the terminal: a session of its own, and standard input, output and error on `/dev/null`.
///
/// # Errors
/// When `/dev/null` cannot be opened.
pub fn leave_terminal() -> io::Result<()> {
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    // SAFETY: no preconditions; it fails only for a process group leader, which a fresh child is not.
    unsafe { libc::setsid() };
    for fd in 0..3 {
        // SAFETY: `null` is open; dup2 onto the standard descriptors closes what they were.
        if unsafe { libc::dup2(null.as_raw_fd(), fd) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The signals that end a mount.
const ENDING: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

fn ending_set() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `set` is writable; sigemptyset initialises it.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in ENDING {
        // SAFETY: `set` was initialised above and the signal numbers are valid.
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    }
    // SAFETY: initialised by sigemptyset.
    unsafe { set.assume_init() }
}

/// Keeps TERM, INT and HUP from ending the process; threads started later inherit this. [`wait_for_end`] receives them.
pub fn block_ending_signals() {
    let set = ending_set();
    // SAFETY: `set` is an initialised signal set; the old mask is not wanted.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
}

/// Waits for one of the blocked signals and gives its number.
#[must_use]
pub fn wait_for_end() -> i32 {
    let set = ending_set();
    let mut signal = 0;
    // SAFETY: `set` is initialised and `signal` is writable.
    while unsafe { libc::sigwait(&raw const set, &raw mut signal) } != 0 {}
    signal
}

/// Lets others run first, from now on and for threads that this one starts: on a busy processor it gets about a
/// quarter of what they get.
pub fn yield_to_others() {
    // SAFETY: plain numbers; on Linux 0 means the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 5) };
    if result != 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "the priority stays as it was");
    }
}

/// Lets this process open as many files as it may; the limit it starts with is for programs that use `select`.
pub fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a writable rlimit that outlives the call.
    let mut result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if result == 0 && limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is an initialised rlimit that outlives the call.
        result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    }
    if result != 0 {
        tracing::warn!(error = %io::Error::last_os_error(), "the limit on open files stays as it was");
    }
}

/// Gives memory that was freed back to the system, where the allocator would keep it.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no preconditions; the allocator locks what it looks at.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Whether something could be read from the descriptor now, without waiting.
#[must_use]
pub fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut wanted = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd, and no time to wait.
    let ready = unsafe { libc::poll(&raw mut wanted, 1, 0) };
    ready > 0 && wanted.revents & libc::POLLIN != 0
}

/// Whether the other side of the descriptor is gone; for a FUSE connection, whether its mount is.
#[must_use]
pub fn is_cut_off(fd: BorrowedFd<'_>) -> bool {
    let mut wanted = libc::pollfd { fd: fd.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: one valid pollfd, and no time to wait.
    let ready = unsafe { libc::poll(&raw mut wanted, 1, 0) };
    ready > 0 && wanted.revents & (libc::POLLERR | libc::POLLHUP) != 0
}

/// The process that a thread belongs to, or `None` when there is no such thread.
#[must_use]
pub fn process_of(thread: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// The signal that is ending a thread right now, if one is. The kernel closes the files of a killed process from within
/// it, and `/proc` tells its exit code by then (see proc(5), `exit_code`).
///
/// Safe to ask while the thread waits for us: a thread in the middle of `execve` closes its descriptors with a lock
/// held that a reader of its `stat` waits for, so `stat` is read only of a thread whose memory is gone already (no
/// `Vm` lines in its `status`, which takes no such lock): that one is ending and cannot be in `execve`.
#[must_use]
pub fn killed_by(thread: u32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    if status.contains("\nVmSize:") {
        return None;
    }
    let stat = std::fs::read_to_string(format!("/proc/{thread}/stat")).ok()?;
    // The name in parentheses may hold anything, also parentheses; field 3 follows it, and the exit code is field 52.
    let (_, fields) = stat.rsplit_once(')')?;
    let code: i32 = fields.split_ascii_whitespace().nth(49)?.parse().ok()?;
    Some(code & 0x7F).filter(|signal| *signal != 0)
}

/// Whether a process has an inode open for writing, as far as `/proc` lets us see. Asks the filesystem of the inode
/// nothing, so that it may be our own.
///
/// Not for a thread that answers the kernel: of an epoll descriptor, `fdinfo` waits for a lock that its owner holds
/// while it asks our files whether they are ready. (Where the links in `fd` lead would tell these descriptors apart, but
/// reading one waits for a process in `execve`, which may be waiting for us to close a file.)
#[must_use]
pub fn has_open_for_writing(process: u32, ino: u64) -> bool {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{process}/fdinfo")) else { return false };
    let field = |text: &str, key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned())
    };
    entries.flatten().any(|entry| {
        let Ok(text) = std::fs::read_to_string(entry.path()) else { return false };
        let same = field(&text, "ino:").and_then(|value| value.parse::<u64>().ok()) == Some(ino);
        let flags = field(&text, "flags:").and_then(|value| i32::from_str_radix(&value, 8).ok()).unwrap_or(0);
        same && flags & libc::O_ACCMODE != libc::O_RDONLY
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_belongs_to_its_process() {
        let own = std::process::id();
        assert_eq!(process_of(own), Some(own));
        assert_eq!(killed_by(own), None);
        assert_eq!(process_of(u32::MAX), None);
    }

    #[test]
    fn a_pipe_is_readable_once_something_is_in_it() {
        use std::io::Write;
        use std::os::fd::AsFd;
        let (reader, mut writer) = io::pipe().expect("a pipe");
        assert!(!is_readable(reader.as_fd()));
        writer.write_all(b"x").expect("written");
        assert!(is_readable(reader.as_fd()));
        assert!(!is_cut_off(reader.as_fd()));
        drop(writer);
        assert!(is_cut_off(reader.as_fd()));
    }

    #[test]
    fn open_files_are_seen() {
        use std::os::unix::fs::MetadataExt;
        let path = std::env::temp_dir().join(format!("rvf-sys-{}", std::process::id()));
        let file = std::fs::File::create(&path).expect("a file");
        let ino = file.metadata().expect("attributes").ino();
        std::fs::remove_file(&path).expect("removed");
        assert!(has_open_for_writing(std::process::id(), ino));
        drop(file);
        assert!(!has_open_for_writing(std::process::id(), ino));
        assert!(!has_open_for_writing(u32::MAX, ino));
    }

    #[test]
    fn a_filesystem_has_a_size() {
        let numbers = filesystem(Path::new("/")).expect("the root filesystem");
        assert!(numbers.block > 0 && numbers.blocks >= numbers.free);
        assert!(filesystem(Path::new("/no/such/place")).is_err());
    }

    #[test]
    fn detaching_what_is_not_mounted_fails() {
        assert!(detach(Path::new("/no/such/place")).is_err());
    }
}
