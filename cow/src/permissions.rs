//! Who may read and write a file that is made of others: nobody who may not do so with all of those.
//!
//! Such a file begins with mode 600, so that nobody else can open it before it has what is worked out here.

use std::fs::{File, Permissions as Mode};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};

use rustix::fs::{XattrFlags, fgetxattr, fgetxattr_query, fremovexattr, fsetxattr};
use rustix::io::Errno;

use crate::error::Error;
use crate::view::View;

/// The mode of a file that nobody but its owner may open.
pub(crate) const PRIVATE: u32 = 0o600;

/// Where a file's access control list is found. Where there is one, the mode's group bits are its upper bound, and say nothing of
/// the group.
const ACCESS_LIST: &str = "system.posix_acl_access";

/// What is given to a file. Owner, group and list are there where all that it is made of have the same.
#[derive(Debug)]
pub(crate) struct Permissions {
    mode: u32,
    uid: Option<u32>,
    gid: Option<u32>,
    /// Empty: none.
    list: Option<Vec<u8>>,
}

impl Permissions {
    /// Those of a file.
    ///
    /// # Errors
    /// [`io::Error`] when the file cannot be asked.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            mode: meta.mode() & 0o7777,
            uid: Some(meta.uid()),
            gid: Some(meta.gid()),
            list: list_of(file),
        })
    }

    /// For a new file with the contents of others: what all of them allow, and, as with any new file, not what the umask forbids. Its
    /// owner may read and write it.
    ///
    /// # Errors
    /// [`Error::Io`] when one of them cannot be asked.
    pub(crate) fn for_child<'v>(parents: impl IntoIterator<Item = &'v View>) -> Result<Self, Error> {
        let mut all: Option<Self> = None;
        for view in parents {
            let own = Self::of(&view.file).map_err(|e| Error::io(&view.path, "stat", e))?;
            all = Some(match all {
                Some(all) => all.and(own),
                None => own,
            });
        }
        let mut all = all.unwrap_or(Self { mode: PRIVATE, uid: None, gid: None, list: None });
        // As the kernel has it: a list takes the place of the umask.
        if all.list.as_ref().is_none_or(Vec::is_empty) {
            all.mode &= !umask();
        }
        all.mode = all.mode & 0o666 | PRIVATE;
        Ok(all)
    }

    fn and(self, other: Self) -> Self {
        Self {
            mode: self.mode & other.mode,
            uid: self.uid.filter(|_| self.uid == other.uid),
            gid: self.gid.filter(|_| self.gid == other.gid),
            list: self.list.filter(|list| other.list.as_ref() == Some(list)),
        }
    }

    /// Gives them to a file of mode [`PRIVATE`], as far as this process may. A group that is not the one of the others, or that a list
    /// was about, gets no more than everybody.
    pub(crate) fn give(&self, file: &File) {
        if let Err(error) = self.try_give(file) {
            tracing::debug!(%error, "owner or mode not carried over");
        }
    }

    fn try_give(&self, file: &File) -> io::Result<()> {
        if let Err(error) = fchown(file, self.uid, self.gid) {
            tracing::debug!(%error, "owner not carried over");
            // A group that this process is in may be given all the same.
            let _not_carried_over = fchown(file, None, self.gid);
        }
        let same_group = Some(file.metadata()?.gid()) == self.gid;
        let same_list = self.list.as_ref().is_some_and(|list| put_list(file, list));
        let mut mode = self.mode;
        if !(same_group && same_list) {
            mode &= !0o070 | mode << 3;
        }
        file.set_permissions(Mode::from_mode(mode))
    }
}

/// The access control list of a file; empty where it has none, `None` where that cannot be found out.
fn list_of(file: &File) -> Option<Vec<u8>> {
    let read = || {
        let mut list = vec![0; fgetxattr_query(file, ACCESS_LIST)?];
        let len = fgetxattr(file, ACCESS_LIST, list.as_mut_slice())?;
        list.truncate(len);
        Ok(list)
    };
    match read() {
        Ok(list) => Some(list),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => Some(Vec::new()),
        Err(_) => None,
    }
}

/// Gives a file this list and no other. Whether it has it now: its directory may have given it one.
fn put_list(file: &File, list: &[u8]) -> bool {
    if !list.is_empty() {
        return fsetxattr(file, ACCESS_LIST, list, XattrFlags::empty()).is_ok();
    }
    matches!(fremovexattr(file, ACCESS_LIST), Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS))
}

/// What this process gives nobody with a new file; all that is not the owner's where that cannot be found out. It can be asked for
/// only by changing it, for all threads, so it is read.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o077)
}
