//! `query/`: sessions with their defaults, requests, and the results of the last finished one.
//!
//! A finished request is one immutable [`Outcome`]; `out`, `out.json` and the arrays are views of the same one, so
//! readers never see parts of two. The last to finish wins.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use parking_lot::RwLock;
use rvf_cow::query::answer;
use rvf_cow::{Answer, SearchRequest};

use crate::data::request::{self, Request};
use crate::errno::Error;
use crate::events::Bell;
use crate::node::{QueryFile, SessionId, Setting};
use crate::snapshot::Snap;

/// Neighbours when neither request nor session says how many.
pub use rvf_cow::query::DEFAULT_K;
/// Most private sessions of one store.
pub const MAX_SESSIONS: usize = 10_000;
/// A single query that has to look at more bytes than this runs on a worker, not on the thread that received it.
const INLINE_SCAN_BYTES: u64 = 4 << 20;

/// What a session assumes where a request says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    /// Neighbours; `None` is [`DEFAULT_K`].
    pub k: Option<usize>,
    /// Width of the walk; `None` leaves it to the index.
    pub ef: Option<usize>,
    /// Metadata condition.
    pub filter: Option<Arc<str>>,
    /// Exhaustive search.
    pub exact: bool,
    /// Deadline.
    pub timeout_ms: Option<u64>,
}

impl Defaults {
    /// The file of one default: its value and a newline; empty when there is none.
    #[must_use]
    pub fn show(&self, setting: Setting) -> String {
        let number = |value: Option<u64>| value.map(|value| format!("{value}\n")).unwrap_or_default();
        match setting {
            Setting::K => format!("{}\n", self.k.unwrap_or(DEFAULT_K)),
            Setting::Ef => number(self.ef.map(|ef| ef as u64)),
            Setting::Filter => self.filter.as_ref().map(|filter| format!("{filter}\n")).unwrap_or_default(),
            Setting::Exact => format!("{}\n", u8::from(self.exact)),
            Setting::TimeoutMs => number(self.timeout_ms),
        }
    }

    /// Takes a value as written; nothing but blanks goes back to the program's own default.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the values that would do.
    pub fn set(&mut self, setting: Setting, written: &[u8]) -> Result<(), Error> {
        let text =
            std::str::from_utf8(written).map_err(|_| Error::invalid("the value is not UTF-8 text"))?.trim();
        let number = |name: &str, least: u64| -> Result<Option<u64>, Error> {
            if text.is_empty() {
                return Ok(None);
            }
            let value = text.parse::<u64>().ok().filter(|value| *value >= least);
            value.map(Some).ok_or_else(|| {
                Error::invalid(format!(
                    "{name} is a whole number of at least {least}, or empty for the default, not '{}'",
                    short(text)
                ))
            })
        };
        let size = |value: Option<u64>| value.map(|value| usize::try_from(value).unwrap_or(usize::MAX));
        match setting {
            Setting::K => self.k = size(number("k", 1)?),
            Setting::Ef => self.ef = size(number("ef", 1)?),
            Setting::TimeoutMs => self.timeout_ms = number("timeout_ms", 1)?,
            Setting::Filter => {
                if !text.is_empty() {
                    rvf_index::filter::parse(text)
                        .map_err(|error| Error::invalid(format!("filter: {error}")))?;
                }
                self.filter = (!text.is_empty()).then(|| text.into());
            }
            Setting::Exact => {
                self.exact = match text {
                    "1" | "true" | "yes" | "on" => true,
                    "" | "0" | "false" | "no" | "off" => false,
                    _ => return Err(Error::invalid(format!("exact is 0 or 1, not '{}'", short(text)))),
                }
            }
        }
        Ok(())
    }
}

fn short(text: &str) -> String {
    text.chars().take(40).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// One session: `query/` itself, or a directory in it.
#[derive(Debug)]
pub struct Session {
    /// Its number.
    pub id: SessionId,
    /// Its directory's name; empty for `query/`.
    pub name: String,
    /// When it was made.
    pub since: SystemTime,
    defaults: RwLock<(Defaults, SystemTime)>,
    outcome: ArcSwapOption<Outcome>,
    error: RwLock<(String, SystemTime)>,
    finished: AtomicU64,
    asked: AtomicBool,
    /// Rung with every result.
    pub bell: Bell,
}

impl Session {
    fn new(id: SessionId, name: String) -> Self {
        let now = SystemTime::now();
        Self {
            id,
            name,
            since: now,
            defaults: RwLock::new((Defaults::default(), now)),
            outcome: ArcSwapOption::empty(),
            error: RwLock::new((String::new(), now)),
            finished: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            bell: Bell::default(),
        }
    }

    /// The defaults now, and when they were set.
    #[must_use]
    pub fn defaults(&self) -> (Defaults, SystemTime) {
        self.defaults.read().clone()
    }

    /// Sets one default.
    ///
    /// # Errors
    /// As [`Defaults::set`]; the session's `error` says why.
    pub fn set(&self, setting: Setting, written: &[u8]) -> Result<(), Error> {
        let mut defaults = self.defaults.read().0.clone();
        let result = defaults.set(setting, written);
        match &result {
            Ok(()) => *self.defaults.write() = (defaults, SystemTime::now()),
            Err(error) => self.failed(error),
        }
        result
    }

    /// The last finished request's results.
    #[must_use]
    pub fn outcome(&self) -> Option<Arc<Outcome>> {
        self.outcome.load_full()
    }

    /// Makes these the last results.
    pub fn publish(&self, outcome: Arc<Outcome>) {
        self.outcome.store(Some(outcome));
        self.succeeded();
        self.finished.fetch_add(1, Ordering::Release);
        self.bell.ring();
    }

    /// How many requests were published; pollers watch it.
    #[must_use]
    pub fn finished(&self) -> u64 {
        self.finished.load(Ordering::Acquire)
    }

    /// Whether the kernel asks for `security.capability` whenever it truncates `in`, which is a message before every
    /// request of a shell. It remembers that there is none (`S_NOSEC`) only when a write goes through its page cache,
    /// until it is given new attributes of the file. So after it asked, the next descriptor that truncates and cannot
    /// read is opened that way. All others bypass the cache: while one through it is open, the transactions of other
    /// processes wait for each other at the inode's lock.
    #[must_use]
    pub fn asked_about_privileges(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// The kernel asked for `security.capability`, or has remembered the answer.
    pub fn knows_privileges(&self, knows: bool) {
        self.asked.store(!knows, Ordering::Relaxed);
    }

    /// The last request was fine: `error` is empty.
    pub fn succeeded(&self) {
        if !self.error.read().0.is_empty() {
            *self.error.write() = (String::new(), SystemTime::now());
        }
    }

    /// The last request of everybody's was refused, and why. It is the last one now: results of an earlier one must not
    /// pass for its own with a reader that did not look at what close() said.
    pub fn refused(&self, error: &Error) {
        self.failed(error);
        self.outcome.store(None);
        self.finished.fetch_add(1, Ordering::Release);
        self.bell.ring();
    }

    /// The last request failed, and why.
    pub fn failed(&self, error: &Error) {
        *self.error.write() = (format!("{error}\n"), SystemTime::now());
    }

    /// The text and time of `error`.
    #[must_use]
    pub fn error(&self) -> (String, SystemTime) {
        self.error.read().clone()
    }
}

/// The sessions of a store.
#[derive(Debug)]
pub struct Sessions {
    main: Arc<Session>,
    private: RwLock<BTreeMap<SessionId, Arc<Session>>>,
    next: AtomicU64,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            main: Arc::new(Session::new(SessionId(0), String::new())),
            private: RwLock::new(BTreeMap::new()),
            next: AtomicU64::new(1),
        }
    }
}

impl Sessions {
    /// The session of that number.
    #[must_use]
    pub fn get(&self, id: SessionId) -> Option<Arc<Session>> {
        if id == self.main.id { Some(self.main.clone()) } else { self.private.read().get(&id).cloned() }
    }

    /// The private session of that name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Arc<Session>> {
        self.private.read().values().find(|session| session.name == name).cloned()
    }

    /// All private sessions.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Session>> {
        self.private.read().values().cloned().collect()
    }

    /// Makes a private session.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::TooLarge`] when there are too many.
    pub fn make(&self, name: &str) -> Result<Arc<Session>, Error> {
        if QueryFile::ALL.iter().any(|(_, file)| *file == name) || self.named(name).is_some() {
            return Err(Error::Exists { what: format!("query/{name} exists") });
        }
        let mut private = self.private.write();
        if private.len() >= MAX_SESSIONS {
            return Err(Error::TooLarge {
                what: format!("{MAX_SESSIONS} sessions exist already; remove some (rmdir query/NAME)"),
            });
        }
        let id = SessionId(self.next.fetch_add(1, Ordering::Relaxed));
        let session = Arc::new(Session::new(id, name.to_owned()));
        private.insert(id, session.clone());
        Ok(session)
    }

    /// Removes a private session.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let session = self.named(name).ok_or(Error::NotFound)?;
        self.private.write().remove(&session.id);
        Ok(())
    }
}

/// A request ready to run: parsed, with the session's defaults filled in.
#[derive(Debug)]
pub struct Work {
    snap: Arc<Snap>,
    request: Request,
    defaults: Defaults,
}

impl Work {
    /// Parses a request for the current state.
    ///
    /// # Errors
    /// Whatever is wrong with the request; ids of vectors that are not there.
    pub fn prepare(snap: Arc<Snap>, bytes: &[u8], defaults: Defaults) -> Result<Self, Error> {
        let dim = snap.view.dimension();
        let mut request = request::parse(bytes, dim)?;
        answer::look_up(&snap.view, &mut request).map_err(|error| match error {
            rvf_cow::Error::NoSuchId { id } => Error::invalid(format!("there is no vector with id {id}")),
            error => error.into(),
        })?;
        Ok(Self { snap, request, defaults })
    }

    fn filter(&self) -> Option<&str> {
        let text = match &self.request.filter {
            Some(text) => text.as_str(),
            None => self.defaults.filter.as_deref().unwrap_or(""),
        };
        (!text.trim().is_empty()).then_some(text)
    }

    fn exact(&self) -> bool {
        self.request.exact.unwrap_or(self.defaults.exact)
    }

    /// Whether it may keep a thread busy for longer than a moment.
    #[must_use]
    pub fn is_heavy(&self) -> bool {
        self.request.queries > 1 || self.filter().is_some() || scans_much(&self.snap, self.exact())
    }

    /// Runs it. `threads` are used for several queries.
    ///
    /// # Errors
    /// What the store refuses.
    pub fn run(self, threads: usize) -> Result<Outcome, Error> {
        let timeout = self.request.timeout_ms.or(self.defaults.timeout_ms);
        let answers = self.snap.view.search(&SearchRequest {
            queries: &self.request.vectors,
            k: self.request.k.or(self.defaults.k).unwrap_or(DEFAULT_K),
            ef: self.request.ef.or(self.defaults.ef),
            filter: self.filter(),
            exact: self.exact(),
            deadline: timeout.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms))),
            threads,
        })?;
        if !self.exact() {
            self.snap.queried();
        }
        Ok(Outcome {
            answers,
            snap: self.request.fields.is_some().then_some(self.snap),
            fields: self.request.fields,
            time: SystemTime::now(),
            rendered: Default::default(),
        })
    }
}

/// Whether one query has to look at more than a moment's worth of vectors.
#[must_use]
pub fn scans_much(snap: &Snap, exact: bool) -> bool {
    let scans = exact || snap.view.image().is_none();
    scans && snap.view.resolved().len().saturating_mul(snap.row_len()) > INLINE_SCAN_BYTES
}

/// The results of one request.
#[derive(Debug)]
pub struct Outcome {
    answers: Vec<Answer>,
    /// Where the fields come from, when some were asked for: results stay for long, and must not keep a state of the
    /// file, which a compaction may have replaced, for nothing.
    snap: Option<Arc<Snap>>,
    fields: Option<Vec<String>>,
    /// When it finished.
    pub time: SystemTime,
    rendered: [OnceLock<Arc<[u8]>>; 4],
}

impl Outcome {
    /// `out`, appended to a buffer.
    pub fn write_text(&self, out: &mut Vec<u8>) {
        answer::text(&self.answers, out);
    }

    /// One of the four forms; rendered once.
    #[must_use]
    pub fn form(&self, file: QueryFile) -> Arc<[u8]> {
        let (slot, render): (usize, fn(&Self, &mut Vec<u8>)) = match file {
            QueryFile::OutJson => (1, Self::write_json),
            QueryFile::OutIds => (2, |this, out| answer::ids_npy(&this.answers, out)),
            QueryFile::OutDistances => (3, |this, out| answer::distances_npy(&this.answers, out)),
            _ => (0, Self::write_text),
        };
        let Some(cell) = self.rendered.get(slot) else { return Arc::from([]) };
        cell.get_or_init(|| {
            let mut out = Vec::new();
            render(self, &mut out);
            out.into()
        })
        .clone()
    }

    fn write_json(&self, out: &mut Vec<u8>) {
        let wanted = self.fields.as_deref();
        let fields = |id| Some(answer::shown_fields(&self.snap.as_ref()?.view, id, wanted?));
        answer::json(&self.answers, fields, out);
    }
}

/// What the result files hold before any request finished.
#[must_use]
pub fn nothing_yet(file: QueryFile) -> Arc<[u8]> {
    let mut out = Vec::new();
    match file {
        QueryFile::OutJson => answer::json(&[], |_| None, &mut out),
        QueryFile::OutIds => answer::ids_npy(&[], &mut out),
        QueryFile::OutDistances => answer::distances_npy(&[], &mut out),
        _ => {}
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_take_what_they_show() {
        let mut defaults = Defaults::default();
        assert_eq!(defaults.show(Setting::K), "10\n");
        assert_eq!(defaults.show(Setting::Exact), "0\n");
        for setting in [Setting::Ef, Setting::Filter, Setting::TimeoutMs] {
            assert_eq!(defaults.show(setting), "");
        }
        for (setting, text) in [
            (Setting::K, "25\n"),
            (Setting::Ef, "300\n"),
            (Setting::Exact, "1\n"),
            (Setting::TimeoutMs, "50\n"),
            (Setting::Filter, "year > 2020\n"),
        ] {
            defaults.set(setting, text.as_bytes()).expect("a good value");
            assert_eq!(defaults.show(setting), text);
        }
        defaults.set(Setting::Filter, b"\n").expect("a good value");
        assert_eq!(defaults.filter, None);
    }

    #[test]
    fn defaults_refuse_nonsense_and_stay() {
        let mut defaults = Defaults::default();
        for (setting, text) in [
            (Setting::K, "0"),
            (Setting::K, "-1"),
            (Setting::K, "ten"),
            (Setting::K, "1.5"),
            (Setting::Ef, "99999999999999999999999"),
            (Setting::Exact, "maybe"),
            (Setting::Filter, "year >"),
            (Setting::TimeoutMs, "0"),
        ] {
            assert!(matches!(defaults.set(setting, text.as_bytes()), Err(Error::Invalid { .. })), "{text}");
        }
        assert!(defaults.set(Setting::K, &[0xFF]).is_err());
        assert_eq!(defaults, Defaults::default());
    }

    #[test]
    fn sessions_are_made_and_removed_by_name() {
        let sessions = Sessions::default();
        let one = sessions.make("one").expect("a session");
        assert!(matches!(sessions.make("one"), Err(Error::Exists { .. })));
        assert!(matches!(sessions.make("out.json"), Err(Error::Exists { .. })));
        assert_eq!(sessions.named("one").map(|session| session.id), Some(one.id));
        assert!(sessions.get(SessionId(0)).is_some());
        sessions.remove("one").expect("removed");
        assert!(matches!(sessions.remove("one"), Err(Error::NotFound)));
        assert!(sessions.get(one.id).is_none());
        assert_ne!(sessions.make("one").expect("again").id, one.id, "a new session is a new node");
    }
}
