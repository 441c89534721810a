//! The seven steps of verification, and why one of them fails.

use std::fmt;

pub use rvf_format::Family;

/// A step between a program in a file and its execution, in the order in which they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The store, the segment and its header hold together, and everything is within its limit.
    Structure = 1,
    /// The payload is what its hashes, and the entry that was run, say.
    Content = 2,
    /// A trusted key signed the payload.
    Signature = 3,
    /// The file and the policy are those that the program was bound to.
    Binding = 4,
    /// This machine can run it.
    Host = 5,
    /// The policies of user and machine allow it.
    Policy = 6,
    /// What will be run is still the very bytes that were checked.
    Handover = 7,
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Self; 7] = [
        Self::Structure,
        Self::Content,
        Self::Signature,
        Self::Binding,
        Self::Host,
        Self::Policy,
        Self::Handover,
    ];

    /// Its number, from 1.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// What it is about.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Structure => "structure and limits",
            Self::Content => "content hash",
            Self::Signature => "signature",
            Self::Binding => "binding",
            Self::Host => "host",
            Self::Policy => "policy",
            Self::Handover => "handover",
        }
    }
}

/// A step that was passed, and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Which.
    pub step: Step,
    /// What was found, in words.
    pub note: String,
}

/// Why a program is not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The step that failed; none after it was taken.
    pub step: Step,
    /// Whose doing it is.
    pub family: Family,
    /// Why, and what mends it.
    pub reason: String,
}

impl Refusal {
    pub(crate) fn new(step: Step, family: Family, reason: impl Into<String>) -> Self {
        Self { step, family, reason: reason.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "check {} of 7 ({}) failed: {}", self.step.number(), self.step.title(), self.reason)
    }
}

impl std::error::Error for Refusal {}
