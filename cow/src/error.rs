//! One error type for everything a store can refuse or fail at.

use std::io;
use std::path::{Path, PathBuf};

pub use rvf_format::Family;

/// Why an operation on a store did not happen. Nothing was changed unless a variant says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file does not exist.
    #[error("{}: no such file", path.display())]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// The file exists already.
    #[error("{}: file exists; choose another name or remove it first", path.display())]
    Exists {
        /// The path as given.
        path: PathBuf,
    },
    /// The path is not a regular file.
    #[error("{}: is a {what}, not a regular file", path.display())]
    NotRegular {
        /// The path as given.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The bytes are not an RVF store, or nothing in them can be used.
    #[error("{}: not a usable RVF file: {reason}", path.display())]
    NotRvf {
        /// The path as given.
        path: PathBuf,
        /// What was found, and what would help.
        reason: String,
        /// The error code the existing tools give here.
        code: u16,
    },
    /// A vector or query has another number of components than the store.
    #[error("row {row} has {got} numbers, but the store's dimension is {want}")]
    Dimension {
        /// Row of the batch, from 0.
        row: u64,
        /// Components found.
        got: usize,
        /// Components wanted.
        want: usize,
    },
    /// A component is NaN or infinite.
    #[error("row {row}, component {component} is not a finite number")]
    NotFinite {
        /// Row of the batch or query, from 0.
        row: u64,
        /// Component, from 0.
        component: usize,
    },
    /// An id occurs twice in one batch.
    #[error("id {id} occurs more than once in the batch; ids must be unique within one batch")]
    DuplicateId {
        /// The id.
        id: u64,
    },
    /// The store holds no live vector with this id.
    #[error("no vector with id {id}")]
    NoSuchId {
        /// The id.
        id: u64,
    },
    /// An argument is out of its range.
    #[error("{what}")]
    Invalid {
        /// What is wrong and what would be right.
        what: String,
    },
    /// A filter does not parse, or names a field wrongly.
    #[error("filter: {what}")]
    BadFilter {
        /// The parser's sentence.
        what: String,
    },
    /// The store was opened for reading only.
    #[error("{}: opened read-only", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// The store was frozen: a snapshot that nothing changes any more.
    #[error("{}: frozen at epoch {epoch}; branch it to go on from there", path.display())]
    Frozen {
        /// The file.
        path: PathBuf,
        /// When.
        epoch: u32,
    },
    /// A policy of the file forbids the change.
    #[error("{what}")]
    Policy {
        /// What is forbidden and how to allow it.
        what: String,
    },
    /// Another process holds the write lock.
    #[error("{}: locked by another writer ({holder})", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// Who, as far as the lock tells.
        holder: String,
    },
    /// The device is full.
    #[error("{}: no space left on the device; nothing was committed", path.display())]
    NoSpace {
        /// The file.
        path: PathBuf,
    },
    /// A limit is exceeded.
    #[error("{what}")]
    TooLarge {
        /// Which limit, and the value found.
        what: String,
    },
    /// The deadline passed.
    #[error("no answer within {ms} ms")]
    Timeout {
        /// The deadline given, in milliseconds.
        ms: u64,
    },
    /// The work was cancelled by its progress callback.
    #[error("cancelled")]
    Cancelled,
    /// The file shrank or was replaced under an open view.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is damaged.
        what: String,
    },
    /// The file uses something this program does not do.
    #[error("{}: {what}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What, and what to do instead.
        what: String,
    },
    /// Any other operating-system error.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// The cause.
        source: io::Error,
    },
}

impl Error {
    /// Wraps an I/O error, giving the common ones their own variant.
    #[must_use]
    pub fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { path },
            io::ErrorKind::AlreadyExists => Self::Exists { path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { path },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            _ => Self::Io { path, action, source },
        }
    }

    /// Which of the four families the error belongs to.
    #[must_use]
    pub fn family(&self) -> Family {
        match self {
            Self::NotFound { .. }
            | Self::Exists { .. }
            | Self::NotRegular { .. }
            | Self::Dimension { .. }
            | Self::NotFinite { .. }
            | Self::DuplicateId { .. }
            | Self::NoSuchId { .. }
            | Self::Invalid { .. }
            | Self::BadFilter { .. }
            | Self::TooLarge { .. }
            | Self::Cancelled
            | Self::Unsupported { .. } => Family::Caller,
            Self::Locked { .. } | Self::NoSpace { .. } | Self::Timeout { .. } | Self::Io { .. } => {
                Family::Environment
            }
            Self::NotRvf { .. } | Self::Damaged { .. } => Family::Corruption,
            Self::ReadOnly { .. } | Self::Policy { .. } | Self::Frozen { .. } => Family::Policy,
        }
    }

    /// The number the existing tools print for the same situation, where they have one.
    #[must_use]
    pub fn reference_code(&self) -> Option<u16> {
        Some(match self {
            Self::NotFound { .. } => 0x0106,
            Self::Exists { .. } => 0x0303,
            Self::NotRvf { code, .. } => *code,
            Self::Dimension { .. } => 0x0200,
            Self::NotFinite { .. } => 0x0207,
            Self::DuplicateId { .. } => 0x0105,
            Self::BadFilter { .. } => 0x0203,
            Self::ReadOnly { .. } | Self::Policy { .. } | Self::Frozen { .. } => 0x0305,
            Self::Locked { .. } => 0x0300,
            Self::NoSpace { .. } => 0x0302,
            Self::TooLarge { .. } => 0x0304,
            Self::Timeout { .. } => 0x0205,
            Self::Damaged { .. } => 0x0102,
            Self::NotRegular { .. }
            | Self::NoSuchId { .. }
            | Self::Invalid { .. }
            | Self::Cancelled
            | Self::Unsupported { .. }
            | Self::Io { .. } => return None,
        })
    }
}
