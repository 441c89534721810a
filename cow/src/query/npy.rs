//! NumPy's array file: magic, version, a header that is a Python dictionary, then the numbers.
//!
//! Versions 1, 2 and 3 are read; version 1 is written, byte for byte as NumPy writes it (64-byte aligned, with
//! its room for the first axis to grow), so `np.load(path, mmap_mode='r')` works. The shape must account for
//! every byte that follows the header: a file that says otherwise is refused with both sizes.
//!
//! Source: NEP 1 and numpy/lib/_format_impl.py.

use super::error::{DataError, Kind, Place, printable};
use half::f16;
use half::slice::HalfFloatSliceExt;

/// First bytes of every NumPy file.
pub const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Longest header that is read, in bytes. NumPy's own are under 200.
const MAX_HEADER: usize = 1 << 16;

/// An element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are NumPy's: kind and width")]
pub enum Dtype {
    F16,
    F32,
    F64,
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
}

impl Dtype {
    /// Bytes of one element.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::F16 | Self::U16 | Self::I16 => 2,
            Self::F32 | Self::U32 | Self::I32 => 4,
            Self::F64 | Self::U64 | Self::I64 => 8,
        }
    }

    /// NumPy's description, little-endian, as `<f4`.
    #[must_use]
    pub fn descr(self) -> &'static str {
        match self {
            Self::F16 => "<f2",
            Self::F32 => "<f4",
            Self::F64 => "<f8",
            Self::U8 => "|u1",
            Self::U16 => "<u2",
            Self::U32 => "<u4",
            Self::U64 => "<u8",
            Self::I8 => "|i1",
            Self::I16 => "<i2",
            Self::I32 => "<i4",
            Self::I64 => "<i8",
        }
    }

    fn parse(descr: &str) -> Option<(Self, bool)> {
        let (order, code) = descr.split_at_checked(1)?;
        let big = match order {
            "<" | "|" => false,
            ">" => true,
            "=" => cfg!(target_endian = "big"),
            _ => return None,
        };
        let dtype = match code {
            "f2" => Self::F16,
            "f4" => Self::F32,
            "f8" => Self::F64,
            "u1" => Self::U8,
            "u2" => Self::U16,
            "u4" => Self::U32,
            "u8" => Self::U64,
            "i1" => Self::I8,
            "i2" => Self::I16,
            "i4" => Self::I32,
            "i8" => Self::I64,
            _ => return None,
        };
        Some((dtype, big))
    }
}

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Element type.
    pub dtype: Dtype,
    /// Elements are big-endian.
    pub big_endian: bool,
    /// Column-major.
    pub fortran: bool,
    /// Shape; empty for a single number.
    pub shape: Vec<usize>,
    /// Bytes before the data.
    pub header_len: usize,
    /// Bytes of data that the shape accounts for.
    pub data_len: usize,
}

impl Header {
    /// Rows, when the data are rows of `dim` float32 just as memory holds them: little-endian, row-major.
    #[must_use]
    pub fn plain_rows(&self, dim: usize) -> Option<usize> {
        let plain =
            self.dtype == Dtype::F32 && !self.big_endian && !self.fortran && cfg!(target_endian = "little");
        match self.shape.as_slice() {
            [n, d] if plain && *d == dim => Some(*n),
            _ => None,
        }
    }
}

/// What the first bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prefix {
    /// More bytes are needed before the header is whole.
    Partial,
    /// The header.
    Header(Header),
}

fn bad(problem: impl Into<String>) -> DataError {
    DataError::new(Kind::Syntax, Place::Whole, problem, "write the file with numpy.save")
}

/// Reads the header at the start of `bytes`. O(header).
///
/// # Errors
/// Not a NumPy file, an unknown version, a header that is not a plain dictionary, a type that is not a number,
/// a shape beyond the address space.
pub fn read_prefix(bytes: &[u8]) -> Result<Prefix, DataError> {
    let shown = bytes.len().min(MAGIC.len());
    if bytes.get(..shown) != MAGIC.get(..shown) {
        return Err(bad("not a NumPy file: it does not start with \\x93NUMPY"));
    }
    let Some(version) = bytes.get(6..8) else { return Ok(Prefix::Partial) };
    let (text_at, text_len) = match version {
        [1, _] => match bytes.get(8..10) {
            Some([a, b]) => (10, usize::from(u16::from_le_bytes([*a, *b]))),
            _ => return Ok(Prefix::Partial),
        },
        [2 | 3, _] => match bytes.get(8..12) {
            Some([a, b, c, d]) => (12, u32::from_le_bytes([*a, *b, *c, *d]) as usize),
            _ => return Ok(Prefix::Partial),
        },
        [major, minor] => {
            return Err(bad(format!("NumPy file version {major}.{minor} is unknown (1, 2 and 3 are read)")));
        }
        _ => return Ok(Prefix::Partial),
    };
    if text_len > MAX_HEADER {
        return Err(DataError::new(
            Kind::TooLarge,
            Place::Byte(8),
            format!("the NumPy header claims {text_len} bytes, more than {MAX_HEADER}"),
            "",
        ));
    }
    let header_len = text_at + text_len;
    let Some(text) = bytes.get(text_at..header_len) else { return Ok(Prefix::Partial) };
    let text = std::str::from_utf8(text).map_err(|_| bad("the NumPy header is not text"))?;
    let (descr, fortran, shape) = Dict::new(text, text_at).parse()?;
    let Some((dtype, big_endian)) = Dtype::parse(&descr) else {
        return Err(DataError::new(
            Kind::Unsupported,
            Place::Whole,
            format!("arrays of type {} are not read", printable(&descr, 24)),
            "vectors are float16, float32 or float64, ids are integers: convert with .astype",
        ));
    };
    let data_len =
        shape.iter().try_fold(dtype.size(), |n, d| n.checked_mul(*d)).filter(|n| isize::try_from(*n).is_ok());
    let Some(data_len) = data_len else {
        return Err(DataError::new(
            Kind::Shape,
            Place::Whole,
            format!("the shape {} is larger than any memory", shape_text(&shape)),
            "",
        ));
    };
    Ok(Prefix::Header(Header { dtype, big_endian, fortran, shape, header_len, data_len }))
}

/// A shape as Python prints it.
#[must_use]
pub fn shape_text(shape: &[usize]) -> String {
    let list: Vec<String> = shape.iter().take(8).map(ToString::to_string).collect();
    match list.as_slice() {
        [one] => format!("({one},)"),
        _ => format!("({})", list.join(", ")),
    }
}

/// The header of a little-endian, C-order array, exactly as `numpy.save` writes it. Its length is a multiple
/// of 64, and 128 for every one- or two-dimensional shape.
#[must_use]
pub fn write_header(dtype: Dtype, shape: &[usize]) -> Vec<u8> {
    let mut text = format!(
        "{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}",
        dtype.descr(),
        match shape {
            [one] => format!("({one},)"),
            _ => format!("({})", shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        }
    );
    if let Some(first) = shape.first() {
        // NumPy leaves room for the first axis to grow to 21 digits.
        let digits = first.to_string().len();
        text.extend(std::iter::repeat_n(' ', 21usize.saturating_sub(digits)));
    }
    // NumPy pads by 64 where 0 would do; total = magic 6, version 2, length 2, text, newline.
    let pad = 64 - (10 + text.len() + 1) % 64;
    text.extend(std::iter::repeat_n(' ', pad));
    text.push('\n');
    let mut out = Vec::with_capacity(10 + text.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[1, 0]);
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    out
}

/// A whole NumPy file.
#[derive(Debug, Clone)]
pub struct Npy<'a> {
    /// What its header says.
    pub header: Header,
    data: &'a [u8],
}

impl<'a> Npy<'a> {
    /// Reads the header and checks that exactly the bytes it accounts for follow. O(header).
    ///
    /// # Errors
    /// As [`read_prefix`]; a file that ends early or goes on after its data.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DataError> {
        let Prefix::Header(header) = read_prefix(bytes)? else {
            return Err(DataError::new(
                Kind::Shape,
                Place::Byte(bytes.len() as u64),
                "the file ends inside the NumPy header",
                "it was cut short: copy it again",
            ));
        };
        let data = bytes.get(header.header_len..).unwrap_or_default();
        if data.len() != header.data_len {
            return Err(DataError::new(
                Kind::Shape,
                Place::Whole,
                format!(
                    "the header says shape {} of {} = {} bytes of data, the file holds {}",
                    shape_text(&header.shape),
                    header.dtype.descr(),
                    header.data_len,
                    data.len()
                ),
                if data.len() < header.data_len {
                    "it was cut short: copy it again"
                } else {
                    "write it with numpy.save"
                },
            ));
        }
        Ok(Self { header, data })
    }

    /// The shape.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.header.shape
    }

    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.header.dtype
    }

    /// Rows of `dim` float32, row-major: an array of shape `[n, dim]`, or `[dim]` for one row. Returns the
    /// number of rows; `Vec` holds n*dim numbers. float64 is rounded to nearest, column-major is transposed.
    ///
    /// # Errors
    /// Another shape, or a type that is not a float.
    pub fn to_f32(&self, dim: usize) -> Result<(usize, Vec<f32>), DataError> {
        let (rows, columns) = match self.header.shape.as_slice() {
            [n] => (1, *n),
            [n, d] => (*n, *d),
            other => {
                return Err(DataError::new(
                    Kind::Shape,
                    Place::Whole,
                    format!("the array has shape {}", shape_text(other)),
                    format!("vectors are an array of shape (n, {dim}) or ({dim},)"),
                ));
            }
        };
        if columns != dim {
            return Err(DataError::new(
                Kind::Dimension { got: columns, want: dim },
                Place::Whole,
                format!(
                    "the array has shape {}, the store's dimension is {dim}",
                    shape_text(&self.header.shape)
                ),
                format!("vectors are an array of shape (n, {dim}) or ({dim},)"),
            ));
        }
        let big = self.header.big_endian;
        let mut out: Vec<f32> = Vec::with_capacity(rows * columns);
        match self.header.dtype {
            Dtype::F32 => self
                .map(|b: [u8; 4]| if big { f32::from_be_bytes(b) } else { f32::from_le_bytes(b) }, &mut out),
            Dtype::F64 => {
                self.map(
                    |b: [u8; 8]| (if big { f64::from_be_bytes(b) } else { f64::from_le_bytes(b) }) as f32,
                    &mut out,
                );
            }
            Dtype::F16 => {
                let halves: Vec<f16> = self
                    .data
                    .chunks_exact(2)
                    .map(|b| {
                        f16::from_bits(if big {
                            u16::from_be_bytes([b[0], b[1]])
                        } else {
                            u16::from_le_bytes([b[0], b[1]])
                        })
                    })
                    .collect();
                out.resize(halves.len(), 0.0);
                halves.convert_to_f32_slice(&mut out);
            }
            other => {
                return Err(DataError::new(
                    Kind::Unsupported,
                    Place::Whole,
                    format!("vectors of type {} are not read", other.descr()),
                    "save them as float32: a.astype('<f4')",
                ));
            }
        }
        if self.header.fortran && rows > 1 && columns > 1 {
            out = transpose(&out, rows, columns);
        }
        Ok((rows, out))
    }

    /// Ids: an array of shape `[n]` (or `[n, 1]`) of any integer type.
    ///
    /// # Errors
    /// Another shape, a float, a negative number.
    pub fn to_u64(&self) -> Result<Vec<u64>, DataError> {
        if !matches!(self.header.shape.as_slice(), [_] | [_, 1]) {
            return Err(DataError::new(
                Kind::Shape,
                Place::Whole,
                format!("the array of ids has shape {}", shape_text(&self.header.shape)),
                "ids are an array of shape (n,)",
            ));
        }
        let big = self.header.big_endian;
        let mut wide: Vec<i128> = Vec::new();
        let mut out: Vec<u64> = Vec::with_capacity(self.data.len() / self.header.dtype.size());
        match self.header.dtype {
            Dtype::U64 => self
                .map(|b: [u8; 8]| if big { u64::from_be_bytes(b) } else { u64::from_le_bytes(b) }, &mut out),
            Dtype::U32 => {
                self.map(
                    |b: [u8; 4]| u64::from(if big { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) }),
                    &mut out,
                );
            }
            Dtype::U16 => {
                self.map(
                    |b: [u8; 2]| u64::from(if big { u16::from_be_bytes(b) } else { u16::from_le_bytes(b) }),
                    &mut out,
                );
            }
            Dtype::U8 => self.map(|[b]: [u8; 1]| u64::from(b), &mut out),
            Dtype::I64 => {
                self.map(
                    |b: [u8; 8]| i128::from(if big { i64::from_be_bytes(b) } else { i64::from_le_bytes(b) }),
                    &mut wide,
                );
            }
            Dtype::I32 => {
                self.map(
                    |b: [u8; 4]| i128::from(if big { i32::from_be_bytes(b) } else { i32::from_le_bytes(b) }),
                    &mut wide,
                );
            }
            Dtype::I16 => {
                self.map(
                    |b: [u8; 2]| i128::from(if big { i16::from_be_bytes(b) } else { i16::from_le_bytes(b) }),
                    &mut wide,
                );
            }
            Dtype::I8 => self.map(|[b]: [u8; 1]| i128::from(b as i8), &mut wide),
            other => {
                return Err(DataError::new(
                    Kind::Unsupported,
                    Place::Whole,
                    format!("ids of type {} are not read", other.descr()),
                    "ids are integers: save them as uint64, a.astype('<u8')",
                ));
            }
        }
        for (row, id) in wide.iter().enumerate() {
            out.push(u64::try_from(*id).map_err(|_| {
                DataError::new(
                    Kind::Shape,
                    Place::Row { row: row as u64, component: None, line: None },
                    format!("the id {id} is negative"),
                    "ids are from 0 to 18446744073709551615",
                )
            })?);
        }
        Ok(out)
    }

    fn map<T, const N: usize>(&self, read: impl Fn([u8; N]) -> T, out: &mut Vec<T>) {
        out.extend(self.data.as_chunks::<N>().0.iter().map(|b| read(*b)));
    }
}

/// Column-major to row-major, in blocks that stay in the cache.
fn transpose(columns_first: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const BLOCK: usize = 32;
    let mut out = vec![0.0; columns_first.len()];
    for r0 in (0..rows).step_by(BLOCK) {
        for c0 in (0..columns).step_by(BLOCK) {
            for r in r0..(r0 + BLOCK).min(rows) {
                for c in c0..(c0 + BLOCK).min(columns) {
                    out[r * columns + c] = columns_first[c * rows + r];
                }
            }
        }
    }
    out
}

/// A reader of the one Python literal that headers are.
struct Dict<'a> {
    text: &'a str,
    rest: &'a str,
    base: usize,
}

impl<'a> Dict<'a> {
    fn new(text: &'a str, base: usize) -> Self {
        Self { text, rest: text, base }
    }

    fn error(&self, problem: &str) -> DataError {
        let at = self.base + (self.text.len() - self.rest.len());
        DataError::new(
            Kind::Syntax,
            Place::Byte(at as u64),
            format!("NumPy header: {problem}"),
            "write the file with numpy.save",
        )
    }

    fn blank(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, c: char) -> bool {
        self.blank();
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn string(&mut self) -> Result<&'a str, DataError> {
        self.blank();
        let quote = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"'));
        let inner = quote.and_then(|q| self.rest[1..].split_once(q));
        let (inner, rest) = inner.ok_or_else(|| self.error("expected a quoted word"))?;
        self.rest = rest;
        Ok(inner)
    }

    fn parse(mut self) -> Result<(String, bool, Vec<usize>), DataError> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        if !self.take('{') {
            return Err(self.error("expected `{`"));
        }
        while !self.take('}') {
            let key = self.string()?;
            if !self.take(':') {
                return Err(self.error("expected `:`"));
            }
            self.blank();
            match key {
                "descr" if self.rest.starts_with('[') => {
                    return Err(DataError::new(
                        Kind::Unsupported,
                        Place::Whole,
                        "structured arrays are not read",
                        "save each column as an array of its own",
                    ));
                }
                "descr" => descr = Some(self.string()?.to_owned()),
                "fortran_order" => fortran = Some(self.truth()?),
                "shape" => shape = Some(self.tuple()?),
                _ => return Err(self.error("a key that NumPy does not write")),
            }
            if !self.take(',') && !self.rest.trim_start().starts_with('}') {
                return Err(self.error("expected `,` or `}`"));
            }
        }
        self.blank();
        if !self.rest.is_empty() {
            return Err(self.error("text after the closing `}`"));
        }
        match (descr, fortran, shape) {
            (Some(d), Some(f), Some(s)) => Ok((d, f, s)),
            _ => Err(self.error("one of 'descr', 'fortran_order', 'shape' is missing")),
        }
    }

    fn truth(&mut self) -> Result<bool, DataError> {
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err(self.error("'fortran_order' must be True or False"))
    }

    fn tuple(&mut self) -> Result<Vec<usize>, DataError> {
        if !self.take('(') {
            return Err(self.error("'shape' must be a tuple"));
        }
        let mut shape = Vec::new();
        while !self.take(')') {
            self.blank();
            let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
            let (digits, rest) = self.rest.split_at(end);
            let n = digits.parse().map_err(|_| self.error("'shape' must hold lengths of at least 0"))?;
            if shape.len() >= 32 {
                return Err(self.error("'shape' has more than 32 axes"));
            }
            shape.push(n);
            // Python 2 wrote long integers with an L.
            self.rest = rest.strip_prefix('L').unwrap_or(rest);
            if !self.take(',') && !self.rest.trim_start().starts_with(')') {
                return Err(self.error("expected `,` or `)`"));
            }
        }
        Ok(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&[1, 0]);
        out.extend_from_slice(&(header.len() as u16).to_le_bytes());
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(data);
        out
    }

    #[test]
    fn header_is_numpys_byte_for_byte() {
        // np.save of zeros((3, 4), '<f4'), numpy 2.4.
        let mut want =
            b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }".to_vec();
        want.resize(127, b' ');
        want.push(b'\n');
        assert_eq!(write_header(Dtype::F32, &[3, 4]), want);
        for shape in [&[][..], &[0], &[7], &[0, 384], &[63_655, 384], &[usize::MAX, 65_535], &[1, 2, 3]] {
            let header = write_header(Dtype::U64, shape);
            assert_eq!(header.len() % 64, 0);
            match read_prefix(&header) {
                Ok(Prefix::Header(h)) => {
                    assert_eq!((h.shape.as_slice(), h.header_len), (shape, header.len()))
                }
                Ok(Prefix::Partial) => panic!("{shape:?} is partial"),
                Err(e) => assert_eq!(e.kind, Kind::Shape, "{shape:?}"),
            }
        }
    }

    #[test]
    fn floats_of_every_width_and_order() {
        let want = (2, vec![1.0f32, -2.0, 0.5, 4.0, 5.0, 6.0]);
        let dict = |descr: &str, fortran: bool| {
            let f = if fortran { "True" } else { "False" };
            format!("{{'descr': '{descr}', 'fortran_order': {f}, 'shape': (2, 3), }}\n")
        };
        let values = &want.1;
        let le4: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let be4: Vec<u8> = values.iter().flat_map(|v| v.to_be_bytes()).collect();
        let le8: Vec<u8> = values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect();
        let be8: Vec<u8> = values.iter().flat_map(|v| f64::from(*v).to_be_bytes()).collect();
        let le2: Vec<u8> = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
        let be2: Vec<u8> = values.iter().flat_map(|v| f16::from_f32(*v).to_be_bytes()).collect();
        for (descr, data) in
            [("<f4", &le4), (">f4", &be4), ("<f8", &le8), (">f8", &be8), ("<f2", &le2), (">f2", &be2)]
        {
            let bytes = file(&dict(descr, false), data);
            assert_eq!(Npy::parse(&bytes).unwrap().to_f32(3).unwrap(), want, "{descr}");
        }
        let fortran: Vec<u8> =
            [1.0f32, 4.0, -2.0, 5.0, 0.5, 6.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(Npy::parse(&file(&dict("<f4", true), &fortran)).unwrap().to_f32(3).unwrap(), want);
    }

    #[test]
    fn transposes_in_blocks() {
        let (rows, columns) = (70, 45);
        let columns_first: Vec<f32> =
            (0..rows * columns).map(|i| ((i % rows) * columns + i / rows) as f32).collect();
        let want: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
        assert_eq!(transpose(&columns_first, rows, columns), want);
    }

    #[test]
    fn ids_of_every_width() {
        let dict = |descr: &str| format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (2,), }}");
        let ids = |descr: &str, data: &[u8]| Npy::parse(&file(&dict(descr), data)).unwrap().to_u64();
        assert_eq!(ids("|u1", &[1, 255]).unwrap(), [1, 255]);
        assert_eq!(ids("<u2", &[1, 0, 0, 1]).unwrap(), [1, 256]);
        assert_eq!(ids(">i4", &[0, 0, 0, 1, 0, 0, 1, 0]).unwrap(), [1, 256]);
        let mut wide = u64::MAX.to_le_bytes().to_vec();
        wide.extend_from_slice(&9_007_199_254_740_993u64.to_le_bytes());
        assert_eq!(ids("<u8", &wide).unwrap(), [u64::MAX, 9_007_199_254_740_993]);
        let e = ids("|i1", &[1, 255]).unwrap_err();
        assert_eq!(e.to_string(), "row 1: the id -1 is negative; ids are from 0 to 18446744073709551615");
        assert_eq!(ids("<f4", &[0; 8]).unwrap_err().kind, Kind::Unsupported);
    }

    #[test]
    fn lies_are_refused() {
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (b"PK\x03\x04".to_vec(), "not a NumPy file"),
            (b"\x93NUMPY\x09\x00".to_vec(), "version 9.0 is unknown"),
            (b"\x93NUMPY\x01\x00".to_vec(), "ends inside the NumPy header"),
            (b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(), "claims 4294967295 bytes"),
            (
                file("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }", &[0; 12]),
                "= 16 bytes of data, the file holds 12",
            ),
            (
                file("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }", &[0; 20]),
                "the file holds 20",
            ),
            (
                file("{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 4), }", &[]),
                "larger than any memory",
            ),
            (
                file("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", &[]),
                "'shape' must hold",
            ),
            (
                file("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", &[0; 4]),
                "structured arrays",
            ),
            (file("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", &[0; 8]), "type |O"),
            (file("{'descr': '<f4', 'shape': (1,), }", &[0; 4]), "is missing"),
            (file("{'descr': '<f4', 'fortran_order': Maybe, 'shape': (1,), }", &[0; 4]), "True or False"),
            (file("__import__('os')", &[]), "expected `{`"),
            (file("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", &[]), "'shape' must hold"),
        ];
        for (bytes, want) in cases {
            let e = Npy::parse(&bytes).unwrap_err().to_string();
            assert!(e.contains(want), "{e:?} lacks {want:?}");
        }
        let three = file("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1), }", &[0; 4]);
        assert_eq!(Npy::parse(&three).unwrap().to_f32(1).unwrap_err().kind, Kind::Shape);
        let wrong = file("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }", &[0; 12]);
        assert_eq!(
            Npy::parse(&wrong).unwrap().to_f32(4).unwrap_err().to_string(),
            "the array has shape (1, 3), the store's dimension is 4; vectors are an array of shape (n, 4) or (4,)"
        );
    }

    #[test]
    fn every_prefix_is_partial_or_whole() {
        let mut bytes = write_header(Dtype::F32, &[2]);
        let whole = bytes.len();
        bytes.extend_from_slice(&[0; 8]);
        for n in 0..bytes.len() {
            let prefix = read_prefix(&bytes[..n]).unwrap();
            assert_eq!(matches!(prefix, Prefix::Partial), n < whole, "{n}");
        }
    }
}
