//! From a verified program to its end: which runner takes it, and how a run that was not finished is told.

use std::ffi::OsString;

use rvf_kernel::ExecKind;

use crate::verify::Verified;

/// Exit status of wrong usage.
pub const USAGE_STATUS: u8 = 2;
/// Exit status of a run that reached one of its limits, as timeout(1) has it.
pub const LIMIT_STATUS: u8 = 124;
/// Exit status of a program that did not pass its checks, as shells have it for what may not be executed.
pub const REFUSED_STATUS: u8 = 126;
/// Exit status where something that is needed is missing, as shells have it for what is not found.
pub const MISSING_STATUS: u8 = 127;

/// A program to be run.
#[derive(Debug)]
pub struct Run {
    /// The program.
    pub verified: Verified,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Say on stderr what it is confined to.
    pub verbose: bool,
}

/// Why a run did not come to an end of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit status.
    pub status: u8,
    /// One line for stderr.
    pub message: String,
}

impl Failure {
    /// The program's arguments are wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { status: USAGE_STATUS, message: message.into() }
    }

    /// It is not run by anybody's word.
    pub fn refused(message: impl Into<String>) -> Self {
        Self { status: REFUSED_STATUS, message: message.into() }
    }

    /// Something that is needed is not here.
    pub fn missing(message: impl Into<String>) -> Self {
        Self { status: MISSING_STATUS, message: message.into() }
    }

    /// A limit was reached.
    pub fn limit(message: impl Into<String>) -> Self {
        Self { status: LIMIT_STATUS, message: message.into() }
    }

    /// It went wrong.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { status: 1, message: message.into() }
    }
}

/// Runs the program to its end; the status is the program's own.
///
/// # Errors
/// [`Failure`], with the status to end with.
pub fn run(run: Run) -> Result<u8, Failure> {
    match run.verified.kind {
        #[cfg(feature = "ebpf")]
        ExecKind::Ebpf => crate::ebpf::run(&run),
        #[cfg(feature = "wasm")]
        ExecKind::Wasm => crate::wasm::run(run),
        #[cfg(feature = "vm")]
        ExecKind::Kernel => crate::vm::run(&run),
        #[allow(unreachable_patterns, reason = "what is left depends on the features")]
        kind => Err(missing(kind)),
    }
}

/// The arguments that programs of a kind take.
pub fn help(kind: ExecKind) -> String {
    match kind {
        #[cfg(feature = "ebpf")]
        ExecKind::Ebpf => crate::ebpf::help(),
        #[cfg(feature = "wasm")]
        ExecKind::Wasm => crate::wasm::HELP.to_owned(),
        #[cfg(feature = "vm")]
        ExecKind::Kernel => crate::vm::HELP.to_owned(),
        #[allow(unreachable_patterns, reason = "what is left depends on the features")]
        kind => missing(kind).message,
    }
}

fn missing(kind: ExecKind) -> Failure {
    Failure::missing(format!(
        "this rvf-exec was built without running {kind} programs; it can only --check them"
    ))
}
