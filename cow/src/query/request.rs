//! A query request in any of its forms, told apart by its bytes.
//!
//! | bytes | form |
//! | --- | --- |
//! | `\x93NUMPY` | a NumPy array of shape `[dim]` or `[q, dim]`, float16, float32 or float64 |
//! | printable text that starts with `{` | one JSON object |
//! | printable text that starts with `[` | JSON arrays, one a vector or one of vectors |
//! | other printable text | numbers separated by commas or blanks, one vector a line |
//! | anything else | little-endian float32, q * dim * 4 bytes |
//!
//! The object's keys: `vector` or `vectors` or `id` or `ids`; `k`, `ef`, `filter` (text, or the reference's filter
//! object), `exact`, `fields` (a list of names, or true for all), `timeout_ms`.

use super::error::{DataError, Kind, Place, printable};
use super::json::{Scanner, balanced};
use super::npy::{MAGIC, Npy, Prefix, read_prefix};
use super::number;
use super::text;

/// Longest request, in bytes: 256 MiB.
pub const MAX_REQUEST: usize = 256 << 20;

/// Bytes looked at to tell a form; a raw vector shows itself within a few.
const SAMPLE: usize = 1024;

/// What is wrong with a request.
pub type RequestError = DataError;

/// A query request. Settings that it does not make are `None`: the session's defaults apply.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// queries * dimension numbers, row-major, all finite; empty when `by_id` is given.
    pub vectors: Vec<f32>,
    /// Number of queries: the vectors, or the ids.
    pub queries: usize,
    /// Stored vectors to use as queries; empty when `vectors` is given.
    pub by_id: Vec<u64>,
    /// Neighbours a query.
    pub k: Option<usize>,
    /// Candidates kept during the walk.
    pub ef: Option<usize>,
    /// Filter text, SQL-like or the reference's JSON, not yet parsed. An empty filter is `Some("")`: none, whatever
    /// the session's default says.
    pub filter: Option<String>,
    /// Scan instead of walking the graph.
    pub exact: Option<bool>,
    /// Metadata to give with each hit: `Some` of an empty list is every field.
    pub fields: Option<Vec<String>>,
    /// Milliseconds after which the answer may be cut short.
    pub timeout_ms: Option<u64>,
}

/// The form of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A NumPy file.
    Npy,
    /// A JSON object.
    Object,
    /// JSON arrays.
    Array,
    /// Lines of numbers.
    Text,
    /// Little-endian float32.
    Raw,
}

/// Whether a request's bytes so far are all of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Completeness {
    /// It can run. More bytes may still make a longer one (a further line, a further raw vector).
    Complete,
    /// More bytes belong to it, unless the writer closes the file or asks for the answer.
    Incomplete,
    /// No further bytes can mend it.
    Wrong(RequestError),
}

#[inline]
fn is_text(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\t'..=b'\r')
}

/// `all` in chunks without an early end inside, so that it is vectorised.
#[inline]
fn all(bytes: &[u8], test: impl Fn(u8) -> bool) -> bool {
    bytes.chunks(64).all(|chunk| chunk.iter().fold(true, |good, b| good & test(*b)))
}

/// The form of the bytes; `None` when there are too few to tell.
#[must_use]
pub fn form(bytes: &[u8]) -> Option<Form> {
    if bytes.starts_with(MAGIC) {
        return Some(Form::Npy);
    }
    if bytes.len() < MAGIC.len() && MAGIC.starts_with(bytes) {
        return None;
    }
    let sample = bytes.get(..SAMPLE).unwrap_or(bytes);
    let sample = sample.strip_prefix(b"\xef\xbb\xbf").unwrap_or(sample);
    let first = sample.iter().find(|b| !b.is_ascii_whitespace());
    let json = matches!(first, Some(b'{' | b'['));
    let texty = if json {
        // Strings may hold any UTF-8; the sample may end inside a character.
        let utf8 = match std::str::from_utf8(sample) {
            Ok(_) => true,
            Err(e) => e.error_len().is_none() && sample.len() + 3 >= SAMPLE.min(bytes.len()),
        };
        utf8 && all(sample, |b| b >= 0x80 || is_text(b))
    } else {
        all(sample, is_text)
    };
    Some(match (texty, first) {
        (false, _) => Form::Raw,
        (true, Some(b'{')) => Form::Object,
        (true, Some(b'[')) => Form::Array,
        (true, _) => Form::Text,
    })
}

fn too_large(len: usize) -> DataError {
    DataError::new(
        Kind::TooLarge,
        Place::Whole,
        format!("a request of {len} bytes, more than {MAX_REQUEST}"),
        "send the queries in several requests",
    )
}

/// Whether the bytes written so far are a whole request. O(1) for NumPy and raw requests and for text; O(n) for
/// JSON whose last byte could close it.
#[must_use]
pub fn completeness(bytes: &[u8], dim: usize) -> Completeness {
    if bytes.len() > MAX_REQUEST {
        return Completeness::Wrong(too_large(bytes.len()));
    }
    let done = |yes: bool| if yes { Completeness::Complete } else { Completeness::Incomplete };
    let last = || bytes.iter().rev().find(|b| !b.is_ascii_whitespace()).copied();
    match form(bytes) {
        None => Completeness::Incomplete,
        Some(Form::Npy) => match read_prefix(bytes) {
            Err(e) => Completeness::Wrong(e),
            Ok(Prefix::Partial) => Completeness::Incomplete,
            Ok(Prefix::Header(header)) => match header.header_len.checked_add(header.data_len) {
                Some(total) if total <= MAX_REQUEST => match bytes.len().cmp(&total) {
                    std::cmp::Ordering::Less => Completeness::Incomplete,
                    std::cmp::Ordering::Equal => Completeness::Complete,
                    std::cmp::Ordering::Greater => match Npy::parse(bytes) {
                        Err(e) => Completeness::Wrong(e),
                        Ok(_) => Completeness::Complete,
                    },
                },
                total => Completeness::Wrong(too_large(total.unwrap_or(usize::MAX))),
            },
        },
        Some(Form::Object | Form::Array) => match last() {
            Some(b'}' | b']') => match balanced(bytes) {
                Some(closed) => done(closed),
                None => parse(bytes, dim).map_or_else(Completeness::Wrong, |_| Completeness::Complete),
            },
            _ => Completeness::Incomplete,
        },
        // Blank lines alone are not a request yet.
        Some(Form::Text) => done(bytes.last() == Some(&b'\n') && last().is_some()),
        Some(Form::Raw) => done(bytes.len().is_multiple_of(4 * dim.max(1))),
    }
}

/// Reads a whole request for a store of dimension `dim`. O(bytes).
///
/// # Errors
/// Empty, too large, or wrong in its form, with the place: line and column, or row and component.
pub fn parse(bytes: &[u8], dim: usize) -> Result<Request, RequestError> {
    if bytes.len() > MAX_REQUEST {
        return Err(too_large(bytes.len()));
    }
    if bytes.is_empty() {
        return Err(empty(dim));
    }
    let mut request = Request::default();
    match form(bytes).unwrap_or(Form::Npy) {
        Form::Npy => {
            let (queries, vectors) = Npy::parse(bytes)?.to_f32(dim)?;
            finite(&vectors, dim)?;
            (request.queries, request.vectors) = (queries, vectors);
        }
        Form::Raw => {
            if !bytes.len().is_multiple_of(4 * dim.max(1)) {
                return Err(DataError::new(
                    Kind::Dimension { got: bytes.len() / 4, want: dim },
                    Place::Whole,
                    format!(
                        "{} bytes are not text, and not float32 vectors of dimension {dim} either",
                        bytes.len()
                    ),
                    format!("a raw request has {} bytes a vector", 4 * dim),
                ));
            }
            request.vectors = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            finite(&request.vectors, dim)?;
            request.queries = request.vectors.len().checked_div(dim).unwrap_or(0);
        }
        Form::Array | Form::Text => {
            // A number takes two bytes at least.
            request.vectors.reserve(dim.min(bytes.len() / 2 + 1));
            request.queries = text::parse_vectors(bytes, dim, &mut request.vectors)?;
        }
        Form::Object => object(bytes, dim, &mut request)?,
    }
    if request.queries == 0 {
        return Err(empty(dim));
    }
    Ok(request)
}

fn empty(dim: usize) -> DataError {
    DataError::new(
        Kind::Empty,
        Place::Whole,
        "the request is empty",
        format!("write {dim} numbers, a JSON object, a .npy array or raw float32"),
    )
}

fn finite(vectors: &[f32], dim: usize) -> Result<(), DataError> {
    if number::all_finite(vectors) {
        return Ok(());
    }
    let at = vectors.iter().position(|v| !v.is_finite()).unwrap_or(0);
    let place =
        Place::Row { row: (at / dim.max(1)) as u64, component: Some((at % dim.max(1)) as u64), line: None };
    Err(DataError::not_finite(place, &vectors.get(at).copied().unwrap_or_default().to_string()))
}

const KEYS: &str = "a request has vector, vectors, id or ids, and k, ef, filter, exact, fields, timeout_ms";

fn object(bytes: &[u8], dim: usize, request: &mut Request) -> Result<(), DataError> {
    let mut s = Scanner::new(bytes);
    s.expect(b'{', "a request object")?;
    let mut seen: Vec<&'static str> = Vec::new();
    if !s.take(b'}') {
        loop {
            let at = s.clone();
            let key = s.key()?;
            let known =
                ["vector", "vectors", "id", "ids", "k", "ef", "filter", "exact", "fields", "timeout_ms"]
                    .into_iter()
                    .find(|k| *k == key);
            let Some(key) = known else {
                return Err(at.error(format!("unknown key `{}`", printable(&key, 64)), KEYS));
            };
            if seen.contains(&key) {
                return Err(at.error(format!("the key `{key}` a second time"), ""));
            }
            seen.push(key);
            setting(&mut s, key, dim, request)?;
            if !s.more(b'}')? {
                break;
            }
        }
    }
    s.end()?;
    let what = ["vector", "vectors", "id", "ids"].into_iter().filter(|k| seen.contains(k)).count();
    match what {
        1 => Ok(()),
        0 => Err(DataError::new(Kind::Empty, Place::Whole, "the request says nothing to look for", KEYS)),
        _ => Err(DataError::new(Kind::Syntax, Place::Whole, "the request says twice what to look for", KEYS)),
    }
}

fn setting(
    s: &mut Scanner<'_>,
    key: &'static str,
    dim: usize,
    request: &mut Request,
) -> Result<(), DataError> {
    let named = || format!("`{key}`");
    let count = |s: &mut Scanner<'_>| -> Result<Option<usize>, DataError> {
        if s.null() {
            return Ok(None);
        }
        let at = s.clone();
        let n = s.u64(&named())?;
        usize::try_from(n).map(Some).map_err(|_| at.error(format!("{} is too large", named()), ""))
    };
    match key {
        "vector" => {
            text::array(s, 0, dim, &mut request.vectors)?;
            request.queries = 1;
        }
        "vectors" => {
            s.expect(b'[', "an array of vectors")?;
            if !s.take(b']') {
                loop {
                    text::array(s, request.queries, dim, &mut request.vectors)?;
                    request.queries += 1;
                    if !s.more(b']')? {
                        break;
                    }
                }
            }
        }
        "id" => {
            request.by_id.push(s.u64("`id`")?);
            request.queries = 1;
        }
        "ids" => {
            s.expect(b'[', "an array of ids")?;
            if !s.take(b']') {
                loop {
                    request.by_id.push(s.u64("an id")?);
                    if !s.more(b']')? {
                        break;
                    }
                }
            }
            request.queries = request.by_id.len();
        }
        "k" => request.k = count(s)?,
        "ef" => request.ef = count(s)?,
        "timeout_ms" => request.timeout_ms = count(s)?.map(|n| n as u64),
        "exact" => request.exact = if s.null() { None } else { Some(s.bool("`exact`")?) },
        "filter" => {
            request.filter = match s.peek() {
                Some(b'{') => Some(String::from_utf8_lossy(s.skip()?).into_owned()),
                _ if s.null() => None,
                _ => Some(s.string()?.into_owned()),
            };
        }
        _ => request.fields = fields(s)?,
    }
    Ok(())
}

fn fields(s: &mut Scanner<'_>) -> Result<Option<Vec<String>>, DataError> {
    match s.peek() {
        Some(b'"') => Ok(Some(vec![s.string()?.into_owned()])),
        Some(b'[') => {
            s.expect(b'[', "`[`")?;
            let mut names = Vec::new();
            if s.take(b']') {
                return Ok(None);
            }
            loop {
                names.push(s.string()?.into_owned());
                if !s.more(b']')? {
                    return Ok(Some(names));
                }
            }
        }
        _ if s.null() => Ok(None),
        _ => Ok(s.bool("`fields`: a list of names, or it")?.then(Vec::new)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::npy::{Dtype, write_header};
    use super::*;
    use proptest::prelude::*;

    fn vectors(bytes: &[u8], dim: usize) -> (usize, Vec<f32>) {
        let r = parse(bytes, dim).unwrap();
        (r.queries, r.vectors)
    }

    fn raw(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn npy(values: &[f32], shape: &[usize]) -> Vec<u8> {
        let mut out = write_header(Dtype::F32, shape);
        out.extend(raw(values));
        out
    }

    #[test]
    fn every_form_says_the_same() {
        let want = (2, vec![0.5, -1.0, 2.0, 3.0]);
        let forms: [&[u8]; 7] = [
            b"0.5,-1\n2,3\n",
            b"0.5 -1\n2 3",
            b"[[0.5,-1],[2,3]]",
            b"[0.5,-1]\n[2,3]\n",
            b"{\"vectors\":[[0.5,-1],[2,3]]}",
            &raw(&want.1),
            &npy(&want.1, &[2, 2]),
        ];
        for bytes in forms {
            assert_eq!(vectors(bytes, 2), want, "{bytes:?}");
        }
        assert_eq!(vectors(&npy(&[1.0, 2.0], &[2]), 2), (1, vec![1.0, 2.0]));
    }

    #[test]
    fn raw_numbers_that_begin_like_text_are_raw() {
        for first in [b'{', b'[', b'1', b' ', 0x93] {
            let mut bytes = raw(&[0.1, 0.2, 0.3, 0.4]);
            bytes[0] = first;
            assert_eq!(form(&bytes), Some(Form::Raw), "{first}");
            assert_eq!(parse(&bytes, 4).unwrap().queries, 1);
        }
        assert_eq!(form(&raw(&[0.0; 3])), Some(Form::Raw));
        // Four bytes of digits are text even where they could be one float32.
        assert_eq!(vectors(b"1.5\n", 1), (1, vec![1.5]));
    }

    #[test]
    fn an_object_sets_everything() {
        let text = r#" {"vector":[1,2],"k":5,"ef":200,"filter":"genre = 'x'","exact":true,
            "fields":["a","b"],"timeout_ms":50} "#;
        assert_eq!(
            parse(text.as_bytes(), 2).unwrap(),
            Request {
                vectors: vec![1.0, 2.0],
                queries: 1,
                by_id: vec![],
                k: Some(5),
                ef: Some(200),
                filter: Some("genre = 'x'".into()),
                exact: Some(true),
                fields: Some(vec!["a".into(), "b".into()]),
                timeout_ms: Some(50),
            }
        );
        let by_id = parse(b"{\"id\":18446744073709551615,\"k\":null,\"filter\":null}", 2).unwrap();
        assert_eq!((by_id.queries, by_id.by_id, by_id.k), (1, vec![u64::MAX], None));
        assert_eq!(parse(b"{\"ids\":[3,1]}", 2).unwrap().by_id, [3, 1]);
        let filter =
            parse(b"{\"id\":1,\"filter\":{\"eq\": {\"field\":3,\"value\":\"\xc3\xa9\"}}}", 2).unwrap().filter;
        assert_eq!(filter.as_deref(), Some("{\"eq\": {\"field\":3,\"value\":\"\u{e9}\"}}"));
        for (text, want) in [
            ("true", Some(vec![])),
            ("false", None),
            ("null", None),
            ("[]", None),
            ("\"a\"", Some(vec!["a".to_owned()])),
        ] {
            assert_eq!(
                parse(format!("{{\"id\":1,\"fields\":{text}}}").as_bytes(), 2).unwrap().fields,
                want,
                "{text}"
            );
        }
    }

    #[test]
    fn mistakes_are_named() {
        let cases: [(&[u8], &str); 20] = [
            (b"", "the request is empty; write 2 numbers, a JSON object, a .npy array or raw float32"),
            (b"\n", "no numbers; give 2 numbers"),
            (b"1,2,3\n", "line 1, column 1: 3 numbers where the store's dimension is 2"),
            (b"1,nan\n", "line 1, column 3: component 1, nan is not a finite"),
            (b"{}", "the request says nothing to look for; a request has vector"),
            (b"{\"vectors\":[]}", "the request is empty"),
            (b"{\"ids\":[]}", "the request is empty"),
            (b"{\"vector\":[1,2],\"id\":3}", "the request says twice what to look for"),
            (b"{\"vector\":[1]}", "line 1, column 11: 1 number where the store's dimension is 2"),
            (b"{\"vector\":[1,1e99]}", "row 0, component 1: inf is not a finite"),
            (b"{\"vector\":[1,2],\"K\":3}", "line 1, column 17: unknown key `K`; a request has vector"),
            (b"{\"vector\":[1,2],\"k\":-3}", "line 1, column 21: `k` must be an integer from 0 to"),
            (b"{\"vector\":[1,2],\"k\":1.5}", "line 1, column 21: `k` must be an integer from 0 to"),
            (
                b"{\"vector\":[1,2],\"exact\":1}",
                "line 1, column 25: `exact` must be true or false, found `1}`",
            ),
            (b"{\"vector\":[1,2],\"k\":1,\"k\":2}", "line 1, column 23: the key `k` a second time"),
            (b"{\"vector\":[1,2]", "line 1, column 16: expected `,` or `}`, found the end"),
            (b"{\"vector\":[1,2]}{", "line 1, column 17: `{` after the end of the value"),
            (b"\x93NUM", "the file ends inside the NumPy header"),
            (
                b"\x01\x02\x03",
                "3 bytes are not text, and not float32 vectors of dimension 2 either; a raw request has 8",
            ),
            (b"\x00\x00\xc0\x7f\x00\x00\x00\x00", "row 0, component 0: NaN is not a finite"),
        ];
        for (bytes, want) in cases {
            let e = parse(bytes, 2).unwrap_err().to_string();
            let e = e.strip_prefix("byte 4: ").unwrap_or(&e);
            assert!(e.starts_with(want), "{:?}\n got {e}\nwant {want}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(parse(&npy(&[1.0], &[1, 1]), 2).unwrap_err().kind, Kind::Dimension { got: 1, want: 2 });
        assert_eq!(parse(&npy(&[], &[0, 2]), 2).unwrap_err().kind, Kind::Empty);
        assert_eq!(parse(&vec![b'1'; MAX_REQUEST + 1], 2).unwrap_err().kind, Kind::TooLarge);
    }

    #[test]
    fn completeness_of_every_form() {
        use Completeness::{Complete, Incomplete};
        let cases: [(&[u8], Completeness); 17] = [
            (b"", Incomplete),
            (b"\n", Incomplete),
            (b"1,2", Incomplete),
            (b"1,2\n", Complete),
            (b"1,2\n3", Incomplete),
            (b"nonsense\n", Complete),
            (b"[1,2", Incomplete),
            (b"[1,2]", Complete),
            (b"[[1,2],", Incomplete),
            (b"[[1,2]", Incomplete),
            (b"{\"filter\":\"}", Incomplete),
            (b"{\"vector\":[1,2]}", Complete),
            (b"{\"vector\":[1,2]}\n\n", Complete),
            (b"\x93NUMP", Incomplete),
            (b"\x00\x00\x80\x3f", Incomplete),
            (b"\x00\x00\x80\x3f\x00\x00\x80\x3f", Complete),
            (b"\x00\x00\x80\x3f\x00\x00\x80\x3f\x00", Incomplete),
        ];
        for (bytes, want) in cases {
            assert_eq!(completeness(bytes, 2), want, "{:?}", String::from_utf8_lossy(bytes));
        }
        let whole = npy(&[1.0, 2.0], &[2]);
        for n in 0..whole.len() {
            assert_eq!(completeness(&whole[..n], 2), Incomplete, "{n}");
        }
        assert_eq!(completeness(&whole, 2), Complete);
        let wrong = |bytes: &[u8]| matches!(completeness(bytes, 2), Completeness::Wrong(_));
        assert!(wrong(&[whole, vec![0]].concat()));
        assert!(wrong(b"[1,2]]"));
        assert!(wrong(b"\x93NUMPY\x07\x00"));
        assert!(wrong(&write_header(Dtype::F32, &[1 << 30, 2])));
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300), dim in 1usize..9) {
            let complete = completeness(&bytes, dim);
            if let Ok(request) = parse(&bytes, dim) {
                prop_assert!(!matches!(complete, Completeness::Wrong(_)));
                prop_assert!(request.vectors.iter().all(|v| v.is_finite()));
                prop_assert_eq!(request.vectors.len(), if request.by_id.is_empty() { request.queries * dim } else { 0 });
            }
        }

        #[test]
        fn any_texty_bytes_end_in_an_answer(text in "[0-9eE,. \\[\\]{}:\"vectoridsk+-]{0,120}", dim in 1usize..5) {
            let _ = completeness(text.as_bytes(), dim);
            let _ = parse(text.as_bytes(), dim);
        }

        #[test]
        fn raw_vectors_come_back(values in prop::collection::vec(-1e30f32..1e30, 8..64)) {
            let dim = values.len();
            let bytes = raw(&values);
            prop_assert_eq!(completeness(&bytes, dim), Completeness::Complete);
            prop_assert_eq!(parse(&bytes, dim).unwrap().vectors, values);
        }
    }
}
