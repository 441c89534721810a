//! Running something in a confined child process, for a bounded time.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};

use crate::confine::Confinement;
use crate::run::MISSING_STATUS;
use crate::sys::{self, Side};

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this status.
    Exited(u8),
    /// By this signal.
    Killed(i32),
    /// By us, because its time was up.
    TimedOut,
}

/// Forks, confines the child, has it do `work`, and waits until it ended; what `work` returns is its status. `say` is told by
/// the child what it is confined to. The child dies with this process, whatever ends it.
///
/// # Errors
/// When there is no child, or it cannot be waited for; a child that cannot be confined says so on stderr and ends with
/// [`MISSING_STATUS`] without doing anything.
pub fn run(
    confinement: &Confinement,
    time: Duration,
    say: impl FnOnce(&str),
    work: impl FnOnce() -> u8,
) -> io::Result<End> {
    let deadline = Instant::now().checked_add(time);
    let own = rustix::process::getpid();
    let pid = match sys::fork()? {
        Side::Parent(pid) => pid,
        Side::Child => {
            let confinement = Confinement { parent: Some(own), ..confinement.clone() };
            // Nothing of the parent's stack is unwound into, and no destructor of the parent's is run twice.
            let done = catch_unwind(AssertUnwindSafe(|| match confinement.apply() {
                Ok(applied) => {
                    say(&applied.to_string());
                    work()
                }
                Err(error) => {
                    say(&error.to_string());
                    eprintln!("rvf-exec: {error}");
                    MISSING_STATUS
                }
            }));
            sys::exit(done.unwrap_or(101));
        }
    };
    let mut guard = Guard(Some(pid));
    let end = wait(pid, deadline)?;
    guard.0 = None;
    Ok(end)
}

/// Ends and collects a child that would be left behind by an error.
struct Guard(Option<Pid>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _gone = rustix::process::kill_process(pid, Signal::KILL);
            let _collected = collect(pid);
        }
    }
}

fn wait(pid: Pid, deadline: Option<Instant>) -> io::Result<End> {
    let fd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(0) => {
                rustix::process::pidfd_send_signal(&fd, Signal::KILL)?;
                // It may have ended by itself at the last moment; then its own end counts.
                return Ok(match collect(pid)? {
                    End::Killed(signal) if signal == libc::SIGKILL => End::TimedOut,
                    end => end,
                });
            }
            Ok(_) => return collect(pid),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn collect(pid: Pid) -> io::Result<End> {
    loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => {
                let exited = status.exit_status().map(|code| End::Exited(code as u8));
                let killed = status.terminating_signal().map(End::Killed);
                return exited.or(killed).ok_or_else(|| io::Error::other("a child ended in no known way"));
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
