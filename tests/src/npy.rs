//! Reading the NumPy files that tests and benches are given: version 1.0, little-endian, C order.

use std::fs;
use std::io;
use std::path::Path;

/// A NumPy array of one or two dimensions.
#[derive(Debug, Clone)]
pub struct Array<T> {
    /// Rows.
    pub rows: usize,
    /// Columns; 1 for a one-dimensional array.
    pub columns: usize,
    /// `[rows, columns]`, row-major.
    pub values: Vec<T>,
}

impl<T> Array<T> {
    /// One row.
    ///
    /// # Panics
    /// When there is no such row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[T] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }
}

/// Reads `<f2` or `<f4` as `f32`.
///
/// # Errors
/// The file's, or `InvalidData` with what is wrong.
pub fn read_f32(path: &Path) -> io::Result<Array<f32>> {
    let (descr, rows, columns, body) = split(path)?;
    let values: Vec<f32> = match descr.as_str() {
        "<f2" => body.chunks_exact(2).map(|c| half::f16::from_le_bytes([c[0], c[1]]).to_f32()).collect(),
        "<f4" => body.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect(),
        other => return Err(bad(path, &format!("dtype {other}, not <f2 or <f4"))),
    };
    whole(path, rows, columns, values)
}

/// Reads `<u8`.
///
/// # Errors
/// The file's, or `InvalidData` with what is wrong.
pub fn read_u64(path: &Path) -> io::Result<Array<u64>> {
    let (descr, rows, columns, body) = split(path)?;
    if descr != "<u8" {
        return Err(bad(path, &format!("dtype {descr}, not <u8")));
    }
    let values = body
        .chunks_exact(8)
        .map(|c| u64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]))
        .collect();
    whole(path, rows, columns, values)
}

fn whole<T>(path: &Path, rows: usize, columns: usize, values: Vec<T>) -> io::Result<Array<T>> {
    if rows.checked_mul(columns) != Some(values.len()) {
        return Err(bad(path, &format!("{} values for shape ({rows}, {columns})", values.len())));
    }
    Ok(Array { rows, columns, values })
}

fn split(path: &Path) -> io::Result<(String, usize, usize, Vec<u8>)> {
    let mut bytes = fs::read(path)?;
    if !bytes.starts_with(b"\x93NUMPY\x01\x00") || bytes.len() < 10 {
        return Err(bad(path, "not a NumPy 1.0 file"));
    }
    let header_end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    if bytes.len() < header_end {
        return Err(bad(path, "cut in the header"));
    }
    let header = String::from_utf8_lossy(&bytes[10..header_end]).into_owned();
    if !header.contains("'fortran_order': False") {
        return Err(bad(path, "not in C order"));
    }
    let descr = between(&header, "'descr': '", "'").ok_or_else(|| bad(path, "no descr"))?;
    let shape = between(&header, "'shape': (", ")").ok_or_else(|| bad(path, "no shape"))?;
    let sizes: Vec<usize> = shape.split(',').filter_map(|s| s.trim().parse().ok()).collect();
    let (rows, columns) = match sizes[..] {
        [rows] => (rows, 1),
        [rows, columns] => (rows, columns),
        _ => return Err(bad(path, "not of one or two dimensions")),
    };
    let descr = descr.to_owned();
    let body = bytes.split_off(header_end);
    Ok((descr, rows, columns, body))
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let from = text.find(before)? + before.len();
    let rest = text.get(from..)?;
    rest.get(..rest.find(after)?)
}

fn bad(path: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))
}
