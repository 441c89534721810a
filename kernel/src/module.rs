//! WASM modules to be embedded: validated, and described by what is in them.

use crate::error::EmbedError;
use rvf_format::checksum::sha3_256;
use wasmparser::{Parser, Payload, Validator, WasmFeatures};

/// Largest module. The existing tools have the same limit.
pub const MAX_WASM_BYTES: u64 = 8 << 20;

const HEADER_LEN: usize = 64;
const MAGIC: u32 = 0x5256_574D;
const WHAT: &str = "WASM module";

/// A module uses a feature of the format when it is not valid without these.
const WITHOUT: [(u16, WasmFeatures); 8] = [
    (0x01, WasmFeatures::SIMD.union(WasmFeatures::RELAXED_SIMD)),
    (0x02, WasmFeatures::BULK_MEMORY),
    (0x04, WasmFeatures::MULTI_VALUE),
    (0x08, WasmFeatures::REFERENCE_TYPES.union(WasmFeatures::FUNCTION_REFERENCES).union(WasmFeatures::GC)),
    (0x10, WasmFeatures::THREADS),
    (0x20, WasmFeatures::TAIL_CALL),
    (0x40, WasmFeatures::GC),
    (0x80, WasmFeatures::EXCEPTIONS),
];

/// What is recorded beside a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WasmOptions {
    /// Number of the role, see [`crate::Wasm::role_name`].
    pub role: u8,
    /// Number of the target, see [`crate::Wasm::target_name`]; by its imports when not given.
    pub target: Option<u8>,
    /// Modules of a file run in ascending order of this.
    pub priority: u8,
}

/// A payload ready to be written, in pieces so that the module is not copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WasmPayload<'a> {
    head: Vec<u8>,
    module: &'a [u8],
    /// Number of the target.
    pub target: u8,
    /// Features that it needs, as in the header.
    pub features: u16,
    /// Its exports.
    pub export_count: u16,
    /// SHA3-256 of the module, as in the header.
    pub digest: [u8; 32],
}

#[derive(Default)]
struct Seen {
    exports: u32,
    wasi: bool,
    /// Smallest and largest size of the first memory, in its own pages of 64 KiB.
    memory: Option<(u64, Option<u64>)>,
}

impl<'a> WasmPayload<'a> {
    /// Validates a module and puts its payload together. O(module).
    ///
    /// # Errors
    /// [`EmbedError`], with the offset of what is wrong in the module.
    pub fn new(module: &'a [u8], options: &WasmOptions) -> Result<Self, EmbedError> {
        if module.is_empty() {
            return Err(EmbedError::Empty { what: WHAT });
        }
        let len = module.len() as u64;
        if len > MAX_WASM_BYTES {
            return Err(EmbedError::TooLarge { what: WHAT, len, limit: MAX_WASM_BYTES });
        }
        if !module.starts_with(b"\0asm") {
            return Err(EmbedError::NotAModule);
        }
        // Version in the low half, layer in the high half.
        let version = module.get(4..8).map_or(0, |v| u32::from_le_bytes([v[0], v[1], v[2], v[3]]));
        if version != 1 {
            return Err(EmbedError::ModuleVersion { version });
        }
        let all = WasmFeatures::WASM3 | WasmFeatures::THREADS;
        let valid = |features| Validator::new_with_features(features).validate_all(module).map(|_| ());
        let invalid = |error: wasmparser::BinaryReaderError| EmbedError::Module {
            offset: error.offset(),
            reason: error.message().to_owned(),
        };
        valid(all).map_err(invalid)?;
        let features = WITHOUT
            .into_iter()
            .filter(|(_, without)| valid(all.difference(*without)).is_err())
            .fold(0, |bits, (bit, _)| bits | bit);
        let seen = look(module).map_err(invalid)?;
        let target = options.target.unwrap_or(u8::from(seen.wasi));
        let export_count = u16::try_from(seen.exports).unwrap_or(u16::MAX);
        // The fields have a byte each: more is "at least 255", and "no limit", which the module itself makes exact.
        let (min, max) = seen.memory.unwrap_or((0, Some(0)));
        let min_pages = u8::try_from(min).unwrap_or(u8::MAX);
        let max_pages = max.and_then(|max| u8::try_from(max).ok()).unwrap_or(0);
        let digest = sha3_256(module);
        let mut head = vec![0; HEADER_LEN];
        let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x00, &MAGIC.to_le_bytes());
        put(0x04, &1_u16.to_le_bytes());
        put(0x06, &[options.role, target]);
        put(0x08, &features.to_le_bytes());
        put(0x0A, &export_count.to_le_bytes());
        put(0x0C, &(len as u32).to_le_bytes());
        put(0x15, &[min_pages, max_pages]);
        put(0x18, &digest);
        put(0x38, &[options.priority]);
        Ok(Self { head, module, target, features, export_count, digest })
    }

    /// The payload's bytes, one piece after the other.
    pub fn pieces(&self) -> [&[u8]; 2] {
        [&self.head, self.module]
    }
}

fn look(module: &[u8]) -> Result<Seen, wasmparser::BinaryReaderError> {
    let mut seen = Seen::default();
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import?;
                    seen.wasi |= import.module == "wasi_snapshot_preview1";
                    if let wasmparser::TypeRef::Memory(memory) = import.ty {
                        seen.memory.get_or_insert((memory.initial, memory.maximum));
                    }
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories {
                    let memory = memory?;
                    seen.memory.get_or_insert((memory.initial, memory.maximum));
                }
            }
            Payload::ExportSection(exports) => seen.exports = exports.count(),
            _ => {}
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Integrity, Wasm};

    /// `(module SECTIONS)`: each section a number and its bytes.
    fn module(sections: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = b"\0asm\x01\0\0\0".to_vec();
        for (id, bytes) in sections {
            out.push(*id);
            out.push(u8::try_from(bytes.len()).expect("short"));
            out.extend_from_slice(bytes);
        }
        out
    }

    fn plain() -> Vec<u8> {
        module(&[
            (1, &[1, 0x60, 0, 0]),
            (3, &[1, 0]),
            (5, &[1, 1, 3, 7]),
            (7, &[2, 1, b'f', 0, 0, 1, b'm', 2, 0]),
            (10, &[1, 2, 0, 0x0B]),
        ])
    }

    #[test]
    fn a_module_is_described_and_reads_back() {
        let bytes = plain();
        let options = WasmOptions { role: 3, priority: 9, ..WasmOptions::default() };
        let payload = WasmPayload::new(&bytes, &options).expect("valid").pieces().concat();
        let wasm = Wasm::parse(&payload).expect("whole");
        assert_eq!(wasm.bytecode, bytes);
        assert_eq!((wasm.role_name(), wasm.target_name(), wasm.priority), ("extension", "wasm32", 9));
        assert_eq!((wasm.export_count, wasm.min_pages, wasm.max_pages), (2, 3, 7));
        assert!(wasm.feature_names().is_empty());
        assert_eq!(wasm.integrity(), Integrity::Sha3);
    }

    #[test]
    fn features_are_those_that_it_is_invalid_without() {
        // v128.const 0; drop
        let mut simd = vec![1, 21, 0, 0xFD, 0x0C];
        simd.extend([0; 16]);
        simd.extend([0x1A, 0x0B]);
        // memory.fill
        let bulk = [1, 11, 0, 0x41, 0, 0x41, 0, 0x41, 0, 0xFC, 0x0B, 0, 0x0B];
        let tail = [1, 4, 0, 0x12, 0, 0x0B];
        for (code, names) in [(&simd[..], "simd"), (&bulk, "bulk"), (&tail, "tail_call")] {
            let bytes = module(&[(1, &[1, 0x60, 0, 0]), (3, &[1, 0]), (5, &[1, 0, 1]), (10, code)]);
            let payload = WasmPayload::new(&bytes, &WasmOptions::default()).expect(names).pieces().concat();
            assert_eq!(Wasm::parse(&payload).expect("whole").feature_names(), [names]);
        }
    }

    #[test]
    fn wasi_is_told_by_its_imports() {
        let mut import = vec![1, 22];
        import.extend_from_slice(b"wasi_snapshot_preview1");
        import.extend_from_slice(&[1, b'x', 0, 0]);
        let bytes = module(&[(1, &[1, 0x60, 0, 0]), (2, &import)]);
        assert_eq!(WasmPayload::new(&bytes, &WasmOptions::default()).map(|p| p.target), Ok(1));
        let given = WasmOptions { target: Some(3), ..WasmOptions::default() };
        assert_eq!(WasmPayload::new(&bytes, &given).map(|p| p.target), Ok(3));
    }

    #[test]
    fn what_is_no_valid_module_is_refused() {
        let component = b"\0asm\x0d\0\x01\0".to_vec();
        let mut cut = plain();
        cut.pop();
        // A function that should give an i32 and gives nothing.
        let wrong = module(&[(1, &[1, 0x60, 0, 1, 0x7F]), (3, &[1, 0]), (10, &[1, 2, 0, 0x0B])]);
        for (bytes, word) in [
            (vec![], "empty"),
            (b"\x7fELF".to_vec(), "no WASM module"),
            (component, "version"),
            (b"\0asm".to_vec(), "version"),
            (cut, "offset"),
            (wrong, "offset"),
        ] {
            let error = WasmPayload::new(&bytes, &WasmOptions::default()).expect_err(word);
            assert!(error.to_string().contains(word), "{error}");
        }
        let huge = vec![0; MAX_WASM_BYTES as usize + 1];
        assert!(matches!(WasmPayload::new(&huge, &WasmOptions::default()), Err(EmbedError::TooLarge { .. })));
    }
}
