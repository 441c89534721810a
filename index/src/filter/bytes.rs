//! Columns as one byte string, so that a file can carry them and nobody has to sort them again.
//!
//! Little-endian, no alignment. `magic (8) | version u32 | rows u32 | columns u32`, then per column, ascending by id:
//! `id u16 | name length u16 | name | ends of the eight kinds, 8 x u32 | offset count u32 | text length u32 |
//! posting count u32 | keys, u64 each | offsets, u32 each | text | starts, u32 each | postings, u32 each`,
//! and last the XXH3-64 of all bytes before it. The counts of keys and starts follow from the kinds.

use super::columns::{Codes, Column, Columns, f64_of_key, kind};
use super::error::FilterError;
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 8] = b"RVFMCOLS";
const VERSION: u32 = 1;

impl Columns {
    /// The columns as bytes for [`Columns::from_bytes`]. Names longer than 65,535 bytes are cut at a character boundary.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.memory_bytes());
        out.extend_from_slice(MAGIC);
        put(&mut out, &[VERSION, self.rows, self.columns.len() as u32]);
        for column in &self.columns {
            let name =
                column.name.get(..column.name.floor_char_boundary(usize::from(u16::MAX))).unwrap_or("");
            out.extend_from_slice(&column.id.to_le_bytes());
            out.extend_from_slice(&(name.len() as u16).to_le_bytes());
            out.extend_from_slice(name.as_bytes());
            put(&mut out, column.kinds.get(1..).unwrap_or_default());
            put(
                &mut out,
                &[column.offsets.len() as u32, column.text.len() as u32, column.postings.len() as u32],
            );
            for key in &column.keys {
                out.extend_from_slice(&key.to_le_bytes());
            }
            put(&mut out, &column.offsets);
            out.extend_from_slice(&column.text);
            put(&mut out, &column.starts);
            put(&mut out, &column.postings);
        }
        let sum = xxh3_64(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads what [`Columns::to_bytes`] wrote. Everything is checked; memory is at most a few times the bytes given plus
    /// 4 bytes for each row and field that at least one row in eight carries.
    ///
    /// # Errors
    /// [`FilterError::Corrupt`] naming the place, for damage as well as for an unknown version: the columns are derived
    /// data and can be built again.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FilterError> {
        let corrupt =
            |offset: usize, what: &str| FilterError::Corrupt { offset: offset as u64, what: what.to_owned() };
        if !bytes.starts_with(MAGIC) {
            return Err(corrupt(0, "no column magic"));
        }
        let Some((body, sum)) = bytes.split_last_chunk::<8>() else {
            return Err(corrupt(0, "too short"));
        };
        let mut reader = Reader { bytes: body, at: MAGIC.len() };
        let version = reader.u32()?;
        if version != VERSION {
            return Err(corrupt(MAGIC.len(), &format!("version {version}, known is {VERSION}")));
        }
        if xxh3_64(body) != u64::from_le_bytes(*sum) {
            return Err(corrupt(body.len(), "checksum does not match"));
        }
        let (rows, count) = (reader.u32()?, reader.u32()?);
        let mut columns: Vec<Column> = Vec::new();
        for _ in 0..count {
            let start = reader.at;
            let column = reader.column(rows)?;
            if columns.last().is_some_and(|last| last.id >= column.id) {
                return Err(corrupt(start, "field ids do not ascend"));
            }
            columns.push(column);
        }
        if reader.at != body.len() {
            return Err(corrupt(reader.at, "trailing bytes"));
        }
        Ok(Columns::new(rows, columns))
    }
}

fn put(out: &mut Vec<u8>, words: &[u32]) {
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn corrupt(&self, what: &str) -> FilterError {
        FilterError::Corrupt { offset: self.at as u64, what: what.to_owned() }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], FilterError> {
        let end = self.at.checked_add(len);
        let Some(taken) = end.and_then(|end| self.bytes.get(self.at..end)) else {
            return Err(self.corrupt("ends too early"));
        };
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FilterError> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| self.corrupt("ends too early"))
    }

    fn u16(&mut self) -> Result<u16, FilterError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, FilterError> {
        self.array().map(u32::from_le_bytes)
    }

    fn words(&mut self, count: usize) -> Result<Vec<u32>, FilterError> {
        let taken = self.take(count.checked_mul(4).ok_or_else(|| self.corrupt("count overflows"))?)?;
        Ok(taken.chunks_exact(4).map(|c| c.try_into().map_or(0, u32::from_le_bytes)).collect())
    }

    fn column(&mut self, rows: u32) -> Result<Column, FilterError> {
        let id = self.u16()?;
        let name_len = self.u16()?;
        let name = self.take(name_len.into())?;
        let name = std::str::from_utf8(name).map_err(|_| self.corrupt("field name is not UTF-8"))?.to_owned();
        let mut kinds = [0u32; kind::COUNT + 1];
        for end in kinds.iter_mut().skip(1) {
            *end = self.u32()?;
        }
        if !kinds.is_sorted() || kinds[kind::BOOL] > 1 {
            return Err(self.corrupt("kinds of values overlap"));
        }
        let codes = kinds[kind::COUNT] as usize;
        let texts = (kinds[kind::COUNT] - kinds[kind::STRING]) as usize;
        let (offset_count, text_len, posting_count) = (self.u32()?, self.u32()?, self.u32()?);
        if offset_count as usize != texts + 1 || posting_count > rows {
            return Err(self.corrupt("counts contradict each other"));
        }
        let key_count = (kinds[kind::STRING] - kinds[kind::BOOL]) as usize;
        let taken = self.take(key_count.checked_mul(8).ok_or_else(|| self.corrupt("count overflows"))?)?;
        let keys: Vec<u64> =
            taken.chunks_exact(8).map(|c| c.try_into().map_or(0, u64::from_le_bytes)).collect();
        let offsets = self.words(offset_count as usize)?;
        let text = self.take(text_len as usize)?.to_vec();
        let starts = self.words(codes + 1)?;
        let postings = self.words(posting_count as usize)?;

        let ascends = |kind: usize| {
            let base = kinds[kind::BOOL];
            let keys = keys.get((kinds[kind] - base) as usize..(kinds[kind + 1] - base) as usize);
            keys.is_some_and(|k| k.is_sorted_by(|a, b| a < b))
        };
        if !(kind::BOOL..=kind::NAN).all(ascends) {
            return Err(self.corrupt("numbers do not ascend"));
        }
        let value_of = |code: u32| keys.get((code - kinds[kind::BOOL]) as usize).copied().unwrap_or(0);
        if (kinds[kind::BOOL]..kinds[kind::I64]).any(|c| value_of(c) > 1)
            || (kinds[kind::F64]..kinds[kind::NAN]).any(|c| f64_of_key(value_of(c)).is_nan())
            || (kinds[kind::NAN]..kinds[kind::STRING]).any(|c| !f64::from_bits(value_of(c)).is_nan())
        {
            return Err(self.corrupt("a number is not of its kind"));
        }
        let edges = (offsets.first(), offsets.last(), starts.first(), starts.last());
        if edges != (Some(&0), Some(&text_len), Some(&0), Some(&posting_count))
            || !offsets.is_sorted()
            || !starts.is_sorted_by(|a, b| a < b)
        {
            return Err(self.corrupt("offsets do not ascend from end to end"));
        }
        let Some(row_codes) = Codes::new(rows, &starts, &postings) else {
            return Err(self.corrupt("a row is out of range or occurs twice"));
        };
        let column = Column { id, name, kinds, keys, offsets, text, starts, postings, codes: row_codes };
        let text_codes = kinds[kind::STRING]..kinds[kind::BYTES];
        if text_codes.clone().any(|c| std::str::from_utf8(column.text_of(c)).is_err()) {
            return Err(self.corrupt("text is not UTF-8"));
        }
        for codes in [text_codes, kinds[kind::BYTES]..kinds[kind::COUNT]] {
            if !codes.is_sorted_by(|a, b| column.text_of(*a) < column.text_of(*b)) {
                return Err(self.corrupt("text does not ascend"));
            }
        }
        Ok(column)
    }
}
