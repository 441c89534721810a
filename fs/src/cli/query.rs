//! `rvf query`.

use super::failure::Failure;
use super::open;
use super::output::{Out, distance};
use crate::convert;
use crate::data::FieldValue;
use crate::data::error::printable;
use crate::data::request;
use rvf_cow::{Answer, SearchRequest, View};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(super) struct Args {
    /// Path to the RVF store
    path: PathBuf,
    /// Query vector as numbers separated by commas or blanks
    #[arg(short, long, group = "what", allow_hyphen_values = true)]
    vector: Option<String>,
    /// File of query vectors: text lines, JSON, .npy or raw float32; - reads stdin
    #[arg(short, long, group = "what", value_name = "FILE")]
    input: Option<PathBuf>,
    /// Id of a stored vector to use as query
    #[arg(long, group = "what")]
    id: Option<u64>,
    /// Number of nearest neighbors to return
    #[arg(short, long, default_value_t = 10)]
    k: usize,
    /// Only vectors whose metadata match: genre = 'sci-fi' AND year > 2020, or the reference's JSON
    #[arg(short, long)]
    filter: Option<String>,
    /// Width of the graph walk; more is slower and finds more
    #[arg(long)]
    ef: Option<usize>,
    /// Look at every vector instead of walking the graph
    #[arg(long)]
    exact: bool,
    /// Give up after this many milliseconds with what was found
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,
    /// Metadata to show with each result: names separated by commas, or * for all
    #[arg(long, value_name = "NAMES")]
    fields: Option<String>,
    /// Also say how each query was answered
    #[arg(long)]
    explain: bool,
    /// Output as JSON
    #[arg(long)]
    json: bool,
    /// Open the last committed snapshot even if the file ends inside a segment
    #[arg(long)]
    recover: bool,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let given = args.vector.as_deref().map(parse_vector).transpose()?;
    let store = open::reading(&args.path, args.recover)?;
    let view = store.view();
    let dim = view.dimension();
    let mut k = args.k;
    let mut ef = args.ef;
    let mut filter = args.filter.clone();
    let mut exact = args.exact;
    let mut timeout_ms = args.timeout_ms;
    let mut fields = match args.fields.as_deref() {
        None => None,
        Some("*") => Some(Vec::new()),
        Some(names) => Some(names.split(',').map(|n| n.trim().to_owned()).collect()),
    };
    let queries = if let Some(vector) = given {
        if vector.len() != dim {
            let e = rvf_cow::Error::Dimension { row: 0, got: vector.len(), want: dim };
            return Err(e.into());
        }
        vector
    } else if let Some(id) = args.id {
        stored(&view, &[id])?
    } else {
        let path = args.input.clone().unwrap_or_default();
        let bytes = open::input(&path)?;
        let request =
            request::parse(&bytes, dim).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
        open::intact(&path, &bytes)?;
        k = request.k.unwrap_or(k);
        ef = request.ef.or(ef);
        filter = request.filter.filter(|f| !f.is_empty()).or(filter);
        exact |= request.exact.unwrap_or(false);
        timeout_ms = request.timeout_ms.or(timeout_ms);
        fields = request.fields.or(fields);
        if request.by_id.is_empty() { request.vectors } else { stored(&view, &request.by_id)? }
    };
    let answers = view.search(&SearchRequest {
        queries: &queries,
        k,
        ef,
        filter: filter.as_deref(),
        exact,
        // A deadline beyond the clock's range is none.
        deadline: timeout_ms.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms))),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    })?;
    view.check_intact()?;
    let shown = Shown { view: &view, fields, explain: args.explain };
    if args.json {
        let mut all: Vec<Value> = answers.iter().map(|a| shown.json(a)).collect();
        // One query given on the command line answers as the reference does.
        return match (args.input.is_some(), all.pop()) {
            (false, Some(one)) => out.json(&one),
            (_, last) => {
                all.extend(last);
                out.json(&json!({ "queries": all }))
            }
        };
    }
    for (n, answer) in answers.iter().enumerate() {
        if n > 0 {
            out.line("")?;
        }
        shown.text(answer, out)?;
    }
    Ok(())
}

fn stored(view: &View, ids: &[u64]) -> Result<Vec<f32>, Failure> {
    let mut out = Vec::with_capacity(ids.len() * view.dimension());
    for id in ids {
        let rows = view.resolved();
        let place = rows.find(*id).ok_or(rvf_cow::Error::NoSuchId { id: *id })?;
        out.extend(rows.vector(place).as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)));
    }
    Ok(out)
}

/// Reads `-v` as the reference does, and also without commas or inside brackets.
fn parse_vector(text: &str) -> Result<Vec<f32>, Failure> {
    let body = text.trim();
    let body = body.strip_prefix('[').and_then(|b| b.strip_suffix(']')).unwrap_or(body);
    let mut vector = Vec::new();
    for cell in body.split(',') {
        let mut words = cell.split_whitespace();
        // An empty cell fails as the reference's parser fails on it.
        let first = words.next().unwrap_or("");
        for word in std::iter::once(first).chain(words) {
            let value: f32 = word.parse().map_err(|e| {
                Failure::new(format!("Invalid vector component '{}': {e}", printable(word, 64)))
            })?;
            vector.push(value);
        }
    }
    if let Some(i) = vector.iter().position(|v| !v.is_finite()) {
        return Err(Failure::new(format!(
            "invalid query vector: component {i} is not finite (NaN or infinity) [NonFiniteQuery]"
        )));
    }
    Ok(vector)
}

struct Shown<'a> {
    view: &'a View,
    /// Names to show; of an empty list, all.
    fields: Option<Vec<String>>,
    explain: bool,
}

impl Shown<'_> {
    fn fields(&self, id: u64) -> Vec<(String, FieldValue)> {
        let Some(names) = &self.fields else { return Vec::new() };
        let record = self.view.fields(id).unwrap_or_default();
        let all = record.into_iter().map(|(name, value)| (name, convert::shown(value)));
        if names.is_empty() {
            return all.collect();
        }
        let all: Vec<(String, FieldValue)> = all.collect();
        names.iter().filter_map(|name| all.iter().find(|(n, _)| n == name).cloned()).collect()
    }

    fn json(&self, answer: &Answer) -> Value {
        let results: Vec<Value> = answer
            .hits
            .iter()
            .map(|hit| {
                let mut one = Map::new();
                one.insert("id".into(), json!(hit.id));
                one.insert("distance".into(), distance(hit.distance));
                if self.fields.is_some() {
                    let fields =
                        self.fields(hit.id).into_iter().map(|(name, v)| (name, json_value(&v))).collect();
                    one.insert("fields".into(), Value::Object(fields));
                }
                Value::Object(one)
            })
            .collect();
        let mut object = Map::new();
        object.insert("count".into(), json!(results.len()));
        object.insert("results".into(), Value::Array(results));
        if self.explain {
            object.insert("layer".into(), json!(answer.layer));
            object.insert("exact".into(), json!(answer.exact));
            object.insert("visited".into(), json!(answer.visited));
            object.insert("microseconds".into(), json!((answer.micros * 10.0).round() / 10.0));
            object.insert("truncated".into(), json!(answer.truncated));
        }
        Value::Object(object)
    }

    fn text(&self, answer: &Answer, out: &mut Out) -> Result<(), Failure> {
        out.line(format_args!("Query results ({} neighbors):", answer.hits.len()))?;
        for (i, hit) in answer.hits.iter().enumerate() {
            let mut line = format!("  [{i}] id={} distance={:.6}", hit.id, hit.distance);
            for (name, value) in self.fields(hit.id) {
                let text = match &value {
                    FieldValue::Text(s) => s.clone(),
                    other => {
                        let mut json = Vec::new();
                        other.write_json(&mut json);
                        String::from_utf8_lossy(&json).into_owned()
                    }
                };
                line.push_str(&format!(" {}={}", printable(&name, 64), printable(&text, 200)));
            }
            out.line(line)?;
        }
        if self.explain {
            out.pair("Layer:", answer.layer)?;
            out.pair("Exact:", answer.exact)?;
            out.pair("Visited:", answer.visited)?;
            out.pair("Microseconds:", format_args!("{:.1}", answer.micros))?;
            out.pair("Truncated:", answer.truncated)?;
        }
        Ok(())
    }
}

/// A value as JSON; the same text as in `metadata.jsonl`.
fn json_value(value: &FieldValue) -> Value {
    let mut text = Vec::new();
    value.write_json(&mut text);
    serde_json::from_slice(&text).unwrap_or(Value::Null)
}
