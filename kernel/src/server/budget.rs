//! Memory that all connections share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that may be in memory at the same time.
#[derive(Debug)]
pub(super) struct Budget {
    left: Arc<AtomicU64>,
}

impl Budget {
    pub(super) fn new(bytes: u64) -> Self {
        Self { left: Arc::new(AtomicU64::new(bytes)) }
    }

    /// `None` where so much is not left.
    pub(super) fn take(&self, bytes: u64) -> Option<Taken> {
        let mut taken = Taken { left: self.left.clone(), bytes: 0 };
        taken.grow(bytes).then_some(taken)
    }
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub(super) struct Taken {
    left: Arc<AtomicU64>,
    bytes: u64,
}

impl Taken {
    /// Takes more, up to `bytes` in all. Whether it was left.
    pub(super) fn grow(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let less = |left: u64| left.checked_sub(more);
        let grown = more == 0 || self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        if grown {
            self.bytes += more;
        }
        grown
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_given_back() {
        let budget = Budget::new(10);
        let mut first = budget.take(4).expect("there");
        assert!(first.grow(3) && first.grow(9) && !first.grow(11));
        assert!(budget.take(2).is_none());
        drop(budget.take(1).expect("the last one"));
        drop(first);
        assert!(budget.take(10).is_some());
    }
}
