//! Random histories of operations, the two writers taking turns on one file, against the model.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use rvf_cow::{Metric, NoProgress, ReindexOptions, Store, Value};
use rvf_tests::model::{Fate, Model, Record, Row, same};
use rvf_tests::place::Place;
use rvf_tests::random::Random;

use crate::oracle::{METRICS, batch_of, both, create, fields_of, open};
use crate::reference;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Ours,
    Reference,
}

/// One step of a history. Ids are small so that overwrites, unknown and deleted ids are common.
#[derive(Debug, Clone)]
enum Op {
    Ingest {
        who: Who,
        ids: Vec<u64>,
        records: Option<u64>,
        seed: u64,
    },
    Delete {
        who: Who,
        ids: Vec<u64>,
    },
    /// The record of a live vector: replaced by us, merged by the reference.
    Describe {
        who: Who,
        id: u64,
        seed: u64,
    },
    /// A file metadata entry, which only the reference's library writes.
    FileMetadata {
        value: u64,
    },
    Compact {
        who: Who,
    },
    Reindex,
    /// Our store, open so far, is closed and opened again.
    Reopen,
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![Just(Who::Ours), Just(Who::Reference)]
}

fn op() -> impl Strategy<Value = Op> {
    let ids = |max| prop::collection::vec(0u64..40, 1..max);
    prop_oneof![
        6 => (who(), ids(12), prop::option::of(any::<u64>()), any::<u64>())
            .prop_map(|(who, ids, records, seed)| Op::Ingest { who, ids, records, seed }),
        3 => (who(), ids(6)).prop_map(|(who, ids)| Op::Delete { who, ids }),
        3 => (who(), 0u64..40, any::<u64>()).prop_map(|(who, id, seed)| Op::Describe { who, id, seed }),
        1 => any::<u64>().prop_map(|value| Op::FileMetadata { value }),
        1 => who().prop_map(|who| Op::Compact { who }),
        1 => Just(Op::Reindex),
        1 => Just(Op::Reopen),
    ]
}

/// Components are small whole numbers or not: the former make equal distances, so that ties are decided too. None is
/// zero: the sign of a zero sum depends on the reference's compiler; `zero_vectors_answer_alike` is about that.
fn components(random: &mut Random, dimension: usize) -> Vec<f32> {
    if random.below(2) == 0 {
        (0..dimension).map(|_| [-2.0, -1.0, 1.0, 2.0][random.below(4) as usize]).collect()
    } else {
        random.vector(dimension)
    }
}

/// Each number has its own type for good, as the format asks; the names are those of the numbers.
fn record(seed: u64) -> Record {
    let mut random = Random::new(seed);
    let mut record = Record::new();
    for field in 0..6u64 {
        if random.below(2) == 0 {
            continue;
        }
        let bits = random.bits();
        let value = match field {
            _ if bits.is_multiple_of(7) => Value::Null,
            0 => Value::String(format!("{:x}", bits & 0xFFF)),
            1 => Value::I64(bits as i64),
            2 => Value::U64(bits),
            3 => Value::F64(bits as f64 / 3.0),
            4 => Value::Bool(bits & 8 == 0),
            _ => Value::Bytes(bits.to_le_bytes()[..(bits % 9) as usize].to_vec()),
        };
        record.insert(format!("field.{field}"), value);
    }
    record
}

fn names(record: Record, named: bool) -> Record {
    // Half of the histories give field 0 and 1 names, which the reference knows as numbers only.
    if !named {
        return record;
    }
    record
        .into_iter()
        .map(|(name, value)| match name.as_str() {
            "field.0" => ("title".to_owned(), value),
            "field.1" => ("year".to_owned(), value),
            _ => (name, value),
        })
        .collect()
}

struct World {
    path: std::path::PathBuf,
    model: Model,
    ours: Arc<Store>,
    file_value: Option<u64>,
    named: bool,
    epoch: u32,
}

impl World {
    fn new(path: &Path, dimension: u16, metric: Metric, by: Who, named: bool) -> Result<Self, String> {
        let ours = match by {
            Who::Ours => create(path, dimension, metric),
            Who::Reference => {
                reference::create(path, dimension, metric).close().map_err(|e| e.to_string())?;
                open(path)
            }
        };
        let mut world = Self {
            path: path.to_path_buf(),
            model: Model::new(dimension.into(), metric),
            ours,
            file_value: None,
            named,
            epoch: 0,
        };
        if named {
            // The first row gives the names their numbers.
            let record = Record::from([
                ("title".to_owned(), Value::String("first".into())),
                ("year".to_owned(), Value::I64(-1)),
            ]);
            let row = Row { id: 1000, vector: vec![0.5; dimension.into()], record: Some(record) };
            world.ingest(Who::Ours, &[row])?;
        }
        Ok(world)
    }

    fn ingest(&mut self, who: Who, rows: &[Row]) -> Result<(), String> {
        match who {
            Who::Ours => {
                let batch = batch_of(self.model.dimension, rows);
                let report = self.ours.ingest(&batch, &NoProgress).map_err(|e| e.to_string())?;
                same("accepted", report.accepted, rows.len() as u64)?;
                self.advanced(report.epoch)?;
                // An empty record of ours says nothing about an overwritten row's fields.
                let given: Vec<Row> = rows
                    .iter()
                    .map(|r| Row { record: r.record.clone().filter(|r| !r.is_empty()), ..r.clone() })
                    .collect();
                self.model.ingest(&given, Fate::Replace);
            }
            Who::Reference => {
                let mut store = reference::open(&self.path);
                let report = reference::ingest(&mut store, rows);
                self.advanced(report.epoch)?;
                self.model.ingest(rows, Fate::Merge);
                self.close(store)?;
            }
        }
        Ok(())
    }

    fn advanced(&mut self, epoch: u32) -> Result<(), String> {
        self.epoch += 1;
        same("epoch", epoch, self.epoch)
    }

    /// Ends a session of the reference, which stores its graph now, in one more commit, if rows were added to it.
    fn close(&mut self, store: rvf_runtime::RvfStore) -> Result<(), String> {
        let changed = store.index_ready();
        store.close().map_err(|e| e.to_string())?;
        let epoch = open(&self.path).view().epoch();
        if changed && epoch == self.epoch + 1 {
            self.epoch = epoch;
        }
        same("epoch after close", epoch, self.epoch)
    }

    fn apply(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::Ingest { who, ids, records, seed } => {
                let mut random = Random::new(*seed);
                let mut ids = ids.clone();
                ids.sort_unstable();
                ids.dedup();
                if seed.is_multiple_of(2) {
                    ids.reverse();
                }
                let rows: Vec<Row> = ids
                    .iter()
                    .map(|id| Row {
                        id: *id,
                        vector: components(&mut random, self.model.dimension),
                        record: records
                            .filter(|_| random.below(4) != 0)
                            .map(|r| names(record(r ^ id), self.named)),
                    })
                    .collect();
                self.ingest(*who, &rows)
            }
            Op::Delete { who: Who::Ours, ids } => {
                let report = self.ours.delete(ids).map_err(|e| e.to_string())?;
                let deleted = self.model.delete(ids);
                same("deleted", report.deleted, deleted)?;
                if deleted > 0 {
                    self.advanced(report.epoch)
                } else {
                    same("epoch", report.epoch, self.epoch)
                }
            }
            Op::Delete { who: Who::Reference, ids } => {
                let mut store = reference::open(&self.path);
                let report = store.delete(ids).map_err(|e| e.to_string())?;
                same("deleted", report.deleted, self.model.delete(ids))?;
                self.advanced(report.epoch)?;
                self.close(store)
            }
            Op::Describe { who, id, seed } => {
                let Some(vector) = self.model.rows.get(id).cloned() else { return Ok(()) };
                let record = names(record(*seed), self.named);
                match who {
                    Who::Ours => {
                        let fields = fields_of(Some(&record));
                        let epoch = self.ours.put_metadata(*id, &fields).map_err(|e| e.to_string())?;
                        self.advanced(epoch)?;
                        self.model.put(*id, record);
                        Ok(())
                    }
                    Who::Reference => {
                        self.ingest(Who::Reference, &[Row { id: *id, vector, record: Some(record) }])
                    }
                }
            }
            Op::FileMetadata { value } => {
                let mut store = reference::open(&self.path);
                store
                    .set_file_metadata("note".into(), rvf_runtime::MetadataValue::U64(*value))
                    .map_err(|e| e.to_string())?;
                self.file_value = Some(*value);
                self.advanced(store.epoch())?;
                // This commit of the reference has no witness. After a compaction, whose witness it leaves unlisted,
                // the next session would not find the head of the chain any more; a delete keeps it.
                let report = store.delete(&[u64::MAX]).map_err(|e| e.to_string())?;
                self.advanced(report.epoch)?;
                self.close(store)
            }
            Op::Compact { who: Who::Ours } => {
                let report = self.ours.compact(&NoProgress).map_err(|e| e.to_string())?;
                self.model.compact();
                self.advanced(report.epoch)
            }
            Op::Compact { who: Who::Reference } => {
                let mut store = reference::open(&self.path);
                let report = store.compact().map_err(|e| e.to_string())?;
                self.model.compact();
                self.advanced(report.epoch)?;
                self.close(store)
            }
            Op::Reindex => {
                let options =
                    ReindexOptions { threads: 1, m: 4, ef_construction: 16, ..ReindexOptions::default() };
                let report = self.ours.reindex(&options, &NoProgress).map_err(|e| e.to_string())?;
                same("indexed", report.indexed, self.model.rows.len() as u64)?;
                if self.model.rows.is_empty() { Ok(()) } else { self.advanced(report.epoch) }
            }
            Op::Reopen => {
                self.ours = open(&self.path);
                Ok(())
            }
        }
    }

    fn check(&self, queries: &[Vec<f32>]) -> Result<(), String> {
        both(&self.model, &self.path, queries)?;
        let file = open(&self.path).view().metadata_state().file.clone();
        same("file metadata", file.get("note"), self.file_value.map(Value::U64).as_ref())?;
        self.ours.refresh().map_err(|e| e.to_string())?;
        self.model.agrees_with(&self.ours.view(), &[])
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1500,
        max_shrink_iters: 400,
        failure_persistence: Some(Box::new(proptest::test_runner::FileFailurePersistence::Direct(
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/history.regressions"),
        ))),
        ..ProptestConfig::default()
    })]

    /// After every step both readers, freshly opened, and our store that stayed open show what the model says.
    #[test]
    fn alternating_writers_agree_with_the_model(
        dimension in 1u16..=40,
        metric in prop::sample::select(METRICS.to_vec()),
        by in who(),
        named in any::<bool>(),
        ops in prop::collection::vec(op(), 1..24),
        seed in any::<u64>(),
    ) {
        let place = Place::in_memory().expect("a place");
        let mut random = Random::new(seed);
        let queries: Vec<Vec<f32>> = (0..2).map(|_| components(&mut random, dimension.into())).collect();
        let path = place.join("history.rvf");
        let mut world = World::new(&path, dimension, metric, by, named).map_err(TestCaseError::fail)?;
        for (step, op) in ops.iter().enumerate() {
            world
                .apply(op)
                .and_then(|()| world.check(&[]))
                .map_err(|e| TestCaseError::fail(format!("step {step}, {op:?}: {e}")))?;
        }
        world.check(&queries).map_err(TestCaseError::fail)?;
    }
}
