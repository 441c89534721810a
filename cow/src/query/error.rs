//! The one error of this module: what is wrong, where, and what to do about it.

use std::fmt;

/// Where in the input something is wrong. Lines and columns count from 1, rows, components and bytes from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The input as a whole.
    Whole,
    /// A byte offset of a binary input.
    Byte(u64),
    /// A position in a text; the column counts bytes.
    Line {
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
    },
    /// A named column of one line of a table.
    Cell {
        /// Line on which the record starts, from 1.
        line: u64,
        /// The column's name in the header.
        column: String,
    },
    /// A row of a matrix, and one number in it.
    Row {
        /// Row, from 0.
        row: u64,
        /// Component, from 0; `None` for the row as a whole.
        component: Option<u64>,
        /// The line the row starts on, where the input has lines.
        line: Option<u64>,
    },
    /// A key of a JSON object.
    Key(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => Ok(()),
            Self::Byte(at) => write!(f, "byte {at}: "),
            Self::Line { line, column } => write!(f, "line {line}, column {column}: "),
            Self::Cell { line, column } => write!(f, "line {line}, column `{column}`: "),
            Self::Row { row, component, line } => {
                if let Some(line) = line {
                    write!(f, "line {line}: ")?;
                }
                match component {
                    Some(c) => write!(f, "row {row}, component {c}: "),
                    None => write!(f, "row {row}: "),
                }
            }
            Self::Key(key) => write!(f, "key `{key}`: "),
        }
    }
}

/// What kind of mistake it is; the adapter maps this to an errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The bytes are not in the form they should have.
    Syntax,
    /// Vectors of another dimension than the store's.
    Dimension {
        /// Components found.
        got: usize,
        /// Components the store has.
        want: usize,
    },
    /// A component is NaN, infinite, or too large for a float32.
    NotFinite,
    /// The number of bytes, rows or ids does not fit what the input says elsewhere.
    Shape,
    /// Nothing to do: no rows, no numbers.
    Empty,
    /// Over a stated limit.
    TooLarge,
    /// A form that exists but is not read here (structured arrays, nested metadata).
    Unsupported,
    /// A field has values of types that cannot share one column.
    FieldType,
}

/// A wrong input. Always the caller's: the store is not touched. `Display` is one line: place, problem, mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataError {
    /// What kind of mistake.
    pub kind: Kind,
    /// Where.
    pub place: Place,
    /// What is wrong, one sentence without a period.
    pub problem: String,
    /// How to mend it; empty when the problem says it.
    pub mend: String,
}

impl DataError {
    /// An error of this kind at this place.
    pub fn new(kind: Kind, place: Place, problem: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { kind, place, problem: problem.into(), mend: mend.into() }
    }

    /// A vector of the wrong dimension.
    #[must_use]
    pub fn dimension(place: Place, got: usize, want: usize) -> Self {
        let s = if got == 1 { "" } else { "s" };
        Self::new(
            Kind::Dimension { got, want },
            place,
            format!("{got} number{s} where the store's dimension is {want}"),
            format!("give {want} numbers a vector"),
        )
    }

    /// A component that is not a finite float32; `text` is how it was written.
    #[must_use]
    pub fn not_finite(place: Place, text: &str) -> Self {
        let shown = printable(text, 40);
        Self::new(
            Kind::NotFinite,
            place,
            format!("{shown} is not a finite float32 number"),
            "NaN, infinities and numbers beyond 3.4e38 cannot be stored or compared",
        )
    }
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.place, self.problem)?;
        if self.mend.is_empty() { Ok(()) } else { write!(f, "; {}", self.mend) }
    }
}

impl std::error::Error for DataError {}

/// Text from the input made safe to show: control characters escaped, cut after `limit` characters.
#[must_use]
pub fn printable(text: &str, limit: usize) -> String {
    let mut out = String::with_capacity(text.len().min(limit) + 3);
    for (n, c) in text.chars().enumerate() {
        if n == limit {
            out.push_str("...");
            break;
        }
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Line and column, both from 1, of a byte offset. O(n); called only when an error is made.
#[must_use]
pub fn line_column(bytes: &[u8], offset: usize) -> Place {
    let before = bytes.get(..offset.min(bytes.len())).unwrap_or_default();
    let line = 1 + before.iter().filter(|b| **b == b'\n').count() as u64;
    let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    Place::Line { line, column: 1 + (before.len() - start) as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_read_as_people_count() {
        let text = b"ab\ncde\n";
        let cases = [(0, 1, 1), (2, 1, 3), (3, 2, 1), (6, 2, 4), (7, 3, 1), (99, 3, 1)];
        for (offset, line, column) in cases {
            assert_eq!(line_column(text, offset), Place::Line { line, column }, "offset {offset}");
        }
    }

    #[test]
    fn display_is_one_safe_line() {
        let e = DataError::not_finite(Place::Row { row: 2, component: Some(5), line: Some(3) }, "1e\n99");
        assert_eq!(
            e.to_string(),
            "line 3: row 2, component 5: 1e\\n99 is not a finite float32 number; NaN, infinities and numbers beyond \
             3.4e38 cannot be stored or compared"
        );
        assert_eq!(printable("abcdef", 3), "abc...");
        assert_eq!(
            DataError::dimension(Place::Whole, 1, 4).to_string(),
            "1 number where the store's dimension is 4; give 4 numbers a vector"
        );
    }
}
