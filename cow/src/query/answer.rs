//! From a request to its answers, and the answers as bytes.

use super::Fields;
use super::render::{self, AnswerView};
use super::request::Request;
use super::value::FieldValue;
use crate::error::Error;
use crate::types::Answer;
use crate::view::View;

/// Puts the stored vectors that a request names by id among its queries. O(ids * log n).
///
/// # Errors
/// [`Error::NoSuchId`].
pub fn look_up(view: &View, request: &mut Request) -> Result<(), Error> {
    let rows = view.resolved();
    for id in &request.by_id {
        let place = rows.find(*id).ok_or(Error::NoSuchId { id: *id })?;
        let (numbers, _) = rows.vector(place).as_chunks::<4>();
        request.vectors.extend(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)));
    }
    Ok(())
}

/// The metadata of a vector as it is shown: the named fields, or all when none is named.
#[must_use]
pub fn shown_fields(view: &View, id: u64, wanted: &[String]) -> Fields {
    let keep = |name: &str| wanted.is_empty() || wanted.iter().any(|want| want == name);
    let record = view.fields(id).unwrap_or_default();
    record
        .into_iter()
        .filter(|(name, _)| keep(name))
        .map(|(name, value)| (name, FieldValue::from(value)))
        .collect()
}

/// Answers as text: `id<TAB>distance` a line, an empty line between queries.
pub fn text(answers: &[Answer], out: &mut Vec<u8>) {
    render::text(&views(answers), out);
}

/// As [`text`], asking before every line whether to go on, with what is there. After an error `out` is incomplete.
///
/// # Errors
/// Those of `go_on`.
pub fn text_while<E>(
    answers: &[Answer],
    go_on: impl FnMut(&Vec<u8>) -> Result<(), E>,
    out: &mut Vec<u8>,
) -> Result<(), E> {
    render::text_while(&views(answers), go_on, out)
}

/// Answers as JSON, each hit with the metadata that `fields` gives for it.
pub fn json(answers: &[Answer], fields: impl FnMut(u64) -> Option<Fields>, out: &mut Vec<u8>) {
    render::json(&views(answers), fields, out);
}

/// As [`json`]; `fields` also gets what is there, and ends it with an error. `out` is incomplete then.
///
/// # Errors
/// Those of `fields`.
pub fn json_while<E>(
    answers: &[Answer],
    fields: impl FnMut(u64, &Vec<u8>) -> Result<Option<Fields>, E>,
    out: &mut Vec<u8>,
) -> Result<(), E> {
    render::json_while(&views(answers), fields, out)
}

/// The ids of answers as a NumPy array `[q, k]`.
pub fn ids_npy(answers: &[Answer], out: &mut Vec<u8>) {
    render::ids_npy(&views(answers), out);
}

/// The distances of answers as a NumPy array `[q, k]`.
pub fn distances_npy(answers: &[Answer], out: &mut Vec<u8>) {
    render::distances_npy(&views(answers), out);
}

struct Shown<'a>(&'a Answer);

fn views(answers: &[Answer]) -> Vec<Shown<'_>> {
    answers.iter().map(Shown).collect()
}

impl AnswerView for Shown<'_> {
    fn hits(&self) -> impl ExactSizeIterator<Item = (u64, f32)> {
        self.0.hits.iter().map(|hit| (hit.id, hit.distance))
    }

    fn work(&self) -> render::Work<'_> {
        render::Work {
            layer: self.0.layer,
            exact: self.0.exact,
            visited: self.0.visited,
            micros: self.0.micros,
            truncated: self.0.truncated,
        }
    }
}
