//! `README` of a store directory: how to use it, with examples that work when pasted.

use crate::store_dir::StoreDir;

/// The text, with this store's dimension and place.
#[must_use]
pub fn text(dir: &StoreDir) -> String {
    let snap = dir.snap();
    let dim = snap.view.dimension();
    let at = quoted(&dir.shown_as.display().to_string());
    let zeros = format!("python3 -c \"print(','.join(['0.1']*{dim}))\"");
    let some_id = snap.view.live_ordinals().first().map_or(0, |row| snap.view.id(*row));
    format!(
        "This directory is the vector store {path}\n\
         seen as files: {dim} numbers a vector, metric {metric}.\n\
         \n\
         Look around\n\
         \x20   cd {at}\n\
         \x20   cat status                      what it is, how many vectors, how healthy\n\
         \x20   ls segments                     every segment of the file, in order\n\
         \x20   cat vectors/{some_id}           one vector as text\n\
         \x20   cat metadata/{some_id}.json     its fields, when it has any\n\
         \x20   python3 -c \"import numpy; print(numpy.load('vectors.npy', mmap_mode='r').shape)\"\n\
         \n\
         Search: write a vector to query/in, read the nearest from query/out (id, tab, distance)\n\
         \x20   cat vectors/{some_id} > query/in && cat query/out\n\
         \x20   {zeros} > query/in && cat query/out\n\
         \x20   echo '{{\"id\": {some_id}, \"k\": 3}}' > query/in && cat query/out.json\n\
         A request is text (numbers, one vector a line), a JSON object (vector, vectors or id; k, ef, filter,\n\
         exact, fields), a .npy of shape [{dim}] or [q, {dim}], or raw little-endian float32. Opened read-write, query/in\n\
         answers on the same descriptor. Defaults are in query/k, query/ef, query/filter, query/exact and\n\
         query/timeout_ms; mkdir query/NAME makes a private session. Why a request failed is in query/error.\n\
         \n\
         Change (when mounted read-write)\n\
         \x20   cp data.npy ingest/             adds its rows, all or none; .jsonl .json .csv .fvecs too\n\
         \x20   {zeros} > vectors/1000001       creates or replaces a vector\n\
         \x20   echo '{{\"name\": \"x\"}}' > metadata/1000001.json\n\
         \x20   rm vectors/1000001              deletes it\n\
         \x20   cat ctl                         verbs such as compact and reindex; echo one into ctl\n\
         A write that is refused fails with an error number; the reason is in the file error.\n\
         \n\
         Files: file.rvf is the whole store; vectors.npy, ids.npy and metadata.jsonl are its contents in file order.\n",
        path = dir.store.path().display(),
        metric = crate::status::metric_name(snap.view.metric()),
    )
}

/// A path as a shell takes it.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if path.chars().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn paths_are_quoted_for_a_shell() {
        assert_eq!(super::quoted("/mnt/x"), "/mnt/x");
        assert_eq!(super::quoted("/mnt/my x"), "'/mnt/my x'");
        assert_eq!(super::quoted("it's"), "'it'\\''s'");
    }
}
