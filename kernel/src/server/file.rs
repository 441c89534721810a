//! `GET /file`: the file of one commit, whole or in part.

use super::head::Head;
use super::reply::{Body, Refusal, Reply};
use rvf_cow::View;
use std::ops::Range;
use std::time::UNIX_EPOCH;

const TYPE: &str = "application/octet-stream";

/// Names one state of the file: a commit changes its length or its time.
pub(super) fn etag(view: &View) -> String {
    let time = view.modified().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos());
    format!("\"{:x}-{:x}-{time:x}\"", view.epoch(), view.file_len())
}

/// Answers with the bytes of a state.
pub(super) fn reply(view: &View, head: &Head) -> Result<Reply, Refusal> {
    view.check_whole()?;
    let etag = etag(view);
    if head.if_match.as_ref().is_some_and(|list| !names(list, &etag)) {
        return Err(Refusal::new(412, "the file has changed; its ETag is another one now"));
    }
    let bytes = view.bytes();
    let finish = |reply: Reply| {
        Ok(reply
            .with("ETag", &etag)
            .with("Accept-Ranges", "bytes")
            .with("Cache-Control", "no-cache")
            .with("Content-Disposition", "attachment; filename=\"store.rvf\""))
    };
    if head.if_none_match.as_ref().is_some_and(|list| names(list, &etag)) {
        return finish(Reply::new(304, TYPE, Body::Static(&[])));
    }
    let len = bytes.len();
    // A range of another state than the client has the rest of would be spliced into it.
    let range = head.range.as_deref().filter(|_| head.if_range.as_ref().is_none_or(|tag| *tag == etag));
    let part = |range: Range<usize>| Body::File(bytes.clone(), range);
    match range.map(|text| ranges(text, len as u64)) {
        None | Some(Asked::Ignored) => finish(Reply::new(200, TYPE, part(0..len))),
        Some(Asked::Part(range)) => {
            let shown = format!("bytes {}-{}/{len}", range.start, range.end - 1);
            let range = range.start as usize..range.end as usize;
            finish(Reply::new(206, TYPE, part(range)).with("Content-Range", &shown))
        }
        Some(Asked::Outside) => {
            let refusal = Refusal::new(416, format!("the range begins past the end of {len} bytes"));
            finish(Reply::refusal(&refusal).with("Content-Range", &format!("bytes */{len}")))
        }
    }
}

/// Whether a list of tags names this one. Weak ones never do: ranges need the very bytes.
fn names(list: &str, etag: &str) -> bool {
    list.trim() == "*" || list.split(',').any(|tag| tag.trim() == etag)
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Part(Range<u64>),
    /// Nothing of it is there.
    Outside,
    /// Not a range, or several: the whole file answers that, as RFC 9110 allows.
    Ignored,
}

fn ranges(text: &str, len: u64) -> Asked {
    let Some((unit, spec)) = text.split_once('=') else { return Asked::Ignored };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Asked::Ignored;
    }
    let Some((from, to)) = spec.trim().split_once('-') else { return Asked::Ignored };
    let number = |text: &str| -> Option<Option<u64>> {
        match text {
            "" => Some(None),
            // A number beyond 64 bits is past every end.
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(Some(digits.parse().unwrap_or(u64::MAX)))
            }
            _ => None,
        }
    };
    match (number(from), number(to)) {
        (Some(None), Some(Some(0))) => Asked::Outside,
        (Some(None), Some(Some(_))) if len == 0 => Asked::Outside,
        (Some(None), Some(Some(last))) => Asked::Part(len.saturating_sub(last)..len),
        (Some(Some(from)), Some(to)) => match to {
            Some(to) if to < from => Asked::Ignored,
            _ if from >= len => Asked::Outside,
            to => Asked::Part(from..to.map_or(len, |to| to.saturating_add(1).min(len))),
        },
        _ => Asked::Ignored,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_standard() {
        for (text, want) in [
            ("bytes=0-0", Asked::Part(0..1)),
            ("bytes=0-99", Asked::Part(0..100)),
            ("bytes=0-100", Asked::Part(0..100)),
            ("bytes=90-", Asked::Part(90..100)),
            ("bytes=-10", Asked::Part(90..100)),
            ("bytes=-1000", Asked::Part(0..100)),
            ("Bytes = 5-6", Asked::Part(5..7)),
            ("bytes=99-18446744073709551615", Asked::Part(99..100)),
            ("bytes=99-99999999999999999999999", Asked::Part(99..100)),
            ("bytes=100-", Asked::Outside),
            ("bytes=99999999999999999999999-", Asked::Outside),
            ("bytes=-0", Asked::Outside),
            ("bytes=5-4", Asked::Ignored),
            ("bytes=-", Asked::Ignored),
            ("bytes=a-b", Asked::Ignored),
            ("bytes=+1-2", Asked::Ignored),
            ("bytes=0-1,5-6", Asked::Ignored),
            ("lines=0-1", Asked::Ignored),
            ("", Asked::Ignored),
        ] {
            assert_eq!(ranges(text, 100), want, "{text}");
        }
        assert_eq!(ranges("bytes=0-", 0), Asked::Outside);
        assert_eq!(ranges("bytes=-5", 0), Asked::Outside);
    }

    #[test]
    fn tags_are_compared_as_wholes() {
        assert!(names("\"a\", \"b\"", "\"b\""));
        assert!(names("*", "\"b\""));
        assert!(!names("W/\"b\"", "\"b\""));
        assert!(!names("\"ab\"", "\"b\""));
    }
}
