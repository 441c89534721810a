//! `lineage`: where a store descends from, root first.

use std::path::Path;

use rvf_cow::Generation;

use crate::json;

/// The text: depth, file id, name, derivation, and `verified`, `missing` or `MISMATCH`, separated by tabs.
#[must_use]
pub fn text(path: &Path) -> String {
    match rvf_cow::lineage(path) {
        Ok(generations) => generations.iter().map(|generation| line(generation) + "\n").collect(),
        Err(error) => format!("# {error}\n"),
    }
}

/// The line of one file.
#[must_use]
pub fn line(generation: &Generation) -> String {
    let mut id = String::new();
    json::hex(&mut id, &generation.file_id);
    if generation.file_id == [0; 16] {
        id = "-".into();
    }
    let name = generation.path.as_deref().map_or_else(|| "-".into(), name_of);
    let (derivation, state) = (generation.derivation(), generation.state.word());
    format!("{}\t{id}\t{name}\t{derivation}\t{state}", generation.depth)
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
