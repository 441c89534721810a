//! Embedding programs: what is dropped into `kernel/`, `ebpf/` or `wasm/` with the options that came beside it, and what
//! `rvf embed-kernel`, `embed-ebpf` and `embed-wasm` are given.

use rvf_bpf::{ProgramOptions, ProgramPayload, ProgramType};
use rvf_cow::{EmbedReport, Embedding, Store};
use rvf_format::SegType;
use rvf_kernel::{Arch, ImageForm, KernelOptions, KernelPayload, Wasm, WasmOptions, WasmPayload};
use serde_json::{Map, Value};

use crate::data::error::printable;
use crate::errno::Error;
use crate::node::ProgramKind;

/// Longest text of options.
const MAX_OPTIONS_BYTES: usize = 64 << 10;

/// The machine of eBPF objects, in the header of an ELF file.
const MACHINE_BPF: u16 = 247;

const KERNEL: &[&str] = &["arch", "cmdline", "api_port", "min_memory_mb", "vcpus"];
const EBPF: &[&str] = &["program_type", "max_dimension"];
const WASM: &[&str] = &["role", "priority"];

/// The keys that options of this kind may have.
#[must_use]
pub fn keys(kind: ProgramKind) -> &'static [&'static str] {
    match kind {
        ProgramKind::Kernel => KERNEL,
        ProgramKind::Ebpf => EBPF,
        ProgramKind::Wasm => WASM,
    }
}

/// Reads `NAME.json`.
///
/// # Errors
/// [`Error::Invalid`] when it is no JSON object, or too long.
pub fn parse_options(bytes: &[u8]) -> Result<Map<String, Value>, Error> {
    if bytes.len() > MAX_OPTIONS_BYTES {
        return Err(Error::invalid(format!("more than {MAX_OPTIONS_BYTES} bytes of options")));
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(options)) => Ok(options),
        Ok(_) => Err(Error::invalid("options are a JSON object, such as {\"cmdline\": \"quiet\"}")),
        Err(error) => Err(Error::invalid(format!("options are a JSON object: {error}"))),
    }
}

/// That a program belongs into another directory, for one that was refused in its own; `None` where its first bytes do not
/// say what it is.
#[must_use]
pub fn misplaced(here: ProgramKind, program: &[u8]) -> Option<Error> {
    let kind = if program.starts_with(b"\0asm") {
        ProgramKind::Wasm
    } else if program.starts_with(b"\x7fELF") && program.get(18..20) == Some(&MACHINE_BPF.to_le_bytes()) {
        ProgramKind::Ebpf
    } else if matches!(ImageForm::of(program), Ok(Some(ImageForm::Linux(_)))) {
        ProgramKind::Kernel
    } else {
        return None;
    };
    (kind != here)
        .then(|| Error::invalid(format!("this is {}, which goes to {}/", kind.image(), kind.directory())))
}

/// What is recorded beside a program.
#[derive(Debug, Clone)]
pub enum Options {
    /// Beside a kernel image.
    Kernel(KernelOptions),
    /// Beside an eBPF program.
    Ebpf(ProgramOptions),
    /// Beside a WASM module.
    Wasm(WasmOptions),
}

impl Options {
    /// From `NAME.json` and attributes.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a key that programs of this kind do not have, and for a value that its key cannot have.
    pub fn from_keys(kind: ProgramKind, given: &Map<String, Value>) -> Result<Self, Error> {
        let known = keys(kind);
        if let Some(key) = given.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(Error::invalid(format!(
                "there is no option '{}'; there are {}",
                printable(key, 64),
                known.join(", ")
            )));
        }
        let given = Keys(given);
        Ok(match kind {
            ProgramKind::Kernel => {
                let defaults = KernelOptions::default();
                Self::Kernel(KernelOptions {
                    arch: given.choice("arch", Arch::from_name, "x86_64, aarch64 or riscv64")?,
                    cmdline: given.text("cmdline")?.unwrap_or_default(),
                    api_port: given.number("api_port", 1, u16::MAX)?.unwrap_or(defaults.api_port),
                    min_memory_mb: given.number("min_memory_mb", 0, u32::MAX)?.unwrap_or(0),
                    vcpu_count: given.number("vcpus", 0, u32::MAX)?.unwrap_or(0),
                    ..defaults
                })
            }
            ProgramKind::Ebpf => {
                let types =
                    "xdp, tc, tc-egress, socket-filter, tracepoint, kprobe, cgroup-ingress or cgroup-egress";
                Self::Ebpf(ProgramOptions {
                    program_type: given.choice("program_type", ProgramType::from_name, types)?,
                    max_dimension: given.number("max_dimension", 0, u16::MAX)?.unwrap_or(0),
                })
            }
            ProgramKind::Wasm => Self::Wasm(WasmOptions {
                role: given.choice("role", Wasm::role_from_name, &Wasm::ROLES.join(", "))?.unwrap_or(0),
                priority: given.number("priority", 0, u8::MAX)?.unwrap_or(0),
                target: None,
            }),
        })
    }
}

/// A program that was judged, with what is recorded beside it: the payload of a segment.
#[derive(Debug, Clone)]
pub enum Payload<'a> {
    /// A kernel image.
    Kernel(KernelPayload<'a>),
    /// An eBPF program.
    Ebpf(ProgramPayload<'a>),
    /// A WASM module.
    Wasm(WasmPayload<'a>),
}

impl<'a> Payload<'a> {
    /// Judges a program.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that will not do.
    pub fn new(program: &'a [u8], options: &Options) -> Result<Self, Error> {
        let refused = |error: &dyn std::error::Error| Error::invalid(error.to_string());
        match options {
            Options::Kernel(options) => {
                KernelPayload::new(program, options).map(Self::Kernel).map_err(|error| refused(&error))
            }
            Options::Ebpf(options) => {
                ProgramPayload::new(program, options).map(Self::Ebpf).map_err(|error| refused(&error))
            }
            Options::Wasm(options) => {
                WasmPayload::new(program, options).map(Self::Wasm).map_err(|error| refused(&error))
            }
        }
    }

    /// Its bytes, one piece after the other.
    #[must_use]
    pub fn pieces(&self) -> Vec<&[u8]> {
        match self {
            Self::Kernel(payload) => payload.pieces().to_vec(),
            Self::Ebpf(payload) => payload.pieces().to_vec(),
            Self::Wasm(payload) => payload.pieces().to_vec(),
        }
    }

    /// SHA3-256 of the program itself.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        match self {
            Self::Kernel(payload) => payload.digest,
            Self::Ebpf(payload) => payload.digest,
            Self::Wasm(payload) => payload.digest,
        }
    }

    /// Adds it to a store under a name, in one commit.
    ///
    /// # Errors
    /// Those of the store.
    pub fn embed(&self, store: &Store, name: &str) -> Result<EmbedReport, rvf_cow::Error> {
        let kind = match self {
            Self::Kernel(_) => SegType::KERNEL,
            Self::Ebpf(_) => SegType::EBPF,
            Self::Wasm(_) => SegType::WASM,
        };
        let (pieces, digest) = (self.pieces(), self.digest());
        store.embed(&Embedding { kind, payload: &pieces, digest, name: Some(name) })
    }
}

/// Options by key. Attributes are texts, so numbers may be written as such.
struct Keys<'a>(&'a Map<String, Value>);

impl Keys<'_> {
    fn text(&self, key: &str) -> Result<Option<String>, Error> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(Error::invalid(format!("option {key} is a text"))),
        }
    }

    fn number<T>(&self, key: &str, least: T, most: T) -> Result<Option<T>, Error>
    where
        T: Copy + TryFrom<u64> + PartialOrd + std::fmt::Display,
    {
        let number = match self.0.get(key) {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        match number.and_then(|number| T::try_from(number).ok()).filter(|n| (least..=most).contains(n)) {
            Some(number) => Ok(Some(number)),
            None => Err(Error::invalid(format!("option {key} is a whole number from {least} to {most}"))),
        }
    }

    fn choice<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Option<T>,
        choices: &str,
    ) -> Result<Option<T>, Error> {
        let Some(name) = self.text(key)? else { return Ok(None) };
        match parse(&name) {
            Some(value) => Ok(Some(value)),
            None => Err(Error::invalid(format!("option {key} is {choices}, not '{}'", printable(&name, 64)))),
        }
    }
}
