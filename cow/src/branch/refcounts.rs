//! Counts of the references that a branch holds to its parent's clusters.

use std::sync::Arc;

use rvf_format::SegType;
use rvf_format::cow_map::Cluster;
use rvf_format::refcount::Refcount;

use crate::error::Error;
use crate::store::Store;
use crate::types::{Event, RefcountReport};
use crate::view::View;
use crate::write::{Commit, WITNESS_CHANGE, format_error};

/// For each cluster of the map: how many rows of it the branch still shows. 0 says that nothing of the cluster is needed
/// any more. A cluster in the file itself, which we never write, counts once. O(rows of the parent).
fn counts(view: &View, clusters: &[Cluster], per_cluster: u32) -> Vec<u32> {
    let mut counts: Vec<u32> =
        clusters.iter().map(|cluster| u32::from(matches!(cluster, Cluster::Local(_)))).collect();
    let Some(parent) = view.layers().unwrap_or(&[]).first() else { return counts };
    for ordinal in parent.visible().iter() {
        let at = (ordinal / per_cluster.max(1)) as usize;
        if let (Some(Cluster::Parent), Some(count)) = (clusters.get(at), counts.get_mut(at)) {
            *count += 1;
        }
    }
    counts
}

impl Store {
    /// Counts anew how many rows of each cluster of the parent a branch shows, and commits the counts in place of older
    /// ones. `None` for a store that is no copy-on-write child; nothing is written then.
    ///
    /// # Errors
    /// As [`Store::ingest`]; [`Error::Unsupported`] while the parent is missing.
    pub fn rebuild_refcounts(&self) -> Result<Option<RefcountReport>, Error> {
        self.refresh()?;
        if !self.view().is_child() {
            return Ok(None);
        }
        let (report, view) = self.append(|commit: &mut Commit<'_>, _| {
            let view = Arc::clone(&commit.view);
            let Some(cow) = &view.contents.cow else { return Ok(None) };
            let counts = counts(&view, &cow.map.clusters, cow.map.vectors_per_cluster);
            let epoch = if cow.map.frozen { cow.map.snapshot_epoch } else { 0 };
            let refcount = Refcount::of(counts, epoch).map_err(format_error)?;
            commit.base.directory.retain(|entry| entry.kind() != SegType::REFCOUNT);
            commit.append(SegType::REFCOUNT, &[&refcount.encode()])?;
            let action = format!("refcounts:clusters={},epoch={}", refcount.cluster_count, commit.epoch());
            commit.witness(&action, WITNESS_CHANGE)?;
            let manifest = commit.manifest();
            commit.finish(&manifest)?;
            let local = cow.map.clusters.iter().filter(|cluster| matches!(cluster, Cluster::Local(_)));
            Ok(Some(RefcountReport { local: local.count() as u64, counts: refcount.counts, epoch: 0 }))
        })?;
        let Some(mut report) = report else { return Ok(None) };
        report.epoch = view.epoch();
        self.notify(&Event { kind: "refcounts", epoch: report.epoch, detail: Vec::new() });
        Ok(Some(report))
    }
}
