//! The `events` file: what happened, a JSON object a line, appended, so that `tail -f` follows it.
//!
//! Kept in memory for the life of the mount. When it grows over [`LIMIT_BYTES`] its older half goes; `tail -f` then
//! says that the file was truncated and goes on.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};

use crate::json;

/// Most bytes of events kept.
pub const LIMIT_BYTES: usize = 4 << 20;

/// The log of one store.
#[derive(Debug, Default)]
pub struct Events {
    inner: RwLock<Inner>,
    /// Rung with every line.
    pub bell: Bell,
}

type Waker = Box<dyn FnOnce() + Send>;

/// Pollers that wait for something to happen.
#[derive(Default)]
pub struct Bell {
    waiting: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

impl std::fmt::Debug for Bell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bell").finish_non_exhaustive()
    }
}

/// Most pollers remembered at a time; the oldest is woken early.
const MAX_WAKERS: usize = 4096;

impl Bell {
    /// Calls `waker` at the next ring.
    pub fn wait(&self, waker: Waker) {
        let mut wakers = self.wakers.lock();
        let early = (wakers.len() >= MAX_WAKERS).then(|| wakers.swap_remove(0));
        wakers.push(waker);
        self.waiting.store(true, Ordering::Release);
        drop(wakers);
        if let Some(early) = early {
            early();
        }
    }

    /// Wakes everybody who waits. Costs a load when nobody does.
    pub fn ring(&self) {
        if self.waiting.load(Ordering::Acquire) && self.waiting.swap(false, Ordering::AcqRel) {
            let wakers = std::mem::take(&mut *self.wakers.lock());
            for waker in wakers {
                waker();
            }
        }
    }
}

#[derive(Debug)]
struct Inner {
    text: Vec<u8>,
    seq: u64,
    time: SystemTime,
}

impl Default for Inner {
    fn default() -> Self {
        Self { text: Vec::new(), seq: 0, time: SystemTime::now() }
    }
}

impl Events {
    /// Appends a line: sequence number, time (seconds since 1970), kind, epoch, then the details in their order.
    pub fn push(&self, kind: &str, epoch: u32, detail: &[(&str, &str)]) {
        let now = SystemTime::now();
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let mut inner = self.inner.write();
        inner.seq += 1;
        inner.time = now;
        let mut line = String::with_capacity(96);
        let _ = write!(line, "{{\"seq\": {}, \"time\": {seconds:.3}, \"event\": ", inner.seq);
        json::string(&mut line, kind);
        let _ = write!(line, ", \"epoch\": {epoch}");
        for (key, value) in detail {
            line.push_str(", ");
            json::string(&mut line, key);
            line.push_str(": ");
            if json::is_number(value) {
                line.push_str(value);
            } else {
                json::string(&mut line, value);
            }
        }
        line.push_str("}\n");
        if inner.text.len() + line.len() > LIMIT_BYTES {
            let half = inner.text.len() / 2;
            let cut = inner
                .text
                .iter()
                .skip(half)
                .position(|byte| *byte == b'\n')
                .map_or(inner.text.len(), |at| half + at + 1);
            inner.text.drain(..cut);
        }
        inner.text.extend_from_slice(line.as_bytes());
        drop(inner);
        self.bell.ring();
    }

    /// Bytes now, and when the last line came.
    #[must_use]
    pub fn size(&self) -> (u64, SystemTime) {
        let inner = self.inner.read();
        (inner.text.len() as u64, inner.time)
    }

    /// How many lines were ever written.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.inner.read().seq
    }

    /// Copies up to `size` bytes from `offset` to the end of `out`.
    pub fn read(&self, offset: u64, size: usize, out: &mut Vec<u8>) {
        let inner = self.inner.read();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(inner.text.len());
        let end = start.saturating_add(size).min(inner.text.len());
        out.extend_from_slice(&inner.text[start..end]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_json_and_numbered() {
        let events = Events::default();
        events.push("ingest", 3, &[("name", "a \"b\""), ("accepted", "12")]);
        events.push("delete", 4, &[]);
        let mut out = Vec::new();
        events.read(0, usize::MAX, &mut out);
        let text = String::from_utf8(out).expect("UTF-8");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["seq"], 1);
        assert_eq!(lines[0]["event"], "ingest");
        assert_eq!(lines[0]["name"], "a \"b\"");
        assert_eq!(lines[0]["accepted"].to_string(), "12");
        assert_eq!(lines[1]["epoch"].to_string(), "4");
        assert_eq!(events.seq(), 2);
        assert_eq!(events.size().0, text.len() as u64);
    }

    #[test]
    fn the_log_is_bounded_and_stays_whole_lines() {
        let events = Events::default();
        let long = "x".repeat(5000);
        for _ in 0..2000 {
            events.push("ingest", 1, &[("name", &long)]);
        }
        let mut out = Vec::new();
        events.read(0, usize::MAX, &mut out);
        assert!(out.len() <= LIMIT_BYTES);
        let text = String::from_utf8(out).expect("UTF-8");
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
        assert!(text.lines().last().is_some_and(|line| line.contains("\"seq\": 2000")));
    }

    #[test]
    fn reading_past_the_end_gives_nothing() {
        let events = Events::default();
        let mut out = Vec::new();
        events.read(u64::MAX, 10, &mut out);
        assert!(out.is_empty());
    }
}
