//! What users write and read, as bytes: parsers for requests and dropped files, renderers for answers.
//!
//! Nothing here knows a store, a file or a clock: every function takes a byte slice and the store's dimension
//! and gives plain values back, or a [`DataError`] that names the place and the way out. Memory is bounded by a
//! small multiple of the input's length, never by a count that the input claims.
//!
//! | module | bytes |
//! | --- | --- |
//! | [`npy`] | NumPy arrays, read (f2 f4 f8 and integers, both byte orders, both memory orders) and written |
//! | [`text`] | vectors as text lines, and the fixed-width form of `vectors/ID` |
//! | [`json_rows`] | `{"id", "vector", "metadata"}` rows, one array or one a line; metadata records |
//! | [`csv_rows`] | a header with `id`, `v0`...; every other column is metadata |
//! | [`fvecs`] | the TEXMEX form: an i32 dimension before each row |
//! | [`rows`] | one door to all of these: [`rows::Format`], [`rows::read`] |
//! | [`request`] | a query request in any form, and whether its bytes are complete |
//! | [`render`] | the answers: `out`, `out.json`, `out.ids.npy`, `out.distances.npy` |

pub mod columns;
pub mod csv_rows;
pub mod error;
pub mod fvecs;
pub mod json;
pub mod json_rows;
pub mod npy;
pub mod number;
pub mod render;
pub mod request;
pub mod rows;
pub mod text;
pub mod value;

pub use error::{DataError, Kind, Place};
pub use value::{FieldValue, Fields};

/// Largest dimension a store can have: the file keeps it in 16 bits.
pub const MAX_DIMENSION: usize = 65_535;
