//! Vectors as text.
//!
//! Read: numbers separated by commas, blanks or both, one vector a line, empty lines passed over; or JSON
//! arrays, `[1, 2]`, `[[1, 2], [3, 4]]`, or one array after another. Written: the fixed-width line of
//! `vectors/ID`, whose length depends on the dimension alone.

use super::error::{DataError, Kind, Place, printable};
use super::json::Scanner;
use super::number::{FIXED_WIDTH, parse_f32, write_fixed};

/// Bytes of a vector's line: each number, and a comma or the newline after it.
#[must_use]
pub fn vector_text_len(dim: usize) -> u64 {
    (dim as u64) * (FIXED_WIDTH as u64 + 1)
}

/// Appends `v0,v1,...` and a newline, [`vector_text_len`] bytes. `row` is little-endian float32, any alignment;
/// bytes after the last whole number are passed over.
pub fn write_vector_text(row: &[u8], out: &mut Vec<u8>) {
    let (numbers, _) = row.as_chunks::<4>();
    let start = out.len();
    out.resize(start + numbers.len() * (FIXED_WIDTH + 1), b',');
    let (cells, _) = out.get_mut(start..).unwrap_or_default().as_chunks_mut::<{ FIXED_WIDTH + 1 }>();
    for (cell, number) in cells.iter_mut().zip(numbers) {
        if let Some(text) = cell.first_chunk_mut::<FIXED_WIDTH>() {
            write_fixed(f32::from_le_bytes(*number), text);
        }
    }
    if let Some(last) = out.get_mut(start..).and_then(<[u8]>::last_mut) {
        *last = b'\n';
    }
}

/// Reads vectors in any text form; appends them to `out` row-major and returns how many there were.
///
/// # Errors
/// A line that is not numbers, has another count than `dim`, or holds a number that is not finite, each with
/// line and column or component; no vector at all.
pub fn parse_vectors(bytes: &[u8], dim: usize, out: &mut Vec<f32>) -> Result<usize, DataError> {
    let body = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let first = body.iter().find(|b| !b.is_ascii_whitespace());
    let count = match first {
        None => 0,
        Some(b'[') => parse_arrays(bytes, dim, out)?,
        Some(_) => parse_lines(body, dim, out)?,
    };
    if count == 0 {
        return Err(DataError::new(
            Kind::Empty,
            Place::Whole,
            "no numbers",
            format!("give {dim} numbers, separated by commas or blanks"),
        ));
    }
    Ok(count)
}

/// Reads exactly one vector in any text form.
///
/// # Errors
/// As [`parse_vectors`]; more than one vector.
pub fn parse_one(bytes: &[u8], dim: usize) -> Result<Vec<f32>, DataError> {
    let mut out = Vec::with_capacity(dim);
    match parse_vectors(bytes, dim, &mut out)? {
        1 => Ok(out),
        n => Err(DataError::new(
            Kind::Shape,
            Place::Whole,
            format!("{n} vectors where one belongs"),
            "write one line",
        )),
    }
}

fn parse_lines(bytes: &[u8], dim: usize, out: &mut Vec<f32>) -> Result<usize, DataError> {
    let mut vectors = 0;
    let mut line = 1u64;
    let mut line_start = 0;
    let mut at = 0;
    let mut count = 0usize;
    let mut comma = false;
    loop {
        let byte = bytes.get(at).copied();
        match byte {
            Some(b' ' | b'\t' | b'\r' | 0x0b | 0x0c) => at += 1,
            Some(b'\n') | None => {
                if comma {
                    return Err(missing(line, at - line_start));
                }
                if count > 0 {
                    if count != dim {
                        return Err(DataError::dimension(Place::Line { line, column: 1 }, count, dim));
                    }
                    vectors += 1;
                    count = 0;
                }
                if byte.is_none() {
                    return Ok(vectors);
                }
                at += 1;
                line += 1;
                line_start = at;
            }
            Some(b',') => {
                if comma || count == 0 {
                    return Err(missing(line, at - line_start));
                }
                comma = true;
                at += 1;
            }
            Some(_) => {
                let rest = bytes.get(at..).unwrap_or_default();
                let parsed = parse_f32(rest).filter(|(_, n)| ends_number(rest.get(*n)));
                let Some((value, used)) = parsed else {
                    return Err(not_number(rest, line, at - line_start));
                };
                if !value.is_finite() {
                    let text = String::from_utf8_lossy(rest.get(..used).unwrap_or_default()).into_owned();
                    let mut e = DataError::not_finite(
                        Place::Line { line, column: 1 + (at - line_start) as u64 },
                        &text,
                    );
                    e.problem = format!("component {count}, {}", e.problem);
                    return Err(e);
                }
                // A line that is too long is counted for the message, not kept.
                if count < dim {
                    out.push(value);
                }
                count += 1;
                comma = false;
                at += used;
            }
        }
    }
}

#[inline]
fn ends_number(next: Option<&u8>) -> bool {
    next.is_none_or(|b| *b == b',' || b.is_ascii_whitespace() || *b == 0x0b)
}

#[cold]
fn missing(line: u64, column: usize) -> DataError {
    DataError::new(
        Kind::Syntax,
        Place::Line { line, column: 1 + column as u64 },
        "a number is missing beside the comma",
        "remove the extra comma",
    )
}

#[cold]
fn not_number(rest: &[u8], line: u64, column: usize) -> DataError {
    let end = rest.iter().position(|b| *b == b',' || b.is_ascii_whitespace()).unwrap_or(rest.len()).min(64);
    let word = String::from_utf8_lossy(rest.get(..end).unwrap_or_default());
    DataError::new(
        Kind::Syntax,
        Place::Line { line, column: 1 + column as u64 },
        format!("`{}` is not a number", printable(&word, 32)),
        "a vector is numbers separated by commas or blanks",
    )
}

fn parse_arrays(bytes: &[u8], dim: usize, out: &mut Vec<f32>) -> Result<usize, DataError> {
    let mut scanner = Scanner::new(bytes);
    let mut vectors = 0;
    while scanner.peek() == Some(b'[') {
        let mut inside = scanner.clone();
        inside.expect(b'[', "`[`")?;
        if inside.peek() == Some(b'[') {
            scanner = inside;
            loop {
                array(&mut scanner, vectors, dim, out)?;
                vectors += 1;
                if !scanner.more(b']')? {
                    break;
                }
            }
        } else if inside.take(b']') {
            return Err(scanner.error("an empty array", format!("give {dim} numbers")));
        } else {
            array(&mut scanner, vectors, dim, out)?;
            vectors += 1;
        }
        // Arrays may follow one another with a comma, a newline or nothing between.
        let comma = scanner.take(b',');
        if comma && scanner.peek() != Some(b'[') {
            return Err(scanner.error("an array is missing after the comma", "remove the comma"));
        }
    }
    scanner.end()?;
    Ok(vectors)
}

/// Takes one array as vector number `index`: the right count, every number finite.
pub(super) fn array(
    s: &mut Scanner<'_>,
    index: usize,
    dim: usize,
    out: &mut Vec<f32>,
) -> Result<(), DataError> {
    let at = s.clone();
    let start = out.len();
    let count = s.floats(out)?;
    if count != dim {
        return Err(DataError::dimension(at.place(), count, dim));
    }
    let numbers = out.get(start..).unwrap_or_default();
    match numbers.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(c) => {
            let place = Place::Row { row: index as u64, component: Some(c as u64), line: None };
            Err(DataError::not_finite(place, &numbers.get(c).copied().unwrap_or_default().to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str, dim: usize) -> Result<(usize, Vec<f32>), String> {
        let mut out = Vec::new();
        let n = parse_vectors(text.as_bytes(), dim, &mut out).map_err(|e| e.to_string())?;
        Ok((n, out))
    }

    #[test]
    fn forms_of_one_vector() {
        for text in [
            "1,2,-3.5",
            "1 2 -3.5\n",
            "1, 2,\t-3.5 \r\n",
            "  1\t2   -3.5",
            "+1,2.0,-35e-1\n\n",
            "[1,2,-3.5]",
            " [1, 2,\n -3.5]\n",
            "[[1,2,-3.5]]",
            "\u{feff}1,2,-3.5\n",
            "+1.00000000e+00,+2.00000000e+00,-3.50000000e+00\n",
        ] {
            assert_eq!(parse(text, 3), Ok((1, vec![1.0, 2.0, -3.5])), "{text:?}");
        }
    }

    #[test]
    fn forms_of_several() {
        for text in
            ["1,2\n3,4\n", "1 2\n\n3 4", "[[1,2],[3,4]]", "[1,2]\n[3,4]", "[1,2],[3,4]", "[[1,2]]\n[3,4]\n"]
        {
            assert_eq!(parse(text, 2), Ok((2, vec![1.0, 2.0, 3.0, 4.0])), "{text:?}");
        }
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let cases = [
            ("", "no numbers; give 2 numbers, separated by commas or blanks"),
            (" \n\n", "no numbers; give 2 numbers, separated by commas or blanks"),
            (
                "1,2\n3\n",
                "line 2, column 1: 1 number where the store's dimension is 2; give 2 numbers a vector",
            ),
            (
                "1,2,3",
                "line 1, column 1: 3 numbers where the store's dimension is 2; give 2 numbers a vector",
            ),
            ("1,,2", "line 1, column 3: a number is missing beside the comma; remove the extra comma"),
            ("1,2,\n", "line 1, column 5: a number is missing beside the comma; remove the extra comma"),
            (",1,2", "line 1, column 1: a number is missing beside the comma; remove the extra comma"),
            (
                "1,2x",
                "line 1, column 3: `2x` is not a number; a vector is numbers separated by commas or blanks",
            ),
            (
                "1;2",
                "line 1, column 1: `1;2` is not a number; a vector is numbers separated by commas or blanks",
            ),
            (
                "hello",
                "line 1, column 1: `hello` is not a number; a vector is numbers separated by commas or blanks",
            ),
            (
                "1,nan",
                "line 1, column 3: component 1, nan is not a finite float32 number; NaN, infinities and numbers beyond \
                 3.4e38 cannot be stored or compared",
            ),
            (
                "[1,1e40]",
                "row 0, component 1: inf is not a finite float32 number; NaN, infinities and numbers beyond 3.4e38 \
                 cannot be stored or compared",
            ),
            (
                "[1,2,3]",
                "line 1, column 1: 3 numbers where the store's dimension is 2; give 2 numbers a vector",
            ),
            ("[1,2", "line 1, column 5: expected `,` or `]`, found the end"),
            ("[]", "line 1, column 1: an empty array; give 2 numbers"),
            ("[1,2] x", "line 1, column 7: `x` after the end of the value; remove what follows"),
            ("[1,\"a\"]", "line 1, column 4: component 1: expected a number, found `\"a\"]`"),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text, 2).unwrap_err(), want, "{text:?}");
        }
        assert!(
            parse_one(b"1,2\n3,4\n", 2).unwrap_err().to_string().starts_with("2 vectors where one belongs")
        );
    }

    #[test]
    fn fixed_width_lines() {
        let row: Vec<u8> = [1.0f32, -0.5].iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut out = b"x".to_vec();
        write_vector_text(&row, &mut out);
        assert_eq!(out, b"x+1.00000000e+00,-5.00000000e-01\n");
        assert_eq!(vector_text_len(2), out.len() as u64 - 1);
        let mut none = Vec::new();
        write_vector_text(&[], &mut none);
        assert!(none.is_empty());
    }

    proptest! {
        #[test]
        fn a_written_line_reads_back_bit_for_bit(values in prop::collection::vec(any::<f32>(), 1..40)) {
            prop_assume!(values.iter().all(|v| v.is_finite()));
            let row: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let mut text = Vec::new();
            write_vector_text(&row, &mut text);
            prop_assert_eq!(text.len() as u64, vector_text_len(values.len()));
            let back = parse_one(&text, values.len()).unwrap();
            let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&back), bits(&values));
        }

        #[test]
        fn any_bytes_end_in_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200), dim in 1usize..5) {
            let mut out = Vec::new();
            let _ = parse_vectors(&bytes, dim, &mut out);
            prop_assert!(out.len() <= bytes.len());
        }
    }
}
