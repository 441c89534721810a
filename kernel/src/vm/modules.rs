//! The modules that a distribution's kernel needs to see the drive and the network.
//!
//! They are found in the kernel's own directory, as an installed package or an unpacked one has it, and ordered by what each says
//! that it depends on; `modules.dep`, which only an installed package has, is not needed.

use object::read::elf::ElfFile64;
use object::{Object, ObjectSection};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Drivers that must be there, built in or as modules.
pub const NEEDED: [&str; 2] = ["virtio_blk", "virtio_net"];
/// What leads to the devices; which of them is used depends on the machine.
const BUSES: [&str; 2] = ["virtio_pci", "virtio_mmio"];

/// Largest module, unpacked.
const MAX_MODULE: u64 = 16 << 20;
/// Files and directories looked at.
const MAX_ENTRIES: usize = 100_000;

/// A module, unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleFile {
    /// Its name, with underscores.
    pub name: String,
    /// The ELF file.
    pub bytes: Vec<u8>,
}

/// Why the modules are not to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// The operating system's.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A driver is not there.
    #[error(
        "{} has no module {name}, and does not list it as built in; give the modules of this very kernel", path.display()
    )]
    Missing {
        /// Directory.
        path: PathBuf,
        /// Module.
        name: String,
    },
    /// A file that is no module.
    #[error("{}: {reason}", path.display())]
    Bad {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Reads the modules that [`NEEDED`] asks for and those that they depend on, each after what it depends on. What is built into
/// the kernel is left out. `directory` is that of one release, with `kernel/` and `modules.builtin` in it.
///
/// # Errors
/// [`ModuleError`].
pub fn needed_modules(directory: &Path) -> Result<Vec<ModuleFile>, ModuleError> {
    let found = find(directory)?;
    let builtin = builtin(directory);
    let mut order = Vec::new();
    for name in BUSES.into_iter().filter(|name| found.contains_key(*name)).chain(NEEDED) {
        add(name, directory, &found, &builtin, &mut order, 0)?;
    }
    Ok(order)
}

fn add(
    name: &str,
    directory: &Path,
    found: &BTreeMap<String, PathBuf>,
    builtin: &[String],
    order: &mut Vec<ModuleFile>,
    depth: usize,
) -> Result<(), ModuleError> {
    if order.iter().any(|module| module.name == name) || builtin.iter().any(|other| other == name) {
        return Ok(());
    }
    let Some(path) = found.get(name).filter(|_| depth < 16) else {
        return Err(ModuleError::Missing { path: directory.to_path_buf(), name: name.to_owned() });
    };
    let bytes = read(path)?;
    for dependency in depends(&bytes).ok_or_else(|| ModuleError::Bad {
        path: path.clone(),
        reason: "no kernel module for a 64-bit machine".into(),
    })? {
        add(&dependency, directory, found, builtin, order, depth + 1)?;
    }
    order.push(ModuleFile { name: name.to_owned(), bytes });
    Ok(())
}

/// `virtio-rng.ko.xz` and `virtio_rng.ko` are the same module.
fn module_name(file: &str) -> Option<String> {
    let (stem, rest) = file.split_once(".ko")?;
    matches!(rest, "" | ".xz" | ".zst").then(|| stem.replace('-', "_"))
}

fn find(directory: &Path) -> Result<BTreeMap<String, PathBuf>, ModuleError> {
    let mut found = BTreeMap::new();
    let mut todo = vec![directory.join("kernel")];
    let mut seen = 0;
    while let Some(at) = todo.pop() {
        let io = |source| ModuleError::Io { path: at.clone(), source };
        for entry in fs::read_dir(&at).map_err(io)? {
            let entry = entry.map_err(io)?;
            let kind = entry.file_type().map_err(io)?;
            seen += 1;
            if seen > MAX_ENTRIES {
                return Err(ModuleError::Bad {
                    path: directory.to_path_buf(),
                    reason: format!("more than {MAX_ENTRIES} files"),
                });
            }
            if kind.is_dir() {
                todo.push(entry.path());
            } else if let Some(name) = entry.file_name().to_str().and_then(module_name) {
                found.insert(name, entry.path());
            }
        }
    }
    Ok(found)
}

fn builtin(directory: &Path) -> Vec<String> {
    let text = fs::read_to_string(directory.join("modules.builtin")).unwrap_or_default();
    text.lines().filter_map(|line| module_name(line.rsplit('/').next()?)).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, ModuleError> {
    let io = |source| ModuleError::Io { path: path.to_path_buf(), source };
    let bad = |reason: String| ModuleError::Bad { path: path.to_path_buf(), reason };
    let file = fs::File::open(path).map_err(io)?;
    let mut from: Box<dyn Read> = match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => Box::new(lzma_rust2::XzReader::new(file, false)),
        Some("zst") => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(file);
            Box::new(decoder.map_err(|e| bad(format!("cannot be unpacked: {e}")))?)
        }
        _ => Box::new(file),
    };
    let mut bytes = Vec::new();
    from.by_ref().take(MAX_MODULE + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_MODULE {
        return Err(bad(format!("more than {MAX_MODULE} bytes")));
    }
    Ok(bytes)
}

/// The `depends=` of a module's `.modinfo`.
fn depends(bytes: &[u8]) -> Option<Vec<String>> {
    let file: ElfFile64<'_> = ElfFile64::parse(bytes).ok()?;
    let section = file.section_by_name(".modinfo")?;
    let info = section.data().ok()?;
    let list = info.split(|b| *b == 0).find_map(|entry| entry.strip_prefix(b"depends="))?;
    let list = std::str::from_utf8(list).ok()?;
    Some(list.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_files() {
        for (file, name) in [
            ("virtio_net.ko", Some("virtio_net")),
            ("virtio-rng.ko.xz", Some("virtio_rng")),
            ("a.ko.zst", Some("a")),
            ("a.ko.gz", None),
            ("modules.dep", None),
        ] {
            assert_eq!(module_name(file).as_deref(), name, "{file}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(matches!(needed_modules(dir.path()), Err(ModuleError::Io { .. })));
        fs::create_dir(dir.path().join("kernel")).expect("a directory");
        let error = needed_modules(dir.path()).expect_err("empty").to_string();
        assert!(error.contains("virtio_blk"), "{error}");
        let list = NEEDED.map(|name| format!("kernel/drivers/{}.ko", name.replace('_', "-"))).join("\n");
        fs::write(dir.path().join("modules.builtin"), list).expect("written");
        assert_eq!(needed_modules(dir.path()).expect("all built in"), []);
        fs::write(dir.path().join("modules.builtin"), "").expect("written");
        fs::write(dir.path().join("kernel/virtio_blk.ko"), b"not a module").expect("written");
        assert!(matches!(needed_modules(dir.path()), Err(ModuleError::Bad { .. })));
        fs::write(dir.path().join("kernel/virtio_blk.ko.zst"), b"not packed").expect("written");
        fs::remove_file(dir.path().join("kernel/virtio_blk.ko")).expect("removed");
        assert!(needed_modules(dir.path()).is_err());
    }
}
