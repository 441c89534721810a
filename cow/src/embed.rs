//! Embedding programs: one commit that adds a KERNEL, EBPF or WASM segment, and its name.

use std::collections::{HashMap, HashSet};

use rvf_format::label::{self, Label};
use rvf_format::manifest::DirEntry;
use rvf_format::{SegType, Segment};

use crate::error::Error;
use crate::load::segment_key;
use crate::store::Store;
use crate::types::Event;
use crate::view::View;
use crate::write::{Commit, WITNESS_CHANGE};

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
    /// Its name. A program of that kind and name that is there is replaced.
    pub name: Option<&'a str>,
}

/// A program of a file.
#[derive(Debug, Clone)]
pub struct Embedded<'a> {
    /// Its segment.
    pub segment: &'a Segment,
    /// The name that it was given.
    pub name: Option<String>,
    /// The manifest lists it: it belongs to the store's state.
    pub listed: bool,
}

impl View {
    /// The programs of the file, in file order; not those that were taken out, whose bytes a compaction drops. O(segments).
    #[must_use]
    pub fn programs(&self) -> Vec<Embedded<'_>> {
        let labels = Labels::of(self);
        let programs = self.opened.layout.segments().filter(|segment| PROGRAMS.contains(&segment.kind()));
        let listed = self.listed_offsets();
        let mut found = Vec::new();
        for segment in programs {
            let label = labels.find(segment);
            let listed = listed.contains(&segment.offset);
            if listed || label.is_none_or(|label| !label.removed) {
                found.push(Embedded { segment, name: label.map(|label| label.name.clone()), listed });
            }
        }
        found
    }

    fn listed_offsets(&self) -> HashSet<u64> {
        let located = self.opened.manifest.as_ref();
        located.into_iter().flat_map(|at| &at.manifest.directory).map(|entry| entry.offset).collect()
    }

    /// Where the segments lie that a compaction drops: programs that were taken out, and labels without a program.
    pub(crate) fn removed_programs(&self) -> HashSet<u64> {
        let bytes: &[u8] = self.bytes();
        let kept: Vec<&Segment> = self.programs().into_iter().map(|program| program.segment).collect();
        let offsets: HashSet<u64> = kept.iter().map(|segment| segment.offset).collect();
        let payloads: HashSet<Key> = kept.iter().map(|segment| key(segment)).collect();
        let drops = |segment: &&Segment| {
            if PROGRAMS.contains(&segment.kind()) {
                return !offsets.contains(&segment.offset);
            }
            label::is_label(segment, bytes)
                && Label::parse(segment.payload_of(bytes))
                    .is_ok_and(|label| label.removed || !payloads.contains(&label_key(&label)))
        };
        self.opened.layout.segments().filter(drops).map(|segment| segment.offset).collect()
    }
}

/// What a label and the header of its program agree in: type, length and content hash of the payload.
type Key = (u8, u64, [u8; 16]);

fn key(segment: &Segment) -> Key {
    (segment.header.seg_type, segment.header.payload_len(), segment.header.content_hash)
}

fn label_key(label: &Label) -> Key {
    (label.kind, label.length, label.hash)
}

/// The labels that count.
struct Labels {
    /// By what they speak of, oldest first.
    by_key: HashMap<Key, Vec<Label>>,
    /// Ids of the programs that have these payloads.
    ids: HashMap<Key, HashSet<u64>>,
}

impl Labels {
    fn of(view: &View) -> Self {
        let bytes: &[u8] = view.bytes();
        let layout = &view.opened.layout;
        let mut by_key: HashMap<Key, Vec<Label>> = HashMap::new();
        let located = view.opened.manifest.as_ref();
        let listed = located.into_iter().flat_map(|located| located.manifest.entries_of(SegType::META_IDX));
        for segment in listed.filter_map(|entry| layout.segment_at_offset(entry.offset)) {
            if label::is_label(segment, bytes)
                && let Ok(label) = Label::parse(segment.payload_of(bytes))
            {
                by_key.entry(label_key(&label)).or_default().push(label);
            }
        }
        let mut ids: HashMap<Key, HashSet<u64>> = HashMap::new();
        for segment in layout.segments().filter(|segment| PROGRAMS.contains(&segment.kind())) {
            ids.entry(key(segment)).or_default().insert(segment.header.id());
        }
        Self { by_key, ids }
    }

    /// The newest label of a segment: one of its own id, or else one whose segment is not there any more, as when another
    /// tool gave the segments new ids.
    fn find(&self, segment: &Segment) -> Option<&Label> {
        let key = key(segment);
        let fitting = self.by_key.get(&key)?;
        let own = fitting.iter().rfind(|label| label.segment_id == segment.header.id());
        let there = |label: &&Label| self.ids.get(&key).is_some_and(|ids| ids.contains(&label.segment_id));
        own.or_else(|| fitting.iter().rfind(|label| !there(label)))
    }
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
        if let Some(name) = program.name {
            label::check_name(name).map_err(|why| Error::Invalid { what: format!("{name}: {why}") })?;
        }
        let ((segment_id, offset), view) = self.append_unresolved(|commit, _| {
            if let Some(name) = program.name {
                commit.remove_programs(|other| {
                    other.segment.kind() == kind && other.name.as_deref() == Some(name)
                })?;
            }
            let segment = commit.append(kind, program.payload)?;
            if let Some(name) = program.name {
                commit.append(SegType::META_IDX, &[&Label::of(&segment, name, false).encode()])?;
            }
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

    /// Gives the program in this segment a name, in one commit; one of that kind which has it is replaced.
    /// Returns the epoch.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that cannot be one, or when no program is there; otherwise as [`Store::ingest`].
    pub fn name_program(&self, program: &Segment, name: &str) -> Result<u32, Error> {
        label::check_name(name).map_err(|why| Error::Invalid { what: format!("{name}: {why}") })?;
        let ((), view) = self.append_unresolved(|commit, _| {
            let view = std::sync::Arc::clone(&commit.view);
            let programs = view.programs();
            let offset = program.offset;
            let Some(program) = programs.iter().find(|other| is_same(other.segment, program)) else {
                return Err(no_program(offset));
            };
            let kind = program.segment.kind();
            commit.remove_programs(|other| {
                other.segment.offset != offset
                    && other.segment.kind() == kind
                    && other.name.as_deref() == Some(name)
            })?;
            commit.append(SegType::META_IDX, &[&Label::of(program.segment, name, false).encode()])?;
            let epoch = commit.epoch();
            let action = format!("name:type={},offset={offset},epoch={epoch}", kind.dir_name());
            commit.witness(&action, WITNESS_CHANGE)?;
            let manifest = commit.manifest();
            commit.finish(&manifest)
        })?;
        let epoch = view.epoch();
        self.notify(&Event { kind: "rename", epoch, detail: vec![("name".into(), name.into())] });
        Ok(epoch)
    }

    /// Takes the program in this segment out of the store, in one commit. Its bytes stay in the file until
    /// it is compacted. Returns the epoch.
    ///
    /// # Errors
    /// [`Error::Invalid`] when none is there; otherwise as [`Store::ingest`].
    pub fn remove_program(&self, program: &Segment) -> Result<u32, Error> {
        let (kind, view) = self.append_unresolved(|commit, _| {
            let offset = program.offset;
            let Some(kind) = commit.remove_programs(|other| is_same(other.segment, program))? else {
                return Err(no_program(offset));
            };
            let epoch = commit.epoch();
            let action = format!("remove:type={},offset={offset},epoch={epoch}", kind.dir_name());
            commit.witness(&action, WITNESS_CHANGE)?;
            let manifest = commit.manifest();
            commit.finish(&manifest)?;
            Ok(kind)
        })?;
        let epoch = view.epoch();
        self.notify(&Event { kind: "remove", epoch, detail: vec![("type".into(), kind.dir_name())] });
        Ok(epoch)
    }
}

/// Whether both are the same segment: after a compaction another may begin where one did.
fn is_same(a: &Segment, b: &Segment) -> bool {
    a.kind() == b.kind() && segment_key(a) == segment_key(b)
}

fn no_program(offset: u64) -> Error {
    Error::Invalid { what: format!("that program does not begin at offset {offset} any more") }
}

impl Commit<'_> {
    /// Takes programs out of the directory, and says so in labels. Returns the type of the last one.
    fn remove_programs(&mut self, which: impl Fn(&Embedded<'_>) -> bool) -> Result<Option<SegType>, Error> {
        let view = std::sync::Arc::clone(&self.view);
        let mut found = None;
        for program in view.programs().into_iter().filter(|program| which(program)) {
            let offset = program.segment.offset;
            self.base.directory.retain(|entry| entry.offset != offset);
            let name = program.name.unwrap_or_else(|| "unnamed".into());
            self.append(SegType::META_IDX, &[&Label::of(program.segment, &name, true).encode()])?;
            found = Some(program.segment.kind());
        }
        Ok(found)
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
