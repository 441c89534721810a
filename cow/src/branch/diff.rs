//! How two stores differ, and folding a branch into its parent.

use std::collections::BTreeSet;

use rvf_format::membership::Mode;

use crate::branch::resolve::Resolved;
use crate::error::Error;
use crate::types::Fields;
use crate::view::View;

/// One vector that is not the same in two stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its id.
    pub id: u64,
    /// How it differs.
    pub kind: Change,
}

/// How a vector of the second store differs from the first's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Only the second has it.
    Added,
    /// Only the first has it.
    Removed,
    /// Both have it.
    Changed {
        /// The components differ.
        vector: bool,
        /// Names of the fields that differ, ascending.
        fields: Vec<String>,
    },
}

/// What a comparison found, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiffReport {
    /// Vectors that only the second store has.
    pub added: u64,
    /// Vectors that only the first store has.
    pub removed: u64,
    /// Vectors that both have, not alike.
    pub changed: u64,
    /// Ids that were looked at. Of two stores of one lineage, those that were edited since they parted.
    pub compared: u64,
}

/// Compares what two stores show, by id, and gives each difference to `each` in ascending order of ids until it says
/// `false`. O(edits x depth x log n) for two states of one lineage, else O(n). Metadata are decoded when a file has any.
///
/// # Errors
/// [`Error::Dimension`] for stores of different dimension; [`Error::Unsupported`] when an ancestor cannot be read;
/// [`Error::Damaged`] when a file changed underneath.
pub fn diff(a: &View, b: &View, each: &mut dyn FnMut(Difference) -> bool) -> Result<DiffReport, Error> {
    if a.dimension() != b.dimension() {
        return Err(Error::Dimension { row: 0, got: b.dimension(), want: a.dimension() });
    }
    a.complete()?;
    b.complete()?;
    let ids = match edited(a, b) {
        Some(ids) => ids.into_iter().collect(),
        None => all_ids(a.resolved(), b.resolved()),
    };
    let with_fields = a.has_metadata() || b.has_metadata();
    let mut report = DiffReport::default();
    for id in ids {
        report.compared += 1;
        let Some(kind) = compare(a, b, id, with_fields) else { continue };
        match &kind {
            Change::Added => report.added += 1,
            Change::Removed => report.removed += 1,
            Change::Changed { .. } => report.changed += 1,
        }
        if !each(Difference { id, kind }) {
            break;
        }
    }
    a.check_chain()?;
    b.check_chain()?;
    Ok(report)
}

/// How one id differs, or `None` when it does not.
pub(crate) fn compare(a: &View, b: &View, id: u64, with_fields: bool) -> Option<Change> {
    let (left, right) = (a.resolved(), b.resolved());
    match (left.find(id), right.find(id)) {
        (None, None) => None,
        (None, Some(_)) => Some(Change::Added),
        (Some(_), None) => Some(Change::Removed),
        (Some(in_a), Some(in_b)) => {
            let vector = left.vector(in_a) != right.vector(in_b);
            let fields = if with_fields { fields_apart(a.fields(id), b.fields(id)) } else { Vec::new() };
            (vector || !fields.is_empty()).then_some(Change::Changed { vector, fields })
        }
    }
}

/// Names of the fields that two records do not agree on. No record and an empty one are the same.
fn fields_apart(a: Option<Fields>, b: Option<Fields>) -> Vec<String> {
    let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
    let alone = |here: &Fields, there: &Fields| -> Vec<String> {
        let same = |name: &str, value: &crate::types::Value| {
            there.iter().any(|(other, theirs)| other == name && theirs.same(value))
        };
        here.iter().filter(|(name, value)| !same(name, value)).map(|(name, _)| name.clone()).collect()
    };
    let mut names = alone(&a, &b);
    names.extend(alone(&b, &a));
    names.sort_unstable();
    names.dedup();
    names
}

fn all_ids(a: Resolved<'_>, b: Resolved<'_>) -> Vec<u64> {
    let of = |resolved: Resolved<'_>| -> Vec<u64> {
        resolved.places().iter().map(|place| resolved.id(*place)).collect()
    };
    let mut ids = of(a);
    ids.extend(of(b));
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The ids that may differ between two states of one lineage: those that the files above their youngest common one name,
/// and those that this one named between the two states. `None` when there is no such file.
fn edited(a: &View, b: &View) -> Option<BTreeSet<u64>> {
    let left = a.files();
    let right = b.files();
    let same = |x: &View, y: &View| (x.stamp.dev, x.stamp.ino) == (y.stamp.dev, y.stamp.ino);
    let (i, j) =
        left.iter().enumerate().find_map(|(i, x)| right.iter().position(|y| same(x, y)).map(|j| (i, j)))?;
    let mut ids = BTreeSet::new();
    for view in left.iter().take(i).chain(right.iter().take(j)) {
        // A filter that names what is shown does not tell what was edited.
        let listed = view.contents.cow.as_ref().is_some_and(|cow| cow.membership.mode != Mode::Include);
        if view.pin.is_none() || !listed {
            return None;
        }
        ids.extend(view.live_ordinals().iter().map(|ordinal| view.id(*ordinal)));
        ids.extend(view.deleted_ids.iter().copied());
        ids.extend(view.hidden_ids());
    }
    between(left.get(i)?, right.get(j)?, &mut ids)?;
    Some(ids)
}

/// Adds the ids that differ between two states of one file. `None` when one is not a prefix of the other.
fn between(a: &View, b: &View, ids: &mut BTreeSet<u64>) -> Option<()> {
    let (older, newer) = if a.stamp.len <= b.stamp.len { (a, b) } else { (b, a) };
    if older.stamp.len == newer.stamp.len && older.epoch() == newer.epoch() {
        return Some(());
    }
    if older.pin != newer.pin || older.parent.is_some() && older.pin.is_none() || !older.damaged.is_empty() {
        return None;
    }
    if !newer.damaged.is_empty() || newer.blocks.len() < older.blocks.len() {
        return None;
    }
    let alike = older.blocks.iter().zip(&newer.blocks).all(|(x, y)| {
        x.segment.offset == y.segment.offset && x.segment.header.content_hash == y.segment.header.content_hash
    });
    if !alike {
        return None;
    }
    ids.extend((older.rows.total()..newer.rows.total()).map(|ordinal| newer.id(ordinal)));
    let apart = |x: &[u64], y: &[u64], ids: &mut BTreeSet<u64>| {
        ids.extend(x.iter().filter(|id| y.binary_search(id).is_err()));
        ids.extend(y.iter().filter(|id| x.binary_search(id).is_err()));
    };
    apart(&older.deleted_ids, &newer.deleted_ids, ids);
    apart(&older.hidden_ids(), &newer.hidden_ids(), ids);
    let metas = |view: &View| -> Vec<u64> { view.contents.meta_entries.iter().map(|s| s.offset).collect() };
    if metas(older) != metas(newer) {
        let (x, y) = (&older.metadata().state().records, &newer.metadata().state().records);
        ids.extend(x.iter().filter(|(id, record)| y.get(id) != Some(record)).map(|(id, _)| *id));
        ids.extend(y.keys().filter(|id| !x.contains_key(id)));
    }
    Some(())
}

impl View {
    /// The files that the store is seen through, itself first.
    pub(crate) fn files(&self) -> Vec<&View> {
        let layers = self.layers().unwrap_or(&[]);
        std::iter::once(self).chain(layers.iter().map(|layer| &*layer.view)).collect()
    }

    /// Fails when the store or an ancestor that it shows was cut or overwritten since it was read. One fstat a file. Call it
    /// after reading and before handing on what was read.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn check_chain(&self) -> Result<(), Error> {
        self.check_unchanged()?;
        self.files().into_iter().skip(1).try_for_each(View::check_ancestor)
    }
}
