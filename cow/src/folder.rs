//! A directory that is looked at again and again: reached once, and asked through its descriptor from then on.
//!
//! Walking a path as [`reach`] does costs some system calls a name. A directory with a thousand stores in it would be asked
//! fifteen thousand times for one listing.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, StatxFlags};

use crate::branch::Kin;
use crate::error::Error;
use crate::reach::reach;

/// A directory held open.
#[derive(Debug)]
pub struct Folder {
    file: File,
    dev: u64,
}

/// What changes when somebody writes to a file, replaces it, or changes who may read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Device and inode.
    pub file: (u64, u64),
    /// Bytes.
    pub len: u64,
    /// When the content was changed: seconds and nanoseconds since 1970.
    pub modified: (i64, i64),
    /// When content or attributes were changed.
    pub changed: (i64, i64),
}

impl Stamp {
    /// That of what was looked at.
    #[must_use]
    pub fn of(meta: &std::fs::Metadata) -> Self {
        Self {
            file: (meta.dev(), meta.ino()),
            len: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

impl Folder {
    /// Opens a directory outside the mounts of this process.
    ///
    /// # Errors
    /// As [`reach`]; [`Error::NotRegular`] is none of them: whatever is no directory has no entries.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let reached = reach(path)?;
        let file = reached.open(false).map_err(|e| Error::io(path, "open", e))?;
        let dev = file.metadata().map_err(|e| Error::io(path, "stat", e))?.dev();
        Ok(Self { file, dev })
    }

    /// The directory itself, as it is now.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn stamp(&self) -> io::Result<Stamp> {
        Ok(Stamp::of(&self.file.metadata()?))
    }

    /// Names of its regular files, in no order. Links are not followed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn files(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.file)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let regular = match entry.file_type() {
                FileType::RegularFile => true,
                FileType::Unknown => self.stamp_of(name).is_some(),
                _ => false,
            };
            if regular {
                names.push(OsString::from_vec(name.as_bytes().to_vec()));
            }
        }
        Ok(names)
    }

    /// A regular file in it; `None` for anything else, and for what lies on another device: that could be a mount of this
    /// process, which must not be asked.
    #[must_use]
    pub fn stamp_of(&self, name: &OsStr) -> Option<Stamp> {
        let name = CString::new(name.as_bytes()).ok()?;
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
        let known = rustix::fs::statx(&self.file, name, flags, StatxFlags::BASIC_STATS).ok()?;
        let dev = rustix::fs::makedev(known.stx_dev_major, known.stx_dev_minor);
        let regular = FileType::from_raw_mode(known.stx_mode.into()) == FileType::RegularFile;
        (regular && dev == self.dev).then_some(Stamp {
            file: (dev, known.stx_ino),
            len: known.stx_size,
            modified: (known.stx_mtime.tv_sec, known.stx_mtime.tv_nsec.into()),
            changed: (known.stx_ctime.tv_sec, known.stx_ctime.tv_nsec.into()),
        })
    }

    /// Who a regular file in it is, as [`Kin::of`].
    ///
    /// # Errors
    /// [`Error::NotRegular`] where [`Folder::stamp_of`] gives nothing; otherwise as [`Kin::of`].
    pub fn kin_of(&self, name: &OsStr) -> Result<Option<Kin>, Error> {
        let path = Path::new(name);
        if self.stamp_of(name).is_none() {
            return Err(Error::NotRegular {
                path: path.to_path_buf(),
                what: "file of another kind or device",
            });
        }
        let c_name = CString::new(name.as_bytes()).map_err(|e| Error::io(path, "open", e.into()))?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&self.file, c_name, flags, Mode::empty());
        let file = File::from(opened.map_err(|e| Error::io(path, "open", e.into()))?);
        let meta = file.metadata().map_err(|e| Error::io(path, "stat", e))?;
        // The name may have been swapped between the two calls.
        if !meta.is_file() {
            return Err(Error::NotRegular { path: path.to_path_buf(), what: "file of another kind" });
        }
        Kin::read(path, &file, meta.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_files_are_told_from_others() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("file"), b"four").expect("a file");
        std::fs::create_dir(dir.path().join("sub")).expect("a directory");
        std::os::unix::fs::symlink("file", dir.path().join("link")).expect("a link");
        let folder = Folder::open(dir.path()).expect("opened");
        assert_eq!(folder.files().expect("listed"), ["file"]);
        let meta = std::fs::metadata(dir.path().join("file")).expect("there");
        assert_eq!(folder.stamp_of(OsStr::new("file")), Some(Stamp::of(&meta)));
        for other in ["sub", "link", "none", "sub/../file/x"] {
            assert_eq!(folder.stamp_of(OsStr::new(other)), None, "{other}");
            assert!(folder.kin_of(OsStr::new(other)).is_err(), "{other}");
        }
        assert_eq!(folder.kin_of(OsStr::new("file")).expect("read"), None);
        let before = folder.stamp().expect("told");
        std::fs::remove_file(dir.path().join("file")).expect("removed");
        assert_ne!(folder.stamp().expect("told"), before);
    }
}
