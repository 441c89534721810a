//! Ours beside rival engines, in one run on one machine, as Markdown tables.
//!
//! ```text
//! cargo bench -p rvf-tests --bench peers -- [DATA] [--rounds N] [--python PATH] [--only search,call,build,ingest,open,memory] [--store FILE]
//! ```
//! DATA holds `base.f16.npy`, `ids.u64.npy`, `queries.f32.npy`, `gt_cosine.u64.npy`; the shipped sample when left out.
//! The search table: one pinned thread, CPU time, rounds interleaved over the engines, medians. Every engine's
//! parameter is the smallest that reaches the recall on the even queries; recall and speed are those of the odd ones.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;

use rvf_cow::{
    BadRow, Batch, CreateOptions, Metric, NoProgress, OpenOptions, ReindexOptions, SearchRequest, Store,
};
use rvf_runtime::{QueryOptions, RvfStore};
use rvf_tests::clock::{median, pin, took};
use rvf_tests::sample::{self, Sample, recall};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const K: usize = 10;
/// A level of recall, and whether the queries reported on must reach it too. Where they need not, an engine's
/// parameter is chosen on the one half of the queries alone, and may fall short of the level on the other.
const TABLES: [(f64, bool); 4] = [(0.95, false), (0.95, true), (0.99, false), (0.99, true)];
const RIVALS: [&str; 5] = ["hnswlib", "faiss-sq8", "usearch-f16", "usearch-f32", "scann"];
/// The rivals have the same steps (`EFS` in `tests/bench/peers.py`).
fn efs() -> Vec<usize> {
    (10..40).step_by(2).chain((40..256).step_by(8)).chain((256..=512).step_by(32)).collect()
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("peers: {e}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug)]
struct Plan {
    data: PathBuf,
    rounds: usize,
    python: String,
    only: Vec<String>,
    memory_child: Option<PathBuf>,
    store: Option<PathBuf>,
    cache: PathBuf,
}

impl Plan {
    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|o| o == part)
    }
}

fn plan() -> Outcome<Plan> {
    let mut plan = Plan {
        data: sample::directory(),
        rounds: 5,
        python: "python3".into(),
        only: Vec::new(),
        memory_child: None,
        store: None,
        cache: rvf_tests::programs::build_dir().join("peers"),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--rounds" => plan.rounds = value()?.parse()?,
            "--python" => plan.python = value()?,
            "--only" => plan.only = value()?.split(',').map(str::to_owned).collect(),
            "--store" => plan.store = Some(value()?.into()),
            "--memory-child" => plan.memory_child = Some(value()?.into()),
            // Cargo passes this one to every bench.
            "--bench" => {}
            other if !other.starts_with('-') => plan.data = other.into(),
            other => return Err(format!("{other} is not known; see the top of benches/peers.rs").into()),
        }
    }
    Ok(plan)
}

fn run() -> Outcome<()> {
    let plan = plan()?;
    let data = Sample::load(&plan.data)?;
    if let Some(file) = &plan.memory_child {
        return memory_child(file, &data);
    }
    std::fs::create_dir_all(&plan.cache)?;
    println!(
        "{} vectors x {}, {} queries, cosine, k = {K}, M 16, ef_construction 200; {}\n",
        data.ids.len(),
        data.dimension,
        data.truth.len(),
        cpu_name()
    );
    let file = match &plan.store {
        Some(file) => file.clone(),
        None => stored(&plan, &data)?,
    };
    if plan.wants("call") {
        call_table(&data, &file)?;
    }
    if plan.wants("search") {
        search_table(&plan, &data, &file)?;
    }
    if plan.wants("build") {
        build_table(&plan, &data)?;
    }
    if plan.wants("ingest") {
        ingest_table(&plan, &data)?;
    }
    if plan.wants("open") {
        open_table(&plan, &data, &file)?;
    }
    if plan.wants("memory") {
        memory_table(&plan, &file)?;
    }
    Ok(())
}

fn cpu_name() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": ").map(|p| p.1));
    format!("{}, {}", name.unwrap_or("unknown CPU"), rvf_index::isa_name())
}

fn batch_of(data: &Sample, rows: std::ops::Range<usize>) -> Batch {
    Batch {
        dimension: data.dimension,
        ids: Some(data.ids[rows.clone()].to_vec()),
        vectors: data.base[rows.start * data.dimension..rows.end * data.dimension].to_vec(),
        metadata: Vec::new(),
        on_bad_row: BadRow::Refuse,
    }
}

fn new_store(path: &Path, data: &Sample, rows: usize) -> Outcome<Arc<Store>> {
    if path.exists() {
        std::fs::remove_file(path)?;
    }
    let options = CreateOptions { dimension: data.dimension as u16, metric: Metric::Cosine, profile: 0 };
    let store = Store::create(path, &options)?;
    store.ingest(&batch_of(data, 0..rows), &NoProgress)?;
    Ok(store)
}

/// The data set as an indexed store, built anew every run so that it is never one of an older program.
fn stored(plan: &Plan, data: &Sample) -> Outcome<PathBuf> {
    let path = plan.cache.join(format!("ours-{}.rvf", data.ids.len()));
    eprintln!("building {} ...", path.display());
    let store = new_store(&path, data, data.ids.len())?;
    let (took, _) = took(|| store.reindex(&ReindexOptions::default(), &NoProgress));
    eprintln!("built in {:.1} s", took.wall.as_secs_f64());
    Ok(path)
}

/// Something that answers the queries of the data set.
trait Engine {
    fn name(&self) -> String;
    fn knobs(&mut self) -> Outcome<Vec<usize>>;
    /// Queries `first`, `first + 2`, ... `times` over: CPU seconds, and the ids found (of the last time).
    fn search(&mut self, knob: usize, first: usize, times: usize) -> Outcome<(f64, Vec<Vec<u64>>)>;
}

fn every_other(data: &Sample, first: usize) -> Vec<f32> {
    let n = data.queries.len() / data.dimension;
    (first..n).step_by(2).flat_map(|q| data.query(q).iter().copied()).collect()
}

/// Our store, in process: one request with all queries, or one request a query.
struct Ours<'a> {
    store: Arc<Store>,
    data: &'a Sample,
    one_by_one: bool,
}

impl Engine for Ours<'_> {
    fn name(&self) -> String {
        if self.one_by_one { "rvf-mount, a call a query".into() } else { "**rvf-mount**".into() }
    }

    fn knobs(&mut self) -> Outcome<Vec<usize>> {
        Ok(efs())
    }

    fn search(&mut self, knob: usize, first: usize, times: usize) -> Outcome<(f64, Vec<Vec<u64>>)> {
        let asked = every_other(self.data, first);
        let view = self.store.view();
        let request = |queries| SearchRequest {
            queries,
            k: K,
            ef: Some(knob),
            filter: None,
            exact: false,
            deadline: None,
            threads: 1,
        };
        let size = if self.one_by_one { self.data.dimension } else { asked.len() };
        let mut found = Vec::new();
        view.search(&request(&asked[..self.data.dimension]))?;
        let (took, done) = took(|| -> Outcome<()> {
            for _ in 0..times {
                found.clear();
                for queries in asked.chunks_exact(size) {
                    found.extend(view.search(&request(queries))?);
                }
            }
            Ok(())
        });
        done?;
        let ids = found.iter().map(|a| a.hits.iter().map(|h| h.id).collect()).collect();
        Ok((took.cpu.as_secs_f64(), ids))
    }
}

/// The reference library. It loads the graph from our file: building its own would take minutes. Its search width
/// is never below 256, so there is one knob.
struct Reference<'a> {
    store: RvfStore,
    data: &'a Sample,
}

impl Engine for Reference<'_> {
    fn name(&self) -> String {
        "rvf-runtime 0.5".into()
    }

    fn knobs(&mut self) -> Outcome<Vec<usize>> {
        Ok(vec![256])
    }

    fn search(&mut self, knob: usize, first: usize, times: usize) -> Outcome<(f64, Vec<Vec<u64>>)> {
        let asked = every_other(self.data, first);
        let options = QueryOptions { ef_search: knob as u16, ..QueryOptions::default() };
        let mut found = Vec::new();
        let (took, done) = took(|| -> Outcome<()> {
            for _ in 0..times {
                found.clear();
                for query in asked.chunks_exact(self.data.dimension) {
                    let hits = self.store.query(query, K, &options).map_err(|e| e.to_string())?;
                    found.push(hits.iter().map(|h| h.id).collect());
                }
            }
            Ok(())
        });
        done?;
        Ok((took.cpu.as_secs_f64(), found))
    }
}

/// A Python engine in a process of its own.
struct Rival<'a> {
    name: &'static str,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    data: &'a Sample,
}

impl<'a> Rival<'a> {
    fn start(plan: &Plan, data: &'a Sample, name: &'static str) -> Outcome<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/peers.py");
        let mut child = Command::new(&plan.python)
            .arg(script)
            .arg(name)
            .args([&plan.data, &plan.cache])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let input = child.stdin.take().ok_or("no standard input")?;
        let output = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        Ok(Self { name, child, input, output, data })
    }

    fn ask(&mut self, request: &str) -> Outcome<serde_json::Value> {
        writeln!(self.input, "{request}")?;
        self.input.flush()?;
        let mut line = String::new();
        // Libraries write banners to standard output too.
        loop {
            line.clear();
            if self.output.read_line(&mut line)? == 0 {
                return Err(format!("{}: the process ended; is the package installed?", self.name).into());
            }
            if line.starts_with('{') {
                return Ok(serde_json::from_str(&line)?);
            }
        }
    }

    fn seconds(answer: &serde_json::Value, key: &str) -> Outcome<f64> {
        Ok(answer[key].as_f64().ok_or_else(|| format!("no {key} in {answer}"))?)
    }
}

impl Drop for Rival<'_> {
    fn drop(&mut self) {
        // It ends with its input anyway.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Engine for Rival<'_> {
    fn name(&self) -> String {
        self.name.into()
    }

    fn knobs(&mut self) -> Outcome<Vec<usize>> {
        let answer = self.ask("knobs")?;
        Ok(answer["knobs"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|k| Some(k.as_u64()? as usize))
            .collect())
    }

    fn search(&mut self, knob: usize, first: usize, times: usize) -> Outcome<(f64, Vec<Vec<u64>>)> {
        let answer = self.ask(&format!("search {knob} {first} 2 {times}"))?;
        let ids = answer["rows"]
            .as_array()
            .ok_or("no rows in the answer")?
            .iter()
            .map(|row| {
                let rows = row.as_array().into_iter().flatten().filter_map(serde_json::Value::as_u64);
                rows.filter_map(|r| self.data.ids.get(r as usize).copied()).collect()
            })
            .collect();
        Ok((Self::seconds(&answer, "cpu")?, ids))
    }
}

/// What an engine does at one level.
struct Chosen {
    knob: usize,
    recall: f64,
    times: usize,
    qps: Vec<f64>,
}

fn search_table(plan: &Plan, data: &Sample, file: &Path) -> Outcome<()> {
    let cpus = std::thread::available_parallelism()?.get();
    pin(&[cpus - 1])?;
    let truth = |first: usize| data.truth.iter().skip(first).step_by(2).cloned().collect::<Vec<_>>();
    let (even, odd) = (truth(0), truth(1));
    let ours = |one_by_one| -> Outcome<Box<dyn Engine + '_>> {
        Ok(Box::new(Ours { store: Store::open(file, &OpenOptions::default())?, data, one_by_one }))
    };
    let mut engines: Vec<Box<dyn Engine + '_>> = vec![ours(false)?, ours(true)?];
    for name in RIVALS {
        let mut rival = Rival::start(plan, data, name)?;
        eprintln!("loading {name} ...");
        match rival.ask("load") {
            Ok(_) => engines.push(Box::new(rival)),
            Err(e) => eprintln!("*** LEFT OUT: {e}"),
        }
    }
    match RvfStore::open_readonly(file) {
        Ok(store) if store.index_ready() => engines.push(Box::new(Reference { store, data })),
        Ok(_) => eprintln!("*** LEFT OUT: rvf-runtime did not take the graph of the file"),
        Err(e) => eprintln!("*** LEFT OUT: rvf-runtime: {e}"),
    }

    let mut chosen: Vec<[Option<Chosen>; TABLES.len()]> = Vec::new();
    for engine in &mut engines {
        let mut levels = [const { None }; TABLES.len()];
        for knob in engine.knobs()? {
            let (_, found) = engine.search(knob, 0, 1)?;
            let reached = recall(&found, &even, K);
            for ((level, held), slot) in TABLES.iter().zip(&mut levels) {
                if reached >= *level && slot.is_none() {
                    let (seconds, found) = engine.search(knob, 1, 1)?;
                    let reported = recall(&found, &odd, K);
                    if *held && reported < *level {
                        continue;
                    }
                    // A round takes about a quarter of a second.
                    let times = (0.25 / seconds.max(1e-6)).ceil() as usize;
                    *slot = Some(Chosen { knob, recall: reported, times, qps: Vec::new() });
                }
            }
            if levels.iter().all(Option::is_some) {
                break;
            }
        }
        chosen.push(levels);
    }
    for round in 0..plan.rounds {
        eprintln!("round {} of {}", round + 1, plan.rounds);
        for (engine, levels) in engines.iter_mut().zip(&mut chosen) {
            for slot in levels.iter_mut().flatten() {
                let (seconds, _) = engine.search(slot.knob, 1, slot.times)?;
                slot.qps.push((slot.times * odd.len()) as f64 / seconds);
            }
        }
    }
    pin(&(0..cpus).collect::<Vec<_>>())?;

    println!("### Queries a second of CPU time, one thread, {} rounds\n", plan.rounds);
    for (at, (level, held)) in TABLES.iter().enumerate() {
        let speed = |c: &[Option<Chosen>; TABLES.len()]| c[at].as_ref().map(|c| median(c.qps.clone()));
        let hnswlib =
            engines.iter().zip(&chosen).find(|(e, _)| e.name() == "hnswlib").and_then(|(_, c)| speed(c));
        let best = engines
            .iter()
            .zip(&chosen)
            .filter(|(e, _)| !e.name().contains("rvf-mount"))
            .filter_map(|(_, c)| speed(c))
            .fold(f64::NAN, f64::max);
        let on = if *held { "on both halves" } else { "on the even queries" };
        println!(
            "| recall@10 >= {level} {on} | parameter | recall | QPS | min..max | x hnswlib | x best rival |"
        );
        println!("|---|---:|---:|---:|---:|---:|---:|");
        for (engine, levels) in engines.iter().zip(&chosen) {
            let mut line = format!("| {} ", engine.name());
            match &levels[at] {
                None => line.push_str("| not reached | | | | | |"),
                Some(c) => {
                    let qps = median(c.qps.clone());
                    let low = c.qps.iter().copied().fold(f64::INFINITY, f64::min);
                    let high = c.qps.iter().copied().fold(0.0, f64::max);
                    let ratio = hnswlib.map_or_else(String::new, |h| format!("{:.2}", qps / h));
                    write!(
                        line,
                        "| {} | {:.4} | {qps:.0} | {low:.0}..{high:.0} | {ratio} | {:.2} |",
                        c.knob,
                        c.recall,
                        qps / best
                    )?;
                }
            }
            println!("{line}");
        }
        println!();
    }
    Ok(())
}

/// One call with default settings on one CPU, and a batch on two threads: what a mount is compared with.
fn call_table(data: &Sample, file: &Path) -> Outcome<()> {
    let cpus: Vec<usize> = (0..std::thread::available_parallelism()?.get()).collect();
    pin(&cpus[cpus.len() - 1..])?;
    let store = Store::open(file, &OpenOptions::default())?;
    let view = store.view();
    let request = |queries, threads| SearchRequest {
        queries,
        k: K,
        ef: None,
        filter: None,
        exact: false,
        deadline: None,
        threads,
    };
    let n = data.queries.len() / data.dimension;
    let mut figures = Vec::new();
    for at in 0..5000 {
        let (took, done) = took(|| view.search(&request(data.query(at % n), 1)));
        done?;
        figures.push(took.wall.as_secs_f64() * 1e6);
    }
    pin(&cpus)?;
    let batch: Vec<f32> = (0..1000).flat_map(|at| data.query(at % n).iter().copied()).collect();
    let mut speeds = Vec::new();
    for _ in 0..15 {
        let (took, done) = took(|| view.search(&request(&batch, 2)));
        done?;
        speeds.push(1000.0 / took.wall.as_secs_f64());
    }
    println!(
        "In process, default settings: call_us={:.2} batch_qps={:.0}\n",
        median(figures),
        median(speeds)
    );
    Ok(())
}

fn build_table(plan: &Plan, data: &Sample) -> Outcome<()> {
    println!(
        "### Building the index\n\n| what | threads | CPU s | wall s | CPU x hnswlib | recall at ef 64 |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    let cpus: Vec<usize> = (0..std::thread::available_parallelism()?.get()).collect();
    let mut base = f64::NAN;
    for threads in [1, 2] {
        pin(if threads == 1 { &cpus[cpus.len() - 1..] } else { &cpus })?;
        match Rival::start(plan, data, "hnswlib").and_then(|mut r| {
            let built = r.ask(&format!("build {threads}"))?;
            let found = [r.search(64, 0, 1)?.1, r.search(64, 1, 1)?.1];
            Ok((Rival::seconds(&built, "cpu")?, Rival::seconds(&built, "wall")?, found))
        }) {
            Ok((cpu, wall, found)) => {
                if threads == 1 {
                    base = cpu;
                }
                println!(
                    "| hnswlib | {threads} | {cpu:.2} | {wall:.2} | {:.2} | {:.4} |",
                    cpu / base,
                    both(data, &found)
                );
            }
            Err(e) => eprintln!("*** LEFT OUT: {e}"),
        }
        let path = plan.cache.join("build.rvf");
        let store = new_store(&path, data, data.ids.len())?;
        let options = ReindexOptions { threads, ..ReindexOptions::default() };
        let (took, done) = took(|| store.reindex(&options, &NoProgress));
        done?;
        let mut ours = Ours { store, data, one_by_one: false };
        let found = [ours.search(64, 0, 1)?.1, ours.search(64, 1, 1)?.1];
        let (cpu, wall) = (took.cpu.as_secs_f64(), took.wall.as_secs_f64());
        println!(
            "| **rvf-mount** (with storing it) | {threads} | {cpu:.2} | {wall:.2} | {:.2} | {:.4} |",
            cpu / base,
            both(data, &found)
        );
        std::fs::remove_file(&path)?;
    }
    pin(&cpus)?;
    println!();
    Ok(())
}

fn both(data: &Sample, found: &[Vec<Vec<u64>>; 2]) -> f64 {
    let parts = [0, 1].map(|first| {
        let truth: Vec<Vec<u64>> = data.truth.iter().skip(first).step_by(2).cloned().collect();
        recall(&found[first], &truth, K)
    });
    f64::midpoint(parts[0], parts[1])
}

fn ingest_table(plan: &Plan, data: &Sample) -> Outcome<()> {
    let source = plan.cache.join("source.rvf");
    let (target, copy) = (plan.cache.join("ingest.rvf"), plan.cache.join("copy.rvf"));
    drop(new_store(&source, data, data.ids.len())?);
    let batch = batch_of(data, 0..data.ids.len());
    let mut figures = [Vec::new(), Vec::new()];
    for _ in 0..plan.rounds.max(3) {
        let (took_copy, done) = took(|| -> Outcome<()> {
            std::fs::copy(&source, &copy)?;
            Ok(std::fs::OpenOptions::new().write(true).open(&copy)?.sync_all()?)
        });
        done?;
        std::fs::remove_file(&copy)?;
        let options = CreateOptions { dimension: data.dimension as u16, metric: Metric::Cosine, profile: 0 };
        let store = Store::create(&target, &options)?;
        let (took_ingest, done) = took(|| store.ingest(&batch, &NoProgress));
        done?;
        drop(store);
        std::fs::remove_file(&target)?;
        figures[0].push(took_copy.wall.as_secs_f64() * 1e3);
        figures[1].push(took_ingest.wall.as_secs_f64() * 1e3);
    }
    std::fs::remove_file(&source)?;
    let [copy, ingest] = figures.map(median);
    println!("### Ingest without an index, one batch\n\n| what | ms | ratio |\n|---|---:|---:|");
    println!("| cp + fsync of the same bytes | {copy:.1} | 1.00 |");
    println!("| **rvf-mount** ingest | {ingest:.1} | {:.2} |\n", ingest / copy);
    Ok(())
}

fn open_table(plan: &Plan, data: &Sample, file: &Path) -> Outcome<()> {
    println!(
        "### Open to first answer, in process, warm cache\n\n| vectors | median ms | min | max |\n|---:|---:|---:|---:|"
    );
    let small = plan.cache.join("small.rvf");
    let rows = 1000.min(data.ids.len());
    new_store(&small, data, rows)?.reindex(&ReindexOptions::default(), &NoProgress)?;
    for (path, rows) in [(small.as_path(), rows), (file, data.ids.len())] {
        let mut figures = Vec::new();
        for _ in 0..21 {
            let (took, done) = took(|| -> Outcome<usize> {
                let options = OpenOptions { verify: false, ..OpenOptions::default() };
                let store = Store::open(path, &options)?;
                let answers = store.view().search(&SearchRequest {
                    queries: data.query(0),
                    k: K,
                    ef: None,
                    filter: None,
                    exact: false,
                    deadline: None,
                    threads: 1,
                })?;
                Ok(answers[0].hits.len())
            });
            assert_eq!(done?, K);
            figures.push(took.wall.as_secs_f64() * 1e3);
        }
        let low = figures.iter().copied().fold(f64::INFINITY, f64::min);
        let high = figures.iter().copied().fold(0.0, f64::max);
        println!("| {rows} | {:.3} | {low:.3} | {high:.3} |", median(figures));
    }
    println!();
    Ok(())
}

/// In a process of its own, so that nothing else counts.
fn memory_table(plan: &Plan, file: &Path) -> Outcome<()> {
    let output =
        Command::new(std::env::current_exe()?).arg(&plan.data).arg("--memory-child").arg(file).output()?;
    std::io::stderr().write_all(&output.stderr)?;
    std::io::stdout().write_all(&output.stdout)?;
    if output.status.success() { Ok(()) } else { Err("the memory part failed".into()) }
}

fn status_kb(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    text.lines()
        .find_map(|l| l.strip_prefix(key)?.trim_start_matches(':').split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn memory_child(file: &Path, data: &Sample) -> Outcome<()> {
    let before = status_kb("RssAnon");
    let store = Store::open(file, &OpenOptions { verify: false, ..OpenOptions::default() })?;
    let view = store.view();
    let n = data.queries.len() / data.dimension;
    for at in 0..10_000 {
        let request = SearchRequest {
            queries: data.query(at % n),
            k: K,
            ef: None,
            filter: None,
            exact: false,
            deadline: None,
            threads: 1,
        };
        view.search(&request)?;
    }
    let index: u64 = view
        .opened()
        .manifest
        .iter()
        .flat_map(|m| m.manifest.directory.iter())
        .filter(|e| e.kind() == rvf_format::SegType::INDEX)
        .map(|e| e.payload_length)
        .max()
        .unwrap_or(0);
    println!("### Memory after 10,000 queries\n\n| what | KiB |\n|---|---:|");
    println!("| largest stored index segment (links + codes) | {} |", index / 1024);
    println!("| anonymous memory that the store added | {} |", status_kb("RssAnon").saturating_sub(before));
    println!("| file-backed pages in use (shared with the page cache) | {} |\n", status_kb("RssFile"));
    Ok(())
}
