//! What branches cost, in one run, as Markdown tables.
//!
//! ```text
//! cargo bench -p rvf-tests --bench branch -- [DATA] [--rounds N] [--cache DIR] [--programs DIR] [--store FILE]
//!     [--only create,edits,read,query,million,list]
//! ```
//! DATA is as for the bench `peers`; FILE keeps the store made of it, with its index, for later runs. The synthetic stores (10,000, 100,000 and 1,000,000 vectors of 128 numbers around
//! 1,000 centres, from a fixed seed) are made in DIR, or in the build directory, and used again by later runs. `million`
//! asks the largest of them, which takes minutes to index the first time, and is left out unless named. `create` and
//! `list` need root, or a FUSE that lets users mount.
//!
//! One pinned thread; what is compared takes turns, round by round, and ratios are medians of the rounds' own. Creating
//! and freezing wait for the disk, so they are wall time, beside the least that a durable file costs on it: one sync of
//! the file, a hard link, one sync of the directory.

#[allow(dead_code, reason = "shared with the bench `mounted`, which uses all of it")]
#[path = "mounted/cpu.rs"]
mod cpu;
#[allow(dead_code, reason = "shared with the bench `mounted`, which uses all of it")]
#[path = "mounted/mount.rs"]
mod mount;

use std::collections::BTreeSet;
use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Instant;

use rvf_cow::{
    BadRow, Batch, BranchOptions, CreateOptions, Metric, NoProgress, OpenOptions, ReindexOptions,
    SearchRequest, Store,
};
use rvf_format::membership::{Membership, Mode};
use rvf_tests::clock::{median, pin, took};
use rvf_tests::place::Place;
use rvf_tests::programs;
use rvf_tests::random::{Random, vector_of};
use rvf_tests::sample::{self, Sample, recall};

use self::mount::Mount;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const K: usize = 10;
const DIMENSION: usize = 128;
const SIZES: [u64; 3] = [10_000, 100_000, 1_000_000];
const CHILDREN: usize = 1000;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("branch: {e}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug)]
struct Plan {
    data: PathBuf,
    rounds: usize,
    cache: PathBuf,
    program: Option<PathBuf>,
    store: Option<PathBuf>,
    only: Vec<String>,
}

impl Plan {
    fn wants(&self, part: &str) -> bool {
        if self.only.is_empty() { part != "million" } else { self.only.iter().any(|only| only == part) }
    }
}

fn plan() -> Outcome<Plan> {
    let mut plan = Plan {
        data: sample::directory(),
        rounds: 15,
        cache: programs::build_dir().join("branch"),
        program: None,
        store: None,
        only: Vec::new(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--rounds" => plan.rounds = value()?.parse::<usize>()?.max(1),
            "--cache" => plan.cache = value()?.into(),
            "--programs" => plan.program = Some(Path::new(&value()?).join("rvf-mount")),
            "--store" => plan.store = Some(value()?.into()),
            "--only" => plan.only = value()?.split(',').map(str::to_owned).collect(),
            // Cargo passes this one to every bench.
            "--bench" => {}
            other if !other.starts_with('-') => plan.data = other.into(),
            other => return Err(format!("{other} is not known; see the top of benches/branch.rs").into()),
        }
    }
    Ok(plan)
}

fn run() -> Outcome<()> {
    let plan = plan()?;
    let data = Sample::load(&plan.data)?;
    std::fs::create_dir_all(&plan.cache)?;
    let place = Place::on_disk()?;
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "{} vectors x {}, {} queries, k = {K}; {} rounds; {}; load when it began {}\n",
        data.ids.len(),
        data.dimension,
        data.truth.len(),
        plan.rounds,
        rvf_index::isa_name(),
        load.split(' ').next().unwrap_or("unknown"),
    );
    let real = place.join("data.rvf");
    if ["create", "read", "query", "list"].iter().any(|part| plan.wants(part)) {
        match plan.store.as_ref().filter(|kept| kept.exists()) {
            Some(kept) => drop(std::fs::copy(kept, &real)?),
            None => make(&plan, &data, &real)?,
        }
    }
    pin(&[std::thread::available_parallelism().map_or(1, std::num::NonZero::get) - 1])?;
    if plan.wants("create") {
        create_table(&plan, &place, &real)?;
    }
    if plan.wants("edits") {
        edits_table(&plan, &place)?;
    }
    if plan.wants("read") {
        read_table(&plan, &place, &real, &data.ids)?;
    }
    if plan.wants("query") {
        query_table(&plan, &place, &real, &data.queries, data.dimension, "the data set")?;
    }
    if plan.wants("million") {
        let file = synthetic(&plan, 1_000_000, true)?;
        let queries: Vec<f32> = (0..500).flat_map(|row| synthetic_row(u64::MAX / 2 + row)).collect();
        query_table(&plan, &place, &file, &queries, DIMENSION, "1,000,000 x 128")?;
    }
    if plan.wants("list") {
        list_table(&plan, &place, &real)?;
    }
    Ok(())
}

/// Makes the store of the data set.
fn make(plan: &Plan, data: &Sample, path: &Path) -> Outcome<()> {
    let store = fill(path, data.dimension, 0, |row| (row, Vec::new()))?;
    // With its metadata, which a copy must not have to look at.
    let (ids, records) = sample::metadata(&plan.data)?.into_iter().unzip();
    let vectors = data.base.clone();
    let batch = Batch {
        dimension: data.dimension,
        ids: Some(ids),
        vectors,
        metadata: records,
        on_bad_row: BadRow::Refuse,
    };
    store.ingest(&batch, &NoProgress)?;
    if plan.wants("query") || plan.store.is_some() {
        store.reindex(&ReindexOptions::default(), &NoProgress)?;
    }
    if let Some(kept) = &plan.store {
        std::fs::copy(path, kept)?;
    }
    Ok(())
}

/// A row of the synthetic stores: one of 1,000 centres, and noise.
fn synthetic_row(row: u64) -> Vec<f32> {
    let centre = vector_of(Random::new(row).bits() % 1000, DIMENSION);
    let noise = vector_of(row.wrapping_add(1_000_000), DIMENSION);
    centre.iter().zip(&noise).map(|(c, n)| c + 0.5 * n).collect()
}

/// A synthetic store, made unless it is there.
fn synthetic(plan: &Plan, rows: u64, index: bool) -> Outcome<PathBuf> {
    let path = plan.cache.join(format!("synthetic-{rows}.rvf"));
    let store = if path.exists() {
        Store::open(&path, &OpenOptions::default())?
    } else {
        eprintln!("making {} ...", path.display());
        let making = plan.cache.join(format!("making-{rows}.rvf"));
        drop(fill(&making, DIMENSION, rows, |row| (row, synthetic_row(row)))?);
        std::fs::rename(&making, &path)?;
        Store::open(&path, &OpenOptions::default())?
    };
    if index && store.view().status().index.indexed == 0 {
        eprintln!("indexing {} ...", path.display());
        store.reindex(&ReindexOptions::default(), &NoProgress)?;
    }
    Ok(path)
}

fn fill(
    path: &Path,
    dimension: usize,
    rows: u64,
    row: impl Fn(u64) -> (u64, Vec<f32>),
) -> Outcome<Arc<Store>> {
    if path.exists() {
        std::fs::remove_file(path)?;
    }
    let options = CreateOptions { dimension: dimension as u16, metric: Metric::Cosine, profile: 0 };
    let store = Store::create(path, &options)?;
    for from in (0..rows).step_by(100_000) {
        let (ids, vectors): (Vec<u64>, Vec<Vec<f32>>) = (from..rows.min(from + 100_000)).map(&row).unzip();
        put(&store, ids, vectors.concat())?;
    }
    Ok(store)
}

fn put(store: &Store, ids: Vec<u64>, vectors: Vec<f32>) -> Outcome<()> {
    let dimension = store.view().dimension();
    let batch =
        Batch { dimension, ids: Some(ids), vectors, metadata: Vec::new(), on_bad_row: BadRow::Refuse };
    store.ingest(&batch, &NoProgress)?;
    Ok(())
}

fn open(path: &Path) -> Outcome<Arc<Store>> {
    Ok(Store::open(path, &OpenOptions::default())?)
}

fn branch_of(store: &Store, path: &Path) -> Outcome<Arc<Store>> {
    store.branch(path, &BranchOptions::default())?;
    open(path)
}

fn ms(work: impl FnOnce() -> Outcome<()>) -> Outcome<f64> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

fn shown(figures: Vec<f64>) -> String {
    let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let most = figures.iter().copied().fold(0.0, f64::max);
    format!("{:.2} | {least:.2}..{most:.2}", median(figures))
}

/// The least that a new durable file costs: its sync, a hard link to its name, the directory's sync.
fn floor(dir: &Path) -> Outcome<f64> {
    let (scratch, path) = (dir.join("floor.tmp"), dir.join("floor"));
    let cost = ms(|| {
        let mut file = File::create_new(&scratch)?;
        file.write_all(&[7; 832])?;
        file.sync_all()?;
        std::fs::hard_link(&scratch, &path)?;
        std::fs::remove_file(&scratch)?;
        File::open(dir)?.sync_all()?;
        Ok(())
    })?;
    std::fs::remove_file(&path)?;
    Ok(cost)
}

/// The least that a commit costs: two syncs of an open file that grew.
fn commit_floor(dir: &Path) -> Outcome<f64> {
    let path = dir.join("floor");
    let mut file = File::create_new(&path)?;
    file.sync_all()?;
    let cost = ms(|| {
        for _ in 0..2 {
            file.write_all(&[7; 448])?;
            file.sync_data()?;
        }
        Ok(())
    })?;
    std::fs::remove_file(&path)?;
    Ok(cost)
}

fn create_table(plan: &Plan, place: &Place, real: &Path) -> Outcome<()> {
    println!("### Making and freezing a branch\n");
    println!("| ms, wall | parent | child, bytes | median | min..max | floor of the disk |");
    println!("|---|---:|---:|---:|---:|---:|");
    let mut parents = vec![real.to_path_buf()];
    for rows in SIZES {
        let cached = synthetic(plan, rows, false)?;
        let path = place.join(&format!("p{rows}.rvf"));
        std::fs::copy(&cached, &path)?;
        File::open(&path)?.sync_all()?;
        parents.push(path);
    }
    for parent in &parents {
        let store = open(parent)?;
        let mounted = Mount::of(&program(plan)?, parent, place.join("mnt"))?;
        let main = mounted.join("branches/main");
        // As a user would find it, who has looked at the branch before.
        Command::new("ls").arg("-l").arg(&main).output()?;
        let (mut least, mut commit) = (Vec::new(), Vec::new());
        let (mut made, mut frozen, mut copied) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = 0;
        for round in 0..plan.rounds {
            least.push(floor(place.path())?);
            let path = place.join("child.rvf");
            made.push(ms(|| {
                bytes = store.branch(&path, &BranchOptions::default())?.bytes;
                Ok(())
            })?);
            let child = open(&path)?;
            commit.push(commit_floor(place.path())?);
            frozen.push(ms(|| {
                child.freeze()?;
                Ok(())
            })?);
            drop(child);
            std::fs::remove_file(&path)?;
            let to = mounted.join(&format!("branches/b{round}"));
            copied.push(ms(|| {
                let status = Command::new("cp").arg("-r").arg(&main).arg(&to).status()?;
                if status.success() { Ok(()) } else { Err(format!("cp -r ended with {status}").into()) }
            })?);
            Command::new("rm").arg("-r").arg(&to).status()?;
        }
        let rows = store.view().live();
        let (least, commit) = (median(least), median(commit));
        println!("| in process | {rows} | {bytes} | {} | {least:.2} |", shown(made));
        println!("| `cp -r branches/main branches/x` | {rows} | {bytes} | {} | {least:.2} |", shown(copied));
        println!("| freeze | {rows} | | {} | {commit:.2} |", shown(frozen));
    }
    println!();
    Ok(())
}

fn program(plan: &Plan) -> Outcome<PathBuf> {
    if let Some(program) = &plan.program {
        return Ok(program.clone());
    }
    let dir = programs::build_dir();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--release", "-p", "rvf-fs", "--bin", "rvf-mount", "--target-dir"]);
    cargo.arg(dir.parent().unwrap_or(&dir)).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    if !cargo.status()?.success() {
        return Err("rvf-mount does not build".into());
    }
    Ok(dir.parent().unwrap_or(&dir).join("release/rvf-mount"))
}

fn edits_table(plan: &Plan, place: &Place) -> Outcome<()> {
    let parent = open(&synthetic(plan, 1_000_000, false)?)?;
    let path = place.join("edited.rvf");
    let child = branch_of(&parent, &path)?;
    let mut random = Random::new(3);
    for edit in 0..100 {
        let id = random.bits() % 1_000_000;
        if edit % 2 == 0 {
            put(&child, vec![id], synthetic_row(id + 1))?;
        } else {
            child.delete(&[id])?;
        }
    }
    println!(
        "100 edits (50 overwritten, 50 deleted, a commit each) of a branch of 1,000,000 x {DIMENSION}: "
    );
    println!("{} bytes on disk\n", std::fs::metadata(&path)?.len());
    Ok(())
}

/// Nanoseconds a vector, and ratios, round by round.
#[derive(Default)]
struct Reading {
    own: Vec<f64>,
    inherited: Vec<f64>,
    parents: Vec<f64>,
    to_own: Vec<f64>,
    to_parents: Vec<f64>,
}

impl Reading {
    fn push(&mut self, reads: usize, own: f64, inherited: f64, parents: f64) {
        let one = 1e9 / reads as f64;
        self.own.push(own * one);
        self.inherited.push(inherited * one);
        self.parents.push(parents * one);
        self.to_own.push(inherited / own);
        self.to_parents.push(inherited / parents);
    }

    fn print(self, name: &str) {
        let (own, inherited, parents) = (median(self.own), median(self.inherited), median(self.parents));
        let (to_own, to_parents) = (median(self.to_own), median(self.to_parents));
        println!("| {name} | {own:.0} | {inherited:.0} | {to_own:.2} | {parents:.0} | {to_parents:.2} |");
    }
}

/// Reading by id, and asking the filter.
fn read_table(plan: &Plan, place: &Place, real: &Path, all: &[u64]) -> Outcome<()> {
    const READS: usize = 4_000;
    let parent = open(real)?;
    let child = branch_of(&parent, &place.join("read.rvf"))?;
    let some: Vec<u64> = all.iter().copied().step_by(2).collect();
    let view = parent.view();
    let vectors = some.iter().flat_map(|id| floats(view.vector(view.find(*id).unwrap_or(0)))).collect();
    put(&child, some, vectors)?;
    let view = child.view();
    let resolved = view.resolved();
    let mut random = Random::new(5);
    let mut picks = |odd: usize| -> Vec<u64> {
        (0..READS).map(|_| all[(random.bits() as usize % (all.len() / 2)) * 2 + odd]).collect()
    };
    let (local, inherited) = (picks(0), picks(1));
    let places = |ids: &[u64]| -> Vec<_> { ids.iter().filter_map(|id| resolved.find(*id)).collect() };
    let (local_places, inherited_places) = (places(&local), places(&inherited));
    if local_places.iter().any(|p| p.layer != 0) || inherited_places.iter().any(|p| p.layer != 1) {
        return Err("rows are not where they should be".into());
    }
    let sum = |bytes: &[u8]| bytes.iter().step_by(64).fold(0u64, |sum, b| sum + u64::from(*b));
    let by_id = |ids: &[u64]| {
        let work =
            || ids.iter().filter_map(|id| resolved.find(*id)).map(|p| sum(resolved.vector(p))).sum::<u64>();
        took(|| black_box(work())).0.cpu.as_secs_f64()
    };
    let by_place = |places: &[rvf_cow::Place]| {
        took(|| black_box(places.iter().map(|p| sum(resolved.vector(*p))).sum::<u64>())).0.cpu.as_secs_f64()
    };
    let above = parent.view();
    let parents_places: Vec<u32> = inherited.iter().filter_map(|id| above.find(*id)).collect();
    let (mut found, mut known) = (Reading::default(), Reading::default());
    for _ in 0..plan.rounds * 20 {
        let work = || {
            let places = inherited.iter().filter_map(|id| above.find(*id));
            places.map(|o| sum(above.vector(o))).sum::<u64>()
        };
        let parents = took(|| black_box(work())).0.cpu.as_secs_f64();
        found.push(READS, by_id(&local), by_id(&inherited), parents);
        let work = || parents_places.iter().map(|o| sum(above.vector(*o))).sum::<u64>();
        let parents = took(|| black_box(work())).0.cpu.as_secs_f64();
        known.push(READS, by_place(&local_places), by_place(&inherited_places), parents);
    }
    println!("### Reading a vector of a branch, half of whose rows are its own\n");
    println!("| ns a vector | its own | inherited | x its own | the same of the parent | x the parent's |");
    println!("|---|---:|---:|---:|---:|---:|");
    found.print("found by id");
    known.print("at a known place");
    println!();

    let mut hidden = BTreeSet::new();
    while hidden.len() < 10_000 {
        hidden.insert(random.bits() % 1_000_000);
    }
    let mut bitmap = Membership::empty(Mode::Exclude, 1_000_000)?;
    for id in &hidden {
        bitmap.set(*id, true);
    }
    let all: Vec<u64> = (0..READS).map(|_| random.bits() % 1_000_000).collect();
    let some: Vec<u64> = hidden.iter().copied().collect();
    let some = (0..READS).map(|_| some[random.bits() as usize % some.len()]).collect();
    let list = Membership::hiding(hidden);
    println!("| membership test, 1,000,000 ids, 1 % hidden | ns |\n|---|---:|");
    let tests =
        [("bitmap", &bitmap, &all), ("list", &list, &all), ("list, ids that are in it", &list, &some)];
    for (name, filter, asked) in tests {
        let once = || asked.iter().filter(|id| filter.shows(**id)).count();
        let one = |_| {
            let (took, _) = took(|| (0..10).map(|_| black_box(once())).sum::<usize>());
            took.cpu.as_secs_f64() / (10 * READS) as f64 * 1e9
        };
        println!("| {name} | {:.1} |", median((0..plan.rounds).map(one).collect()));
    }
    println!();
    Ok(())
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b))
}

fn ask(store: &Store, queries: &[f32], ef: Option<usize>, exact: bool) -> Outcome<(f64, Vec<Vec<u64>>)> {
    let view = store.view();
    let request = SearchRequest { queries, k: K, ef, filter: None, exact, deadline: None, threads: 1 };
    let (took, answers) = took(|| view.search(&request));
    let ids = answers?.iter().map(|answer| answer.hits.iter().map(|hit| hit.id).collect()).collect();
    Ok((took.cpu.as_secs_f64(), ids))
}

fn query_table(
    plan: &Plan,
    place: &Place,
    file: &Path,
    queries: &[f32],
    dimension: usize,
    of: &str,
) -> Outcome<()> {
    let parent = open(file)?;
    let fresh = branch_of(&parent, &place.join("fresh.rvf"))?;
    let edited = branch_of(&parent, &place.join("one-percent.rvf"))?;
    let mut ids: Vec<u64> = parent.view().live_ordinals().iter().map(|o| parent.view().id(*o)).collect();
    let mut random = Random::new(11);
    let share = ids.len() / 100;
    for at in 0..2 * share {
        let other = at + random.bits() as usize % (ids.len() - at);
        ids.swap(at, other);
    }
    let (over, gone) = ids.split_at(share);
    let view = parent.view();
    // Overwritten by other vectors of the store, with a little noise: where queries look.
    let vectors: Vec<f32> = over
        .iter()
        .flat_map(|id| {
            let other = ids[2 * share + *id as usize % (ids.len() - 2 * share)];
            let noise = vector_of(*id, dimension);
            let row: Vec<f32> = floats(view.vector(view.find(other).unwrap_or(0))).collect();
            row.into_iter().zip(noise).map(|(v, n)| v + 0.02 * n).collect::<Vec<f32>>()
        })
        .collect();
    put(&edited, over.to_vec(), vectors)?;
    edited.delete(&gone[..share])?;

    let exact = |store: &Store| -> Outcome<Vec<Vec<u64>>> { Ok(ask(store, queries, None, true)?.1) };
    let mut stores = vec![&parent, &fresh, &edited];
    let mut names = vec!["parent", "fresh branch", "branch, 1 % overwritten and 1 % deleted"];
    // What a mount does by itself for so many rows.
    let indexed = if edited.view().wants_index() {
        let path = place.join("indexed.rvf");
        std::fs::copy(edited.path(), &path)?;
        let indexed = open(&path)?;
        indexed.reindex(&ReindexOptions::default(), &NoProgress)?;
        names.push("the same, its own rows indexed");
        Some(indexed)
    } else {
        None
    };
    stores.extend(&indexed);
    let truths = stores.iter().map(|store| exact(store)).collect::<Outcome<Vec<_>>>()?;
    let banned: BTreeSet<u64> = gone[..share].iter().copied().collect();
    if truths[2].iter().flatten().any(|id| banned.contains(id)) {
        return Err("a deleted vector was found".into());
    }
    // The smallest parameter that reaches the recall in all, so that all do the same work.
    let mut ef = 16;
    let found = loop {
        let mut recalls = Vec::new();
        for (store, truth) in stores.iter().zip(&truths) {
            recalls.push(recall(&ask(store, queries, Some(ef), false)?.1, truth, K));
        }
        if recalls.iter().all(|r| *r >= 0.95) || ef >= 1024 {
            break recalls;
        }
        ef += 8;
    };
    let mut times = vec![Vec::new(); stores.len()];
    let mut ratios = times.clone();
    let count = (queries.len() / dimension) as f64;
    for round in 0..plan.rounds {
        let mut seconds = vec![0.0; stores.len()];
        for turn in 0..stores.len() {
            let which = (round + turn) % stores.len();
            for _ in 0..4 {
                seconds[which] += ask(stores[which], queries, Some(ef), false)?.0;
            }
        }
        for which in 0..stores.len() {
            times[which].push(4.0 * count / seconds[which]);
            ratios[which].push(seconds[0] / seconds[which]);
        }
    }
    println!("### Queries of {of}, ef = {ef}\n");
    println!("| | recall@10 | QPS | min..max | x parent |\n|---|---:|---:|---:|---:|");
    for (((name, found), times), ratios) in names.iter().zip(found).zip(times).zip(ratios) {
        let (least, most) = times.iter().fold((f64::INFINITY, 0f64), |(a, b), t| (a.min(*t), b.max(*t)));
        println!(
            "| {name} | {found:.4} | {:.0} | {least:.0}..{most:.0} | {:.2} |",
            median(times),
            median(ratios)
        );
    }
    println!();
    Ok(())
}

fn list_table(plan: &Plan, place: &Place, real: &Path) -> Outcome<()> {
    let dir = place.join("many");
    std::fs::create_dir_all(&dir)?;
    let parent = dir.join("data.rvf");
    std::fs::rename(real, &parent)?;
    let store = open(&parent)?;
    for child in 0..CHILDREN {
        store.branch(&dir.join(format!("data.c{child}.rvf")), &BranchOptions::default())?;
    }
    let mounted = Mount::of(&program(plan)?, &parent, place.join("mnt"))?;
    let list = || -> Outcome<()> {
        let output = Command::new("ls").arg(mounted.join("branches")).output()?;
        let lines = output.stdout.iter().filter(|b| **b == b'\n').count();
        if lines == CHILDREN + 1 { Ok(()) } else { Err(format!("{lines} branches are listed").into()) }
    };
    let first = ms(list)?;
    let again = (0..plan.rounds).map(|_| ms(list)).collect::<Outcome<Vec<f64>>>()?;
    println!("| `ls branches`, {CHILDREN} branches | ms, wall |\n|---|---:|");
    println!("| the first after mounting | {first:.1} |\n| again | {:.1} |\n", median(again));
    Ok(())
}
