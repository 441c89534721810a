//! A running QEMU: started with descriptors only, watched from one thread, and never outliving this process.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rvf_kernel::vm::{Accelerator, Descriptors, PlanError};
use serde_json::{Value, json};

use super::console::{Console, Word};
use super::launch::Launch;
use super::memory::Memory;
use super::qmp::Qmp;
use super::sys::{self, Child as ChildSetup};
use crate::confine::{Confinement, Network};
use crate::run::{Failure, REFUSED_STATUS};

/// Where systems have programs, libraries and what belongs to them.
const PROGRAMS: [&str; 7] = ["/usr", "/lib", "/lib32", "/lib64", "/bin", "/nix/store", "/gnu/store"];
/// Where the linker looks for the places of libraries.
const LINKER_CACHE: &str = "/etc/ld.so.cache";
/// Bytes of QEMU's own messages that are kept.
const MAX_ERRORS: usize = 8 << 10;

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    /// The guest said something that means something.
    Word(Word),
    /// This process is to end.
    Signal,
    /// QEMU ended, and how.
    Exited(String),
    /// The time is up.
    Deadline,
}

/// A machine.
#[derive(Debug)]
pub(super) struct Machine {
    child: Child,
    pidfd: OwnedFd,
    signals: OwnedFd,
    qmp: Qmp,
    memory: Option<Memory>,
    console: Console,
    errors: Vec<u8>,
    words: VecDeque<Word>,
    status: Option<ExitStatus>,
    verbose: bool,
}

impl Machine {
    /// Starts QEMU. It boots at once, or waits for the state of a machine, when it is to be `restored`. Where a state is kept,
    /// the guest's memory is a file of this process.
    pub(super) fn start(launch: &Launch<'_>, restored: bool) -> Result<Self, Failure> {
        let Launch { emulator, plan, parts, place, verbose, .. } = *launch;
        let failed = |e: io::Error| Failure::failed(format!("cannot start the machine: {e}"));
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let memory =
            place.map(|_| Memory::new(u64::from(plan.memory_mb) << 20)).transpose().map_err(failed)?;
        let fds = Descriptors {
            kernel: parts.kernel.file().as_raw_fd(),
            initramfs: parts.initramfs.file().as_raw_fd(),
            drives: parts.drives.iter().map(|drive| drive.file.as_raw_fd()).collect(),
            control: theirs.as_raw_fd(),
            memory: memory.as_ref().map(Memory::fd),
        };
        let refused = |e: PlanError| Failure { status: REFUSED_STATUS, message: e.to_string() };
        let mut arguments = plan.arguments(&fds).map_err(refused)?;
        if restored {
            arguments.extend(["-incoming", "defer"].map(str::to_owned));
        }
        let kvm = plan.accelerator == Accelerator::Kvm;
        let landlock = rights(emulator, kvm).landlock().map_err(|e| Failure::missing(format!("QEMU {e}")))?;
        // From here on signals wait to be looked at; the child begins with none blocked.
        let signals = sys::ending_signals().map_err(failed)?;
        let mut command = Command::new(emulator);
        command.args(&arguments).env_clear();
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).current_dir("/");
        let setup = ChildSetup {
            keep: [fds.kernel, fds.initramfs, fds.control]
                .into_iter()
                .chain(fds.memory)
                .chain(fds.drives)
                .collect(),
            kvm,
            landlock,
            // The guest's memory, the translator's 64 MiB, and QEMU itself.
            data: (u64::from(plan.memory_mb) + 512) << 20,
        };
        sys::prepare(&mut command, setup);
        let child = command
            .spawn()
            .map_err(|e| Failure::failed(format!("cannot start {}: {e}", emulator.display())))?;
        drop(theirs);
        let pid = Pid::from_child(&child);
        // Whatever fails now ends the child.
        let mut guard = Reaped(Some(child));
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| failed(e.into()))?;
        let Some(child) = guard.0.take() else { return Err(failed(ErrorKind::Other.into())) };
        let this = Self {
            child,
            pidfd,
            signals,
            qmp: Qmp::new(ours),
            memory,
            console: Console::default(),
            errors: Vec::new(),
            words: VecDeque::new(),
            status: None,
            verbose,
        };
        let pipes =
            [this.child.stdout.as_ref().map(|p| p.as_fd()), this.child.stderr.as_ref().map(|p| p.as_fd())];
        for pipe in pipes.into_iter().flatten() {
            rustix::io::ioctl_fionbio(pipe, true).map_err(|e| failed(e.into()))?;
        }
        Ok(this)
    }

    /// Waits for the next thing to happen.
    pub(super) fn wait(&mut self, until: Instant) -> io::Result<Event> {
        loop {
            if let Some(word) = self.words.pop_front() {
                return Ok(Event::Word(word));
            }
            if let Some(status) = self.status {
                return Ok(Event::Exited(status.to_string()));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Event::Deadline);
            }
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            let (mut exited, mut signalled) = (false, false);
            {
                let mut fds =
                    vec![PollFd::new(&self.pidfd, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
                fds.extend(self.child.stdout.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
                fds.extend(self.child.stderr.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
                match poll(&mut fds, Some(&timeout)) {
                    Ok(_) => {}
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(e) => return Err(e.into()),
                }
                let is_ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
                exited |= is_ready(0);
                signalled |= is_ready(1);
            }
            self.listen();
            if exited {
                // What it said last is in the pipes still.
                self.status = Some(self.child.wait()?);
                self.listen();
            }
            if signalled {
                return Ok(Event::Signal);
            }
        }
    }

    /// Takes what is in the pipes.
    fn listen(&mut self) {
        let mut piece = [0; 16 << 10];
        while let Some(pipe) = &mut self.child.stdout {
            match pipe.read(&mut piece) {
                Ok(0) => self.child.stdout = None,
                Ok(len) => {
                    let bytes = piece.get(..len).unwrap_or_default();
                    self.words.extend(self.console.take(bytes));
                    if self.verbose {
                        show(bytes);
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.child.stdout = None,
            }
            // A guest that floods its console must not keep this loop.
            if self.words.len() > 16 {
                break;
            }
        }
        while let Some(pipe) = &mut self.child.stderr {
            match pipe.read(&mut piece) {
                Ok(0) => self.child.stderr = None,
                Ok(len) => {
                    let room = MAX_ERRORS.saturating_sub(self.errors.len());
                    self.errors.extend(piece.get(..len.min(room)).unwrap_or_default());
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.child.stderr = None,
            }
        }
    }

    /// Nothing came from the console yet.
    pub(super) fn is_silent(&self) -> bool {
        self.console.is_silent()
    }

    /// It ended because the guest switched it off.
    pub(super) fn ended_well(&self) -> bool {
        self.status.is_some_and(|status| status.success()) && !self.console.has_panicked()
    }

    /// What was last heard from the machine, for a message.
    pub(super) fn last_words(&self, how: &str) -> String {
        let errors: String = String::from_utf8_lossy(&self.errors)
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let console = match (self.console.panic(), self.console.tail(3)) {
            (Some(line), _) => format!("; its kernel panicked: {line}"),
            (None, text) if text.is_empty() => "; nothing on its console".into(),
            (None, text) => format!("; last on its console: {text}"),
        };
        let errors = errors.trim();
        let errors = if errors.is_empty() { String::new() } else { format!("; QEMU says: {errors}") };
        format!("{how}{errors}{console}")
    }

    /// Has QEMU's human monitor do something, and gives what it prints: nothing where all is well.
    pub(super) fn monitor(&mut self, line: &str) -> io::Result<String> {
        let result = self.qmp.execute("human-monitor-command", &json!({ "command-line": line }))?;
        Ok(result.as_str().unwrap_or_default().to_owned())
    }

    /// QEMU's control channel.
    pub(super) fn qmp(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    /// The guest's memory.
    ///
    /// # Errors
    /// When it is QEMU's alone.
    pub(super) fn memory(&self) -> io::Result<&Memory> {
        self.memory.as_ref().ok_or_else(|| io::Error::other("the machine's memory is not shared"))
    }

    /// Types a line on the console.
    pub(super) fn tell(&mut self, line: &str) -> io::Result<()> {
        let pipe = self.child.stdin.as_mut().ok_or(ErrorKind::BrokenPipe)?;
        pipe.write_all(format!("{line}\n").as_bytes())
    }

    /// Ends the machine: it is asked to, and killed when it does not within the time.
    pub(super) fn end(&mut self, time: Duration) {
        if self.status.is_some() {
            return;
        }
        // Nothing is lost by ending at once: the drive is read-only.
        let asked = self.qmp.execute("quit", &Value::Object(serde_json::Map::new()));
        let until = Instant::now() + time;
        while asked.is_ok() && self.status.is_none() {
            match self.wait(until) {
                Ok(Event::Deadline) | Err(_) => break,
                Ok(_) => {}
            }
        }
        self.kill();
    }

    fn kill(&mut self) {
        if self.status.is_none() {
            let _gone = self.child.kill();
            self.status = self.child.wait().ok();
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What QEMU may do with files and the network: execute itself with its libraries, read its firmware, use KVM. What it has as
/// descriptors it has anyway.
fn rights(emulator: &Path, kvm: bool) -> Confinement {
    let programs = PROGRAMS.iter().map(Path::new).chain([emulator]);
    let existing = |path: &&Path| path.exists();
    Confinement {
        execute: programs.filter(existing).map(Path::to_path_buf).collect(),
        read: [Path::new(LINKER_CACHE)].into_iter().filter(existing).map(Path::to_path_buf).collect(),
        write: kvm.then(|| PathBuf::from("/dev/kvm")).into_iter().collect(),
        network: Network::Serve,
        ..Confinement::default()
    }
}

struct Reaped(Option<Child>);

impl Drop for Reaped {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _gone = child.kill();
            let _collected = child.wait();
        }
    }
}

/// The console, where it was asked for, without what a terminal takes for orders.
fn show(bytes: &[u8]) {
    let text: String = String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() && c != '\n' && c != '\t' { ' ' } else { c })
        .collect();
    let _gone = io::stderr().write_all(text.as_bytes());
}
