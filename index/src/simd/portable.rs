//! Kernels in plain Rust, for any processor; also what the others are tested against.

use super::{CodeRun, CodeTable, GROUP, Kernels, Ordered, OrderedSums, QueryNumbers};

pub(super) const KERNELS: Kernels =
    Kernels { name: "portable", dots, dot_pair, estimates, code_query, ordered, fast };

/// Magnitudes below this are coded as zero.
const LEAST: f32 = 1e-30;

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

fn estimates(query: &[i8], alpha: f32, correction: i32, run: CodeRun<'_>, out: &mut [f32]) -> f32 {
    let mut least = f32::INFINITY;
    let rows = run.codes.chunks_exact(run.stride.max(1));
    for (((codes, step), bias), to) in rows.zip(run.steps).zip(run.biases).zip(out) {
        let dot: i32 = codes.iter().zip(query).map(|(c, q)| i32::from(*c) * i32::from(*q)).sum();
        *to = bias - step * (alpha * dot.wrapping_sub(correction) as f32);
        least = least.min(*to);
    }
    least
}

fn code_query(q: &[f32], weight: f32, centre: &[f32], rest: &mut [f32], codes: &mut [i8]) -> QueryNumbers {
    coded(q, weight, centre, rest, codes)
}

/// Sums and maxima go in eight parts side by side, which the compiler turns into registers.
#[inline(always)]
pub(super) fn coded(
    q: &[f32],
    weight: f32,
    centre: &[f32],
    rest: &mut [f32],
    codes: &mut [i8],
) -> QueryNumbers {
    const WIDE: usize = 8;
    let (mut max, mut length2) = ([0.0f32; WIDE], [0.0f32; WIDE]);
    let mut one = |i: usize, q: f32, c: f32, to: &mut f32| {
        let x = q * weight - c;
        *to = x;
        max[i] = if x.abs() > max[i] { x.abs() } else { max[i] };
        length2[i] += x * x;
    };
    let ((qs, q_end), (cs, c_end)) = (q.as_chunks::<WIDE>(), centre.as_chunks::<WIDE>());
    let (to, to_end) = rest.as_chunks_mut::<WIDE>();
    for ((q, c), to) in qs.iter().zip(cs).zip(to) {
        for i in 0..WIDE {
            one(i, q[i], c[i], &mut to[i]);
        }
    }
    for (((i, q), c), to) in (0..WIDE).zip(q_end).zip(c_end).zip(to_end) {
        one(i, *q, *c, to);
    }
    let max = max.iter().fold(0.0f32, |all, part| if *part > all { *part } else { all });
    let (step, inverse) = if max > LEAST { (max / 127.0, 127.0 / max) } else { (0.0, 0.0) };
    let (mut rest2, mut total, mut integers) = ([0.0f32; WIDE], [0i32; WIDE], [0i32; WIDE]);
    let mut one = |i: usize, x: &mut f32, to: &mut i8| {
        // Adding 1.5 * 2^23 leaves the rounded integer in the low bits.
        let m = ((*x * inverse + 12_582_912.0) - 12_582_912.0).clamp(-127.0, 127.0);
        *x -= step * m;
        rest2[i] += *x * *x;
        let m = m as i32;
        *to = m as i8;
        total[i] += m;
        integers[i] += m * m;
    };
    let ((xs, x_end), (to, to_end)) = (rest.as_chunks_mut::<WIDE>(), codes.as_chunks_mut::<WIDE>());
    for (x, to) in xs.iter_mut().zip(to) {
        for i in 0..WIDE {
            one(i, &mut x[i], &mut to[i]);
        }
    }
    for ((i, x), to) in (0..WIDE).zip(x_end).zip(to_end) {
        one(i, x, to);
    }
    QueryNumbers {
        step,
        length2: length2.iter().sum(),
        rest2: rest2.iter().sum(),
        total: total.iter().sum(),
        integers: integers.iter().sum(),
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
