//! Sets of value codes of one column.

/// Codes as sorted, disjoint, non-empty half-open ranges, plus whether rows without the field belong.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct CodeSet {
    ranges: Vec<(u32, u32)>,
    /// Rows that do not carry the field are members.
    pub(super) missing: bool,
}

impl CodeSet {
    /// The codes `from..to`.
    pub(super) fn range(from: u32, to: u32) -> Self {
        Self { ranges: if from < to { vec![(from, to)] } else { Vec::new() }, missing: false }
    }

    /// The union of ranges in any order.
    pub(super) fn union_of(mut ranges: Vec<(u32, u32)>, missing: bool) -> Self {
        ranges.retain(|(from, to)| from < to);
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (from, to) in ranges {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        Self { ranges: merged, missing }
    }

    pub(super) fn ranges(&self) -> &[(u32, u32)] {
        &self.ranges
    }

    pub(super) fn union(mut self, other: &CodeSet) -> Self {
        self.ranges.extend_from_slice(&other.ranges);
        Self::union_of(self.ranges, self.missing || other.missing)
    }

    pub(super) fn intersection(&self, other: &CodeSet) -> Self {
        let mut ranges = Vec::new();
        let (mut a, mut b) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        while let (Some(&&x), Some(&&y)) = (a.peek(), b.peek()) {
            let common = (x.0.max(y.0), x.1.min(y.1));
            if common.0 < common.1 {
                ranges.push(common);
            }
            if x.1 <= y.1 {
                a.next();
            } else {
                b.next();
            }
        }
        Self { ranges, missing: self.missing && other.missing }
    }

    /// Everything else among the codes `0..codes` and the missing rows.
    pub(super) fn complement(&self, codes: u32) -> Self {
        let mut ranges = Vec::with_capacity(self.ranges.len() + 1);
        let mut from = 0;
        for &(start, end) in &self.ranges {
            if from < start {
                ranges.push((from, start));
            }
            from = end;
        }
        if from < codes {
            ranges.push((from, codes));
        }
        Self { ranges, missing: !self.missing }
    }

    /// Membership of a code; O(log ranges).
    pub(super) fn contains(&self, code: u32) -> bool {
        let after = self.ranges.partition_point(|r| r.0 <= code);
        after.checked_sub(1).and_then(|i| self.ranges.get(i)).is_some_and(|r| code < r.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(u32, u32)], missing: bool) -> CodeSet {
        CodeSet::union_of(ranges.to_vec(), missing)
    }

    #[test]
    fn algebra() {
        let a = set(&[(5, 7), (0, 2), (1, 3), (9, 9)], true);
        assert_eq!(a.ranges(), [(0, 3), (5, 7)]);
        let b = set(&[(2, 6)], true);
        assert_eq!(a.clone().union(&b), set(&[(0, 7)], true));
        assert_eq!(a.intersection(&b), set(&[(2, 3), (5, 6)], true));
        assert_eq!(a.complement(8), set(&[(3, 5), (7, 8)], false));
        assert_eq!(set(&[(0, 8)], false).complement(8), set(&[], true));
        assert_eq!(set(&[], false).complement(0), set(&[], true));
        let members: Vec<u32> = (0..9).filter(|c| a.contains(*c)).collect();
        assert_eq!(members, [0, 1, 2, 5, 6]);
    }
}
