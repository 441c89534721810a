//! What can be in the tree. A node is a small typed key; everything about it is found through the store it belongs to.

use crate::branches::{Link, Member};

/// One store of the mount: 0 for the only one, or its number in the directory that is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub u32);

/// One entry of `branches/`; 0 is `main`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BranchNo(pub u32);

/// One query session of a store; 0 is `query/` itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// One state of a store. Files that are a view of the whole store get a new inode with every state, so that the
/// kernel's page cache never mixes two of them and an open file stays what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateNo(pub u64);

/// One entry of `segments/`: its place and a fingerprint of its header, so that a rewritten file has other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentKey {
    /// Place among all entries of the layout, gaps included, from 0.
    pub entry: u32,
    /// Fingerprint of offset, length and header bytes.
    pub tag: u64,
}

/// The four views of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SegmentFile {
    /// Header fields as text.
    Header,
    /// The payload's bytes.
    Payload,
    /// Header, payload and padding as they lie in the file.
    Raw,
    /// What the payload says, as JSON.
    Info,
}

impl SegmentFile {
    /// All of them, with their names, in listing order.
    pub const ALL: [(Self, &'static str); 4] =
        [(Self::Header, "header"), (Self::Info, "info.json"), (Self::Payload, "payload"), (Self::Raw, "raw")];
}

/// The files of a query session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueryFile {
    /// Takes requests.
    In,
    /// Results as text.
    Out,
    /// Results as JSON.
    OutJson,
    /// Ids as NumPy `[q, k]`.
    OutIds,
    /// Distances as NumPy `[q, k]`.
    OutDistances,
    /// One of the session's defaults.
    Setting(Setting),
    /// Why the last request failed.
    Error,
}

/// A default of a query session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Setting {
    /// Neighbours wanted.
    K,
    /// Width of the graph walk.
    Ef,
    /// Metadata condition.
    Filter,
    /// Exhaustive search.
    Exact,
    /// Deadline.
    TimeoutMs,
}

impl QueryFile {
    /// All of them, with their names, in listing order.
    pub const ALL: [(Self, &'static str); 11] = [
        (Self::In, "in"),
        (Self::Out, "out"),
        (Self::OutJson, "out.json"),
        (Self::OutIds, "out.ids.npy"),
        (Self::OutDistances, "out.distances.npy"),
        (Self::Setting(Setting::K), "k"),
        (Self::Setting(Setting::Ef), "ef"),
        (Self::Setting(Setting::Filter), "filter"),
        (Self::Setting(Setting::Exact), "exact"),
        (Self::Setting(Setting::TimeoutMs), "timeout_ms"),
        (Self::Error, "error"),
    ];

    /// The file's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(file, _)| *file == self).map_or("", |(_, name)| name)
    }
}

/// The directories that take dropped files, each with its `error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The store directory itself.
    Top,
    /// `ingest/`.
    Ingest,
    /// `vectors/`.
    Vectors,
    /// `metadata/`.
    Metadata,
    /// `kernel/`, `ebpf/` or `wasm/`.
    Programs(ProgramKind),
}

/// The embedded programs that have a directory of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProgramKind {
    /// `kernel/NAME.bin`, and `kernel/NAME` which boots it.
    Kernel,
    /// `ebpf/NAME.o`, and `ebpf/NAME` which loads it.
    Ebpf,
    /// `wasm/NAME.wasm`, and `wasm/NAME` which runs it.
    Wasm,
}

impl ProgramKind {
    /// All of them, with directory and suffix.
    pub const ALL: [(Self, &'static str, &'static str); 3] =
        [(Self::Kernel, "kernel", "bin"), (Self::Ebpf, "ebpf", "o"), (Self::Wasm, "wasm", "wasm")];

    /// The directory's name.
    #[must_use]
    pub const fn directory(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Ebpf => "ebpf",
            Self::Wasm => "wasm",
        }
    }

    /// What an image's name ends in, without the dot.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Kernel => "bin",
            Self::Ebpf => "o",
            Self::Wasm => "wasm",
        }
    }

    /// What an image is.
    #[must_use]
    pub const fn image(self) -> &'static str {
        match self {
            Self::Kernel => "a kernel image",
            Self::Ebpf => "an eBPF object",
            Self::Wasm => "a WASM module",
        }
    }
}

/// A directory or file of one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Item {
    /// The store directory.
    Top,
    /// `vectors/`.
    Vectors,
    /// `metadata/`.
    Metadata,
    /// `segments/`.
    Segments,
    /// One directory in `segments/`.
    Segment(SegmentKey),
    /// `query/` or a private session in it.
    Query(SessionId),
    /// `ingest/`.
    Ingest,
    /// `witness/`.
    Witness,
    /// `models/`.
    Models,
    /// `signatures/`.
    Signatures,
    /// `kernel/`, `ebpf/` or `wasm/`.
    Programs(ProgramKind),

    /// `branches/`.
    Branches,
    /// A directory in `branches/`.
    Branch(BranchNo),
    /// `.stores/`.
    Stores,
    /// A regular file of a branch, in one state of it.
    Member(BranchNo, Member, StateNo),
    /// A symbolic link of a branch.
    Link(BranchNo, Link),
    /// A file that is being copied into a branch to be.
    Part(u64),
    /// A link that was copied into it.
    PartLink(u64),
    /// `diff.jsonl` of a branch's store.
    Diff,

    /// `README`.
    Readme,
    /// `status`.
    Status,
    /// `status.json`.
    StatusJson,
    /// `lineage`.
    Lineage,
    /// `file.rvf` of one state.
    Whole(StateNo),
    /// `vectors.npy` of one state.
    VectorsNpy(StateNo),
    /// `ids.npy` of one state.
    IdsNpy(StateNo),
    /// `metadata.jsonl` of one state.
    MetadataJsonl(StateNo),
    /// `vectors/ID`.
    Vector(u64),
    /// `metadata/ID.json`.
    MetadataJson(u64),
    /// A file in a segment's directory.
    SegmentFile(SegmentKey, SegmentFile),
    /// A file of a query session.
    QueryFile(SessionId, QueryFile),
    /// A file that is being dropped, or the receipt of one.
    Draft(u64),
    /// `witness/log.jsonl`.
    WitnessLog,
    /// `witness/head`.
    WitnessHead,
    /// `witness/verify`.
    WitnessVerify,
    /// A payload in `models/`.
    Model(SegmentKey),
    /// A record in `signatures/`.
    Signature(SegmentKey),
    /// An image in `kernel/`, `ebpf/` or `wasm/`.
    Program(SegmentKey, ProgramKind),
    /// The executable entry beside it.
    Exec(SegmentKey, ProgramKind),
    /// `ctl`.
    Ctl,
    /// `events`.
    Events,
    /// An `error` file.
    Error(Place),
}

impl Item {
    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(self) -> bool {
        matches!(
            self,
            Self::Top
                | Self::Vectors
                | Self::Metadata
                | Self::Segments
                | Self::Segment(_)
                | Self::Query(_)
                | Self::Ingest
                | Self::Witness
                | Self::Models
                | Self::Signatures
                | Self::Programs(_)
                | Self::Branches
                | Self::Branch(_)
                | Self::Stores
        )
    }

    /// Whether it is a symbolic link.
    #[must_use]
    pub fn is_link(self) -> bool {
        matches!(self, Self::Link(..) | Self::PartLink(_))
    }
}

/// The files of a mounted directory itself. They are found by name and not listed, so that a listing is the stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Beside {
    /// `README`.
    Readme,
    /// `error`.
    Error,
}

/// Anything that has an inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Node {
    /// The directory of stores, when a directory is mounted.
    Root,
    /// A file in it.
    Beside(Beside),
    /// A part of one store.
    In(StoreId, Item),
}

impl Node {
    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(self) -> bool {
        match self {
            Self::Root => true,
            Self::Beside(_) => false,
            Self::In(_, item) => item.is_dir(),
        }
    }

    /// Whether it is a symbolic link.
    #[must_use]
    pub fn is_link(self) -> bool {
        matches!(self, Self::In(_, item) if item.is_link())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_small_enough_to_copy() {
        assert!(size_of::<Node>() <= 40, "{}", size_of::<Node>());
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = QueryFile::ALL.iter().map(|(_, name)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), QueryFile::ALL.len());
        assert_eq!(QueryFile::Setting(Setting::TimeoutMs).name(), "timeout_ms");
    }
}
