//! Keeps a process that serves a mount from reaching into it: it would wait for its own answer, for ever.
//!
//! A symlink beside a store, or the parent path that a file carries, may lead into the mount. A path is therefore
//! walked name by name with `O_PATH`, which asks the filesystem it arrives at nothing, and is given up where it enters
//! a device that this process serves. The file is then opened through the descriptor the walk ended with, so that a
//! name swapped meanwhile changes nothing. Devices tell a mount under all its names, also bind mounts.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions as FileOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use parking_lot::RwLock;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags};

use crate::error::Error;

/// Symlinks followed on the way, as many as the kernel does.
const MAX_LINKS: usize = 40;

/// Major and minor number.
type Device = (u32, u32);

/// The filesystems that this process answers for. Not part of a store's options: whatever any part of the process
/// opens, it must not be its own mount.
static SERVED: RwLock<Vec<Device>> = RwLock::new(Vec::new());

/// A filesystem is served by this process until this is dropped.
#[derive(Debug)]
#[must_use = "paths into the mount are refused only while this lives"]
pub struct Served(Device);

impl Drop for Served {
    fn drop(&mut self) {
        let mut served = SERVED.write();
        if let Some(at) = served.iter().position(|device| *device == self.0) {
            served.swap_remove(at);
        }
    }
}

/// Says that this process serves what is mounted at `mountpoint`: from now on, paths that lead into it are refused
/// with [`Error::Policy`]. To be called when it is mounted; asks the mount itself nothing.
///
/// # Errors
/// When the mountpoint cannot be reached.
pub fn serve(mountpoint: &Path) -> io::Result<Served> {
    let root = rustix::fs::open(mountpoint, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let (device, _) = look(&root)?;
    SERVED.write().push(device);
    Ok(Served(device))
}

/// Where a path leads.
#[derive(Debug)]
pub struct Reached {
    /// The path without symlinks, `.` and `..`; as given while this process serves nothing.
    pub path: PathBuf,
    /// What is there.
    pub meta: Metadata,
    place: Option<File>,
}

/// Follows a path without entering a mount of this process. O(names in the path), a few system calls each.
///
/// # Errors
/// [`Error::Policy`] when it leads into a mount of this process; [`Error::NotFound`] and [`Error::Io`] as `stat` would.
pub fn reach(path: &Path) -> Result<Reached, Error> {
    let failed = |error: io::Error| Error::io(path, "stat", error);
    if SERVED.read().is_empty() {
        let meta = std::fs::metadata(path).map_err(failed)?;
        return Ok(Reached { path: path.to_path_buf(), meta, place: None });
    }
    let (place, at) = walk(path).map_err(|stop| match stop {
        Stop::Failed(error) => failed(error),
        Stop::Own(at) => Error::Policy {
            what: format!(
                "{} leads into the mount at {}, which is served from here and would wait for itself; \
                 let it name the .rvf file itself, outside the mount",
                path.display(),
                at.display()
            ),
        },
    })?;
    let place = File::from(place);
    let meta = place.metadata().map_err(failed)?;
    Ok(Reached { path: at, meta, place: Some(place) })
}

/// Where a store lies that is opened by this path: a symlink is followed, because what replaces the file at a compaction, its
/// lock and its branches lie beside the file itself. Other paths stay as they are given, also those that lead nowhere.
///
/// # Errors
/// As [`reach`], while this process serves something.
pub fn resolve(path: &Path) -> Result<PathBuf, Error> {
    if SERVED.read().is_empty() {
        let is_link = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
        let found = is_link.then(|| std::fs::canonicalize(path).ok()).flatten();
        return Ok(found.unwrap_or_else(|| path.to_path_buf()));
    }
    let reached = reach(path)?.path;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = reach(directory)?.path;
    let is_link = reached.parent() != Some(&beside) || reached.file_name() != path.file_name();
    Ok(if is_link { reached } else { path.to_path_buf() })
}

impl Reached {
    /// Opens what was reached; a FIFO does not block.
    pub(crate) fn open(&self, write: bool) -> io::Result<File> {
        let mut how = FileOptions::new();
        how.read(true).write(write).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
        let Some(place) = &self.place else { return how.open(&self.path) };
        match how.open(format!("/proc/self/fd/{}", place.as_raw_fd())) {
            // No /proc: then there are no links in it either, and the name is all there is.
            Err(error) if error.kind() == io::ErrorKind::NotFound => how.open(&self.path),
            result => result,
        }
    }
}

enum Stop {
    Failed(io::Error),
    /// The path enters a mount of this process here.
    Own(PathBuf),
}

impl From<rustix::io::Errno> for Stop {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Failed(errno.into())
    }
}

/// One name still to be followed.
enum Step {
    Root,
    Up,
    Down(OsString),
}

fn steps(path: &Path) -> impl DoubleEndedIterator<Item = Step> {
    path.components().filter_map(|part| match part {
        Component::Prefix(_) | Component::CurDir => None,
        Component::RootDir => Some(Step::Root),
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(Step::Down(name.to_owned())),
    })
}

fn walk(path: &Path) -> Result<(OwnedFd, PathBuf), Stop> {
    if path.as_os_str().is_empty() {
        return Err(rustix::io::Errno::NOENT.into());
    }
    let mut left: Vec<Step> = steps(path).rev().collect();
    let mut links = 0;
    let (mut here, mut at) = if path.is_absolute() {
        (open_path(CWD, c"/".to_owned())?, PathBuf::from("/"))
    } else {
        (open_path(CWD, c".".to_owned())?, std::env::current_dir().map_err(Stop::Failed)?)
    };
    enter(&here, &at)?;
    while let Some(step) = left.pop() {
        match step {
            Step::Root => {
                here = open_path(CWD, c"/".to_owned())?;
                at = PathBuf::from("/");
                enter(&here, &at)?;
            }
            Step::Up => {
                here = open_path(here.as_fd(), c"..".to_owned())?;
                at.pop();
                enter(&here, &at)?;
            }
            Step::Down(name) => {
                let next = open_path(here.as_fd(), c_name(&name)?)?;
                let beneath = at.join(&name);
                if enter(&next, &beneath)? != FileType::Symlink {
                    (here, at) = (next, beneath);
                    continue;
                }
                links += 1;
                if links > MAX_LINKS {
                    return Err(rustix::io::Errno::LOOP.into());
                }
                let target = rustix::fs::readlinkat(&next, c"", Vec::new())?;
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                left.extend(steps(&target).rev());
            }
        }
    }
    Ok((here, at))
}

fn c_name(name: &OsStr) -> Result<CString, Stop> {
    CString::new(name.as_bytes()).map_err(|error| Stop::Failed(error.into()))
}

fn open_path(from: impl AsFd, name: CString) -> Result<OwnedFd, Stop> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(from, name, flags, Mode::empty())?)
}

/// What kind of file this is, if it is not on a device of our own.
fn enter(place: &OwnedFd, at: &Path) -> Result<FileType, Stop> {
    let (device, kind) = look(place)?;
    if SERVED.read().contains(&device) { Err(Stop::Own(at.to_path_buf())) } else { Ok(kind) }
}

/// Device and type. With `DONT_SYNC` the kernel answers from what it knows, also for our own mount.
fn look(place: &OwnedFd) -> rustix::io::Result<(Device, FileType)> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let known = rustix::fs::statx(place, c"", flags, StatxFlags::TYPE)?;
    Ok(((known.stx_dev_major, known.stx_dev_minor), FileType::from_raw_mode(known.stx_mode.into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Another filesystem stands in for the mount.
    const OTHER: &str = "/proc";

    #[test]
    fn paths_into_a_served_filesystem_are_refused_whatever_the_way() {
        let dir = tempfile::tempdir().expect("a directory");
        let real = dir.path().canonicalize().expect("a path");
        std::fs::write(real.join("file"), b"x").expect("a file");
        std::fs::create_dir(real.join("sub")).expect("a directory");
        symlink("../file", real.join("sub/near")).expect("a link");
        symlink(real.join("sub"), real.join("over")).expect("a link");
        symlink(format!("{OTHER}/self/status"), real.join("away")).expect("a link");
        symlink("away", real.join("twice")).expect("a link");
        symlink("loop", real.join("loop")).expect("a link");
        let up = "../".repeat(30);
        symlink(format!("{up}{}", &OTHER[1..]), real.join("climbing")).expect("a link");

        let served = serve(Path::new(OTHER)).expect("served");
        for name in ["file", "sub/near", "over/near", "sub/../over/../file", "./file"] {
            let reached = reach(&real.join(name)).expect(name);
            assert_eq!(reached.path, real.join("file"), "{name}");
            assert!(reached.meta.is_file() && reached.meta.len() == 1, "{name}");
        }
        for name in ["away", "twice", "climbing", "climbing/1"] {
            let error = reach(&real.join(name)).expect_err(name);
            assert!(matches!(error, Error::Policy { .. }), "{name}: {error}");
            let text = error.to_string();
            assert!(text.contains(&format!("leads into the mount at {OTHER}")), "{name}: {text}");
        }
        assert!(matches!(reach(Path::new("/proc/1/status")), Err(Error::Policy { .. })));
        assert!(matches!(reach(&real.join("none")), Err(Error::NotFound { .. })));
        assert!(matches!(reach(&real.join("file/none")), Err(Error::Io { .. })));
        let error = reach(&real.join("loop")).expect_err("a loop");
        assert!(matches!(error, Error::Io { ref source, .. } if source.raw_os_error() == Some(libc::ELOOP)));
        assert!(reach(Path::new("/")).expect("the root").meta.is_dir());
        assert!(matches!(reach(Path::new("")), Err(Error::NotFound { .. })));

        drop(served);
        assert!(reach(&real.join("away")).expect("free again").meta.is_file());
    }
}
