//! Random histories over a tree of branches, against plain maps. Every step is checked in every branch, with reopening.

mod branches;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use branches::*;
use proptest::prelude::*;
use rvf_cow::{Batch, Change, Difference, Error, Fields, NoProgress, SearchRequest, Store, Value, diff};

/// A vector's seed and its fields.
type Contents = BTreeMap<u64, (u64, BTreeMap<String, Value>)>;

#[derive(Debug, Clone)]
enum Step {
    Ingest { ids: Vec<u64>, seed: u64, field: Option<(bool, i64)> },
    Delete { ids: Vec<u64> },
    Put { id: u64, field: Option<(bool, i64)> },
    Branch,
    Compact,
    Freeze,
    Reopen,
    Merge,
}

/// Few ids, some of them large, so that edits meet.
fn id() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0u64..12, 1 => Just(u64::MAX), 1 => Just((1u64 << 53) - 3)]
}

fn field_value() -> impl Strategy<Value = Option<(bool, i64)>> {
    proptest::option::of((any::<bool>(), -2i64..3))
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let ids =
        || proptest::collection::btree_set(id(), 1..5).prop_map(|set| set.into_iter().collect::<Vec<_>>());
    let step = prop_oneof![
        6 => (ids(), 0u64..6, field_value()).prop_map(|(ids, seed, field)| Step::Ingest { ids, seed, field }),
        4 => ids().prop_map(|ids| Step::Delete { ids }),
        3 => (id(), field_value()).prop_map(|(id, field)| Step::Put { id, field }),
        3 => Just(Step::Branch),
        2 => Just(Step::Compact),
        1 => Just(Step::Freeze),
        2 => Just(Step::Reopen),
        1 => Just(Step::Merge),
    ];
    (any::<usize>(), step)
}

struct Node {
    store: Arc<Store>,
    contents: Contents,
    frozen: bool,
    /// Which node it is a branch of, and what that held then.
    parent: Option<(usize, Contents)>,
}

fn record(field: Option<(bool, i64)>) -> BTreeMap<String, Value> {
    field
        .map(|(which, value)| (if which { "size" } else { "weight" }.to_owned(), Value::I64(value)))
        .into_iter()
        .collect()
}

fn fields(record: &BTreeMap<String, Value>) -> Fields {
    record.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn vector(id: u64, seed: u64) -> Vec<f32> {
    batch(&[id], seed).vectors
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
        let bytes: Vec<u8> = vector(*id, *seed).iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(resolved.vector(place), bytes, "vector {id}");
        let shown: BTreeMap<String, Value> = view.fields(*id).unwrap_or_default().into_iter().collect();
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
    assert_eq!(view.status().health, "ok", "{:?}", view.findings());
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

fn run(dir: &Path, steps: Vec<(usize, Step)>) {
    let root = create(&dir.join("0.rvf"), 0..6);
    let contents = (0..6).map(|id| (id, (1, BTreeMap::new()))).collect();
    let mut nodes = vec![Node { store: root, contents, frozen: false, parent: None }];
    for (pick, step) in steps {
        let at = pick % nodes.len();
        let before = nodes.len();
        if let Step::Branch = step {
            if before < 7 {
                let path = dir.join(format!("{before}.rvf"));
                let store = branch(&nodes[at].store, &path);
                let contents = nodes[at].contents.clone();
                let parent = Some((at, contents.clone()));
                nodes.push(Node { store, contents, frozen: false, parent });
            }
        } else if let Step::Merge = step {
            merge(&mut nodes, at);
        } else {
            apply(&mut nodes[at], &step);
        }
        for node in &nodes {
            check(node, &node.store);
        }
        let (one, other) = (&nodes[at], &nodes[pick / 7 % nodes.len()]);
        let mut found = Vec::new();
        diff(&one.store.view(), &other.store.view(), &mut |d| {
            found.push(d);
            true
        })
        .expect("diff");
        assert_eq!(found, apart(&one.contents, &other.contents));
    }
    for node in &nodes {
        check(node, &open(node.store.path()));
        assert_eq!(open(node.store.path()).view().frozen().is_some(), node.frozen);
    }
}

fn apply(node: &mut Node, step: &Step) {
    let frozen = node.frozen;
    let outcome = match step {
        Step::Ingest { ids, seed, field } => {
            let record = record(*field);
            let metadata =
                if field.is_some() { ids.iter().map(|_| fields(&record)).collect() } else { Vec::new() };
            let result = node.store.ingest(&Batch { metadata, ..batch(ids, *seed) }, &NoProgress).map(drop);
            if !frozen {
                for id in ids {
                    let entry = node.contents.entry(*id).or_default();
                    entry.0 = *seed;
                    if field.is_some() {
                        entry.1 = record.clone();
                    }
                }
            }
            result
        }
        Step::Delete { ids } => {
            let known = ids.iter().filter(|id| node.contents.contains_key(id)).count() as u64;
            let result = node.store.delete(ids);
            if known == 0 {
                assert_eq!(result.expect("nothing to delete").deleted, 0);
                return;
            }
            if !frozen {
                node.contents.retain(|id, _| !ids.contains(id));
                assert_eq!(result.as_ref().expect("deleted").deleted, known);
            }
            result.map(drop)
        }
        Step::Put { id, field } => {
            let record = record(*field);
            let result = node.store.put_metadata(*id, &fields(&record)).map(drop);
            if !frozen {
                match node.contents.get_mut(id) {
                    Some(entry) => entry.1 = record,
                    None => {
                        assert!(matches!(result, Err(Error::NoSuchId { .. })));
                        return;
                    }
                }
            }
            result
        }
        Step::Compact => node.store.compact(&NoProgress).map(drop),
        Step::Freeze => {
            node.store.freeze().expect("freeze");
            node.frozen = true;
            return;
        }
        Step::Reopen => {
            node.store = open(node.store.path());
            return;
        }
        Step::Branch | Step::Merge => return,
    };
    match outcome {
        Ok(()) => assert!(!frozen),
        Err(Error::Frozen { .. }) => assert!(frozen),
        Err(other) => panic!("{other}"),
    }
}

fn merge(nodes: &mut [Node], at: usize) {
    let Some((into, base)) = nodes[at].parent.clone() else { return };
    let mine = nodes[at].contents.clone();
    let theirs = nodes[into].contents.clone();
    let mut merged = theirs.clone();
    let mut conflicts = Vec::new();
    let mut wanted = 0;
    for Difference { id, .. } in apart(&base, &mine) {
        if theirs.get(&id) == mine.get(&id) {
            continue;
        }
        if theirs.get(&id) != base.get(&id) {
            conflicts.push(id);
            continue;
        }
        wanted += 1;
        match mine.get(&id) {
            Some(entry) => merged.insert(id, entry.clone()),
            None => merged.remove(&id),
        };
    }
    let result = nodes[at].store.merge_into(&nodes[into].store);
    if nodes[into].frozen {
        assert!(matches!(result, Err(Error::Frozen { .. })));
        return;
    }
    let report = result.expect("merge");
    assert_eq!(report.conflicts.iter().map(|c| c.id).collect::<Vec<_>>(), conflicts);
    if conflicts.is_empty() {
        assert_eq!(report.added + report.removed + report.changed, wanted);
        nodes[into].contents = merged;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 300, ..ProptestConfig::default() })]
    #[test]
    fn any_history_shows_what_a_map_would(steps in proptest::collection::vec(step(), 1..24)) {
        let dir = tempfile::tempdir().expect("dir");
        run(dir.path(), steps);
    }
}
