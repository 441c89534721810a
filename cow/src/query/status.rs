//! The state of a store in numbers and words: what `status` and `status.json` show. O(1) in vectors.

use std::fmt::Write as _;
use std::path::Path;

use super::value::write_json_string;
use crate::types::Metric;
use crate::view::View;

/// Findings that are listed, at most.
const MAX_FINDINGS: usize = 20;

/// What the one who shows a store knows beside it.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// State of the index build.
    pub index_build: String,
    /// Nothing may be changed.
    pub read_only: bool,
    /// Long jobs that run; empty for none.
    pub busy: String,
}

/// A value of the status file; JSON keeps the kinds apart.
enum Field {
    Text(String),
    Number(u64),
    Ratio(f64),
    Flag(bool),
}

fn fields(view: &View, path: &Path, around: &Around) -> Vec<(&'static str, Field)> {
    use Field::{Flag, Number, Ratio, Text};
    let status = view.status();
    let text = |value: &str| Text(value.to_owned());
    let or_none = |value: String| Text(if value.is_empty() { "none".into() } else { value });
    let mut list = vec![
        ("path", Text(path.display().to_string())),
        ("file_id", or_none(status.file_id)),
        ("dimension", Number(status.dimension as u64)),
        ("metric", text(metric_name(status.metric))),
        ("vectors", Number(view.resolved().len())),
        ("inherited", Number(view.resolved().inherited())),
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
        ("derivation", Text(derivation(view))),
        (
            "existing_tools",
            Text(view.reference_opens().err().map_or("read it".into(), |why| format!("refuse it: {why}"))),
        ),
        ("index", Text(format!("{}/{}", status.index.indexed, status.index.total))),
        ("index_layer", text(status.index.layer)),
        ("index_loaded", text(status.index.loaded)),
        ("index_place", text(status.index.place)),
        ("index_build", text(&around.index_build)),
        ("index_stale", Flag(status.index.stale)),
        ("verified", Flag(status.verified)),
        ("health", Text(status.health)),
        ("read_only", Flag(around.read_only)),
        ("busy", text(if around.busy.is_empty() { "no" } else { &around.busy })),
    ];
    for finding in view.findings().iter().take(MAX_FINDINGS) {
        let mut line = format!("{} at {}: {}", finding.severity.word(), finding.offset, finding.text);
        if let Some(mend) = &finding.mend {
            let _ = write!(line, " ({mend})");
        }
        list.push(("finding", Text(line)));
    }
    list
}

/// What the store is to its parent and how it was made, such as `quantize precision=int8`.
#[must_use]
pub fn derivation(view: &View) -> String {
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

/// `l2`, `inner_product` or `cosine`, as the tools spell it.
#[must_use]
pub fn metric_name(metric: Metric) -> &'static str {
    match metric {
        Metric::L2 => "l2",
        Metric::InnerProduct => "inner_product",
        Metric::Cosine => "cosine",
    }
}

/// `status`: a `key: value` a line.
#[must_use]
pub fn text(view: &View, path: &Path, around: &Around) -> String {
    let mut out = String::with_capacity(1024);
    for (key, value) in fields(view, path, around) {
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
pub fn json(view: &View, path: &Path, around: &Around) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let mut findings = Vec::new();
    out.extend_from_slice(b"{\n");
    for (key, value) in fields(view, path, around) {
        if key == "finding" {
            if let Field::Text(text) = value {
                findings.push(text);
            }
            continue;
        }
        out.extend_from_slice(b"  ");
        write_json_string(key, &mut out);
        out.extend_from_slice(b": ");
        match value {
            Field::Text(text) => write_json_string(&text, &mut out),
            Field::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Field::Ratio(ratio) if ratio.is_finite() => {
                out.extend_from_slice(format!("{ratio:?}").as_bytes());
            }
            Field::Ratio(_) => out.extend_from_slice(b"null"),
            Field::Flag(flag) => out.extend_from_slice(if flag { b"true" } else { b"false" }),
        }
        out.extend_from_slice(b",\n");
    }
    out.extend_from_slice(b"  \"findings\": [");
    for (at, finding) in findings.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b", ");
        }
        write_json_string(finding, &mut out);
    }
    out.extend_from_slice(b"]\n}\n");
    out
}

/// A value that cannot break out of its line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
