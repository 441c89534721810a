//! What an init has to do before anything else works: filesystems, modules, the drives, the network.

use super::sys;
use rustix::mount::{MountFlags, mount};
use rustix::system::finit_module;
use rvf_cow::Device;
use rvf_kernel::vm::{FAILED_MARKER, GuestArguments, INTERFACE, MODULES, Wake, drive_serial};
use std::collections::HashMap;
use std::ffi::CStr;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How long devices may take to show up. Emulated ones are there at once; this is for a machine that is very busy.
const DEVICES_TIME: Duration = Duration::from_secs(20);

/// Why the machine is of no use, for the launcher to say.
#[derive(Debug)]
pub(super) struct Failed(pub(super) String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A machine that is ready.
#[derive(Debug)]
pub(super) struct Machine {
    /// The drives with the files on them, the store's first.
    pub(super) drives: Vec<Device>,
    /// Port to serve on.
    pub(super) port: u16,
}

/// Makes the machine ready.
pub(super) fn prepare() -> Result<Machine, Failed> {
    for (kind, at) in [(c"proc", "/proc"), (c"sysfs", "/sys"), (c"devtmpfs", "/dev")] {
        filesystem(kind, at)?;
    }
    let line = fs::read_to_string("/proc/cmdline").map_err(|e| Failed(format!("/proc/cmdline: {e}")))?;
    let arguments = GuestArguments::parse(&line).map_err(Failed)?;
    load_modules()?;
    let drives = wait_for("the drive (virtio_blk)", || drives(&arguments.lens))?;
    let network = Path::new("/sys/class/net").join(INTERFACE);
    wait_for("the network (virtio_net)", || network.exists().then_some(()))?;
    sys::echo_off();
    sys::network_up().map_err(|e| Failed(format!("cannot set up the network: {e}")))?;
    Ok(Machine { drives, port: arguments.port })
}

fn filesystem(kind: &CStr, at: &str) -> Result<(), Failed> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount(kind, at, kind, flags, None)
        .map_err(|e| Failed(format!("cannot mount {}: {}", kind.to_string_lossy(), io::Error::from(e))))
}

/// Loads the modules of the initramfs in the order of their names, which the launcher made that of their dependencies.
fn load_modules() -> Result<(), Failed> {
    let Ok(list) = fs::read_dir(MODULES) else { return Ok(()) };
    let mut paths: Vec<_> = list.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let file = File::open(&path).map_err(|e| Failed(format!("{}: {e}", path.display())))?;
        match finit_module(&file, c"", 0) {
            // Another name of what is there already.
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => {
                let name = path.file_name().unwrap_or_default().display().to_string();
                let reason = io::Error::from(e);
                return Err(Failed(format!("the kernel does not take its module {name}: {reason}")));
            }
        }
    }
    Ok(())
}

/// The drives of the files with these lengths, once all of them are there.
fn drives(lens: &[u64]) -> Option<Vec<Device>> {
    let mut paths = HashMap::new();
    for drive in fs::read_dir("/sys/block").ok()?.filter_map(Result::ok) {
        let path = Path::new("/dev").join(drive.file_name());
        if let Ok(serial) = fs::read_to_string(drive.path().join("serial"))
            && path.exists()
        {
            paths.insert(serial.trim().to_owned(), path);
        }
    }
    let device =
        |(number, len): (usize, &u64)| Some(Device { path: paths.remove(&drive_serial(number))?, len: *len });
    lens.iter().enumerate().map(device).collect()
}

fn wait_for<T>(what: &str, find: impl Fn() -> Option<T>) -> Result<T, Failed> {
    let until = Instant::now() + DEVICES_TIME;
    loop {
        if let Some(found) = find() {
            return Ok(found);
        }
        if Instant::now() > until {
            return Err(Failed(format!(
                "{what} did not show up within {} s: the kernel has no driver for it, built in or among its modules",
                DEVICES_TIME.as_secs()
            )));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Does what the launcher types on the console. Returns when that is `poweroff`. A console that nobody types on ends at once,
/// and means nothing.
pub(super) fn listen_to_console() {
    for line in io::stdin().lines() {
        let Ok(line) = line else { break };
        if line.trim() == "poweroff" {
            return;
        }
        let Some(wake) = Wake::parse(&line) else { continue };
        match sys::reseed(&wake.seed).and_then(|()| sys::set_clock(wake.millis)) {
            Ok(()) => super::say(&wake.answer()),
            Err(e) => super::say(&format!("{FAILED_MARKER}cannot take up time and random numbers: {e}")),
        }
    }
    loop_for_ever();
}

fn loop_for_ever() {
    loop {
        thread::park();
    }
}
