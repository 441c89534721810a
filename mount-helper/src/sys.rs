//! The system calls that neither std nor rustix offer safely.
#![expect(unsafe_code, reason = "fork and _exit")]

use std::io;

use rustix::process::Pid;

/// Which side of a fork this is.
#[derive(Debug)]
pub(crate) enum Side {
    /// The process that called.
    Parent(Pid),
    /// The new one.
    Child,
}

/// Threads of this process.
pub(crate) fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Forks a process of one thread.
///
/// # Errors
/// When there are other threads, whose locks the child would never see released; what `fork` reports.
pub(crate) fn fork() -> io::Result<Side> {
    if threads()? != 1 {
        return Err(io::Error::other("the process has more than one thread"));
    }
    // SAFETY: the process has a single thread, which is this one, so nobody can start another; the child may use everything
    // that the parent could.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        pid => Pid::from_raw(pid).map(Side::Parent).ok_or_else(|| io::Error::other("fork gave no process")),
    }
}

/// Ends the process without running what the parent registered to be run at its own end.
pub(crate) fn exit(status: u8) -> ! {
    // SAFETY: no preconditions; it does not return.
    unsafe { libc::_exit(i32::from(status)) }
}
