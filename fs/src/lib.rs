//! An `.rvf` file as a directory tree, and the programs `rvf-mount` and `rvf`.
//!
//! The tree knows nothing of FUSE: [`tree::Tree`] answers lookups, reads, writes and the rest in terms of inode numbers
//! and handles, and can be driven by a test without a mount. One module, `adapter`, speaks to the kernel.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`node`], [`inode`] | what can be in the tree, and its inode numbers |
//! | [`store_dir`], [`snapshot`] | one store of the mount; one immutable state of it |
//! | [`tree`] | the operations of a filesystem on nodes |
//! | [`handle`] | open files: the state they were opened with, or what is being written |
//! | [`session`] | `query/`: requests in, results out |
//! | [`drafts`], [`embedding`] | `ingest/`, `vectors/`, `metadata/`, `kernel/`, `ebpf/`, `wasm/`: files that become commits |
//! | [`programs`], [`executable`] | embedded programs and the entries that a helper runs |
//! | [`ctl`], [`events`] | verbs, and what happened |
//! | [`indexing`] | indexes built in the background |
//! | [`data`], [`convert`] | what users write and read, as bytes: parsers and renderers; from and to the store's types |
//! | [`mount`] | the life of a mount: options, daemon, signals |
//! | [`cli`] | the offline command `rvf` |
//!
//! An open file keeps the state it was opened with, so what it reads never changes under it. Nothing blocks inside a
//! reply: what takes long runs on a [`pool`] and is answered from there.

pub mod adapter;
pub mod branches;
pub mod cli;
pub mod convert;
pub mod ctl;
pub mod data;
pub mod drafts;
pub mod embedding;
pub mod errno;
pub mod events;
pub mod executable;
pub mod handle;
pub mod indexing;
pub mod info;
pub mod infos;
pub mod inode;
pub mod ioctl;
pub mod json;
pub mod lineage;
pub mod mount;
pub mod node;
pub mod options;
pub mod pool;
pub mod programs;
pub mod readme;
pub mod segments;
pub mod session;
pub mod signatures;
pub mod snapshot;
pub mod source;
pub mod status;
pub mod store_dir;
pub mod sys;
pub mod tree;
pub mod watch;
pub mod witness;
pub mod xattr;
