//! What a machine is made of: image, initramfs, the files of the store.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rvf_format::FileBytes;
use rvf_kernel::vm::{Firmware, initramfs, kernel_release, needed_modules};

use super::arguments::Arguments;
use crate::run::Failure;
use crate::sealed::Sealed;
use crate::verify::Verified;

/// Largest guest program: one with debug information.
const MAX_GUEST: u64 = 512 << 20;

/// A file on a drive.
#[derive(Debug)]
pub(super) struct Drive {
    pub(super) file: Arc<File>,
    /// Bytes of it that are served.
    pub(super) len: u64,
}

/// The parts, all held by descriptors.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) kernel: Sealed,
    pub(super) initramfs: Sealed,
    /// The store and, for a branch, its ancestors, nearest first: the very files that the view was read from.
    pub(super) drives: Vec<Drive>,
    pub(super) firmware: Firmware,
    modules: Vec<String>,
    release: Option<String>,
}

impl Parts {
    pub(super) fn collect(verified: &Verified, arguments: &Arguments) -> Result<Self, Failure> {
        let memory = |e: std::io::Error| Failure::failed(format!("no memory file: {e}"));
        let kernel = verified.program_file().map_err(|e| Failure::failed(e.to_string()))?;
        let release = kernel_release(kernel.bytes()).map(str::to_owned);
        let modules = match directory(arguments, release.as_deref())? {
            Some(directory) => needed_modules(&directory).map_err(|e| Failure::missing(e.to_string()))?,
            None => Vec::new(),
        };
        let path = guest(arguments)?;
        let program = read(&path)?;
        let archive = initramfs(&program, &modules)
            .map_err(|e| Failure::missing(format!("{}: {e}", path.display())))?;
        // What another program cut away meanwhile reads as zeros.
        if program.is_poisoned() {
            return Err(Failure::missing(format!("{}: it was changed meanwhile", path.display())));
        }
        Ok(Self {
            kernel,
            initramfs: Sealed::copy("rvf-initramfs", &archive).map_err(memory)?,
            drives: verified
                .view
                .chain()
                .map(|view| Drive { file: Arc::clone(view.file()), len: view.whole_len() })
                .collect(),
            firmware: if modules.is_empty() { Firmware::CommandLine } else { Firmware::Acpi },
            modules: modules.into_iter().map(|module| module.name).collect(),
            release,
        })
    }

    /// Why a kernel may find no devices, where that may be why.
    pub(super) fn suspicion(&self) -> String {
        match &self.release {
            Some(release) if self.modules.is_empty() => format!(
                "; it got no modules, for there is no /lib/modules/{release}: a distribution's kernel finds neither drive nor \
                 network without; --modules DIR says where they are"
            ),
            _ => String::new(),
        }
    }

    /// For `--verbose`.
    pub(super) fn said(&self) -> String {
        let modules = if self.modules.is_empty() { "none".to_owned() } else { self.modules.join(" ") };
        format!(
            "kernel {}, initramfs of {} bytes, modules: {modules}",
            self.release.as_deref().unwrap_or("of unknown release"),
            self.initramfs.bytes().len()
        )
    }
}

/// Where the kernel's modules are.
fn directory(arguments: &Arguments, release: Option<&str>) -> Result<Option<PathBuf>, Failure> {
    if let Some(given) = &arguments.modules {
        // An unpacked package has them three levels down.
        let inner =
            release.map(|release| given.join("lib/modules").join(release)).filter(|path| path.is_dir());
        let found = inner.unwrap_or_else(|| given.clone());
        return match found.is_dir() {
            true => Ok(Some(found)),
            false => Err(Failure::missing(format!("--modules {}: no such directory", given.display()))),
        };
    }
    let Some(release) = release else { return Ok(None) };
    Ok(Some(Path::new("/lib/modules").join(release)).filter(|path| path.join("kernel").is_dir()))
}

fn guest(arguments: &Arguments) -> Result<PathBuf, Failure> {
    if let Some(given) = &arguments.guest {
        return Ok(given.clone());
    }
    let own = std::env::current_exe().ok().and_then(|own| own.parent().map(Path::to_path_buf));
    let places =
        own.map_or_else(Vec::new, |own| vec![own.join("rvf-guest"), own.join("../lib/rvf/rvf-guest")]);
    places.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        Failure::missing(
            "rvf-guest is not beside rvf-exec; install it there, or say where it is: --guest FILE",
        )
    })
}

/// Mapped, because most of a program that was not stripped is not needed.
fn read(path: &Path) -> Result<FileBytes, Failure> {
    let said = |e: &dyn std::fmt::Display| Failure::missing(format!("{}: {e}", path.display()));
    let meta = fs::metadata(path).map_err(|e| said(&e))?;
    if !meta.is_file() || meta.len() > MAX_GUEST {
        return Err(said(&"this is no guest program"));
    }
    File::open(path).and_then(|file| FileBytes::map(&file, meta.len())).map_err(|e| said(&e))
}
