//! Embedded kernel images, WASM modules and dashboards of RVF files: judged and encoded, decoded, measured against their
//! hashes, never executed.
//!
//! A KERNEL payload is a 128-byte header, optionally a 128-byte binding, the image and the command line. Nothing
//! marks which of the two layouts a payload has; its length does, and [`Kernel::parse`] goes by that instead of the
//! reference's test, which takes random image bytes for a binding.
//!
//! Hash fields say little: the reference fills them with an additive fold that anyone can forge
//! ([`Integrity::Fold32`]; what is embedded here gets a SHA3-256 digest), and a binding is recorded, never proven. Only a
//! signature over the segment would be.

mod dashboard;
mod embed;
pub mod entry;
mod error;
mod image;
mod module;
pub mod server;
pub mod vm;
mod wasm;

pub use dashboard::Dashboard;
pub use embed::{Arch, ImageForm, KernelOptions, KernelPayload, MAX_CMDLINE, MAX_KERNEL_BYTES};
pub use entry::{EntryError, ExecEntry, ExecKind};
pub use error::{EmbedError, ImageError};
pub use image::{Binding, Header, Kernel, Layout};
pub use module::{MAX_WASM_BYTES, WasmOptions, WasmPayload};
pub use rvf_format::Integrity;
pub use wasm::Wasm;

/// The query microkernel, a WASM module of our own: built from `wasm/query.c`, which says what it exports.
pub const QUERY_MODULE: &[u8] = include_bytes!("../wasm/query.wasm");
