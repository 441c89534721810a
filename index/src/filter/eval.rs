//! From expression to rows: lower to code sets, combine those per field, then mark rows.

use super::MAX_DEPTH;
use super::codes::CodeSet;
use super::columns::{Codes, Column, Columns};
use super::error::FilterError;
use super::expr::Expr;
use super::like::Pattern;
use super::value::Value;
use crate::Bitmap;

/// Testing a row of an intermediate result costs about this many marks.
const TEST_COST: u64 = 2;

enum Plan<'a> {
    All(bool),
    Field(&'a Column, CodeSet),
    /// Only in estimates: at most this many rows.
    UpTo(u32),
    And(Vec<Plan<'a>>),
    Or(Vec<Plan<'a>>),
    Not(Box<Plan<'a>>),
}

impl Columns {
    /// The rows for which the expression is true. A field that no row carries reads as missing; see
    /// [`Columns::unknown_fields`].
    ///
    /// Time: O(matching rows + rows / 64) a predicate, O(distinct text) for LIKE beyond a plain prefix.
    ///
    /// # Errors
    /// [`FilterError::TooDeep`] for a tree built by hand that nests deeper than [`MAX_DEPTH`].
    pub fn eval(&self, expr: &Expr) -> Result<Bitmap, FilterError> {
        Ok(self.run(&self.lower(expr, 0, true)?))
    }

    /// Bounds `(at least, at most)` on the number of matching rows, without touching rows. Exact for a single predicate
    /// and for any combination of predicates on one field, LIKE excepted. An expression nested too deep gives `(0, rows)`.
    pub fn estimate(&self, expr: &Expr) -> (u32, u32) {
        self.lower(expr, 0, false).map_or((0, self.rows), |plan| self.bounds(&plan))
    }

    fn lower(&self, expr: &Expr, depth: usize, exact: bool) -> Result<Plan<'_>, FilterError> {
        if depth > MAX_DEPTH {
            return Err(FilterError::TooDeep);
        }
        let field = match expr {
            Expr::And(parts) => return self.join(parts, depth, exact, true),
            Expr::Or(parts) => return self.join(parts, depth, exact, false),
            Expr::Not(inner) => {
                return Ok(match self.lower(inner, depth + 1, exact)? {
                    Plan::All(all) => Plan::All(!all),
                    Plan::Field(column, set) => Plan::Field(column, set.complement(column.len())),
                    Plan::Not(inner) => *inner,
                    plan => Plan::Not(Box::new(plan)),
                });
            }
            Expr::Compare { field, .. }
            | Expr::In { field, .. }
            | Expr::Between { field, .. }
            | Expr::Like { field, .. }
            | Expr::Exists(field)
            | Expr::IsNull(field) => field,
        };
        let Some(column) = self.column(field) else {
            return Ok(Plan::All(super::matches(expr, |_| None::<&Value>)));
        };
        if !exact && let Expr::Like { pattern, ignore_case, .. } = expr {
            return Ok(Plan::UpTo(column.like_bound(&Pattern::new(pattern, *ignore_case))));
        }
        Ok(Plan::Field(column, column.select(expr)))
    }

    /// Lowers the parts of an AND or OR, combining predicates on one field into one set.
    fn join(&self, parts: &[Expr], depth: usize, exact: bool, and: bool) -> Result<Plan<'_>, FilterError> {
        let mut plans: Vec<Plan<'_>> = Vec::with_capacity(parts.len());
        let mut pending: Vec<Plan<'_>> = Vec::new();
        // Position in `plans` of each field seen; ids are unique.
        let mut seen = std::collections::HashMap::new();
        for part in parts {
            pending.push(self.lower(part, depth + 1, exact)?);
            while let Some(plan) = pending.pop() {
                match plan {
                    Plan::All(all) if all == and => {}
                    Plan::All(all) => return Ok(Plan::All(all)),
                    Plan::And(inner) if and => pending.extend(inner),
                    Plan::Or(inner) if !and => pending.extend(inner),
                    Plan::Field(column, set) => {
                        let at = *seen.entry(column.id).or_insert(plans.len());
                        match plans.get_mut(at) {
                            Some(Plan::Field(_, before)) => {
                                let old = std::mem::take(before);
                                *before = if and { old.intersection(&set) } else { old.union(&set) };
                            }
                            _ => plans.push(Plan::Field(column, set)),
                        }
                    }
                    plan => plans.push(plan),
                }
            }
        }
        if plans.len() == 1
            && let Some(only) = plans.pop()
        {
            return Ok(only);
        }
        Ok(match (plans.is_empty(), and) {
            (true, _) => Plan::All(and),
            (false, true) => Plan::And(plans),
            (false, false) => Plan::Or(plans),
        })
    }

    fn bounds(&self, plan: &Plan<'_>) -> (u32, u32) {
        let rows = self.rows;
        match plan {
            Plan::All(true) => (rows, rows),
            Plan::All(false) => (0, 0),
            Plan::Field(column, set) => {
                let count = column.count(set, rows);
                (count, count)
            }
            Plan::UpTo(most) => (0, *most),
            Plan::And(parts) => {
                let (mut missing, mut most) = (0u64, rows);
                for (low, high) in parts.iter().map(|p| self.bounds(p)) {
                    missing += u64::from(rows - low);
                    most = most.min(high);
                }
                ((u64::from(rows).saturating_sub(missing)) as u32, most)
            }
            Plan::Or(parts) => {
                let (mut least, mut sum) = (0, 0u64);
                for (low, high) in parts.iter().map(|p| self.bounds(p)) {
                    least = least.max(low);
                    sum += u64::from(high);
                }
                (least, sum.min(rows.into()) as u32)
            }
            Plan::Not(inner) => {
                let (low, high) = self.bounds(inner);
                (rows - high, rows - low)
            }
        }
    }

    fn run(&self, plan: &Plan<'_>) -> Bitmap {
        match plan {
            Plan::All(true) => Bitmap::full(self.rows),
            Plan::All(false) | Plan::UpTo(_) => Bitmap::new(self.rows),
            Plan::Field(column, set) => self.mark(column, set),
            Plan::Not(inner) => {
                let mut found = self.run(inner);
                found.not();
                found
            }
            Plan::Or(parts) => {
                let mut found = Bitmap::new(self.rows);
                for part in parts {
                    found.or(&self.run(part));
                }
                found
            }
            Plan::And(parts) => {
                // Most selective first: what follows then has few rows left to test, or none.
                let mut order: Vec<(u32, &Plan<'_>)> = parts.iter().map(|p| (self.bounds(p).1, p)).collect();
                order.sort_by_key(|(most, _)| *most);
                let mut order = order.into_iter();
                let Some((_, first)) = order.next() else { return Bitmap::full(self.rows) };
                let mut found = self.run(first);
                for (most, part) in order {
                    let left = found.count();
                    if left == 0 {
                        break;
                    }
                    match part {
                        Plan::Field(column, set)
                            if left * TEST_COST < u64::from(most.min(self.rows - most)) =>
                        {
                            retain(&mut found, column, set);
                        }
                        part => found.and(&self.run(part)),
                    }
                }
                found
            }
        }
    }

    /// The rows whose code is in the set.
    fn mark(&self, column: &Column, set: &CodeSet) -> Bitmap {
        let rows = self.rows;
        let count = column.count(set, rows);
        if count == rows {
            return Bitmap::full(rows);
        }
        // Rows without the field are in no posting: a set with such rows is what remains when all others are taken away.
        // Where every row carries the field either way works, and the smaller side is quicker.
        let complete = column.carrying() == rows;
        let by_rest = if complete { count > rows / 2 } else { set.missing };
        if by_rest {
            let mut rest = set.complement(column.len());
            rest.missing = false;
            let mut found = self.mark_present(column, &rest);
            found.not();
            return found;
        }
        self.mark_present(column, set)
    }

    /// The carrying rows whose code is in the set.
    fn mark_present(&self, column: &Column, set: &CodeSet) -> Bitmap {
        let rows = self.rows;
        let mut words = vec![0u64; (rows as usize).div_ceil(64)];
        for &(from, to) in set.ranges() {
            let matching = column.rows_of(from, to);
            if matching.len() as u32 > rows / column.codes.scan_share() {
                match &column.codes {
                    Codes::U8(codes) => {
                        let (from, len) = (from as u8, (to - from) as u8);
                        scan(codes, &mut words, |c| c.wrapping_sub(from) < len);
                    }
                    Codes::U16(codes) => {
                        let (from, len) = (from as u16, (to - from) as u16);
                        scan(codes, &mut words, |c| c.wrapping_sub(from) < len);
                    }
                    Codes::U32(codes) => {
                        let len = to - from;
                        scan(codes, &mut words, |c| c.wrapping_sub(from) < len);
                    }
                    Codes::Sparse(..) => post(matching, &mut words),
                }
            } else {
                post(matching, &mut words);
            }
        }
        Bitmap::from_words(rows, &words)
    }
}

impl Codes {
    /// A range of codes that more than one row in this many carries is found by reading the codes of all rows in order
    /// rather than by jumping through postings. Measured: a mark takes as long as reading 24, 6 and 3 codes.
    fn scan_share(&self) -> u32 {
        match self {
            Self::U8(_) => 24,
            Self::U16(_) => 6,
            Self::U32(_) | Self::Sparse(..) => 3,
        }
    }
}

/// Marks rows one by one.
fn post(rows: &[u32], words: &mut [u64]) {
    for row in rows {
        if let Some(word) = words.get_mut(*row as usize / 64) {
            *word |= 1 << (row % 64);
        }
    }
}

/// Marks the rows whose code passes, reading all codes in row order.
fn scan<T: Copy>(codes: &[T], words: &mut [u64], inside: impl Fn(T) -> bool) {
    // Comparing into bytes first lets the compiler use vector instructions of whatever width it has.
    let mut flags = [0u8; 64];
    for (word, codes) in words.iter_mut().zip(codes.chunks(64)) {
        flags.fill(0);
        for (flag, code) in flags.iter_mut().zip(codes) {
            *flag = u8::from(inside(*code));
        }
        let mut bits = 0;
        for (i, eight) in flags.as_chunks::<8>().0.iter().enumerate() {
            // Byte j holds 0 or 1 at bit 8j; the product moves it to bit 56 + j, and no two land on one bit.
            bits |= (u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * i);
        }
        *word |= bits;
    }
}

/// Removes the rows whose code is not in the set.
fn retain(found: &mut Bitmap, column: &Column, set: &CodeSet) {
    let absent = column.len();
    let drop: Vec<u32> = found
        .iter()
        .filter(|row| match column.codes.get(*row, absent) {
            Some(code) => !set.contains(code),
            None => !set.missing,
        })
        .collect();
    for row in drop {
        found.clear(row);
    }
}
