//! NEON kernels for the integer dots; the f32 ones stay portable, whose inner loops the compiler vectorises there.
#![expect(unsafe_code, reason = "std::arch intrinsics; callers see safe functions that check lengths")]

use std::arch::aarch64::*;

use super::portable::{self, row};
use super::{CodeRun, CodeTable, Kernels};

pub(super) fn push_available(sets: &mut Vec<Kernels>) {
    if std::arch::is_aarch64_feature_detected!("neon") {
        sets.push(Kernels { name: "neon", dots, dot_pair, estimates, ..portable::KERNELS });
    }
}

fn dots(query: &[i8], table: CodeTable<'_>, nodes: &[u32], out: &mut [i32]) {
    assert!(query.len() == table.stride);
    for (node, to) in nodes.iter().zip(out) {
        // SAFETY: only in the NEON set, offered after detecting the feature.
        *to = row(&table, *node).map_or(0, |codes| unsafe { dot_unsigned(query, codes) });
    }
}

fn estimates(query: &[i8], alpha: f32, correction: i32, run: CodeRun<'_>, out: &mut [f32]) -> f32 {
    let mut least = f32::INFINITY;
    let rows = run.codes.chunks_exact(run.stride.max(1));
    for (((codes, step), bias), to) in rows.zip(run.steps).zip(run.biases).zip(out) {
        // SAFETY: only in the NEON set, offered after detecting the feature.
        let dot = unsafe { dot_unsigned(query, codes) };
        *to = bias - step * (alpha * dot.wrapping_sub(correction) as f32);
        least = least.min(*to);
    }
    least
}

/// Codes are unsigned with bias 128: flipped to signed, multiplied to 16 bits, summed to 32, and the bias added back.
#[target_feature(enable = "neon")]
fn dot_unsigned(query: &[i8], codes: &[u8]) -> i32 {
    let flip = vdupq_n_u8(0x80);
    let (mut sum, mut bias) = (vdupq_n_s32(0), vdupq_n_s32(0));
    for (q, c) in query.chunks_exact(16).zip(codes.chunks_exact(16)) {
        // SAFETY: both chunks are 16 bytes.
        let (q, c) = unsafe { (vld1q_s8(q.as_ptr()), vld1q_u8(c.as_ptr())) };
        let s = vreinterpretq_s8_u8(veorq_u8(c, flip));
        sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(q), vget_low_s8(s)));
        sum = vpadalq_s16(sum, vmull_s8(vget_high_s8(q), vget_high_s8(s)));
        bias = vpadalq_s16(bias, vpaddlq_s8(q));
    }
    vaddvq_s32(sum) + 128 * vaddvq_s32(bias)
}

fn dot_pair(a: &[u8], b: &[u8]) -> i32 {
    // SAFETY: only in the NEON set, offered after detecting the feature.
    unsafe { dot_signed(a, b) }
}

#[target_feature(enable = "neon")]
fn dot_signed(a: &[u8], b: &[u8]) -> i32 {
    let flip = vdupq_n_u8(0x80);
    let mut sum = vdupq_n_s32(0);
    for (x, y) in a.chunks_exact(16).zip(b.chunks_exact(16)) {
        // SAFETY: both chunks are 16 bytes.
        let (x, y) = unsafe { (vld1q_u8(x.as_ptr()), vld1q_u8(y.as_ptr())) };
        let (x, y) = (vreinterpretq_s8_u8(veorq_u8(x, flip)), vreinterpretq_s8_u8(veorq_u8(y, flip)));
        sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(x), vget_low_s8(y)));
        sum = vpadalq_s16(sum, vmull_s8(vget_high_s8(x), vget_high_s8(y)));
    }
    vaddvq_s32(sum)
}
