//! Answering queries: plan, walk or scan, merge with rows newer than the index.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rvf_index::exact::{self, Selection};
use rvf_index::{Bitmap, Candidate, Hit, Plan, Scratch, default_ef, plan};

use crate::branch::resolve::Layer;
use crate::error::Error;
use crate::types::{Answer, SearchRequest};
use crate::view::View;

/// Queries in one request, at most.
pub const MAX_QUERIES: usize = 1 << 20;
/// Results of all queries of one request together, at most: a gigabyte of them.
const MAX_HITS: u64 = 1 << 26;

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
        let allow = match request.filter {
            Some(text) if !text.trim().is_empty() => Some(self.matching(text)?),
            _ => None,
        };
        let filter = request.filter.filter(|text| !text.trim().is_empty());
        let mut inherited = Vec::new();
        for (layer, at) in self.layers().unwrap_or(&[]).iter().zip(1..) {
            let allow = filter.map(|text| self.layer_matching(layer, at, text)).transpose()?;
            inherited.push((layer, allow));
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
        let job = Job { view: self, layer: None, request, allow: allow.as_deref(), inherited: &inherited };
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
        self.check_intact()?;
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

/// One request against one view.
#[derive(Clone, Copy)]
struct Job<'a> {
    view: &'a View,
    request: &'a SearchRequest<'a>,
    allow: Option<&'a Bitmap>,
    /// For the rows of an ancestor: what is hidden of them.
    layer: Option<&'a Layer>,
    /// The ancestors of a copy-on-write child, and the rows of each that match the filter.
    inherited: &'a [(&'a Layer, Option<Bitmap>)],
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
        let mut answer = self.own(q, scratch, threads)?;
        for (layer, allow) in self.inherited {
            let part = Job {
                view: &layer.view,
                layer: Some(layer),
                request: self.request,
                allow: allow.as_ref(),
                inherited: &[],
            };
            let found = part.own(q, scratch, threads)?;
            answer.hits.extend(found.hits);
            answer.hits.sort_unstable_by(Hit::order);
            answer.hits.truncate(self.request.k);
            answer.exact &= found.exact;
            answer.visited += found.visited;
            if !found.exact {
                answer.layer = found.layer;
            }
        }
        answer.micros = started.elapsed().as_secs_f64() * 1e6;
        Ok(answer)
    }

    /// Answers from the rows of one file.
    fn own(&self, q: &[f32], scratch: &mut Scratch, threads: usize) -> Result<Answer, Error> {
        let view = self.view;
        let live = view.live_state();
        let mask = self.layer.and_then(Layer::mask);
        let masked = self.layer.map_or(0, Layer::masked);
        let shown = live.count().saturating_sub(masked);
        let wanted = usize::try_from(shown).unwrap_or(usize::MAX).min(self.request.k);
        let mut answer = Answer { layer: "scan", exact: true, ..Answer::default() };
        if wanted == 0 {
            return Ok(answer);
        }
        let ef = self.request.ef.unwrap_or_else(|| default_ef(wanted)).max(wanted);
        let mut found: Vec<Candidate> = Vec::with_capacity(wanted + 1);
        let walk = match live.image() {
            Some(image) if !self.request.exact => {
                let matching = self.allow.map_or(live.indexed().saturating_sub(masked), Bitmap::count);
                match plan(matching, u64::from(image.nodes()), wanted, ef) {
                    Plan::Walk { ef } => Some((image, ef)),
                    Plan::Scan => None,
                }
            }
            _ => None,
        };
        if let Some((image, ef)) = walk {
            if !view.image_in_memory {
                view.loading.start(view.bytes(), image.range());
            }
            // Where a younger file hides few rows, it is cheaper to find some more and drop those than to ask of every
            // row on the way whether it is hidden.
            let few = self.layer.filter(|layer| {
                self.allow.is_none() && layer.mask_count().saturating_mul(8) <= u64::from(image.nodes())
            });
            let mut loose = None;
            if let Some(mask) = few.and_then(Layer::mask) {
                let more = wanted + wanted / 4 + 8;
                let stats = image
                    .search(q, more, ef.max(more), &view.rows, None, None, scratch, &mut found)
                    .map_err(|e| Error::Invalid { what: e.to_string() })?;
                found.retain(|c| !mask.get(c.ordinal));
                found.truncate(wanted);
                loose = Some(stats).filter(|_| found.len() == wanted);
            }
            let stats = match loose {
                Some(stats) => stats,
                None => image
                    .search(
                        q,
                        wanted,
                        ef,
                        &view.rows,
                        self.allow,
                        mask.or(live.denied()),
                        scratch,
                        &mut found,
                    )
                    .map_err(|e| Error::Invalid { what: e.to_string() })?,
            };
            answer.visited = u64::from(stats.visited);
            answer.exact = stats.scanned;
            answer.layer = if stats.scanned { "scan" } else { "C" };
            let mut hits: Vec<Hit> = found.iter().map(|c| c.hit(&view.rows)).collect();
            if !live.tail().is_empty() {
                let tail: Vec<u32> = live
                    .tail()
                    .iter()
                    .map(|(_, ordinal)| *ordinal)
                    .filter(|o| self.allow.is_none_or(|set| set.get(*o)))
                    .filter(|o| mask.is_none_or(|set| !set.get(*o)))
                    .collect();
                answer.visited += tail.len() as u64;
                let select = Selection::Ordinals(&tail);
                exact::scan(view.metric, q, &view.rows, select, wanted, &mut found);
                hits.extend(found.iter().map(|c| c.hit(&view.rows)));
                hits.sort_unstable_by(Hit::order);
                hits.truncate(wanted);
            }
            answer.hits = hits;
        } else {
            let select = match (self.allow, self.layer.filter(|_| mask.is_some())) {
                (Some(set), _) => Selection::Bitmap(set),
                (None, Some(layer)) => Selection::Bitmap(layer.visible()),
                (None, None) => Selection::Ordinals(live.ordinals()),
            };
            answer.visited = self.allow.map_or(shown, Bitmap::count);
            exact::scan_threads(view.metric, q, &view.rows, select, wanted, threads, &mut found);
            answer.hits = found.iter().map(|c| c.hit(&view.rows)).collect();
        }
        if let Some(at) = answer.hits.iter().position(|h| !h.distance.is_finite()) {
            return Err(Error::Invalid {
                what: format!(
                    "the distance to vector {} is not a finite number: the values are too large for f32",
                    answer.hits.get(at).map_or(0, |h| h.id)
                ),
            });
        }
        Ok(answer)
    }
}
