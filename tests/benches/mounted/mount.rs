//! Mounts of the bench: a daemon, its mountpoint, and the CPU time it uses.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Outcome;

/// How long a daemon may take to mount, or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A mounted filesystem; unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Mount {
    dir: PathBuf,
    daemon: Child,
}

impl Mount {
    /// Runs `command MOUNTPOINT`, which stays in the foreground, and waits until something is mounted there. The daemon
    /// runs where the calling thread may run.
    pub(crate) fn new(command: &mut Command, dir: PathBuf) -> Outcome<Self> {
        std::fs::create_dir_all(&dir)?;
        let daemon = command.arg(&dir).stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut mount = Self { dir, daemon };
        let end = Instant::now() + PATIENCE;
        while !is_mounted(&mount.dir)? {
            if let Some(status) = mount.daemon.try_wait()? {
                return Err(format!("{command:?} ended with {status}").into());
            }
            if Instant::now() > end {
                return Err(format!("{command:?} does not mount").into());
            }
            std::thread::yield_now();
        }
        Ok(mount)
    }

    /// `rvf-mount` on a store.
    pub(crate) fn of(program: &Path, store: &Path, dir: PathBuf) -> Outcome<Self> {
        Self::new(Command::new(program).arg("--foreground").arg(store), dir)
    }

    /// A path in the mount.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// CPU time that the daemon has used.
    pub(crate) fn cpu(&self) -> Duration {
        super::cpu::of_process(self.daemon.id())
    }

    /// A number of `/proc/PID/status`, in KiB.
    pub(crate) fn memory(&self, key: &str) -> io::Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.daemon.id()))?;
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let number = value.and_then(|value| value.split_whitespace().next()?.parse().ok());
        number.ok_or_else(|| io::Error::other(format!("no {key} in the daemon's status")))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        unmount(&self.dir);
        let end = Instant::now() + PATIENCE;
        while matches!(self.daemon.try_wait(), Ok(None)) {
            if Instant::now() > end {
                eprintln!("the daemon of {} does not end; killed", self.dir.display());
                // It may have ended just now.
                let _ = self.daemon.kill();
                let _ = self.daemon.wait();
                break;
            }
            std::thread::yield_now();
        }
        if let Err(error) = std::fs::remove_dir(&self.dir) {
            eprintln!("{}: not removed: {error}", self.dir.display());
        }
    }
}

/// Unmounts, at once when something is open in it.
pub(crate) fn unmount(dir: &Path) {
    let run = |lazy: bool| {
        let mut command = Command::new("umount");
        if lazy {
            command.arg("-l");
        }
        command.arg(dir).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    if !run(false) && !run(true) {
        eprintln!("{}: not unmounted", dir.display());
    }
}

fn is_mounted(dir: &Path) -> io::Result<bool> {
    let parent = dir.parent().ok_or_else(|| io::Error::other("the mountpoint has a parent"))?;
    Ok(std::fs::metadata(dir)?.dev() != std::fs::metadata(parent)?.dev())
}
