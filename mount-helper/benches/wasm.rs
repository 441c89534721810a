//! What it costs that a WASM module answers a query, beside the same search compiled natively, in one run, as a Markdown table.
//!
//! ```text
//! cargo bench -p rvf-mount-helper --bench wasm -- [--rounds N] [--rows N] [--dim N] [--block BYTES]
//! ```
//! One pinned thread, CPU time; what is compared takes turns, round by round, and ratios are medians of the rounds' own. The native
//! loop is what a program would have without a sandbox: fast sums over the rows where they lie, the ten nearest kept in a
//! heap, for the same instruction set as WASM's 128-bit vectors. The module also computes the format's defined distances of what it
//! returns. Its rows are in its memory already, as in rvf-exec from the first of several queries on, or
//! are copied there, as there for a single query.

#[path = "../../tests/src/clock.rs"]
#[allow(dead_code, unreachable_pub, reason = "a module of the crate of the other benches")]
mod clock;

use std::collections::BinaryHeap;
use std::hint::black_box;
use std::process::ExitCode;

use clock::{median, pin, took};
use rvf_cow::Metric;
use rvf_kernel::QUERY_MODULE;
use rvf_mount_helper::cache::Cache;
use rvf_mount_helper::wasm::cache::{Compiled, KIND, key};
use rvf_mount_helper::wasm::guest::{Guest, Limits, compile, engine};
use rvf_mount_helper::wasm::query;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const K: usize = 10;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("wasm: {e}");
            ExitCode::FAILURE
        }
    }
}

fn option(name: &str, default: usize) -> usize {
    let words: Vec<String> = std::env::args().collect();
    let value = words.iter().position(|word| word == name).and_then(|at| words.get(at + 1));
    value.and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Rows as a VEC segment holds them.
fn records(rows: usize, dim: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut out = Vec::with_capacity(rows * (8 + 4 * dim));
    for id in 0..rows as u64 {
        out.extend_from_slice(&id.to_le_bytes());
        for _ in 0..dim {
            out.extend_from_slice(&number(&mut state).to_le_bytes());
        }
    }
    out
}

fn number(state: &mut u64) -> f32 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state % 2_000_001) as f32 / 1_000_000.0 - 1.0
}

/// Sixteen sums side by side, which the compiler puts into vectors.
#[inline(never)]
fn sums(metric: Metric, q: &[f32], row: &[u8]) -> (f32, f32) {
    let (mut first, mut squares) = ([0.0f32; 16], [0.0f32; 16]);
    let (rows, rest) = row.as_chunks::<64>();
    for (a, b) in q.chunks_exact(16).zip(rows) {
        for j in 0..16 {
            let b = f32::from_le_bytes([b[4 * j], b[4 * j + 1], b[4 * j + 2], b[4 * j + 3]]);
            if metric == Metric::L2 {
                let d = a[j] - b;
                first[j] += d * d;
            } else {
                first[j] += a[j] * b;
                squares[j] += b * b;
            }
        }
    }
    let (mut f, mut s) = (first.iter().sum::<f32>(), squares.iter().sum::<f32>());
    for (a, b) in q.chunks_exact(16).remainder().iter().zip(rest.as_chunks::<4>().0) {
        let b = f32::from_le_bytes(*b);
        f += if metric == Metric::L2 { (a - b) * (a - b) } else { a * b };
        s += b * b;
    }
    (f, s)
}

fn native(metric: Metric, q: &[f32], records: &[u8]) -> Vec<(u32, u64)> {
    let norm: f32 = q.iter().map(|a| a * a).sum();
    let mut heap = BinaryHeap::with_capacity(K + 1);
    for record in records.chunks_exact(8 + 4 * q.len()) {
        let (id, row) = record.split_at(8);
        let (first, squares) = sums(metric, q, row);
        let distance = match metric {
            Metric::L2 => first,
            Metric::InnerProduct => -first,
            Metric::Cosine => 1.0 - first / (norm * squares).sqrt(),
        };
        let bits = distance.to_bits();
        let key = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        if heap.len() < K || heap.peek().is_some_and(|(worst, _)| key < *worst) {
            let id = id.first_chunk::<8>().map_or(0, |id| u64::from_le_bytes(*id));
            heap.push((key, id));
            if heap.len() > K {
                heap.pop();
            }
        }
    }
    heap.into_sorted_vec()
}

fn run() -> Outcome<()> {
    let (rounds, rows, dim) = (option("--rounds", 31), option("--rows", 1000), option("--dim", 384));
    // Which CPU does not matter, only that it is one.
    if let Err(e) = pin(&[0]) {
        eprintln!("wasm: not pinned: {e}");
    }
    let records = records(rows, dim);
    let mut state = 88_172_645_463_325_252;
    let q: Vec<f32> = (0..dim).map(|_| number(&mut state)).collect();
    println!("{rows} x {dim} float32, k = {K}, CPU time, median of {rounds} rounds of 20 queries\n");
    println!("| metric | rows | native | WASM, no limits | ratio | WASM, fuel counted | ratio |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: |");
    let free = Limits { fuel: None, ..Limits::default() };
    let counted = Limits { fuel: Some(u64::MAX), ..Limits::default() };
    for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
        let mut guests = Vec::new();
        for limits in [free, counted] {
            let engine = engine(&limits)?;
            guests.push(Guest::new(&engine, &compile(&engine, QUERY_MODULE)?, &limits)?);
        }
        for held in [true, false] {
            let mut times: [Vec<f64>; 3] = Default::default();
            let mut ratios: [Vec<f64>; 2] = Default::default();
            for _ in 0..rounds {
                let (base, ()) = took(|| {
                    for _ in 0..20 {
                        black_box(native(metric, black_box(&q), black_box(&records)));
                    }
                });
                times[0].push(base.cpu.as_secs_f64() / 20.0);
                for (n, guest) in guests.iter_mut().enumerate() {
                    let time = asked(guest, metric, &q, &records, held)?;
                    times[n + 1].push(time);
                    ratios[n].push(time / (base.cpu.as_secs_f64() / 20.0));
                }
            }
            let us = |list: &Vec<f64>| format!("{:.1} us", median(list.clone()) * 1e6);
            let times: Vec<String> = times.iter().map(us).collect();
            let ratios: Vec<String> =
                ratios.iter().map(|list| format!("{:.2}", median(list.clone()))).collect();
            let place = if held { "in its memory" } else { "copied in" };
            println!(
                "| {metric:?} | {place} | {} | {} | {} | {} | {} |",
                times[0], times[1], ratios[0], times[2], ratios[1]
            );
        }
        let mut module = query::Microkernel::new(&mut guests[0])?;
        let ids: Vec<u64> =
            module.nearest_of(metric, &q, K, &records)?.hits.iter().map(|hit| hit.0).collect();
        if !native(metric, &q, &records).iter().map(|hit| hit.1).eq(ids) {
            eprintln!("wasm: {metric:?}: the two answers differ in ids");
        }
    }
    start(rounds, &counted)
}

/// Seconds a query, with all rows in the module's memory already, or copied there for each query.
fn asked(guest: &mut Guest, metric: Metric, q: &[f32], records: &[u8], held: bool) -> Outcome<f64> {
    let mut module = query::Microkernel::new(guest)?;
    if let Some(block) = option("--block", 0).checked_sub(1) {
        module = module.with_block(block + 1);
    }
    let held = if held {
        Some(module.hold_records(metric, q.len(), K, records)?.ok_or("the rows do not fit")?)
    } else {
        None
    };
    let (time, done) = took(|| -> Outcome<()> {
        for _ in 0..20 {
            let q = black_box(q);
            black_box(match &held {
                Some(held) => module.nearest_held(held, q)?,
                None => module.nearest_of(metric, q, K, black_box(records))?,
            });
        }
        Ok(())
    });
    done?;
    Ok(time.cpu.as_secs_f64() / 20.0)
}

/// What it takes from the module to the first call.
fn start(rounds: usize, limits: &Limits) -> Outcome<()> {
    let place = std::env::temp_dir().join(format!("rvf-bench-wasm-{}", std::process::id()));
    let cache = Cache::open(&KIND, &place)?;
    let (mut set_up, mut compiled, mut loaded) = (Vec::new(), Vec::new(), Vec::new());
    let us = |took: clock::Took| took.cpu.as_secs_f64() * 1e6;
    for _ in 0..rounds {
        let (time, made) = took(|| engine(limits));
        let engine = made?;
        set_up.push(us(time));
        let (time, made) = took(|| compile(&engine, QUERY_MODULE));
        let module = made?;
        compiled.push(us(time));
        let digest = [7; 32];
        let own = key(&engine, &digest);
        cache.put(&own, &module.serialize()?)?;
        let (time, done) = took(|| -> Outcome<()> {
            let own = key(&engine, &digest);
            let module = Compiled::kept(&cache, &own).ok_or("not kept")?.load(&engine)?;
            let mut guest = Guest::new(&engine, &module, limits)?;
            black_box(query::Microkernel::new(&mut guest)?);
            Ok(())
        });
        done?;
        loaded.push(us(time));
    }
    std::fs::remove_dir_all(&place)?;
    println!("\n| step | CPU time |\n| --- | --- |");
    println!("| engine set up | {:.0} us |", median(set_up));
    println!("| module compiled | {:.0} us |", median(compiled));
    println!("| compiled module found, checked, loaded, instance made | {:.0} us |", median(loaded));
    Ok(())
}
