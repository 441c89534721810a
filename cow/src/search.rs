//! Answering queries: plan, walk or scan, and put together what each file of a chain has.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rvf_index::exact::{self, Selection};
use rvf_index::{
    Bitmap, Candidate, Elsewhere, Hidden, Hit, Plan, Scratch, Within, default_ef, plan, sort_key,
};

use crate::branch::resolve::Layer;
use crate::error::Error;
use crate::types::{Answer, SearchRequest};
use crate::view::View;

/// Queries in one request, at most.
pub const MAX_QUERIES: usize = 1 << 20;
/// Results of all queries of one request together, at most: a gigabyte of them.
const MAX_HITS: u64 = 1 << 26;
/// A row read in full costs as much as the codes of this many.
const CODES_A_ROW: u64 = 16;

impl View {
    /// Answers every query of a request, in order.
    ///
    /// Distances are those of the format's definition, bit for bit; only which vectors are
    /// considered is approximate, and only when the walk is used. O(ef * m * dim) a query with an
    /// index, O(n * dim) without.
    ///
    /// # Errors
    /// [`Error::Dimension`], [`Error::NotFinite`], [`Error::BadFilter`], [`Error::Timeout`],
    /// [`Error::TooLarge`], [`Error::Damaged`] when the file changed underneath.
    pub fn search(&self, request: &SearchRequest<'_>) -> Result<Vec<Answer>, Error> {
        let dim = self.dimension();
        let queries = self.split_queries(request.queries)?;
        self.complete()?;
        let filter = request.filter.filter(|text| !text.trim().is_empty());
        let own = filter.map(|text| self.matching(text)).transpose()?;
        let layers = self.layers().unwrap_or(&[]);
        let mut inherited = Vec::new();
        for (layer, at) in layers.iter().zip(1..) {
            inherited.push(filter.map(|text| self.layer_matching(layer, at, text)).transpose()?);
        }
        let hits = (queries as u64).saturating_mul(self.resolved().len().min(request.k as u64));
        if hits > MAX_HITS {
            return Err(Error::TooLarge {
                what: format!(
                    "{queries} queries of {} results each; at most {MAX_HITS} results are given in one answer",
                    request.k
                ),
            });
        }
        let mut parts = vec![Part::new(self, None, own.as_deref())];
        parts.extend(
            layers
                .iter()
                .zip(&inherited)
                .map(|(layer, allow)| Part::new(&layer.view, Some(layer), allow.as_ref())),
        );
        // What the largest part finds bounds what is worth looking at in the others.
        parts.retain(|part| part.shown > 0);
        parts.sort_by_key(|part| std::cmp::Reverse(part.shown));
        let job = Job { view: self, request, parts: &parts };
        let threads = request.threads.clamp(1, queries.max(1));
        let mut answers: Vec<Answer> = Vec::with_capacity(queries);
        if threads <= 1 {
            self.scratch.with(|scratch| {
                for q in request.queries.chunks_exact(dim) {
                    answers.push(job.one(q, scratch, request.threads.max(1))?);
                }
                Ok::<(), Error>(())
            })?;
        } else {
            answers = job.spread(threads, queries)?;
        }
        self.check_chain()?;
        self.accesses.count(&answers);
        Ok(answers)
    }

    fn split_queries(&self, values: &[f32]) -> Result<usize, Error> {
        let dim = self.dimension();
        if dim == 0 || values.is_empty() || !values.len().is_multiple_of(dim) {
            return Err(Error::Dimension { row: 0, got: values.len(), want: dim });
        }
        let queries = values.len() / dim;
        if queries > MAX_QUERIES {
            return Err(Error::TooLarge {
                what: format!("{queries} queries in one request; at most {MAX_QUERIES} are allowed"),
            });
        }
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(Error::NotFinite { row: (at / dim) as u64, component: at % dim });
        }
        Ok(queries)
    }
}

/// The rows of one file that may be answered.
#[derive(Debug, Clone, Copy)]
struct Part<'a> {
    view: &'a View,
    /// For the rows of an ancestor: what is hidden of them.
    layer: Option<&'a Layer>,
    /// The rows that match the filter.
    allow: Option<&'a Bitmap>,
    shown: u64,
}

/// One request against one view.
#[derive(Debug, Clone, Copy)]
struct Job<'a> {
    view: &'a View,
    request: &'a SearchRequest<'a>,
    /// The file's own rows and those of its ancestors.
    parts: &'a [Part<'a>],
}

impl Job<'_> {
    /// Spreads the queries over threads; each takes the next one, so that a slow query holds up
    /// nobody.
    fn spread(&self, threads: usize, queries: usize) -> Result<Vec<Answer>, Error> {
        let next = AtomicUsize::new(0);
        let dim = self.view.dimension();
        let work = || -> Result<Vec<(usize, Answer)>, Error> {
            let mut mine = Vec::with_capacity(queries / threads + 1);
            self.view.scratch.with(|scratch| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(q) = self.request.queries.get(at * dim..at * dim + dim) else { break };
                    mine.push((at, self.one(q, scratch, 1)?));
                }
                Ok(mine)
            })
        };
        let parts = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut parts = vec![work()];
            for other in others {
                parts.push(other.join().unwrap_or_else(|_| {
                    Err(Error::Invalid { what: "a search thread failed; see the log".into() })
                }));
            }
            parts
        });
        let mut answers = vec![Answer::default(); queries];
        for part in parts {
            for (at, answer) in part? {
                if let Some(slot) = answers.get_mut(at) {
                    *slot = answer;
                }
            }
        }
        Ok(answers)
    }

    /// Answers one query.
    fn one(&self, q: &[f32], scratch: &mut Scratch, threads: usize) -> Result<Answer, Error> {
        let started = Instant::now();
        if let Some(deadline) = self.request.deadline
            && started >= deadline
        {
            return Err(Error::Timeout { ms: 0 });
        }
        let k = self.request.k;
        let mut answer = Answer { layer: "scan", exact: true, ..Answer::default() };
        let all: u64 = self.parts.iter().map(|part| part.shown).sum();
        for part in self.parts {
            // No row farther than the `k`-th found so far can be answered.
            let bound = nth(&answer.hits, k, |hit| hit.distance);
            let elsewhere = Elsewhere { bound, share: part.shown as f32 / all.max(1) as f32 };
            part.search(self.request, q, elsewhere, scratch, threads, &mut answer)?;
        }
        if let Some(hit) = answer.hits.iter().find(|hit| !hit.distance.is_finite()) {
            return Err(Error::Invalid {
                what: format!(
                    "the distance to vector {} is not a finite number: the values are too large for f32",
                    hit.id
                ),
            });
        }
        answer.micros = started.elapsed().as_secs_f64() * 1e6;
        Ok(answer)
    }
}

/// The distance of the `k`-th; infinite while there are fewer.
fn nth<T>(found: &[T], k: usize, distance: impl Fn(&T) -> f32) -> f32 {
    k.checked_sub(1).and_then(|at| found.get(at)).map_or(f32::INFINITY, distance)
}

impl<'a> Part<'a> {
    fn new(view: &'a View, layer: Option<&'a Layer>, allow: Option<&'a Bitmap>) -> Self {
        let masked = layer.map_or(0, Layer::masked);
        Self { view, layer, allow, shown: view.live_state().count().saturating_sub(masked) }
    }

    /// Adds what is found here to an answer. Rows farther than the bound need not be found.
    fn search(
        &self,
        request: &SearchRequest<'_>,
        q: &[f32],
        elsewhere: Elsewhere,
        scratch: &mut Scratch,
        threads: usize,
        answer: &mut Answer,
    ) -> Result<(), Error> {
        let (view, live, bound) = (self.view, self.view.live_state(), elsewhere.bound);
        let mask = self.layer.and_then(Layer::mask);
        let masked = self.layer.map_or(0, Layer::masked);
        let wanted = usize::try_from(self.shown).unwrap_or(usize::MAX).min(request.k);
        if wanted == 0 {
            return Ok(());
        }
        let ef = request.ef.unwrap_or_else(|| default_ef(wanted)).max(wanted);
        let mut found: Vec<Candidate> = Vec::with_capacity(wanted + 1);
        let walk = match live.image() {
            Some(image) if !request.exact => {
                let matching = self.allow.map_or(live.indexed().saturating_sub(masked), Bitmap::count);
                match plan(matching, u64::from(image.nodes()), wanted, ef) {
                    Plan::Walk { ef } => Some((image, ef)),
                    Plan::Scan => None,
                }
            }
            _ => None,
        };
        let Some((image, ef)) = walk else {
            answer.visited += self.allow.map_or(self.shown, Bitmap::count);
            self.scan(request.exact, q, wanted, bound, scratch, threads, &mut found);
            self.add(&found, request.k, answer);
            return Ok(());
        };
        if !view.image_in_memory {
            view.loading.start(view.bytes(), image.range());
        }
        let stats = match self.allow {
            Some(_) => {
                let deny = mask.or(live.denied());
                image.search(q, wanted, ef, &view.rows, self.allow, deny, scratch, &mut found)
            }
            None => {
                let layer = self.layer.and_then(|layer| Some((layer.mask()?, layer.mask_count())));
                let hidden = layer.or_else(|| live.denied().map(|rows| (rows, live.denied_count())));
                let hidden = hidden.map(|(rows, count)| Hidden { rows, count });
                image.search_near(q, wanted, ef, &view.rows, hidden, elsewhere, scratch, &mut found)
            }
        };
        let stats = stats.map_err(|e| Error::Invalid { what: e.to_string() })?;
        answer.visited += u64::from(stats.visited);
        if !stats.scanned {
            answer.exact = false;
            answer.layer = "C";
        }
        self.add(&found, request.k, answer);
        if !live.tail().is_empty() {
            answer.visited += live.tail().len() as u64;
            let bound = bound.min(nth(&answer.hits, request.k, |hit| hit.distance));
            match view.coded_tail() {
                Some(codes) => {
                    let within = Within { allow: self.allow, deny: mask, bound };
                    codes.scan(q, &view.rows, within, wanted, scratch, &mut found);
                }
                None => {
                    let tail: Vec<u32> = live
                        .tail()
                        .iter()
                        .map(|(_, ordinal)| *ordinal)
                        .filter(|o| self.allow.is_none_or(|set| set.get(*o)))
                        .filter(|o| mask.is_none_or(|set| !set.get(*o)))
                        .collect();
                    let select = Selection::Ordinals(&tail);
                    exact::scan(view.metric, q, &view.rows, select, wanted, &mut found);
                }
            }
            self.add(&found, request.k, answer);
        }
        Ok(())
    }

    /// The nearest of all rows that may be answered, within the bound at least.
    fn scan(
        &self,
        plainly: bool,
        q: &[f32],
        wanted: usize,
        bound: f32,
        scratch: &mut Scratch,
        threads: usize,
        found: &mut Vec<Candidate>,
    ) {
        let view = self.view;
        let mask = self.layer.and_then(Layer::mask);
        // Few matching rows are looked at one by one.
        let many = self.allow.is_none_or(|set| set.count().saturating_mul(CODES_A_ROW) > view.live());
        if let Some(codes) = (!plainly && many).then(|| view.coded_rows()).flatten() {
            let within = Within { allow: self.allow, deny: mask, bound };
            codes.scan(q, &view.rows, within, wanted, scratch, found);
            return;
        }
        let select = match (self.allow, self.layer.filter(|_| mask.is_some())) {
            (Some(set), _) => Selection::Bitmap(set),
            (None, Some(layer)) => Selection::Bitmap(layer.visible()),
            (None, None) => Selection::Ordinals(view.live_ordinals()),
        };
        exact::scan_threads(view.metric, q, &view.rows, select, wanted, threads, found);
    }

    /// Puts some of the nearest in their places.
    fn add(&self, found: &[Candidate], k: usize, answer: &mut Answer) {
        let bound = sort_key(nth(&answer.hits, k, |hit| hit.distance));
        let before = answer.hits.len();
        let near = found.iter().filter(|c| before < k || sort_key(c.distance) <= bound);
        answer.hits.extend(near.map(|c| c.hit(&self.view.rows)));
        if before > 0 && answer.hits.len() > before {
            answer.hits.sort_unstable_by(Hit::order);
        }
        answer.hits.truncate(k);
    }
}
