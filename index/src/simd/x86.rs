//! AVX-512 VNNI and AVX2 kernels.
#![expect(unsafe_code, reason = "std::arch intrinsics; callers see safe functions that check lengths")]

use std::arch::x86_64::*;

use super::portable::{ordered_from, row};
use super::{CodeRun, CodeTable, GROUP, Kernels, Ordered, OrderedSums, QueryNumbers};

/// Rows asked for ahead of the one being summed: all new links of a node at once. They go to the second-level cache,
/// which takes far more requests at a time than the first: a third faster on Zen 4 than 8 rows ahead into the first.
const AHEAD: usize = 32;

const AVX512: Kernels = Kernels {
    name: "avx512vnni",
    dots: dots_avx512,
    dot_pair: dot_pair_avx512,
    estimates: estimates_avx512,
    code_query: code_query_avx2,
    ordered: ordered_avx2,
    fast: fast_avx512,
};

const AVX2: Kernels = Kernels {
    name: "avx2",
    dots: dots_avx2,
    dot_pair: dot_pair_avx2,
    estimates: estimates_avx2,
    code_query: code_query_avx2,
    ordered: ordered_avx2,
    fast: fast_avx2,
};

/// Adds the sets this processor can run, best first. The functions in a set are only reachable through it.
pub(super) fn push_available(sets: &mut Vec<Kernels>) {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    if avx2
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
    {
        sets.push(AVX512);
    }
    if avx2 {
        sets.push(AVX2);
    }
}

/// Asks for bytes soon to be used, into the first-level cache.
#[inline]
pub(super) fn prefetch(bytes: &[u8], start: usize, len: usize) {
    lines(bytes, start, len, |at| {
        // SAFETY: `at` points inside a slice; a prefetch reads nothing and cannot fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    });
}

/// Asks for more bytes than the first level can wait for, into the second-level cache.
#[inline]
pub(super) fn prefetch_many(bytes: &[u8], start: usize, len: usize) {
    lines(bytes, start, len, |at| {
        // SAFETY: `at` points inside a slice; a prefetch reads nothing and cannot fault.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
    });
}

/// Calls `each` for every 64 bytes of a part; does nothing when the part is not inside `bytes`.
#[inline]
fn lines(bytes: &[u8], start: usize, len: usize, each: impl Fn(*const u8)) {
    let Some(part) = start.checked_add(len).and_then(|end| bytes.get(start..end)) else { return };
    for line in part.chunks(64) {
        each(line.as_ptr());
    }
}

fn dots_avx512(query: &[i8], table: CodeTable<'_>, nodes: &[u32], out: &mut [i32]) {
    assert!(query.len() == table.stride && table.stride % 64 == 0 && out.len() >= nodes.len());
    // SAFETY: this function is only in the AVX512 set, which `push_available` offers after detecting the features.
    unsafe { dots_avx512_inner(query, table, nodes, out) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2")]
fn dots_avx512_inner(query: &[i8], table: CodeTable<'_>, nodes: &[u32], out: &mut [i32]) {
    let stride = table.stride;
    for node in nodes.iter().take(AHEAD) {
        prefetch_many(table.bytes, (*node as usize).wrapping_mul(stride), stride);
    }
    let mut i = 0;
    while i + 4 <= nodes.len() {
        for node in nodes.iter().skip(i + AHEAD).take(4) {
            prefetch_many(table.bytes, (*node as usize).wrapping_mul(stride), stride);
        }
        let rows = [
            row(&table, nodes[i]),
            row(&table, nodes[i + 1]),
            row(&table, nodes[i + 2]),
            row(&table, nodes[i + 3]),
        ];
        if let [Some(a), Some(b), Some(c), Some(d)] = rows {
            let (mut s0, mut s1, mut s2, mut s3) = (
                _mm512_setzero_si512(),
                _mm512_setzero_si512(),
                _mm512_setzero_si512(),
                _mm512_setzero_si512(),
            );
            let mut at = 0;
            while at < stride {
                // SAFETY: query and all four rows are `stride` bytes long, `stride` a multiple of 64, `at < stride`.
                let (q, va, vb, vc, vd) = unsafe {
                    (
                        _mm512_loadu_si512(query.as_ptr().add(at).cast()),
                        _mm512_loadu_si512(a.as_ptr().add(at).cast()),
                        _mm512_loadu_si512(b.as_ptr().add(at).cast()),
                        _mm512_loadu_si512(c.as_ptr().add(at).cast()),
                        _mm512_loadu_si512(d.as_ptr().add(at).cast()),
                    )
                };
                s0 = _mm512_dpbusd_epi32(s0, va, q);
                s1 = _mm512_dpbusd_epi32(s1, vb, q);
                s2 = _mm512_dpbusd_epi32(s2, vc, q);
                s3 = _mm512_dpbusd_epi32(s3, vd, q);
                at += 64;
            }
            let sums = sum4_avx2(fold512(s0), fold512(s1), fold512(s2), fold512(s3));
            // SAFETY: `i + 4 <= nodes.len() <= out.len()`.
            unsafe { _mm_storeu_si128(out.as_mut_ptr().add(i).cast(), sums) };
        } else {
            for (j, r) in rows.iter().enumerate() {
                out[i + j] = r.map_or(0, |r| dot_one_avx512(query, r));
            }
        }
        i += 4;
    }
    for j in i..nodes.len() {
        out[j] = row(&table, nodes[j]).map_or(0, |r| dot_one_avx512(query, r));
    }
}

fn estimates_avx512(query: &[i8], alpha: f32, correction: i32, run: CodeRun<'_>, out: &mut [f32]) -> f32 {
    check_run(query, &run, out);
    // SAFETY: only in the AVX512 set, offered after detecting the features.
    unsafe { estimates_avx512_inner(query, alpha, correction, run, out) }
}

/// Everything that the kernels for runs rely on.
fn check_run(query: &[i8], run: &CodeRun<'_>, out: &[f32]) {
    let count = run.steps.len();
    assert!(query.len() == run.stride && run.stride % 64 == 0 && run.stride > 0);
    assert!(run.codes.len() / run.stride >= count && run.biases.len() == count && out.len() >= count);
}

/// Estimates of four rows from their dots.
#[inline]
#[target_feature(enable = "avx2")]
fn estimates4(dots: __m128i, correction: __m128i, alpha: __m128, step: __m128, bias: __m128) -> __m128 {
    let dots = _mm_cvtepi32_ps(_mm_sub_epi32(dots, correction));
    _mm_sub_ps(bias, _mm_mul_ps(step, _mm_mul_ps(alpha, dots)))
}

/// The least of four; those that were no numbers lost to the other side of each comparison before.
#[inline]
#[target_feature(enable = "avx2")]
fn least4(v: __m128) -> f32 {
    let v = _mm_min_ps(v, _mm_shuffle_ps::<0b01_00_11_10>(v, v));
    _mm_cvtss_f32(_mm_min_ss(v, _mm_shuffle_ps::<0b10_11_00_01>(v, v)))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2")]
fn estimates_avx512_inner(
    query: &[i8],
    alpha: f32,
    correction: i32,
    run: CodeRun<'_>,
    out: &mut [f32],
) -> f32 {
    let (count, stride) = (run.steps.len(), run.stride);
    let wide = (_mm_set1_epi32(correction), _mm_set1_ps(alpha));
    let mut least = _mm_set1_ps(f32::INFINITY);
    let fours = count / 4;
    for four in 0..fours {
        let i = 4 * four;
        let mut sums = [_mm512_setzero_si512(); 4];
        let mut at = 0;
        while at < stride {
            // SAFETY: `check_run` was asked: the query has `stride` bytes, a multiple of 64, and there are codes of `count`
            // rows of that many, of which `i + 3` is one.
            unsafe {
                let q = _mm512_loadu_si512(query.as_ptr().add(at).cast());
                for (j, sum) in sums.iter_mut().enumerate() {
                    let row = _mm512_loadu_si512(run.codes.as_ptr().add((i + j) * stride + at).cast());
                    *sum = _mm512_dpbusd_epi32(*sum, row, q);
                }
            }
            at += 64;
        }
        let [s0, s1, s2, s3] = sums;
        let dots = sum4_avx2(fold512(s0), fold512(s1), fold512(s2), fold512(s3));
        // SAFETY: steps, biases and places for `count` rows, of which `i + 3` is one.
        unsafe {
            let (step, bias) =
                (_mm_loadu_ps(run.steps.as_ptr().add(i)), _mm_loadu_ps(run.biases.as_ptr().add(i)));
            let found = estimates4(dots, wide.0, wide.1, step, bias);
            _mm_storeu_ps(out.as_mut_ptr().add(i), found);
            // The second operand stays where the first is no number.
            least = _mm_min_ps(found, least);
        }
    }
    let mut least = least4(least);
    for (i, to) in out.iter_mut().enumerate().take(count).skip(4 * fours) {
        let codes = run.codes.get(i * stride..(i + 1) * stride).unwrap_or(&[]);
        let dot = dot_one_avx512(query, codes).wrapping_sub(correction) as f32;
        *to = run.biases[i] - run.steps[i] * (alpha * dot);
        least = least.min(*to);
    }
    least
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2")]
fn dot_one_avx512(query: &[i8], codes: &[u8]) -> i32 {
    let mut sum = _mm512_setzero_si512();
    for (q, c) in query.chunks_exact(64).zip(codes.chunks_exact(64)) {
        // SAFETY: both chunks are 64 bytes.
        let (q, c) =
            unsafe { (_mm512_loadu_si512(q.as_ptr().cast()), _mm512_loadu_si512(c.as_ptr().cast())) };
        sum = _mm512_dpbusd_epi32(sum, c, q);
    }
    _mm512_reduce_add_epi32(sum)
}

#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn fold512(v: __m512i) -> __m256i {
    _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64::<1>(v))
}

/// The four totals of four registers of eight sums.
#[inline]
#[target_feature(enable = "avx2")]
fn sum4_avx2(a: __m256i, b: __m256i, c: __m256i, d: __m256i) -> __m128i {
    let ab = _mm256_hadd_epi32(a, b);
    let cd = _mm256_hadd_epi32(c, d);
    let all = _mm256_hadd_epi32(ab, cd);
    _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all))
}

fn dot_pair_avx512(a: &[u8], b: &[u8]) -> i32 {
    // SAFETY: only in the AVX512 set, offered after detecting the features.
    unsafe { dot_pair_avx512_inner(a, b) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2")]
fn dot_pair_avx512_inner(a: &[u8], b: &[u8]) -> i32 {
    let flip = _mm512_set1_epi8(-128);
    let bias = _mm512_set1_epi8(-128);
    let (mut sum, mut fix) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    for (x, y) in a.chunks_exact(64).zip(b.chunks_exact(64)) {
        // SAFETY: both chunks are 64 bytes.
        let (x, y) =
            unsafe { (_mm512_loadu_si512(x.as_ptr().cast()), _mm512_loadu_si512(y.as_ptr().cast())) };
        let signed = _mm512_xor_si512(x, flip);
        sum = _mm512_dpbusd_epi32(sum, y, signed);
        // 128 as an unsigned byte times the signed component: what the bias of `y` added too much.
        fix = _mm512_dpbusd_epi32(fix, bias, signed);
    }
    _mm512_reduce_add_epi32(_mm512_sub_epi32(sum, fix))
}

fn dots_avx2(query: &[i8], table: CodeTable<'_>, nodes: &[u32], out: &mut [i32]) {
    assert!(query.len() == table.stride && table.stride % 64 == 0 && out.len() >= nodes.len());
    // SAFETY: only in the AVX2 set, offered after detecting the features.
    unsafe { dots_avx2_inner(query, table, nodes, out) }
}

#[target_feature(enable = "avx2,fma")]
fn dots_avx2_inner(query: &[i8], table: CodeTable<'_>, nodes: &[u32], out: &mut [i32]) {
    let stride = table.stride;
    for node in nodes.iter().take(AHEAD) {
        prefetch_many(table.bytes, (*node as usize).wrapping_mul(stride), stride);
    }
    for (i, (node, to)) in nodes.iter().zip(out.iter_mut()).enumerate() {
        if let Some(next) = nodes.get(i + AHEAD) {
            prefetch_many(table.bytes, (*next as usize).wrapping_mul(stride), stride);
        }
        let Some(codes) = row(&table, *node) else {
            *to = 0;
            continue;
        };
        *to = dot_one_avx2(query, codes);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn dot_one_avx2(query: &[i8], codes: &[u8]) -> i32 {
    let (mut s0, mut s1) = (_mm256_setzero_si256(), _mm256_setzero_si256());
    for (q, c) in query.chunks_exact(32).zip(codes.chunks_exact(32)) {
        // SAFETY: both chunks are 32 bytes.
        let (q, c) =
            unsafe { (_mm256_loadu_si256(q.as_ptr().cast()), _mm256_loadu_si256(c.as_ptr().cast())) };
        // Widened to 16 bits before multiplying: `maddubs` would saturate.
        s0 = _mm256_add_epi32(
            s0,
            _mm256_madd_epi16(
                _mm256_cvtepu8_epi16(_mm256_castsi256_si128(c)),
                _mm256_cvtepi8_epi16(_mm256_castsi256_si128(q)),
            ),
        );
        s1 = _mm256_add_epi32(
            s1,
            _mm256_madd_epi16(
                _mm256_cvtepu8_epi16(_mm256_extracti128_si256::<1>(c)),
                _mm256_cvtepi8_epi16(_mm256_extracti128_si256::<1>(q)),
            ),
        );
    }
    reduce_avx2(_mm256_add_epi32(s0, s1))
}

fn estimates_avx2(query: &[i8], alpha: f32, correction: i32, run: CodeRun<'_>, out: &mut [f32]) -> f32 {
    check_run(query, &run, out);
    // SAFETY: only in the AVX2 set, offered after detecting the features.
    unsafe { estimates_avx2_inner(query, alpha, correction, run, out) }
}

#[target_feature(enable = "avx2,fma")]
fn estimates_avx2_inner(query: &[i8], alpha: f32, correction: i32, run: CodeRun<'_>, out: &mut [f32]) -> f32 {
    let mut least = f32::INFINITY;
    for (i, codes) in run.codes.chunks_exact(run.stride).take(run.steps.len()).enumerate() {
        let dot = dot_one_avx2(query, codes).wrapping_sub(correction) as f32;
        out[i] = run.biases[i] - run.steps[i] * (alpha * dot);
        least = least.min(out[i]);
    }
    least
}

fn code_query_avx2(
    q: &[f32],
    weight: f32,
    centre: &[f32],
    rest: &mut [f32],
    codes: &mut [i8],
) -> QueryNumbers {
    // SAFETY: only in the AVX sets, offered after detecting the features.
    unsafe { code_query_avx2_inner(q, weight, centre, rest, codes) }
}

/// The portable loops compiled for AVX2.
#[target_feature(enable = "avx2,fma")]
fn code_query_avx2_inner(
    q: &[f32],
    weight: f32,
    centre: &[f32],
    rest: &mut [f32],
    codes: &mut [i8],
) -> QueryNumbers {
    super::portable::coded(q, weight, centre, rest, codes)
}

#[inline]
#[target_feature(enable = "avx2")]
fn reduce_avx2(v: __m256i) -> i32 {
    let s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    let s = _mm_add_epi32(s, _mm_shuffle_epi32::<0b01_00_11_10>(s));
    let s = _mm_add_epi32(s, _mm_shuffle_epi32::<0b10_11_00_01>(s));
    _mm_cvtsi128_si32(s)
}

fn dot_pair_avx2(a: &[u8], b: &[u8]) -> i32 {
    // SAFETY: only in the AVX2 set, offered after detecting the features.
    unsafe { dot_pair_avx2_inner(a, b) }
}

#[target_feature(enable = "avx2,fma")]
fn dot_pair_avx2_inner(a: &[u8], b: &[u8]) -> i32 {
    let flip = _mm256_set1_epi8(-128);
    let mut sum = _mm256_setzero_si256();
    for (x, y) in a.chunks_exact(32).zip(b.chunks_exact(32)) {
        // SAFETY: both chunks are 32 bytes.
        let (x, y) =
            unsafe { (_mm256_loadu_si256(x.as_ptr().cast()), _mm256_loadu_si256(y.as_ptr().cast())) };
        let (x, y) = (_mm256_xor_si256(x, flip), _mm256_xor_si256(y, flip));
        let low = _mm256_madd_epi16(
            _mm256_cvtepi8_epi16(_mm256_castsi256_si128(x)),
            _mm256_cvtepi8_epi16(_mm256_castsi256_si128(y)),
        );
        let high = _mm256_madd_epi16(
            _mm256_cvtepi8_epi16(_mm256_extracti128_si256::<1>(x)),
            _mm256_cvtepi8_epi16(_mm256_extracti128_si256::<1>(y)),
        );
        sum = _mm256_add_epi32(sum, _mm256_add_epi32(low, high));
    }
    reduce_avx2(sum)
}

fn ordered_avx2(kind: Ordered, q: &[f32], rows: &[&[u8]; GROUP], out: &mut [OrderedSums; GROUP]) {
    assert!(rows.iter().all(|r| r.len() >= 4 * q.len()));
    // SAFETY: only in the AVX sets, offered after detecting the features.
    unsafe { ordered_avx2_inner(kind, q, rows, out) }
}

/// Eight rows by eight components are transposed in registers, then each lane adds its row's components in order.
/// Multiply and add stay separate instructions: a fused one would round once and give other bits.
#[target_feature(enable = "avx2")]
fn ordered_avx2_inner(kind: Ordered, q: &[f32], rows: &[&[u8]; GROUP], out: &mut [OrderedSums; GROUP]) {
    let blocks = q.len() / 8;
    let (mut first, mut squares) = (_mm256_setzero_ps(), _mm256_setzero_ps());
    for block in 0..blocks {
        // SAFETY: every row has at least `4 * q.len()` bytes, and the block ends at component `8 * block + 8 <= q.len()`.
        let r: [__m256; 8] =
            std::array::from_fn(|i| unsafe { _mm256_loadu_ps(rows[i].as_ptr().add(32 * block).cast()) });
        let columns = transpose8(r);
        for (j, column) in columns.into_iter().enumerate() {
            let a = _mm256_set1_ps(q[8 * block + j]);
            match kind {
                Ordered::Difference => {
                    let d = _mm256_sub_ps(a, column);
                    first = _mm256_add_ps(first, _mm256_mul_ps(d, d));
                }
                Ordered::Dot => first = _mm256_add_ps(first, _mm256_mul_ps(a, column)),
                Ordered::DotAndSquares => {
                    first = _mm256_add_ps(first, _mm256_mul_ps(a, column));
                    squares = _mm256_add_ps(squares, _mm256_mul_ps(column, column));
                }
            }
        }
    }
    let (mut f, mut s) = ([0.0f32; 8], [0.0f32; 8]);
    // SAFETY: both arrays hold eight f32.
    unsafe {
        _mm256_storeu_ps(f.as_mut_ptr(), first);
        _mm256_storeu_ps(s.as_mut_ptr(), squares);
    }
    for ((sums, f), s) in out.iter_mut().zip(f).zip(s) {
        *sums = OrderedSums { first: f, squares: s };
    }
    ordered_from(8 * blocks, kind, q, rows, out);
}

#[inline]
#[target_feature(enable = "avx2")]
fn transpose8(r: [__m256; 8]) -> [__m256; 8] {
    let (a0, a1) = (_mm256_unpacklo_ps(r[0], r[1]), _mm256_unpackhi_ps(r[0], r[1]));
    let (a2, a3) = (_mm256_unpacklo_ps(r[2], r[3]), _mm256_unpackhi_ps(r[2], r[3]));
    let (a4, a5) = (_mm256_unpacklo_ps(r[4], r[5]), _mm256_unpackhi_ps(r[4], r[5]));
    let (a6, a7) = (_mm256_unpacklo_ps(r[6], r[7]), _mm256_unpackhi_ps(r[6], r[7]));
    let b0 = _mm256_shuffle_ps::<0x44>(a0, a2);
    let b1 = _mm256_shuffle_ps::<0xEE>(a0, a2);
    let b2 = _mm256_shuffle_ps::<0x44>(a1, a3);
    let b3 = _mm256_shuffle_ps::<0xEE>(a1, a3);
    let b4 = _mm256_shuffle_ps::<0x44>(a4, a6);
    let b5 = _mm256_shuffle_ps::<0xEE>(a4, a6);
    let b6 = _mm256_shuffle_ps::<0x44>(a5, a7);
    let b7 = _mm256_shuffle_ps::<0xEE>(a5, a7);
    [
        _mm256_permute2f128_ps::<0x20>(b0, b4),
        _mm256_permute2f128_ps::<0x20>(b1, b5),
        _mm256_permute2f128_ps::<0x20>(b2, b6),
        _mm256_permute2f128_ps::<0x20>(b3, b7),
        _mm256_permute2f128_ps::<0x31>(b0, b4),
        _mm256_permute2f128_ps::<0x31>(b1, b5),
        _mm256_permute2f128_ps::<0x31>(b2, b6),
        _mm256_permute2f128_ps::<0x31>(b3, b7),
    ]
}

fn fast_avx512(kind: Ordered, q: &[f32], row: &[u8]) -> (f32, f32) {
    assert!(row.len() >= 4 * q.len());
    // SAFETY: only in the AVX512 set, offered after detecting the features.
    unsafe { fast_avx512_inner(kind, q, row) }
}

#[target_feature(enable = "avx512f,avx2,fma")]
fn fast_avx512_inner(kind: Ordered, q: &[f32], row: &[u8]) -> (f32, f32) {
    let z = _mm512_setzero_ps();
    let (mut first, mut squares) = ([z; 2], [z; 2]);
    let mut at = 0;
    let mut turn = 0;
    while at < q.len() {
        let left = q.len() - at;
        let mask: __mmask16 = if left >= 16 { u16::MAX } else { (1u16 << left) - 1 };
        // SAFETY: masked-off lanes are not read; the others lie below `q.len()` components of both.
        let (a, b) = unsafe {
            (
                _mm512_maskz_loadu_ps(mask, q.as_ptr().add(at)),
                _mm512_maskz_loadu_ps(mask, row.as_ptr().cast::<f32>().add(at)),
            )
        };
        if kind == Ordered::Difference {
            let d = _mm512_sub_ps(a, b);
            first[turn] = _mm512_fmadd_ps(d, d, first[turn]);
        } else {
            first[turn] = _mm512_fmadd_ps(a, b, first[turn]);
            squares[turn] = _mm512_fmadd_ps(b, b, squares[turn]);
        }
        turn ^= 1;
        at += 16;
    }
    (
        _mm512_reduce_add_ps(_mm512_add_ps(first[0], first[1])),
        _mm512_reduce_add_ps(_mm512_add_ps(squares[0], squares[1])),
    )
}

fn fast_avx2(kind: Ordered, q: &[f32], row: &[u8]) -> (f32, f32) {
    assert!(row.len() >= 4 * q.len());
    // SAFETY: only in the AVX2 set, offered after detecting the features.
    unsafe { fast_avx2_inner(kind, q, row) }
}

/// The portable loop compiled for AVX2.
#[target_feature(enable = "avx2,fma")]
fn fast_avx2_inner(kind: Ordered, q: &[f32], row: &[u8]) -> (f32, f32) {
    super::portable::fast(kind, q, row)
}
