//! Which way a query goes: graph walk, or a look at every matching row.

/// Below this many live rows the exact scan is used and no image is worth building.
pub const SCAN_BELOW_ROWS: u64 = 1024;

/// What expanding one node of a walk costs, in codes of a plain look at many: 17 of its 32 links are new in the mean,
/// and each costs about 2.5 times as much as one of a batch whose place is known beforehand.
const COST_PER_STEP: u64 = 42;

/// The way chosen for a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Walk the graph with this `ef`.
    Walk {
        /// Size of the candidate list.
        ef: usize,
    },
    /// Look at all matching rows.
    Scan,
}

/// The `ef` used when a caller gives none: reaches recall@10 of at least 0.95 on real embeddings.
pub fn default_ef(k: usize) -> usize {
    k.saturating_mul(2).max(k.saturating_add(54))
}

/// Chooses the way of a query when `matching` rows pass its filter, of `n` in the image.
///
/// A filtered walk passes about `2 k n / matching` nodes; looking at all matching rows compares `matching` codes. The
/// cheaper one wins, so few matching rows are always scanned and the answer is then never short.
pub fn plan(matching: u64, n: u64, k: usize, ef: usize) -> Plan {
    let k = k as u64;
    let ef = (ef as u64).max(k);
    if n < SCAN_BELOW_ROWS || matching <= k.saturating_mul(2) {
        return Plan::Scan;
    }
    let passed = if matching >= n { ef } else { k.saturating_mul(2).saturating_mul(n) / matching };
    if passed.max(ef).saturating_mul(COST_PER_STEP) >= matching {
        return Plan::Scan;
    }
    Plan::Walk { ef: ef as usize }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cheaper_way_wins() {
        assert_eq!(plan(63_655, 63_655, 10, 64), Plan::Walk { ef: 64 });
        assert_eq!(plan(34_129, 63_655, 10, 64), Plan::Walk { ef: 64 });
        assert_eq!(plan(668, 63_655, 10, 64), Plan::Scan);
        assert_eq!(plan(82, 63_655, 10, 64), Plan::Scan);
        assert_eq!(plan(0, 63_655, 10, 64), Plan::Scan);
        assert_eq!(plan(50_000, 1_000_000, 10, 64), Plan::Walk { ef: 64 });
        assert_eq!(plan(1000, 1000, 10, 64), Plan::Scan);
        assert_eq!(plan(63_655, 63_655, 10, 4), Plan::Walk { ef: 10 });
        assert_eq!(plan(63_655, 63_655, 50_000, 4), Plan::Scan);
        assert_eq!(plan(u64::MAX, u64::MAX, usize::MAX, usize::MAX), Plan::Scan);
    }
}
