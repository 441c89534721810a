//! What is served: endpoints, the state they answer from, and how many may work at once.

use super::budget::{Budget, Taken};
use super::file;
use super::head::{Head, Method};
use super::reply::{Body, JSON, Refusal, Reply};
use super::{Options, Page};
use rvf_cow::query::status::Around;
use rvf_cow::query::{DEFAULT_K, answer, request, status};
use rvf_cow::{Access, SearchRequest, Store, View};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Results of all queries of one request together, at most.
const MAX_HITS: u64 = 1 << 21;
/// How long a query waits for its turn.
const TURN_TIME: Duration = Duration::from_secs(30);

/// One store as it is served.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) options: Options,
    pub(super) bodies: Budget,
    answers: Budget,
    store: Arc<Store>,
    turns: Turns,
}

impl Api {
    pub(super) fn new(store: Arc<Store>, options: Options) -> Self {
        let turns = Turns { free: Mutex::new(options.threads.max(1)), freed: Condvar::new() };
        let (bodies, answers) = (Budget::new(options.body_budget), Budget::new(options.answer_budget));
        Self { bodies, answers, turns, options, store }
    }

    /// Checks the file against its checksums. What fails is left out of answers from then on.
    pub(super) fn verify(&self) {
        if let Err(error) = self.store.verify_vectors() {
            tracing::warn!("cannot verify {}: {error}", self.store.path().display());
        }
    }

    /// The newest state; also what another program committed meanwhile.
    fn view(&self) -> Arc<View> {
        if self.store.is_behind() {
            // A file that cannot be read any more leaves the old state, which says so itself.
            if let Err(error) = self.store.refresh() {
                tracing::warn!("cannot refresh {}: {error}", self.store.path().display());
            }
        }
        self.store.view()
    }

    /// Answers a request.
    pub(super) fn answer(&self, head: &Head, body: &[u8]) -> Result<Reply, Refusal> {
        let reads = matches!(head.method, Method::Get | Method::Head);
        match (head.path.as_str(), head.method) {
            ("/query", Method::Post) => self.query(head, body),
            ("/query", _) => Err(Refusal::new(405, "queries are sent with POST")),
            ("/status", _) if reads => {
                let around = Around {
                    index_build: "none".into(),
                    read_only: self.store.access() == Access::ReadOnly,
                    busy: String::new(),
                };
                Ok(Reply::json(200, status::json(&self.view(), self.store.path(), &around)))
            }
            ("/health", _) if reads => Ok(match self.view().lost() {
                None => Reply::json(200, b"{\"status\": \"ok\"}\n".to_vec()),
                Some(why) => Reply::refusal(&Refusal::new(503, why)),
            }),
            ("/file", _) if reads => file::reply(&self.view(), head),
            (path, _) if reads => match self.page(path) {
                Some(page) => Ok(Reply::new(200, page.content_type, Body::Static(page.body))
                    .policy(page.policy)
                    .with("Cache-Control", "no-cache")),
                None => Err(Refusal::new(404, "there is POST /query, and GET /status, /health and /file")),
            },
            _ => Err(Refusal::new(405, "only GET and HEAD are answered here, and POST at /query")),
        }
        .or_else(|refusal| match refusal.status {
            405 => {
                let allowed = if head.path == "/query" { "POST" } else { "GET, HEAD" };
                Ok(Reply::refusal(&refusal).with("Allow", allowed))
            }
            _ => Err(refusal),
        })
    }

    fn page(&self, path: &str) -> Option<&Page> {
        self.options.pages.iter().find(|page| page.path == path)
    }

    fn query(&self, head: &Head, body: &[u8]) -> Result<Reply, Refusal> {
        let view = self.view();
        let mut asked = request::parse(body, view.dimension())?;
        let k = asked.k.unwrap_or(DEFAULT_K);
        let hits = (asked.queries as u64).saturating_mul(view.resolved().len().min(k as u64));
        if hits > MAX_HITS {
            return Err(Refusal::new(
                413,
                format!(
                    "{} queries of {k} results each; at most {MAX_HITS} results are given in one answer",
                    asked.queries
                ),
            ));
        }
        answer::look_up(&view, &mut asked)?;
        let longest = self.options.query_time;
        let time = asked.timeout_ms.map_or(longest, |asked| longest.min(Duration::from_millis(asked)));
        let deadline = Instant::now().checked_add(time);
        let _turn = self.turns.take(deadline)?;
        let answers = view.search(&SearchRequest {
            queries: &asked.vectors,
            k,
            ef: asked.ef,
            filter: asked.filter.as_deref().filter(|text| !text.trim().is_empty()),
            exact: asked.exact.unwrap_or(false),
            deadline,
            threads: self.options.threads.max(1),
        })?;
        let mut out = Vec::new();
        let mut room = Room { taken: self.answers.take(0).ok_or_else(full)?, most: self.options.max_answer };
        if head.accept.as_deref().is_some_and(wants_text) {
            answer::text_while(&answers, |out| room.check(out), &mut out)?;
            return Ok(Reply::new(200, "text/plain; charset=utf-8", Body::Bytes(out)).holding(room.taken));
        }
        let fields = |id, out: &Vec<u8>| {
            room.check(out)?;
            Ok(asked.fields.as_deref().map(|wanted| answer::shown_fields(&view, id, wanted)))
        };
        answer::json_while::<Refusal>(&answers, fields, &mut out)?;
        room.check(&out)?;
        view.check_intact()?;
        Ok(Reply::new(200, JSON, Body::Bytes(out)).holding(room.taken))
    }
}

/// Where an answer is put together.
struct Room {
    taken: Taken,
    most: u64,
}

impl Room {
    /// Makes room for what is there, and fails when that is too much.
    fn check(&mut self, out: &Vec<u8>) -> Result<(), Refusal> {
        if out.len() as u64 > self.most {
            return Err(Refusal::new(
                413,
                format!("the answer has more than {} bytes; ask for fewer results or fields", self.most),
            ));
        }
        if self.taken.grow(out.capacity() as u64) { Ok(()) } else { Err(full()) }
    }
}

fn full() -> Refusal {
    Refusal::new(503, "too many large answers at the same time; try again")
}

/// Whether plain text is the first thing that a client names.
fn wants_text(accept: &str) -> bool {
    let first = accept.split(',').next().unwrap_or_default();
    first.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/plain")
}

/// As many searches at once as there are processors: more would take longer, each and in all.
#[derive(Debug)]
struct Turns {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Turns {
    fn take(&self, deadline: Option<Instant>) -> Result<Turn<'_>, Refusal> {
        let latest = Instant::now() + TURN_TIME;
        let until = deadline.map_or(latest, |deadline| deadline.min(latest));
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            else {
                return Err(Refusal::new(503, "the server is busy with other queries; try again"));
            };
            free = match self.freed.wait_timeout(free, left) {
                Ok((free, _)) => free,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        *free -= 1;
        Ok(Turn(self))
    }
}

struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}
