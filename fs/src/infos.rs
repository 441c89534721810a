//! What is known of the `info.json` files of a store: the length of each, and the texts that were read last.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::node::{SegmentKey, StateNo};

/// Bytes of text kept. A walk through `segments/` asks for every length, and the text of a manifest lists every segment:
/// keeping them all would take memory quadratic in the number of commits.
const KEPT_BYTES: usize = 1 << 20;

/// Lengths and texts for one state of the store.
#[derive(Debug, Default)]
pub struct Infos {
    state: Option<StateNo>,
    lengths: HashMap<SegmentKey, u64>,
    texts: VecDeque<(SegmentKey, Arc<[u8]>)>,
    bytes: usize,
}

impl Infos {
    /// The length of a text, if it was rendered in this state.
    #[must_use]
    pub fn length(&self, state: StateNo, key: SegmentKey) -> Option<u64> {
        self.lengths.get(&key).copied().filter(|_| self.state == Some(state))
    }

    /// A text that is still kept.
    #[must_use]
    pub fn text(&self, state: StateNo, key: SegmentKey) -> Option<Arc<[u8]>> {
        let (_, text) = self.texts.iter().rev().find(|(of, _)| *of == key)?;
        (self.state == Some(state)).then(|| text.clone())
    }

    /// Remembers a text. What is in use of a segment changes with other segments, so a newer state forgets everything;
    /// an older one is not remembered.
    pub fn put(&mut self, state: StateNo, key: SegmentKey, text: &Arc<[u8]>) {
        if self.state.is_none_or(|of| of < state) {
            *self = Self { state: Some(state), ..Self::default() };
        }
        if self.state != Some(state) {
            return;
        }
        self.lengths.insert(key, text.len() as u64);
        if text.len() > KEPT_BYTES {
            return;
        }
        self.bytes += text.len();
        self.texts.push_back((key, text.clone()));
        while self.bytes > KEPT_BYTES {
            let Some((_, oldest)) = self.texts.pop_front() else { break };
            self.bytes -= oldest.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(entry: u32) -> SegmentKey {
        SegmentKey { entry, tag: 0 }
    }

    fn text(len: usize) -> Arc<[u8]> {
        vec![b'x'; len].into()
    }

    #[test]
    fn every_length_is_known_and_only_the_last_texts_are_kept() {
        let mut infos = Infos::default();
        let state = StateNo(1);
        for entry in 0..100 {
            infos.put(state, key(entry), &text(100_000));
        }
        assert_eq!(infos.length(state, key(0)), Some(100_000));
        assert!(infos.text(state, key(0)).is_none());
        assert!(infos.text(state, key(99)).is_some());
        assert_eq!(infos.texts.len(), KEPT_BYTES / 100_000);
        infos.put(state, key(100), &text(KEPT_BYTES + 1));
        assert_eq!(infos.length(state, key(100)), Some(KEPT_BYTES as u64 + 1));
        assert!(infos.text(state, key(99)).is_some(), "one large text drives no others out");
    }

    #[test]
    fn a_newer_state_starts_afresh_and_an_older_one_is_not_remembered() {
        let mut infos = Infos::default();
        infos.put(StateNo(2), key(0), &text(5));
        assert_eq!(infos.length(StateNo(3), key(0)), None);
        infos.put(StateNo(1), key(0), &text(7));
        assert_eq!(infos.length(StateNo(1), key(0)), None);
        assert_eq!(infos.length(StateNo(2), key(0)), Some(5));
        infos.put(StateNo(3), key(1), &text(9));
        assert_eq!(infos.length(StateNo(2), key(0)), None);
        assert_eq!(infos.length(StateNo(3), key(1)), Some(9));
    }
}
