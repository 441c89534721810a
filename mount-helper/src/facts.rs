//! What the headers of a program say, as far as running it needs to know.

use std::ops::Range;

use rvf_bpf::{Builtin, Form, Program, ProgramOptions, ProgramPayload, ProgramType};
use rvf_format::Integrity;
use rvf_kernel::{
    Arch, Binding, ExecKind, Header, ImageForm, Kernel, MAX_CMDLINE, MAX_KERNEL_BYTES, MAX_WASM_BYTES, Wasm,
};

/// Largest payload of a kind, its headers included.
pub const fn max_payload(kind: ExecKind) -> u64 {
    match kind {
        ExecKind::Kernel => 256 + MAX_KERNEL_BYTES,
        ExecKind::Ebpf => 64 + rvf_bpf::MAX_PROGRAM_BYTES,
        ExecKind::Wasm => 64 + MAX_WASM_BYTES,
    }
}

/// A payload, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Where the program (image, object or module) lies in the payload.
    pub program: Range<usize>,
    /// The rest, by kind.
    pub of: FactsOf,
}

/// What there is to know of one kind of program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FactsOf {
    /// Of a kernel.
    Kernel(KernelFacts),
    /// Of an eBPF program.
    Ebpf(EbpfFacts),
    /// Of a WASM module.
    Wasm(WasmFacts),
}

/// Of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFacts {
    /// The header.
    pub header: Header,
    /// What it is bound to; `None` also when all of the binding's hashes are zero.
    pub binding: Option<Binding>,
    /// The command line: printable ASCII.
    pub cmdline: String,
    /// The machine that it is for, by the image where that says so; `None` when nobody says.
    pub arch: Option<Arch>,
    /// What the image was recognized as.
    pub form: Option<ImageForm>,
}

/// Of an eBPF program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EbpfFacts {
    /// Its kind, by the object where that says so; `None` for kinds that the format has no number for.
    pub program_type: Option<ProgramType>,
    /// Its kind in a word, by its header alone.
    pub type_name: &'static str,
    /// Which of the programs that come along it is, byte for byte.
    pub builtin: Option<Builtin>,
    /// An ELF object, or bare instructions.
    pub form: Form,
    /// Largest dimension that it handles; 0 when not known.
    pub max_dimension: u16,
    /// Where separate type information lies in the payload; empty when there is none.
    pub btf: Range<usize>,
}

/// Of a WASM module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WasmFacts {
    /// What it is, in a word.
    pub role: &'static str,
    /// Number of the target, see [`Wasm::target_name`].
    pub target: u8,
    /// What it runs on, in a word.
    pub target_name: &'static str,
    /// Names of the features that its header says it needs.
    pub features: Vec<&'static str>,
}

impl Facts {
    /// Takes a payload apart, and checks everything that its kind's format and limits say. Of a kernel only headers are read.
    ///
    /// # Errors
    /// What does not hold, in words.
    pub fn of(kind: ExecKind, payload: &[u8]) -> Result<Self, String> {
        match kind {
            ExecKind::Kernel => kernel(payload),
            ExecKind::Ebpf => ebpf(payload),
            ExecKind::Wasm => wasm(payload),
        }
    }

    /// Which of the hashes that a header may store is stored of the program. O(payload).
    ///
    /// # Errors
    /// Those of [`Facts::of`].
    pub fn integrity(kind: ExecKind, payload: &[u8]) -> Result<Integrity, String> {
        match kind {
            ExecKind::Kernel => {
                Kernel::parse(payload).map(|kernel| kernel.integrity()).map_err(|e| e.to_string())
            }
            ExecKind::Ebpf => {
                Program::parse(payload).map(|program| program.integrity()).map_err(|e| e.to_string())
            }
            ExecKind::Wasm => Wasm::parse(payload).map(|wasm| wasm.integrity()).map_err(|e| e.to_string()),
        }
    }

    /// What it is in a word, as in the names of a mounted store.
    pub fn word(&self) -> &'static str {
        match &self.of {
            FactsOf::Kernel(kernel) => kernel.header.kind_name(),
            FactsOf::Ebpf(ebpf) => ebpf.type_name,
            FactsOf::Wasm(wasm) => wasm.role,
        }
    }
}

/// Where `part`, which was cut out of `whole`, lies in it.
fn within(whole: &[u8], part: &[u8]) -> Result<Range<usize>, String> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize);
    let range = start.and_then(|start| Some(start..start.checked_add(part.len())?));
    range.filter(|range| range.end <= whole.len()).ok_or_else(|| "a part lies outside of the payload".into())
}

fn kernel(payload: &[u8]) -> Result<Facts, String> {
    let kernel = Kernel::parse(payload).map_err(|e| e.to_string())?;
    let header = &kernel.header;
    if kernel.image.is_empty() {
        return Err("the kernel image is empty".into());
    }
    if header.image_size > MAX_KERNEL_BYTES {
        return Err(format!(
            "a kernel image of {} bytes; {MAX_KERNEL_BYTES} are the most",
            header.image_size
        ));
    }
    if header.compression != 0
        || !(header.compressed_size == 0 || header.compressed_size == header.image_size)
    {
        return Err("the kernel image is stored compressed, in a way that nobody has defined".into());
    }
    if kernel.cmdline.len() > MAX_CMDLINE {
        return Err(format!("a command line of {} bytes; {MAX_CMDLINE} are the most", kernel.cmdline.len()));
    }
    if let Some(at) = kernel.cmdline.iter().position(|byte| !(0x20..0x7F).contains(byte)) {
        let byte = kernel.cmdline.get(at).copied().unwrap_or_default();
        return Err(format!(
            "byte {byte:#04x} at position {at} of the command line; only printable ASCII is passed on"
        ));
    }
    let form = ImageForm::of(kernel.image).map_err(|e| e.to_string())?;
    let arch = match form {
        // The existing tools' numbers are one too high, so the image decides which was meant.
        Some(form) => {
            let code = form.arch().code();
            if ![code, code + 1, 0xFE, 0xFF].contains(&header.arch) {
                let (says, is) = (header.arch_name(), form.arch().name());
                return Err(format!("the header says that the kernel is for {says}, its image is for {is}"));
            }
            Some(form.arch())
        }
        None => [Arch::X86_64, Arch::Aarch64, Arch::Riscv64].into_iter().find(|a| a.code() == header.arch),
    };
    let binding = kernel
        .binding
        .clone()
        .filter(|binding| binding.manifest_root_hash != [0; 32] || binding.policy_hash != [0; 32]);
    Ok(Facts {
        program: within(payload, kernel.image)?,
        of: FactsOf::Kernel(KernelFacts {
            binding,
            cmdline: String::from_utf8_lossy(kernel.cmdline).into_owned(),
            arch,
            form,
            header: kernel.header,
        }),
    })
}

fn ebpf(payload: &[u8]) -> Result<Facts, String> {
    use rvf_bpf::EmbedError;
    let program = Program::parse(payload).map_err(|e| e.to_string())?;
    let by_number = |codes: u8| {
        use ProgramType::{
            CgroupEgress, CgroupIngress, Kprobe, Socket, TcEgress, TcIngress, Tracepoint, Xdp,
        };
        let all = [Xdp, TcIngress, TcEgress, Socket, Tracepoint, Kprobe, CgroupIngress, CgroupEgress];
        let exact = all.into_iter().find(|t| t.codes() == (codes, program.attach_type));
        exact.or_else(|| all.into_iter().find(|t| t.codes().0 == codes))
    };
    let said = by_number(program.program_type);
    // The object's own sections say what it is; the header, whose numbers the existing tools mix up, only where they do not.
    let judged = |kind| {
        ProgramPayload::new(program.program, &ProgramOptions { program_type: kind, max_dimension: 0 })
            .map(|payload| payload.program_type)
    };
    let program_type = match judged(None) {
        Ok(found) => Some(found),
        Err(EmbedError::UnknownType { .. } | EmbedError::SeveralTypes { .. }) => match said {
            Some(said) => Some(judged(Some(said)).map_err(|e| e.to_string())?),
            None => return Err(format!("program type {} is not known", program.program_type)),
        },
        Err(error) => return Err(error.to_string()),
    };
    Ok(Facts {
        program: within(payload, program.program)?,
        of: FactsOf::Ebpf(EbpfFacts {
            program_type,
            type_name: program.type_name(),
            builtin: Builtin::of(program.program),
            form: program.form(),
            max_dimension: program.max_dimension,
            btf: within(payload, program.btf)?,
        }),
    })
}

fn wasm(payload: &[u8]) -> Result<Facts, String> {
    let wasm = Wasm::parse(payload).map_err(|e| e.to_string())?;
    if wasm.bytecode.len() as u64 > MAX_WASM_BYTES {
        return Err(format!("a module of {} bytes; {MAX_WASM_BYTES} are the most", wasm.bytecode.len()));
    }
    if wasm.compression != 0 {
        return Err("the module is stored compressed, in a way that nobody has defined".into());
    }
    if !wasm.bytecode.starts_with(b"\0asm\x01\0\0\0") {
        return Err("this is no core WASM module of version 1".into());
    }
    Ok(Facts {
        program: within(payload, wasm.bytecode)?,
        of: FactsOf::Wasm(WasmFacts {
            role: wasm.role_name(),
            target: wasm.target,
            target_name: wasm.target_name(),
            features: wasm.feature_names(),
        }),
    })
}
