//! Recall, speed and build cost on a data set in the layout of the Debian package embeddings.
//!
//! `bench_real DIR build IMAGE [threads] [ef_construction] [m]` builds an image over `base.f16.npy` and saves it.
//! `bench_real DIR search IMAGE [ef,ef,...] [rounds]` prints recall@10 and queries per CPU second for each `ef`, on even
//! queries (to choose by) and odd ones (to report). `bench_real DIR filters IMAGE` does `filters.json`.
//! Pin it to one CPU for figures: `taskset -c 1`.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use rvf_index::{Bitmap, BuildParams, Candidate, Image, Metric, NoProgress, Rows, Scratch, build};

/// Rows as a store has them: an id before each vector, so that vectors sit at odd multiples of two.
struct FileRows {
    bytes: Vec<u8>,
    ids: Vec<u64>,
    dim: usize,
}

impl Rows for FileRows {
    fn len(&self) -> u32 {
        self.ids.len() as u32
    }
    fn vector(&self, ordinal: u32) -> &[u8] {
        let start = 6 + ordinal as usize * (8 + 4 * self.dim) + 8;
        self.bytes.get(start..start + 4 * self.dim).unwrap_or(&[])
    }
    fn id(&self, ordinal: u32) -> u64 {
        self.ids.get(ordinal as usize).copied().unwrap_or(u64::MAX)
    }
}

fn cpu_seconds() -> f64 {
    cpu_time::ThreadTime::now().as_duration().as_secs_f64()
}

fn process_cpu_seconds() -> f64 {
    cpu_time::ProcessTime::now().as_duration().as_secs_f64()
}

/// Shape and data bytes of a C-order .npy file.
fn npy(path: &Path) -> Result<(Vec<usize>, Vec<u8>), Box<dyn Error>> {
    let all = std::fs::read(path)?;
    let header_len = usize::from(u16::from_le_bytes([all[8], all[9]]));
    let header = std::str::from_utf8(&all[10..10 + header_len])?;
    let shape = header.split("'shape':").nth(1).and_then(|s| s.split(['(', ')']).nth(1)).ok_or("no shape")?;
    let dims = shape.split(',').filter_map(|d| d.trim().parse().ok()).collect();
    Ok((dims, all[10 + header_len..].to_vec()))
}

fn half(bits: u16) -> f32 {
    let (sign, exponent, fraction) =
        (u32::from(bits >> 15) << 31, u32::from(bits >> 10 & 31), u32::from(bits & 1023));
    match exponent {
        0 => f32::from_bits(sign | (fraction as f32 * 2.0f32.powi(-24)).to_bits()),
        31 => f32::from_bits(sign | 0xFF << 23 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

fn load(dir: &Path) -> Result<FileRows, Box<dyn Error>> {
    let (shape, base) = npy(&dir.join("base.f16.npy"))?;
    let (_, ids) = npy(&dir.join("ids.u64.npy"))?;
    let ids: Vec<u64> = ids
        .chunks_exact(8)
        .map(|c| u64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]))
        .collect();
    let dim = shape[1];
    let mut bytes = vec![0u8; 6];
    for (row, id) in base.chunks_exact(2 * dim).zip(&ids) {
        bytes.extend(id.to_le_bytes());
        bytes.extend(row.chunks_exact(2).flat_map(|c| half(u16::from_le_bytes([c[0], c[1]])).to_le_bytes()));
    }
    Ok(FileRows { bytes, ids, dim })
}

fn queries(dir: &Path) -> Result<Vec<Vec<f32>>, Box<dyn Error>> {
    let (shape, data) = npy(&dir.join("queries.f32.npy"))?;
    Ok(data
        .chunks_exact(4 * shape[1])
        .map(|q| q.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect())
        .collect())
}

fn truth(dir: &Path, name: &str) -> Result<Vec<Vec<u64>>, Box<dyn Error>> {
    let (shape, data) = npy(&dir.join(name))?;
    Ok(data
        .chunks_exact(8 * shape[1])
        .map(|r| {
            r.chunks_exact(8)
                .take(10)
                .map(|c| u64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]))
                .collect()
        })
        .collect())
}

fn recall(found: &[Candidate], rows: &dyn Rows, want: &[u64]) -> f64 {
    if want.is_empty() {
        return 1.0;
    }
    found.iter().filter(|c| want.contains(&rows.id(c.ordinal))).count() as f64 / want.len() as f64
}

/// Bytes at a cache line's start, as a mapped segment has them.
struct Aligned(Vec<u8>, usize, usize);

impl std::ops::Deref for Aligned {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0.get(self.1..self.1 + self.2).unwrap_or(&[])
    }
}

fn open(path: &str) -> Result<Image, Box<dyn Error>> {
    let raw = std::fs::read(path)?;
    let mut bytes = vec![0u8; raw.len() + 4096];
    let start = bytes.as_ptr().align_offset(4096);
    bytes[start..start + raw.len()].copy_from_slice(&raw);
    Ok(Image::open(Aligned(bytes, start, raw.len()))?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let (Some(dir), Some(op), Some(file)) = (args.get(1), args.get(2), args.get(3)) else {
        return Err("usage: bench_real DIR build|search|filters IMAGE ...".into());
    };
    let dir = Path::new(dir);
    let rows = load(dir)?;
    let number = |i: usize, default: usize| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    match op.as_str() {
        "build" => {
            let params = BuildParams {
                threads: number(4, 1),
                ef_construction: number(5, 200),
                m: number(6, 16),
                seed: 1,
            };
            let live: Vec<u32> = (0..rows.len()).collect();
            let (wall, cpu) = (Instant::now(), process_cpu_seconds());
            let image =
                build(&rows, rows.dim, &live, Metric::Cosine, [0; 32], rows.len(), &params, &NoProgress)?;
            println!(
                "build n={} threads={} efc={} m={}: wall {:.2} s, cpu {:.2} s, {} bytes",
                live.len(),
                params.threads,
                params.ef_construction,
                params.m,
                wall.elapsed().as_secs_f64(),
                process_cpu_seconds() - cpu,
                image.len()
            );
            std::fs::write(file, image)?;
        }
        "search" => {
            let image = open(file)?;
            image.verify()?;
            let (queries, truth) = (queries(dir)?, truth(dir, "gt_cosine.u64.npy")?);
            let efs: Vec<usize> = args
                .get(4)
                .map_or("24,32,40,48,56,64,80,96,128,160,192,256", |a| a)
                .split(',')
                .filter_map(|v| v.parse().ok())
                .collect();
            let rounds = number(5, 5);
            let (mut scratch, mut out) = (Scratch::new(), Vec::new());
            println!("kernels {}", rvf_index::isa_name());
            for ef in efs {
                let mut line = format!("ef {ef:4}");
                for (name, parity) in [("even", 0), ("odd", 1)] {
                    let mut speeds = Vec::new();
                    let (mut hits, mut visited, mut count) = (0.0, 0u64, 0usize);
                    for round in 0..rounds {
                        let start = cpu_seconds();
                        let mut n = 0;
                        for (i, q) in queries.iter().enumerate().filter(|(i, _)| i % 2 == parity) {
                            let stats = image.search(q, 10, ef, &rows, None, None, &mut scratch, &mut out)?;
                            n += 1;
                            if round == 0 {
                                hits += recall(&out, &rows, &truth[i]);
                                visited += u64::from(stats.visited);
                                count += 1;
                            }
                        }
                        speeds.push(f64::from(n) / (cpu_seconds() - start));
                    }
                    speeds.sort_by(f64::total_cmp);
                    line += &format!(
                        "  {name}: recall {:.4} visited {:5} qps {:6.0} ({:.0}..{:.0})",
                        hits / count as f64,
                        visited / count as u64,
                        speeds[rounds / 2],
                        speeds[0],
                        speeds[rounds - 1]
                    );
                }
                println!("{line}");
            }
            if args.get(6).is_some() {
                return Ok(());
            }
            let (mut hits, start) = (0.0, cpu_seconds());
            for (q, want) in queries.iter().zip(&truth) {
                image.search_layer_a(q, 10, &rows, None, None, &mut scratch, &mut out)?;
                hits += recall(&out, &rows, want);
            }
            let us = (cpu_seconds() - start) / queries.len() as f64 * 1e6;
            println!(
                "layer A alone ({} bytes): recall {:.4}, {us:.0} us",
                image.layer_a_range().len(),
                hits / queries.len() as f64
            );
        }
        "filters" => {
            let image = open(file)?;
            let queries = queries(dir)?;
            let text = std::fs::read_to_string(dir.join("filters.json"))?;
            let all: serde_json::Value = serde_json::from_str(&text)?;
            let meta = std::fs::read_to_string(dir.join("meta.csv"))?;
            let records = csv_rows(&meta);
            let ef = number(4, rvf_index::default_ef(10));
            let (mut scratch, mut out) = (Scratch::new(), Vec::new());
            for filter in all["filters"].as_array().ok_or("no filters")? {
                let mut allow = Bitmap::new(rows.len());
                for (i, r) in records.iter().enumerate() {
                    if matches(&filter["predicate"], r) {
                        allow.set(i as u32);
                    }
                }
                let (mut hits, mut visited, mut scanned) = (0.0, 0u64, 0);
                let start = cpu_seconds();
                for (q, want) in queries.iter().zip(filter["gt_cosine_ids"].as_array().ok_or("no answers")?) {
                    let stats = image.search(q, 10, ef, &rows, Some(&allow), None, &mut scratch, &mut out)?;
                    let want: Vec<u64> =
                        want.as_array().into_iter().flatten().filter_map(|v| v.as_u64()).collect();
                    hits += recall(&out, &rows, &want);
                    visited += u64::from(stats.visited);
                    scanned += u32::from(stats.scanned);
                }
                let n = queries.len() as f64;
                println!(
                    "{:16} matches {:6} recall {:.4} visited {:6.0} scanned {scanned:3} {:.0} us",
                    filter["name"].as_str().unwrap_or(""),
                    allow.count(),
                    hits / n,
                    visited as f64 / n,
                    (cpu_seconds() - start) / n * 1e6
                );
            }
        }
        _ => return Err("unknown operation".into()),
    }
    Ok(())
}

/// Fields of meta.csv used by the predicates: section, priority, installed_size, maintainer_domain.
fn csv_rows(text: &str) -> Vec<[String; 4]> {
    let mut rows = Vec::new();
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                fields.push(std::mem::take(&mut field));
                if fields.len() >= 6 {
                    rows.push([fields[2].clone(), fields[3].clone(), fields[4].clone(), fields[5].clone()]);
                }
                fields.clear();
            }
            '\r' => {}
            c => field.push(c),
        }
    }
    rows.remove(0);
    rows
}

fn matches(p: &serde_json::Value, row: &[String; 4]) -> bool {
    let field = || match p["field"].as_str() {
        Some("section") => &row[0],
        Some("priority") => &row[1],
        Some("installed_size") => &row[2],
        _ => &row[3],
    };
    let args = || p["args"].as_array().into_iter().flatten();
    let size = || field().parse::<i64>().unwrap_or(0);
    match p["op"].as_str() {
        Some("and") => args().all(|a| matches(a, row)),
        Some("or") => args().any(|a| matches(a, row)),
        Some("not") => !args().any(|a| matches(a, row)),
        Some("eq") => p["value"].as_str() == Some(field()),
        Some("in") => p["value"].as_array().is_some_and(|v| v.iter().any(|x| x.as_str() == Some(field()))),
        Some("gt") => p["value"].as_i64().is_some_and(|v| size() > v),
        Some("le") => p["value"].as_i64().is_some_and(|v| size() <= v),
        _ => false,
    }
}
