//! The columns: per field its distinct values in order, the rows of each, and the value of each row.

use super::codes::CodeSet;
use super::expr::{CompareOp, Expr, FieldRef};
use super::like::Pattern;
use super::value::{Literal, Num, Value};
use std::cmp::Ordering;
use std::collections::HashMap;

/// Kinds of values in the order in which a column sorts them. Codes of one kind are contiguous.
pub(super) mod kind {
    pub(in super::super) const NULL: usize = 0;
    pub(in super::super) const BOOL: usize = 1;
    pub(in super::super) const I64: usize = 2;
    pub(in super::super) const U64: usize = 3;
    pub(in super::super) const F64: usize = 4;
    pub(in super::super) const NAN: usize = 5;
    pub(in super::super) const STRING: usize = 6;
    pub(in super::super) const BYTES: usize = 7;
    pub(in super::super) const COUNT: usize = 8;
}

/// Typed inverted index over the metadata of `rows` rows.
///
/// Built by [`ColumnsBuilder`](super::ColumnsBuilder), immutable afterwards. Memory per field: the distinct values once,
/// 4 bytes a distinct value, 4 bytes a row that carries the field, and 1, 2 or 4 bytes a row for the way back
/// (8 bytes a carrying row where fewer than one row in eight carries the field).
#[derive(Debug, Clone)]
pub struct Columns {
    pub(super) rows: u32,
    /// Ascending by id.
    pub(super) columns: Vec<Column>,
    by_name: HashMap<String, usize>,
}

/// One field.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) id: u16,
    pub(super) name: String,
    /// Values of kind `k` have the codes `kinds[k]..kinds[k + 1]`.
    pub(super) kinds: [u32; kind::COUNT + 1],
    /// Order-preserving keys of the codes from BOOL to NAN.
    pub(super) keys: Vec<u64>,
    /// Where the text of STRING and BYTES codes starts in `text`; one more entry for the end of the last.
    pub(super) offsets: Vec<u32>,
    pub(super) text: Vec<u8>,
    /// Rows of code `c`, ascending, are `postings[starts[c]..starts[c + 1]]`.
    pub(super) starts: Vec<u32>,
    pub(super) postings: Vec<u32>,
    pub(super) codes: Codes,
}

/// The code of each row. Dense forms hold the number of codes for a row without the field.
#[derive(Debug, Clone)]
pub(super) enum Codes {
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    /// Carrying rows, ascending, and their codes.
    Sparse(Vec<u32>, Vec<u32>),
}

impl Codes {
    /// The way back from rows to codes. `None` when a row lies outside `0..rows` or occurs twice.
    pub(super) fn new(rows: u32, starts: &[u32], postings: &[u32]) -> Option<Self> {
        let codes = starts.len().saturating_sub(1);
        if postings.len() < rows as usize / 8 {
            let mut pairs = Vec::with_capacity(postings.len());
            for (code, row) in pairs_of(starts, postings) {
                pairs.push((row, code));
            }
            pairs.sort_unstable();
            let distinct = pairs.iter().zip(pairs.iter().skip(1)).all(|(a, b)| a.0 < b.0);
            let inside = pairs.last().is_none_or(|p| p.0 < rows);
            return (distinct && inside).then(|| {
                let (rows, codes) = pairs.into_iter().unzip();
                Codes::Sparse(rows, codes)
            });
        }
        Some(if codes < usize::from(u8::MAX) {
            Codes::U8(dense(rows, codes as u8, starts, postings, |c| c as u8)?)
        } else if codes < usize::from(u16::MAX) {
            Codes::U16(dense(rows, codes as u16, starts, postings, |c| c as u16)?)
        } else {
            Codes::U32(dense(rows, codes as u32, starts, postings, |c| c)?)
        })
    }

    /// The code of a row, `None` when the row lacks the field; `absent` is the number of codes.
    pub(super) fn get(&self, row: u32, absent: u32) -> Option<u32> {
        let code = match self {
            Self::U8(codes) => u32::from(*codes.get(row as usize)?),
            Self::U16(codes) => u32::from(*codes.get(row as usize)?),
            Self::U32(codes) => *codes.get(row as usize)?,
            Self::Sparse(rows, codes) => *codes.get(rows.binary_search(&row).ok()?)?,
        };
        (code < absent).then_some(code)
    }
}

fn pairs_of<'a>(starts: &'a [u32], postings: &'a [u32]) -> impl Iterator<Item = (u32, u32)> + 'a {
    starts.iter().zip(starts.iter().skip(1)).enumerate().flat_map(move |(code, (from, to))| {
        let rows = postings.get(*from as usize..*to as usize).unwrap_or_default();
        rows.iter().map(move |row| (code as u32, *row))
    })
}

fn dense<T: Copy + PartialEq>(
    rows: u32,
    absent: T,
    starts: &[u32],
    postings: &[u32],
    narrow: impl Fn(u32) -> T,
) -> Option<Vec<T>> {
    let mut codes = vec![absent; rows as usize];
    for (code, row) in pairs_of(starts, postings) {
        let slot = codes.get_mut(row as usize)?;
        if *slot != absent {
            return None;
        }
        *slot = narrow(code);
    }
    Some(codes)
}

/// Key of a signed integer whose unsigned order is the signed order.
pub(super) fn key_of_i64(v: i64) -> u64 {
    (v as u64) ^ (1 << 63)
}

/// Key of a float, not NaN, whose unsigned order is `f64::total_cmp`.
pub(super) fn key_of_f64(v: f64) -> u64 {
    let bits = v.to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

/// The float of a key.
pub(super) fn f64_of_key(key: u64) -> f64 {
    f64::from_bits(if key >> 63 == 1 { key & !(1 << 63) } else { !key })
}

impl Column {
    /// Number of codes.
    pub(super) fn len(&self) -> u32 {
        self.kinds[kind::COUNT]
    }

    /// Number of rows that carry the field.
    pub(super) fn carrying(&self) -> u32 {
        self.postings.len() as u32
    }

    /// Number of rows with a code in `from..to`.
    fn rows_in(&self, from: u32, to: u32) -> u32 {
        let at = |code: u32| self.starts.get(code as usize).copied().unwrap_or(0);
        at(to).saturating_sub(at(from))
    }

    /// Number of rows in a set, of `rows` rows in all. Exact; O(ranges).
    pub(super) fn count(&self, set: &CodeSet, rows: u32) -> u32 {
        let present: u32 = set.ranges().iter().map(|r| self.rows_in(r.0, r.1)).sum();
        present + if set.missing { rows - self.carrying().min(rows) } else { 0 }
    }

    /// The rows with a code in `from..to`, in no particular order.
    pub(super) fn rows_of(&self, from: u32, to: u32) -> &[u32] {
        let at = |code: u32| self.starts.get(code as usize).map(|s| *s as usize);
        at(from).zip(at(to)).and_then(|(a, b)| self.postings.get(a..b)).unwrap_or_default()
    }

    fn keys_of(&self, kind: usize) -> &[u64] {
        let base = self.kinds[kind::BOOL];
        let (from, to) = (self.kinds[kind] - base, self.kinds[kind + 1] - base);
        self.keys.get(from as usize..to as usize).unwrap_or_default()
    }

    /// The text of a STRING or BYTES code.
    pub(super) fn text_of(&self, code: u32) -> &[u8] {
        let index = code.wrapping_sub(self.kinds[kind::STRING]) as usize;
        let ends = self.offsets.get(index).zip(self.offsets.get(index.wrapping_add(1)));
        ends.and_then(|(a, b)| self.text.get(*a as usize..*b as usize)).unwrap_or_default()
    }

    fn str_of(&self, code: u32) -> &str {
        std::str::from_utf8(self.text_of(code)).unwrap_or_default()
    }

    /// The value of a code.
    pub(super) fn value(&self, code: u32) -> Option<Value> {
        let of = (0..kind::COUNT).find(|k| code < self.kinds[k + 1])?;
        let key = || self.keys.get((code - self.kinds[kind::BOOL]) as usize).copied();
        Some(match of {
            kind::NULL => Value::Null,
            kind::BOOL => Value::Bool(key()? != 0),
            kind::I64 => Value::I64((key()? ^ (1 << 63)) as i64),
            kind::U64 => Value::U64(key()?),
            kind::F64 => Value::F64(f64_of_key(key()?)),
            kind::NAN => Value::F64(f64::from_bits(key()?)),
            kind::STRING => Value::String(self.str_of(code).to_owned()),
            _ => Value::Bytes(self.text_of(code).to_vec()),
        })
    }

    /// First code in `from..to` for which `before` is false; `before` must be true for a prefix only.
    fn partition(from: u32, to: u32, before: impl Fn(u32) -> bool) -> u32 {
        let (mut low, mut high) = (from, to);
        while low < high {
            let middle = low + (high - low) / 2;
            if before(middle) { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The codes before, equal to and after a literal within one kind: `(start, equal from, equal to, end)`.
    fn split(&self, kind: usize, order: impl Fn(u32) -> Ordering) -> (u32, u32, u32, u32) {
        let (start, end) = (self.kinds[kind], self.kinds[kind + 1]);
        let low = Self::partition(start, end, |c| order(c) == Ordering::Less);
        let high = Self::partition(low, end, |c| order(c) != Ordering::Greater);
        (start, low, high, end)
    }

    fn split_numbers(&self, kind: usize, literal: Num) -> (u32, u32, u32, u32) {
        let keys = self.keys_of(kind);
        let start = self.kinds[kind];
        self.split(kind, |code| {
            let key = keys.get((code - start) as usize).copied().unwrap_or(0);
            let number = match kind {
                kind::I64 => Num::I64((key ^ (1 << 63)) as i64),
                kind::F64 => Num::F64(f64_of_key(key)),
                _ => Num::U64(key),
            };
            // Stored keys are never NaN; a NaN literal is handled before this is reached.
            number.compare(literal).unwrap_or(Ordering::Equal)
        })
    }

    /// Appends the codes for which `op` (any but Ne) holds.
    fn ordered(&self, op: CompareOp, literal: &Literal, out: &mut Vec<(u32, u32)>) {
        let mut push = |(start, low, high, end): (u32, u32, u32, u32)| {
            out.push(match op {
                CompareOp::Eq | CompareOp::Ne => (low, high),
                CompareOp::Lt => (start, low),
                CompareOp::Le => (start, high),
                CompareOp::Gt => (high, end),
                CompareOp::Ge => (low, end),
            });
        };
        match literal {
            Literal::String(text) => {
                push(self.split(kind::STRING, |code| self.text_of(code).cmp(text.as_bytes())));
            }
            Literal::Bool(b) => {
                let (start, keys) = (self.kinds[kind::BOOL], self.keys_of(kind::BOOL));
                push(self.split(kind::BOOL, |c| {
                    keys.get((c - start) as usize).map_or(Ordering::Equal, |k| (*k != 0).cmp(b))
                }));
            }
            Literal::Number(Num::F64(v)) | Literal::Typed(Num::F64(v)) if v.is_nan() => {}
            Literal::Number(n) => {
                for kind in [kind::I64, kind::U64, kind::F64] {
                    push(self.split_numbers(kind, *n));
                }
            }
            Literal::Typed(n) => {
                let kind = match n {
                    Num::I64(_) => kind::I64,
                    Num::U64(_) => kind::U64,
                    Num::F64(_) => kind::F64,
                };
                push(self.split_numbers(kind, *n));
            }
        }
    }

    /// The set of a predicate on this field. `expr` must be a predicate; anything else gives the empty set.
    pub(super) fn select(&self, expr: &Expr) -> CodeSet {
        let all = self.len();
        let compare = |op, value: &Literal| {
            let mut ranges = Vec::with_capacity(3);
            self.ordered(op, value, &mut ranges);
            CodeSet::union_of(ranges, false)
        };
        match expr {
            Expr::Compare { op: CompareOp::Ne, value, .. } => compare(CompareOp::Eq, value).complement(all),
            Expr::Compare { op, value, .. } => compare(*op, value),
            Expr::In { values, .. } => {
                let mut ranges = Vec::with_capacity(values.len());
                for value in values {
                    self.ordered(CompareOp::Eq, value, &mut ranges);
                }
                CodeSet::union_of(ranges, false)
            }
            Expr::Between { low, high, .. } => {
                compare(CompareOp::Ge, low).intersection(&compare(CompareOp::Le, high))
            }
            Expr::Like { pattern, ignore_case, .. } => self.like(&Pattern::new(pattern, *ignore_case)),
            Expr::Exists(_) => CodeSet::range(0, all),
            Expr::IsNull(_) => CodeSet::union_of(vec![(0, self.kinds[kind::BOOL])], true),
            Expr::And(_) | Expr::Or(_) | Expr::Not(_) => CodeSet::default(),
        }
    }

    /// The text codes that start with a prefix.
    fn prefixed(&self, prefix: &[u8]) -> (u32, u32) {
        let (start, end) = (self.kinds[kind::STRING], self.kinds[kind::STRING + 1]);
        let low = Self::partition(start, end, |c| self.text_of(c) < prefix);
        (low, Self::partition(low, end, |c| self.text_of(c).starts_with(prefix)))
    }

    /// Number of rows a LIKE can match at most, without looking at any text but the prefix.
    pub(super) fn like_bound(&self, pattern: &Pattern) -> u32 {
        let (from, to) = self.prefixed(pattern.prefix().as_bytes());
        self.rows_in(from, to)
    }

    fn like(&self, pattern: &Pattern) -> CodeSet {
        let (from, to) = match pattern.exact() {
            Some(text) => {
                let (_, low, high, _) = self.split(kind::STRING, |c| self.text_of(c).cmp(text.as_bytes()));
                return CodeSet::range(low, high);
            }
            None => self.prefixed(pattern.prefix().as_bytes()),
        };
        if pattern.is_prefix_only() {
            return CodeSet::range(from, to);
        }
        let mut found = Vec::new();
        match pattern.needle() {
            // One search through the joined text of all candidates is far faster than one a value.
            Some(needle) => {
                let mut code = from;
                while code < to {
                    let base = self.offset(code);
                    let Some(rest) = self.text.get(base..self.offset(to)) else { break };
                    let Some(hit) = needle.find(rest).map(|at| base + at) else { break };
                    code = Self::partition(code, to, |c| self.offset(c + 1) <= hit);
                    if pattern.matches(self.str_of(code)) {
                        found.push((code, code + 1));
                    }
                    code += 1;
                }
            }
            None => found.extend((from..to).filter(|c| pattern.matches(self.str_of(*c))).map(|c| (c, c + 1))),
        }
        CodeSet::union_of(found, false)
    }

    /// Where the text of a code (or of the one after the last) starts.
    fn offset(&self, code: u32) -> usize {
        let index = (code - self.kinds[kind::STRING]) as usize;
        self.offsets.get(index).map_or(self.text.len(), |o| *o as usize)
    }

    fn bytes(&self) -> usize {
        let codes = match &self.codes {
            Codes::U8(c) => c.len(),
            Codes::U16(c) => c.len() * 2,
            Codes::U32(c) => c.len() * 4,
            Codes::Sparse(rows, _) => rows.len() * 8,
        };
        let words = self.offsets.len() + self.starts.len() + self.postings.len();
        size_of::<Self>() + self.name.len() * 2 + self.text.len() + self.keys.len() * 8 + words * 4 + codes
    }
}

impl Columns {
    /// Takes columns ascending by id.
    pub(super) fn new(rows: u32, columns: Vec<Column>) -> Self {
        let mut by_name = HashMap::with_capacity(columns.len());
        for (index, column) in columns.iter().enumerate() {
            // Of fields with one name the lowest id counts.
            by_name.entry(column.name.clone()).or_insert(index);
        }
        Self { rows, columns, by_name }
    }

    /// Number of rows the columns range over; evaluations give bitmaps of this length.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Ids and names of the fields, ascending by id.
    pub fn fields(&self) -> impl Iterator<Item = (u16, &str)> {
        self.columns.iter().map(|c| (c.id, c.name.as_str()))
    }

    /// Approximate memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.columns.iter().map(Column::bytes).sum::<usize>()
    }

    /// Finds a field: by id, or by exact name, or as `field.N` when no field has that name.
    pub(super) fn column(&self, field: &FieldRef) -> Option<&Column> {
        let by_id = |id: u16| {
            let index = self.columns.binary_search_by_key(&id, |c| c.id).ok()?;
            self.columns.get(index)
        };
        match field {
            FieldRef::Id(id) => by_id(*id),
            FieldRef::Name(name) => match self.by_name.get(name) {
                Some(index) => self.columns.get(*index),
                None => field.numbered_id().and_then(by_id),
            },
        }
    }

    /// Fields that the expression names and the columns lack, as written. They read as missing in every row, as in the
    /// reference; callers should warn, for a mistyped name is the likeliest cause.
    pub fn unknown_fields(&self, expr: &Expr) -> Vec<String> {
        expr.fields().into_iter().filter(|f| self.column(f).is_none()).map(ToString::to_string).collect()
    }

    /// The value of a field of a row; `None` when the row does not carry it. O(1), or O(log n) for rare fields.
    pub fn value(&self, row: u32, field: &FieldRef) -> Option<Value> {
        let column = self.column(field)?;
        column.value(column.codes.get(row, column.len())?)
    }
}
