//! An image's graph in the form of the reference's INDEX_SEG.

use super::Image;
use super::layout::Section;
use crate::walk::numbers;

/// One layer of a [`ReferenceGraph`]: `links[offsets[i]..offsets[i + 1]]` are the neighbours of node `i`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Csr {
    /// `nodes + 1` ascending positions in `links`.
    pub offsets: Vec<u32>,
    /// Node numbers.
    pub links: Vec<u32>,
}

impl Csr {
    /// The neighbours of a node; empty when it has none or the offsets are out of order.
    pub fn row(&self, node: usize) -> &[u32] {
        match (self.offsets.get(node), self.offsets.get(node.saturating_add(1))) {
            (Some(from), Some(to)) => self.links.get(*from as usize..*to as usize).unwrap_or(&[]),
            _ => &[],
        }
    }
}

/// A graph as the reference's INDEX_SEG holds it: nodes in ascending order of vector id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReferenceGraph {
    /// Links per node on upper layers.
    pub m: u16,
    /// Links per node on layer 0.
    pub m0: u16,
    /// Candidates considered per insertion when it was built.
    pub ef_construction: u32,
    /// Row ordinal of each node.
    pub ordinals: Vec<u32>,
    /// Number of layers each node is in (at least 1 for a linked node).
    pub layer_counts: Vec<u8>,
    /// Layer 0 first; each has `ordinals.len() + 1` offsets, and neighbours ascend.
    pub layers: Vec<Csr>,
    /// Node where descents start.
    pub entry: Option<u32>,
}

impl Image {
    /// The graph in the reference's form, nodes in ascending order of id, neighbours ascending. O(links).
    ///
    /// Meant for an image that [`Image::verify`] accepted; links out of range are left out.
    pub fn export_graph(&self) -> ReferenceGraph {
        let bytes = self.image_bytes();
        let view = self.view();
        let nodes = self.nodes() as usize;
        // Nodes by rank of id, and back.
        let by_rank: Vec<u32> =
            numbers(self.header.section(bytes, Section::IdNodes)).filter(|n| (*n as usize) < nodes).collect();
        let mut rank_of = vec![u32::MAX; nodes];
        for (rank, node) in by_rank.iter().enumerate() {
            if let Some(r) = rank_of.get_mut(*node as usize) {
                *r = rank as u32;
            }
        }
        let max_level = self.max_level();
        let mut layer_counts = vec![1u8; by_rank.len()];
        let mut layers = Vec::with_capacity(max_level + 1);
        for level in 0..=max_level {
            let (links, count) =
                if level == 0 { (view.links, view.nodes) } else { self.upper(view.upper, level) };
            let mut csr = Csr { offsets: Vec::with_capacity(by_rank.len() + 1), links: Vec::new() };
            csr.offsets.push(0);
            for (node, layer_count) in by_rank.iter().zip(&mut layer_counts) {
                if *node < count {
                    *layer_count = level as u8 + 1;
                    let start = csr.links.len();
                    csr.links.extend(
                        links
                            .row(*node)
                            .filter_map(|to| rank_of.get(to as usize))
                            .filter(|r| **r != u32::MAX),
                    );
                    if let Some(row) = csr.links.get_mut(start..) {
                        row.sort_unstable();
                    }
                }
                csr.offsets.push(csr.links.len() as u32);
            }
            layers.push(csr);
        }
        ReferenceGraph {
            m: self.m() as u16,
            m0: self.header.degree.get() as u16,
            ef_construction: self.header.ef_construction.get(),
            ordinals: by_rank.iter().map(|n| self.ordinal_of_node(*n).unwrap_or(u32::MAX)).collect(),
            layer_counts,
            layers,
            entry: rank_of.get(self.header.entry.get() as usize).copied().filter(|r| *r != u32::MAX),
        }
    }
}
