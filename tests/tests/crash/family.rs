//! A family of branches, what each of them shows, and what can be done to them: what the tests of branches under bad things
//! share.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rvf_cow::{
    BadRow, Batch, BranchOptions, CreateOptions, Derive, Derived, Error, Map, Metric, NoProgress,
    OpenOptions, Overlay, Precision, ReindexOptions, Store, Value,
};
use rvf_format::Severity;
use rvf_tests::place::Place;
use rvf_tests::random::vector_of;

use crate::recorder::{Files, write_out};

pub(crate) const DIMENSION: usize = 64;

/// What a store shows.
#[derive(Clone, PartialEq)]
pub(crate) struct Shown {
    rows: BTreeMap<u64, (Vec<u8>, BTreeMap<String, Value>)>,
    pub(crate) frozen: bool,
    /// Whether all of its ancestors are there.
    pub(crate) complete: bool,
}

/// In brief: ids, a few bits of each row, and its record.
impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[")?;
        for (id, (row, record)) in &self.rows {
            let brief = row.iter().fold(0u16, |sum, byte| sum.rotate_left(3) ^ u16::from(*byte));
            write!(f, "{id}:{brief:x}")?;
            record.iter().try_for_each(|(name, value)| write!(f, ",{name}={value:?}"))?;
            write!(f, " ")?;
        }
        write!(f, "frozen {} complete {}]", self.frozen, self.complete)
    }
}

/// What each store of a directory shows, or why it does not open.
pub(crate) type All = BTreeMap<String, Result<Shown, String>>;

pub(crate) fn open(path: &Path) -> Result<Arc<Store>, Error> {
    Store::open(path, &OpenOptions::default())
}

pub(crate) fn shown(store: &Store) -> Shown {
    let view = store.view();
    let resolved = view.resolved();
    let rows = resolved.places().iter().map(|place| {
        let id = resolved.id(*place);
        let fields = view.fields(id).unwrap_or_default().into_iter().collect();
        (id, (resolved.vector(*place).to_vec(), fields))
    });
    let rows: BTreeMap<_, _> = rows.collect();
    assert_eq!(rows.len() as u64, resolved.len(), "{}: an id is shown twice", store.path().display());
    let complete = view.complete().is_ok();
    let damage = view.findings().iter().find(|finding| finding.severity == Severity::Damage);
    assert!(damage.is_none(), "{}: {damage:?}", store.path().display());
    Shown { rows, frozen: view.frozen().is_some(), complete }
}

/// What the stores in a directory show, hidden ones left out.
pub(crate) fn all(directory: &Path) -> All {
    let mut out = All::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let name = entry.expect("an entry").file_name().into_string().expect("text");
        if name.ends_with(".rvf") && !name.starts_with('.') {
            let found = open(&directory.join(&name)).map(|store| shown(&store)).map_err(|e| e.to_string());
            out.insert(name, found);
        }
    }
    out
}

pub(crate) fn names(directory: &Path) -> Vec<String> {
    rvf_tests::place::names(directory).expect("a directory")
}

fn files(directory: &Path) -> Files {
    let read = |name: String| (name.clone(), std::fs::read(directory.join(&name)).expect("read"));
    names(directory).into_iter().map(read).collect()
}

pub(crate) fn batch(ids: impl IntoIterator<Item = u64>, seed: u64) -> Batch {
    let ids: Vec<u64> = ids.into_iter().collect();
    Batch {
        dimension: DIMENSION,
        vectors: ids.iter().flat_map(|id| vector_of(id + 1000 * seed, DIMENSION)).collect(),
        metadata: ids.iter().map(|id| vec![("year".to_owned(), Value::U64(id + seed))]).collect(),
        ids: Some(ids),
        on_bad_row: BadRow::Refuse,
    }
}

/// `p`, which has grown and lost rows since its branches `c` and `o` were made; `g`, a branch of `c`; and `q`, a copy of `p`.
/// `c` has rows of its own, rows stored as changes, records, and hidden ids.
pub(crate) fn family() -> &'static Files {
    static FAMILY: OnceLock<Files> = OnceLock::new();
    FAMILY.get_or_init(|| {
        let place = Place::in_memory().expect("a place");
        let at = |name: &str| place.join(name);
        let options = CreateOptions { dimension: DIMENSION as u16, metric: Metric::L2, profile: 0 };
        let p = Store::create(&at("p.rvf"), &options).expect("create");
        p.ingest(&batch(0..20, 0), &NoProgress).expect("ingest");
        p.branch(&at("c.rvf"), &BranchOptions::default()).expect("branch");
        let c = open(&at("c.rvf")).expect("open");
        c.ingest(&batch([1, 50, 51], 1), &NoProgress).expect("ingest");
        // From here on the existing tools refuse it, and a few changed components are stored as such.
        let b = vector_of(9, DIMENSION);
        let overlay = Overlay { ids: Some(&[9]), rank: 1, a: &[0.5], b: &b, scale: 1.0 };
        c.overlay(&overlay).expect("an overlay");
        sparse(&c, &[2, 3, 4, 5, 6, 7, 8]).expect("a few components");
        assert!(c.view().has_deltas());
        c.delete(&[5, 51]).expect("delete");
        c.put_metadata(6, &vec![("name".to_owned(), Value::String("six".to_owned()))]).expect("put");
        c.branch(&at("g.rvf"), &BranchOptions::default()).expect("branch");
        let g = open(&at("g.rvf")).expect("open");
        g.delete(&[6, 7]).expect("delete");
        g.ingest(&batch([60], 2), &NoProgress).expect("ingest");
        p.ingest(&batch(30..34, 3), &NoProgress).expect("ingest");
        p.branch(&at("o.rvf"), &BranchOptions::default()).expect("branch");
        p.delete(&[10, 31]).expect("delete");
        std::fs::copy(at("p.rvf"), at("q.rvf")).expect("copy");
        files(place.path())
    })
}

/// Changes one component of vectors, which is stored as just that.
fn sparse(store: &Store, ids: &[u64]) -> Result<(), Error> {
    let view = store.view();
    let mut vectors = Vec::new();
    for id in ids {
        let place = view.resolved().find(*id).expect("shown");
        let row = view.resolved().vector(place).chunks_exact(4);
        let mut row: Vec<f32> = row.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        row[3] = 0.25;
        vectors.extend(row);
    }
    let batch = Batch { ids: Some(ids.to_vec()), vectors, metadata: Vec::new(), ..batch([], 0) };
    store.ingest(&batch, &NoProgress)?;
    Ok(())
}

/// Something that is done in the directory of the family.
pub(crate) struct Act {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Path) -> Result<(), Error>,
    /// Whether stores show something else, or more stores are shown, afterwards.
    pub(crate) visible: bool,
    /// What comes before it.
    before: Option<fn(&Path)>,
}

impl Act {
    const fn new(name: &'static str, run: fn(&Path) -> Result<(), Error>) -> Self {
        Self { name, run, visible: true, before: None }
    }

    /// Stores show the same afterwards.
    const fn unseen(self) -> Self {
        Self { visible: false, ..self }
    }

    /// Something comes before it.
    const fn after(self, before: fn(&Path)) -> Self {
        Self { before: Some(before), ..self }
    }

    /// Does it where nothing is in its way.
    pub(crate) fn succeeds(&self, at: &Path) {
        (self.run)(at).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// Does it where it may have been done before.
    pub(crate) fn is_done(&self, at: &Path, what: &str) {
        match (self.run)(at) {
            Ok(()) | Err(Error::Exists { .. }) => {}
            Err(error) => panic!("{what}: {error}"),
        }
    }

    /// The family when the act begins.
    pub(crate) fn files(&self) -> Files {
        let Some(before) = self.before else { return family().clone() };
        let place = placed(family());
        before(place.path());
        files(place.path())
    }
}

fn derive(at: &Path, how: &Derive<'_>) -> Result<(), Error> {
    match open(&at.join("p.rvf"))?.derive(&at.join("n.rvf"), "n", how, &NoProgress)? {
        Derived::Made(_) => Ok(()),
        Derived::Conflicts(conflicts) => panic!("{conflicts:?}"),
    }
}

fn merge(at: &Path, branch: &str, parent: &str) -> Result<(), Error> {
    let (branch, parent) = (open(&at.join(branch))?, open(&at.join(parent))?);
    let report = branch.merge_into(&parent)?;
    assert_eq!(report.conflicts, []);
    Ok(())
}

const INDEX: ReindexOptions =
    ReindexOptions { threads: 1, m: 4, ef_construction: 16, seed: 1, persist: true, adopt: false };

/// All of them.
pub(crate) const ACTS: &[Act] = &[
    Act::new("create", |at| {
        let options = CreateOptions { dimension: 3, metric: Metric::L2, profile: 0 };
        Store::create(&at.join("n.rvf"), &options).map(drop)
    }),
    Act::new("branch", |at| {
        open(&at.join("p.rvf"))?.branch(&at.join("n.rvf"), &BranchOptions::default()).map(drop)
    }),
    Act::new("branch of a branch", |at| {
        open(&at.join("c.rvf"))?.branch(&at.join("n.rvf"), &BranchOptions::default()).map(drop)
    }),
    Act::new("ingest into a branch", |at| {
        open(&at.join("c.rvf"))?.ingest(&batch([0, 1, 52, 70], 4), &NoProgress).map(drop)
    }),
    Act::new("sparse changes in a branch", |at| {
        let store = open(&at.join("o.rvf"))?;
        sparse(&store, &[1, 2, 3, 4, 11, 12, 13, 14])?;
        assert!(store.view().has_deltas());
        Ok(())
    }),
    Act::new("overlay", |at| {
        let store = open(&at.join("o.rvf"))?;
        if store.view().has_deltas() {
            return Ok(());
        }
        let ids: Vec<u64> = (0..10).collect();
        let (a, b) = (vector_of(7, ids.len()), vector_of(8, DIMENSION));
        store.overlay(&Overlay { ids: Some(&ids), rank: 1, scale: 0.5, a: &a, b: &b }).map(drop)
    }),
    Act::new("delete in a branch", |at| open(&at.join("c.rvf"))?.delete(&[0, 1, 50]).map(drop)),
    Act::new("metadata of an inherited vector", |at| {
        open(&at.join("c.rvf"))?.put_metadata(15, &vec![("year".into(), Value::U64(9))]).map(drop)
    }),
    Act::new("merge", |at| merge(at, "c.rvf", "p.rvf")),
    Act::new("merge into a branch", |at| merge(at, "g.rvf", "c.rvf")),
    Act::new("freeze a branch", |at| open(&at.join("c.rvf"))?.freeze().map(drop)),
    Act::new("freeze a store with branches", |at| open(&at.join("p.rvf"))?.freeze().map(drop)),
    Act::new("reparent", |at| open(&at.join("c.rvf"))?.reparent(&at.join("q.rvf")).map(drop)).unseen(),
    Act::new("reparent after a move", |at| {
        open(&at.join("c.rvf"))?.reparent(&at.join("moved.rvf")).map(drop)
    })
    .after(|at| std::fs::rename(at.join("p.rvf"), at.join("moved.rvf")).expect("rename")),
    Act::new("compact a store with branches", |at| open(&at.join("p.rvf"))?.compact(&NoProgress).map(drop))
        .unseen(),
    Act::new("compact a branch with a branch", |at| open(&at.join("c.rvf"))?.compact(&NoProgress).map(drop))
        .unseen(),
    Act::new("count references", |at| open(&at.join("c.rvf"))?.rebuild_refcounts().map(drop)).unseen(),
    Act::new("derive clone", |at| derive(at, &Derive::Clone)),
    Act::new("derive filter", |at| derive(at, &Derive::Filter("year < 12"))),
    Act::new("derive snapshot", |at| derive(at, &Derive::Snapshot)),
    Act::new("derive quantize", |at| derive(at, &Derive::Quantize(Precision::Int8))),
    Act::new("derive reindex", |at| derive(at, &Derive::Reindex(&INDEX))),
    Act::new("derive transform", |at| {
        derive(at, &Derive::Transform(&Map { truncate: Some(5), ..Map::default() }))
    }),
    Act::new("derive merge", |at| {
        let other = open(&at.join("c.rvf"))?;
        derive(at, &Derive::Merge(&other))
    }),
];

/// A directory with these files in it.
pub(crate) fn placed(files: &Files) -> Place {
    let place = Place::in_memory().expect("a place");
    write_out(files, place.path());
    place
}
