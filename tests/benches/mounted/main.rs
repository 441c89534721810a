//! What a mounted store costs beside the same calls in process, in one run, as Markdown tables.
//!
//! ```text
//! cargo bench -p rvf-tests --bench mounted -- [DATA] [--store FILE] [--programs DIR] [--rounds N] [--cpu N]
//!     [--only latency,throughput,reads,start,cold]
//! ```
//! DATA is as for the bench `peers`; FILE an indexed store of it, made when left out. DIR holds `rvf-mount`, built for
//! release when left out. Needs root, or a FUSE that lets users mount. The ways compared take turns, round by round;
//! figures are medians of all rounds, differences and ratios medians of the rounds' own. `cold` drops the page cache of
//! the machine and is left out unless named.

mod ask;
mod cpu;
mod empty;
mod mount;

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rvf_cow::{
    BadRow, Batch, CreateOptions, Metric, NoProgress, OpenOptions, ReindexOptions, SearchRequest, Store, View,
};
use rvf_tests::clock::{median, pin};
use rvf_tests::place::Place;
use rvf_tests::programs;
use rvf_tests::sample::{self, Sample};

use self::mount::Mount;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const K: usize = 10;
/// Queries of one way in one round.
const TURN: usize = 200;
const BATCH: usize = 1000;
const CHUNK: usize = 1 << 20;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match &args[..] {
        [word, size, dir] if word == "--serve-zeros" => {
            size.parse().map_err(Into::into).and_then(|size| Ok(empty::serve(Path::new(dir), size)?))
        }
        _ => run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("mounted: {e}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug)]
struct Plan {
    data: PathBuf,
    store: Option<PathBuf>,
    program: Option<PathBuf>,
    rounds: usize,
    cpu: Option<usize>,
    only: Vec<String>,
}

impl Plan {
    fn wants(&self, part: &str) -> bool {
        if self.only.is_empty() { part != "cold" } else { self.only.iter().any(|only| only == part) }
    }
}

fn plan(args: Vec<String>) -> Outcome<Plan> {
    let mut plan = Plan {
        data: sample::directory(),
        store: None,
        program: None,
        rounds: 15,
        cpu: None,
        only: Vec::new(),
    };
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--store" => plan.store = Some(value()?.into()),
            "--programs" => plan.program = Some(Path::new(&value()?).join("rvf-mount")),
            "--rounds" => plan.rounds = value()?.parse::<usize>()?.max(1),
            "--cpu" => plan.cpu = Some(value()?.parse()?),
            "--only" => plan.only = value()?.split(',').map(str::to_owned).collect(),
            // Cargo passes this one to every bench.
            "--bench" => {}
            other if !other.starts_with('-') => plan.data = other.into(),
            other => {
                return Err(format!("{other} is not known; see the top of benches/mounted/main.rs").into());
            }
        }
    }
    Ok(plan)
}

/// What every part needs.
struct Bench {
    data: Sample,
    file: PathBuf,
    program: PathBuf,
    place: Place,
    rounds: usize,
    cpus: Vec<usize>,
    cpu: usize,
}

fn run(args: Vec<String>) -> Outcome<()> {
    let plan = plan(args)?;
    let data = Sample::load(&plan.data)?;
    let place = Place::on_disk()?;
    let program = match &plan.program {
        Some(program) => program.clone(),
        None => built("rvf-mount")?,
    };
    let file = match &plan.store {
        Some(file) => file.clone(),
        None => stored(&place.join("all.rvf"), &data, data.ids.len())?,
    };
    let cpus: Vec<usize> =
        (0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get)).collect();
    let cpu = plan.cpu.or(cpus.last().copied()).unwrap_or(0);
    let bench = Bench { data, file, program, place, rounds: plan.rounds, cpus, cpu };
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "{} vectors x {}, {} queries, k = {K}, default ef; {} rounds; {}; load when it began {}",
        bench.data.ids.len(),
        bench.data.dimension,
        bench.data.truth.len(),
        bench.rounds,
        rvf_index::isa_name(),
        load.split(' ').next().unwrap_or("unknown"),
    );
    let parts: [(&str, fn(&Bench) -> Outcome<()>); 5] = [
        ("latency", latency),
        ("throughput", throughput),
        ("reads", reads),
        ("start", start),
        ("cold", cold),
    ];
    for (name, part) in parts {
        if plan.wants(name) {
            pin(&bench.cpus)?;
            part(&bench)?;
        }
    }
    Ok(())
}

/// A program of the workspace, built for release beside this one.
fn built(name: &str) -> Outcome<PathBuf> {
    let dir = programs::build_dir();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--release", "-p", "rvf-fs", "--bin", name]);
    cargo.arg("--target-dir").arg(dir.parent().unwrap_or(&dir));
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    if !cargo.status()?.success() {
        return Err(format!("{name} does not build").into());
    }
    Ok(dir.join(name))
}

fn stored(path: &Path, data: &Sample, rows: usize) -> Outcome<PathBuf> {
    eprintln!("building {} ...", path.display());
    let options = CreateOptions { dimension: data.dimension as u16, metric: Metric::Cosine, profile: 0 };
    let store = Store::create(path, &options)?;
    let batch = Batch {
        dimension: data.dimension,
        ids: Some(data.ids[..rows].to_vec()),
        vectors: data.base[..rows * data.dimension].to_vec(),
        metadata: Vec::new(),
        on_bad_row: BadRow::Refuse,
    };
    store.ingest(&batch, &NoProgress)?;
    store.reindex(&ReindexOptions::default(), &NoProgress)?;
    Ok(path.to_owned())
}

fn table(title: &str, head: &[&str]) {
    println!("\n| {title} | {} |", head.join(" | "));
    println!("| --- |{}", " ---: |".repeat(head.len()));
}

fn row(name: &str, cells: &[String]) {
    println!("| {name} | {} |", cells.join(" | "));
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn search(view: &View, queries: &[f32], threads: usize) -> Outcome<Vec<Vec<u64>>> {
    let request =
        SearchRequest { queries, k: K, ef: None, filter: None, exact: false, deadline: None, threads };
    Ok(view.search(&request)?.iter().map(|a| a.hits.iter().map(|hit| hit.id).collect()).collect())
}

/// Figures of one way, one vector a round.
struct Way<'a> {
    name: &'static str,
    work: Box<dyn FnMut(usize) -> Outcome<()> + 'a>,
    times: Vec<Vec<f64>>,
    cpu: Vec<f64>,
}

impl<'a> Way<'a> {
    fn new(name: &'static str, work: impl FnMut(usize) -> Outcome<()> + 'a) -> Self {
        Self { name, work: Box::new(work), times: Vec::new(), cpu: Vec::new() }
    }

    fn turn(&mut self, mount: &Mount) -> Outcome<()> {
        for at in 0..10 {
            (self.work)(at)?;
        }
        let mut times = Vec::with_capacity(TURN);
        let (mine, daemon) = (cpu::of_thread(), mount.cpu());
        for at in 0..TURN {
            let begin = Instant::now();
            (self.work)(at)?;
            times.push(microseconds(begin.elapsed()));
        }
        let used = (cpu::of_thread() - mine) + mount.cpu().saturating_sub(daemon);
        self.cpu.push(microseconds(used) / TURN as f64);
        self.times.push(times);
        Ok(())
    }

    fn middle(&self) -> f64 {
        median(self.times.concat())
    }

    /// Median of the rounds' differences from another way.
    fn over(&self, other: &Self) -> f64 {
        let pairs = self.times.iter().zip(&other.times);
        median(pairs.map(|(a, b)| median(a.clone()) - median(b.clone())).collect())
    }
}

fn latency(bench: &Bench) -> Outcome<()> {
    pin(&[bench.cpu])?;
    let store = Store::open(&bench.file, &OpenOptions::default())?;
    let view = store.view();
    let mount = Mount::of(&bench.program, &bench.file, bench.place.join("mnt"))?;
    let count = bench.data.truth.len();
    let query = |at: usize| bench.data.query(at % count);
    let raw: Vec<Vec<u8>> = (0..count).map(|at| ask::raw(query(at))).collect();
    let text: Vec<Vec<u8>> = (0..count).map(|at| ask::text(query(at))).collect();
    let kept = File::options().read(true).write(true).open(mount.join("query/in"))?;
    let kept = &kept;
    let opens = &ask::Opens { input: mount.join("query/in"), output: mount.join("query/out") };
    same_answers(bench, &view, kept, opens)?;

    let (mut first, mut second, mut third, mut fourth) =
        (vec![0; ask::ANSWER], vec![0; ask::ANSWER], vec![0; ask::ANSWER], vec![0; ask::ANSWER]);
    let (raw, text) = (&raw, &text);
    let status = mount.join("status");
    let stat_path = &status;
    let zeros = zeros(bench, 0)?;
    let asked = File::options().read(true).write(true).open(zeros.join(empty::ASKED))?;
    let asked = &asked;
    let mut fifth = vec![0; ask::ANSWER];
    let mut ways = [
        Way::new("in process, one call", |at| search(&view, query(at), 1).map(drop)),
        Way::new("ioctl", |at| Ok(ask::ioctl(kept, &mut ask::message(query(at), K))?)),
        Way::new("transaction on a kept descriptor, float32", |at| {
            Ok(ask::transaction(kept, &raw[at % count], &mut first).map(drop)?)
        }),
        Way::new("transaction on a kept descriptor, text", |at| {
            Ok(ask::transaction(kept, &text[at % count], &mut second).map(drop)?)
        }),
        Way::new("`in` (`O_TRUNC`) and `out` by separate opens", |at| {
            Ok(opens.ask(true, &raw[at % count], &mut third).map(drop)?)
        }),
        Way::new("the same without `O_TRUNC`", |at| {
            Ok(opens.ask(false, &raw[at % count], &mut fourth).map(drop)?)
        }),
        Way::new("`stat status`", |_| Ok(std::fs::metadata(stat_path).map(drop)?)),
        Way::new("`cat status`: open, read, close", |_| {
            let mut answer = [0; 4096];
            Ok(File::open(stat_path)?.read(&mut answer).map(drop)?)
        }),
        Way::new("a daemon that only answers: ioctl", |at| {
            Ok(ask::ioctl(asked, &mut ask::message(query(at), K))?)
        }),
        Way::new("a daemon that only answers: write and read", |at| {
            Ok(ask::transaction(asked, &raw[at % count], &mut fifth).map(drop)?)
        }),
    ];
    for _ in 0..bench.rounds {
        for (at, way) in ways.iter_mut().enumerate() {
            way.turn(if at < 8 { &mount } else { &zeros })?;
        }
    }
    table(
        "one query, client and daemon on one CPU",
        &["microseconds", "over in process", "CPU time", "CPU over in process"],
    );
    let base = &ways[0];
    for (at, way) in ways.iter().enumerate() {
        let (over, cpu_over) = if (1..6).contains(&at) {
            let pairs = way.cpu.iter().zip(&base.cpu);
            (
                format!("{:+.1}", way.over(base)),
                format!("{:+.1}", median(pairs.map(|(a, b)| a - b).collect())),
            )
        } else {
            (String::new(), String::new())
        };
        let cpu = format!("{:.1}", median(way.cpu.clone()));
        row(way.name, &[format!("{:.1}", way.middle()), over, cpu, cpu_over]);
    }
    println!(
        "\nDaemon after {} queries: anonymous memory {} KiB; file-backed {} KiB, shared with the page cache.",
        bench.rounds * (TURN + 10) * 5,
        mount.memory("RssAnon")?,
        mount.memory("RssFile")?
    );
    Ok(())
}

/// Fast wrong answers would be worth nothing.
fn same_answers(bench: &Bench, view: &View, kept: &File, opens: &ask::Opens) -> Outcome<()> {
    let mut buffer = vec![0; ask::ANSWER];
    for at in 0..bench.data.truth.len().min(50) {
        let query = bench.data.query(at);
        let want = search(view, query, 1)?.concat();
        let len = ask::transaction(kept, &ask::raw(query), &mut buffer)?;
        let by_transaction = ask::ids_of_text(&buffer[..len]);
        let len = opens.ask(true, &ask::text(query), &mut buffer)?;
        let by_opens = ask::ids_of_text(&buffer[..len]);
        let mut message = ask::message(query, K);
        ask::ioctl(kept, &mut message)?;
        let by_ioctl = ask::ids_of_message(&message);
        if [&by_transaction, &by_opens, &by_ioctl] != [&want; 3] {
            return Err(format!(
                "query {at}: answers differ: {want:?} {by_transaction:?} {by_opens:?} {by_ioctl:?}"
            )
            .into());
        }
    }
    Ok(())
}

fn throughput(bench: &Bench) -> Outcome<()> {
    let store = Store::open(&bench.file, &OpenOptions::default())?;
    let view = store.view();
    let count = bench.data.truth.len();
    let queries: Vec<f32> = (0..BATCH).flat_map(|at| bench.data.query(at % count).iter().copied()).collect();
    let npy = ask::npy(&queries, bench.data.dimension);
    let mount = Mount::of(&bench.program, &bench.file, bench.place.join("mnt"))?;
    let threads = bench.cpus.len();
    let (mut inside, mut through, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut cpu_inside, mut cpu_through) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let (used, begin) = (rvf_tests::clock::cpu_time(), Instant::now());
        let found = search(&view, &queries, threads)?;
        inside.push(BATCH as f64 / begin.elapsed().as_secs_f64());
        cpu_inside.push(microseconds(rvf_tests::clock::cpu_time() - used) / BATCH as f64);
        let (used, daemon, begin) = (cpu::of_thread(), mount.cpu(), Instant::now());
        File::options().write(true).truncate(true).open(mount.join("query/in"))?.write_all(&npy)?;
        let ids = std::fs::read(mount.join("query/out.ids.npy"))?;
        through.push(BATCH as f64 / begin.elapsed().as_secs_f64());
        cpu_through.push(
            microseconds((cpu::of_thread() - used) + mount.cpu().saturating_sub(daemon)) / BATCH as f64,
        );
        let (ids, _) = ids[ids.len().saturating_sub(8 * K * BATCH)..].as_chunks::<8>();
        let ids: Vec<u64> = ids.iter().map(|id| u64::from_le_bytes(*id)).collect();
        if ids != found.concat() {
            return Err("the batch through the mount gives other answers".into());
        }
        if let (Some(a), Some(b)) = (through.last(), inside.last()) {
            ratios.push(a / b);
        }
    }
    table("throughput, all CPUs", &["queries a second", "ratio", "CPU microseconds a query"]);
    let cells = |qps: Vec<f64>, ratio: f64, cpu: Vec<f64>| {
        [format!("{:.0}", median(qps)), format!("{ratio:.2}"), format!("{:.1}", median(cpu))]
    };
    row(&format!("in process, batches of {BATCH}, {threads} threads"), &cells(inside, 1.0, cpu_inside));
    row(
        &format!("a .npy of {BATCH} queries through `query/in`, ids from `out.ids.npy`"),
        &cells(through, median(ratios), cpu_through),
    );
    clients(bench, &mount, &bench.cpus)?;
    drop(mount);
    pin(&[bench.cpu])?;
    let mount = Mount::of(&bench.program, &bench.file, bench.place.join("mnt"))?;
    clients(bench, &mount, &[bench.cpu])
}

fn clients(bench: &Bench, mount: &Mount, cpus: &[usize]) -> Outcome<()> {
    const CLIENTS: [usize; 4] = [1, 2, 4, 8];
    let mut figures = vec![Vec::new(); CLIENTS.len()];
    for _ in 0..bench.rounds.div_ceil(4) {
        for (at, clients) in CLIENTS.into_iter().enumerate() {
            figures[at].push(clients_once(bench, mount, clients)?);
        }
    }
    let ones = figures[0].clone();
    for (clients, figures) in CLIENTS.into_iter().zip(figures) {
        let ratio = median(figures.iter().zip(&ones).map(|(a, b)| a / b).collect());
        let times = if clients == 1 { "1.00".into() } else { format!("{ratio:.2} x one client") };
        let name = format!("{clients} with transactions, {} CPU(s)", cpus.len());
        row(&name, &[format!("{:.0}", median(figures)), times, String::new()]);
    }
    Ok(())
}

/// Queries a second that so many clients get together.
fn clients_once(bench: &Bench, mount: &Mount, clients: usize) -> Outcome<f64> {
    let stop = Arc::new(AtomicBool::new(false));
    let begin = Instant::now();
    let threads: Vec<_> = (0..clients)
        .map(|first| {
            let raw: Vec<Vec<u8>> = (0..64)
                .map(|at| ask::raw(bench.data.query((first * 61 + at) % bench.data.truth.len())))
                .collect();
            let (stop, path) = (stop.clone(), mount.join("query/in"));
            std::thread::spawn(move || -> std::io::Result<usize> {
                let kept = File::options().read(true).write(true).open(path)?;
                let mut answer = vec![0; ask::ANSWER];
                let mut done = 0;
                while !stop.load(Ordering::Relaxed) {
                    ask::transaction(&kept, &raw[done % raw.len()], &mut answer)?;
                    done += 1;
                }
                Ok(done)
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(700));
    stop.store(true, Ordering::Relaxed);
    let mut done = 0;
    for thread in threads {
        done += thread.join().map_err(|_| "a client panicked")??;
    }
    Ok(done as f64 / begin.elapsed().as_secs_f64())
}

/// Bytes and seconds by the clock, and seconds of CPU with those of the daemon.
fn read_all(path: &Path, mount: Option<&Mount>, buffer: &mut [u8]) -> Outcome<(f64, f64)> {
    let daemon = mount.map(Mount::cpu).unwrap_or_default();
    let (used, begin) = (cpu::of_thread(), Instant::now());
    let mut file = File::open(path)?;
    let mut total = 0;
    loop {
        match file.read(buffer)? {
            0 => break,
            len => total += len,
        }
    }
    let wall = begin.elapsed().as_secs_f64();
    let cpu = (cpu::of_thread() - used) + mount.map(Mount::cpu).unwrap_or_default().saturating_sub(daemon);
    let speed = |seconds: f64| total as f64 / seconds / 1e6;
    Ok((speed(wall), speed(cpu.as_secs_f64())))
}

const READS: [&str; 9] = [
    "native sequential read",
    "`file.rvf`, first",
    "`file.rvf`, second",
    "largest `segments/*/payload`, first",
    "largest `segments/*/payload`, second",
    "`vectors.npy`, first",
    "`vectors.npy`, second",
    "empty FUSE cached file, first",
    "empty FUSE cached file, second",
];

fn reads(bench: &Bench) -> Outcome<()> {
    let mut buffer = vec![0; CHUNK];
    let mut figures: Vec<Vec<(f64, f64)>> = vec![Vec::new(); READS.len()];
    read_all(&bench.file, None, &mut buffer)?;
    // One CPU for both sides: what is compared is work, and a wake-up across CPUs costs many times a message here.
    pin(&[bench.cpu])?;
    for _ in 0..bench.rounds {
        let mut put = |at: usize, figure| figures[at].push(figure);
        let size;
        {
            let mount = Mount::of(&bench.program, &bench.file, bench.place.join("mnt"))?;
            let payload = largest_payload(&mount)?;
            size = std::fs::metadata(&payload)?.len();
            put(0, read_all(&bench.file, None, &mut buffer)?);
            let paths = [mount.join("file.rvf"), payload, mount.join("vectors.npy")];
            for (at, path) in paths.iter().enumerate() {
                put(1 + 2 * at, read_all(path, Some(&mount), &mut buffer)?);
                put(2 + 2 * at, read_all(path, Some(&mount), &mut buffer)?);
            }
        }
        let zeros = zeros(bench, size)?;
        let path = zeros.join(empty::NAME);
        put(7, read_all(&path, Some(&zeros), &mut buffer)?);
        put(8, read_all(&path, Some(&zeros), &mut buffer)?);
    }
    table(
        "reading 1 MiB at a time, client and daemon on one CPU, page cache warm",
        &["MB/s", "x native", "x empty file", "MB/s of CPU time", "x native", "x empty file"],
    );
    for (at, name) in READS.into_iter().enumerate() {
        let ratio = |to: usize, pick: fn(&(f64, f64)) -> f64| {
            median(figures[at].iter().zip(&figures[to]).map(|(a, b)| pick(a) / pick(b)).collect())
        };
        let beside = |pick| match at {
            0..=2 => String::new(),
            at => format!("{:.2}", ratio(if at % 2 == 1 { 7 } else { 8 }, pick)),
        };
        row(
            name,
            &[
                format!("{:.0}", median(figures[at].iter().map(|f| f.0).collect())),
                format!("{:.2}", ratio(0, |f| f.0)),
                beside(|f| f.0),
                format!("{:.0}", median(figures[at].iter().map(|f| f.1).collect())),
                format!("{:.2}", ratio(0, |f| f.1)),
                beside(|f| f.1),
            ],
        );
    }
    Ok(())
}

/// The yardstick, mounted.
fn zeros(bench: &Bench, size: u64) -> Outcome<Mount> {
    let mut command = Command::new(std::env::current_exe()?);
    Mount::new(command.args(["--serve-zeros", &size.to_string()]), bench.place.join("zeros"))
}

fn largest_payload(mount: &Mount) -> Outcome<PathBuf> {
    let mut largest = None;
    for entry in std::fs::read_dir(mount.join("segments"))? {
        let path = entry?.path().join("payload");
        if let Ok(attributes) = std::fs::metadata(&path)
            && largest.as_ref().is_none_or(|(size, _)| attributes.len() > *size)
        {
            largest = Some((attributes.len(), path));
        }
    }
    Ok(largest.ok_or("the store has no segments")?.1)
}

/// Milliseconds until the command says that the mount is ready, and from there to the first answer.
fn mount_and_ask(bench: &Bench, file: &Path, want: Option<&[u64]>) -> Outcome<(f64, f64)> {
    let dir = bench.place.join("started");
    std::fs::create_dir_all(&dir)?;
    let request = ask::raw(bench.data.query(0));
    let mut answer = vec![0; ask::ANSWER];
    let begin = Instant::now();
    let status = Command::new(&bench.program).arg(file).arg(&dir).stdin(Stdio::null()).status()?;
    let ready = begin.elapsed();
    if !status.success() {
        return Err(format!("rvf-mount: {status}").into());
    }
    let asked = || -> Outcome<usize> {
        let kept = File::options().read(true).write(true).open(dir.join("query/in"))?;
        Ok(ask::transaction(&kept, &request, &mut answer)?)
    };
    let begin = Instant::now();
    let asked = { asked }();
    let first = begin.elapsed();
    mount::unmount(&dir);
    let found = ask::ids_of_text(&answer[..asked?]);
    if want.is_some_and(|want| want != found) {
        return Err(format!("the first answer is {found:?}, not {want:?}").into());
    }
    Ok((ready.as_secs_f64() * 1e3, first.as_secs_f64() * 1e3))
}

fn start(bench: &Bench) -> Outcome<()> {
    let small = stored(&bench.place.join("small.rvf"), &bench.data, 1000.min(bench.data.ids.len()))?;
    table("starting, page cache warm", &["mount ready, ms", "first answer after that, ms"]);
    for (file, vectors) in [(&small, 1000.min(bench.data.ids.len())), (&bench.file, bench.data.ids.len())] {
        start_row(bench, file, &format!("{vectors} vectors"), bench.rounds, || Ok(()))?;
    }
    let mount = Mount::of(&bench.program, &bench.file, bench.place.join("mnt"))?;
    let list = || -> Outcome<(usize, f64)> {
        let begin = Instant::now();
        let mut count = 0;
        for entry in std::fs::read_dir(mount.join("vectors"))? {
            entry?.metadata()?;
            count += 1;
        }
        Ok((count, begin.elapsed().as_secs_f64()))
    };
    let (count, first) = list()?;
    let again: Outcome<Vec<f64>> = (0..5).map(|_| list().map(|(_, seconds)| seconds)).collect();
    println!("\n`ls -l vectors/`, {count} entries: {first:.2} s, again {:.2} s.", median(again?));
    Ok(())
}

fn start_row(
    bench: &Bench,
    file: &Path,
    name: &str,
    rounds: usize,
    before: impl Fn() -> Outcome<()>,
) -> Outcome<()> {
    let want = search(&Store::open(file, &OpenOptions::default())?.view(), bench.data.query(0), 1)?.concat();
    let (mut ready, mut first) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        before()?;
        let (a, b) = mount_and_ask(bench, file, Some(&want))?;
        ready.push(a);
        first.push(b);
    }
    row(name, &[format!("{:.1}", median(ready)), format!("{:.2}", median(first))]);
    Ok(())
}

fn cold(bench: &Bench) -> Outcome<()> {
    table("starting, page cache dropped", &["mount ready, ms", "first answer after that, ms"]);
    let drop_caches = || {
        // Only what is on the disk already is dropped.
        File::open(&bench.file)?.sync_all()?;
        Ok(std::fs::write("/proc/sys/vm/drop_caches", "3")?)
    };
    start_row(bench, &bench.file, &format!("{} vectors", bench.data.ids.len()), 3, drop_caches)
}
