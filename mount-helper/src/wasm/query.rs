//! Queries answered by a module: rows of a store go into its memory block by block, the nearest come out.
//!
//! Spoken is the query microkernel's ABI, version 1 (`kernel/wasm/query.c`). The host decides which rows are shown: deletions and
//! branches are none of the module's business. What the module answers is taken for numbers and nothing else.

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

    /// Begins a query, and gives the place for a block of rows in the module's memory.
    fn begin(&mut self, metric: Metric, query: &[f32], k: usize, block: usize) -> Result<u32, GuestError> {
        let none = |what| {
            GuestError::Limit(format!("the module has no memory for {what}; give it more with --memory"))
        };
        let metric = match metric {
            Metric::L2 => 0,
            Metric::InnerProduct => 1,
            Metric::Cosine => 2,
        };
        let dim = i32::try_from(query.len()).unwrap_or(i32::MAX);
        let k = i32::try_from(k).unwrap_or(i32::MAX);
        let place = self.guest.call(&self.open, (metric, dim, k))?;
        if place == 0 {
            return Err(none("the query and its results"));
        }
        let to = self.guest.bytes(&self.memory, place as u32, 4 * query.len())?;
        for (to, value) in to.chunks_exact_mut(4).zip(query) {
            to.copy_from_slice(&value.to_le_bytes());
        }
        self.guest.call(&self.begin, ())?;
        match self.guest.call(&self.alloc, i32::try_from(block).unwrap_or(i32::MAX))? {
            0 => Err(none("a block of rows")),
            place => Ok(place as u32),
        }
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
        let stride = 8 + 4 * query.len();
        let most = (self.block / stride).max(1) * stride;
        let place = self.begin(metric, query, k, most)?;
        for block in records.chunks(most) {
            self.guest.bytes(&self.memory, place, block.len())?.copy_from_slice(block);
            self.look(place, block.len() / stride)?;
        }
        self.end(k)
    }

    /// The same with the rows that the query before this one left in the module's memory, which were one block of this many.
    ///
    /// # Errors
    /// [`GuestError`].
    pub fn nearest_again(
        &mut self,
        metric: Metric,
        query: &[f32],
        k: usize,
        rows: usize,
    ) -> Result<Found, GuestError> {
        // A module places a query, its results and its rows alike when their sizes are.
        let stride = 8 + 4 * query.len();
        let place = self.begin(metric, query, k, (self.block / stride).max(1) * stride)?;
        self.look(place, rows)?;
        self.end(k)
    }

    fn look(&mut self, place: u32, count: usize) -> Result<(), GuestError> {
        self.guest.call(&self.rows, (place as i32, i32::try_from(count).unwrap_or(i32::MAX)))
    }

    /// The `k` nearest of what a store shows, deletions and branches heeded.
    ///
    /// # Errors
    /// [`GuestError`].
    pub fn nearest(&mut self, view: &View, query: &[f32], k: usize) -> Result<Found, GuestError> {
        let shown = view.resolved();
        let total = shown.count();
        let k = k.min(total);
        let stride = 8 + 4 * query.len();
        let most = (self.block / stride).max(1);
        let place = self.begin(view.metric(), query, k, most * stride)?;
        let mut next = 0;
        while next < total {
            // A block is filled from as many runs of rows as it takes.
            let mut filled = 0;
            while filled < most {
                let Some(first) = shown.at(next) else { break };
                let mut run = 1;
                while filled + run < most
                    && shown.at(next + run).is_some_and(|place| {
                        place.layer == first.layer && place.ordinal as usize == first.ordinal as usize + run
                    })
                {
                    run += 1;
                }
                let table = shown.view_of(first).rows();
                let records = table.records(first.ordinal, run as u32);
                let count = records.len() / stride;
                if count == 0 {
                    return Err(GuestError::Engine("the store's rows are not where they should be".into()));
                }
                let at = place + (filled * stride) as u32;
                self.guest.bytes(&self.memory, at, count * stride)?.copy_from_slice(records);
                filled += count;
                next += count;
            }
            self.look(place, filled)?;
        }
        self.end(k)
    }
}
