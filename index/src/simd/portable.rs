//! Kernels in plain Rust, for any processor; also what the others are tested against.

use super::{CodeTable, GROUP, Kernels, Ordered, OrderedSums};

pub(super) const KERNELS: Kernels = Kernels { name: "portable", dots, dot_pair, ordered, fast };

/// The code row of a node, or nothing when the node is out of range.
#[inline]
pub(super) fn row<'a>(table: &CodeTable<'a>, node: u32) -> Option<&'a [u8]> {
    let start = (node as usize).checked_mul(table.stride)?;
    table.bytes.get(start..start.checked_add(table.stride)?)
}

fn dots(query: &[i8], table: CodeTable<'_>, nodes: &[u32], out: &mut [i32]) {
    for (node, to) in nodes.iter().zip(out) {
        *to = row(&table, *node)
            .map_or(0, |codes| codes.iter().zip(query).map(|(c, q)| i32::from(*c) * i32::from(*q)).sum());
    }
}

fn dot_pair(a: &[u8], b: &[u8]) -> i32 {
    a.iter()
        .zip(b)
        .map(|(a, b)| i32::from(*a ^ 0x80) as i8 as i32 * (i32::from(*b ^ 0x80) as i8 as i32))
        .sum()
}

#[inline]
fn component(row: &[u8], i: usize) -> f32 {
    row.get(4 * i..4 * i + 4).map_or(0.0, |c| f32::from_le_bytes([c[0], c[1], c[2], c[3]]))
}

/// Ends the sums of components `from..` one by one; the SIMD kernels use it for the tail.
pub(super) fn ordered_from(
    from: usize,
    kind: Ordered,
    q: &[f32],
    rows: &[&[u8]; GROUP],
    out: &mut [OrderedSums; GROUP],
) {
    // Components outside, rows inside: eight independent chains of additions hide each other's latency.
    for (i, a) in q.iter().enumerate().skip(from) {
        for (row, sums) in rows.iter().zip(out.iter_mut()) {
            let b = component(row, i);
            match kind {
                Ordered::Difference => {
                    let d = a - b;
                    sums.first += d * d;
                }
                Ordered::Dot => sums.first += a * b,
                Ordered::DotAndSquares => {
                    sums.first += a * b;
                    sums.squares += b * b;
                }
            }
        }
    }
}

fn ordered(kind: Ordered, q: &[f32], rows: &[&[u8]; GROUP], out: &mut [OrderedSums; GROUP]) {
    *out = [OrderedSums::default(); GROUP];
    ordered_from(0, kind, q, rows, out);
}

/// Sixteen accumulators, which the compiler turns into whatever vectors the target has.
pub(super) fn fast(kind: Ordered, q: &[f32], row: &[u8]) -> (f32, f32) {
    let mut first = [0.0f32; 16];
    let mut squares = [0.0f32; 16];
    let whole = q.len() / 16 * 16;
    for (a, b) in q.chunks_exact(16).zip(row.chunks_exact(64)) {
        for j in 0..16 {
            let v = f32::from_le_bytes([b[4 * j], b[4 * j + 1], b[4 * j + 2], b[4 * j + 3]]);
            if kind == Ordered::Difference {
                let d = a[j] - v;
                first[j] += d * d;
            } else {
                first[j] += a[j] * v;
                squares[j] += v * v;
            }
        }
    }
    let (mut f, mut s) = (first.iter().sum::<f32>(), squares.iter().sum::<f32>());
    for (i, a) in q.iter().enumerate().skip(whole) {
        let v = component(row, i);
        if kind == Ordered::Difference {
            f += (a - v) * (a - v);
        } else {
            f += a * v;
            s += v * v;
        }
    }
    (f, s)
}
