//! Search images: damaged headers, links, codes and tables make a search worse, never wrong in what it says, and it ends.
#![no_main]

use std::sync::OnceLock;

use rvf_index::{BuildParams, Image, Metric, NoProgress, OwnedRows, Rows, Scratch, build, exact};

const DIM: usize = 8;
const N: u32 = 200;

fn fixture() -> &'static (OwnedRows, Vec<u8>) {
    static FIXTURE: OnceLock<(OwnedRows, Vec<u8>)> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let mut rows = OwnedRows::new(DIM);
        let mut state = 1u64;
        for id in 0..u64::from(N) {
            let vector: Vec<f32> = (0..DIM)
                .map(|_| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
                })
                .collect();
            rows.push(id * 3, &vector);
        }
        let live: Vec<u32> = (0..N).collect();
        let params = BuildParams { threads: 1, ..BuildParams::default() };
        let image =
            build(&rows, DIM, &live, Metric::L2, [7; 32], N, &params, &NoProgress).expect("rows are whole");
        (rows, image)
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (rows, valid) = fixture();
    let mut bytes = valid.clone();
    for edit in data.as_chunks::<6>().0 {
        // One in four hits the header and the section table.
        let span = if edit[3] % 4 == 0 { 512 } else { bytes.len() };
        let at = u32::from_le_bytes([edit[0], edit[1], edit[2], 0]) as usize % span.max(1);
        match edit[3] / 4 % 4 {
            0 => bytes.truncate(at),
            1 => bytes.iter_mut().skip(at).take(4).for_each(|byte| *byte = edit[4]),
            2 => bytes.iter_mut().skip(at).take(usize::from(edit[5]) * 16).for_each(|byte| *byte = edit[4]),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= edit[4]),
        }
    }
    let Ok(image) = Image::open(bytes) else { return };
    let _ = image.verify();
    for id in [0, 3, 597, u64::MAX] {
        // More often than it takes until a table is made.
        for _ in 0..120 {
            let found = image.find_row(id, |ordinal| rows.id(ordinal) == id);
            assert!(found.is_none_or(|ordinal| rows.id(ordinal) == id));
        }
    }
    if image.dim() != DIM {
        return;
    }
    let (mut scratch, mut out) = (Scratch::new(), Vec::new());
    let query = [0.1f32, -0.2, 0.3, 0.0, 0.5, -0.5, 0.25, 0.125];
    for k in [1, 10, 1000] {
        if image.search(&query, k, 50, rows, None, None, &mut scratch, &mut out).is_ok() {
            assert!(out.len() <= k);
            for hit in &out {
                assert!(hit.ordinal < rows.len());
                let distance = exact::distance(image.metric(), &query, rows.vector(hit.ordinal));
                assert_eq!(distance.to_bits(), hit.distance.to_bits());
            }
        }
        let _ = image.search_layer_a(&query, k, rows, None, None, &mut scratch, &mut out);
    }
    image.export_graph();
});
