//! What a child shows: its own rows, and of each ancestor those that nothing younger hides.
//!
//! Every layer of the chain keeps its own row ordinals and its own search image; a younger file only
//! adds a mask of ordinals that must not be answered. Without edits there is no mask, so a fresh
//! child costs nothing in the number of inherited rows.

use std::sync::{Arc, OnceLock};

use rvf_format::membership::Mode;
use rvf_index::Bitmap;

use crate::error::Error;
use crate::live::Live;
use crate::parent::Missing;
use crate::view::View;

/// One ancestor, as the child sees it.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) view: Arc<View>,
    /// Rows that are dead or hidden; `None` when nothing is hidden.
    mask: Option<Bitmap>,
    /// Live rows of the ancestor that are hidden.
    masked: u64,
    /// Rows in the mask.
    mask_count: u64,
    visible: OnceLock<Bitmap>,
}

impl Layer {
    /// Rows of the ancestor that must not be answered, its own dead ones included; `None` when the
    /// ancestor's own liveness says it all.
    pub(crate) fn mask(&self) -> Option<&Bitmap> {
        self.mask.as_ref()
    }

    /// Live rows hidden by younger files.
    pub(crate) fn masked(&self) -> u64 {
        self.masked
    }

    /// Rows of the mask, dead ones included.
    pub(crate) fn mask_count(&self) -> u64 {
        self.mask_count
    }

    /// Rows shown.
    pub(crate) fn len(&self) -> u64 {
        self.view.live().saturating_sub(self.masked)
    }

    fn shows(&self, ordinal: u32) -> bool {
        self.mask.as_ref().is_none_or(|mask| !mask.get(ordinal))
    }

    /// The row of an id, unless it is hidden.
    fn find(&self, id: u64) -> Option<u32> {
        self.view.find(id).filter(|ordinal| self.shows(*ordinal))
    }

    /// The rows shown, as a set. O(rows) on first use.
    pub(crate) fn visible(&self) -> &Bitmap {
        self.visible.get_or_init(|| {
            let mut set = self.view.live_set().clone();
            if let Some(mask) = &self.mask {
                set.and_not(mask);
            }
            set
        })
    }

    /// Rows shown of a set of live rows.
    pub(crate) fn restrict(&self, rows: &Bitmap) -> Bitmap {
        let mut set = rows.clone();
        if let Some(mask) = &self.mask {
            set.and_not(mask);
        }
        set
    }
}

/// The ancestors of a child, nearest first, with what the child and the files between hide of each.
/// O(edits of the younger files x depth), except below a child written by the existing tools, whose filter names what is
/// shown rather than what is hidden: O(rows of its parent) there.
pub(crate) fn layers(child: &View) -> Result<Vec<Layer>, Missing> {
    let mut out: Vec<Layer> = Vec::new();
    let mut chain: Vec<Arc<View>> = Vec::new();
    loop {
        let youngest: &View = chain.last().map_or(child, |view| view);
        let parent = match &youngest.parent {
            None => break,
            Some(Err(missing)) if chain.is_empty() => return Err(missing.clone()),
            Some(Err(missing)) => return Err(format!("{}: {missing}", youngest.path.display())),
            Some(Ok(parent)) => Arc::clone(&parent.view),
        };
        let (mask, masked) = {
            let younger = std::iter::once(child).chain(chain.iter().map(|view| &**view));
            mask_of(&parent, younger)
        };
        let mask_count = mask.as_ref().map_or(0, Bitmap::count);
        out.push(Layer { view: Arc::clone(&parent), mask, masked, mask_count, visible: OnceLock::new() });
        // The existing tools look at one level only, and their children mean just that.
        if youngest.pin.is_none() {
            break;
        }
        chain.push(parent);
    }
    Ok(out)
}

fn mask_of<'v>(ancestor: &View, younger: impl Iterator<Item = &'v View>) -> (Option<Bitmap>, u64) {
    let mut mask: Option<Bitmap> = None;
    let mut masked = 0;
    let mut deny = |ordinal: u32| {
        let mask = mask.get_or_insert_with(|| Bitmap::new(ancestor.rows.total()));
        if !mask.get(ordinal) {
            mask.set(ordinal);
            masked += 1;
        }
    };
    for view in younger {
        for id in &view.deleted_ids {
            if let Some(ordinal) = ancestor.find(*id) {
                deny(ordinal);
            }
        }
        // Whichever side has fewer rows is gone through.
        if view.rows.total() > ancestor.rows.total() {
            for ordinal in ancestor.live_ordinals() {
                if view.find(ancestor.id(*ordinal)).is_some() {
                    deny(*ordinal);
                }
            }
        } else {
            for ordinal in view.live_ordinals() {
                if let Some(ordinal) = ancestor.find(view.id(*ordinal)) {
                    deny(ordinal);
                }
            }
        }
        let Some(cow) = &view.contents.cow else { continue };
        match (cow.membership.mode, cow.membership.hidden()) {
            (Mode::Exclude | Mode::Sparse, Some(hidden)) => {
                for id in hidden {
                    if let Some(ordinal) = ancestor.find(id) {
                        deny(ordinal);
                    }
                }
            }
            _ => {
                for ordinal in ancestor.live_ordinals() {
                    if !cow.membership.shows(ancestor.id(*ordinal)) {
                        deny(*ordinal);
                    }
                }
            }
        }
    }
    if let Some(mask) = &mut mask
        && let Some(dead) = ancestor.live_state().denied()
    {
        mask.or(dead);
    }
    (mask, masked)
}

/// Where a vector lies: in which file of the chain, and which row of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// 0 is the file itself, 1 its parent, and so on.
    pub layer: u32,
    /// Row ordinal in that file.
    pub ordinal: u32,
}

/// All that a store shows, whichever file of its chain it lies in. For a store without a parent,
/// its live rows.
#[derive(Debug, Clone, Copy)]
pub struct Resolved<'v> {
    view: &'v View,
    layers: &'v [Layer],
}

impl<'v> Resolved<'v> {
    /// Vectors shown. O(edits) on first use.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.view.live() + self.inherited()
    }

    /// Whether nothing is shown.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Of those, the vectors that lie in ancestors.
    #[must_use]
    pub fn inherited(&self) -> u64 {
        self.layers.iter().map(Layer::len).sum()
    }

    /// Where the vector of an id lies. O(depth x log n).
    #[must_use]
    pub fn find(&self, id: u64) -> Option<Place> {
        // A row that nothing hides is in no younger file, so those need not be asked when it is found without a search.
        for (layer, at) in self.layers.iter().zip(1..) {
            let view = &layer.view;
            if let Some(ordinal) = view.live_state().find_at_once(id, &view.rows, |o| layer.shows(o)) {
                return Some(Place { layer: at, ordinal });
            }
        }
        if let Some(ordinal) = self.view.find(id) {
            return Some(Place { layer: 0, ordinal });
        }
        self.layers
            .iter()
            .zip(1..)
            .find_map(|(layer, at)| layer.find(id).map(|ordinal| Place { layer: at, ordinal }))
    }

    /// The file that a place lies in; the store itself for a place that does not exist.
    #[must_use]
    pub fn view_of(&self, place: Place) -> &'v View {
        let at = (place.layer as usize).checked_sub(1);
        at.and_then(|at| self.layers.get(at)).map_or(self.view, |layer| &layer.view)
    }

    /// The id at a place.
    #[must_use]
    pub fn id(&self, place: Place) -> u64 {
        self.view_of(place).id(place.ordinal)
    }

    /// The vector at a place: `dimension` little-endian `f32`, at any alignment.
    #[must_use]
    pub fn vector(&self, place: Place) -> &'v [u8] {
        self.view_of(place).vector(place.ordinal)
    }

    /// All places, the oldest ancestor's first and the file's own last, each file's in file order.
    /// O(n) and 8 bytes a vector on first use, then kept.
    #[must_use]
    pub fn places(&self) -> &'v [Place] {
        self.view.places.get_or_init(|| {
            let mut all = Vec::with_capacity(usize::try_from(self.len()).unwrap_or(0));
            for (layer, at) in self.layers.iter().zip(1u32..).collect::<Vec<_>>().into_iter().rev() {
                let rows = layer.view.live_ordinals().iter().filter(|ordinal| layer.shows(**ordinal));
                all.extend(rows.map(|ordinal| Place { layer: at, ordinal: *ordinal }));
            }
            all.extend(self.view.live_ordinals().iter().map(|o| Place { layer: 0, ordinal: *o }));
            all
        })
    }

    /// The place of the vector at `index`, counting as [`Resolved::places`] does. O(1) after the first use.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<Place> {
        if self.layers.is_empty() {
            return Some(Place { layer: 0, ordinal: *self.view.live_ordinals().get(index)? });
        }
        self.places().get(index).copied()
    }

    /// How many places [`Resolved::at`] knows: what is there, where the file's own count would be wrong.
    #[must_use]
    pub fn count(&self) -> usize {
        if self.layers.is_empty() { self.view.live_ordinals().len() } else { self.places().len() }
    }

    /// Largest id in use or used before in any file of the chain. O(n) on first use.
    #[must_use]
    pub fn max_id(&self) -> Option<u64> {
        self.layers.iter().map(|layer| layer.view.max_id()).chain([self.view.max_id()]).flatten().max()
    }
}

impl View {
    /// Whether the file is a copy-on-write child.
    #[must_use]
    pub fn is_child(&self) -> bool {
        self.parent.is_some()
    }

    /// Whether [`Resolved::count`] knows without going through the rows.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        match &self.parent {
            Some(Ok(_)) => self.places.get().is_some(),
            None | Some(Err(_)) => self.live.get().is_some_and(Live::is_ordered),
        }
    }

    /// What the store shows through its whole chain. When an ancestor cannot be read, that is its own rows only:
    /// [`View::complete`] tells.
    #[must_use]
    pub fn resolved(&self) -> Resolved<'_> {
        Resolved { view: self, layers: self.layers().unwrap_or(&[]) }
    }

    /// The ancestors shown through, nearest first. Empty for a store without a parent.
    pub(crate) fn layers(&self) -> Result<&[Layer], &str> {
        match &self.parent {
            None => Ok(&[]),
            Some(Err(missing)) => Err(missing),
            Some(Ok(parent)) => match parent.layers.get_or_init(|| layers(self)) {
                Ok(layers) => Ok(layers),
                Err(missing) => Err(missing),
            },
        }
    }

    /// Fails when an ancestor that the answers need cannot be read.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the sentence that names the file wanted.
    pub fn complete(&self) -> Result<(), Error> {
        match self.layers() {
            Ok(_) => Ok(()),
            Err(missing) => Err(Error::Unsupported {
                path: self.path.clone(),
                what: format!("a copy-on-write child whose answers need its parent: {missing}"),
            }),
        }
    }
}
