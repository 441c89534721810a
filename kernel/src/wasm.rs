//! WASM payloads.

use crate::error::{ImageError, header};
use rvf_format::Integrity;

const FEATURES: [&str; 8] =
    ["simd", "bulk", "multi_value", "reftypes", "threads", "tail_call", "gc", "exceptions"];

/// A WASM payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wasm<'a> {
    /// Its number in [`Wasm::ROLES`].
    pub role: u8,
    /// 0 wasm32, 1 WASI-P1, 2 WASI-P2, 3 browser, 4 bare tile.
    pub target: u8,
    /// See [`Wasm::feature_names`].
    pub features: u16,
    /// Exports.
    pub export_count: u16,
    /// 0.
    pub compression: u8,
    /// Smallest memory, 64 KiB pages.
    pub min_pages: u8,
    /// Largest memory, 64 KiB pages; 0 is no limit.
    pub max_pages: u8,
    /// Hash of the module.
    pub bytecode_hash: [u8; 32],
    /// Modules of a file run in ascending order of this.
    pub priority: u8,
    /// Interpreter type.
    pub interpreter_type: u8,
    /// The module.
    pub bytecode: &'a [u8],
}

impl<'a> Wasm<'a> {
    /// Names of the roles, by number.
    pub const ROLES: [&'static str; 5] =
        ["microkernel", "interpreter", "combined", "extension", "control-plane"];

    /// Reads a payload. O(1). The module itself is not looked into.
    ///
    /// # Errors
    /// [`ImageError`] when the header is wrong or the module passes the end. More bytes than declared are left out.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ImageError> {
        let (f, rest) = header(payload, "WASM", 64, 0x5256_574D)?;
        let size = f.u32(0x0C);
        let bytecode = rest.get(..size as usize).ok_or(ImageError::Size {
            what: "WASM",
            declared: u64::from(size),
            found: rest.len() as u64,
        })?;
        Ok(Self {
            role: f.u8(0x06),
            target: f.u8(0x07),
            features: f.u16(0x08),
            export_count: f.u16(0x0A),
            compression: f.u8(0x14),
            min_pages: f.u8(0x15),
            max_pages: f.u8(0x16),
            bytecode_hash: f.bytes(0x18),
            priority: f.u8(0x38),
            interpreter_type: f.u8(0x39),
            bytecode,
        })
    }

    /// The role.
    pub fn role_name(&self) -> &'static str {
        Self::ROLES.get(usize::from(self.role)).unwrap_or(&"unknown")
    }

    /// The number of a role.
    pub fn role_from_name(name: &str) -> Option<u8> {
        (0..).zip(Self::ROLES).find(|(_, role)| *role == name).map(|(number, _)| number)
    }

    /// The target.
    pub fn target_name(&self) -> &'static str {
        ["wasm32", "wasi-p1", "wasi-p2", "browser", "bare-tile"]
            .get(usize::from(self.target))
            .unwrap_or(&"unknown")
    }

    /// Names of the features, lowest bit first.
    pub fn feature_names(&self) -> Vec<&'static str> {
        FEATURES
            .iter()
            .enumerate()
            .filter(|(bit, _)| self.features >> bit & 1 == 1)
            .map(|(_, name)| *name)
            .collect()
    }

    /// Whether the file can run itself from this module, as the reference sees it.
    pub fn is_self_bootstrapping(&self) -> bool {
        matches!(self.role, 1 | 2)
    }

    /// Which hash of the module is stored. O(module).
    pub fn integrity(&self) -> Integrity {
        Integrity::of(&self.bytecode_hash, &[self.bytecode])
    }
}
