//! Answers as bytes: `out`, `out.json`, `out.ids.npy`, `out.distances.npy`.
//!
//! The types of a search are given through [`AnswerView`], so nothing is copied to be printed. Distances print in
//! the shortest form that reads back to the same float32.

use std::convert::Infallible;

use super::npy::{Dtype, write_header};
use super::number::write_shortest;
use super::value::{FieldValue, write_json_string};

/// The id that fills `out.ids.npy` where a query has fewer hits than the widest one.
pub const MISSING_ID: u64 = u64::MAX;

/// The distance that fills `out.distances.npy` there: greater than every real one, so sorting stays right.
pub const MISSING_DISTANCE: f32 = f32::INFINITY;

/// What was done to answer one query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work<'a> {
    /// Recall layer used: `A`, `B`, `C` or `scan`.
    pub layer: &'a str,
    /// Every row was looked at.
    pub exact: bool,
    /// Vectors whose distance was computed.
    pub visited: u64,
    /// Time spent, in microseconds.
    pub micros: f64,
    /// Cut short by the deadline.
    pub truncated: bool,
}

/// The answer to one query, as a renderer sees it.
pub trait AnswerView {
    /// Ids and distances, nearest first.
    fn hits(&self) -> impl ExactSizeIterator<Item = (u64, f32)>;
    /// What was done.
    fn work(&self) -> Work<'_>;
}

impl<A: AnswerView> AnswerView for &A {
    fn hits(&self) -> impl ExactSizeIterator<Item = (u64, f32)> {
        (*self).hits()
    }
    fn work(&self) -> Work<'_> {
        (*self).work()
    }
}

fn put_u64(n: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// `out`: `id<TAB>distance` a line, an empty line between queries.
pub fn text<A: AnswerView>(answers: &[A], out: &mut Vec<u8>) {
    let lines: usize = answers.iter().map(|a| a.hits().len() + 1).sum();
    out.reserve(lines * 32);
    let Ok(()) = text_while(answers, |_| Ok::<(), Infallible>(()), out);
}

/// As [`text`], asking before every line whether to go on, with what is there. After an error `out` is incomplete.
///
/// # Errors
/// Those of `go_on`.
pub fn text_while<A: AnswerView, E>(
    answers: &[A],
    mut go_on: impl FnMut(&Vec<u8>) -> Result<(), E>,
    out: &mut Vec<u8>,
) -> Result<(), E> {
    for (n, answer) in answers.iter().enumerate() {
        if n > 0 {
            out.push(b'\n');
        }
        for (id, distance) in answer.hits() {
            go_on(out)?;
            put_u64(id, out);
            out.push(b'\t');
            write_shortest(distance, out);
            out.push(b'\n');
        }
    }
    go_on(out)
}

/// `out.json`: `{"queries": [{"hits": [{"id", "distance"}], "layer", "exact", "visited", "microseconds",
/// "truncated"}]}`, one query a line. `fields(id)` gives the metadata to show with a hit, as `"fields"`; `None`
/// leaves the key out.
pub fn json<A: AnswerView>(
    answers: &[A],
    mut fields: impl FnMut(u64) -> Option<Vec<(String, FieldValue)>>,
    out: &mut Vec<u8>,
) {
    let Ok(()) = json_while(answers, |id, _| Ok::<_, Infallible>(fields(id)), out);
}

/// As [`json`]; `fields` also gets what is there, and ends it with an error. `out` is incomplete then.
///
/// # Errors
/// Those of `fields`.
pub fn json_while<A: AnswerView, E>(
    answers: &[A],
    mut fields: impl FnMut(u64, &Vec<u8>) -> Result<Option<Vec<(String, FieldValue)>>, E>,
    out: &mut Vec<u8>,
) -> Result<(), E> {
    out.extend_from_slice(b"{\"queries\": [");
    for (n, answer) in answers.iter().enumerate() {
        out.extend_from_slice(if n > 0 { b",\n  {\"hits\": [" } else { b"\n  {\"hits\": [" });
        for (m, (id, distance)) in answer.hits().enumerate() {
            if m > 0 {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(b"{\"id\": ");
            put_u64(id, out);
            out.extend_from_slice(b", \"distance\": ");
            if distance.is_finite() {
                write_shortest(distance, out);
            } else {
                out.extend_from_slice(b"null");
            }
            if let Some(fields) = fields(id, out)? {
                out.extend_from_slice(b", \"fields\": ");
                super::value::write_json_record(None, fields.iter().map(|(n, v)| (n.as_str(), v)), out);
            }
            out.push(b'}');
        }
        let work = answer.work();
        out.extend_from_slice(b"], \"layer\": ");
        write_json_string(work.layer, out);
        out.extend_from_slice(if work.exact { b", \"exact\": true" } else { b", \"exact\": false" });
        out.extend_from_slice(b", \"visited\": ");
        put_u64(work.visited, out);
        out.extend_from_slice(b", \"microseconds\": ");
        let micros = if work.micros.is_finite() { (work.micros * 10.0).round() / 10.0 } else { 0.0 };
        out.extend_from_slice(zmij::Buffer::new().format_finite(micros).as_bytes());
        out.extend_from_slice(if work.truncated {
            b", \"truncated\": true}"
        } else {
            b", \"truncated\": false}"
        });
    }
    out.extend_from_slice(if answers.is_empty() { b"]}\n" } else { b"\n]}\n" });
    Ok(())
}

fn widest<A: AnswerView>(answers: &[A]) -> usize {
    answers.iter().map(|a| a.hits().len()).max().unwrap_or(0)
}

/// `out.ids.npy`: `[q, k]` uint64, where k is the longest answer; shorter ones end in [`MISSING_ID`].
pub fn ids_npy<A: AnswerView>(answers: &[A], out: &mut Vec<u8>) {
    let k = widest(answers);
    out.extend_from_slice(&write_header(Dtype::U64, &[answers.len(), k]));
    out.reserve(answers.len() * k * 8);
    for answer in answers {
        let ids = answer.hits().map(|(id, _)| id);
        for id in ids.chain(std::iter::repeat(MISSING_ID)).take(k) {
            out.extend_from_slice(&id.to_le_bytes());
        }
    }
}

/// `out.distances.npy`: `[q, k]` float32, beside [`ids_npy`]; missing ones are [`MISSING_DISTANCE`].
pub fn distances_npy<A: AnswerView>(answers: &[A], out: &mut Vec<u8>) {
    let k = widest(answers);
    out.extend_from_slice(&write_header(Dtype::F32, &[answers.len(), k]));
    out.reserve(answers.len() * k * 4);
    for answer in answers {
        let distances = answer.hits().map(|(_, distance)| distance);
        for distance in distances.chain(std::iter::repeat(MISSING_DISTANCE)).take(k) {
            out.extend_from_slice(&distance.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::npy::Npy;
    use super::*;

    struct Fixed(Vec<(u64, f32)>);

    impl AnswerView for Fixed {
        fn hits(&self) -> impl ExactSizeIterator<Item = (u64, f32)> {
            self.0.iter().copied()
        }
        fn work(&self) -> Work<'_> {
            Work { layer: "C", exact: false, visited: 12, micros: 34.56, truncated: false }
        }
    }

    fn answers() -> Vec<Fixed> {
        vec![
            Fixed(vec![(u64::MAX - 1, 0.1), (7, 1.0), (8, 1e-45)]),
            Fixed(vec![]),
            Fixed(vec![(1, -0.0), (2, f32::MAX)]),
        ]
    }

    #[test]
    fn text_lines() {
        let mut out = Vec::new();
        text(&answers(), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "18446744073709551614\t0.1\n7\t1.0\n8\t1e-45\n\n\n1\t-0.0\n2\t3.4028235e+38\n"
        );
    }

    #[test]
    fn json_is_json() {
        let mut out = Vec::new();
        let name = vec![("name".to_owned(), FieldValue::Text("x\"".into()))];
        json(&answers(), |id| (id == 7).then(|| name.clone()), &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with(
            "{\"queries\": [\n  {\"hits\": [{\"id\": 18446744073709551614, \"distance\": 0.1}, {\"id\": 7, \"distance\": \
             1.0, \"fields\": {\"name\": \"x\\\"\"}}, "
        ));
        assert!(text.ends_with(
            "], \"layer\": \"C\", \"exact\": false, \"visited\": 12, \"microseconds\": 34.6, \"truncated\": false}\n]}\n"
        ));
        let mut s = super::super::json::Scanner::new(text.as_bytes());
        s.skip().unwrap();
        s.end().unwrap();
        let mut none = Vec::new();
        json::<Fixed>(&[], |_| None, &mut none);
        assert_eq!(none, b"{\"queries\": []}\n");
    }

    #[test]
    fn arrays() {
        let (mut ids, mut distances) = (Vec::new(), Vec::new());
        ids_npy(&answers(), &mut ids);
        distances_npy(&answers(), &mut distances);
        let ids = Npy::parse(&ids).unwrap();
        assert_eq!(ids.shape(), [3, 3]);
        let flat: Vec<u64> = answers()
            .iter()
            .flat_map(|a| {
                a.hits().map(|h| h.0).chain(std::iter::repeat(MISSING_ID)).take(3).collect::<Vec<_>>()
            })
            .collect();
        let mut want = write_header(Dtype::U64, &[9]);
        want.extend(flat.iter().flat_map(|v| v.to_le_bytes()));
        assert_eq!(Npy::parse(&want).unwrap().to_u64().unwrap(), flat);
        let (rows, values) = Npy::parse(&distances).unwrap().to_f32(3).unwrap();
        assert_eq!(rows, 3);
        assert_eq!(values[3..6], [f32::INFINITY; 3]);
        assert_eq!(values[..3], [0.1, 1.0, 1e-45]);
    }
}
