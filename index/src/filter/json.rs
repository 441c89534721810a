//! JSON filters: the reference's form and the tree form.

use super::error::FilterError;
use super::expr::{CompareOp, Expr, FieldRef};
use super::value::{Literal, Num};
use super::{MAX_DEPTH, MAX_PATTERN_BYTES, MAX_PREDICATES};
use serde_json::{Map, Value as Json};

const OPERATORS: &str = "eq, ne, lt, le, gt, ge, and, or, not, in, range, like, ilike, exists, is_null";

/// The operators in the order in which the reference looks for them, then ours.
const ORDER: [&str; 15] = [
    "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "in", "range", "like", "ilike", "exists",
    "is_null",
];

/// Reads a JSON filter; the whole text must be one object.
pub(super) fn parse(text: &str) -> Result<Expr, FilterError> {
    let json: Json = serde_json::from_str(text).map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        let whole = error.to_string();
        let problem = whole.split(" at line ").next().unwrap_or_default();
        if problem == "recursion limit exceeded" {
            return FilterError::TooDeep;
        }
        FilterError::Json { place, problem: format!("not valid JSON: {problem}") }
    })?;
    let mut reader = Reader { predicates: 0 };
    let expr = reader.expr(&json, &Path::Root, 0)?;
    if expr.depth() > MAX_DEPTH {
        return Err(FilterError::TooDeep);
    }
    Ok(expr)
}

/// Where in the document a value stands, for messages; built on the stack, printed only on error.
enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Root => f.write_str("$"),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

impl Path<'_> {
    fn error(&self, problem: impl Into<String>) -> FilterError {
        FilterError::Json { place: self.to_string(), problem: problem.into() }
    }
}

/// How bare numbers compare.
#[derive(Clone, Copy, PartialEq)]
enum Numbers {
    Typed,
    ByValue,
}

struct Reader {
    predicates: usize,
}

impl Reader {
    fn expr(&mut self, json: &Json, path: &Path<'_>, depth: usize) -> Result<Expr, FilterError> {
        if depth > MAX_DEPTH {
            return Err(FilterError::TooDeep);
        }
        let object = json.as_object().ok_or_else(|| path.error("a filter must be a JSON object"))?;
        for name in ORDER {
            if let Some(operand) = object.get(name) {
                return self.operator(name, operand, &Path::Key(path, name), depth, false);
            }
        }
        match object.get("op") {
            Some(Json::String(name)) if ORDER.contains(&name.as_str()) => {
                self.operator(name, json, path, depth, true)
            }
            Some(other) => {
                let key = Path::Key(path, "op");
                Err(key.error(format!("unknown operator {}; expected one of {OPERATORS}", shown(other))))
            }
            None => {
                Err(path.error(format!("no operator; expected one of {OPERATORS}, or \"op\" naming one")))
            }
        }
    }

    /// One operator. In the tree form `operand` is the object that holds `op` itself.
    fn operator(
        &mut self,
        name: &str,
        operand: &Json,
        path: &Path<'_>,
        depth: usize,
        tree: bool,
    ) -> Result<Expr, FilterError> {
        match name {
            "and" | "or" | "not" if tree => {
                let path = Path::Key(path, "args");
                let args = operand.get("args").unwrap_or(&Json::Null);
                if name == "not" {
                    let inner = match args {
                        Json::Array(items) if items.len() == 1 => items.first().unwrap_or(args),
                        _ => return Err(path.error("'not' takes an array of exactly one filter")),
                    };
                    return Ok(Expr::Not(Box::new(self.expr(inner, &Path::Item(&path, 0), depth + 1)?)));
                }
                self.parts(name, args, &path, depth)
            }
            "and" | "or" => self.parts(name, operand, path, depth),
            "not" => Ok(Expr::Not(Box::new(self.expr(operand, path, depth + 1)?))),
            _ => self.leaf(name, operand, path, tree),
        }
    }

    fn parts(&mut self, name: &str, json: &Json, path: &Path<'_>, depth: usize) -> Result<Expr, FilterError> {
        let items =
            json.as_array().ok_or_else(|| path.error(format!("'{name}' takes an array of filters")))?;
        let mut parts = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            parts.push(self.expr(item, &Path::Item(path, i), depth + 1)?);
        }
        // An AND or OR of one is that one, so that text and JSON give the same tree.
        if parts.len() == 1
            && let Some(only) = parts.pop()
        {
            return Ok(only);
        }
        Ok(if name == "and" { Expr::And(parts) } else { Expr::Or(parts) })
    }

    fn leaf(&mut self, name: &str, json: &Json, path: &Path<'_>, tree: bool) -> Result<Expr, FilterError> {
        self.predicates += 1;
        if self.predicates > MAX_PREDICATES {
            return Err(FilterError::TooManyPredicates);
        }
        let object = json
            .as_object()
            .ok_or_else(|| path.error(format!("'{name}' takes an object with 'field' and 'value'")))?;
        let (field, by_id) = field(object, path)?;
        let numbers = if by_id && !tree { Numbers::Typed } else { Numbers::ByValue };
        let member = |key: &str| {
            let json = object.get(key).ok_or_else(|| path.error(format!("'{key}' is missing")))?;
            literal(json, &Path::Key(path, key), numbers)
        };
        let compare = |op| Ok(Expr::Compare { field: field.clone(), op, value: member("value")? });
        match name {
            "eq" => compare(CompareOp::Eq),
            "ne" => compare(CompareOp::Ne),
            "lt" => compare(CompareOp::Lt),
            "le" => compare(CompareOp::Le),
            "gt" => compare(CompareOp::Gt),
            "ge" => compare(CompareOp::Ge),
            "range" => {
                let (low, high) = (member("low")?, member("high")?);
                Ok(Expr::And(vec![
                    Expr::Compare { field: field.clone(), op: CompareOp::Ge, value: low },
                    Expr::Compare { field, op: CompareOp::Lt, value: high },
                ]))
            }
            "in" => {
                let path = Path::Key(path, "value");
                let items = object
                    .get("value")
                    .and_then(Json::as_array)
                    .ok_or_else(|| path.error("'in' takes an array of values"))?;
                let values = items
                    .iter()
                    .enumerate()
                    .map(|(i, item)| literal(item, &Path::Item(&path, i), numbers))
                    .collect::<Result<_, _>>()?;
                Ok(Expr::In { field, values })
            }
            "like" | "ilike" => {
                let Some(Json::String(pattern)) = object.get("value") else {
                    return Err(Path::Key(path, "value").error("a pattern must be a string"));
                };
                if pattern.len() > MAX_PATTERN_BYTES {
                    return Err(FilterError::PatternTooLong { bytes: pattern.len() });
                }
                Ok(Expr::Like { field, pattern: pattern.clone(), ignore_case: name == "ilike" })
            }
            "exists" => Ok(Expr::Exists(field)),
            "is_null" => Ok(Expr::IsNull(field)),
            _ => Err(path.error(format!("unknown operator; expected one of {OPERATORS}"))),
        }
    }
}

/// The field of a predicate, and whether it was given by number.
fn field(object: &Map<String, Json>, path: &Path<'_>) -> Result<(FieldRef, bool), FilterError> {
    let path = Path::Key(path, "field");
    match object.get("field") {
        Some(Json::String(name)) if !name.is_empty() => Ok((FieldRef::from_name(name), false)),
        // Truncation to 16 bits is what the reference does; a filter written for it must mean the same here.
        Some(Json::Number(n)) if n.as_u64().is_some() => {
            Ok((FieldRef::Id(n.as_u64().unwrap_or_default() as u16), true))
        }
        Some(other) => Err(path.error(format!("expected a field id or name, found {}", shown(other)))),
        None => Err(path.error("expected a field id or name, found nothing")),
    }
}

fn literal(json: &Json, path: &Path<'_>, numbers: Numbers) -> Result<Literal, FilterError> {
    let wrong = |what: &str| path.error(format!("expected {what}, found {}", shown(json)));
    match json {
        Json::Object(object) => {
            // The order of the reference, should there be several.
            if let Some(v) = object.get("u64") {
                let v = v.as_u64().ok_or_else(|| wrong("an unsigned 64-bit integer in 'u64'"))?;
                Ok(Literal::Typed(Num::U64(v)))
            } else if let Some(v) = object.get("i64") {
                let v = v.as_i64().ok_or_else(|| wrong("a signed 64-bit integer in 'i64'"))?;
                Ok(Literal::Typed(Num::I64(v)))
            } else if let Some(v) = object.get("f64") {
                let v = v.as_f64().filter(|v| v.is_finite()).ok_or_else(|| wrong("a number in 'f64'"))?;
                Ok(Literal::Typed(Num::F64(v)))
            } else if let Some(v) = object.get("string") {
                let v = v.as_str().ok_or_else(|| wrong("text in 'string'"))?;
                Ok(Literal::String(v.to_owned()))
            } else if let Some(v) = object.get("bool") {
                Ok(Literal::Bool(v.as_bool().ok_or_else(|| wrong("true or false in 'bool'"))?))
            } else {
                Err(wrong("one of u64, i64, f64, string, bool in the object"))
            }
        }
        Json::Number(n) => {
            let num = if let Some(v) = n.as_u64() {
                Num::U64(v)
            } else if n.to_string() == "-0" {
                // The reference's JSON reader makes minus zero a float; as an integer it would be another type.
                Num::F64(-0.0)
            } else if let Some(v) = n.as_i64() {
                Num::I64(v)
            } else {
                Num::F64(
                    n.as_f64()
                        .filter(|v| v.is_finite())
                        .ok_or_else(|| wrong("a number in the range of f64"))?,
                )
            };
            Ok(match numbers {
                Numbers::Typed => Literal::Typed(num),
                Numbers::ByValue => Literal::Number(num),
            })
        }
        Json::String(s) => Ok(Literal::String(s.clone())),
        Json::Bool(b) => Ok(Literal::Bool(*b)),
        Json::Null => Err(wrong("a value (use is_null to find missing ones)")),
        Json::Array(_) => Err(wrong("text, a number, true, false, or an object such as {\"u64\": 5}")),
    }
}

/// A JSON value shortened for a message.
fn shown(json: &Json) -> String {
    let text = match json {
        Json::Array(_) => return "an array".to_owned(),
        Json::Object(object) => {
            return match object.keys().next() {
                Some(key) => format!("an object with '{}'", key.chars().take(40).collect::<String>()),
                None => "an empty object".to_owned(),
            };
        }
        other => other.to_string(),
    };
    let short: String = text.chars().take(40).collect();
    if short.len() < text.len() { format!("{short}...") } else { short }
}
