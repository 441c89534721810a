//! Embedding programs: one commit that adds a KERNEL, EBPF or WASM segment.

use rvf_format::SegType;
use rvf_format::manifest::DirEntry;

use crate::error::Error;
use crate::store::Store;
use crate::types::Event;
use crate::write::WITNESS_CHANGE;

/// The types of segments that hold programs. In a directory the newest of each comes first, see [`Store::embed`].
const PROGRAMS: [SegType; 3] = [SegType::KERNEL, SegType::EBPF, SegType::WASM];

/// Longest payload that the existing tools read.
const MAX_PAYLOAD: u64 = 256 << 20;

/// A program to be embedded, whose payload was judged and put together by the crate that knows its kind.
#[derive(Debug, Clone, Copy)]
pub struct Embedding<'a> {
    /// KERNEL, EBPF or WASM.
    pub kind: SegType,
    /// The payload, in pieces.
    pub payload: &'a [&'a [u8]],
    /// SHA3-256 of the program itself, for the witness.
    pub digest: [u8; 32],
}

/// What embedding led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbedReport {
    /// Id of the new segment.
    pub segment_id: u64,
    /// Where its header lies.
    pub offset: u64,
    /// Epoch of the commit.
    pub epoch: u32,
}

impl Store {
    /// Adds a program in one commit, with a witness. Earlier ones of the type stay, and stay listed, but after it: the
    /// existing tools extract the first that is listed, and what was embedded last is what is meant.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a type that holds no program; [`Error::TooLarge`]; otherwise as [`Store::ingest`].
    pub fn embed(&self, program: &Embedding<'_>) -> Result<EmbedReport, Error> {
        let kind = program.kind;
        if !PROGRAMS.contains(&kind) {
            return Err(Error::Invalid { what: format!("a {} segment holds no program", kind.dir_name()) });
        }
        let len: u64 = program.payload.iter().map(|piece| piece.len() as u64).sum();
        if len > MAX_PAYLOAD {
            let what = format!("a program of {len} bytes with its header; {MAX_PAYLOAD} are the most");
            return Err(Error::TooLarge { what });
        }
        let digest: String = program.digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let ((segment_id, offset), view) = self.append_unresolved(|commit, _| {
            let segment = commit.append(kind, program.payload)?;
            let epoch = commit.epoch();
            let action = format!("embed:type={},bytes={len},sha3={digest},epoch={epoch}", kind.dir_name());
            commit.witness(&action, WITNESS_CHANGE)?;
            let mut manifest = commit.manifest();
            bring_forward(&mut manifest.directory, segment.offset);
            commit.finish(&manifest)?;
            Ok((segment.header.id(), segment.offset))
        })?;
        let epoch = view.epoch();
        let detail = vec![("type".into(), kind.dir_name()), ("bytes".into(), len.to_string())];
        self.notify(&Event { kind: "embed", epoch, detail });
        Ok(EmbedReport { segment_id, offset, epoch })
    }
}

/// Moves the entry of the segment at this offset before all others of its type.
fn bring_forward(directory: &mut Vec<DirEntry>, offset: u64) {
    let Some(from) = directory.iter().position(|entry| entry.offset == offset) else { return };
    let entry = directory.remove(from);
    let to = directory.iter().position(|other| other.seg_type == entry.seg_type).unwrap_or(from);
    directory.insert(to, entry);
}

/// Gives the programs in a rewritten directory the order that they had among their type. `moved` tells where each segment
/// lay and lies now.
pub(crate) fn keep_order(directory: &mut [DirEntry], before: &[DirEntry], moved: &[(u64, u64)]) {
    for kind in PROGRAMS {
        let places: Vec<usize> = (0..directory.len()).filter(|at| directory[*at].kind() == kind).collect();
        let now = |offset| moved.iter().find(|(old, _)| *old == offset).map(|(_, new)| *new);
        let wanted: Vec<u64> = before
            .iter()
            .filter(|entry| entry.kind() == kind)
            .filter_map(|entry| now(entry.offset))
            .collect();
        let mut entries: Vec<DirEntry> = places.iter().map(|at| directory[*at]).collect();
        entries.sort_by_key(|entry| wanted.iter().position(|offset| *offset == entry.offset));
        for (at, entry) in places.into_iter().zip(entries) {
            directory[at] = entry;
        }
    }
}
