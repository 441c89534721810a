//! What the maps of an object ask for, before the kernel is asked for any of it.

use aya_obj::generated::bpf_map_type::{self, *};
use aya_obj::maps::PinningType;
use aya_obj::{Map, Object};

use crate::run::Failure;

/// What the kernel keeps beside the key and the value of an entry, at the least.
const ENTRY: u64 = 48;
/// Bytes of a page of an arena, whose entries are pages.
const PAGE: u64 = 4096;

/// Refuses an object whose maps take more than `most` bytes, or are to be pinned.
///
/// # Errors
/// [`Failure`] that names the largest map, or says that the object cannot be read.
pub(super) fn check(object: &[u8], most: u64) -> Result<(), Failure> {
    let object = rvf_bpf::for_loader(object).map_err(|e| Failure::refused(e.to_string()))?;
    let parsed = Object::parse(&object)
        .map_err(|e| Failure::failed(format!("the object cannot be loaded: {}", super::load::chain(&e))))?;
    if let Some((name, _)) = parsed.maps.iter().find(|(_, map)| map.pinning() != PinningType::None) {
        let name = name.escape_default();
        return Err(Failure::refused(format!(
            "the program wants its map '{name}' pinned, to be there after it; nothing is left behind here"
        )));
    }
    let cpus = aya::util::nr_cpus()
        .map_err(|(path, e)| Failure::missing(format!("the number of processors: {path}: {e}")))?;
    let mut sizes: Vec<(u64, &str)> =
        parsed.maps.iter().map(|(name, map)| (size(map, cpus as u64), name.as_str())).collect();
    sizes.sort_unstable();
    let total = sizes.iter().fold(0_u64, |sum, (size, _)| sum.saturating_add(*size));
    match sizes.last() {
        Some((largest, name)) if total > most => {
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            Err(Failure::limit(format!(
                "the program's maps would take {} MiB of the kernel's memory, '{}' alone {} MiB, and {} MiB is the limit; \
                 nothing was loaded. --map-memory MIB sets another limit",
                mib(total),
                name.escape_default(),
                mib(*largest),
                most >> 20
            )))
        }
        _ => Ok(()),
    }
}

/// Bytes of a map, as it is declared.
fn size(map: &Map, cpus: u64) -> u64 {
    let kind = bpf_map_type::try_from(map.map_type()).unwrap_or(BPF_MAP_TYPE_UNSPEC);
    let entries = u64::from(map.max_entries());
    let (key, value) = (u64::from(map.key_size()), u64::from(map.value_size()).next_multiple_of(8));
    let each = match kind {
        // Of these the number of entries is a number of bytes.
        BPF_MAP_TYPE_RINGBUF | BPF_MAP_TYPE_USER_RINGBUF => 1,
        BPF_MAP_TYPE_ARENA => PAGE,
        BPF_MAP_TYPE_ARRAY | BPF_MAP_TYPE_QUEUE | BPF_MAP_TYPE_STACK => value,
        BPF_MAP_TYPE_PERCPU_ARRAY => value.saturating_mul(cpus).saturating_add(8),
        BPF_MAP_TYPE_PERCPU_HASH
        | BPF_MAP_TYPE_LRU_PERCPU_HASH
        | BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE_DEPRECATED => {
            value.saturating_mul(cpus).saturating_add(key.next_multiple_of(8)).saturating_add(ENTRY)
        }
        _ => value.saturating_add(key.next_multiple_of(8)).saturating_add(ENTRY),
    };
    entries.saturating_mul(each)
}
