//! Queries as bytes: requests read, answers and the store's state written. What a mount, a server and a command line
//! share, so that the same request has the same answer wherever it is asked.
//!
//! The parsers and renderers know no store and no clock: a byte slice and the store's dimension go in, plain values or
//! a [`DataError`] that names the place and the way out come back. Memory is bounded by a small multiple of the
//! input's length, never by a count that the input claims.
//!
//! | module | bytes |
//! | --- | --- |
//! | [`request`] | a query request in any form, and whether its bytes are complete |
//! | [`render`] | the answers: text, JSON, NumPy |
//! | [`answer`] | from a request to its answers, and these as bytes |
//! | [`status`] | the state of a store in numbers and words |
//! | [`npy`] | NumPy arrays, read (f2 f4 f8 and integers, both byte orders, both memory orders) and written |
//! | [`text`] | vectors as text lines, and the form of fixed width |
//! | [`json`], [`number`], [`value`] | JSON text, numbers, metadata values |

pub mod answer;
pub mod error;
pub mod json;
pub mod npy;
pub mod number;
pub mod render;
pub mod request;
pub mod status;
pub mod text;
pub mod value;

pub use error::{DataError, Kind, Place};
pub use value::{FieldValue, Fields};

/// Largest dimension a store can have: the file keeps it in 16 bits.
pub const MAX_DIMENSION: usize = 65_535;
/// Neighbours when nobody says how many.
pub const DEFAULT_K: usize = 10;
