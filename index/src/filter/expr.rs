//! The expression tree, its canonical text, and the evaluator over one record.

use super::lexer::{is_keyword, is_plain_name};
use super::like::Pattern;
use super::value::{Literal, Num, Value};
use std::cmp::Ordering;
use std::fmt;

/// A field by name or by id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FieldRef {
    /// By the name in the metadata schema. A name `field.N` that no field carries means the field with id N.
    Name(String),
    /// By the id in the metadata schema; written `field.N`.
    Id(u16),
}

impl FieldRef {
    /// The field an unquoted name means: `field.N` is the id N, anything else the name itself.
    pub fn from_name(name: &str) -> Self {
        numbered(name).map_or_else(|| Self::Name(name.to_owned()), Self::Id)
    }

    /// The id that a name of the form `field.N` denotes when no field is called so.
    pub fn numbered_id(&self) -> Option<u16> {
        match self {
            Self::Name(name) => numbered(name),
            Self::Id(id) => Some(*id),
        }
    }
}

/// `field.N` with N in canonical decimal, so that one id has one spelling.
fn numbered(name: &str) -> Option<u16> {
    let digits = name.strip_prefix("field.")?;
    let id: u16 = digits.parse().ok()?;
    (id.to_string() == digits).then_some(id)
}

/// A comparison operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareOp {
    /// Equal.
    Eq,
    /// Not equal: the negation of [`CompareOp::Eq`], so also true when there is nothing to compare.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
}

impl CompareOp {
    pub(super) fn holds(self, order: Option<Ordering>) -> bool {
        match self {
            Self::Eq => order == Some(Ordering::Equal),
            Self::Ne => order != Some(Ordering::Equal),
            Self::Lt => order == Some(Ordering::Less),
            Self::Le => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Self::Gt => order == Some(Ordering::Greater),
            Self::Ge => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }
    }

    fn symbol(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
        }
    }
}

/// A boolean expression over the metadata of one row.
///
/// `Display` prints canonical SQL-like text: what [`parse`](super::parse) returned prints so that it parses back to an
/// expression of the same text and meaning. (Trees built by hand with NaN or infinite literals print but do not parse.)
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// `field op value`.
    Compare {
        /// Left-hand side.
        field: FieldRef,
        /// Operator.
        op: CompareOp,
        /// Right-hand side.
        value: Literal,
    },
    /// `field IN (values)`: equal to one of them.
    In {
        /// Field tested.
        field: FieldRef,
        /// Allowed values; none makes the predicate false.
        values: Vec<Literal>,
    },
    /// `field BETWEEN low AND high`, both included.
    Between {
        /// Field tested.
        field: FieldRef,
        /// Smallest value allowed.
        low: Literal,
        /// Largest value allowed.
        high: Literal,
    },
    /// `field LIKE pattern` or `ILIKE`: true for text only.
    Like {
        /// Field tested.
        field: FieldRef,
        /// `%` any text, `_` one character, `\` escapes.
        pattern: String,
        /// ILIKE: compare in lower case.
        ignore_case: bool,
    },
    /// The record carries the field, be it null.
    Exists(FieldRef),
    /// The field is missing or null.
    IsNull(FieldRef),
    /// All hold; true when empty.
    And(Vec<Expr>),
    /// At least one holds; false when empty.
    Or(Vec<Expr>),
    /// Plain negation.
    Not(Box<Expr>),
}

impl Expr {
    /// The fields the expression names, each once, in order of appearance. Columns need to be built for these only.
    pub fn fields(&self) -> Vec<&FieldRef> {
        let mut found = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let mut stack = vec![self];
        while let Some(expr) = stack.pop() {
            match expr {
                Self::And(parts) | Self::Or(parts) => stack.extend(parts.iter().rev()),
                Self::Not(inner) => stack.push(inner),
                Self::Compare { field, .. }
                | Self::In { field, .. }
                | Self::Between { field, .. }
                | Self::Like { field, .. }
                | Self::Exists(field)
                | Self::IsNull(field) => {
                    if seen.insert(field) {
                        found.push(field);
                    }
                }
            }
        }
        found
    }

    /// Levels of AND, OR and NOT above the deepest predicate.
    pub(super) fn depth(&self) -> usize {
        let mut deepest = 0;
        let mut stack = vec![(self, 0usize)];
        while let Some((expr, depth)) = stack.pop() {
            deepest = deepest.max(depth);
            match expr {
                Self::And(parts) | Self::Or(parts) => stack.extend(parts.iter().map(|p| (p, depth + 1))),
                Self::Not(inner) => stack.push((inner, depth + 1)),
                _ => {}
            }
        }
        deepest
    }
}

/// Evaluates an expression over one record, field by field, without an index.
///
/// `get` returns the value of a field, `None` when the record does not carry it. Agrees with
/// [`Columns::eval`](super::Columns::eval) on every record. Time: one lookup a predicate.
pub fn matches<'v>(expr: &Expr, get: impl Fn(&FieldRef) -> Option<&'v Value>) -> bool {
    one(expr, &get)
}

fn one<'v>(expr: &Expr, get: &dyn Fn(&FieldRef) -> Option<&'v Value>) -> bool {
    let order = |field: &FieldRef, literal: &Literal| get(field).and_then(|v| v.compare(literal));
    match expr {
        Expr::Compare { field, op, value } => op.holds(order(field, value)),
        Expr::In { field, values } => {
            get(field).is_some_and(|v| values.iter().any(|l| CompareOp::Eq.holds(v.compare(l))))
        }
        Expr::Between { field, low, high } => {
            CompareOp::Ge.holds(order(field, low)) && CompareOp::Le.holds(order(field, high))
        }
        Expr::Like { field, pattern, ignore_case } => match get(field) {
            Some(Value::String(text)) => Pattern::new(pattern, *ignore_case).matches(text),
            _ => false,
        },
        Expr::Exists(field) => get(field).is_some(),
        Expr::IsNull(field) => matches!(get(field), None | Some(Value::Null)),
        Expr::And(parts) => parts.iter().all(|p| one(p, get)),
        Expr::Or(parts) => parts.iter().any(|p| one(p, get)),
        Expr::Not(inner) => !one(inner, get),
    }
}

impl fmt::Display for FieldRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "field.{id}"),
            Self::Name(name) if is_plain_name(name) && !is_keyword(name) && numbered(name).is_none() => {
                f.write_str(name)
            }
            Self::Name(name) => write!(f, "\"{}\"", name.replace('"', "\"\"")),
        }
    }
}

impl fmt::Display for Num {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::I64(v) => write!(f, "{v}"),
            Self::U64(v) => write!(f, "{v}"),
            // Debug keeps the ".0" that tells a float from an integer and prints the shortest text that reads back.
            Self::F64(v) => write!(f, "{v:?}"),
        }
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(s) => quoted(f, s),
            Self::Bool(true) => f.write_str("TRUE"),
            Self::Bool(false) => f.write_str("FALSE"),
            Self::Number(n) => write!(f, "{n}"),
            Self::Typed(n) => {
                let name = match n {
                    Num::I64(_) => "i64",
                    Num::U64(_) => "u64",
                    Num::F64(_) => "f64",
                };
                write!(f, "{n}::{name}")
            }
        }
    }
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    write!(f, "'{}'", text.replace('\'', "''"))
}

impl fmt::Display for CompareOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.symbol())
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        predicate(f, self, "")
    }
}

/// Prints an expression; `not` is "NOT " where a negated predicate has it in the middle, else empty.
fn predicate(f: &mut fmt::Formatter<'_>, expr: &Expr, not: &str) -> fmt::Result {
    match expr {
        Expr::Compare { field, op, value } => write!(f, "{field} {op} {value}"),
        Expr::In { field, values } => {
            write!(f, "{field} {not}IN (")?;
            for (i, value) in values.iter().enumerate() {
                write!(f, "{}{value}", if i == 0 { "" } else { ", " })?;
            }
            f.write_str(")")
        }
        Expr::Between { field, low, high } => write!(f, "{field} {not}BETWEEN {low} AND {high}"),
        Expr::Like { field, pattern, ignore_case } => {
            write!(f, "{field} {not}{} ", if *ignore_case { "ILIKE" } else { "LIKE" })?;
            quoted(f, pattern)
        }
        Expr::Exists(field) => write!(f, "{not}EXISTS {field}"),
        Expr::IsNull(field) => write!(f, "{field} IS {not}NULL"),
        Expr::And(parts) => joined(f, parts, " AND ", "TRUE"),
        Expr::Or(parts) => joined(f, parts, " OR ", "FALSE"),
        Expr::Not(inner) => match transparent(inner) {
            inner @ (Expr::In { .. }
            | Expr::Between { .. }
            | Expr::Like { .. }
            | Expr::Exists(_)
            | Expr::IsNull(_)) => predicate(f, inner, "NOT "),
            inner => {
                f.write_str("NOT ")?;
                enclosed(f, inner)
            }
        },
    }
}

/// An AND or OR of one part is that part.
fn transparent(expr: &Expr) -> &Expr {
    let mut expr = expr;
    while let Expr::And(parts) | Expr::Or(parts) = expr
        && let [only] = parts.as_slice()
    {
        expr = only;
    }
    expr
}

fn joined(f: &mut fmt::Formatter<'_>, parts: &[Expr], separator: &str, empty: &str) -> fmt::Result {
    match parts {
        [] => f.write_str(empty),
        [only] => predicate(f, only, ""),
        [first, rest @ ..] => {
            enclosed(f, first)?;
            for part in rest {
                f.write_str(separator)?;
                enclosed(f, part)?;
            }
            Ok(())
        }
    }
}

/// Prints an operand, in parentheses when it is itself an AND or OR: precedence need not be remembered to read it.
fn enclosed(f: &mut fmt::Formatter<'_>, expr: &Expr) -> fmt::Result {
    match transparent(expr) {
        inner @ (Expr::And(parts) | Expr::Or(parts)) if !parts.is_empty() => {
            f.write_str("(")?;
            predicate(f, inner, "")?;
            f.write_str(")")
        }
        inner => predicate(f, inner, ""),
    }
}
