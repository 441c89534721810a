//! Errors of filters.

use super::{MAX_DEPTH, MAX_PATTERN_BYTES, MAX_PREDICATES, MAX_TEXT_BYTES};
use crate::Family;

/// What is wrong with a filter, with the values given to [`ColumnsBuilder`](super::ColumnsBuilder), or with stored columns.
///
/// Messages read on from a prefix of the caller's, such as `filter: `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// SQL-like text does not follow the grammar.
    #[error("column {column}: expected {expected}, found {found}{}", Hint(.hint))]
    Syntax {
        /// Place in characters from the start of the text, counted from 1.
        column: usize,
        /// What the grammar allows there.
        expected: String,
        /// What stands there.
        found: String,
        /// How to mend it; empty when there is no particular advice.
        hint: String,
    },
    /// A JSON filter is not JSON, or not a filter.
    #[error("{place}: {problem}")]
    Json {
        /// Line and column, or the path of the offending member such as `$.and[1].value`.
        place: String,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// AND, OR, NOT or parentheses nest deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// The text is longer than [`MAX_TEXT_BYTES`].
    #[error("text is {bytes} bytes long, at most {MAX_TEXT_BYTES} are allowed")]
    TooLong {
        /// Bytes given.
        bytes: usize,
    },
    /// There are more than [`MAX_PREDICATES`] predicates.
    #[error("more than {MAX_PREDICATES} predicates; use IN (..) for long lists of values")]
    TooManyPredicates,
    /// A LIKE pattern is longer than [`MAX_PATTERN_BYTES`].
    #[error("LIKE pattern is {bytes} bytes long, at most {MAX_PATTERN_BYTES} are allowed")]
    PatternTooLong {
        /// Bytes given.
        bytes: usize,
    },
    /// A value was set for a row that the columns do not have.
    #[error("metadata row {row} does not exist, there are {rows} rows")]
    Row {
        /// Row ordinal given.
        row: u32,
        /// Number of rows of the columns.
        rows: u32,
    },
    /// The distinct text of one field does not fit an index.
    #[error("distinct values of metadata field {field} exceed 4 GiB and cannot be indexed")]
    FieldTooLarge {
        /// Id of the field.
        field: u16,
    },
    /// Bytes given to [`Columns::from_bytes`](super::Columns::from_bytes) are not stored columns of a known version.
    #[error("stored metadata columns at byte {offset}: {what}")]
    Corrupt {
        /// Offset of the damage inside the bytes.
        offset: u64,
        /// What is wrong.
        what: String,
    },
}

impl FilterError {
    /// The family of the error.
    pub fn family(&self) -> Family {
        match self {
            Self::Corrupt { .. } => Family::Corruption,
            _ => Family::Caller,
        }
    }
}

/// Prints advice after a semicolon, or nothing.
struct Hint<'a>(&'a String);

impl std::fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; {}", self.0) }
    }
}
