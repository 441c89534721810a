//! The query ioctl on `query/in`: a request and its answer in one message. `include/rvf_mount.h` is the same in C.
//!
//! The number is `_IOC(_IOC_READ | _IOC_WRITE, 'R', 1, size)`, where `size` is the size of the caller's buffer, at most
//! 16383 bytes. Little-endian, as the machine that runs this.
//!
//! | offset | request | answer |
//! | --- | --- | --- |
//! | 0 | u32 version = 1 | u32 count of hits |
//! | 4 | u32 k, 0 for the session's | u32 flags: 1 exact, 2 truncated by the deadline |
//! | 8 | u32 ef, 0 for the session's | u32 vectors visited |
//! | 12 | u32 dim | u32 microseconds |
//! | 16 | u32 flags: 1 exact | u32 layer: 0 scan, 1 A, 2 B, 3 C |
//! | 20 | u32 0 | u32 0 |
//! | 24 | f32 query\[dim\] | u64 ids\[count\], then f32 distances\[count\] |

use std::sync::Arc;
use std::time::{Duration, Instant};

use rvf_cow::SearchRequest;

use crate::errno::Error;
use crate::handle::Body;
use crate::session::{DEFAULT_K, Defaults, Session, scans_much};
use crate::snapshot::Snap;
use crate::tree::Tree;

/// Bytes before the query, and before the ids.
pub const HEAD: usize = 24;
/// The only version of the request.
pub const VERSION: u32 = 1;
/// The ioctl number for a buffer of this many bytes.
#[must_use]
pub fn number(size: usize) -> u32 {
    (3 << 30) | ((size as u32 & 0x3FFF) << 16) | (u32::from(b'R') << 8) | 1
}

/// Size of the buffer that a request of `dim` numbers and an answer of `k` hits need.
#[must_use]
pub fn buffer_size(dim: usize, k: usize) -> usize {
    HEAD + (4 * dim).max(12 * k)
}

/// A query that came by ioctl, ready to run.
#[derive(Debug)]
struct Question {
    snap: Arc<Snap>,
    session: Arc<Session>,
    defaults: Defaults,
    query: Vec<f32>,
    k: usize,
    ef: Option<usize>,
    exact: bool,
}

impl Tree {
    /// Answers an ioctl on a handle of `query/in`. The answer may come from another thread.
    ///
    /// It is [`Error::NotTty`] for other handles and numbers, [`Error::Invalid`] for wrong requests.
    pub fn ioctl(
        &self,
        fh: u64,
        cmd: u32,
        input: &[u8],
        answer: impl FnOnce(Result<&[u8], Error>) + Send + 'static,
    ) {
        let handle = match self.handles.get(fh) {
            Ok(handle) => handle,
            Err(error) => return answer(Err(error)),
        };
        let (Body::Request(session, ..), Some(dir)) = (&handle.body, &handle.dir) else {
            return answer(Err(Error::NotTty));
        };
        if cmd & !0x3FFF_0000 != number(0) {
            return answer(Err(Error::NotTty));
        }
        match Question::parse(dir.snap(), session, input) {
            Ok(question) if question.is_heavy() => self.pool.run(move || question.settle(answer)),
            Ok(question) if self.is_pressed() => self.queries.run(move || question.settle(answer)),
            Ok(question) => question.settle(answer),
            Err(error) => {
                session.failed(&error);
                answer(Err(error));
            }
        }
    }
}

impl Question {
    fn parse(snap: Arc<Snap>, session: &Arc<Session>, input: &[u8]) -> Result<Self, Error> {
        let word = |at: usize| {
            input
                .get(at..at + 4)
                .and_then(|bytes| bytes.first_chunk::<4>())
                .map(|bytes| u32::from_le_bytes(*bytes))
        };
        let (Some(version), Some(k), Some(ef), Some(dim), Some(flags)) =
            (word(0), word(4), word(8), word(12), word(16))
        else {
            return Err(Error::invalid(format!("the buffer is shorter than its head of {HEAD} bytes")));
        };
        if version != VERSION {
            return Err(Error::invalid(format!("request version {version}; this is version {VERSION}")));
        }
        let want = snap.view.dimension();
        if dim as usize != want {
            return Err(Error::invalid(format!(
                "the query has {dim} numbers, but the store's dimension is {want}"
            )));
        }
        let numbers = input.get(HEAD..HEAD + 4 * want).ok_or_else(|| {
            Error::invalid(format!(
                "the buffer of {} bytes is too small for {dim} numbers; write the query to query/in instead",
                input.len()
            ))
        })?;
        let (defaults, _) = session.defaults();
        let k = if k == 0 { defaults.k.unwrap_or(DEFAULT_K) } else { k as usize };
        let room = input.len().saturating_sub(HEAD) / 12;
        if k > room {
            return Err(Error::invalid(format!(
                "the buffer of {} bytes has room for {room} hits, not for {k}",
                input.len()
            )));
        }
        Ok(Self {
            query: numbers.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            k,
            ef: if ef == 0 { defaults.ef } else { Some(ef as usize) },
            exact: flags & 1 != 0 || defaults.exact,
            snap,
            session: session.clone(),
            defaults,
        })
    }

    fn is_heavy(&self) -> bool {
        self.defaults.filter.is_some() || scans_much(&self.snap, self.exact)
    }

    fn settle(self, answer: impl FnOnce(Result<&[u8], Error>)) {
        match self.run() {
            Ok(bytes) => answer(Ok(&bytes)),
            Err(error) => {
                self.session.failed(&error);
                answer(Err(error));
            }
        }
    }

    fn run(&self) -> Result<Vec<u8>, Error> {
        let answers = self.snap.view.search(&SearchRequest {
            queries: &self.query,
            k: self.k,
            ef: self.ef,
            filter: self.defaults.filter.as_deref(),
            exact: self.exact,
            deadline: self
                .defaults
                .timeout_ms
                .and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms))),
            threads: 1,
        })?;
        if !self.exact {
            self.snap.queried();
        }
        let answer = answers.into_iter().next().ok_or_else(|| Error::invalid("no answer"))?;
        let count = answer.hits.len().min(self.k);
        let layer: u32 = match answer.layer {
            "A" => 1,
            "B" => 2,
            "C" => 3,
            _ => 0,
        };
        let mut out = Vec::with_capacity(HEAD + 12 * count);
        for word in [
            count as u32,
            u32::from(answer.exact) | u32::from(answer.truncated) << 1,
            u32::try_from(answer.visited).unwrap_or(u32::MAX),
            answer.micros as u32,
            layer,
            0,
        ] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for hit in answer.hits.iter().take(count) {
            out.extend_from_slice(&hit.id.to_le_bytes());
        }
        for hit in answer.hits.iter().take(count) {
            out.extend_from_slice(&hit.distance.to_le_bytes());
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_the_one_of_the_header_file() {
        // _IOC(_IOC_READ|_IOC_WRITE, 'R', 1, 1560) on every architecture but a few historic ones.
        assert_eq!(number(1560), 0xC618_5201);
        assert_eq!(buffer_size(384, 10), 1560);
        assert_eq!(buffer_size(2, 10), 144);
    }
}
