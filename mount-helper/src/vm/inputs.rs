//! All that a machine's state after its boot depends on, as the key of a snapshot.
//!
//! The guest has read of the store what it needed and reads the rest later, so the store must have the very bytes that it had.
//! That is told by what the file is (device, inode, length, times), by what its segments' headers and its manifest say
//! (lengths and checksums of all that is committed), and, in a small file, by all of its bytes. A large file is taken to be
//! unchanged only if its times lie so far back that a change since they were looked at had shown in them.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rvf_cow::View;
use rvf_kernel::vm::{Descriptors, Plan};
use sha2::{Digest as _, Sha256};

use super::parts::Parts;
use crate::cache::{Key, KeyOf};
use crate::verify::Verified;

/// Bytes of a store that is read as a whole.
const SMALL: u64 = 16 << 20;
/// Times of files are this coarse at the worst (FAT: 2 s).
const COARSE: Duration = Duration::from_secs(3);
/// Lines of /proc/cpuinfo that tell which processor this is; the guest measured its clocks by it.
const PROCESSOR: [&str; 5] = ["vendor_id", "cpu family", "model", "model name", "stepping"];
/// Where QEMU's firmware lies, beside the directory of its program.
const FIRMWARE: [&str; 2] = ["../share/qemu", "../share/seabios"];

/// The program that is started: what a shell would find.
pub(super) fn emulator(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let is_program =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    let places = std::env::split_paths(&path).filter(|place| place.is_absolute());
    places.map(|place| place.join(program)).find(is_program)
}

/// What a machine's state depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inputs {
    /// All of it.
    pub(super) key: Key,
    /// The store alone, to be compared again.
    pub(super) store: Key,
}

/// The inputs of a machine; `None` where it cannot be told whether the store is what it was.
pub(super) fn of(
    plan: &Plan,
    parts: &Parts,
    verified: &Verified,
    emulator: &Path,
) -> io::Result<Option<Inputs>> {
    let Some(store) = store(&verified.view)? else { return Ok(None) };
    // The numbers of descriptors do not matter.
    let drives = (4..).take(parts.drives.len()).collect();
    let fds = Descriptors { kernel: 0, initramfs: 1, control: 2, memory: Some(3), drives };
    // A machine that cannot be is refused when it is started.
    let Ok(arguments) = plan.arguments(&fds) else { return Ok(None) };
    let program = fs::canonicalize(emulator)?;
    let mut key = Key::of("rvf-exec machine v2")
        .with("rvf-exec", env!("CARGO_PKG_VERSION").as_bytes())
        .with("payload", &verified.digest)
        .with("initramfs", &Sha256::digest(parts.initramfs.bytes()))
        .with("emulator", program.as_os_str().as_bytes());
    key = with_file(key, "emulator", &fs::metadata(&program)?);
    for place in FIRMWARE {
        let place = program.parent().unwrap_or(Path::new("/")).join(place);
        if let Ok(meta) = fs::metadata(place) {
            key = with_file(key, "firmware", &meta);
        }
    }
    for argument in &arguments {
        key = key.with("argument", argument.as_bytes());
    }
    let key = key.with("host", host()?.as_bytes()).with("store", store.bytes()).finish();
    Ok(Some(Inputs { key, store }))
}

/// What tells one state of a file from another without reading it.
fn with_file(key: KeyOf, what: &str, meta: &Metadata) -> KeyOf {
    let signed = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()].map(i64::to_le_bytes);
    let plain = [meta.dev(), meta.ino(), meta.len()].map(u64::to_le_bytes);
    key.with(what, &[plain.as_flattened(), signed.as_flattened()].concat())
}

/// The state of a store, with that of each ancestor of a branch; `None` where one changed since it was opened, or so lately that
/// a change might not show.
pub(super) fn store(view: &View) -> io::Result<Option<Key>> {
    let mut key = Key::of("store");
    for view in view.chain() {
        let Some(file) = file(view)? else { return Ok(None) };
        key = key.with("file", file.bytes());
    }
    Ok(Some(key.finish()))
}

fn file(view: &View) -> io::Result<Option<Key>> {
    let meta = view.file().metadata()?;
    if meta.len() != view.whole_len() {
        return Ok(None);
    }
    let mut key = with_file(Key::of("file"), "file", &meta);
    if meta.len() <= SMALL {
        key = key.with("bytes", &digest(view.file(), meta.len())?);
    } else if !is_settled(&meta, SystemTime::now()) {
        return Ok(None);
    }
    let bytes = view.bytes();
    let opened = view.opened();
    let mut headers = Sha256::new();
    for segment in opened.layout.segments() {
        let from = segment.offset as usize;
        headers.update(segment.offset.to_le_bytes());
        headers.update(bytes.get(from..segment.payload.start as usize).unwrap_or_default());
    }
    if let Some(manifest) = &opened.manifest {
        headers.update(manifest.segment.payload_of(bytes));
    }
    // What another program cut away meanwhile reads as zeros.
    view.check_whole().map_err(|e| io::Error::other(e.to_string()))?;
    Ok(Some(key.with("headers", &headers.finalize()).finish()))
}

/// Whether a change from now on would get other times than those that the file has.
fn is_settled(meta: &Metadata, now: SystemTime) -> bool {
    let at = |seconds: i64| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds.try_into().ok()?));
    // A time that is ahead of the clock says nothing.
    let is_old = |seconds| at(seconds).is_some_and(|at| now.duration_since(at).is_ok_and(|age| age > COARSE));
    is_old(meta.mtime()) && is_old(meta.ctime())
}

fn digest(file: &File, len: u64) -> io::Result<[u8; 32]> {
    let mut piece = vec![0; 1 << 20];
    let mut digest = Sha256::new();
    let mut at = 0;
    while at < len {
        let most = piece.len().min(usize::try_from(len - at).unwrap_or(usize::MAX));
        let piece = piece.get_mut(..most).unwrap_or_default();
        file.read_exact_at(piece, at)?;
        digest.update(&*piece);
        at += most as u64;
    }
    Ok(digest.finalize().into())
}

/// This machine, its system and its processor.
fn host() -> io::Result<String> {
    let system = rustix::system::uname();
    let words = [system.nodename(), system.release(), system.version(), system.machine()];
    let mut host: String = words.iter().map(|word| format!("{}\n", word.to_string_lossy())).collect();
    let list = fs::read("/proc/cpuinfo")?;
    // The first processor's lines, which an empty one ends.
    let lines = list.split(|b| *b == b'\n').take_while(|line| !line.is_empty()).map(OsStr::from_bytes);
    for line in lines.filter_map(OsStr::to_str) {
        if line.split_once(':').is_some_and(|(name, _)| PROCESSOR.contains(&name.trim())) {
            host.push_str(line);
            host.push('\n');
        }
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_written_just_now_is_in_doubt() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let meta = file.as_file().metadata().unwrap();
        let now = SystemTime::now();
        assert!(!is_settled(&meta, now));
        assert!(is_settled(&meta, now + Duration::from_secs(60)));
        // The clock was set back.
        assert!(!is_settled(&meta, now - Duration::from_secs(60)));
        // Its content's time can be set by anybody, that of the change cannot.
        file.as_file().set_modified(now - Duration::from_secs(1000)).unwrap();
        assert!(!is_settled(&file.as_file().metadata().unwrap(), now));
    }

    #[test]
    fn a_file_is_told_by_all_that_changes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let state = || with_file(Key::of("x"), "file", &fs::metadata(&path).unwrap()).finish();
        fs::write(&path, b"one").unwrap();
        let first = state();
        assert_eq!(first, state());
        fs::write(&path, b"longer").unwrap();
        assert_ne!(first, state());
        // The same bytes and time in another file.
        let second = state();
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(dir.path().join("b"), b"longer").unwrap();
        fs::rename(dir.path().join("b"), &path).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        assert_ne!(second, state());
    }

    #[test]
    fn the_emulator_is_looked_for_as_a_shell_does() {
        assert!(emulator("sh").is_some_and(|path| path.is_absolute() && path.ends_with("sh")));
        assert_eq!(emulator("no-such-program-here"), None);
    }
}
