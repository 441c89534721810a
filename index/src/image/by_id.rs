//! From an id to its row: reckoned where ids are spread evenly, by binary search at first, and from a table once so many
//! were asked for that making it has paid.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

use super::Image;
use super::layout::Section;
use crate::codes::u32_at;

/// Ids that are looked up before a row is reckoned from its id.
const SPREAD_SAMPLE: usize = 64;
/// Searches after which the table is made: one for this many nodes. A search costs some 150 ns, a node of the table 20.
const NODES_A_SEARCH: u32 = 8;

/// What was found out about an image's ids.
#[derive(Default)]
pub(super) struct ById {
    spread: OnceLock<Option<Spread>>,
    searches: AtomicU32,
    /// Nothing where the ids are not in order, which is damage.
    table: OnceLock<Option<Table>>,
}

/// Ids given out one after another, at about even distances, to rows in file order.
#[derive(Debug, Clone, Copy)]
struct Spread {
    first: u64,
    last: u64,
    /// Rows for each id from the first.
    rate: f64,
}

impl Spread {
    fn ordinal(&self, id: u64) -> Option<u32> {
        (self.first..=self.last).contains(&id).then(|| ((id - self.first) as f64 * self.rate + 0.5) as u32)
    }
}

/// Row ordinals by the hash of their id, with a key of its own: ids come from whoever wrote the file. The ids themselves are
/// in the rows, where whoever looks one up goes next. Ten bytes a node or less.
struct Table {
    hasher: DefaultHashBuilder,
    ordinals: HashTable<u32>,
}

impl Table {
    fn new(image: &Image) -> Option<Self> {
        let hasher = DefaultHashBuilder::default();
        let mut ordinals = HashTable::with_capacity(image.nodes() as usize);
        let bytes = image.image_bytes();
        let nodes = image.header.section(bytes, Section::IdNodes);
        let ids = image.header.section(bytes, Section::Ids).as_chunks::<8>().0;
        let mut before = None;
        for (at, id) in ids.iter().enumerate() {
            let id = u64::from_le_bytes(*id);
            if before.replace(id).is_some_and(|before| before >= id) {
                return None;
            }
            let row = u32_at(nodes, at).and_then(|node| image.ordinal_of_node(node));
            if let Some(ordinal) = row {
                // There is room, so nothing is hashed again.
                ordinals.insert_unique(hasher.hash_one(id), ordinal, |_| 0);
            }
        }
        Some(Self { hasher, ordinals })
    }

    #[inline]
    fn find(&self, id: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        self.ordinals.find(self.hasher.hash_one(id), |ordinal| is(*ordinal)).copied()
    }
}

impl Image {
    /// The row ordinal of a vector id; `is` says whether a row is the one wanted and has that id, because image bytes not
    /// yet verified may name any row. O(log n) at first, reading one or two pages; O(1) once a table of ten bytes a node has
    /// been made, which is done after n / 8 searches.
    #[inline]
    pub fn find_row(&self, id: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        if let Some(ordinal) = self.likely_ordinal(id)
            && is(ordinal)
        {
            return Some(ordinal);
        }
        if let Some(Some(table)) = self.by_id.table.get() {
            return table.find(id, is);
        }
        self.search_row(id, is)
    }

    /// The same where that takes no search: nothing where it would.
    #[inline]
    pub fn find_row_at_once(&self, id: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        match self.by_id.table.get() {
            Some(Some(table)) => table.find(id, is),
            _ => self.likely_ordinal(id).filter(|ordinal| is(*ordinal)),
        }
    }

    #[cold]
    fn search_row(&self, id: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        let searches = self.by_id.searches.fetch_add(1, Ordering::Relaxed);
        if searches > SPREAD_SAMPLE as u32 + self.nodes() / NODES_A_SEARCH
            && let Some(table) = self.by_id.table.get_or_init(|| Table::new(self))
        {
            return table.find(id, is);
        }
        self.find_id(id).filter(|ordinal| is(*ordinal))
    }

    /// The covered row that an id is in most likely, reckoned from the first and the last id; nothing where that would
    /// seldom be right, or where rows were dead when the image was built. A row there with that id is the id's node. O(1),
    /// reading nothing after the first call, which looks at some ids.
    #[inline]
    fn likely_ordinal(&self, id: u64) -> Option<u32> {
        (*self.by_id.spread.get_or_init(|| self.spread())).as_ref()?.ordinal(id)
    }

    fn spread(&self) -> Option<Spread> {
        let nodes = self.nodes() as usize;
        if self.nodes() != self.covered_rows() {
            return None;
        }
        let ids = self.header.section(self.image_bytes(), Section::Ids).as_chunks::<8>().0;
        let at = |i: usize| ids.get(i).map(|bytes| u64::from_le_bytes(*bytes));
        let (first, last) = (at(0)?, at(nodes.checked_sub(1)?)?);
        let rate = nodes.saturating_sub(1) as f64 / last.saturating_sub(first).max(1) as f64;
        let spread = Spread { first, last, rate };
        let right = |i: usize| {
            at(i).is_some_and(|id| spread.ordinal(id).is_some_and(|o| self.find_id(id) == Some(o)))
        };
        (0..SPREAD_SAMPLE).all(|i| right(i * (nodes - 1) / SPREAD_SAMPLE)).then_some(spread)
    }

    /// Row ordinal of a vector id, by binary search. O(log n), reading one or two pages.
    ///
    /// Bytes not yet verified may give a wrong ordinal; the caller compares the row's id.
    pub fn find_id(&self, id: u64) -> Option<u32> {
        let bytes = self.image_bytes();
        let ids = self.header.section(bytes, Section::Ids).as_chunks::<8>().0;
        let place = ids.binary_search_by_key(&id, |bytes| u64::from_le_bytes(*bytes)).ok()?;
        let node = u32_at(self.header.section(bytes, Section::IdNodes), place)?;
        self.ordinal_of_node(node)
    }
}
