//! Why the tree refuses something, and the one place where that becomes an errno.

use std::io;

use rvf_cow::Error as StoreError;

use crate::data::{DataError, Kind};

/// A refusal or failure of an operation on the tree.
///
/// Every variant with a sentence was caused by what somebody wrote; the sentence goes to the `error` file of the
/// directory. The others are ordinary answers of a filesystem and are not recorded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name, or the thing behind an inode number, does not exist.
    #[error("no such file or directory")]
    NotFound,
    /// A path component is not a directory.
    #[error("not a directory")]
    NotDirectory,
    /// A directory where a file is needed.
    #[error("is a directory")]
    IsDirectory,
    /// The name is taken.
    #[error("{what}")]
    Exists {
        /// What exists.
        what: String,
    },
    /// A directory still holds something.
    #[error("{what}")]
    NotEmpty {
        /// What it holds.
        what: String,
    },
    /// The mount, or the store, may not be changed.
    #[error("the store is mounted read-only")]
    ReadOnly,
    /// A handle that does not allow the operation.
    #[error("the file is not open for this")]
    BadHandle,
    /// The inode belongs to an older state of the store; the kernel looks the path up again.
    #[error("the file has changed")]
    Stale,
    /// No such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// A buffer is too small for the value.
    #[error("the buffer is too small")]
    Range,
    /// A name of more than 255 bytes.
    #[error("the name is longer than 255 bytes")]
    NameTooLong,
    /// A rename that would leave its directory.
    #[error("files cannot move between these directories")]
    CrossDevice,
    /// An ioctl that does not exist.
    #[error("no such ioctl")]
    NotTty,
    /// Something this filesystem does not do.
    #[error("not supported")]
    NotSupported,
    /// Policy forbids it.
    #[error("{what}")]
    NotPermitted {
        /// What, and what to do instead.
        what: String,
    },
    /// What was written makes no sense.
    #[error("{what}")]
    Invalid {
        /// What is wrong, where, and what would be right.
        what: String,
    },
    /// Over a documented limit.
    #[error("{what}")]
    TooLarge {
        /// Which limit.
        what: String,
    },
    /// Something is in use.
    #[error("{what}")]
    Busy {
        /// What.
        what: String,
    },
    /// A checksum or a witness chain does not fit.
    #[error("{what}")]
    Checksum {
        /// What was found.
        what: String,
    },
    /// The structure of the file is damaged.
    #[error("{what}")]
    Damaged {
        /// What was found.
        what: String,
    },
    /// The deadline passed.
    #[error("no answer within {ms} ms")]
    Timeout {
        /// The deadline, in milliseconds.
        ms: u64,
    },
    /// Any other operating-system error.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// What was written does not parse.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Error {
    /// [`Error::Invalid`] from a sentence.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }

    /// [`Error::NotPermitted`] from a sentence.
    pub fn denied(what: impl Into<String>) -> Self {
        Self::NotPermitted { what: what.into() }
    }

    /// [`Error::Io`] with what was being done.
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// Whether the sentence says something a writer wants to read in `error`.
    #[must_use]
    pub fn is_worth_recording(&self) -> bool {
        match self {
            Self::NotFound
            | Self::NotDirectory
            | Self::IsDirectory
            | Self::BadHandle
            | Self::Stale
            | Self::NoAttribute
            | Self::Range
            | Self::NameTooLong
            | Self::CrossDevice
            | Self::NotTty
            | Self::NotSupported => false,
            Self::Exists { .. }
            | Self::NotEmpty { .. }
            | Self::ReadOnly
            | Self::NotPermitted { .. }
            | Self::Invalid { .. }
            | Self::TooLarge { .. }
            | Self::Busy { .. }
            | Self::Checksum { .. }
            | Self::Damaged { .. }
            | Self::Timeout { .. }
            | Self::Io { .. }
            | Self::Data(_)
            | Self::Store(_) => true,
        }
    }
}

/// The only map from refusals to error numbers.
#[must_use]
pub fn to_errno(error: &Error) -> i32 {
    match error {
        Error::NotFound => libc::ENOENT,
        Error::NotDirectory => libc::ENOTDIR,
        Error::IsDirectory => libc::EISDIR,
        Error::Exists { .. } => libc::EEXIST,
        Error::NotEmpty { .. } => libc::ENOTEMPTY,
        Error::ReadOnly => libc::EROFS,
        Error::BadHandle => libc::EBADF,
        Error::Stale => libc::ESTALE,
        Error::NoAttribute => libc::ENODATA,
        Error::Range => libc::ERANGE,
        Error::NameTooLong => libc::ENAMETOOLONG,
        Error::CrossDevice => libc::EXDEV,
        Error::NotTty => libc::ENOTTY,
        // Never ENOSYS: the kernel would remember it for the whole mount.
        Error::NotSupported => libc::EOPNOTSUPP,
        Error::NotPermitted { .. } => libc::EPERM,
        Error::Invalid { .. } => libc::EINVAL,
        Error::TooLarge { .. } => libc::EFBIG,
        Error::Busy { .. } => libc::EBUSY,
        Error::Checksum { .. } => libc::EBADMSG,
        Error::Damaged { .. } => libc::EUCLEAN,
        Error::Timeout { .. } => libc::ETIMEDOUT,
        Error::Io { source, .. } => io_errno(source),
        Error::Data(error) if error.kind == Kind::TooLarge => libc::EFBIG,
        Error::Data(_) => libc::EINVAL,
        Error::Store(error) => store_errno(error),
    }
}

fn io_errno(error: &io::Error) -> i32 {
    match error.raw_os_error() {
        Some(code) if code > 0 => code,
        _ => match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => libc::ENOSPC,
            io::ErrorKind::NotFound => libc::ENOENT,
            io::ErrorKind::PermissionDenied => libc::EACCES,
            io::ErrorKind::OutOfMemory => libc::ENOMEM,
            _ => libc::EIO,
        },
    }
}

fn store_errno(error: &StoreError) -> i32 {
    match error {
        StoreError::NotFound { .. } | StoreError::NoSuchId { .. } => libc::ENOENT,
        StoreError::Exists { .. } => libc::EEXIST,
        StoreError::NotRegular { .. }
        | StoreError::Dimension { .. }
        | StoreError::NotFinite { .. }
        | StoreError::DuplicateId { .. }
        | StoreError::Invalid { .. }
        | StoreError::BadFilter { .. } => libc::EINVAL,
        StoreError::NotRvf { .. } | StoreError::Damaged { .. } => libc::EUCLEAN,
        StoreError::ReadOnly { .. } | StoreError::Frozen { .. } => libc::EROFS,
        StoreError::Policy { .. } => libc::EPERM,
        StoreError::Locked { .. } => libc::EBUSY,
        StoreError::NoSpace { .. } => libc::ENOSPC,
        StoreError::TooLarge { .. } => libc::EFBIG,
        StoreError::Timeout { .. } => libc::ETIMEDOUT,
        StoreError::Cancelled => libc::ECANCELED,
        StoreError::Unsupported { .. } => libc::EOPNOTSUPP,
        StoreError::Io { source, .. } => io_errno(source),
        // The store's error may grow; until it has a line here, a new kind is an I/O error.
        _ => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Place;
    use std::path::PathBuf;

    #[test]
    fn every_variant_has_its_number() {
        let what = || String::from("x");
        let os = |code| io::Error::from_raw_os_error(code);
        let table = [
            (Error::NotFound, libc::ENOENT, false),
            (Error::NotDirectory, libc::ENOTDIR, false),
            (Error::IsDirectory, libc::EISDIR, false),
            (Error::Exists { what: what() }, libc::EEXIST, true),
            (Error::NotEmpty { what: what() }, libc::ENOTEMPTY, true),
            (Error::ReadOnly, libc::EROFS, true),
            (Error::BadHandle, libc::EBADF, false),
            (Error::Stale, libc::ESTALE, false),
            (Error::NoAttribute, libc::ENODATA, false),
            (Error::Range, libc::ERANGE, false),
            (Error::NameTooLong, libc::ENAMETOOLONG, false),
            (Error::CrossDevice, libc::EXDEV, false),
            (Error::NotTty, libc::ENOTTY, false),
            (Error::NotSupported, libc::EOPNOTSUPP, false),
            (Error::denied("x"), libc::EPERM, true),
            (Error::invalid("x"), libc::EINVAL, true),
            (Error::TooLarge { what: what() }, libc::EFBIG, true),
            (Error::Busy { what: what() }, libc::EBUSY, true),
            (Error::Checksum { what: what() }, libc::EBADMSG, true),
            (Error::Damaged { what: what() }, libc::EUCLEAN, true),
            (Error::Timeout { ms: 1 }, libc::ETIMEDOUT, true),
            (Error::Data(DataError::new(Kind::TooLarge, Place::Whole, "x", "")), libc::EFBIG, true),
            (Error::Data(DataError::new(Kind::Syntax, Place::Whole, "x", "")), libc::EINVAL, true),
            (Error::io("x", os(libc::EDQUOT)), libc::EDQUOT, true),
            (Error::io("x", io::Error::other("y")), libc::EIO, true),
            (Error::io("x", io::ErrorKind::StorageFull.into()), libc::ENOSPC, true),
        ];
        for (error, errno, recorded) in table {
            assert_eq!(to_errno(&error), errno, "{error:?}");
            assert_eq!(error.is_worth_recording(), recorded, "{error:?}");
        }
    }

    #[test]
    fn every_refusal_of_the_store_has_its_number() {
        let path = || PathBuf::from("a.rvf");
        let what = || String::from("x");
        let table = [
            (StoreError::NotFound { path: path() }, libc::ENOENT),
            (StoreError::Exists { path: path() }, libc::EEXIST),
            (StoreError::NotRegular { path: path(), what: "FIFO" }, libc::EINVAL),
            (StoreError::NotRvf { path: path(), reason: what(), code: 0x0106 }, libc::EUCLEAN),
            (StoreError::Dimension { row: 0, got: 1, want: 2 }, libc::EINVAL),
            (StoreError::NotFinite { row: 0, component: 0 }, libc::EINVAL),
            (StoreError::DuplicateId { id: 1 }, libc::EINVAL),
            (StoreError::NoSuchId { id: 1 }, libc::ENOENT),
            (StoreError::Invalid { what: what() }, libc::EINVAL),
            (StoreError::BadFilter { what: what() }, libc::EINVAL),
            (StoreError::ReadOnly { path: path() }, libc::EROFS),
            (StoreError::Frozen { path: path(), epoch: 1 }, libc::EROFS),
            (StoreError::Policy { what: what() }, libc::EPERM),
            (StoreError::Locked { path: path(), holder: what() }, libc::EBUSY),
            (StoreError::NoSpace { path: path() }, libc::ENOSPC),
            (StoreError::TooLarge { what: what() }, libc::EFBIG),
            (StoreError::Timeout { ms: 1 }, libc::ETIMEDOUT),
            (StoreError::Cancelled, libc::ECANCELED),
            (StoreError::Damaged { path: path(), what: what() }, libc::EUCLEAN),
            (StoreError::Unsupported { path: path(), what: what() }, libc::EOPNOTSUPP),
            (
                StoreError::Io {
                    path: path(),
                    action: "read",
                    source: io::Error::from_raw_os_error(libc::EIO),
                },
                libc::EIO,
            ),
        ];
        for (error, errno) in table {
            assert_eq!(to_errno(&Error::Store(error)), errno);
        }
    }
}
