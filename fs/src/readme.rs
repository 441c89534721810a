//! `README` of a store directory: how to use it, with examples that work when pasted.

use std::fmt::Write as _;

use crate::source::Directory;
use crate::store_dir::{Settings, StoreDir};

/// The text, with this store's dimension and place. Every indented line is a command that works in a shell.
#[must_use]
pub fn text(dir: &StoreDir) -> String {
    let snap = dir.snap();
    let dim = snap.view.dimension();
    let at = quoted(&dir.shown_as.display().to_string());
    let some = format!("python3 -c \"print(','.join(['0.1']*{dim}))\"");
    let mut out = format!(
        "This directory is the vector store {path}\n\
         seen as files: {dim} numbers a vector, metric {metric}.\n\
         \n\
         Look around\n\
         \x20   cd {at}\n\
         \x20   cat status             # what it is, how many vectors, how healthy\n\
         \x20   ls segments            # every segment of the file, in order\n\
         \x20   ls vectors | head -3   # ids; each file is one vector as text\n\
         \x20   head -3 metadata.jsonl # fields, where there are any\n\
         \x20   python3 -c \"import numpy; print(numpy.load('vectors.npy', mmap_mode='r').shape)\"\n\
         \n\
         Search: write a vector to query/in, read the nearest from query/out (id, tab, distance)\n\
         \x20   {some} > query/in && cat query/out\n",
        path = dir.store.path().display(),
        metric = crate::status::metric_name(snap.view.metric()),
    );
    if let Some(id) = snap.view.resolved().at(0).map(|place| snap.view.resolved().id(place)) {
        let _ = write!(
            out,
            "\x20   cat vectors/{id} > query/in && cat query/out\n\
             \x20   echo '{{\"id\": {id}, \"k\": 3, \"fields\": true}}' > query/in && cat query/out.json\n"
        );
    }
    let _ = write!(
        out,
        "A request is text (numbers, one vector a line), a JSON object (vector, vectors or id; k, ef, filter,\n\
         exact, fields, timeout_ms), a .npy of shape [{dim}] or [q, {dim}], or raw little-endian float32. Opened\n\
         read-write, query/in answers on the same descriptor. Defaults are in query/k, query/ef, query/filter,\n\
         query/exact and query/timeout_ms; mkdir query/NAME makes a private session. Why a request failed is in\n\
         query/error.\n"
    );
    out.push_str(
        "\n\
         Programs that the file carries: of each NAME the image, and beside it a small entry that stands for it\n\
         kernel/  Linux kernels: NAME.bin is the image, NAME boots it in a virtual machine that serves this store\n\
         ebpf/    eBPF objects: NAME.o is the object, NAME loads it into this machine's kernel\n\
         wasm/    WebAssembly modules: NAME.wasm is the module, NAME runs it in a sandbox\n\
         Entries can be executed where this was mounted with -o exec; rvf-exec, which they name, runs only what a\n\
         trusted key signed.\n",
    );
    if !dir.settings.read_only {
        let _ = write!(
            out,
            "\n\
             Change\n\
             \x20   python3 -c \"import numpy; numpy.save('ingest/ones.npy', numpy.ones((2, {dim}), 'f4'))\"\n\
             \x20   cat ingest/ones.npy    # the receipt: how many, under which ids\n\
             \x20   rm ingest/ones.npy     # only the receipt goes\n\
             \x20   {some} > vectors/{example}\n\
             \x20   echo '{{\"name\": \"example\"}}' > metadata/{example}.json\n\
             \x20   rm vectors/{example}   # deletes it\n\
             \x20   cp -r branches/main branches/example   # a copy-on-write branch, a few hundred bytes\n\
             \x20   cat branches/example/diff.jsonl        # what it shows otherwise: nothing yet\n\
             \x20   rm -r branches/example\n\
             \x20   cat ctl                # verbs such as compact and reindex; echo one into ctl\n\
             .npy, .jsonl, .json, .csv and .fvecs files can be dropped into ingest/; each is added whole or not at all.\n\
             A program copied into kernel/, ebpf/ or wasm/ is checked and embedded; options for it go into NAME.json first.\n\
             A write that is refused fails with an error number; the reason is in the file error.\n",
            example = 9_000_000_001_u64,
        );
    }
    out.push_str(
        "\nfile.rvf is the whole store; vectors.npy, ids.npy and metadata.jsonl are its contents in file order.\n",
    );
    out
}

/// `README` of a mounted directory of stores.
#[must_use]
pub fn of_directory(directory: &Directory, settings: &Settings) -> String {
    let stores = directory.list();
    let mut out = format!(
        "Every directory here is one vector store (.rvf file) of {path}\n\
         seen as files, named like its file. Files that come, go or change there show up by themselves.\n\
         \n\
         Look around\n\
         \x20   cd {at}\n\
         \x20   ls                     # the stores: {count} now\n",
        path = directory.path.display(),
        at = quoted(&settings.mountpoint.display().to_string()),
        count = stores.len(),
    );
    if let Some((name, _)) = stores.first() {
        let name = quoted(name);
        let _ = write!(
            out,
            "\x20   cat {name}/README      # how to use a store, with examples\n\
             \x20   cat {name}/status      # what it is, how many vectors, how healthy\n"
        );
    }
    out.push_str(
        "\nNothing can be made or copied in beside the stores: a new store is an .rvf file in the directory that is\n\
         mounted (rvf create, cp). A store that cannot be opened holds only the file error, which says why. What was\n\
         refused here last is in the file error here. It and this README are found by name and not listed.\n",
    );
    out
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
