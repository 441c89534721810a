//! Compiled modules, kept so that a module is compiled once: `$XDG_CACHE_HOME/rvf/wasm`, else `~/.cache/rvf/wasm`.
//!
//! A file is named by SHA3-256 over the engine (its version, its settings, the processor's features) and the module. It holds
//! a magic number, SHA3-256 of what follows, and the compiled code. Running such a file is running its code, so one is
//! used only from a directory and file that belong to this user and that nobody else may write or read.
#![expect(unsafe_code, reason = "a compiled module is loaded")]

use std::fs::{self, DirBuilder, File, Metadata};
use std::hash::{Hash as _, Hasher};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha3::{Digest as _, Sha3_256};
use wasmtime::{Engine, Module};

use super::guest::{GuestError, alone};

const MAGIC: &[u8; 8] = b"RVFCODE1";
const HEAD: usize = 8 + 32;

/// Largest compiled module that is kept.
pub const MAX_COMPILED: u64 = 256 << 20;

/// A directory of compiled modules.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

/// Names a module compiled by an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key([u8; 32]);

/// Code that a [`Cache`] gave out: written by us, into a place that is only ours.
#[derive(Clone, Debug)]
pub struct Compiled(Vec<u8>);

struct Into256(Sha3_256);

impl Hasher for Into256 {
    fn finish(&self) -> u64 {
        0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

impl Key {
    /// The key of a module, given by its SHA3-256, for this engine.
    pub fn of(engine: &Engine, module: &[u8; 32]) -> Self {
        let mut hasher = Into256(Sha3_256::new());
        hasher.write(b"rvf-exec compiled module v1\0");
        hasher.write(module);
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Self(hasher.0.finalize().into())
    }

    fn file_name(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Compiled {
    /// The module.
    ///
    /// # Errors
    /// [`GuestError::Module`] when this engine does not take it, [`GuestError::Import`] as for one that was not compiled before.
    pub fn load(&self, engine: &Engine) -> Result<Module, GuestError> {
        // SAFETY: the bytes are the output of `Module::serialize`, unmodified. `Cache::get` is the only maker of a `Compiled`:
        // it took them from a regular file with one name, owned by this user and not writable or readable by others, in a
        // directory of which the same is true, and compared them with the SHA3-256 that was stored with them. So only a
        // process of this user (or root) can have written them, and `Cache::put` is what writes there; whoever else runs as
        // this user can run code anyhow. The engine itself refuses what another version or other settings made.
        let module = unsafe { Module::deserialize(engine, &self.0) };
        let module = module.map_err(|e| GuestError::Module(e.to_string()))?;
        alone(&module)?;
        Ok(module)
    }
}

/// Refuses what is not this user's alone.
fn private(meta: &Metadata) -> io::Result<()> {
    if meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o077 != 0 {
        return Err(io::Error::other("others may use it"));
    }
    Ok(())
}

impl Cache {
    /// The directory for this process; `None` when no home is known.
    pub fn place() -> Option<PathBuf> {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        cache.map(|cache| cache.join("rvf/wasm"))
    }

    /// Opens a directory, making it (mode 700) and those above it where they are missing.
    ///
    /// # Errors
    /// When it cannot be made, or others may use it.
    pub fn open(directory: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let meta = fs::symlink_metadata(directory)?;
        if !meta.is_dir() {
            return Err(io::Error::other("not a directory"));
        }
        private(&meta)?;
        Ok(Self { directory: directory.to_path_buf() })
    }

    /// The compiled module, when there is one that can be relied on. O(size).
    pub fn get(&self, key: &Key) -> Option<Compiled> {
        let path = self.directory.join(key.file_name());
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = File::options().read(true).custom_flags(flags).open(path).ok()?;
        let meta = file.metadata().ok()?;
        if !meta.is_file() || meta.nlink() != 1 || meta.len() > MAX_COMPILED || private(&meta).is_err() {
            return None;
        }
        let mut bytes = Vec::with_capacity(meta.len() as usize);
        file.take(MAX_COMPILED).read_to_end(&mut bytes).ok()?;
        let (head, code) = bytes.split_at_checked(HEAD)?;
        let digest: [u8; 32] = Sha3_256::digest(code).into();
        (head.starts_with(MAGIC) && head.ends_with(&digest)).then(|| Compiled(code.to_vec()))
    }

    /// Keeps a compiled module: whole under its name, or not at all.
    ///
    /// # Errors
    /// What writing reports.
    pub fn put(&self, key: &Key, code: &[u8]) -> io::Result<()> {
        if code.len() as u64 + HEAD as u64 > MAX_COMPILED {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let name = key.file_name();
        // Two processes that compile the same module each write a file of their own.
        let pending = self.directory.join(format!(".{name}.{}", std::process::id()));
        let write = || {
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&pending)?;
            file.write_all(MAGIC)?;
            file.write_all(&Sha3_256::digest(code))?;
            file.write_all(code)?;
            file.sync_data()?;
            fs::rename(&pending, self.directory.join(&name))
        };
        write().inspect_err(|_| {
            let _gone = fs::remove_file(&pending);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wasm::guest::{Guest, Limits, compile, engine};
    use std::os::unix::fs::PermissionsExt;

    /// `(module (func (export "f") (result i32) i32.const 42))`
    const MODULE: &[u8] = b"\0asm\x01\0\0\0\x01\x05\x01\x60\0\x01\x7F\x03\x02\x01\0\x07\x05\x01\x01f\0\0\x0A\x06\x01\x04\0\x41\x2A\x0B";

    #[test]
    fn a_compiled_module_comes_back_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a/b");
        let cache = Cache::open(&place).unwrap();
        assert_eq!(fs::metadata(&place).unwrap().mode() & 0o777, 0o700);
        let limits = Limits::default();
        let engine = engine(&limits).unwrap();
        let key = Key::of(&engine, &[1; 32]);
        assert!(cache.get(&key).is_none());
        let module = compile(&engine, MODULE).unwrap();
        cache.put(&key, &module.serialize().unwrap()).unwrap();
        let back = cache.get(&key).unwrap().load(&engine).unwrap();
        assert_eq!(Guest::new(&engine, &back, &limits).unwrap().invoke("f", &[]).unwrap(), ["42"]);
        // Another module, and an engine with other settings.
        assert!(cache.get(&Key::of(&engine, &[2; 32])).is_none());
        let other = super::super::guest::engine(&Limits { fuel: None, ..limits }).unwrap();
        assert_ne!(Key::of(&other, &[1; 32]), key);
        assert!(cache.get(&key).unwrap().load(&other).is_err(), "the engine refuses it all the same");

        let file = place.join(key.file_name());
        let whole = fs::read(&file).unwrap();
        for at in [0, 8, 39, HEAD, HEAD + 100, whole.len() - 1] {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            fs::write(&file, &bad).unwrap();
            assert!(cache.get(&key).is_none(), "byte {at}");
        }
        for len in [0, 7, HEAD - 1, HEAD, whole.len() - 1] {
            fs::write(&file, &whole[..len]).unwrap();
            assert!(cache.get(&key).is_none(), "cut to {len}");
        }
        fs::write(&file, &whole).unwrap();
        assert!(cache.get(&key).is_some());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(cache.get(&key).is_none(), "others may read it");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::hard_link(&file, dir.path().join("other")).unwrap();
        assert!(cache.get(&key).is_none(), "it has another name");
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(dir.path().join("other"), &file).unwrap();
        assert!(cache.get(&key).is_none(), "a link");
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Cache::open(&place).is_err());
    }
}
