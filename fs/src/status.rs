//! `status` and `status.json`: the state of a store, and of this mount of it.

use crate::store_dir::StoreDir;
use rvf_cow::View;
use rvf_cow::query::status::{self, Around};

pub(crate) use rvf_cow::query::status::derivation;
pub use rvf_cow::query::status::metric_name;

fn around(dir: &StoreDir, view: &View) -> Around {
    let jobs: Vec<String> = dir
        .jobs()
        .into_iter()
        .map(|job| match (job.done.min(job.total).saturating_mul(100)).checked_div(job.total) {
            Some(percent) => format!("{} {percent}%", job.what),
            None => job.what,
        })
        .collect();
    Around { index_build: dir.indexing.show(view), read_only: dir.settings.read_only, busy: jobs.join(", ") }
}

/// `status`: a `key: value` a line.
#[must_use]
pub fn text(dir: &StoreDir) -> String {
    let snap = dir.snap();
    status::text(&snap.view, dir.store.path(), &around(dir, &snap.view))
}

/// `status.json`: the same, one object; findings are a list.
#[must_use]
pub fn json_text(dir: &StoreDir) -> Vec<u8> {
    let snap = dir.snap();
    status::json(&snap.view, dir.store.path(), &around(dir, &snap.view))
}
