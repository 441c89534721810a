//! `rvf launch`: boots the kernel that a store carries. Who checks and boots it is `rvf-exec`; this only calls it.

use super::failure::Failure;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What rvf-exec ends with where something is missing.
const MISSING: u8 = 127;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The kernel is checked in seven steps first (rvf-exec --check STORE --kind kernel), and boots in a microVM (QEMU) whose only process
serves the store as rvf serve does. 'listening on 127.0.0.1:PORT' says that it answers; SIGINT or SIGTERM ends it.

Exit status: that of rvf-exec: 0 ended, 1 failed, 2 wrong usage, 124 not up in time, 126 a check failed, 127 something is missing.")]
pub(super) struct Args {
    /// Path to the RVF store
    path: PathBuf,
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(short, long, default_value_t = 8080)]
    port: u16,
    /// MiB of memory [default: 128 for a store of up to 16 MiB, else 256; or what the file asks for]
    #[arg(short, long, value_name = "MIB")]
    memory_mb: Option<u32>,
    /// Virtual processors [default: 1, or what the file asks for]
    #[arg(long, value_name = "N")]
    vcpus: Option<u32>,
    /// Emulate, even where KVM works
    #[arg(long)]
    no_kvm: bool,
    /// Seconds until the guest must answer
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    boot_timeout: u32,
    /// The kernel's modules, or the unpacked package that has them [default: /lib/modules/RELEASE where it is there]
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
    /// Which kernel, by its segment's number; the newest when not given
    #[arg(long, value_name = "NUMBER")]
    segment: Option<u64>,
    /// Boot it this once although no trusted key signed it
    #[arg(long)]
    allow_unsigned: bool,
    /// Boot anew, and keep nothing of it for the next time
    #[arg(long)]
    no_cache: bool,
    /// Say what is done, and show the machine's console
    #[arg(short, long)]
    verbose: bool,
}

impl Args {
    /// The arguments of rvf-exec.
    fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        for (flag, given) in [("--allow-unsigned", self.allow_unsigned), ("--verbose", self.verbose)] {
            words.extend(given.then(|| flag.into()));
        }
        words.extend(["--kind", "kernel"].map(OsString::from));
        if let Some(number) = self.segment {
            words.extend(["--segment".into(), number.to_string().into()]);
        }
        // A path that begins with a dash is still a path.
        words.extend(["--".into(), self.path.clone().into_os_string(), "--".into()]);
        words.extend(["--port".into(), self.port.to_string().into()]);
        words.extend(["--boot-timeout".into(), self.boot_timeout.to_string().into()]);
        for (option, number) in [("--memory", self.memory_mb), ("--vcpus", self.vcpus)] {
            if let Some(number) = number {
                words.extend([option.into(), number.to_string().into()]);
            }
        }
        if self.no_kvm {
            words.extend(["--accel", "tcg"].map(OsString::from));
        }
        if self.no_cache {
            words.push("--no-cache".into());
        }
        if let Some(modules) = &self.modules {
            words.extend(["--modules".into(), modules.clone().into_os_string()]);
        }
        words
    }
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let own = std::env::current_exe().map_err(|e| Failure::new(format!("where this program is: {e}")))?;
    let helper = own.parent().unwrap_or(Path::new(".")).join("rvf-exec");
    // This process becomes the helper, so that signals and its status are the helper's own.
    let error = Command::new(&helper).args(args.words()).exec();
    let message = match error.kind() {
        std::io::ErrorKind::NotFound => format!("{} is not there; install it beside rvf", helper.display()),
        _ => format!("{}: {error}", helper.display()),
    };
    Err(Failure { status: MISSING, message: Some(message) })
}
