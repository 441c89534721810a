//! Inode numbers: which node the kernel means by which number.
//!
//! A number is a hash of the node, so a node that was forgotten and is found again has the number it had before, and
//! `readdir` can tell numbers without remembering 63,000 nodes. The hash has a key of the mount's own: a process that
//! has the same file of two mounts open is told apart by the number alone. Numbers of two nodes that collide are told apart by
//! taking the next free one. A number is remembered while the kernel holds a lookup count on it.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use parking_lot::RwLock;

use crate::node::Node;

/// The number of the mount's top directory.
pub const ROOT_INO: u64 = 1;

/// Numbers below this are never given out by hashing.
const FIRST_HASHED: u64 = 1 << 16;

/// The table. All operations are O(1).
#[derive(Debug)]
pub struct Inodes {
    root: Node,
    key: RandomState,
    table: RwLock<HashMap<u64, Entry, BuildHasherDefault<Direct>>>,
}

#[derive(Debug)]
struct Entry {
    node: Node,
    lookups: u64,
}

/// The keys are hashes already.
#[derive(Debug, Default)]
struct Direct(u64);

impl Hasher for Direct {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

impl Inodes {
    /// A table whose number 1 is `root`.
    #[must_use]
    pub fn new(root: Node) -> Self {
        let mut table = HashMap::with_hasher(BuildHasherDefault::<Direct>::default());
        table.insert(ROOT_INO, Entry { node: root, lookups: 1 });
        Self { root, key: RandomState::new(), table: RwLock::new(table) }
    }

    /// The node behind a number the kernel holds.
    #[must_use]
    pub fn node(&self, ino: u64) -> Option<Node> {
        self.table.read().get(&ino).map(|entry| entry.node)
    }

    /// The number a node has or would get.
    #[must_use]
    pub fn number(&self, node: Node) -> u64 {
        if node == self.root {
            return ROOT_INO;
        }
        let table = self.table.read();
        let mut ino = self.hashed(node);
        while table.get(&ino).is_some_and(|entry| entry.node != node) {
            ino = next(ino);
        }
        ino
    }

    fn hashed(&self, node: Node) -> u64 {
        // 48 bits: some tools store inode numbers as doubles or print them in narrow columns.
        (self.key.hash_one(node) & 0xFFFF_FFFF_FFFF).max(FIRST_HASHED)
    }

    /// The number of a node, with one lookup more.
    pub fn remember(&self, node: Node) -> u64 {
        if node == self.root {
            return ROOT_INO;
        }
        let mut table = self.table.write();
        let mut ino = self.hashed(node);
        loop {
            let entry = table.entry(ino).or_insert(Entry { node, lookups: 0 });
            if entry.node == node {
                entry.lookups = entry.lookups.saturating_add(1);
                return ino;
            }
            ino = next(ino);
        }
    }

    /// Takes lookups back; the number is forgotten with the last.
    pub fn forget(&self, ino: u64, lookups: u64) {
        if ino == ROOT_INO {
            return;
        }
        let mut table = self.table.write();
        if let Some(entry) = table.get_mut(&ino) {
            entry.lookups = entry.lookups.saturating_sub(lookups);
            if entry.lookups == 0 {
                table.remove(&ino);
            }
        }
    }

    /// Numbers held now whose node fits. O(numbers held).
    pub fn held(&self, fits: impl Fn(Node) -> bool) -> Vec<u64> {
        self.table.read().iter().filter(|(_, entry)| fits(entry.node)).map(|(ino, _)| *ino).collect()
    }

    /// How many numbers are held, the top directory included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.read().len()
    }

    /// Never: the top directory is always there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn next(ino: u64) -> u64 {
    if ino >= 0xFFFF_FFFF_FFFF { FIRST_HASHED } else { ino + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{Item, StoreId};

    fn vector(id: u64) -> Node {
        Node::In(StoreId(0), Item::Vector(id))
    }

    #[test]
    fn numbers_are_stable_across_forgetting() {
        let inodes = Inodes::new(Node::Root);
        let first = inodes.remember(vector(7));
        assert_eq!(inodes.remember(vector(7)), first);
        assert_eq!(inodes.node(first), Some(vector(7)));
        inodes.forget(first, 1);
        assert_eq!(inodes.node(first), Some(vector(7)));
        inodes.forget(first, 1);
        assert_eq!(inodes.node(first), None);
        assert_eq!(inodes.number(vector(7)), first);
        assert_eq!(inodes.remember(vector(7)), first);
    }

    #[test]
    fn many_nodes_have_different_numbers_and_all_are_forgotten() {
        let inodes = Inodes::new(Node::Root);
        let numbers: Vec<u64> = (0..70_000).map(|id| inodes.remember(vector(id))).collect();
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 70_000);
        assert_eq!(inodes.len(), 70_001);
        for ino in numbers {
            inodes.forget(ino, 1);
        }
        assert_eq!(inodes.len(), 1);
    }

    #[test]
    fn the_top_directory_is_never_forgotten() {
        let inodes = Inodes::new(Node::Root);
        inodes.forget(ROOT_INO, u64::MAX);
        assert_eq!(inodes.node(ROOT_INO), Some(Node::Root));
        assert_eq!(inodes.remember(Node::Root), ROOT_INO);
        assert!(!inodes.is_empty());
    }

    #[test]
    fn forgetting_more_than_was_remembered_is_harmless() {
        let inodes = Inodes::new(Node::Root);
        let ino = inodes.remember(vector(1));
        inodes.forget(ino, 100);
        inodes.forget(ino, 100);
        inodes.forget(12345, 1);
        assert_eq!(inodes.node(ino), None);
    }
}
