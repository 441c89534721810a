//! Random histories over a tree of branches, against plain maps: edits, merges, compactions, renames, new places of parents, lost
//! parents, and crashes of the machine in the middle of any of it. Every step is checked in every branch, with reopening.
//!
//! `RVF_BRANCH_MODEL_CASES=n` runs more of them.

mod branches;
mod recorder;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use branches::*;
use proptest::prelude::*;
use recorder::{Disk, Fault, Files};
use rvf_cow::{
    Batch, Change, Difference, Error, Fields, NoProgress, SearchRequest, Store, Value, View, diff,
};
use rvf_format::{Finding, Severity};

/// A vector's seed and its fields.
type Contents = BTreeMap<u64, (u64, Record)>;
type Record = BTreeMap<String, Value>;

/// Most branches of one history.
const NODES: usize = 7;
/// Names that files get, so that a name that became free is used again soon.
const NAMES: usize = 12;

#[derive(Debug, Clone)]
enum Step {
    Ingest {
        ids: Vec<u64>,
        seed: u64,
        field: Option<(bool, i64)>,
    },
    Delete {
        ids: Vec<u64>,
    },
    Put {
        id: u64,
        field: Option<(bool, i64)>,
    },
    Branch,
    Compact,
    Freeze,
    Merge,
    Reopen,
    /// The file gets another name, and branches of it are led there.
    Rename {
        name: usize,
    },
    /// The branch is led to a copy of its parent's file.
    Reparent {
        name: usize,
    },
    /// The file is away for a while.
    Lose,
    /// The machine goes down after so many changes to the disk, and loses what `seed` draws.
    Crash {
        after: u64,
        seed: u64,
        step: Box<Step>,
    },
}

/// Few ids, some of them large, so that edits meet.
fn id() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0u64..12, 1 => Just(u64::MAX), 1 => Just((1u64 << 53) - 3)]
}

fn field_value() -> impl Strategy<Value = Option<(bool, i64)>> {
    proptest::option::of((any::<bool>(), -2i64..3))
}

/// What a crash can fall into.
fn change() -> impl Strategy<Value = Step> {
    let ids =
        || proptest::collection::btree_set(id(), 1..5).prop_map(|set| set.into_iter().collect::<Vec<_>>());
    prop_oneof![
        6 => (ids(), 0u64..6, field_value()).prop_map(|(ids, seed, field)| Step::Ingest { ids, seed, field }),
        4 => ids().prop_map(|ids| Step::Delete { ids }),
        3 => (id(), field_value()).prop_map(|(id, field)| Step::Put { id, field }),
        3 => Just(Step::Branch),
        3 => Just(Step::Compact),
        1 => Just(Step::Freeze),
        2 => Just(Step::Merge),
    ]
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let crash = (0u64..16, 0u64..60, change()).prop_map(|(after, seed, step)| Step::Crash {
        after,
        seed,
        step: Box::new(step),
    });
    let step = prop_oneof![
        18 => change(),
        2 => Just(Step::Reopen),
        2 => (0..NAMES).prop_map(|name| Step::Rename { name }),
        1 => (0..NAMES).prop_map(|name| Step::Reparent { name }),
        1 => Just(Step::Lose),
        4 => crash,
    ];
    (any::<usize>(), step)
}

struct Node {
    name: String,
    store: Arc<Store>,
    contents: Contents,
    frozen: bool,
    /// Which node it is a branch of, and what that held then.
    parent: Option<(usize, Contents)>,
}

fn record(field: Option<(bool, i64)>) -> Record {
    field
        .map(|(which, value)| (if which { "size" } else { "weight" }.to_owned(), Value::I64(value)))
        .into_iter()
        .collect()
}

fn fields(record: &Record) -> Fields {
    record.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn vector(id: u64, seed: u64) -> Vec<f32> {
    batch(&[id], seed).vectors
}

fn vector_bytes(id: u64, seed: u64) -> Vec<u8> {
    vector(id, seed).iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Whether a store shows just this.
fn shows(store: &Store, contents: &Contents, frozen: bool) -> bool {
    let view = store.view();
    let resolved = view.resolved();
    view.frozen().is_some() == frozen
        && ids(store) == contents.keys().copied().collect::<Vec<_>>()
        && contents.iter().all(|(id, (seed, record))| {
            let shown: Record = view.fields(*id).unwrap_or_default().into_iter().collect();
            let place = resolved.find(*id).expect("it is listed");
            resolved.vector(place) == vector_bytes(*id, *seed) && shown == *record
        })
}

fn check(node: &Node, store: &Store) {
    let view = store.view();
    let resolved = view.resolved();
    view.complete().expect("complete");
    assert_eq!(ids(store), node.contents.keys().copied().collect::<Vec<_>>());
    let with: Vec<u64> =
        node.contents.iter().filter(|(_, (_, r))| !r.is_empty()).map(|(id, _)| *id).collect();
    let mut shown = view.metadata_ids();
    shown.retain(|id| view.fields(*id).is_some_and(|f| !f.is_empty()));
    assert_eq!(shown, with);
    for (id, (seed, record)) in &node.contents {
        let place = resolved.find(*id).expect("found");
        assert_eq!(resolved.vector(place), vector_bytes(*id, *seed), "vector {id}");
        let shown: Record = view.fields(*id).unwrap_or_default().into_iter().collect();
        assert_eq!(&shown, record, "fields of {id}");
    }
    for id in 0..12 {
        assert_eq!(resolved.find(id).is_some(), node.contents.contains_key(&id), "id {id}");
    }
    let query = noise(41, DIM);
    for k in [1, 4, 100] {
        assert_eq!(nearest(store, &query, k, true), truth(store, &query, k));
    }
    let matching: Vec<u64> = node
        .contents
        .iter()
        .filter(|(_, (_, r))| matches!(r.get("size"), Some(Value::I64(v)) if *v > 0))
        .map(|(id, _)| *id)
        .collect();
    let mut found = view.matching_ids("size > 0").expect("filter");
    found.sort_unstable();
    assert_eq!(found, matching);
    let filtered = SearchRequest { filter: Some("size > 0"), ..request(&query, 50, false) };
    let mut hits: Vec<u64> = view.search(&filtered).expect("search")[0].hits.iter().map(|h| h.id).collect();
    hits.sort_unstable();
    assert_eq!(hits, matching);
    let damage = damage(&view);
    assert!(damage.is_none(), "{damage:?}");
}

/// Damage of what is committed. A manifest that a crash left half written fails its hash, as a damaged one would, until the next
/// commit: it lies behind the one in force.
fn damage(view: &View) -> Option<Finding> {
    let end = view.opened().manifest.as_ref().map_or(0, |located| located.segment.raw.end);
    let mut damage = view.findings().iter().filter(|finding| finding.severity == Severity::Damage);
    damage.find(|finding| finding.offset < end).cloned()
}

/// Whether a crash left half a manifest.
fn is_torn(view: &View) -> bool {
    view.findings().iter().any(|finding| finding.severity == Severity::Damage)
}

/// What `diff` must give.
fn apart(a: &Contents, b: &Contents) -> Vec<Difference> {
    let mut all: Vec<u64> = a.keys().chain(b.keys()).copied().collect();
    all.sort_unstable();
    all.dedup();
    let one = |id: u64| {
        let kind = match (a.get(&id), b.get(&id)) {
            (Some((x, left)), Some((y, right))) => {
                let names: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
                let fields: Vec<String> =
                    names.into_iter().filter(|n| left.get(*n) != right.get(*n)).cloned().collect();
                if x == y && fields.is_empty() {
                    return None;
                }
                Change::Changed { vector: x != y, fields }
            }
            (Some(_), None) => Change::Removed,
            _ => Change::Added,
        };
        Some(Difference { id, kind })
    };
    all.into_iter().filter_map(one).collect()
}

/// How a step is refused.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Refusal {
    Frozen,
    NoSuchId,
    Conflicts,
}

/// What a step makes of a node.
struct Effect {
    node: usize,
    contents: Contents,
    frozen: bool,
    refusal: Option<Refusal>,
}

/// The stores, and the disk that they lie on: one that can crash where there is FUSE.
struct World {
    /// Closed before the disk goes.
    nodes: Vec<Node>,
    disk: Option<Disk>,
    directory: PathBuf,
    _plain: Option<tempfile::TempDir>,
}

impl World {
    fn new() -> Self {
        let disk = Disk::possible().then(|| Disk::new(&Files::new()));
        let plain = disk.is_none().then(|| tempfile::tempdir().expect("a directory"));
        let directory = match (&disk, &plain) {
            (Some(disk), _) => disk.path().to_path_buf(),
            (None, Some(plain)) => plain.path().to_path_buf(),
            (None, None) => PathBuf::new(),
        };
        let store = create(&directory.join("0.rvf"), 0..6);
        let contents = (0..6).map(|id| (id, (1, Record::new()))).collect();
        let root = Node { name: "0.rvf".into(), store, contents, frozen: false, parent: None };
        Self { disk, directory, _plain: plain, nodes: vec![root] }
    }

    fn path(&self, at: usize) -> PathBuf {
        self.directory.join(&self.nodes[at].name)
    }

    /// The first free name from `from` on.
    fn free(&self, from: usize) -> Option<String> {
        let names = (from..from + NAMES).map(|number| format!("{}.rvf", number % NAMES));
        names.into_iter().find(|name| !self.directory.join(name).exists())
    }

    fn sync(&self) {
        File::open(&self.directory).and_then(|directory| directory.sync_all()).expect("synced");
    }

    fn reopen(&mut self, at: usize) {
        self.nodes[at].store = open(&self.path(at));
    }

    /// What the step makes of which node, by the model.
    fn effect(&self, at: usize, step: &Step) -> Effect {
        let node = &self.nodes[at];
        let mut effect =
            Effect { node: at, contents: node.contents.clone(), frozen: node.frozen, refusal: None };
        let contents = &mut effect.contents;
        match step {
            Step::Ingest { ids, seed, field } => {
                let record = record(*field);
                for id in ids {
                    let entry = contents.entry(*id).or_default();
                    entry.0 = *seed;
                    if field.is_some() {
                        entry.1 = record.clone();
                    }
                }
            }
            Step::Delete { ids } => {
                if !ids.iter().any(|id| contents.contains_key(id)) {
                    return effect;
                }
                contents.retain(|id, _| !ids.contains(id));
            }
            Step::Put { id, field } => match contents.get_mut(id) {
                Some(entry) => entry.1 = record(*field),
                None => effect.refusal = Some(Refusal::NoSuchId),
            },
            Step::Merge => {
                let Some((into, base)) = &node.parent else { return effect };
                return self.merged(*into, base, &node.contents);
            }
            Step::Freeze => {
                effect.frozen = true;
                return effect;
            }
            Step::Compact => {}
            _ => return effect,
        }
        if node.frozen {
            effect.refusal = Some(Refusal::Frozen);
        }
        if effect.refusal.is_some() {
            effect.contents = node.contents.clone();
        }
        effect
    }

    fn merged(&self, into: usize, base: &Contents, mine: &Contents) -> Effect {
        let theirs = &self.nodes[into].contents;
        let frozen = self.nodes[into].frozen;
        let mut contents = theirs.clone();
        let mut refusal = frozen.then_some(Refusal::Frozen);
        for Difference { id, .. } in apart(base, mine) {
            if theirs.get(&id) == mine.get(&id) {
                continue;
            }
            if theirs.get(&id) != base.get(&id) {
                refusal = refusal.or(Some(Refusal::Conflicts));
            }
            match mine.get(&id) {
                Some(entry) => contents.insert(id, entry.clone()),
                None => contents.remove(&id),
            };
        }
        if refusal.is_some() {
            contents = theirs.clone();
        }
        Effect { node: into, contents, frozen, refusal }
    }

    /// Does it. A branch gets `name`.
    fn perform(&self, at: usize, step: &Step, name: &str) -> Result<Option<Refusal>, Error> {
        let node = &self.nodes[at];
        let result = match step {
            Step::Ingest { ids, seed, field } => {
                let record = record(*field);
                let metadata =
                    if field.is_some() { ids.iter().map(|_| fields(&record)).collect() } else { Vec::new() };
                node.store.ingest(&Batch { metadata, ..batch(ids, *seed) }, &NoProgress).map(drop)
            }
            Step::Delete { ids } => node.store.delete(ids).map(drop),
            Step::Put { id, field } => node.store.put_metadata(*id, &fields(&record(*field))).map(drop),
            // What may be a damaged commit is not made final.
            Step::Compact if is_torn(&node.store.view()) => match node.store.compact(&NoProgress) {
                Err(Error::Damaged { .. }) => Ok(()),
                other => panic!("compacted: {other:?}"),
            },
            Step::Compact => node.store.compact(&NoProgress).map(drop),
            Step::Freeze => node.store.freeze().map(drop),
            Step::Branch => {
                let path = self.directory.join(name);
                node.store.branch(&path, &rvf_cow::BranchOptions::default()).map(drop)
            }
            Step::Merge => match &node.parent {
                None => Ok(()),
                Some((into, _)) => {
                    let report = node.store.merge_into(&self.nodes[*into].store);
                    if report.as_ref().is_ok_and(|report| !report.conflicts.is_empty()) {
                        return Ok(Some(Refusal::Conflicts));
                    }
                    report.map(drop)
                }
            },
            _ => Ok(()),
        };
        match result {
            Ok(()) => Ok(None),
            Err(Error::Frozen { .. }) => Ok(Some(Refusal::Frozen)),
            Err(Error::NoSuchId { .. }) => Ok(Some(Refusal::NoSuchId)),
            Err(other) => Err(other),
        }
    }

    fn add(&mut self, parent: usize, name: String) {
        let contents = self.nodes[parent].contents.clone();
        let store = open(&self.directory.join(&name));
        let parent = Some((parent, contents.clone()));
        self.nodes.push(Node { name, store, contents, frozen: false, parent });
    }

    fn step(&mut self, at: usize, step: &Step) {
        match step {
            Step::Crash { after, seed, step } => self.crash(at, *after, *seed, step),
            Step::Reopen => self.reopen(at),
            Step::Rename { name } => self.rename(at, *name),
            Step::Reparent { name } => self.reparent(at, *name),
            Step::Lose => self.lose(at),
            Step::Branch => {
                let Some(name) = self.free(0).filter(|_| self.nodes.len() < NODES) else { return };
                assert_eq!(self.perform(at, step, &name).expect("a branch"), None);
                self.add(at, name);
            }
            _ => {
                let effect = self.effect(at, step);
                let refusal = self.perform(at, step, "").unwrap_or_else(|e| panic!("{step:?}: {e}"));
                // A frozen store says so before it looks for an id.
                let frozen = self.nodes[effect.node].frozen;
                assert!(
                    refusal == effect.refusal || (frozen && refusal == Some(Refusal::Frozen)),
                    "{step:?}: {refusal:?}, and should be {:?}",
                    effect.refusal
                );
                let node = &mut self.nodes[effect.node];
                (node.contents, node.frozen) = (effect.contents, effect.frozen);
            }
        }
    }

    /// The step is done while the machine goes down, and everything is opened again from what is left.
    fn crash(&mut self, at: usize, after: u64, seed: u64, step: &Step) {
        let Some(disk) = &self.disk else { return self.step(at, step) };
        let new_name = self.free(0).filter(|_| self.nodes.len() < NODES);
        if matches!(step, Step::Branch) && new_name.is_none() {
            return;
        }
        let effect = self.effect(at, step);
        disk.fail(Some(Fault::Gone(after)));
        let result = self.perform(at, step, new_name.as_deref().unwrap_or_default());
        let files = disk.crashed(seed);
        // Not one store may hold a file of the disk that goes.
        let old: Vec<Node> = std::mem::take(&mut self.nodes);
        let old: Vec<_> = old.into_iter().map(|n| (n.name, n.contents, n.frozen, n.parent)).collect();
        self.disk = None;
        let disk = Disk::new(&files);
        self.directory = disk.path().to_path_buf();
        self.disk = Some(disk);
        for (name, contents, frozen, parent) in old {
            let store = open(&self.directory.join(&name));
            self.nodes.push(Node { name, store, contents, frozen, parent });
        }
        let node = &mut self.nodes[effect.node];
        let is_new = shows(&node.store, &effect.contents, effect.frozen);
        let is_old = shows(&node.store, &node.contents, node.frozen);
        let what = format!("{step:?} after {after} changes, seed {seed}: {result:?}");
        assert!(is_new || is_old, "{what}: {:?} is neither old nor new", node.name);
        assert!(is_new || !matches!(result, Ok(None)), "{what}: it was reported as done");
        if is_new {
            (node.contents, node.frozen) = (effect.contents, effect.frozen);
        }
        if let Some(name) = new_name.filter(|_| matches!(step, Step::Branch)) {
            let made = self.directory.join(&name).exists();
            assert!(made || result.is_err(), "{what}: it was reported as made");
            if made {
                self.add(at, name);
            }
        }
    }

    /// Nodes whose parent is read from this file.
    fn standing_on(&self, path: &Path) -> Vec<usize> {
        let stands =
            |node: &Node| node.store.view().parent_view().is_some_and(|parent| parent.path() == path);
        (0..self.nodes.len()).filter(|at| stands(&self.nodes[*at])).collect()
    }

    fn rename(&mut self, at: usize, name: usize) {
        let old = self.path(at);
        for other in 0..self.nodes.len() {
            self.reopen(other);
        }
        let children = self.standing_on(&old);
        // A frozen branch cannot be led anywhere, and the state of a branch that others stand on says where its parent was then.
        let bound = |child: &usize| {
            let has_own = |node: &Node| node.parent.as_ref().is_some_and(|(parent, _)| parent == child);
            self.nodes[*child].frozen || self.nodes.iter().any(has_own)
        };
        let Some(name) = self.free(name).filter(|_| !children.iter().any(bound)) else {
            return;
        };
        self.nodes[at].name = name;
        std::fs::rename(&old, self.path(at)).expect("renamed");
        self.sync();
        self.reopen(at);
        for child in children {
            self.reopen(child);
            let view = self.nodes[child].store.view();
            // A compaction that a crash cut off may have given the state that it stands on its hidden name already.
            let kept = view
                .parent_view()
                .and_then(|parent| parent.path().extension())
                .is_some_and(|e| e == "pinned");
            assert!(kept || view.complete().is_err(), "its parent is not where it was");
            self.nodes[child].store.reparent(&self.path(at)).expect("led there");
        }
    }

    fn reparent(&mut self, at: usize, name: usize) {
        self.reopen(at);
        let view = self.nodes[at].store.view();
        let (Some(name), Some(parent)) = (self.free(name), view.parent_view()) else { return };
        let copy = self.directory.join(name);
        std::fs::copy(parent.path(), &copy).expect("copied");
        File::open(&copy).and_then(|file| file.sync_all()).expect("synced");
        self.sync();
        match self.nodes[at].store.reparent(&copy) {
            Ok(_) => assert!(!self.nodes[at].frozen),
            Err(Error::Frozen { .. }) => assert!(self.nodes[at].frozen),
            Err(other) => panic!("{other}"),
        }
        self.reopen(at);
        let view = self.nodes[at].store.view();
        let stands_on = view.parent_view().map(|parent| parent.path().to_path_buf());
        assert_eq!(stands_on == Some(copy), !self.nodes[at].frozen);
    }

    fn lose(&mut self, at: usize) {
        let path = self.path(at);
        for other in 0..self.nodes.len() {
            self.reopen(other);
        }
        let away = self.directory.join("away");
        std::fs::rename(&path, &away).expect("renamed");
        let query = noise(3, DIM);
        for (number, node) in self.nodes.iter().enumerate().filter(|(number, _)| *number != at) {
            let view = node.store.view();
            let mut above = view.parent_view();
            let mut needed = false;
            while let Some(parent) = above {
                needed |= parent.path() == path;
                above = parent.parent_view();
            }
            let alone = open(&self.path(number));
            if !needed {
                check(node, &alone);
                continue;
            }
            let lost = alone.view();
            // A branch between may have been led to a copy since, which will do.
            if lost.complete().is_ok() {
                let mut above = lost.parent_view();
                while let Some(parent) = above {
                    assert_ne!(parent.path(), path, "it is away");
                    above = parent.parent_view();
                }
                check(node, &alone);
                continue;
            }
            let error = lost.complete().expect_err("its ancestor is away").to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
            assert!(lost.search(&request(&query, 3, true)).is_err(), "half an answer");
            assert_eq!(lost.resolved().len(), lost.live(), "its own rows are shown");
            assert!(lost.findings().iter().any(|finding| finding.code == "parent-missing"));
        }
        std::fs::rename(&away, &path).expect("back again");
        self.sync();
        for other in 0..self.nodes.len() {
            self.reopen(other);
        }
    }
}

fn run(steps: Vec<(usize, Step)>) {
    let mut world = World::new();
    for (pick, step) in steps {
        let at = pick % world.nodes.len();
        world.step(at, &step);
        for node in &world.nodes {
            check(node, &node.store);
        }
        let (one, other) = (&world.nodes[at], &world.nodes[pick / 7 % world.nodes.len()]);
        let mut found = Vec::new();
        diff(&one.store.view(), &other.store.view(), &mut |d| {
            found.push(d);
            true
        })
        .expect("diff");
        assert_eq!(found, apart(&one.contents, &other.contents));
    }
    for (at, node) in world.nodes.iter().enumerate() {
        let store = open(&world.path(at));
        check(node, &store);
        assert_eq!(store.view().frozen().is_some(), node.frozen);
    }
    // What crashes left goes with the next commit, or with a sweep.
    rvf_cow::sweep(&world.directory);
    for entry in std::fs::read_dir(&world.directory).expect("ls") {
        let name = entry.expect("an entry").file_name().into_string().expect("text");
        let kept = name.ends_with(".pinned") || name.ends_with(".compact.tmp");
        assert!(!name.starts_with('.') || kept, "{name} stays behind");
    }
}

fn cases() -> u32 {
    std::env::var("RVF_BRANCH_MODEL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(48)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 300, ..ProptestConfig::default() })]
    #[test]
    fn any_history_shows_what_a_map_would(steps in proptest::collection::vec(step(), 1..24)) {
        run(steps);
    }
}
