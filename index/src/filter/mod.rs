//! Metadata filters: text to expression, expression to a set of row ordinals.
//!
//! # Languages
//! [`parse`] reads two forms and tells them apart by the first character that is not blank.
//!
//! **SQL-like text**, what people write:
//! `genre = 'sci-fi' AND (year > 2020 OR tag IN ('a','b')) AND NOT draft`.
//! - Comparisons `= == != <> < <= > >=`, `[NOT] BETWEEN a AND b` (both ends included), `[NOT] IN (..)`,
//!   `[NOT] LIKE 'pat'` and `ILIKE` (`%` any text, `_` one character, `\` takes the next one literally; ILIKE ignores case),
//!   `EXISTS field` or `field EXISTS`, `IS [NOT] NULL`, `IS [NOT] TRUE`, a bare field for a boolean one,
//!   `AND OR NOT`, parentheses, `TRUE`, `FALSE`. Keywords in any case. `OR` binds weakest, `NOT` strongest.
//! - Field names: letters, digits, `_` and `.`; anything else (and keywords) in double quotes, `"` doubled inside.
//!   `field.7` without quotes means the field with id 7, whatever its name; `"field.7"` is looked up as a name first.
//! - Text in single quotes, `'` doubled inside. Numbers with sign, fraction and exponent.
//!   A number may be typed, `5::u64`, `-5::i64`, `5::f64`: then only values of that very type compare.
//!
//! **JSON**, when the text starts with `{`: the reference's `{"eq":{"field":3,"value":{"u64":5}}}` with `and`, `or`, `not`, and the tree
//! form `{"op":"eq","field":"section","value":"python"}` with `args`. See the `json` notes below.
//!
//! # Meaning
//! Every operator gives true or false, never "unknown", as the reference has it:
//! - A field that is missing, null or a byte string: `!=` is true, every other comparison is false.
//! - Values of different kinds (text, number, boolean): `=` is false, `!=` is true, `<` and friends are false.
//! - `NOT` is plain negation, so `NOT year > 2020` and `tag NOT IN ('a')` are true for a row without the field.
//! - `IS NULL`: missing or null. `EXISTS`: the record carries the field, be it null.
//! - Text compares by its UTF-8 bytes, false sorts before true, an empty AND is true, an empty OR is false.
//! - Numbers of SQL-like text compare by numeric value across i64, u64 and f64, exactly: 9007199254740993 is not 9007199254740992.0.
//!   NaN equals nothing and has no order.
//!
//! # JSON notes
//! In the reference's form numbers are strictly typed as there: a bare number is u64, or i64 when negative, or f64 with a fraction
//! or exponent, and compares only with stored values of that type. `field` is a number, cut to its low 16 bits as the reference
//! does. When one object holds several operators, the first of eq, ne, lt, le, gt, ge, and, or, not counts.
//! Beyond the reference, `field` may be a name (bare numbers then compare by value, as in SQL-like text), and
//! `in` (`value`: array), `range` (`low`, `high`: low <= x < high), `like`, `ilike`, `exists`, `is_null` are understood.
//! The tree form knows the same operators in `op`; its bare numbers compare by value.
//!
//! # Evaluation
//! [`Columns`] holds one inverted index per field: sorted distinct values, and for each the rows that carry it. A predicate on a
//! field becomes ranges of value codes by binary search; predicates on one field combine as ranges before any row is touched;
//! only then are rows marked in a [`Bitmap`](crate::Bitmap). [`matches()`] evaluates the same expression on one record
//! without an index, for rows newer than the columns. [`FilterCache`] keeps the sets of recent filters.
//!
//! ```
//! use rvf_index::filter::{ColumnsBuilder, Value, parse};
//!
//! let mut builder = ColumnsBuilder::new(3);
//! builder.field(1, "genre");
//! builder.field(2, "year");
//! builder.set(0, 1, Value::String("sci-fi".into()))?;
//! builder.set(0, 2, Value::U64(2021))?;
//! builder.set(1, 1, Value::String("crime".into()))?;
//! let columns = builder.build();
//! let expr = parse("genre = 'sci-fi' AND year BETWEEN 2020 AND 2022")?;
//! assert_eq!(columns.eval(&expr)?.iter().collect::<Vec<_>>(), [0]);
//! # Ok::<(), rvf_index::filter::FilterError>(())
//! ```

mod builder;
mod bytes;
mod cache;
mod codes;
mod columns;
mod error;
mod eval;
mod expr;
mod json;
mod lexer;
mod like;
mod sql;
mod value;

pub use builder::ColumnsBuilder;
pub use cache::FilterCache;
pub use columns::Columns;
pub use error::FilterError;
pub use expr::{CompareOp, Expr, FieldRef, matches};
pub use value::{Literal, Num, Value};

/// Longest filter text accepted, in bytes. Bounds the memory of parsing.
pub const MAX_TEXT_BYTES: usize = 256 * 1024;
/// Deepest nesting of AND, OR, NOT and parentheses. The reference's JSON reader stops at 128 too.
pub const MAX_DEPTH: usize = 128;
/// Most predicates in one filter. Bounds the time of one evaluation.
pub const MAX_PREDICATES: usize = 4096;
/// Longest LIKE pattern, in bytes.
pub const MAX_PATTERN_BYTES: usize = 1024;

/// Reads a filter in SQL-like text or, when it starts with `{`, in JSON (see the [module](self) for both).
///
/// # Errors
/// All of the caller family: [`FilterError::Syntax`] and [`FilterError::Json`] name the place and what was expected;
/// [`FilterError::TooLong`], [`FilterError::TooDeep`], [`FilterError::TooManyPredicates`] name the limit.
pub fn parse(text: &str) -> Result<Expr, FilterError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(FilterError::TooLong { bytes: text.len() });
    }
    if text.trim_start().starts_with('{') { json::parse(text) } else { sql::parse(text) }
}
