//! Working memory of a search, kept between searches.

use parking_lot::Mutex;

use crate::coded::Pending;
use crate::codes::QueryCode;

/// Reusable working memory of one thread's searches: O(ef) lists and one byte per node.
///
/// A scratch serves images of any size and may go from one to another between searches.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) query: QueryCode,
    pub(crate) visited: Visited,
    pub(crate) pool: Pool,
    /// Matching nodes of a filtered walk.
    pub(crate) results: Pool,
    pub(crate) todo: Vec<u32>,
    pub(crate) next: Vec<u32>,
    pub(crate) dots: Vec<i32>,
    pub(crate) estimates: Vec<f32>,
    pub(crate) ordinals: Vec<u32>,
    pub(crate) pending: Pending,
}

impl Scratch {
    /// Empty; grows with the first search.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes held at present.
    pub fn memory_bytes(&self) -> usize {
        self.query.codes.capacity()
            + self.visited.tags.capacity()
            + 8 * (self.pool.entries.capacity() + self.results.entries.capacity())
            + 4 * (self.todo.capacity() + self.next.capacity() + self.dots.capacity())
            + 4 * (self.estimates.capacity() + self.ordinals.capacity())
            + self.pending.memory_bytes()
    }

    /// Makes room for batches of `batch` nodes.
    pub(crate) fn batch(&mut self, batch: usize) {
        if self.dots.len() < batch {
            self.dots.resize(batch, 0);
            self.estimates.resize(batch, 0.0);
        }
    }
}

/// Which nodes a walk has seen: a tag per node, so that starting over costs nothing.
///
/// Tags are bytes: at 64 thousand nodes they fit the L1/L2 cache; every 255th walk clears them.
#[derive(Debug, Default)]
pub(crate) struct Visited {
    tags: Vec<u8>,
    epoch: u8,
}

impl Visited {
    /// Forgets everything; ready for nodes `0..nodes`.
    pub(crate) fn start(&mut self, nodes: usize) {
        if self.tags.len() < nodes {
            self.tags.resize(nodes, 0);
        }
        if self.epoch == u8::MAX {
            self.tags.fill(0);
            self.epoch = 0;
        }
        self.epoch += 1;
    }

    /// True the first time a node is asked about; false for a node out of range.
    #[inline]
    pub(crate) fn insert(&mut self, node: u32) -> bool {
        let epoch = self.epoch;
        self.tags.get_mut(node as usize).is_some_and(|tag| std::mem::replace(tag, epoch) != epoch)
    }
}

/// The best nodes found so far, ascending by estimate and then node; each remembers whether it was expanded.
///
/// An entry is one integer: the estimate's sort key, the node, and the flag in the lowest bit. A sorted array beats a
/// heap here because it is short, and the next node to expand is found by walking a cursor.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    entries: Vec<u64>,
    limit: usize,
    cursor: usize,
}

impl Pool {
    pub(crate) fn start(&mut self, limit: usize) {
        self.entries.clear();
        self.limit = limit.max(1);
        self.cursor = 0;
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= self.limit
    }

    /// Key that an entry must be below to enter.
    #[inline]
    pub(crate) fn bound(&self) -> u64 {
        if self.is_full() { self.entries.last().copied().unwrap_or(u64::MAX) } else { u64::MAX }
    }

    /// The entry with `before` better ones, or the worst key there is.
    #[inline]
    pub(crate) fn at(&self, before: usize) -> u64 {
        self.entries.get(before).copied().unwrap_or(u64::MAX)
    }

    /// The entry of a node with this estimate.
    #[inline]
    pub(crate) fn key(estimate: f32, node: u32) -> u64 {
        u64::from(crate::sort_key(estimate)) << 32 | u64::from(node) << 1
    }

    /// Puts an entry in its place when it is good enough. The node must be new.
    #[inline]
    pub(crate) fn insert(&mut self, key: u64) {
        if self.is_full() {
            if key >= self.bound() {
                return;
            }
            self.entries.pop();
        }
        let at = self.entries.partition_point(|e| *e < key);
        self.entries.insert(at, key);
        self.cursor = self.cursor.min(at);
    }

    /// Puts an entry in its place and returns the one there is no room for any more, which may be this.
    #[inline]
    pub(crate) fn insert_or_lose(&mut self, key: u64) -> u64 {
        let worst = self.bound();
        self.insert(key);
        if worst == u64::MAX { u64::MAX } else { worst.max(key) & !1 }
    }

    /// The best entry not yet expanded, which this marks expanded.
    #[inline]
    pub(crate) fn expand(&mut self) -> Option<u64> {
        while let Some(entry) = self.entries.get_mut(self.cursor) {
            self.cursor += 1;
            if *entry & 1 == 0 {
                let key = *entry;
                *entry |= 1;
                return Some(key);
            }
        }
        None
    }

    /// Estimate of the `k`-th best (from 1) of different estimates; nothing while there are fewer.
    ///
    /// Copies of one row have one estimate. Counted one by one, a few of them would end a walk at the first such heap.
    #[inline]
    pub(crate) fn kth(&self, k: usize) -> Option<f32> {
        let plain = k.checked_sub(1)?;
        let kth = self.entries.get(plain)?;
        if k > DISTINCT_UP_TO {
            return Some(estimate_of(*kth));
        }
        let (mut distinct, mut last) = (0, u64::MAX);
        for entry in &self.entries {
            let estimate = entry >> 32;
            distinct += usize::from(estimate != last);
            if distinct == k {
                return Some(estimate_of(*entry));
            }
            last = estimate;
        }
        None
    }

    /// Nodes, best first.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = u32> + '_ {
        self.entries.iter().map(|e| node_of(*e))
    }

    /// Estimates and nodes, best first.
    pub(crate) fn estimates(&self) -> impl Iterator<Item = (f32, u32)> + '_ {
        self.entries.iter().map(|e| (estimate_of(*e), node_of(*e)))
    }
}

/// Beyond this `k` copies are not told apart: looking at every entry would cost too much.
const DISTINCT_UP_TO: usize = 128;

/// The estimate of an entry, undoing [`sort_key`](crate::sort_key).
#[inline]
pub(crate) fn estimate_of(entry: u64) -> f32 {
    let key = (entry >> 32) as u32;
    f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key })
}

/// The node of an entry.
#[inline]
pub(crate) fn node_of(entry: u64) -> u32 {
    (entry as u32) >> 1
}

/// Scratches shared by threads: take one, search, put it back.
#[derive(Debug, Default)]
pub struct ScratchPool {
    free: Mutex<Vec<Scratch>>,
}

impl ScratchPool {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `work` with a scratch of the pool. The lock is not held meanwhile.
    pub fn with<R>(&self, work: impl FnOnce(&mut Scratch) -> R) -> R {
        let taken = self.free.lock().pop();
        let mut scratch = taken.unwrap_or_default();
        let result = work(&mut scratch);
        self.free.lock().push(scratch);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pool_keeps_the_best_and_expands_in_order() {
        let mut pool = Pool::default();
        pool.start(3);
        for (estimate, node) in [(0.5, 1), (-1.0, 2), (2.0, 3), (0.5, 0), (9.0, 4)] {
            pool.insert(Pool::key(estimate, node));
        }
        assert_eq!(pool.nodes().collect::<Vec<_>>(), [2, 0, 1]);
        assert_eq!(pool.expand().map(node_of), Some(2));
        assert_eq!([pool.at(0), pool.at(2), pool.at(3)].map(node_of), [2, 1, node_of(u64::MAX)]);
        pool.insert(Pool::key(-3.0, 9));
        assert_eq!(pool.expand().map(node_of), Some(9));
        assert_eq!(pool.expand().map(node_of), Some(0));
        assert_eq!(pool.expand(), None);
    }

    #[test]
    fn visited_starts_over_any_number_of_times() {
        let mut visited = Visited::default();
        for _ in 0..600 {
            visited.start(3);
            assert!(visited.insert(2));
            assert!(!visited.insert(2));
            assert!(!visited.insert(3));
        }
    }
}
