//! Embedded programs and models: where their images lie, and what their headers say.

use std::ops::Range;

use rvf_format::{SegType, Segment};
use serde_json::{Map, Value};

use crate::node::ProgramKind;
use crate::snapshot::{Part, Snap};
use crate::store_dir::StoreDir;

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

/// The name of an image in its directory.
#[must_use]
pub fn program_name(part: &Part, kind: ProgramKind) -> String {
    let suffix = ProgramKind::ALL.iter().find(|(at, _, _)| *at == kind).map_or("bin", |(_, _, suffix)| suffix);
    format!("{:06}.{suffix}", part.key.entry + 1)
}

/// Where the image lies in the file: the payload without its header. The whole payload where the header makes no sense.
#[must_use]
pub fn image_range(snap: &Snap, part: &Part, kind: ProgramKind) -> Range<u64> {
    let _ = snap;
    let Some(segment) = part.segment() else { return part.raw.start..part.raw.start };
    let header_len = match kind {
        ProgramKind::Kernel => 128,
        ProgramKind::Ebpf | ProgramKind::Wasm => 64,
    };
    let start = segment.payload.start.saturating_add(header_len).min(segment.payload.end);
    start..segment.payload.end
}

/// What the header of a program says, for `info.json`.
pub fn info(object: &mut Map<String, Value>, dir: &StoreDir, segment: &Segment, payload: &[u8]) {
    let _ = dir;
    if segment.kind() == SegType::QUANT || segment.kind() == SegType::SKETCH {
        object.insert("header".into(), crate::info::hex(payload.get(..64.min(payload.len())).unwrap_or(&[])));
    }
}
