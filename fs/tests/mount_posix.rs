//! What a Unix filesystem promises about names, opens and attributes, case by case as the POSIX test suites ask it, on
//! every kind of directory of a mounted store; and what a store directory refuses on purpose, with the reason.

mod mounted;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use mounted::{Mounted, errno};

/// Directories that hold nothing a user puts there.
const VIEWS: [&str; 5] = ["segments", "witness", "models", "signatures", "segments/000001-manifest"];

fn long() -> String {
    format!(".{}", "n".repeat(255))
}

#[test]
fn names_that_are_not_there() {
    need_fuse!();
    let m = Mounted::new(3);
    for dir in ["", "ingest", "vectors", "metadata", "query", "segments", "witness"] {
        let missing = m.path(dir).join(".missing");
        assert_eq!(errno(fs::metadata(&missing)), libc::ENOENT, "{dir}");
        assert_eq!(errno(File::open(&missing)), libc::ENOENT, "{dir}");
        assert_eq!(errno(fs::remove_file(&missing)), libc::ENOENT, "{dir}");
        assert_eq!(errno(fs::remove_dir(&missing)), libc::ENOENT, "{dir}");
        assert_eq!(errno(fs::rename(&missing, m.path(dir).join(".other"))), libc::ENOENT, "{dir}");
        assert_eq!(errno(fs::read_dir(&missing).map(|_| ())), libc::ENOENT, "{dir}");
        assert_eq!(errno(fs::metadata(missing.join("below"))), libc::ENOENT, "{dir}");
        let long = m.path(dir).join(long());
        assert_eq!(errno(fs::metadata(&long)), libc::ENAMETOOLONG, "{dir}");
        assert_eq!(errno(File::create(&long)), libc::ENAMETOOLONG, "{dir}");
        assert_eq!(errno(fs::create_dir(&long)), libc::ENAMETOOLONG, "{dir}");
    }
    m.write("ingest/.a", "x").expect("a draft");
    assert_eq!(errno(fs::rename(m.path("ingest/.a"), m.path("ingest").join(long()))), libc::ENAMETOOLONG);
}

#[test]
fn files_are_not_directories_nor_the_reverse() {
    need_fuse!();
    let m = Mounted::new(3);
    m.write("ingest/.a", "x").expect("a draft");
    for file in ["README", "status", "vectors/10", "metadata/0.json", "ingest/.a", "query/out", "ctl"] {
        let path = m.path(file);
        assert_eq!(errno(fs::metadata(path.join("below"))), libc::ENOTDIR, "{file}");
        assert_eq!(errno(fs::remove_dir(&path)), libc::ENOTDIR, "{file}");
        assert_eq!(errno(fs::read_dir(&path).map(|_| ())), libc::ENOTDIR, "{file}");
        assert_eq!(errno(fs::create_dir(&path)), libc::EEXIST, "{file}");
        assert_eq!(errno(symlink("x", &path)), libc::EEXIST, "{file}");
        let exclusive = OpenOptions::new().write(true).create_new(true).open(&path);
        assert_eq!(errno(exclusive), libc::EEXIST, "{file}");
        let directory = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(&path);
        assert_eq!(errno(directory), libc::ENOTDIR, "{file}");
    }
    for dir in ["", "ingest", "vectors", "metadata", "query", "segments"] {
        let path = m.path(dir);
        assert_eq!(errno(OpenOptions::new().write(true).open(&path)), libc::EISDIR, "{dir}");
        assert_eq!(errno(fs::remove_file(&path)), libc::EISDIR, "{dir}");
        let listing: Vec<_> = fs::read_dir(&path).expect("a listing").collect();
        assert!(listing.iter().all(Result::is_ok), "{dir}");
        assert!(fs::metadata(&path).expect("attributes").is_dir(), "{dir}");
    }
}

/// Listing by `d_type` and by `stat` say the same, sizes are what reading gives, and inode numbers are one a file.
#[test]
fn listings_agree_with_attributes_and_contents() {
    need_fuse!();
    let m = Mounted::new(3);
    m.write("ingest/.a", "x").expect("a draft");
    m.sh_ok("cp -r branches/main branches/exp");
    let mut dirs = vec![m.at.clone()];
    let (mut files, mut numbers) = (0, std::collections::HashSet::new());
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a listing") {
            let entry = entry.expect("an entry");
            let (path, kind) = (entry.path(), entry.file_type().expect("a type"));
            let meta = fs::symlink_metadata(&path).expect("attributes");
            assert_eq!(
                (kind.is_dir(), kind.is_file(), kind.is_symlink()),
                (meta.is_dir(), meta.is_file(), meta.is_symlink()),
                "{}",
                path.display()
            );
            assert!(!kind.is_fifo());
            assert!(numbers.insert(meta.ino()), "{}: inode {} twice", path.display(), meta.ino());
            if kind.is_dir() {
                dirs.push(path);
            } else if kind.is_file() {
                let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                assert_eq!(bytes.len() as u64, meta.len(), "{}", path.display());
                files += 1;
            }
        }
    }
    assert!(files > 30, "{files}");
}

#[test]
fn a_removed_file_lives_until_it_is_closed() {
    need_fuse!();
    let m = Mounted::new(1);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(m.path("ingest/.a"))
        .expect("a draft");
    file.write_all(b"before").expect("written");
    fs::remove_file(m.path("ingest/.a")).expect("removed");
    assert_eq!(m.list("ingest"), ["error"]);
    file.write_all(b" and after").expect("written");
    file.seek(SeekFrom::Start(0)).expect("a seek");
    let mut text = String::new();
    file.read_to_string(&mut text).expect("read");
    assert_eq!(text, "before and after");
    assert_eq!(file.metadata().expect("attributes").len(), 16);
    // The name is free: another file under it is another file.
    m.write("ingest/.a", "new").expect("a draft");
    assert_eq!(m.read("ingest/.a"), "new");
    file.set_len(3).expect("cut");
    assert_eq!(m.read("ingest/.a"), "new");
    drop(file);
    assert_eq!(m.list("ingest"), [".a", "error"]);
}

/// A vector's file has the id for its inode, so its attributes must not be looked for under a name that is gone.
#[test]
fn a_removed_vector_can_still_be_cut_by_who_writes_it() {
    need_fuse!();
    let m = Mounted::new(1);
    for name in ["vectors/7", "metadata/0.json"] {
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).open(m.path(name)).expect("open");
        file.write_all_at(b"1", 0).expect("written");
        fs::remove_file(m.path(name)).expect("removed");
        file.set_len(40).unwrap_or_else(|error| panic!("{name}: {error}"));
        file.set_len(0).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert_eq!(m.status("vectors"), "1");
}

#[test]
fn a_rename_replaces_and_keeps_what_is_open() {
    need_fuse!();
    let m = Mounted::new(1);
    m.write("ingest/.a", "a").expect("a draft");
    m.write("ingest/.b", "bb").expect("a draft");
    let old = File::open(m.path("ingest/.b")).expect("open");
    let moved = OpenOptions::new().read(true).append(true).open(m.path("ingest/.a")).expect("open");
    fs::rename(m.path("ingest/.a"), m.path("ingest/.b")).expect("renamed");
    assert_eq!(m.list("ingest"), [".b", "error"]);
    let mut text = [0; 8];
    assert_eq!(old.read_at(&mut text, 0).expect("read"), 2, "what was replaced is still open");
    (&moved).write_all(b"z").expect("written");
    assert_eq!(m.read("ingest/.b"), "az", "who wrote it goes on with it");
    fs::rename(m.path("ingest/.b"), m.path("ingest/.b")).expect("nothing to do");
    assert_eq!(m.read("ingest/.b"), "az");
}

#[test]
fn appends_of_two_writers_never_overlap() {
    need_fuse!();
    let m = Mounted::new(1);
    m.write("ingest/.log", "").expect("a draft");
    std::thread::scope(|scope| {
        for writer in ["a", "b", "c"] {
            let path = m.path("ingest/.log");
            scope.spawn(move || {
                let mut file = OpenOptions::new().append(true).open(path).expect("open");
                for n in 0..200 {
                    file.write_all(format!("{writer}{n}\n").as_bytes()).expect("appended");
                }
            });
        }
    });
    let text = m.read("ingest/.log");
    assert_eq!(text.lines().count(), 600);
    for writer in ["a", "b", "c"] {
        let own: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(writer)).collect();
        let want: Vec<String> = (0..200).map(|n| n.to_string()).collect();
        assert_eq!(own, want, "{writer}");
    }
}

#[test]
fn modes_and_times_of_a_dropped_file_are_kept() {
    need_fuse!();
    let m = Mounted::new(1);
    m.write("ingest/.a", "x").expect("a draft");
    let path = m.path("ingest/.a");
    fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("a mode");
    assert_eq!(fs::metadata(&path).expect("attributes").mode() & 0o7777, 0o640);
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    let file = OpenOptions::new().write(true).open(&path).expect("open");
    file.set_times(fs::FileTimes::new().set_modified(then)).expect("a time");
    assert_eq!(fs::metadata(&path).expect("attributes").modified().expect("a time"), then);
    drop(file);
    assert_eq!(
        fs::metadata(&path).expect("attributes").modified().expect("a time"),
        then,
        "closing changes nothing"
    );
    m.write("ingest/.a", "y").expect("a draft");
    assert!(fs::metadata(&path).expect("attributes").modified().expect("a time") > then);
}

/// Whoever has a file open still has it when its name is gone.
#[test]
fn a_file_without_a_name_has_attributes() {
    need_fuse!();
    let m = Mounted::new(2);
    for name in ["ingest/.a", "vectors/5"] {
        use std::io::Write;
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).open(m.path(name)).expect("opens");
        file.write_all(b"12").expect("written");
        fs::remove_file(m.path(name)).expect("removed");
        assert_eq!(file.metadata().expect("attributes").len(), 2, "{name}");
        drop(file);
        assert!(!m.path(name).exists(), "{name}");
    }
    assert_eq!(m.status("vectors"), "2");
}

/// A receipt has no descriptor whose close could take what is left of it, so `truncate` by name is refused; writing the
/// file again through one is an ordinary drop.
#[test]
fn a_receipt_is_not_cut_by_name() {
    need_fuse!();
    let m = Mounted::new(0);
    m.write("ingest/a.jsonl", "{\"id\": 1, \"vector\": [1,2,3,4]}\n").expect("a drop");
    let receipt = m.read("ingest/a.jsonl");
    let len = receipt.len() as u64;
    for (size, want) in [(0, libc::EPERM), (5, libc::EPERM), (len + 1, libc::EPERM), (len, 0)] {
        assert_eq!(truncate(&m, "ingest/a.jsonl", size), want, "{size}");
        assert_eq!(m.read("ingest/a.jsonl"), receipt);
    }
    assert!(m.read("ingest/error").starts_with("a.jsonl: this is a receipt; write the file again"));
    m.write("ingest/a.jsonl", "{\"id\": 2, \"vector\": [1,2,3,4]}\n").expect("a drop");
    assert_eq!(m.status("vectors"), "2");
}

#[expect(unsafe_code, reason = "std cannot cut by name")]
fn truncate(m: &Mounted, name: &str, len: u64) -> i32 {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(m.path(name).as_os_str().as_bytes()).expect("no NUL");
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    match unsafe { libc::truncate(path.as_ptr(), len as libc::off_t) } {
        0 => 0,
        _ => std::io::Error::last_os_error().raw_os_error().unwrap_or(-1),
    }
}

/// The list of what a store directory does not do, each with its errno and why.
#[test]
fn what_is_refused_on_purpose() {
    need_fuse!();
    let m = Mounted::new(3);
    let mkfifo = |name: &str| {
        let status = std::process::Command::new("mkfifo")
            .arg(m.path(name))
            .env("LC_ALL", "C")
            .output()
            .expect("mkfifo runs");
        String::from_utf8_lossy(&status.stderr).contains("Operation not permitted")
    };
    // Links, devices and pipes have no meaning for vectors.
    m.write("ingest/.a", "x").expect("a draft");
    assert_eq!(errno(symlink("x", m.path("ingest/.s"))), libc::EPERM);
    assert_eq!(errno(fs::hard_link(m.path("ingest/.a"), m.path("ingest/.h"))), libc::EPERM);
    assert!(mkfifo("ingest/.f"));
    // A drop is one file; directories are made only in query/, where they are sessions.
    for dir in ["ingest/d", "vectors/d", "metadata/d", "d", "segments/d"] {
        assert_eq!(errno(fs::create_dir(m.path(dir))), libc::EPERM, "{dir}");
    }
    fs::create_dir(m.path("query/s")).expect("a session");
    assert_eq!(errno(fs::create_dir(m.path("query/s"))), libc::EEXIST);
    assert_eq!(errno(fs::create_dir(m.path("query/s/t"))), libc::EPERM, "sessions do not nest");
    fs::remove_dir(m.path("query/s")).expect("removed");
    // The name of a dropped file says what is in it, or that it is not whole yet.
    assert_eq!(errno(File::create(m.path("ingest/notes.txt"))), libc::EINVAL);
    assert_eq!(errno(File::create(m.path("vectors/007"))), libc::EINVAL, "one name an id");
    assert_eq!(errno(File::create(m.path("metadata/7"))), libc::EINVAL);
    // The rest is a view of the store, and of nothing else.
    for dir in VIEWS.iter().chain(&["", "query"]) {
        assert_eq!(errno(File::create(m.path(dir).join("new"))), libc::EPERM, "{dir}");
    }
    for view in ["README", "status", "vectors.npy", "file.rvf", "segments/000001-manifest/raw", "query/out"] {
        let path = m.path(view);
        assert_eq!(errno(OpenOptions::new().write(true).open(&path)), libc::EPERM, "{view}");
        assert_eq!(errno(fs::remove_file(&path)), libc::EPERM, "{view}");
        let beside = path.with_file_name("x");
        assert_eq!(errno(fs::rename(&path, beside)), libc::EPERM, "{view}");
        assert_eq!(errno(fs::set_permissions(&path, Permissions::from_mode(0o600))), libc::EPERM, "{view}");
    }
    for dir in ["ingest", "vectors", "query", "segments"] {
        assert_eq!(errno(fs::remove_dir(m.path(dir))), libc::EPERM, "{dir}");
        assert_eq!(errno(fs::rename(m.path(dir), m.path("x"))), libc::EPERM, "{dir}");
    }
    // What is stored keeps its id, and data moves between directories by being written, not by a rename.
    assert_eq!(errno(fs::rename(m.path("vectors/10"), m.path("vectors/11"))), libc::EPERM);
    assert_eq!(errno(fs::rename(m.path("ingest/.a"), m.path("vectors/.a"))), libc::EXDEV);
    // No other attributes than those that say where something lies in the file.
    let set = std::process::Command::new("python3")
        .args(["-c", "import os,sys; os.setxattr(sys.argv[1], 'user.x', b'1')"])
        .arg(m.path("ingest/.a"))
        .output();
    if let Ok(output) = set {
        assert!(String::from_utf8_lossy(&output.stderr).contains("Operation not supported"));
    }
    assert_eq!(m.status("vectors"), "3", "nothing was changed by all this");
}
