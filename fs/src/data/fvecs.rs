//! `.fvecs`: for each row its dimension as a little-endian i32, then that many float32.

use super::error::{DataError, Kind, Place};

/// Reads all rows, row-major, `dim` numbers each. Numbers that are not finite are left to the caller. O(n).
///
/// # Errors
/// A row of another dimension, or a file that ends inside a row, each with the byte offset and the row.
pub fn parse(bytes: &[u8], dim: usize) -> Result<Vec<f32>, DataError> {
    let stride = 4 + 4 * dim;
    let mut out = Vec::with_capacity(bytes.len() / stride * dim);
    let mut at = 0;
    let mut row = 0u64;
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some((head, body)) = rest.split_first_chunk::<4>() else {
            return Err(cut(at, row, rest.len(), stride));
        };
        let claimed = i32::from_le_bytes(*head);
        if usize::try_from(claimed).ok() != Some(dim) {
            return Err(DataError::new(
                Kind::Dimension { got: usize::try_from(claimed).unwrap_or(0), want: dim },
                Place::Byte(at as u64),
                format!("row {row} says its dimension is {claimed}, the store's is {dim}"),
                "an .fvecs file has a little-endian i32 dimension before each row of float32",
            ));
        }
        let Some(numbers) = body.get(..4 * dim) else {
            return Err(cut(at, row, rest.len(), stride));
        };
        out.extend(numbers.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)));
        at += stride;
        row += 1;
    }
    Ok(out)
}

#[cold]
fn cut(at: usize, row: u64, left: usize, stride: usize) -> DataError {
    DataError::new(
        Kind::Shape,
        Place::Byte(at as u64),
        format!("the file ends inside row {row}: {left} bytes where a row has {stride}"),
        "it was cut short: copy it again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(rows: &[&[f32]]) -> Vec<u8> {
        let mut out = Vec::new();
        for row in rows {
            out.extend_from_slice(&(row.len() as i32).to_le_bytes());
            out.extend(row.iter().flat_map(|v| v.to_le_bytes()));
        }
        out
    }

    #[test]
    fn reads_rows() {
        assert_eq!(parse(&file(&[&[1.0, 2.0], &[3.0, 4.0]]), 2).unwrap(), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(parse(b"", 2).unwrap(), [] as [f32; 0]);
    }

    #[test]
    fn refuses_with_the_place() {
        let good = file(&[&[1.0, 2.0], &[3.0, 4.0]]);
        for n in 1..good.len() {
            assert_eq!(parse(&good[..n], 2).is_ok(), n % 12 == 0, "{n}");
        }
        assert_eq!(
            parse(&good[..20], 2).unwrap_err().to_string(),
            "byte 12: the file ends inside row 1: 8 bytes where a row has 12; it was cut short: copy it again"
        );
        let e = parse(&file(&[&[1.0, 2.0], &[3.0]]), 2).unwrap_err();
        assert!(e.to_string().starts_with("byte 12: row 1 says its dimension is 1, the store's is 2"), "{e}");
        let e = parse(&(-1i32).to_le_bytes(), 2).unwrap_err();
        assert!(e.to_string().contains("dimension is -1"), "{e}");
    }
}
