//! Queries answered by a module: rows of a store go into its memory block by block, the nearest come out.
//!
//! Spoken is the query microkernel's ABI, version 1 (`kernel/wasm/query.c`). The host decides which rows are shown: deletions and
//! branches are none of the module's business. What the module answers is taken for numbers and nothing else.
//!
//! Rows are copied as they lie in a segment, a run of them at a time. For one query they go block by block through a place that
//! stays in the processor's cache; for several all of them are put into the module's memory once, if they fit, and stay.

use rvf_cow::query::render::{AnswerView, Work};
use rvf_cow::{Metric, View};
use wasmtime::{Memory, TypedFunc};

use super::guest::{Guest, GuestError};

/// Version of the ABI.
const ABI: i32 = 1;
/// Bytes of rows put into the module's memory at a time: they stay in the processor's cache until they are looked at.
const BLOCK: usize = 256 << 10;
/// Bytes of a result: id, distance, four bytes that say nothing.
const HIT: usize = 16;

/// The nearest rows to one query, nearest first, as the module says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Ids and distances.
    pub hits: Vec<(u64, f32)>,
}

impl AnswerView for Found {
    fn hits(&self) -> impl ExactSizeIterator<Item = (u64, f32)> {
        self.hits.iter().copied()
    }

    fn work(&self) -> Work<'_> {
        Work { layer: "scan", exact: true, visited: 0, micros: 0.0, truncated: false }
    }
}

/// A module that answers queries.
pub struct Microkernel<'g> {
    guest: &'g mut Guest,
    memory: Memory,
    /// Bytes of rows put into the module's memory at a time.
    block: usize,
    open: TypedFunc<(i32, i32, i32), i32>,
    alloc: TypedFunc<i32, i32>,
    begin: TypedFunc<(), ()>,
    rows: TypedFunc<(i32, i32), ()>,
    finish: TypedFunc<(), i32>,
    results: TypedFunc<(), i32>,
}

/// Rows that stay in a module's memory for queries of one metric, dimension and number of results.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    metric: Metric,
    dimension: usize,
    k: usize,
    /// Where the module had the query; there again, it has the rest where it was, too.
    query: u32,
    place: u32,
    rows: usize,
}

/// The function that tells the ABI's version, and by being there that the module answers queries.
pub const MARK: &str = "rvf_abi";

impl std::fmt::Debug for Microkernel<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Microkernel").field("guest", &self.guest).finish_non_exhaustive()
    }
}

impl<'g> Microkernel<'g> {
    /// For a module of this ABI.
    ///
    /// # Errors
    /// [`GuestError::Missing`] for another version, or a function that is not there.
    pub fn new(guest: &'g mut Guest) -> Result<Self, GuestError> {
        let abi = guest.function::<(), i32>(MARK)?;
        match guest.call(&abi, ())? {
            ABI => {}
            other => {
                return Err(GuestError::Missing(format!("query functions of version {ABI}, but of {other}")));
            }
        }
        Ok(Self {
            memory: guest.memory()?,
            block: BLOCK,
            open: guest.function("rvf_open")?,
            alloc: guest.function("rvf_alloc")?,
            begin: guest.function("rvf_begin")?,
            rows: guest.function("rvf_rows")?,
            finish: guest.function("rvf_finish")?,
            results: guest.function("rvf_results")?,
            guest,
        })
    }

    /// Puts this many bytes of rows into the module's memory at a time.
    #[must_use]
    pub fn with_block(mut self, bytes: usize) -> Self {
        self.block = bytes;
        self
    }

    /// Opens a query, and gives the place of its numbers in the module's memory.
    fn open(&mut self, metric: Metric, dimension: usize, k: usize) -> Result<u32, GuestError> {
        let metric = match metric {
            Metric::L2 => 0,
            Metric::InnerProduct => 1,
            Metric::Cosine => 2,
        };
        let dim = i32::try_from(dimension).unwrap_or(i32::MAX);
        let k = i32::try_from(k).unwrap_or(i32::MAX);
        match self.guest.call(&self.open, (metric, dim, k))? {
            0 => Err(no_memory("the query and its results")),
            place => Ok(place as u32),
        }
    }

    /// Puts a query's numbers in place.
    fn begin(&mut self, place: u32, query: &[f32]) -> Result<(), GuestError> {
        let to = self.guest.bytes(&self.memory, place, 4 * query.len())?;
        for (to, value) in to.chunks_exact_mut(4).zip(query) {
            to.copy_from_slice(&value.to_le_bytes());
        }
        self.guest.call(&self.begin, ())
    }

    /// A place for rows; `None` when the module has no memory for them.
    fn room(&mut self, bytes: usize) -> Result<Option<u32>, GuestError> {
        let Ok(bytes) = u32::try_from(bytes) else { return Ok(None) };
        let place = self.guest.call(&self.alloc, bytes as i32)? as u32;
        Ok((place != 0).then_some(place))
    }

    fn end(&mut self, k: usize) -> Result<Found, GuestError> {
        let count = self.guest.call(&self.finish, ())? as u32 as usize;
        if count > k {
            return Err(GuestError::Answer(format!("{count} results where {k} were asked for")));
        }
        let place = self.guest.call(&self.results, ())? as u32;
        let bytes = self.guest.bytes(&self.memory, place, count * HIT)?;
        let hit = |bytes: &[u8]| {
            let (id, rest) = bytes.split_first_chunk::<8>()?;
            let distance = rest.first_chunk::<4>()?;
            Some((u64::from_le_bytes(*id), f32::from_le_bytes(*distance)))
        };
        let hits: Vec<(u64, f32)> = bytes.chunks_exact(HIT).filter_map(hit).collect();
        match hits.iter().find(|(_, distance)| !distance.is_finite()) {
            Some((id, _)) => Err(GuestError::Answer(format!(
                "the distance to vector {id} is not a finite number; the values may be too large for f32"
            ))),
            None => Ok(Found { hits }),
        }
    }

    /// The `k` nearest of rows that lie side by side, as [`rvf_cow::RowTable::records`] gives them.
    ///
    /// # Errors
    /// [`GuestError`].
    pub fn nearest_of(
        &mut self,
        metric: Metric,
        query: &[f32],
        k: usize,
        records: &[u8],
    ) -> Result<Found, GuestError> {
        let stride = stride(query.len());
        let most = (self.block / stride).max(1) * stride;
        let to = self.open(metric, query.len(), k)?;
        self.begin(to, query)?;
        let place = self.room(most)?.ok_or_else(|| no_memory("a block of rows"))?;
        for block in records.chunks(most) {
            self.guest.bytes(&self.memory, place, block.len())?.copy_from_slice(block);
            self.look(place, block.len() / stride)?;
        }
        self.end(k)
    }

    /// Puts rows that lie side by side into the module's memory, to stay there; `None` when they do not fit.
    ///
    /// # Errors
    /// [`GuestError`].
    pub fn hold_records(
        &mut self,
        metric: Metric,
        dimension: usize,
        k: usize,
        records: &[u8],
    ) -> Result<Option<Held>, GuestError> {
        let query = self.open(metric, dimension, k)?;
        let Some(place) = self.room(records.len())? else { return Ok(None) };
        self.guest.bytes(&self.memory, place, records.len())?.copy_from_slice(records);
        Ok(Some(Held { metric, dimension, k, query, place, rows: records.len() / stride(dimension) }))
    }

    /// Puts all that a store shows into the module's memory, to stay there for queries of the `k` nearest; `None` when it
    /// does not fit.
    ///
    /// # Errors
    /// [`GuestError`].
    pub fn hold(&mut self, view: &View, k: usize) -> Result<Option<Held>, GuestError> {
        let (shown, metric, dimension) = (view.resolved(), view.metric(), view.dimension());
        let rows = shown.count();
        let k = k.min(rows);
        let query = self.open(metric, dimension, k)?;
        let Some(bytes) = rows.checked_mul(stride(dimension)) else { return Ok(None) };
        let Some(place) = self.room(bytes)? else { return Ok(None) };
        self.copy(view, 0, rows, place)?;
        Ok(Some(Held { metric, dimension, k, query, place, rows }))
    }

    /// The nearest of the rows that are held. Nothing else may have been asked since.
    ///
    /// # Errors
    /// [`GuestError`].
    pub fn nearest_held(&mut self, held: &Held, query: &[f32]) -> Result<Found, GuestError> {
        let to = self.open(held.metric, held.dimension, held.k)?;
        if to != held.query || query.len() != held.dimension {
            return Err(GuestError::Answer("the same query is opened in another place than before".into()));
        }
        self.begin(to, query)?;
        self.look(held.place, held.rows)?;
        self.end(held.k)
    }

    fn look(&mut self, place: u32, count: usize) -> Result<(), GuestError> {
        self.guest.call(&self.rows, (place as i32, i32::try_from(count).unwrap_or(i32::MAX)))
    }

    /// The `k` nearest to each of several queries of what a store shows, deletions and branches heeded.
    ///
    /// # Errors
    /// [`GuestError`].
    pub fn answer(&mut self, view: &View, queries: &[f32], k: usize) -> Result<Vec<Found>, GuestError> {
        let queries = queries.chunks(view.dimension().max(1));
        let held = if queries.len() > 1 { self.hold(view, k)? } else { None };
        queries
            .map(|query| match &held {
                Some(held) => self.nearest_held(held, query),
                None => self.nearest(view, query, k),
            })
            .collect()
    }

    /// The `k` nearest of what a store shows, block by block.
    fn nearest(&mut self, view: &View, query: &[f32], k: usize) -> Result<Found, GuestError> {
        let total = view.resolved().count();
        let k = k.min(total);
        let most = (self.block / stride(query.len())).max(1);
        let to = self.open(view.metric(), query.len(), k)?;
        self.begin(to, query)?;
        let place = self.room(most * stride(query.len()))?.ok_or_else(|| no_memory("a block of rows"))?;
        let mut next = 0;
        while next < total {
            let count = most.min(total - next);
            self.copy(view, next, count, place)?;
            self.look(place, count)?;
            next += count;
        }
        self.end(k)
    }

    /// Copies rows that a store shows, counted from `first`, from as many runs of them as it takes.
    fn copy(&mut self, view: &View, first: usize, count: usize, place: u32) -> Result<(), GuestError> {
        let shown = view.resolved();
        let stride = stride(view.dimension());
        let lost = || GuestError::Engine("the store's rows are not where they should be".into());
        let mut done = 0;
        while done < count {
            let start = shown.at(first + done).ok_or_else(lost)?;
            let mut run = 1;
            while done + run < count
                && shown.at(first + done + run).is_some_and(|place| {
                    place.layer == start.layer && place.ordinal as usize == start.ordinal as usize + run
                })
            {
                run += 1;
            }
            let records = shown.view_of(start).rows().records(start.ordinal, run as u32);
            let found = records.len() / stride;
            if found == 0 {
                return Err(lost());
            }
            let at = u32::try_from(done * stride).ok().and_then(|offset| place.checked_add(offset));
            self.guest
                .bytes(&self.memory, at.ok_or_else(lost)?, found * stride)?
                .copy_from_slice(records.get(..found * stride).ok_or_else(lost)?);
            done += found;
        }
        Ok(())
    }
}

fn stride(dimension: usize) -> usize {
    8 + 4 * dimension
}

fn no_memory(what: &str) -> GuestError {
    GuestError::Limit(format!("the module has no memory for {what}; give it more with --memory"))
}
