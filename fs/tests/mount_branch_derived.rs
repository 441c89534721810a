//! Children that `rvf derive` makes, as branches of a mount: with vectors of their own, or some of the store's.

mod mounted;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use mounted::{DIM, Mounted, has_numpy, npy, open_store, wait_until};
use serde_json::Value;

/// How each is made, how many of twenty vectors it shows, and whether the existing tools can open it.
const KINDS: [(&str, &[&str], usize, bool); 5] = [
    ("f16", &["-t", "quantize", "--precision", "f16"], 20, false),
    ("int8", &["-t", "quantize", "--precision", "int8"], 20, false),
    ("normal", &["-t", "transform", "--normalize"], 20, true),
    ("fine", &["-t", "reindex", "--m", "8", "--ef-construction", "50"], 20, true),
    ("some", &["-t", "filter", "--filter", "year >= 2010"], 5, true),
];

fn child(m: &Mounted, name: &str) -> PathBuf {
    m.source.with_file_name(format!("store.{name}.rvf"))
}

fn derive(m: &Mounted, name: &str, how: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_rvf"))
        .arg("derive")
        .args([&m.source, &child(m, name)])
        .args(how)
        .output()
        .expect("rvf runs");
    assert!(output.status.success(), "{how:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn ids(m: &Mounted, branch: &str) -> Vec<u64> {
    let bytes = m.bytes(&format!("branches/{branch}/ids.npy"));
    bytes[128..].chunks_exact(8).map(|id| u64::from_le_bytes(id.try_into().expect("eight bytes"))).collect()
}

fn rows(m: &Mounted, branch: &str) -> Vec<Vec<f32>> {
    let bytes = m.bytes(&format!("branches/{branch}/vectors.npy"));
    let numbers = bytes[128..].chunks_exact(4).map(|v| f32::from_le_bytes(v.try_into().expect("four bytes")));
    numbers.collect::<Vec<f32>>().chunks_exact(DIM).map(<[f32]>::to_vec).collect()
}

fn infos(m: &Mounted, branch: &str) -> Vec<Value> {
    let segments = format!("branches/{branch}/segments");
    let info = |name: &String| m.read(&format!("{segments}/{name}/info.json"));
    m.list(&segments).iter().map(|name| serde_json::from_str(&info(name)).expect("JSON")).collect()
}

/// Everything that can be written in a branch, and is refused when it is frozen.
fn all_writes(m: &Mounted, branch: &str, id: u64) -> Vec<(&'static str, std::io::Result<()>)> {
    let at = |name: &str| m.path(&format!("branches/{branch}/{name}"));
    vec![
        ("a new vector", m.write(&format!("branches/{branch}/vectors/999"), "1,1,1,1\n")),
        ("a vector", m.write(&format!("branches/{branch}/vectors/{id}"), "1,1,1,1\n")),
        ("no vector", fs::remove_file(at(&format!("vectors/{id}")))),
        ("metadata", m.write(&format!("branches/{branch}/metadata/{id}.json"), "{\"year\": 1}\n")),
        ("a dropped file", m.write(&format!("branches/{branch}/ingest/x.npy"), npy(&[[1.0; 4]]))),
        ("delete", m.write(&format!("branches/{branch}/ctl"), format!("delete {id}\n"))),
        ("compact", m.write(&format!("branches/{branch}/ctl"), "compact\n")),
        ("reindex", m.write(&format!("branches/{branch}/ctl"), "reindex\n")),
    ]
}

#[test]
fn derived_children_are_branches_like_others() {
    need_fuse!();
    let m = Mounted::new(20);
    for (name, how, count, opens) in KINDS {
        derive(&m, name, how);
        wait_until("it is listed", || m.list("branches").contains(&name.to_owned()));
        // The same numbers in every form, and as the store itself has them.
        let (ids, rows) = (ids(&m, name), rows(&m, name));
        assert_eq!((ids.len(), rows.len()), (count, count), "{name}");
        let view = open_store(&child(&m, name)).view();
        for (id, row) in ids.iter().zip(&rows) {
            let text = m.read(&format!("branches/{name}/vectors/{id}"));
            let shown: Vec<f32> =
                text.trim().split(',').map(|v| v.trim().parse().expect("a number")).collect();
            assert_eq!(&shown, row, "{name}/{id}");
            let stored: Vec<u8> = row.iter().flat_map(|v| v.to_le_bytes()).collect();
            assert_eq!(
                view.resolved().vector(view.resolved().find(*id).expect("there")),
                stored,
                "{name}/{id}"
            );
        }
        if name == "normal" {
            assert!(rows.iter().all(|row| (row.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5));
        }
        // It finds itself.
        let (id, row) = (ids[count - 2], &rows[count - 2]);
        let asked = row.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
        m.sh_ok(&format!("echo {asked} > branches/{name}/query/in"));
        let first = m.read(&format!("branches/{name}/query/out"));
        assert!(first.starts_with(&format!("{id}\t0")), "{name}: {first}");
        m.sh_ok(&format!(
            "echo '{{\"id\": {id}, \"k\": 3, \"filter\": \"year >= 2012\"}}' > branches/{name}/query/in"
        ));
        let found = m.read(&format!("branches/{name}/query/out"));
        assert!(found.lines().count() == 3, "{name}: {found}");
        // How it was made.
        let infos = infos(&m, name);
        let record = infos.iter().find(|info| info["derivation"].is_string()).expect("a record");
        assert_eq!(record["derivation"], how[1], "{record}");
        assert_eq!(record["needs_parent"], name == "some", "{record}");
        assert_eq!(record["made_from"]["epoch"], 1, "{record}");
        let maps = infos.iter().filter(|info| info["parent_path"] == "store.rvf").count();
        assert_eq!(maps > 0, name == "some", "{infos:?}");
        assert_eq!(view.reference_opens().is_ok(), opens, "{name}: {:?}", view.reference_opens());
        assert_eq!(
            fs::read_link(m.path(&format!("branches/{name}/parent"))).expect("a link"),
            Path::new("../main")
        );
    }
    if has_numpy() {
        m.sh_ok(
            "python3 -c \"
import numpy as np
for name in ['f16', 'int8', 'normal', 'fine', 'some']:
    v = np.load(f'branches/{name}/vectors.npy', mmap_mode='r')
    ids = np.load(f'branches/{name}/ids.npy')
    assert v.shape == (len(ids), 4) and v.dtype == np.float32, (name, v.shape)
    for id, row in zip(ids, v):
        assert (np.loadtxt(f'branches/{name}/vectors/{id}', delimiter=',', dtype=np.float32) == row).all(), (name, id)
\"",
        );
    }
}

#[test]
fn branches_of_derived_children_are_copied_moved_frozen_and_exported() {
    need_fuse!();
    let m = Mounted::new(20);
    let out = tempfile::tempdir().expect("a directory");
    for (name, how, count, _) in KINDS {
        derive(&m, name, how);
        wait_until("it is listed", || m.list("branches").contains(&name.to_owned()));
        let (copy, moved) = (format!("{name}2"), format!("{name}-moved"));
        m.sh_ok(&format!("cp -r branches/{name} branches/{copy}"));
        assert!(fs::metadata(child(&m, &copy)).expect("a file").len() <= 2048);
        for file in ["vectors.npy", "ids.npy", "metadata.jsonl"] {
            let same =
                m.bytes(&format!("branches/{name}/{file}")) == m.bytes(&format!("branches/{copy}/{file}"));
            assert!(same, "{name}: {file}");
        }
        assert_eq!(m.read(&format!("branches/{copy}/diff.jsonl")), "");
        let id = ids(&m, name)[1];
        let before = m.read(&format!("branches/{name}/vectors/{id}"));
        m.sh_ok(&format!(
            "echo 5,5,5,5 > branches/{copy}/vectors/{id} && echo 6,6,6,6 > branches/{copy}/vectors/777"
        ));
        assert_eq!(m.read(&format!("branches/{name}/vectors/{id}")), before);
        assert_eq!(m.read(&format!("branches/{copy}/diff.jsonl")).lines().count(), 2);
        // The one above gets another name.
        m.sh_ok(&format!("mv branches/{name} branches/{moved}"));
        let parent = fs::read_link(m.path(&format!("branches/{copy}/parent"))).expect("a link");
        assert_eq!(parent, PathBuf::from(format!("../{moved}")));
        assert_eq!(ids(&m, &copy).len(), count + 1);
        assert!(open_store(&child(&m, &copy)).view().complete().is_ok());
        // Out of the mount and back in.
        let aside = out.path().join(&copy);
        m.sh_ok(&format!("cp -r branches/{copy} {0} && cp -r {0} branches/{copy}-back", aside.display()));
        assert_eq!(rows(&m, &format!("{copy}-back")), rows(&m, &copy), "{name}");
        // Frozen: nothing is taken, and copies go on from there.
        m.sh_ok(&format!("chmod a-w branches/{moved}"));
        let mode = fs::metadata(m.path(&format!("branches/{moved}"))).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o555);
        let len = fs::metadata(child(&m, &moved)).expect("a file").len();
        for (what, result) in all_writes(&m, &moved, id) {
            // One that has no rows of its own has nothing to index, and is not written to.
            if (name, what) == ("some", "reindex") {
                continue;
            }
            let refused = result.expect_err(&format!("{name}: {what}"));
            assert_eq!(refused.raw_os_error(), Some(libc::EROFS), "{name}: {what}");
        }
        assert_eq!(fs::metadata(child(&m, &moved)).expect("a file").len(), len);
        m.sh_ok(&format!(
            "cp -a branches/{moved} branches/{name}-on && echo 1,1,1,1 > branches/{name}-on/vectors/1"
        ));
        assert_eq!(ids(&m, &format!("{name}-on")).len(), count + 1);
        assert_eq!(m.sh(&format!("cp -r branches/main branches/{moved}")).status.code(), Some(1));
        m.sh_ok(&format!("rm -r branches/{name}-on branches/{copy}-back branches/{copy} branches/{moved}"));
    }
    assert_eq!(m.list("branches"), ["main"]);
    m.sh_ok("find branches > /dev/null");
    m.sh_ok("du -s branches > /dev/null");
}
