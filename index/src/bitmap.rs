//! A set of row ordinals, one bit each.
//!
//! Filters evaluate to a `Bitmap`, the walk tests it at every node, and the exact scan iterates it. Ordinals are
//! positions in the row table (file order), never vector ids.

use std::fmt;

/// Fixed-length set of row ordinals `0..len`, backed by 64-bit words.
///
/// Bits at or above `len` are always zero, so `count`, equality and `not` need no masking by callers.
/// Memory: `len / 8` bytes, rounded up to 8.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Bitmap {
    words: Vec<u64>,
    len: u32,
}

impl fmt::Debug for Bitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bitmap").field("len", &self.len).field("count", &self.count()).finish()
    }
}

impl Bitmap {
    /// An empty set over ordinals `0..len`.
    pub fn new(len: u32) -> Self {
        Self { words: vec![0; (len as usize).div_ceil(64)], len }
    }

    /// The set of all ordinals `0..len`.
    pub fn full(len: u32) -> Self {
        let mut all = Self { words: vec![u64::MAX; (len as usize).div_ceil(64)], len };
        all.trim();
        all
    }

    /// The set holding the given ordinals; those at or above `len` are ignored.
    pub fn from_ordinals(len: u32, ordinals: impl IntoIterator<Item = u32>) -> Self {
        let mut set = Self::new(len);
        for ordinal in ordinals {
            set.set(ordinal);
        }
        set
    }

    /// A set from little-endian words, as [`Bitmap::words`] gives them. Missing words read as zero, excess bits are dropped.
    pub fn from_words(len: u32, words: &[u64]) -> Self {
        let mut set = Self::new(len);
        for (to, from) in set.words.iter_mut().zip(words) {
            *to = *from;
        }
        set.trim();
        set
    }

    /// Number of ordinals the set ranges over (not the number of members; see [`Bitmap::count`]).
    pub fn len(&self) -> u32 {
        self.len
    }

    /// True when the set ranges over no ordinals at all (`len() == 0`).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True when no ordinal is a member.
    pub fn is_none(&self) -> bool {
        self.words.iter().all(|w| *w == 0)
    }

    /// The backing words, ordinal `i` being bit `i % 64` of word `i / 64`.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Adds an ordinal; one at or above `len` is ignored.
    pub fn set(&mut self, ordinal: u32) {
        if ordinal < self.len
            && let Some(word) = self.words.get_mut(ordinal as usize / 64)
        {
            *word |= 1 << (ordinal % 64);
        }
    }

    /// Removes an ordinal; one at or above `len` is ignored.
    pub fn clear(&mut self, ordinal: u32) {
        if let Some(word) = self.words.get_mut(ordinal as usize / 64) {
            *word &= !(1 << (ordinal % 64));
        }
    }

    /// True when the ordinal is a member; false at or above `len`.
    #[inline]
    pub fn get(&self, ordinal: u32) -> bool {
        self.words.get(ordinal as usize / 64).is_some_and(|w| w >> (ordinal % 64) & 1 == 1)
    }

    /// Keeps only members of `other` (an ordinal that `other` does not range over is not a member).
    pub fn and(&mut self, other: &Bitmap) {
        let mut others = other.words.iter();
        for word in &mut self.words {
            *word &= others.next().copied().unwrap_or(0);
        }
    }

    /// Adds the members of `other` that lie in this set's range.
    pub fn or(&mut self, other: &Bitmap) {
        for (word, o) in self.words.iter_mut().zip(&other.words) {
            *word |= o;
        }
        self.trim();
    }

    /// Removes the members of `other`.
    pub fn and_not(&mut self, other: &Bitmap) {
        for (word, o) in self.words.iter_mut().zip(&other.words) {
            *word &= !o;
        }
    }

    /// Complements the set within `0..len`.
    pub fn not(&mut self) {
        for word in &mut self.words {
            *word = !*word;
        }
        self.trim();
    }

    /// Number of members. O(len / 64).
    pub fn count(&self) -> u64 {
        self.words.iter().map(|w| u64::from(w.count_ones())).sum()
    }

    /// The members in ascending order.
    pub fn iter(&self) -> Iter<'_> {
        Iter { words: &self.words, index: 0, current: self.words.first().copied().unwrap_or(0) }
    }

    /// Clears the bits at or above `len` in the last word.
    fn trim(&mut self) {
        let rest = self.len % 64;
        if rest != 0
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1 << rest) - 1;
        }
    }
}

impl<'a> IntoIterator for &'a Bitmap {
    type Item = u32;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Ascending iterator over the members of a [`Bitmap`].
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    words: &'a [u64],
    index: usize,
    current: u64,
}

impl Iterator for Iter<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        while self.current == 0 {
            self.index += 1;
            self.current = *self.words.get(self.index)?;
        }
        let bit = self.current.trailing_zeros();
        self.current &= self.current - 1;
        Some(self.index as u32 * 64 + bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_counts() {
        let mut b = Bitmap::new(130);
        for i in [0, 63, 64, 129, 130, 4_000_000_000] {
            b.set(i);
        }
        assert_eq!(b.iter().collect::<Vec<_>>(), [0, 63, 64, 129]);
        assert_eq!(b.count(), 4);
        assert!(b.get(129) && !b.get(130) && !b.get(1));
        b.clear(63);
        b.clear(1000);
        assert_eq!(b.iter().collect::<Vec<_>>(), [0, 64, 129]);
        b.not();
        assert_eq!(b.count(), 127);
        assert!(!b.get(130));
        assert!(b.get(63));
    }

    #[test]
    fn full_and_empty_lengths() {
        for len in [0, 1, 63, 64, 65, 128] {
            assert_eq!(Bitmap::full(len).count(), u64::from(len));
            let mut none = Bitmap::full(len);
            none.not();
            assert!(none.is_none());
            assert_eq!(Bitmap::new(len).iter().next(), None);
        }
    }

    #[test]
    fn combines_sets_of_different_length() {
        let mut a = Bitmap::full(70);
        let b = Bitmap::from_ordinals(10, [1, 9]);
        a.and(&b);
        assert_eq!(a.iter().collect::<Vec<_>>(), [1, 9]);
        let mut c = Bitmap::new(66);
        c.or(&Bitmap::full(200));
        assert_eq!(c.count(), 66);
        c.and_not(&b);
        assert_eq!(c.count(), 64);
        assert_eq!(Bitmap::from_words(65, &[u64::MAX, u64::MAX, 7]).count(), 65);
    }
}
