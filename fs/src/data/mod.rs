//! What users write and read, as bytes: parsers for requests and dropped files, renderers for answers.
//!
//! Nothing here knows a store, a file or a clock: every function takes a byte slice and the store's dimension
//! and gives plain values back, or a [`DataError`] that names the place and the way out. Memory is bounded by a
//! small multiple of the input's length, never by a count that the input claims.
//!
//! | module | bytes |
//! | --- | --- |
//! | [`json_rows`] | `{"id", "vector", "metadata"}` rows, one array or one a line; metadata records |
//! | [`csv_rows`] | a header with `id`, `v0`...; every other column is metadata |
//! | [`fvecs`] | the TEXMEX form: an i32 dimension before each row |
//! | [`rows`] | one door to all of these: [`rows::Format`], [`rows::read`] |
//!
//! Requests, answers, NumPy arrays, JSON text and numbers are those of [`rvf_cow::query`].

pub mod columns;
pub mod csv_rows;
pub mod fvecs;
pub mod json_rows;
pub mod rows;

pub use rvf_cow::query::{
    DataError, FieldValue, Fields, Kind, MAX_DIMENSION, Place, error, json, npy, number, render, request,
    text, value,
};
