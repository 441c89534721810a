//! Many writers, readers and listers at once on every writable directory of one mount: no request hangs, none fails but
//! for a reason that the operation has, and what is in the store afterwards is whole. `RVF_STRESS_STEPS=n` goes on longer.

mod mounted;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mounted::{Mounted, write_file};

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ z >> 31) % limit.max(1)
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len() as u64) as usize]
    }
}

const DROPS: [&str; 8] = [".a", ".b", "c.tmp", "x.jsonl", "y.csv", "z.npy", "z.ids.npy", "w.json"];

/// Refusals that some operation has a reason for. EIO, ESTALE, ENOTCONN, ETXTBSY and so on are not among them.
const REASONS: [i32; 8] = [
    libc::ENOENT,
    libc::EINVAL,
    libc::EEXIST,
    libc::EPERM,
    libc::ENOTDIR,
    libc::EISDIR,
    libc::EBUSY,
    libc::EBADF,
];

fn reasonable<T>(what: &str, path: &Path, result: io::Result<T>) {
    if let Err(error) = result {
        let errno = error.raw_os_error().unwrap_or(0);
        assert!(REASONS.contains(&errno), "{what} {}: {error}", path.display());
    }
}

/// A text that is good for some names and bad for others.
fn content(random: &mut Random) -> String {
    let id = random.below(30);
    match random.below(6) {
        0 => format!("{{\"id\": {id}, \"vector\": [{id}, 0, 0, 1], \"metadata\": {{\"n\": {id}}}}}\n"),
        1 => format!("id,v0,v1,v2,v3\n{id},1,2,3,4\n"),
        2 => format!("{id}, 2, 3, 4\n"),
        3 => format!("{{\"n\": {id}, \"s\": \"t\"}}\n"),
        4 => "nothing good".into(),
        _ => String::new(),
    }
}

fn step(at: &Path, random: &mut Random) {
    let place = random.below(4);
    let path: PathBuf = match place {
        0 | 1 => at.join("ingest").join(random.of(&DROPS)),
        2 => at.join(format!("vectors/{}", random.below(30))),
        _ => at.join(format!("metadata/{}.json", random.below(30))),
    };
    match random.below(12) {
        0..4 => reasonable("write", &path, write_file(&path, content(random).as_bytes())),
        4 => reasonable("remove", &path, fs::remove_file(&path)),
        5 => {
            let to = at.join("ingest").join(random.of(&DROPS));
            reasonable(
                "rename from",
                &path,
                fs::rename(&path, &to).or_else(|error| match error.raw_os_error() {
                    Some(libc::EXDEV) if place > 1 => Ok(()),
                    _ => Err(error),
                }),
            );
        }
        6 => reasonable("read", &path, fs::read(&path)),
        7 => {
            let name = random.of(&["", "ingest", "vectors", "metadata", "segments", "query"]);
            let dir = at.join(name);
            for entry in fs::read_dir(&dir).expect("a directory that is always there") {
                let path = entry.expect("an entry").path();
                reasonable("stat", &path, fs::metadata(&path));
            }
        }
        8 => {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            if let Ok(file) = file {
                reasonable("pwrite", &path, file.write_all_at(b"1", random.below(200)));
                reasonable("truncate", &path, file.set_len(random.below(100)));
                let mut text = Vec::new();
                reasonable("read", &path, (&file).read_to_end(&mut text));
                reasonable("close", &path, mounted::close(file));
            }
        }
        9 => {
            let name =
                random.of(&["vectors.npy", "ids.npy", "metadata.jsonl", "status.json", "events", "error"]);
            let path = at.join(name);
            // One open file is one state, however the store changes meanwhile.
            let mut file = File::open(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            if name == "vectors.npy" || name == "ids.npy" {
                let npy = rvf_fs::data::npy::Npy::parse(&bytes);
                npy.unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        }
        10 => {
            let session = at.join(format!("query/s{}", random.below(3)));
            reasonable("mkdir", &session, fs::create_dir(&session));
            reasonable("query", &session, fs::write(session.join("in"), "1,2,3,4\n"));
            reasonable("rmdir", &session, fs::remove_dir(&session));
        }
        _ => {
            let mut both =
                OpenOptions::new().read(true).write(true).open(at.join("query/in")).expect("query/in");
            both.write_all(b"1,2,3,4\n").expect("a request");
            let mut out = String::new();
            both.rewind().expect("a seek");
            both.read_to_string(&mut out).expect("its answer");
            let distances: Vec<f64> = out
                .lines()
                .map(|line| line.split('\t').nth(1).and_then(|text| text.parse().ok()).expect("a distance"))
                .collect();
            assert!(distances.is_sorted(), "{out}");
        }
    }
}

#[test]
fn everything_at_once_ends_well() {
    need_fuse!();
    let steps = std::env::var("RVF_STRESS_STEPS").ok().and_then(|text| text.parse().ok()).unwrap_or(150);
    for threads in ["1", "3"] {
        // Nobody reads the daemon's standard error here, and every refusal is a line.
        let mut m = Mounted::with(20, &["--threads", threads, "--log-file", "/dev/null"]);
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let at = m.at.clone();
                scope.spawn(move || {
                    let mut random = Random(seed);
                    for _ in 0..steps {
                        step(&at, &mut random);
                    }
                });
            }
        });
        m.write("ctl", "verify\n").expect("everything is whole");
        let ids = m.bytes("ids.npy");
        let ids = rvf_fs::data::npy::Npy::parse(&ids).and_then(|npy| npy.to_u64()).expect("ids");
        let listed: BTreeSet<String> = m.list("vectors").into_iter().collect();
        assert_eq!(listed, ids.iter().map(u64::to_string).collect::<BTreeSet<_>>());
        assert!(m.unmount().success());
        let view = mounted::open_store(&m.source).view();
        assert_eq!(view.live(), ids.len() as u64);
        assert!(ids.iter().all(|id| view.find(*id).is_some()));
    }
}
