//! Why a command ends with a status other than 0.

use crate::data::DataError;
use rvf_cow::Error as StoreError;
use rvf_format::codes;
use std::io;
use std::path::Path;

/// Status 1: the command failed.
pub(super) const FAILED: u8 = 1;
/// Status 2 of `verify-witness`: records that nobody can verify.
pub(super) const LEGACY: u8 = 2;
/// Status 3: damage was found by a command that looks for it.
pub(super) const DAMAGED: u8 = 3;
/// Status 4: somebody else is writing.
pub(super) const BUSY: u8 = 4;

/// A failure: the exit status, and the line for stderr without `error: `.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Exit status.
    pub status: u8,
    /// One line; `None` when nothing is to be said.
    pub message: Option<String>,
}

impl Failure {
    /// Status 1 with this line.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { status: FAILED, message: Some(message.into()) }
    }

    /// The line of an error code of the reference, followed by what it means here.
    pub(super) fn coded(code: u16, text: &str) -> Self {
        Self::new(format!("RVF error code 0x{code:04X} ({}): {text}", codes::name(code)))
    }

    /// An operating-system error about a file that is not the store.
    pub(super) fn file(path: &Path, e: &io::Error) -> Self {
        Self::new(format!("{}: {e}", path.display()))
    }
}

impl From<StoreError> for Failure {
    fn from(e: StoreError) -> Self {
        let failure = match e.reference_code() {
            Some(code) => Self::coded(code, &e.to_string()),
            None => Self::new(e.to_string()),
        };
        match e {
            StoreError::Locked { .. } => Self { status: BUSY, ..failure },
            _ => failure,
        }
    }
}

impl From<DataError> for Failure {
    fn from(e: DataError) -> Self {
        Self::new(e.to_string())
    }
}

/// An error of writing to stdout. A reader that went away is no error: the command just ends.
impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::BrokenPipe {
            Self { status: 0, message: None }
        } else {
            Self::new(format!("cannot write the output: {e}"))
        }
    }
}
