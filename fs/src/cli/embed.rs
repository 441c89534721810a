//! `rvf embed-kernel`, `rvf embed-ebpf`, `rvf embed-wasm`: programs into a store. Nothing is run.

use super::failure::Failure;
use super::open::{self, Waiting};
use super::output::{Out, hex};
use crate::embedding::{Options, Payload};
use rvf_bpf::{Builtin, ProgramOptions, ProgramType};
use rvf_cow::Bound;
use rvf_kernel::{Arch, Binding, Kernel, KernelOptions, Wasm, WasmOptions};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Where a program goes, and how that is said.
#[derive(Debug, clap::Args)]
struct Destination {
    /// Path to the RVF store
    path: PathBuf,
    /// Name in the mounted directory; that of the file without its suffix when not given
    #[arg(long)]
    name: Option<String>,
    /// Output as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("image").required(true).args(["image_path", "installed"])), after_help = "\
Taken are 64-bit Linux boot images (bzImage, or an uncompressed arm64 or riscv64 Image) and ELF executables; with --arch also
other images. Earlier kernels stay in the file; the newest is listed first, which is the one that other tools extract. The existing
tools boot no kernel that was embedded with --bind or --bind-policy: they take the binding for the image.")]
pub(super) struct KernelArgs {
    /// Kernel image to embed, or the directory of an unpacked distribution package that has one in boot/
    #[arg(long, value_name = "FILE")]
    image_path: Option<PathBuf>,
    /// The kernel of an installed distribution package: that of this release, or the one that runs
    #[arg(long, value_name = "RELEASE", num_args = 0..=1)]
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
    #[command(flatten)]
    to: Destination,
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
            open::reading(&args.to.path, false)?.view().binding_hash(bound)?
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
        return if given.is_dir() { only_image(given) } else { Ok(given.clone()) };
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

/// The kernel image of an unpacked package that has one.
fn only_image(package: &Path) -> Result<PathBuf, Failure> {
    let boot = package.join("boot");
    let none = || {
        Failure::new(format!(
            "{}: a directory is taken for an unpacked kernel package, and this one has no boot/vmlinuz-*",
            package.display()
        ))
    };
    let list = std::fs::read_dir(&boot).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => none(),
        _ => Failure::file(&boot, &e),
    })?;
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
        (None, _) => Err(none()),
    }
}

pub(super) fn kernel(args: &KernelArgs, out: &mut Out) -> Result<(), Failure> {
    let path = image_path(args)?;
    let image = input(&path)?;
    let options = KernelOptions {
        arch: args.arch,
        cmdline: args.cmdline.clone(),
        api_port: args.api_port,
        min_memory_mb: args.min_memory,
        vcpu_count: args.vcpus,
        binding: binding(args)?,
        ..KernelOptions::default()
    };
    let mut bound = Vec::new();
    if let Some(bind) = args.bind {
        let to = if matches!(bind, Bind::Identity) { "this file" } else { "its contents" };
        bound.push(("Bound to:", to.to_owned()));
    }
    if let Some(policy) = &args.bind_policy {
        bound.push(("Bound to policy:", policy.display().to_string()));
    }
    embed(&args.to, &path, &image, &Options::Kernel(options), &bound, out)
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("object").required(true).args(["program", "builtin"])), after_help = "\
Taken are objects as clang --target=bpf -c makes them, and with --program-type bare instructions. Earlier programs stay in the
file; the newest is listed first, which is the one that other tools extract.

Programs that come with rvf, compiled: distance answers queries over the hottest vectors in XDP, filter passes, drops or
redirects traffic by port and by whether the store has a vector, ports lets allowed ports through to a packet socket.")]
pub(super) struct EbpfArgs {
    /// eBPF object to embed
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// One of the programs that come with rvf instead: distance, filter or ports
    #[arg(long, value_name = "NAME", conflicts_with_all = ["program_type", "max_dimension"],
        value_parser = |name: &str| Builtin::from_name(name).ok_or("use distance, filter or ports"))]
    builtin: Option<Builtin>,
    /// xdp, tc, tc-egress, socket-filter, tracepoint, kprobe, cgroup-ingress or cgroup-egress; found from the object's sections when
    /// not given
    #[arg(long, value_parser = |name: &str| ProgramType::from_name(name).ok_or("no such type of program"))]
    program_type: Option<ProgramType>,
    /// Largest dimension that the program handles; 0 when not known
    #[arg(long, value_name = "DIM", default_value_t = 0)]
    max_dimension: u16,
    #[command(flatten)]
    to: Destination,
}

pub(super) fn ebpf(args: &EbpfArgs, out: &mut Out) -> Result<(), Failure> {
    let (program, path, program_type, max_dimension) = match args.builtin {
        Some(builtin) => {
            (builtin.object().to_vec(), Path::new(builtin.name()), None, builtin.max_dimension())
        }
        None => {
            let path = args.program.as_deref().unwrap_or_else(|| Path::new(""));
            (input(path)?, path, args.program_type, args.max_dimension)
        }
    };
    let options = ProgramOptions { program_type, max_dimension };
    embed(&args.to, path, &program, &Options::Ebpf(options), &[], out)
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
    #[command(flatten)]
    to: Destination,
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
    embed(&args.to, named, &module, &Options::Wasm(options), &[], out)
}

/// Embeds a program that was read from a file, and says so; `more` is what text says besides.
fn embed(
    to: &Destination,
    path: &Path,
    program: &[u8],
    options: &Options,
    more: &[(&str, String)],
    out: &mut Out,
) -> Result<(), Failure> {
    let payload = Payload::new(program, options)
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    let name = name(to.name.as_deref(), path)?;
    let store = open::appending(&to.path, &to.waiting)?;
    let report = payload.embed(&store, &name)?;
    let (title, facts) = facts(&payload, program.len())?;
    let digest = hex(&payload.digest());
    if to.json {
        let of_all = [
            ("status", json!("embedded")),
            ("name", json!(name)),
            ("segment_id", json!(report.segment_id)),
            ("sha3_256", json!(digest)),
            ("offset", json!(report.offset)),
            ("epoch", json!(report.epoch)),
        ];
        let of_kind = facts.into_iter().map(|fact| (fact.key, fact.value));
        return out.json(&of_all.into_iter().chain(of_kind).collect());
    }
    out.line(format!("{title} embedded successfully:"))?;
    out.pair("Name:", &name)?;
    out.pair("Segment ID:", report.segment_id)?;
    facts.iter().try_for_each(|fact| out.pair(fact.label, &fact.text))?;
    more.iter().try_for_each(|(label, text)| out.pair(label, text))?;
    out.pair("SHA3-256:", digest)
}

/// Something that is said of an embedded program, in JSON and in text.
struct Fact {
    key: &'static str,
    value: Value,
    label: &'static str,
    text: String,
}

impl Fact {
    fn new(key: &'static str, label: &'static str, text: &str) -> Self {
        Self { key, value: text.into(), label, text: text.to_owned() }
    }

    fn size(key: &'static str, label: &'static str, bytes: usize) -> Self {
        Self { key, value: bytes.into(), label, text: format!("{bytes} bytes") }
    }
}

/// What is said of a program of its kind.
fn facts(payload: &Payload<'_>, size: usize) -> Result<(&'static str, Vec<Fact>), Failure> {
    let written = payload.pieces().concat();
    Ok(match payload {
        Payload::Kernel(payload) => {
            let kind = Kernel::parse(&written).map_or("unknown", |kernel| kernel.header.kind_name());
            let facts = vec![
                Fact::new("arch", "Architecture:", payload.arch.name()),
                Fact::size("image_size", "Image size:", size),
                Fact::new("kernel_type", "Kernel type:", kind),
            ];
            ("Kernel", facts)
        }
        Payload::Ebpf(payload) => {
            let facts = vec![
                Fact::new("program_type", "Program type:", payload.program_type.name()),
                Fact::size("bytecode_size", "Bytecode size:", size),
            ];
            ("eBPF program", facts)
        }
        Payload::Wasm(_) => {
            let wasm = Wasm::parse(&written).map_err(|error| Failure::new(error.to_string()))?;
            let features = wasm.feature_names();
            let listed = if features.is_empty() { "none".into() } else { features.join(" ") };
            let exports = wasm.export_count;
            let facts = vec![
                Fact::new("role", "Role:", wasm.role_name()),
                Fact::new("target", "Target:", wasm.target_name()),
                Fact { key: "features", value: json!(features), label: "Features:", text: listed },
                Fact { key: "exports", value: json!(exports), label: "Exports:", text: exports.to_string() },
                Fact::size("bytecode_size", "Bytecode size:", size),
            ];
            ("WASM module", facts)
        }
    })
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
