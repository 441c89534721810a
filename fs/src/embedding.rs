//! Embedding what is dropped into `kernel/`, `ebpf/` or `wasm/`, with the options that came beside it.

use rvf_bpf::{ProgramOptions, ProgramPayload, ProgramType};
use rvf_cow::{EmbedReport, Embedding, Store};
use rvf_format::SegType;
use rvf_kernel::{Arch, KernelOptions, KernelPayload, WasmOptions, WasmPayload};
use serde_json::{Map, Value};

use crate::data::error::printable;
use crate::errno::Error;
use crate::node::ProgramKind;

/// Longest text of options.
const MAX_OPTIONS_BYTES: usize = 64 << 10;

const KERNEL: &[&str] = &["arch", "cmdline", "api_port", "min_memory_mb", "vcpus"];
const EBPF: &[&str] = &["program_type", "max_dimension"];
const WASM: &[&str] = &["role", "priority"];
const ROLES: [&str; 5] = ["microkernel", "interpreter", "combined", "extension", "control-plane"];

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

/// Judges a program and adds it to the store under a name, in one commit.
///
/// # Errors
/// [`Error::Invalid`] for a program or option that will not do; otherwise that of the store.
pub fn embed(
    store: &Store,
    kind: ProgramKind,
    name: &str,
    program: &[u8],
    options: &Map<String, Value>,
) -> Result<EmbedReport, Error> {
    let known = keys(kind);
    if let Some(key) = options.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(Error::invalid(format!(
            "there is no option '{}'; there are {}",
            printable(key, 64),
            known.join(", ")
        )));
    }
    let options = Options(options);
    let refused = |error: &dyn std::error::Error| Error::invalid(error.to_string());
    let add = |segment, pieces: &[&[u8]], digest| {
        let embedding = Embedding { kind: segment, payload: pieces, digest, name: Some(name) };
        store.embed(&embedding).map_err(Error::from)
    };
    match kind {
        ProgramKind::Kernel => {
            let defaults = KernelOptions::default();
            let options = KernelOptions {
                arch: options.choice("arch", Arch::from_name, "x86_64, aarch64 or riscv64")?,
                cmdline: options.text("cmdline")?.unwrap_or_default(),
                api_port: options.number("api_port", 1, u16::MAX.into())?.map_or(8080, |port| port as u16),
                min_memory_mb: options.number("min_memory_mb", 0, u32::MAX.into())?.unwrap_or(0) as u32,
                vcpu_count: options.number("vcpus", 0, u32::MAX.into())?.unwrap_or(0) as u32,
                ..defaults
            };
            let payload = KernelPayload::new(program, &options).map_err(|error| refused(&error))?;
            add(SegType::KERNEL, &payload.pieces(), payload.digest)
        }
        ProgramKind::Ebpf => {
            let kinds =
                "xdp, tc, tc-egress, socket-filter, tracepoint, kprobe, cgroup-ingress or cgroup-egress";
            let options = ProgramOptions {
                program_type: options.choice("program_type", ProgramType::from_name, kinds)?,
                max_dimension: options.number("max_dimension", 0, u16::MAX.into())?.unwrap_or(0) as u16,
            };
            let payload = ProgramPayload::new(program, &options).map_err(|error| refused(&error))?;
            add(SegType::EBPF, &payload.pieces(), payload.digest)
        }
        ProgramKind::Wasm => {
            let role = |name: &str| ROLES.iter().position(|role| *role == name);
            let options = WasmOptions {
                role: options.choice("role", role, &ROLES.join(", "))?.unwrap_or(0) as u8,
                priority: options.number("priority", 0, u8::MAX.into())?.unwrap_or(0) as u8,
                target: None,
            };
            let payload = WasmPayload::new(program, &options).map_err(|error| refused(&error))?;
            add(SegType::WASM, &payload.pieces(), payload.digest)
        }
    }
}

/// Options by key. Attributes are texts, so numbers may be written as such.
struct Options<'a>(&'a Map<String, Value>);

impl Options<'_> {
    fn text(&self, key: &str) -> Result<Option<String>, Error> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(Error::invalid(format!("option {key} is a text"))),
        }
    }

    fn number(&self, key: &str, least: u64, most: u64) -> Result<Option<u64>, Error> {
        let number = match self.0.get(key) {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        match number.filter(|number| (least..=most).contains(number)) {
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
