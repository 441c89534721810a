//! Building columns from values that come in any order.

use super::columns::{Codes, Column, Columns, key_of_f64, key_of_i64, kind};
use super::error::FilterError;
use super::value::Value;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Collects the values of metadata fields and sorts them into [`Columns`].
///
/// Time: O(values log values). Memory while building: 16 bytes a value and each distinct text once.
#[derive(Debug)]
pub struct ColumnsBuilder {
    rows: u32,
    fields: BTreeMap<u16, Field>,
    /// Random, so that nobody can prepare text that collides.
    seed: u64,
}

#[derive(Debug, Default)]
struct Field {
    name: Option<String>,
    entries: Vec<Entry>,
    /// Rows came in strictly ascending order so far.
    unordered: bool,
    texts: Interner,
    blobs: Interner,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    row: u32,
    kind: u8,
    /// Order-preserving key, or the interned number of a text.
    key: u64,
}

impl ColumnsBuilder {
    /// A builder for rows `0..rows` without any field.
    pub fn new(rows: u32) -> Self {
        Self { rows, fields: BTreeMap::new(), seed: RandomState::new().hash_one(0u8) }
    }

    /// Names a field. A field that is set but never named is called `field.ID`.
    pub fn field(&mut self, id: u16, name: &str) {
        self.fields.entry(id).or_default().name = Some(name.to_owned());
    }

    /// Sets the value of a field of a row; a later value for the same row and field replaces the earlier one.
    /// Ascending rows are the fast case.
    ///
    /// # Errors
    /// [`FilterError::Row`] for a row at or above the number of rows, [`FilterError::FieldTooLarge`] when the distinct
    /// text of the field passes 4 GiB.
    pub fn set(&mut self, row: u32, field_id: u16, value: Value) -> Result<(), FilterError> {
        if row >= self.rows {
            return Err(FilterError::Row { row, rows: self.rows });
        }
        let field = self.fields.entry(field_id).or_default();
        let too_large = FilterError::FieldTooLarge { field: field_id };
        let (kind, key) = match value {
            Value::Null => (kind::NULL, 0),
            Value::Bool(b) => (kind::BOOL, u64::from(b)),
            Value::I64(v) => (kind::I64, key_of_i64(v)),
            Value::U64(v) => (kind::U64, v),
            Value::F64(v) if v.is_nan() => (kind::NAN, v.to_bits()),
            Value::F64(v) => (kind::F64, key_of_f64(v)),
            Value::String(s) => {
                (kind::STRING, field.texts.insert(s.as_bytes(), self.seed).ok_or(too_large)?.into())
            }
            Value::Bytes(b) => (kind::BYTES, field.blobs.insert(&b, self.seed).ok_or(too_large)?.into()),
        };
        // Both kinds of text share one arena in the finished column.
        if field.texts.text.len() + field.blobs.text.len() > u32::MAX as usize {
            return Err(FilterError::FieldTooLarge { field: field_id });
        }
        field.unordered |= field.entries.last().is_some_and(|last| last.row >= row);
        field.entries.push(Entry { row, kind: kind as u8, key });
        Ok(())
    }

    /// Sorts everything set so far into columns.
    pub fn build(self) -> Columns {
        let rows = self.rows;
        let columns = self.fields.into_iter().map(|(id, field)| field.build(id, rows)).collect();
        Columns::new(rows, columns)
    }
}

impl Field {
    fn build(mut self, id: u16, rows: u32) -> Column {
        let mut entries = self.entries;
        if self.unordered {
            entries.sort_by_key(|e| e.row);
            // Of several values for a row keep the last: reversed, it is the first.
            entries.reverse();
            entries.dedup_by_key(|e| e.row);
            entries.reverse();
            // Text that only replaced values referred to must not get a code.
            let live = |kind: usize, len: usize| {
                let mut used = vec![false; len];
                for entry in entries.iter().filter(|e| usize::from(e.kind) == kind) {
                    if let Some(slot) = used.get_mut(entry.key as usize) {
                        *slot = true;
                    }
                }
                used
            };
            self.texts.used = Some(live(kind::STRING, self.texts.len()));
            self.blobs.used = Some(live(kind::BYTES, self.blobs.len()));
        }
        let mut text = Vec::with_capacity(self.texts.text.len() + self.blobs.text.len());
        let mut offsets = vec![0];
        let ranks = [self.texts.finish(&mut text, &mut offsets), self.blobs.finish(&mut text, &mut offsets)];
        text.shrink_to_fit();
        offsets.shrink_to_fit();
        for entry in &mut entries {
            let ranks = match usize::from(entry.kind) {
                kind::STRING => &ranks[0],
                kind::BYTES => &ranks[1],
                _ => continue,
            };
            entry.key = ranks.get(entry.key as usize).copied().unwrap_or(0).into();
        }
        // Stable, so rows stay ascending within a value; and quick where values repeat.
        entries.sort_by_key(|e| (e.kind, e.key));

        let mut kinds = [0u32; kind::COUNT + 1];
        let mut keys = Vec::new();
        let mut starts = Vec::new();
        let mut postings = Vec::with_capacity(entries.len());
        let mut last = None;
        for entry in &entries {
            if last != Some((entry.kind, entry.key)) {
                last = Some((entry.kind, entry.key));
                starts.push(postings.len() as u32);
                if (kind::BOOL..=kind::NAN).contains(&usize::from(entry.kind)) {
                    keys.push(entry.key);
                }
                for end in kinds.iter_mut().skip(usize::from(entry.kind) + 1) {
                    *end += 1;
                }
            }
            postings.push(entry.row);
        }
        starts.push(postings.len() as u32);
        keys.shrink_to_fit();
        starts.shrink_to_fit();
        let codes =
            Codes::new(rows, &starts, &postings).unwrap_or_else(|| Codes::Sparse(Vec::new(), Vec::new()));
        let name = self.name.unwrap_or_else(|| format!("field.{id}"));
        Column { id, name, kinds, keys, offsets, text, starts, postings, codes }
    }
}

/// Distinct texts, numbered in order of arrival, in one arena.
#[derive(Debug, Default)]
struct Interner {
    text: Vec<u8>,
    /// End of text `i` in the arena.
    ends: Vec<u32>,
    /// Open addressing: number of a text plus one, or zero; a power of two slots, at most half full.
    table: Vec<u32>,
    /// Texts still referred to, when that is not all of them.
    used: Option<Vec<bool>>,
}

impl Interner {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, number: usize) -> &[u8] {
        let start = number.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(number).copied().unwrap_or(start);
        self.text.get(start as usize..end as usize).unwrap_or_default()
    }

    /// The number of a text, `None` when the arena would pass 4 GiB.
    fn insert(&mut self, text: &[u8], seed: u64) -> Option<u32> {
        if (self.ends.len() + 1) * 2 > self.table.len() {
            let mut table = vec![0; (self.table.len() * 2).max(16)];
            for number in 0..self.ends.len() {
                let slot = Self::slot(&table, xxh3_64_with_seed(self.get(number), seed), |_| false);
                if let Some(slot) = table.get_mut(slot) {
                    *slot = number as u32 + 1;
                }
            }
            self.table = table;
        }
        let slot =
            Self::slot(&self.table, xxh3_64_with_seed(text, seed), |n| self.get(n as usize - 1) == text);
        match self.table.get(slot) {
            Some(&found) if found != 0 => Some(found - 1),
            _ => {
                let end = u32::try_from(self.text.len().checked_add(text.len())?).ok()?;
                let number = u32::try_from(self.ends.len()).ok()?;
                self.text.extend_from_slice(text);
                self.ends.push(end);
                *self.table.get_mut(slot)? = number.checked_add(1)?;
                Some(number)
            }
        }
    }

    /// The slot of an equal text, or the free one where it belongs.
    fn slot(table: &[u32], hash: u64, equal: impl Fn(u32) -> bool) -> usize {
        let mask = table.len() - 1;
        let mut slot = hash as usize & mask;
        while let Some(&found) = table.get(slot)
            && found != 0
            && !equal(found)
        {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// Appends the texts in byte order to an arena and returns the rank of each number.
    fn finish(self, text: &mut Vec<u8>, offsets: &mut Vec<u32>) -> Vec<u32> {
        // The first eight bytes as a big-endian integer decide most comparisons without a visit to the arena.
        let head = |number: usize| {
            let mut head = [0; 8];
            for (to, from) in head.iter_mut().zip(self.get(number)) {
                *to = *from;
            }
            u64::from_be_bytes(head)
        };
        let used =
            |number: &usize| self.used.as_ref().is_none_or(|u| u.get(*number).copied().unwrap_or(false));
        let mut order: Vec<(u64, u32)> =
            (0..self.len()).filter(used).map(|number| (head(number), number as u32)).collect();
        order.sort_unstable_by(|a, b| {
            a.0.cmp(&b.0).then_with(|| self.get(a.1 as usize).cmp(self.get(b.1 as usize)))
        });
        let mut ranks = vec![0; self.len()];
        for (rank, (_, number)) in order.iter().enumerate() {
            text.extend_from_slice(self.get(*number as usize));
            offsets.push(text.len() as u32);
            if let Some(slot) = ranks.get_mut(*number as usize) {
                *slot = rank as u32;
            }
        }
        ranks
    }
}
