//! What is put into the programs of ours before they run: their constants, byte for byte as `bpf/programs/*.c` declares
//! them, and the names of their counters.

use crate::hot::HotSet;

/// Constants of the XDP program. It answers what is sent to `mac`; without one it does not look at the receiver, which is for
/// interfaces that have no address.
#[must_use]
pub fn distance_config(
    set: &HotSet,
    epoch: u32,
    port: u16,
    file_id: [u8; 16],
    mac: Option<[u8; 6]>,
) -> [u8; 48] {
    let mut out = [0; 48];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(set.vectors.len() as u32).to_le_bytes());
    put(4, &(set.scale.dimension as u32).to_le_bytes());
    put(8, &set.scale.step.to_le_bytes());
    put(16, &epoch.to_le_bytes());
    put(20, &port.to_le_bytes());
    put(22, &[set.scale.metric as u8, u8::from(mac.is_some())]);
    put(24, &file_id);
    put(40, &mac.unwrap_or_default());
    out
}

/// Names of the XDP program's counters, in order.
pub const DISTANCE_COUNTERS: [&str; 4] = ["answered", "described", "refused", "dropped"];

/// Constants of the filter: ids below `ids` are looked up in the bitmap; look-ups come to `port` (0: none is looked at) and
/// others than members leave by interface `elsewhere` (0: are dropped).
#[must_use]
pub fn filter_config(ids: u64, elsewhere: u32, port: u16) -> [u8; 16] {
    let mut out = [0; 16];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &ids.to_le_bytes());
    put(8, &elsewhere.to_le_bytes());
    put(12, &port.to_le_bytes());
    out
}

/// What the filter does with packets to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// As if there were no rule; look-ups are still looked at.
    Pass,
    /// Drops them.
    Drop,
    /// Sends them out of the interface with this index.
    Redirect(u32),
}

impl Action {
    /// The value of the map `rules`.
    #[must_use]
    pub fn map_value(self) -> [u32; 2] {
        match self {
            Self::Pass => [0, 0],
            Self::Drop => [1, 0],
            Self::Redirect(interface) => [2, interface],
        }
    }
}

/// Names of the filter's counters, in order.
pub const FILTER_COUNTERS: [&str; 7] = [
    "passed",
    "port_dropped",
    "port_redirected",
    "members",
    "others_dropped",
    "others_redirected",
    "malformed",
];

/// Most words of the filter's bitmap: ids up to 2^29.
pub const MAX_MEMBER_WORDS: u32 = 1 << 23;

/// Ids as the filter's bitmap, bit `id % 64` of word `id / 64`; `None` when an id is too large for it.
#[must_use]
pub fn member_words(ids: impl Iterator<Item = u64>) -> Option<Vec<u64>> {
    let mut words = Vec::new();
    for id in ids {
        let word = usize::try_from(id / 64).ok().filter(|word| *word < MAX_MEMBER_WORDS as usize)?;
        if word >= words.len() {
            words.resize(word + 1, 0);
        }
        if let Some(bits) = words.get_mut(word) {
            *bits |= 1_u64 << (id % 64);
        }
    }
    Some(words)
}

/// The words of a bitmap that a new map does not have already, and their places: those that are not zero. Each is a system call.
pub fn filled(words: &[u64]) -> impl Iterator<Item = (u32, u64)> {
    (0..).zip(words.iter().copied()).filter(|(_, word)| *word != 0)
}

/// Ports as the socket filter's bitmap, bit `port % 64` of word `port / 64`.
#[must_use]
pub fn port_words(ports: &[u16]) -> [u64; 1024] {
    let mut words = [0; 1024];
    for port in ports {
        words[usize::from(port / 64)] |= 1_u64 << (port % 64);
    }
    words
}

/// Names of the socket filter's counters, in order.
pub const PORTS_COUNTERS: [&str; 3] = ["let_through", "other_port", "no_port"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitmaps() {
        assert_eq!(member_words([0, 63, 64, 200].into_iter()), Some(vec![1 | 1 << 63, 1, 0, 1 << 8]));
        assert_eq!(member_words(std::iter::empty()), Some(Vec::new()));
        assert_eq!(member_words([1 << 29].into_iter()), None);
        let words = port_words(&[0, 53, 65535]);
        assert_eq!((words[0], words[1023], words[1]), (1 | 1 << 53, 1 << 63, 0));
        assert_eq!(filled(&words).collect::<Vec<_>>(), [(0, 1 | 1 << 53), (1023, 1 << 63)]);
        let far = member_words([5, (1 << 29) - 1].into_iter()).expect("room for it");
        assert_eq!(filled(&far).collect::<Vec<_>>(), [(0, 1 << 5), (MAX_MEMBER_WORDS - 1, 1 << 63)]);
    }
}
