//! `status` and `status.json`: the state of a store in numbers and words. O(1) in vectors.

use std::fmt::Write as _;

use crate::json;
use crate::store_dir::StoreDir;

/// A value of the status file; JSON keeps the kinds apart.
enum Field {
    Text(String),
    Number(u64),
    Ratio(f64),
    Flag(bool),
}

fn fields(dir: &StoreDir) -> Vec<(&'static str, Field)> {
    use Field::{Flag, Number, Ratio, Text};
    let snap = dir.snap();
    let status = snap.view.status();
    let text = |value: &str| Text(value.to_owned());
    let or_none = |value: String| Text(if value.is_empty() { "none".into() } else { value });
    let jobs: Vec<String> = dir
        .jobs()
        .into_iter()
        .map(|job| match (job.done.min(job.total).saturating_mul(100)).checked_div(job.total) {
            Some(percent) => format!("{} {percent}%", job.what),
            None => job.what,
        })
        .collect();
    let mut list = vec![
        ("path", Text(dir.store.path().display().to_string())),
        ("file_id", or_none(status.file_id)),
        ("dimension", Number(status.dimension as u64)),
        ("metric", text(metric_name(status.metric))),
        ("vectors", Number(snap.view.resolved().len())),
        ("inherited", Number(snap.view.resolved().inherited())),
        ("deleted", Number(status.deleted)),
        ("segments", Number(status.segments)),
        ("listed_segments", Number(status.listed_segments)),
        ("file_size", Number(status.file_size)),
        ("live_bytes", Number(status.live_bytes)),
        ("dead_bytes", Number(status.dead_bytes)),
        ("dead_space_ratio", Ratio(status.dead_space_ratio)),
        ("epoch", Number(u64::from(status.epoch))),
        ("profile", text(status.profile)),
        ("profile_id", Number(u64::from(status.profile_id))),
        ("dialect", text(status.dialect)),
        ("parent", or_none(status.parent_id)),
        ("lineage_depth", Number(u64::from(status.lineage_depth))),
        ("derivation", Text(derivation(&snap.view))),
        (
            "existing_tools",
            Text(
                snap.view.reference_opens().err().map_or("read it".into(), |why| format!("refuse it: {why}")),
            ),
        ),
        ("index", Text(format!("{}/{}", status.index.indexed, status.index.total))),
        ("index_layer", text(status.index.layer)),
        ("index_loaded", text(status.index.loaded)),
        ("index_place", text(status.index.place)),
        ("index_build", Text(dir.indexing.show(&snap.view))),
        ("index_stale", Flag(status.index.stale)),
        ("verified", Flag(status.verified)),
        ("health", Text(status.health)),
        ("read_only", Flag(dir.settings.read_only)),
        ("busy", Text(if jobs.is_empty() { "no".into() } else { jobs.join(", ") })),
    ];
    let findings = snap.view.findings();
    for finding in findings.iter().take(20) {
        let mut line = format!("{} at {}: {}", finding.severity.word(), finding.offset, finding.text);
        if let Some(mend) = &finding.mend {
            let _ = write!(line, " ({mend})");
        }
        list.push(("finding", Text(line)));
    }
    list
}

/// What the store is to its parent and how it was made, such as `quantize precision=int8`.
pub(crate) fn derivation(view: &rvf_cow::View) -> String {
    let root = view.opened().manifest.as_ref().and_then(|m| m.manifest.identity).is_none_or(|i| i.is_root());
    match view.derived() {
        Some(pin) => {
            let mut text = pin.derivation.to_string();
            for (key, value) in &pin.parameters {
                let _ = write!(text, " {key}={value}");
            }
            text
        }
        None if root => "none".into(),
        None => "not recorded".into(),
    }
}

/// `l2`, `ip` or `cosine`, as the tools spell it.
#[must_use]
pub fn metric_name(metric: rvf_cow::Metric) -> &'static str {
    match metric {
        rvf_cow::Metric::L2 => "l2",
        rvf_cow::Metric::InnerProduct => "inner_product",
        rvf_cow::Metric::Cosine => "cosine",
    }
}

/// `status`: a `key: value` a line.
#[must_use]
pub fn text(dir: &StoreDir) -> String {
    let mut out = String::with_capacity(1024);
    for (key, value) in fields(dir) {
        let _ = match value {
            Field::Text(text) => writeln!(out, "{key}: {}", one_line(&text)),
            Field::Number(number) => writeln!(out, "{key}: {number}"),
            Field::Ratio(ratio) => writeln!(out, "{key}: {ratio:?}"),
            Field::Flag(flag) => writeln!(out, "{key}: {}", if flag { "yes" } else { "no" }),
        };
    }
    out
}

/// `status.json`: the same, one object; findings are a list.
#[must_use]
pub fn json_text(dir: &StoreDir) -> String {
    let mut out = String::with_capacity(1024);
    let mut findings = Vec::new();
    out.push_str("{\n");
    for (key, value) in fields(dir) {
        if key == "finding" {
            if let Field::Text(text) = value {
                findings.push(text);
            }
            continue;
        }
        out.push_str("  ");
        json::string(&mut out, key);
        out.push_str(": ");
        match value {
            Field::Text(text) => json::string(&mut out, &text),
            Field::Number(number) => {
                let _ = write!(out, "{number}");
            }
            Field::Ratio(ratio) => json::float(&mut out, ratio),
            Field::Flag(flag) => out.push_str(if flag { "true" } else { "false" }),
        }
        out.push_str(",\n");
    }
    out.push_str("  \"findings\": [");
    for (at, finding) in findings.iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        json::string(&mut out, finding);
    }
    out.push_str("]\n}\n");
    out
}

/// A value that cannot break out of its line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
