//! INDEX payloads: an HNSW graph in varints.
//!
//! The runtime writes the rvf-index frame followed by a body and the `RVIX` trailer: [`decode`] and [`encode`]. A
//! frame without trailer ([`decode_frame`]) may be of rvf-index or of rvf-wire, which read each other's bytes as
//! different graphs without noticing; it is for display only.

use crate::error::{Error, Result, codes};
use crate::reader::{Reader, put_varint};

const TRAILER: [u8; 4] = *b"RVIX";
const FRAME_HEADER: usize = 64;
const BODY_FIXED: usize = 24;
/// Nodes between two whose neighbour lists are not delta coded.
const RESTART_INTERVAL: u32 = 64;

/// How neighbour lists are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// rvf-index: absolute ids for every node whose number is a multiple of the restart interval, deltas for others.
    Restarts,
    /// rvf-wire: deltas for every node.
    Deltas,
}

/// Layers and neighbours of numbered nodes, flat.
///
/// The layers of node `i` are `node_layers[i]..node_layers[i + 1]`, and the neighbours of layer `l` are
/// `links[layer_links[l]..layer_links[l + 1]]`, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adjacency {
    /// One more than there are nodes: indices into `layer_links`.
    pub node_layers: Vec<u32>,
    /// One more than there are layers: indices into `links`.
    pub layer_links: Vec<u32>,
    /// Neighbours.
    pub links: Vec<u32>,
}

impl Default for Adjacency {
    fn default() -> Self {
        Self { node_layers: vec![0], layer_links: vec![0], links: Vec::new() }
    }
}

impl Adjacency {
    /// Nodes.
    pub fn nodes(&self) -> u32 {
        self.node_layers.len().saturating_sub(1) as u32
    }

    /// Layers of a node; 0 past the end.
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
        let at = self.node_layers.get(node as usize).map_or(usize::MAX, |start| *start as usize + layer);
        match (self.layer_links.get(at), at.checked_add(1).and_then(|at| self.layer_links.get(at))) {
            (Some(start), Some(end)) => self.links.get(*start as usize..*end as usize).unwrap_or(&[]),
            _ => &[],
        }
    }

    /// Appends a node with its neighbours by layer, sorted here.
    ///
    /// # Errors
    /// [`Error::Caller`] when there are more than 2^32-1 links.
    pub fn push<L: AsRef<[u32]>>(&mut self, layers: &[L]) -> Result<()> {
        for layer in layers {
            let start = self.links.len();
            self.links.extend_from_slice(layer.as_ref());
            self.links[start..].sort_unstable();
            self.layer_links.push(index32(self.links.len())?);
        }
        self.node_layers.push(index32(self.layer_links.len() - 1)?);
        Ok(())
    }
}

fn index32(len: usize) -> Result<u32> {
    u32::try_from(len)
        .map_err(|_| Error::caller(codes::SEGMENT_TOO_LARGE, "graph with more than 2^32-1 links"))
}

/// The graph of a store: nodes are ordinals 0..n of the ascending vector ids.
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
    /// The graph.
    pub adjacency: Adjacency,
}

/// The frame that rvf-index and rvf-wire share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// 0 HNSW, 1 IVF, 2 flat.
    pub index_type: u8,
    /// 0 A, 1 B, 2 C.
    pub layer_level: u8,
    /// Links per node.
    pub m: u16,
    /// Candidates while building.
    pub ef_construction: u32,
    /// Nodes.
    pub node_count: u64,
    /// Nodes between restarts.
    pub restart_interval: u32,
    /// Offsets of restart nodes in the adjacency area; nobody needs them.
    pub restart_offsets: Vec<u32>,
    /// The graph.
    pub adjacency: Adjacency,
}

/// Reads an INDEX payload with the RVIX trailer. O(payload); at most 4 bytes of memory a payload byte and list.
///
/// # Errors
/// [`Error::Corrupt`] when anything does not hold that the reference checks; the index is derived data, so build it
/// again. Whether the ids exist in the store is for the caller to check.
pub fn decode(payload: &[u8]) -> Result<IndexSeg> {
    const WHAT: &str = "INDEX trailer";
    let bad = |problem: String| Error::corrupt(codes::INVALID_CHECKSUM, WHAT, payload.len(), problem);
    let body_end = payload.len().checked_sub(8).ok_or_else(|| bad("no room for a trailer".into()))?;
    let mut tail = Reader::new(&payload[body_end..], WHAT, codes::INVALID_CHECKSUM);
    let body_len = tail.u32()? as usize;
    if tail.array::<4>()? != TRAILER {
        return Err(bad("no RVIX mark".into()));
    }
    let body_start = body_end.checked_sub(body_len).filter(|_| body_len >= BODY_FIXED);
    let body_start = body_start.ok_or_else(|| bad(format!("body of {body_len} bytes does not fit")))?;
    let frame = decode_frame(&payload[..body_start], Coding::Restarts)?;
    let mut r = Reader::new(&payload[body_start..body_end], "INDEX body", codes::INVALID_CHECKSUM);
    let version = r.u16()?;
    if version != 1 || frame.index_type != 0 {
        return r.fail(format!("version {version}, index type {}: only 1 and 0 are known", frame.index_type));
    }
    let m0 = r.u16()?;
    let max_layer = r.u32()?;
    let entry = r.u64()?;
    let count = r.u64()?;
    if count != frame.node_count || count > r.left() as u64 {
        return r.fail(format!("{count} ids for {} nodes", frame.node_count));
    }
    let nodes = frame.adjacency.nodes();
    let entry = match entry {
        u64::MAX => None,
        other => match u32::try_from(other) {
            Ok(entry) if entry < nodes => Some(entry),
            _ => return r.fail(format!("entry point {other} of {nodes} nodes")),
        },
    };
    let mut ids: Vec<u64> = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let value = r.varint()?;
        let id = match ids.last() {
            None => Some(value),
            Some(last) => last.checked_add(value).filter(|_| value > 0),
        };
        let Some(id) = id else { return r.fail("vector ids do not ascend") };
        ids.push(id);
    }
    if let Some(link) = frame.adjacency.links.iter().find(|link| **link >= nodes) {
        return r.fail(format!("link to node {link} of {nodes}"));
    }
    let Frame { m, ef_construction, adjacency, .. } = frame;
    Ok(IndexSeg { m, m0, ef_construction, max_layer, entry, ids, adjacency })
}

/// The payload bytes, identical to the reference's for the same graph. O(links).
///
/// # Errors
/// [`Error::Caller`] when node count and ids differ, ids do not ascend, or a link leaves the graph.
pub fn encode(index: &IndexSeg) -> Result<Vec<u8>> {
    let wrong = |text: String| Error::caller(codes::INVALID_MANIFEST, text);
    let nodes = index.adjacency.nodes();
    if nodes as usize != index.ids.len() {
        return Err(wrong(format!("{nodes} nodes for {} ids", index.ids.len())));
    }
    if index.entry.is_some_and(|entry| entry >= nodes)
        || index.adjacency.links.iter().any(|link| *link >= nodes)
    {
        return Err(wrong(format!("a link or the entry point leaves the graph of {nodes} nodes")));
    }
    let mut out = vec![0; FRAME_HEADER];
    out[1] = 2;
    out[2..4].copy_from_slice(&index.m.to_le_bytes());
    out[4..8].copy_from_slice(&index.ef_construction.to_le_bytes());
    out[8..16].copy_from_slice(&u64::from(nodes).to_le_bytes());

    let mut area = Vec::new();
    let mut restarts = Vec::new();
    for node in 0..nodes {
        if node % RESTART_INTERVAL == 0 {
            restarts.push(index32(area.len())?);
        }
        let layers = index.adjacency.layers(node);
        put_varint(&mut area, layers as u64);
        for layer in 0..layers {
            let neighbours = index.adjacency.neighbours(node, layer);
            put_varint(&mut area, neighbours.len() as u64);
            let mut previous = 0;
            for link in neighbours {
                let base = if node % RESTART_INTERVAL == 0 { 0 } else { previous };
                let delta = link
                    .checked_sub(base)
                    .ok_or_else(|| wrong(format!("links of node {node} do not ascend")))?;
                put_varint(&mut area, u64::from(delta));
                previous = *link;
            }
        }
    }
    out.extend_from_slice(&RESTART_INTERVAL.to_le_bytes());
    out.extend_from_slice(&index32(restarts.len())?.to_le_bytes());
    for offset in &restarts {
        out.extend_from_slice(&offset.to_le_bytes());
    }
    pad64(&mut out);
    out.extend_from_slice(&area);
    pad64(&mut out);

    let body_start = out.len();
    out.extend_from_slice(&1u16.to_le_bytes());
    out.extend_from_slice(&index.m0.to_le_bytes());
    out.extend_from_slice(&index.max_layer.to_le_bytes());
    out.extend_from_slice(&index.entry.map_or(u64::MAX, u64::from).to_le_bytes());
    out.extend_from_slice(&(index.ids.len() as u64).to_le_bytes());
    let mut previous = None;
    for id in &index.ids {
        let value = match previous {
            None => *id,
            Some(previous) => id
                .checked_sub(previous)
                .filter(|delta| *delta > 0)
                .ok_or_else(|| wrong(format!("vector id {id} does not ascend")))?,
        };
        put_varint(&mut out, value);
        previous = Some(*id);
    }
    let body_len = index32(out.len() - body_start)?;
    out.extend_from_slice(&body_len.to_le_bytes());
    out.extend_from_slice(&TRAILER);
    Ok(out)
}

fn pad64(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(64), 0);
}

/// Reads the frame alone. Which coding was used is not recorded; with the wrong one the graph is another one.
///
/// # Errors
/// [`Error::Corrupt`] when it passes the end or a number does not fit 32 bits.
pub fn decode_frame(bytes: &[u8], coding: Coding) -> Result<Frame> {
    let mut r = Reader::new(bytes, "INDEX payload", codes::INVALID_CHECKSUM);
    if u32::try_from(bytes.len()).is_err() {
        return r.fail("graph above 4 GiB");
    }
    let index_type = r.u8()?;
    let layer_level = r.u8()?;
    let m = r.u16()?;
    let ef_construction = r.u32()?;
    let node_count = r.u64()?;
    r.take(FRAME_HEADER - 16)?;
    let restart_interval = r.u32()?;
    let restarts = r.u32()? as usize;
    if restarts > r.left() / 4 {
        return r.fail(format!("{restarts} restart offsets"));
    }
    let mut restart_offsets = Vec::with_capacity(restarts);
    for _ in 0..restarts {
        restart_offsets.push(r.u32()?);
    }
    let area = r.pos().next_multiple_of(64) - r.pos();
    r.take(area)?;
    // A node takes at least one byte, so this also bounds what follows.
    if node_count > r.left() as u64 {
        return r.fail(format!("{node_count} nodes in {} bytes", r.left()));
    }
    let mut adjacency = Adjacency::default();
    adjacency.node_layers.reserve_exact(node_count as usize);
    for node in 0..node_count as u32 {
        let absolute = coding == Coding::Restarts && node.checked_rem(restart_interval) == Some(0);
        let layers = r.varint()?;
        if layers > r.left() as u64 {
            return r.fail(format!("node {node} has {layers} layers"));
        }
        for _ in 0..layers {
            let count = r.varint()?;
            if count > r.left() as u64 {
                return r.fail(format!("node {node} has {count} neighbours"));
            }
            let mut previous = 0u32;
            for _ in 0..count {
                let value = u32::try_from(r.varint()?).ok();
                let link =
                    value.and_then(|value| if absolute { Some(value) } else { previous.checked_add(value) });
                let Some(link) = link else { return r.fail(format!("node {node} links past 2^32")) };
                adjacency.links.push(link);
                previous = link;
            }
            adjacency.layer_links.push(adjacency.links.len() as u32);
        }
        adjacency.node_layers.push(adjacency.layer_links.len() as u32 - 1);
    }
    Ok(Frame {
        index_type,
        layer_level,
        m,
        ef_construction,
        node_count,
        restart_interval,
        restart_offsets,
        adjacency,
    })
}
