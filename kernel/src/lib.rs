//! Embedded kernel images, WASM modules and dashboards of RVF files: decoded, measured against their hashes, never
//! executed.
//!
//! A KERNEL payload is a 128-byte header, optionally a 128-byte binding, the image and the command line. Nothing
//! marks which of the two layouts a payload has; its length does, and [`Kernel::parse`] goes by that instead of the
//! reference's test, which takes random image bytes for a binding.
//!
//! Hash fields say little: the reference fills them with an additive fold that anyone can forge
//! ([`Integrity::Fold32`]), and a binding is recorded, never proven. Only a signature over the segment would be.

mod dashboard;
mod error;
mod image;
mod wasm;

pub use dashboard::Dashboard;
pub use error::ImageError;
pub use image::{Binding, Header, Kernel, Layout};
pub use rvf_format::Integrity;
pub use wasm::Wasm;
