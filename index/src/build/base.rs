//! The first graph, built by hnsw_rs.
//!
//! hnsw_rs gets each point's code itself as its data, in whole cache lines, with one more line for the factors: a
//! distance then costs no lookup in a side table. Distances are over codes, never negative and never NaN (the crate
//! asserts both). A serial build is repeatable (the crate's level generator has a fixed seed), a parallel one is not;
//! so points are dealt to parts by the caller, each part is built serially, and parts run side by side.

use hnsw_rs::anndists::dist::distances::Distance;
use hnsw_rs::prelude::Hnsw;

use super::points::Points;
use crate::IndexError;
use crate::codes::Line;
use crate::simd::Kernels;

/// Distance between two points given as code lines and a line of factors.
struct CodeDistance {
    kernels: &'static Kernels,
}

impl Distance<Line> for CodeDistance {
    fn eval(&self, a: &[Line], b: &[Line]) -> f32 {
        let (Some((fa, a)), Some((fb, b))) = (a.split_last(), b.split_last()) else { return 0.0 };
        let dot = (self.kernels.dot_pair)(zerocopy::IntoBytes::as_bytes(a), zerocopy::IntoBytes::as_bytes(b))
            as f32;
        let (fa, fb) = (Extra::read(fa), Extra::read(fb));
        // The symmetric terms of `fixed + beta * bias - alpha * scale * dot`; max() also turns a NaN into zero.
        (fa.fixed + fa.beta * fb.bias - fa.alpha * fb.scale * dot).max(0.0)
    }
}

/// The factors' line.
struct Extra {
    fixed: f32,
    alpha: f32,
    beta: f32,
    scale: f32,
    bias: f32,
}

impl Extra {
    #[inline]
    fn read(line: &Line) -> Self {
        let at = |i: usize| crate::codes::f32_at(&line.0, i as u32);
        Self { fixed: at(0), alpha: at(1), beta: at(2), scale: at(3), bias: at(4) }
    }

    fn write(&self) -> Line {
        let mut line = Line([0; 64]);
        let values = [self.fixed, self.alpha, self.beta, self.scale, self.bias];
        for (to, v) in line.0.chunks_exact_mut(4).zip(values) {
            to.copy_from_slice(&v.to_le_bytes());
        }
        line
    }
}

/// A graph over some of the points.
#[derive(Debug, Default)]
pub(crate) struct Base {
    /// Layers from 0 up: for each member, in the order given, its neighbours by point number.
    pub(crate) layers: Vec<Vec<(u32, Vec<u32>)>>,
    /// The point of the highest level that was inserted first.
    pub(crate) entry: Option<u32>,
}

/// Builds a graph over `members` in that order. `tick` is called after every insertion; `false` cancels.
pub(crate) fn build_base(
    points: &Points,
    members: &[u32],
    m: usize,
    ef_construction: usize,
    tick: &(dyn Fn() -> bool + Sync),
) -> Result<Base, IndexError> {
    let Some(first) = members.first() else { return Ok(Base::default()) };
    let hnsw = Hnsw::<Line, CodeDistance>::new(
        m,
        members.len(),
        16,
        ef_construction,
        CodeDistance { kernels: points.kernels() },
    );
    let mut data = Vec::with_capacity(points.stride / 64 + 1);
    for point in members {
        let f = points.factors(*point);
        data.clear();
        data.extend_from_slice(points.code_lines(*point));
        data.push(
            Extra {
                fixed: f.fixed,
                alpha: f.alpha,
                beta: f.beta,
                scale: crate::codes::f32_at(&points.scale, *point),
                bias: crate::codes::f32_at(&points.pair_bias, *point),
            }
            .write(),
        );
        hnsw.insert_slice((&data, *point as usize));
        if !tick() {
            return Err(IndexError::Cancelled);
        }
    }
    let mut base = Base {
        layers: vec![Vec::new(); usize::from(hnsw.get_max_level_observed()) + 1],
        entry: Some(*first),
    };
    let mut best_level = None;
    for point in hnsw.get_point_indexation() {
        let level = usize::from(point.get_point_id().0);
        // In a serial build the first point of the highest level is where descents start.
        if best_level.is_none_or(|(l, rank)| (level, -point.get_point_id().1) > (l, rank)) {
            best_level = Some((level, -point.get_point_id().1));
            base.entry = Some(point.get_origin_id() as u32);
        }
        // Lists above the point's own level are entry hints of the insertion, not links.
        for (layer, neighbours) in base.layers.iter_mut().zip(point.get_neighborhood_id()).take(level + 1) {
            let links = neighbours
                .iter()
                .map(|n| n.d_id as u32)
                .filter(|n| *n as usize != point.get_origin_id())
                .collect();
            layer.push((point.get_origin_id() as u32, links));
        }
    }
    Ok(base)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Metric, OwnedRows, Rows};

    #[test]
    fn distances_are_symmetric_and_match_the_rows() {
        let mut rows = OwnedRows::new(3);
        let values = [[1.0f32, 0.0, 0.0], [0.0, 2.0, 0.0], [3.0, 4.0, 0.0], [0.0; 3]];
        for (i, v) in values.iter().enumerate() {
            rows.push(i as u64, v);
        }
        for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
            let points = Points::read(&rows, 3, &[0, 1, 2, 3], metric).expect("rows are whole");
            let base = build_base(&points, &[0, 1, 2, 3], 16, 50, &|| true).expect("four points");
            assert_eq!(base.layers[0].len(), rows.len() as usize);
            for (point, links) in &base.layers[0] {
                let mut links = links.clone();
                links.sort_unstable();
                let others: Vec<u32> = (0..4).filter(|p| p != point).collect();
                assert_eq!(links, others, "{metric}");
            }
        }
    }
}
