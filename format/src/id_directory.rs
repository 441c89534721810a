//! Where in an ascending list an id can be: a table over the id's leading bits.

use std::ops::Range;

/// Narrows a search in an ascending list of ids to a few places: one load where they are spread evenly, a binary search of
/// the list at the worst. Eight bytes an id or less.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdDirectory {
    first: u64,
    /// Ids that share `(id - first) >> shift` lie in one bucket.
    shift: u32,
    /// Where each bucket starts, and the end of the last.
    starts: Vec<u32>,
}

impl IdDirectory {
    /// A directory of ascending ids. O(n); nothing is found in a list of 2^32 ids or more.
    pub fn new(ids: impl ExactSizeIterator<Item = u64> + DoubleEndedIterator + Clone) -> Self {
        let (Some(first), Some(last)) = (ids.clone().next(), ids.clone().next_back()) else {
            return Self::default();
        };
        let Ok(count) = u32::try_from(ids.len()) else { return Self::default() };
        let span = last.wrapping_sub(first);
        // Between one and two buckets an id, as far as there are so many different ids.
        let bits = u64::from(count).next_power_of_two().trailing_zeros().min(30);
        let shift = (u64::BITS - span.leading_zeros()).saturating_sub(bits);
        let mut starts = Vec::with_capacity(usize::try_from(span >> shift).unwrap_or(0).saturating_add(2));
        for (at, id) in (0u32..).zip(ids) {
            let bucket = usize::try_from(id.wrapping_sub(first) >> shift).unwrap_or(usize::MAX);
            if bucket >= starts.len() && bucket <= 1 << 30 {
                starts.resize(bucket + 1, at);
            }
        }
        starts.push(count);
        Self { first, shift, starts }
    }

    /// The places where the id is, if it is in the list.
    #[inline]
    pub fn places(&self, id: u64) -> Range<usize> {
        // An id below the first wraps around to a bucket that is not there, or to one where it is not found.
        let bucket = usize::try_from(id.wrapping_sub(self.first) >> self.shift).unwrap_or(usize::MAX);
        match self.starts.get(bucket..).and_then(<[u32]>::first_chunk::<2>) {
            Some([from, to]) => *from as usize..*to as usize,
            None => 0..0,
        }
    }
}

/// Ascending ids with a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdList {
    ids: Vec<u64>,
    directory: IdDirectory,
}

impl IdList {
    /// A list of ascending ids, each once.
    pub fn new(ids: Vec<u64>) -> Self {
        Self { directory: IdDirectory::new(ids.iter().copied()), ids }
    }

    /// Whether an id is in the list.
    #[inline]
    pub fn contains(&self, id: u64) -> bool {
        let places = self.directory.places(id);
        // Most buckets hold one id or none. How many cannot be foretold, and a wrong guess costs more than comparing those that
        // follow too, which are other ids anyway.
        let near = self.ids.get(places.start..).and_then(<[u64]>::first_chunk::<4>);
        match near {
            Some(near) if places.len() <= near.len() => {
                near.iter().fold(false, |found, other| found | (*other == id))
            }
            _ => self.ids.get(places).is_some_and(|bucket| bucket.binary_search(&id).is_ok()),
        }
    }
}

impl std::ops::Deref for IdList {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &self.ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_there_and_nothing_else() {
        let mixed = |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (i % 3 * 20);
        let mut lists: Vec<Vec<u64>> = vec![
            vec![],
            vec![0],
            vec![u64::MAX],
            vec![0, u64::MAX],
            vec![5, 6, 7, 1 << 40, u64::MAX - 1, u64::MAX],
            (0..1000).collect(),
            (0..1000).map(|i| i * 97 + 12).collect(),
            (0..5000).map(mixed).collect(),
            // All but one in one bucket.
            (0..3000).chain([u64::MAX]).collect(),
        ];
        for list in &mut lists {
            list.sort_unstable();
            list.dedup();
            let ids = IdList::new(list.clone());
            assert_eq!(&*ids, list.as_slice());
            assert!(
                ids.directory.starts.len() <= 2 * list.len() + 2,
                "{} buckets",
                ids.directory.starts.len()
            );
            let near = list.iter().flat_map(|id| [id.wrapping_sub(1), *id, id.wrapping_add(1), id ^ 1 << 33]);
            for id in near.chain([0, 1, 63, 64, u64::MAX, 1 << 63]) {
                let there = list.binary_search(&id);
                assert_eq!(ids.contains(id), there.is_ok(), "{id}");
                if let Ok(at) = there {
                    assert!(ids.directory.places(id).contains(&at));
                }
            }
        }
    }
}
