//! Vector search over rows that stay where they are, in a mapped file.
//!
//! # Vocabulary
//! - *row ordinal*: position in the row table, file order. Everything here speaks ordinals; ids appear in answers only.
//! - *node*: position in the search image, graph order (neighbours close together in memory).
//! - *code*: a row quantised to one signed byte per component, what the walk compares.
//!
//! # Parts
//! - [`exact`]: the distances of the format, bit for bit, and the exact scan. The oracle and the fallback.
//! - [`CodedRows`]: codes of rows that no image has, in memory; a scan of them with the same answers as the exact one.
//! - [`build`] makes a *search image*, one contiguous byte string; [`Image`] searches it in place without loading it.
//! - [`filter`]: metadata expressions to [`Bitmap`]s of row ordinals; [`plan`] chooses between walk and scan.
//!
//! # Guarantees
//! - Reported distances are always those of [`exact::distance`], whatever codes the walk used.
//! - Damaged image bytes can cost recall. They cannot panic, read out of bounds, loop, or change a distance.
//! - An image is derived data: losing it costs time, never vectors.

mod bitmap;
mod build;
mod coded;
mod codes;
mod error;
pub mod exact;
pub mod filter;
mod image;
mod metric;
mod plan;
mod rows;
mod scratch;
mod simd;
mod walk;

pub use bitmap::{Bitmap, Iter as BitmapIter};
pub use build::{BuildParams, NoProgress, Progress, build, from_graph};
pub use coded::{CodedRows, Within};
pub use error::{Family, IndexError};
pub use image::{Csr, Elsewhere, Hidden, Image, ImageBytes, ReferenceGraph, SearchStats};
pub use metric::Metric;
pub use plan::{Plan, SCAN_BELOW_ROWS, default_ef, plan};
pub use rows::{Candidate, Hit, OwnedRows, Rows, sort_key};
pub use scratch::{Scratch, ScratchPool};
pub use simd::isa_name;
