//! Embedded programs and models: where their images lie, and what the headers of the rarer segments say.

use std::collections::HashMap;
use std::ops::Range;

use rvf_bpf::{Form, Program};
use rvf_cow::View;
use rvf_format::{SegType, Segment, hot, level0, quant, refcount, sketch};
use rvf_kernel::{Dashboard, Kernel, Wasm, entry};
use serde_json::{Map, Value, json};

use crate::info::hex;
use crate::node::{ProgramKind, SegmentKey};
use crate::snapshot::{Part, Snap};

/// The types shown in `models/`.
pub const MODELS: [SegType; 5] =
    [SegType::OVERLAY, SegType::SKETCH, SegType::TRANSFER_PRIOR, SegType::POLICY_KERNEL, SegType::COST_CURVE];

/// The name of a payload in `models/`: place in the file and type.
#[must_use]
pub fn model_name(part: &Part) -> String {
    format!("{}.bin", part.name())
}

/// The segment type behind a directory of programs.
#[must_use]
pub fn segment_type(kind: ProgramKind) -> SegType {
    match kind {
        ProgramKind::Kernel => SegType::KERNEL,
        ProgramKind::Ebpf => SegType::EBPF,
        ProgramKind::Wasm => SegType::WASM,
    }
}

/// One program as the tree shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its directory.
    pub kind: ProgramKind,
    /// Its segment.
    pub key: SegmentKey,
    /// Where its segment begins.
    pub offset: u64,
    /// The name of its executable entry; that of its image has a suffix.
    pub name: String,
}

impl Shown {
    /// Its segment in the state that it was found in.
    #[must_use]
    pub fn segment<'a>(&self, view: &'a View) -> Option<&'a Segment> {
        view.opened().layout.segment_at_offset(self.offset)
    }

    /// The name of its image.
    #[must_use]
    pub fn image_name(&self) -> String {
        format!("{}.{}", self.name, self.kind.suffix())
    }
}

/// The programs of one state of a store, in file order.
#[derive(Debug, Default)]
pub struct Programs {
    list: Vec<Shown>,
    by_name: HashMap<(ProgramKind, String), usize>,
}

impl Programs {
    /// Those of a state. O(segments).
    #[must_use]
    pub fn of(snap: &Snap) -> Self {
        let mut this = Self::default();
        let parts: HashMap<u64, &Part> = snap.list().iter().map(|part| (part.raw.start, part)).collect();
        let mut programs = snap.view.programs();
        // A name that was given twice, by another tool or in a damaged file, is that of the newest.
        programs.reverse();
        for program in programs {
            let Some(part) = parts.get(&program.segment.offset) else { continue };
            let Some(kind) = kind_of(program.segment.kind()) else { continue };
            let free = |name: &String| !this.by_name.contains_key(&(kind, name.clone()));
            let name = program.name.filter(free).unwrap_or_else(|| given_none(snap, part, kind));
            let shown = Shown { kind, key: part.key, offset: program.segment.offset, name };
            this.by_name.insert((kind, shown.name.clone()), this.list.len());
            this.list.push(shown);
        }
        this.list.reverse();
        let count = this.list.len();
        this.by_name.values_mut().for_each(|at| *at = count - 1 - *at);
        this
    }

    /// Those of a directory.
    pub fn of_kind(&self, kind: ProgramKind) -> impl Iterator<Item = &Shown> {
        self.list.iter().filter(move |shown| shown.kind == kind)
    }

    /// The one whose entry or image has this name; `true` for the image.
    #[must_use]
    pub fn named(&self, kind: ProgramKind, name: &str) -> Option<(&Shown, bool)> {
        let find = |name: &str| self.list.get(*self.by_name.get(&(kind, name.to_owned()))?);
        if let Some(shown) = find(name) {
            return Some((shown, false));
        }
        let stem = name.strip_suffix(kind.suffix())?.strip_suffix('.')?;
        find(stem).map(|shown| (shown, true))
    }

    /// The one in this segment.
    #[must_use]
    pub fn at(&self, key: SegmentKey) -> Option<&Shown> {
        self.list.iter().find(|shown| shown.key == key)
    }
}

/// Whether a part of a file is a program, listed or not.
#[must_use]
pub fn is_program(part: &Part) -> bool {
    part.segment().is_some_and(|segment| kind_of(segment.kind()).is_some())
}

fn kind_of(segment: SegType) -> Option<ProgramKind> {
    ProgramKind::ALL.into_iter().map(|(kind, _, _)| kind).find(|kind| segment_type(*kind) == segment)
}

/// The name of a program that was given none: place in the file, and what it is for where the header says so.
fn given_none(snap: &Snap, part: &Part, kind: ProgramKind) -> String {
    let payload = part.segment().map_or(&[][..], |segment| segment.payload_of(snap.view.bytes()));
    let what = match kind {
        ProgramKind::Kernel => Kernel::parse(payload).ok().map(|kernel| kernel.header.kind_name()),
        ProgramKind::Ebpf => Program::parse(payload).ok().map(|program| program.type_name()),
        ProgramKind::Wasm => Wasm::parse(payload).ok().map(|wasm| wasm.role_name()),
    };
    entry::default_name(u64::from(part.key.entry) + 1, what.unwrap_or_default())
}

/// Where the image lies in the file: the payload without header, command line and type information. The whole payload
/// where the header makes no sense.
#[must_use]
pub fn image_range(snap: &Snap, part: &Part, kind: ProgramKind) -> Range<u64> {
    let Some(segment) = part.segment() else { return part.raw.start..part.raw.start };
    let payload = segment.payload_of(snap.view.bytes());
    let image = match kind {
        ProgramKind::Kernel => Kernel::parse(payload).map(|kernel| kernel.image).ok(),
        ProgramKind::Ebpf => Program::parse(payload).map(|program| program.program).ok(),
        ProgramKind::Wasm => Wasm::parse(payload).map(|wasm| wasm.bytecode).ok(),
    };
    let inside = image.and_then(|image| {
        let start = (image.as_ptr() as usize).checked_sub(payload.as_ptr() as usize)? as u64;
        let end = start.checked_add(image.len() as u64)?;
        (end <= payload.len() as u64).then_some(start..end)
    });
    match inside {
        Some(range) => segment.payload.start + range.start..segment.payload.start + range.end,
        None => segment.payload.clone(),
    }
}

const BPF: &str = "bpf";
const WASM32: &str = "wasm32";

/// The machine that a program is for.
#[must_use]
pub fn arch(snap: &Snap, part: &Part) -> Option<&'static str> {
    let segment = part.segment()?;
    match segment.kind() {
        SegType::KERNEL => {
            let payload = segment.payload_of(snap.view.bytes());
            Kernel::parse(payload).ok().map(|kernel| kernel.header.arch_name())
        }
        SegType::EBPF => Some(BPF),
        SegType::WASM => Some(WASM32),
        _ => None,
    }
}

/// What a payload of one of the rarer types says, for `info.json`.
///
/// # Errors
/// Why it cannot be decoded.
pub fn info(object: &mut Map<String, Value>, segment: &Segment, payload: &[u8]) -> Result<(), String> {
    let mut set = |key: &str, value: Value| {
        object.insert(key.into(), value);
    };
    match segment.kind() {
        SegType::KERNEL => {
            let kernel = Kernel::parse(payload).map_err(|error| error.to_string())?;
            let header = &kernel.header;
            set("arch", header.arch_name().into());
            set("kernel_type", header.kind_name().into());
            set("flags", header.flag_names().into());
            set("min_memory_mb", header.min_memory_mb.into());
            set("vcpus", header.vcpu_count.into());
            set("image_size", header.image_size.into());
            set("api_transport", header.transport_name().into());
            set("api_port", header.api_port.into());
            set("api_version", header.api_version.into());
            set("image_hash", hex(&header.image_hash));
            set("integrity", kernel.integrity().word().into());
            set("cmdline", String::from_utf8_lossy(kernel.cmdline).into_owned().into());
            if let Some(binding) = &kernel.binding {
                set(
                    "binding",
                    json!({"version": binding.version, "manifest_root_hash": hex(&binding.manifest_root_hash)}),
                );
            }
        }
        SegType::EBPF => {
            let program = Program::parse(payload).map_err(|error| error.to_string())?;
            set("arch", BPF.into());
            set("program_type", program.type_name().into());
            set("attach_type", program.attach_name().into());
            set("max_dimension", program.max_dimension.into());
            set("form", format!("{:?}", program.form()).to_lowercase().into());
            set("image_size", program.program.len().into());
            set("image_hash", hex(&program.program_hash));
            set("integrity", program.integrity().word().into());
            // The header counts an object's bytes as instructions, and nothing of what is in it.
            if let Some(contents) = program.contents() {
                set("sections", contents.sections.into());
                set("instructions", contents.instructions.into());
                if let Some(maps) = contents.maps {
                    set("maps", maps.into());
                }
                set("btf_size", contents.btf_size.into());
            } else if program.form() == Form::Instructions {
                set("instructions", (program.program.len() / 8).into());
            }
        }
        SegType::WASM => {
            let wasm = Wasm::parse(payload).map_err(|error| error.to_string())?;
            set("arch", WASM32.into());
            set("role", wasm.role_name().into());
            set("target", wasm.target_name().into());
            set("features", wasm.feature_names().into());
            set("exports", wasm.export_count.into());
            set("min_pages", wasm.min_pages.into());
            set("max_pages", wasm.max_pages.into());
            set("image_size", wasm.bytecode.len().into());
            set("image_hash", hex(&wasm.bytecode_hash));
            set("integrity", wasm.integrity().word().into());
        }
        SegType::DASHBOARD => {
            let dashboard = Dashboard::parse(payload).map_err(|error| error.to_string())?;
            set("framework", dashboard.framework_name().into());
            set("files", dashboard.file_count.into());
            set("bundle_size", dashboard.bundle.len().into());
            set("content_hash", hex(&dashboard.content_hash));
            set("integrity", dashboard.integrity().word().into());
        }
        SegType::QUANT => {
            let quant = quant::Quant::parse(payload).map_err(|error| error.to_string())?;
            set("quantiser", quant.kind_name().into());
            set("tier", quant.tier.into());
            set("dimension", quant.dim.into());
        }
        SegType::SKETCH => {
            let sketch = sketch::Sketch::parse(payload).map_err(|error| error.to_string())?;
            set("width", sketch.width.into());
            set("depth", sketch.depth.into());
            set("total_accesses", sketch.total_accesses.into());
        }
        SegType::HOT => {
            let hot = hot::Hot::parse(payload).map_err(|error| error.to_string())?;
            set("dimension", hot.dim.into());
            set("dtype_code", hot.dtype.into());
            set("neighbour_m", hot.neighbour_m.into());
            set("count", hot.entries.len().into());
        }
        SegType::REFCOUNT => {
            let refcount = refcount::Refcount::parse(payload).map_err(|error| error.to_string())?;
            set("width", refcount.width.into());
            set("clusters", refcount.cluster_count.into());
            set("max_refcount", refcount.max_refcount.into());
            set("snapshot_epoch", refcount.snapshot_epoch.into());
        }
        SegType::DELTA => {
            let delta = rvf_format::delta::DeltaHeader::parse(payload).map_err(|error| error.to_string())?;
            set("version", delta.version.into());
            set("encoding", delta.encoding.into());
            set("base_cluster_id", delta.base_cluster_id.into());
            set("affected", delta.affected_count.into());
            set("delta_size", delta.delta_size.into());
        }
        _ => set("decoded", false.into()),
    }
    Ok(())
}

/// What a MANIFEST payload of the other writer says; `None` when it is not one.
#[must_use]
pub fn level0_info(object: &mut Map<String, Value>, payload: &[u8]) -> Option<()> {
    if !level0::looks_like(payload) {
        return None;
    }
    let (page, records) = level0::decode(payload).ok()?;
    let mut set = |key: &str, value: Value| {
        object.insert(key.into(), value);
    };
    set("layout", "level0".into());
    set("epoch", page.epoch.into());
    set("dimension", page.dimension.into());
    set("total_vectors", page.total_vectors.into());
    set("profile_id", page.profile_id.into());
    set("crc_ok", page.crc_ok.into());
    set("records", records.len().into());
    set("file_id", hex(&page.identity.file_id));
    Some(())
}
