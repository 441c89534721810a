//! Compiled modules, kept so that a module is compiled once.
//!
//! What a compiled module depends on is the engine (its version, its settings, the processor's features) and the module.
#![expect(unsafe_code, reason = "a compiled module is loaded")]

use std::hash::{Hash as _, Hasher};

use wasmtime::{Engine, Module};

use super::guest::{GuestError, alone};
use crate::cache::{Cache, Key, Kind};

/// Where compiled modules are kept.
pub const KIND: Kind = Kind { name: "wasm", magic: b"RVFCODE2", most: 256 << 20, most_of_all: 512 << 20 };

/// Code that a [`Cache`] gave out: written by us, into a place that is only ours.
#[derive(Clone, Debug)]
pub struct Compiled(Vec<u8>);

/// What an engine says about itself.
struct Bytes(Vec<u8>);

impl Hasher for Bytes {
    fn finish(&self) -> u64 {
        0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// The key of a module, given by its SHA3-256, for this engine.
pub fn key(engine: &Engine, module: &[u8; 32]) -> Key {
    let mut said = Bytes(Vec::new());
    engine.precompile_compatibility_hash().hash(&mut said);
    Key::of("rvf-exec compiled module v2").with("module", module).with("engine", &said.0).finish()
}

impl Compiled {
    /// The compiled module, when there is one that can be relied on. O(size).
    pub fn kept(cache: &Cache, key: &Key) -> Option<Self> {
        cache.find(key).ok()??.read().ok().map(Self)
    }

    /// The module.
    ///
    /// # Errors
    /// [`GuestError::Module`] when this engine does not take it, [`GuestError::Import`] as for one that was not compiled before.
    pub fn load(&self, engine: &Engine) -> Result<Module, GuestError> {
        // SAFETY: the bytes are the output of `Module::serialize`, unmodified. `Compiled::kept` is the only maker of a `Compiled`:
        // it took them from a regular file with one name, owned by this user and not writable or readable by others, in a
        // directory of which the same is true, and compared them with the SHA-256 that was stored with them. So only a
        // process of this user (or root) can have written them, and `Cache::put` is what writes there; whoever else runs as
        // this user can run code anyhow. The engine itself refuses what another version or other settings made.
        let module = unsafe { Module::deserialize(engine, &self.0) };
        let module = module.map_err(|e| GuestError::Module(e.to_string()))?;
        alone(&module)?;
        Ok(module)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wasm::guest::{Guest, Limits, compile, engine};

    /// `(module (func (export "f") (result i32) i32.const 42))`
    const MODULE: &[u8] = b"\0asm\x01\0\0\0\x01\x05\x01\x60\0\x01\x7F\x03\x02\x01\0\x07\x05\x01\x01f\0\0\x0A\x06\x01\x04\0\x41\x2A\x0B";

    #[test]
    fn a_compiled_module_comes_back_for_its_engine_only() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&KIND, &dir.path().join("a/b")).unwrap();
        let limits = Limits::default();
        let engine = engine(&limits).unwrap();
        let own = key(&engine, &[1; 32]);
        assert!(Compiled::kept(&cache, &own).is_none());
        let module = compile(&engine, MODULE).unwrap();
        cache.put(&own, &module.serialize().unwrap()).unwrap();
        let back = Compiled::kept(&cache, &own).unwrap();
        let loaded = back.load(&engine).unwrap();
        assert_eq!(Guest::new(&engine, &loaded, &limits).unwrap().invoke("f", &[]).unwrap(), ["42"]);
        // Another module, and an engine with other settings.
        assert!(Compiled::kept(&cache, &key(&engine, &[2; 32])).is_none());
        let other = super::super::guest::engine(&Limits { fuel: None, ..limits }).unwrap();
        assert_ne!(key(&other, &[1; 32]), own);
        assert!(back.load(&other).is_err(), "the engine refuses it all the same");
    }
}
