//! `rvf embed-kernel`, `rvf embed-ebpf`, `rvf embed-wasm`: programs into a store. Nothing is run.

use super::failure::Failure;
use super::open::{self, Waiting};
use super::output::{Out, hex};
use rvf_bpf::{Builtin, ProgramOptions, ProgramPayload, ProgramType};
use rvf_cow::{Bound, EmbedReport, Embedding};
use rvf_format::SegType;
use rvf_kernel::{Arch, Binding, Kernel, KernelOptions, KernelPayload, Wasm, WasmOptions, WasmPayload};
use serde_json::json;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Taken are 64-bit Linux boot images (bzImage, or an uncompressed arm64 or riscv64 Image) and ELF executables; with --arch also
other images. Earlier kernels stay in the file; the newest is listed first, which is the one that other tools extract. The existing
tools boot no kernel that was embedded with --bind or --bind-policy: they take the binding for the image.")]
pub(super) struct KernelArgs {
    /// Path to the RVF store
    path: PathBuf,
    /// Kernel image to embed, or the directory of an unpacked distribution package that has one in boot/
    #[arg(long, value_name = "FILE", required_unless_present = "installed")]
    image_path: Option<PathBuf>,
    /// The kernel of an installed distribution package: that of this release, or the one that runs
    #[arg(long, value_name = "RELEASE", num_args = 0..=1, conflicts_with = "image_path")]
    installed: Option<Option<String>>,
    /// Machine: x86_64, aarch64 or riscv64; found from the image when not given
    #[arg(long, value_parser = |name: &str| Arch::from_name(name).ok_or("use x86_64, aarch64 or riscv64"))]
    arch: Option<Arch>,
    /// Command line to boot it with: printable ASCII
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    cmdline: String,
    /// Port of its HTTP API
    #[arg(long, default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    api_port: u16,
    /// MiB of memory that it needs; 0 when not known
    #[arg(long, value_name = "MIB", default_value_t = 0)]
    min_memory: u32,
    /// Virtual CPUs that it wants; 0 when not known
    #[arg(long, default_value_t = 0)]
    vcpus: u32,
    /// Let it boot only from this file, or only while the file has its present contents
    #[arg(long, value_enum, value_name = "TO", num_args = 0..=1, default_missing_value = "identity")]
    bind: Option<Bind>,
    /// Let it boot only where this policy file is in force
    #[arg(long, value_name = "FILE")]
    bind_policy: Option<PathBuf>,
    /// Name in the mounted directory; that of the file without its suffix when not given
    #[arg(long)]
    name: Option<String>,
    /// Output as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Bind {
    /// This file, whatever is committed to it; not its branches and copies with another id
    Identity,
    /// Its vectors and metadata as they are now
    Contents,
}

/// What the kernel is bound to, if anything.
fn binding(args: &KernelArgs) -> Result<Option<Binding>, Failure> {
    if args.bind.is_none() && args.bind_policy.is_none() {
        return Ok(None);
    }
    let manifest_root_hash = match args.bind {
        None => [0; 32],
        Some(bind) => {
            let bound = match bind {
                Bind::Identity => Bound::Identity,
                Bind::Contents => Bound::Contents,
            };
            open::reading(&args.path, false)?.view().binding_hash(bound)?
        }
    };
    let policy_hash = match &args.bind_policy {
        None => [0; 32],
        Some(path) => rvf_crypto::sha3_256(&input(path)?),
    };
    Ok(Some(Binding {
        manifest_root_hash,
        policy_hash,
        version: 1,
        min_runtime_version: 0,
        allowed_segment_mask: 0,
    }))
}

/// The image's file.
fn image_path(args: &KernelArgs) -> Result<PathBuf, Failure> {
    if let Some(given) = &args.image_path {
        return if given.is_dir() { only_image(&given.join("boot")) } else { Ok(given.clone()) };
    }
    let release = match args.installed.iter().flatten().next() {
        Some(release) => release.clone(),
        None => {
            let path = Path::new("/proc/sys/kernel/osrelease");
            std::fs::read_to_string(path).map_err(|e| Failure::file(path, &e))?.trim().to_owned()
        }
    };
    let path = Path::new("/boot").join(format!("vmlinuz-{release}"));
    if release.contains('/') || !path.is_file() {
        return Err(Failure::new(format!(
            "{}: not there; install the kernel's package (Debian: linux-image-{release}), or give another release",
            path.display()
        )));
    }
    Ok(path)
}

/// The kernel image of a directory that has one.
fn only_image(boot: &Path) -> Result<PathBuf, Failure> {
    let list = std::fs::read_dir(boot).map_err(|e| Failure::file(boot, &e))?;
    let is_image = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("vmlinuz"))
    };
    let mut images: Vec<PathBuf> =
        list.filter_map(|entry| Some(entry.ok()?.path())).filter(is_image).collect();
    match (images.pop(), images.is_empty()) {
        (Some(image), true) => Ok(image),
        (Some(_), false) => {
            Err(Failure::new(format!("{}: more than one vmlinuz; give the file", boot.display())))
        }
        (None, _) => Err(Failure::new(format!("{}: no vmlinuz in it", boot.display()))),
    }
}

pub(super) fn kernel(args: &KernelArgs, out: &mut Out) -> Result<(), Failure> {
    let path = image_path(args)?;
    let image = input(&path)?;
    let binding = binding(args)?;
    let options = KernelOptions {
        arch: args.arch,
        cmdline: args.cmdline.clone(),
        api_port: args.api_port,
        min_memory_mb: args.min_memory,
        vcpu_count: args.vcpus,
        binding,
        ..KernelOptions::default()
    };
    let payload = KernelPayload::new(&image, &options).map_err(|error| refused(&path, &error))?;
    let name = name(args.name.as_deref(), &path)?;
    let embedding = Embedding {
        kind: SegType::KERNEL,
        payload: &payload.pieces(),
        digest: payload.digest,
        name: Some(&name),
    };
    let report = commit(&args.path, &embedding, &args.waiting)?;
    let written = payload.pieces().concat();
    let kind = Kernel::parse(&written).map_or("unknown", |kernel| kernel.header.kind_name());
    if args.json {
        return out.json(&json!({
            "status": "embedded",
            "name": name,
            "segment_id": report.segment_id,
            "arch": payload.arch.name(),
            "image_size": image.len(),
            "kernel_type": kind,
            "sha3_256": hex(&payload.digest),
            "offset": report.offset,
            "epoch": report.epoch,
        }));
    }
    out.line("Kernel embedded successfully:")?;
    out.pair("Name:", &name)?;
    out.pair("Segment ID:", report.segment_id)?;
    out.pair("Architecture:", payload.arch.name())?;
    out.pair("Image size:", format!("{} bytes", image.len()))?;
    out.pair("Kernel type:", kind)?;
    if let Some(bind) = args.bind {
        out.pair("Bound to:", if matches!(bind, Bind::Identity) { "this file" } else { "its contents" })?;
    }
    if let Some(policy) = &args.bind_policy {
        out.pair("Bound to policy:", policy.display())?;
    }
    out.pair("SHA3-256:", hex(&payload.digest))
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Taken are objects as clang --target=bpf -c makes them, and with --program-type bare instructions. Earlier programs stay in the
file; the newest is listed first, which is the one that other tools extract.

Programs that come with rvf, compiled: distance answers queries over the hottest vectors in XDP, filter passes, drops or
redirects traffic by port and by whether the store has a vector, ports lets allowed ports through to a packet socket.")]
pub(super) struct EbpfArgs {
    /// Path to the RVF store
    path: PathBuf,
    /// eBPF object to embed
    #[arg(long, value_name = "FILE", required_unless_present = "builtin")]
    program: Option<PathBuf>,
    /// One of the programs that come with rvf instead: distance, filter or ports
    #[arg(long, value_name = "NAME", conflicts_with_all = ["program", "program_type", "max_dimension"],
        value_parser = |name: &str| Builtin::from_name(name).ok_or("use distance, filter or ports"))]
    builtin: Option<Builtin>,
    /// xdp, tc, tc-egress, socket-filter, tracepoint, kprobe, cgroup-ingress or cgroup-egress; found from the object's sections when
    /// not given
    #[arg(long, value_parser = |name: &str| ProgramType::from_name(name).ok_or("no such type of program"))]
    program_type: Option<ProgramType>,
    /// Largest dimension that the program handles; 0 when not known
    #[arg(long, value_name = "DIM", default_value_t = 0)]
    max_dimension: u16,
    /// Name in the mounted directory; that of the file without its suffix when not given
    #[arg(long)]
    name: Option<String>,
    /// Output as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub(super) fn ebpf(args: &EbpfArgs, out: &mut Out) -> Result<(), Failure> {
    let path = args.program.as_deref().unwrap_or_else(|| Path::new(""));
    let (program, options) = match args.builtin {
        Some(builtin) => (
            builtin.object().to_vec(),
            ProgramOptions { program_type: None, max_dimension: builtin.max_dimension() },
        ),
        None => (
            input(path)?,
            ProgramOptions { program_type: args.program_type, max_dimension: args.max_dimension },
        ),
    };
    let payload = ProgramPayload::new(&program, &options).map_err(|error| refused(path, &error))?;
    let path = args.builtin.map_or(path, |builtin| Path::new(builtin.name()));
    let name = name(args.name.as_deref(), path)?;
    let embedding = Embedding {
        kind: SegType::EBPF,
        payload: &payload.pieces(),
        digest: payload.digest,
        name: Some(&name),
    };
    let report = commit(&args.path, &embedding, &args.waiting)?;
    let kind = payload.program_type.name();
    if args.json {
        return out.json(&json!({
            "status": "embedded",
            "name": name,
            "segment_id": report.segment_id,
            "program_type": kind,
            "bytecode_size": program.len(),
            "sha3_256": hex(&payload.digest),
            "offset": report.offset,
            "epoch": report.epoch,
        }));
    }
    out.line("eBPF program embedded successfully:")?;
    out.pair("Name:", &name)?;
    out.pair("Segment ID:", report.segment_id)?;
    out.pair("Program type:", kind)?;
    out.pair("Bytecode size:", format!("{} bytes", program.len()))?;
    out.pair("SHA3-256:", hex(&payload.digest))
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Role {
    /// Answers queries over memory that a host fills
    Microkernel,
    /// Runs other modules
    Interpreter,
    /// Both
    Combined,
    /// Adds to another module
    Extension,
    /// Administers a store
    ControlPlane,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Target {
    /// Any engine, no system interface
    Wasm32,
    /// WASI preview 1
    WasiP1,
    /// WASI preview 2
    WasiP2,
    /// A web page
    Browser,
    /// An engine without memory management
    BareTile,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The module is validated first; the features that it needs, its exports and its memory are found from it. Earlier modules stay in
the file; the newest is listed first, which is the one that other tools extract.")]
pub(super) struct WasmArgs {
    /// Path to the RVF store
    path: PathBuf,
    /// WASM module to embed; the query microkernel that rvf brings along when not given
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    /// What the module is
    #[arg(long, value_enum, default_value = "microkernel")]
    role: Role,
    /// Where it runs; found from its imports when not given
    #[arg(long, value_enum)]
    target: Option<Target>,
    /// Modules run in ascending order of this
    #[arg(long, default_value_t = 0)]
    priority: u8,
    /// Name in the mounted directory; that of the file without its suffix when not given
    #[arg(long)]
    name: Option<String>,
    /// Output as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub(super) fn wasm(args: &WasmArgs, out: &mut Out) -> Result<(), Failure> {
    let module = match &args.module {
        Some(path) => input(path)?,
        None => rvf_kernel::QUERY_MODULE.to_vec(),
    };
    let named = args.module.as_deref().unwrap_or(Path::new("query.wasm"));
    let options = WasmOptions {
        role: args.role as u8,
        target: args.target.map(|target| target as u8),
        priority: args.priority,
    };
    let payload = WasmPayload::new(&module, &options).map_err(|error| refused(named, &error))?;
    let name = name(args.name.as_deref(), named)?;
    let embedding = Embedding {
        kind: SegType::WASM,
        payload: &payload.pieces(),
        digest: payload.digest,
        name: Some(&name),
    };
    let report = commit(&args.path, &embedding, &args.waiting)?;
    let written = payload.pieces().concat();
    let wasm = Wasm::parse(&written).map_err(|error| Failure::new(error.to_string()))?;
    if args.json {
        return out.json(&json!({
            "status": "embedded",
            "name": name,
            "segment_id": report.segment_id,
            "role": wasm.role_name(),
            "target": wasm.target_name(),
            "features": wasm.feature_names(),
            "exports": wasm.export_count,
            "bytecode_size": module.len(),
            "sha3_256": hex(&payload.digest),
            "offset": report.offset,
            "epoch": report.epoch,
        }));
    }
    let features = wasm.feature_names();
    out.line("WASM module embedded successfully:")?;
    out.pair("Name:", &name)?;
    out.pair("Segment ID:", report.segment_id)?;
    out.pair("Role:", wasm.role_name())?;
    out.pair("Target:", wasm.target_name())?;
    out.pair("Features:", if features.is_empty() { "none".into() } else { features.join(" ") })?;
    out.pair("Exports:", wasm.export_count)?;
    out.pair("Bytecode size:", format!("{} bytes", module.len()))?;
    out.pair("SHA3-256:", hex(&payload.digest))
}

/// Reads a program whole, so that what is judged, hashed and written are the same bytes whatever happens to the file
/// meanwhile. No kind may be larger than a kernel: a longer file, or a pipe that never ends, is not read on.
fn input(path: &Path) -> Result<Vec<u8>, Failure> {
    const MAX: u64 = rvf_kernel::MAX_KERNEL_BYTES;
    let fail = |error: std::io::Error| Failure::file(path, &error);
    let mut bytes = Vec::new();
    File::open(path).map_err(fail)?.take(MAX + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > MAX {
        return Err(Failure::new(format!(
            "{}: more than {MAX} bytes, the most that a program may have",
            path.display()
        )));
    }
    Ok(bytes)
}

/// The name to embed under.
fn name(given: Option<&str>, path: &Path) -> Result<String, Failure> {
    let Some(name) = given.map(str::to_owned).or_else(|| Some(stem(path.file_name()?.to_str()?))) else {
        return Err(Failure::new(format!("{}: give a --name", path.display())));
    };
    match rvf_format::label::check_name(&name) {
        Ok(()) => Ok(name),
        Err(why) => Err(Failure::new(format!("--name {name}: {why}"))),
    }
}

fn stem(name: &str) -> String {
    let suffixes = [".bin", ".o", ".wasm"];
    let stem = suffixes.iter().find_map(|end| name.strip_suffix(end)).filter(|stem| !stem.is_empty());
    stem.unwrap_or(name).to_owned()
}

fn refused(path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}

fn commit(store: &Path, embedding: &Embedding<'_>, waiting: &Waiting) -> Result<EmbedReport, Failure> {
    Ok(open::appending(store, waiting)?.embed(embedding)?)
}
