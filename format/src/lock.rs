//! One writer per file: a kernel lock on the data file, and the reference's `.lock` file so that its tools keep out.
//!
//! The kernel lock (`flock`) is what our own processes exclude each other with: it dies with its holder. The lock file
//! lies beside the data file, named like it with `.lock` appended, and is what the reference looks at. A lock file of
//! a process that is dead on this host is taken over at once; the reference waits 30 seconds for that.

use crate::checksum::crc32;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const MAGIC: u32 = 0x5256_4C46;
const LEN: usize = 104;
/// A lock file of another host is taken over after this long; nobody refreshes it.
const FOREIGN_STALE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(10);

/// Why the write lock was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process has it.
    #[error("another process is writing to the file (pid {pid} on {host}, since {} s)", age.as_secs())]
    HeldBy {
        /// Its process id; 0 when it is not known.
        pid: u32,
        /// Its host.
        host: String,
        /// Time since it took the lock.
        age: Duration,
    },
    /// The lock file could not be read or written.
    #[error("{context}")]
    Io {
        /// What was being done.
        context: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

impl LockError {
    /// Always [`crate::Family::Environment`].
    pub fn family(&self) -> crate::Family {
        crate::Family::Environment
    }

    /// 0x0300 when another process has the lock.
    pub fn code(&self) -> Option<u16> {
        matches!(self, Self::HeldBy { .. }).then_some(crate::codes::LOCK_HELD)
    }

    fn io(context: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let context = context.into();
        move |source| Self::Io { context, source }
    }
}

/// The contents of a lock file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockFile {
    /// Holder.
    pub pid: u32,
    /// Its host, at most 62 bytes.
    pub host: String,
    /// Nanoseconds since 1970.
    pub timestamp_ns: u64,
    /// Random number of the writer.
    pub writer_id: [u8; 16],
}

impl LockFile {
    /// The 104 bytes.
    pub fn to_bytes(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        out[..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..8].copy_from_slice(&self.pid.to_le_bytes());
        let host = self.host.as_bytes();
        let len = host.len().min(62);
        out[8..8 + len].copy_from_slice(&host[..len]);
        out[0x48..0x50].copy_from_slice(&self.timestamp_ns.to_le_bytes());
        out[0x50..0x60].copy_from_slice(&self.writer_id);
        out[0x60..0x64].copy_from_slice(&1u32.to_le_bytes());
        let crc = crc32(&out[..0x64]);
        out[0x64..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a lock file; `None` when it is too short or has another magic, which nobody respects.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LEN] = bytes.get(..LEN)?.try_into().ok()?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if word(0) != MAGIC {
            return None;
        }
        let host = bytes[8..0x48].split(|byte| *byte == 0).next().unwrap_or_default();
        let mut writer_id = [0; 16];
        writer_id.copy_from_slice(&bytes[0x50..0x60]);
        Some(Self {
            pid: word(4),
            host: String::from_utf8_lossy(host).into_owned(),
            timestamp_ns: u64::from(word(0x48)) | u64::from(word(0x4C)) << 32,
            writer_id,
        })
    }

    fn age(&self) -> Duration {
        Duration::from_nanos(now_ns().saturating_sub(self.timestamp_ns))
    }

    fn is_stale(&self) -> bool {
        if self.host != hostname() {
            return self.age() > FOREIGN_STALE;
        }
        if self.pid == std::process::id() {
            // Our own number: either somebody in this process holds it, or an earlier process with the same number
            // died with it (usual in containers, where numbers start over).
            return process_start_ns().is_some_and(|start| self.timestamp_ns < start);
        }
        !is_alive(self.pid)
    }
}

/// The right to write to a file; released on drop.
#[derive(Debug)]
pub struct WriteLock {
    path: PathBuf,
    writer_id: [u8; 16],
    /// Holds the kernel lock.
    file: File,
}

impl WriteLock {
    /// Takes the lock on `file`, which is open at `path`; waits at most `wait`, looking every 10 ms.
    ///
    /// # Errors
    /// [`LockError::HeldBy`] when somebody else keeps it that long, [`LockError::Io`] when the lock file cannot be
    /// made (its directory is not writable, for example).
    pub fn acquire(path: &Path, file: &File, wait: Duration) -> Result<Self, LockError> {
        let deadline = Instant::now() + wait;
        let lock_path = lock_path(path);
        let held = separate(path, file)?;
        loop {
            let error = match Self::attempt(&lock_path, &held)? {
                Ok(writer_id) => return Ok(Self { path: lock_path, writer_id, file: held }),
                Err(holder) => holder,
            };
            if Instant::now() >= deadline {
                return Err(error);
            }
            std::thread::sleep(POLL.min(deadline.saturating_duration_since(Instant::now())));
        }
    }

    /// One try: the writer id, or who has the lock.
    fn attempt(lock_path: &Path, held: &File) -> Result<Result<[u8; 16], LockError>, LockError> {
        match held.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Err(holder(lock_path))),
            Err(TryLockError::Error(source)) => return Err(LockError::io("locking the file")(source)),
        }
        let result = create_lock_file(lock_path);
        if !matches!(result, Ok(Ok(_))) {
            // The file stays open for the next try, so give the lock back to those who might be faster.
            let _ = held.unlock();
        }
        result
    }
}

impl Drop for WriteLock {
    fn drop(&mut self) {
        // Only if it is still ours: a writer on another host may have taken it for stale.
        if read_lock_file(&self.path)
            .is_ok_and(|lock| lock.is_some_and(|lock| lock.writer_id == self.writer_id))
        {
            // What cannot be removed is emptied: nobody respects an empty lock file, while this one names a process that lives.
            if fs::remove_file(&self.path).is_err() {
                let _ = OpenOptions::new().write(true).truncate(true).open(&self.path);
            }
        }
        // Closing the file is not enough while another thread is starting a program: its child holds a copy of the
        // descriptor, and with it the lock, until the program runs.
        let _ = self.file.unlock();
    }
}

/// Whether a process that lives is writing to the file, or may be: what one that died left is not respected.
pub fn is_held(path: &Path) -> bool {
    matches!(read_lock_file(&lock_path(path)), Ok(Some(lock)) if !lock.is_stale())
}

/// `<path>.lock`.
pub fn lock_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".lock");
    PathBuf::from(name)
}

/// Kernel locks belong to an open file description; a new one makes two locks in one process exclude each other too.
fn separate(path: &Path, file: &File) -> Result<File, LockError> {
    let by_number = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let opened =
        OpenOptions::new().read(true).write(true).open(&by_number).or_else(|_| File::open(&by_number));
    opened
        .or_else(|_| file.try_clone())
        .map_err(LockError::io(format!("opening {} for locking", path.display())))
}

fn create_lock_file(path: &Path) -> Result<Result<[u8; 16], LockError>, LockError> {
    let context = || LockError::io(format!("creating the lock file {}", path.display()));
    let ours = LockFile {
        pid: std::process::id(),
        host: hostname(),
        timestamp_ns: now_ns(),
        writer_id: random_id(),
    };
    for _ in 0..8 {
        match OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(mut file) => {
                if let Err(source) = file.write_all(&ours.to_bytes()) {
                    let _ = fs::remove_file(path);
                    return Err(context()(source));
                }
                return Ok(Ok(ours.writer_id));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(context()(source)),
        }
        match read_lock_file(path) {
            Ok(Some(lock)) if !lock.is_stale() => return Ok(Err(held_by(&lock))),
            Ok(stale) => take_over(path, stale.as_ref()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(context()(source)),
        }
    }
    Ok(Err(holder(path)))
}

/// Moves a stale lock file away. Another process may have replaced it since it was read; then it is put back.
fn take_over(path: &Path, stale: Option<&LockFile>) {
    let mut away = OsString::from(path);
    away.push(format!(".{}.stale", std::process::id()));
    if fs::rename(path, &away).is_err() {
        return;
    }
    let moved = read_lock_file(Path::new(&away)).ok().flatten();
    if moved.is_some() && moved.as_ref() != stale {
        // A link does not replace anything, unlike a rename.
        let _ = fs::hard_link(&away, path);
    }
    let _ = fs::remove_file(&away);
}

/// `None` for a lock file that nobody respects.
fn read_lock_file(path: &Path) -> io::Result<Option<LockFile>> {
    let mut bytes = Vec::with_capacity(LEN);
    File::open(path)?.take(LEN as u64).read_to_end(&mut bytes)?;
    Ok(LockFile::parse(&bytes))
}

fn holder(path: &Path) -> LockError {
    match read_lock_file(path) {
        Ok(Some(lock)) => held_by(&lock),
        _ => LockError::HeldBy { pid: 0, host: hostname(), age: Duration::ZERO },
    }
}

fn held_by(lock: &LockFile) -> LockError {
    LockError::HeldBy { pid: lock.pid, host: lock.host.clone(), age: lock.age() }
}

/// As the reference finds it: `$HOSTNAME`, else `/etc/hostname`, else `unknown`; at most 62 bytes.
fn hostname() -> String {
    let name = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    let name = name.or_else(|| fs::read_to_string("/etc/hostname").ok().map(|name| name.trim().to_owned()));
    let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".into());
    let cut = name.floor_char_boundary(62);
    name[..cut].to_owned()
}

fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// When this process started, nanoseconds since 1970.
fn process_start_ns() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold blanks; the 20th field after it is the start in hundredths since boot.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let (seconds, _) = uptime.split_once('.')?;
    let running = seconds.parse::<u64>().ok()?.saturating_sub(ticks / 100);
    // Two seconds for the rounding of both.
    Some(now_ns().saturating_sub((running + 2) * 1_000_000_000))
}

#[expect(unsafe_code, reason = "asking whether a process exists needs kill(2)")]
fn is_alive(pid: u32) -> bool {
    let Some(pid) = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 0) else { return false };
    // SAFETY: signal 0 only asks; a positive number names one process, never a group.
    let sent = unsafe { libc::kill(pid, 0) };
    sent == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

fn random_id() -> [u8; 16] {
    let mut out = [0; 16];
    let from_kernel = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut out));
    if from_kernel.is_err() {
        for half in out.chunks_exact_mut(8) {
            let mut hasher = RandomState::new().build_hasher();
            hasher.write_u64(now_ns());
            half.copy_from_slice(&hasher.finish().to_le_bytes());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, PathBuf, File) {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("a.rvf");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).expect("store");
        (dir, path, file)
    }

    fn put(path: &Path, lock: &LockFile) {
        fs::write(lock_path(path), lock.to_bytes()).expect("lock file");
    }

    fn dead_pid() -> u32 {
        let mut child = std::process::Command::new("true").spawn().expect("child");
        let pid = child.id();
        child.wait().expect("exit");
        pid
    }

    #[test]
    fn the_lock_file_has_the_layout_of_the_reference() {
        let lock =
            LockFile { pid: 7, host: "h".into(), timestamp_ns: 0x0102_0304_0506_0708, writer_id: [9; 16] };
        let bytes = lock.to_bytes();
        assert_eq!(bytes[..10], *b"FLVR\x07\0\0\0h\0");
        assert_eq!(bytes[0x48..0x50], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes[0x50..0x60], [9; 16]);
        assert_eq!(bytes[0x60..0x64], [1, 0, 0, 0]);
        assert_eq!(bytes[0x64..], crc32(&bytes[..0x64]).to_le_bytes());
        assert_eq!(LockFile::parse(&bytes), Some(lock));
        assert_eq!(LockFile::parse(&bytes[..103]), None);
    }

    #[test]
    fn a_second_writer_waits_in_vain_and_is_told_who_writes() {
        let (_dir, path, file) = store();
        let lock = WriteLock::acquire(&path, &file, Duration::ZERO).expect("first");
        let error = WriteLock::acquire(&path, &file, Duration::from_millis(30)).expect_err("second");
        assert!(matches!(&error, LockError::HeldBy { pid, .. } if *pid == std::process::id()), "{error}");
        assert_eq!(error.code(), Some(0x0300));
        drop(lock);
        assert!(!lock_path(&path).exists(), "the lock file goes with the lock");
        WriteLock::acquire(&path, &file, Duration::ZERO).expect("after the first is gone");
    }

    #[test]
    fn lock_files_are_respected_or_taken_over() {
        let (_dir, path, file) = store();
        let lock = |pid, host: String, timestamp_ns| LockFile { pid, host, timestamp_ns, writer_id: [1; 16] };
        let held = |lock: &LockFile| {
            put(&path, lock);
            WriteLock::acquire(&path, &file, Duration::ZERO).is_err()
        };
        let now = now_ns();
        assert!(
            held(&lock(std::os::unix::process::parent_id(), hostname(), now)),
            "a live process of this host"
        );
        assert!(!held(&lock(dead_pid(), hostname(), now)), "a dead process of this host, at once");
        assert!(held(&lock(1, "elsewhere".into(), now)), "another host");
        assert!(!held(&lock(1, "elsewhere".into(), now - 301_000_000_000)), "another host, 301 s ago");
        assert!(held(&lock(std::process::id(), hostname(), now)), "this very process");
        assert!(!held(&lock(std::process::id(), hostname(), 1)), "our number, before we started");
        fs::write(lock_path(&path), b"short").expect("lock file");
        assert!(WriteLock::acquire(&path, &file, Duration::ZERO).is_ok(), "not a lock file");
    }

    #[test]
    fn a_lock_that_was_taken_over_is_not_removed() {
        let (_dir, path, file) = store();
        let lock = WriteLock::acquire(&path, &file, Duration::ZERO).expect("lock");
        put(
            &path,
            &LockFile { pid: 1, host: "elsewhere".into(), timestamp_ns: now_ns(), writer_id: [2; 16] },
        );
        drop(lock);
        assert!(lock_path(&path).exists());
    }
}
