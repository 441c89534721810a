//! Random operations on `ingest/` of a real mount beside a plain model of what a Unix filesystem does: every errno and
//! every byte is compared. `RVF_MODEL_SEED=n` starts elsewhere, `RVF_MODEL_STEPS=n` goes on longer.

mod mounted;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;

use mounted::Mounted;

/// Names of files that are not whole yet: ordinary files in every respect.
const PLAIN: [&str; 6] = [".a", ".b", "c.tmp", "d~", "e.part", ".name with blanks \u{e9}"];
/// Names that mean rows: a file becomes a receipt under one of these.
const ROWS: [&str; 3] = ["x.jsonl", "y.jsonl", "z.JSONL"];
/// Names that nothing can be told from.
const NAMELESS: [&str; 3] = ["plain", "notes.txt", ".."];

/// Crosses the size where a draft moves from memory to a file.
const LARGEST: u64 = 3 << 19;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }

    /// Mostly small, sometimes past what is kept in memory.
    fn offset(&mut self) -> u64 {
        if self.one_in(12) { self.below(LARGEST) } else { self.below(9000) }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = if self.one_in(10) { self.below(200_000) } else { self.below(5000) };
        let mut state = self.next();
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect()
    }
}

/// A file of the model: its bytes, shared by its name and by who has it open.
type Content = Rc<RefCell<Vec<u8>>>;

#[derive(Clone)]
enum Entry {
    Plain(Content),
    /// Its text is the mount's own business; it was given at the rename.
    Receipt(Vec<u8>),
}

struct Open {
    file: File,
    content: Content,
    read: bool,
    write: bool,
    append: bool,
    /// Its name is gone. Attributes of such a file are still those of its handle.
    number: u64,
}

struct Model {
    mounted: Mounted,
    names: BTreeMap<String, Entry>,
    open: Vec<Open>,
    random: Random,
    /// Ids that were put into the store.
    rows: u64,
    opened: u64,
    log: Vec<String>,
}

fn errno_of<T>(result: &io::Result<T>) -> i32 {
    result.as_ref().err().map_or(0, |error| error.raw_os_error().unwrap_or(-1))
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL")
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[expect(unsafe_code, reason = "std cannot cut by name, make a FIFO, or refuse to replace")]
mod calls {
    use super::*;

    pub(super) fn truncate(path: &Path, len: u64) -> io::Result<()> {
        let path = c_path(path);
        // SAFETY: `path` is a NUL-terminated string that outlives the call.
        checked(unsafe { libc::truncate(path.as_ptr(), len as libc::off_t) })
    }

    pub(super) fn mkfifo(path: &Path) -> io::Result<()> {
        let path = c_path(path);
        // SAFETY: as above.
        checked(unsafe { libc::mkfifo(path.as_ptr(), 0o600) })
    }

    pub(super) fn rename_no_replace(from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (c_path(from), c_path(to));
        // SAFETY: both are NUL-terminated strings that outlive the call.
        checked(unsafe {
            libc::renameat2(
                libc::AT_FDCWD,
                from.as_ptr(),
                libc::AT_FDCWD,
                to.as_ptr(),
                libc::RENAME_NOREPLACE,
            )
        })
    }

    /// The first `len` bytes of a file as a private mapping shows them.
    pub(super) fn mapped(file: &File, len: usize) -> io::Result<Vec<u8>> {
        // SAFETY: a new mapping at an address of the kernel's choice; nothing else knows it.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `len` bytes are mapped, and the file has at least as many: nobody else changes it meanwhile.
        let bytes = unsafe { std::slice::from_raw_parts(at.cast::<u8>(), len) }.to_vec();
        // SAFETY: the mapping made above, of which no reference is left.
        unsafe { libc::munmap(at, len) };
        Ok(bytes)
    }
}

impl Model {
    fn new(seed: u64) -> Self {
        Self {
            // Nobody reads the daemon's standard error here, and every refusal is a line.
            mounted: Mounted::with(2, &["--log-file", "/dev/null"]),
            names: BTreeMap::new(),
            open: Vec::new(),
            random: Random(seed),
            rows: 0,
            opened: 0,
            log: Vec::new(),
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.mounted.path("ingest").join(name)
    }

    fn say(&mut self, what: String) {
        if self.log.len() > 60 {
            self.log.remove(0);
        }
        self.log.push(what);
    }

    /// Compares an errno; 0 is success.
    fn same(&self, got: i32, want: i32) {
        assert_eq!(got, want, "errno; the last operations:\n{}", self.log.join("\n"));
    }

    fn same_bytes(&self, got: &[u8], want: &[u8]) {
        let at = got.iter().zip(want).position(|(a, b)| a != b);
        assert!(
            got == want,
            "{} bytes, not {}; first difference at {at:?}; the last operations:\n{}",
            got.len(),
            want.len(),
            self.log.join("\n")
        );
    }

    fn plain(&self, name: &str) -> Option<Content> {
        match self.names.get(name) {
            Some(Entry::Plain(content)) => Some(content.clone()),
            _ => None,
        }
    }

    fn is_open(&self, content: &Content) -> bool {
        self.open.iter().any(|open| Rc::ptr_eq(&open.content, content))
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..16 => self.open_one(),
            16..24 => self.close_one(),
            24..40 => self.write_one(),
            40..52 => self.read_one(),
            52..58 => self.truncate_one(),
            58..64 => self.unlink_one(),
            64..72 => self.rename_plain(),
            72..75 => self.commit(),
            75..80 => self.list(),
            80..86 => self.attributes(),
            86..90 => self.map_one(),
            90..93 => self.refused(),
            93..96 => self.sync_one(),
            _ => self.change_while_listing(),
        }
    }

    fn open_one(&mut self) {
        if self.open.len() >= 8 {
            return self.close_one();
        }
        let name = if self.random.one_in(15) { self.random.of(&NAMELESS) } else { self.random.of(&PLAIN) };
        let (read, write) = self.random.of(&[(true, false), (false, true), (true, true), (true, true)]);
        let (create, exclusive, truncate, append) = (
            write && !self.random.one_in(3),
            self.random.one_in(5),
            write && self.random.one_in(4),
            write && self.random.one_in(4),
        );
        let exclusive = create && exclusive;
        self.opened += 1;
        let number = self.opened;
        self.say(format!(
            "open {name} as {number}: read {read} write {write} create {create} exclusive {exclusive} truncate {truncate} append {append}"
        ));
        let flags = if create { libc::O_CREAT } else { 0 }
            | if exclusive { libc::O_EXCL } else { 0 }
            | if truncate { libc::O_TRUNC } else { 0 }
            | if append { libc::O_APPEND } else { 0 };
        let result =
            File::options().read(read).write(write).custom_flags(flags).mode(0o644).open(self.path(name));
        let there = self.plain(name);
        let want = match (name, &there) {
            ("..", _) if exclusive => libc::EEXIST,
            ("..", _) if write => libc::EISDIR,
            ("..", _) => 0,
            (_, Some(_)) if exclusive => libc::EEXIST,
            (_, None) if !create => libc::ENOENT,
            (_, None) if NAMELESS.contains(&name) => libc::EINVAL,
            _ => 0,
        };
        self.same(errno_of(&result), want);
        let Ok(file) = result else { return };
        if name == ".." {
            return;
        }
        let content = there.unwrap_or_default();
        if truncate {
            content.borrow_mut().clear();
        }
        self.names.entry(name.to_owned()).or_insert_with(|| Entry::Plain(content.clone()));
        self.open.push(Open { file, content, read, write, append, number });
    }

    fn pick_open(&mut self) -> Option<usize> {
        (!self.open.is_empty()).then(|| self.random.below(self.open.len() as u64) as usize)
    }

    fn close_one(&mut self) {
        let Some(at) = self.pick_open() else { return };
        let open = self.open.swap_remove(at);
        self.say(format!("close {}", open.number));
        let result = mounted::close(open.file);
        self.same(errno_of(&result), 0);
    }

    fn write_one(&mut self) {
        let Some(at) = self.pick_open() else { return };
        let (offset, data) = (self.random.offset(), self.random.bytes());
        let open = &self.open[at];
        let line =
            format!("write {} bytes at {offset} to {} (append {})", data.len(), open.number, open.append);
        self.say(line);
        let open = &self.open[at];
        let (result, start) = if open.append {
            // pwrite(2) on Linux appends too; the plain call is what programs use.
            (io::Write::write_all(&mut &open.file, &data), open.content.borrow().len() as u64)
        } else {
            (open.file.write_all_at(&data, offset), offset)
        };
        // Writing nothing does not even look whether it may.
        let want = if open.write || data.is_empty() { 0 } else { libc::EBADF };
        if want == 0 && open.write && !data.is_empty() {
            let mut content = open.content.borrow_mut();
            let end = start as usize + data.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[start as usize..end].copy_from_slice(&data);
        }
        self.same(errno_of(&result), want);
    }

    fn read_one(&mut self) {
        if self.random.one_in(3) {
            let name = self.random.of(&PLAIN);
            self.say(format!("read all of {name}"));
            let result = fs::read(self.path(name));
            match self.plain(name) {
                Some(content) => self.same_bytes(&result.expect("it is there"), &content.borrow()),
                None => self.same(errno_of(&result), libc::ENOENT),
            }
            return;
        }
        let Some(at) = self.pick_open() else { return };
        let (offset, len) = (self.random.offset(), self.random.below(70_000) as usize + 1);
        let line = format!("read {len} bytes at {offset} of {}", self.open[at].number);
        self.say(line);
        let open = &self.open[at];
        let mut got = vec![0; len];
        let mut have = 0;
        let result = loop {
            match open.file.read_at(&mut got[have..], offset + have as u64) {
                Ok(0) => break Ok(()),
                Ok(n) => have += n,
                Err(error) => break Err(error),
            }
            if have == len {
                break Ok(());
            }
        };
        self.same(errno_of(&result), if open.read { 0 } else { libc::EBADF });
        if open.read {
            let content = open.content.borrow();
            let start = (offset as usize).min(content.len());
            let end = (start + len).min(content.len());
            self.same_bytes(&got[..have], &content[start..end]);
        }
    }

    fn truncate_one(&mut self) {
        let len = self.random.offset();
        if self.random.one_in(2) {
            let name = self.random.of(&PLAIN);
            self.say(format!("truncate {name} to {len}"));
            let result = calls::truncate(&self.path(name), len);
            match self.plain(name) {
                Some(content) => {
                    self.same(errno_of(&result), 0);
                    content.borrow_mut().resize(len as usize, 0);
                }
                None => self.same(errno_of(&result), libc::ENOENT),
            }
            return;
        }
        let Some(at) = self.pick_open() else { return };
        let line = format!("ftruncate {} to {len}", self.open[at].number);
        self.say(line);
        let open = &self.open[at];
        let result = open.file.set_len(len);
        self.same(errno_of(&result), if open.write { 0 } else { libc::EINVAL });
        if open.write {
            open.content.borrow_mut().resize(len as usize, 0);
        }
    }

    fn unlink_one(&mut self) {
        let name =
            if self.random.one_in(4) { self.random.of(&ROWS) } else { self.random.of(&PLAIN) }.to_owned();
        self.say(format!("unlink {name}"));
        let result = fs::remove_file(self.path(&name));
        let want = if self.names.remove(&name).is_some() { 0 } else { libc::ENOENT };
        self.same(errno_of(&result), want);
    }

    fn rename_plain(&mut self) {
        let from = self.random.of(&PLAIN).to_owned();
        let to =
            if self.random.one_in(8) { self.random.of(&NAMELESS) } else { self.random.of(&PLAIN) }.to_owned();
        let careful = self.random.one_in(3);
        self.say(format!("rename {from} to {to}, no replacing: {careful}"));
        let (old, new) = (self.path(&from), self.path(&to));
        let result = if careful { calls::rename_no_replace(&old, &new) } else { fs::rename(&old, &new) };
        let there = self.names.contains_key(&from);
        let want = match to.as_str() {
            ".." if careful => libc::EEXIST,
            ".." => libc::EBUSY,
            _ if !there => libc::ENOENT,
            _ if careful && self.names.contains_key(&to) => libc::EEXIST,
            _ if NAMELESS.contains(&to.as_str()) => libc::EINVAL,
            _ => 0,
        };
        self.same(errno_of(&result), want);
        if want == 0 && from != to {
            let entry = self.names.remove(&from).expect("it is there");
            self.names.insert(to, entry);
        }
    }

    /// A whole file under its real name is taken, or refused and kept as it was.
    fn commit(&mut self) {
        let (from, to) = (self.random.of(&PLAIN).to_owned(), self.random.of(&ROWS).to_owned());
        let good = self.random.one_in(2);
        let id = 1000 + self.rows;
        let text = if good {
            format!("{{\"id\": {id}, \"vector\": [{id}, 1, 2, 3]}}\n")
        } else {
            format!("{{\"id\": {id}, \"vector\": [1, 2]}}\n")
        };
        if self.plain(&from).is_some_and(|content| self.is_open(&content)) {
            // A file that somebody is still writing is taken too, but what its writer sees then is no plain file's.
            return;
        }
        self.say(format!("write {from} and rename it to {to}: good {good}"));
        let written = fs::write(self.path(&from), &text);
        self.same(errno_of(&written), 0);
        let result = fs::rename(self.path(&from), self.path(&to));
        if good {
            self.same(errno_of(&result), 0);
            self.rows += 1;
            self.names.remove(&from);
            let receipt = fs::read(self.path(&to)).expect("a receipt");
            let want = format!("name: {to}\nbytes: {}\naccepted: 1\n", text.len());
            assert!(receipt.starts_with(want.as_bytes()), "{}", String::from_utf8_lossy(&receipt));
            self.names.insert(to, Entry::Receipt(receipt));
            let vector = self.mounted.read(&format!("vectors/{id}"));
            let first = vector.split(',').next().and_then(|number| number.trim().parse::<f64>().ok());
            assert_eq!(first, Some(id as f64), "{vector}");
        } else {
            self.same(errno_of(&result), libc::EINVAL);
            let content = Rc::new(RefCell::new(text.into_bytes()));
            self.names.insert(from, Entry::Plain(content));
        }
    }

    fn list(&mut self) {
        self.say("list".into());
        let mut want: Vec<String> = self.names.keys().cloned().collect();
        want.push("error".into());
        want.sort();
        let got = self.mounted.list("ingest");
        assert_eq!(got, want, "the last operations:\n{}", self.log.join("\n"));
        for (name, entry) in &self.names {
            if let Entry::Receipt(text) = entry {
                self.same_bytes(&fs::read(self.path(name)).expect("a receipt"), text);
            }
        }
    }

    fn attributes(&mut self) {
        if let Some(at) = self.pick_open()
            && self.random.one_in(2)
        {
            let line = format!("fstat {}", self.open[at].number);
            self.say(line);
            let open = &self.open[at];
            let meta = open.file.metadata();
            self.same(errno_of(&meta), 0);
            let (got, want) = (meta.expect("attributes").len(), open.content.borrow().len() as u64);
            assert_eq!(got, want, "size; the last operations:\n{}", self.log.join("\n"));
            return;
        }
        let name = self.random.of(&PLAIN);
        self.say(format!("stat {name}"));
        let meta = fs::metadata(self.path(name));
        match self.plain(name) {
            Some(content) => {
                let meta = meta.expect("attributes");
                assert!(meta.is_file() && meta.nlink() == 1);
                assert_eq!(meta.len(), content.borrow().len() as u64, "{}", self.log.join("\n"));
            }
            None => self.same(errno_of(&meta), libc::ENOENT),
        }
    }

    fn map_one(&mut self) {
        let name = self.random.of(&PLAIN);
        let Some(content) = self.plain(name) else { return };
        let len = content.borrow().len();
        if len == 0 {
            return;
        }
        self.say(format!("map {name}"));
        let file = File::open(self.path(name)).expect("it is there");
        let bytes = calls::mapped(&file, len).expect("a mapping");
        self.same_bytes(&bytes, &content.borrow());
    }

    fn sync_one(&mut self) {
        let Some(at) = self.pick_open() else { return };
        let line = format!("fsync {}", self.open[at].number);
        self.say(line);
        let open = &self.open[at];
        let result = if self.random.one_in(2) { open.file.sync_all() } else { open.file.sync_data() };
        self.same(errno_of(&result), 0);
    }

    /// What a drop box does not do; each leaves everything as it is.
    fn refused(&mut self) {
        let name = self.random.of(&PLAIN);
        let path = self.path(name);
        let there = self.names.contains_key(name);
        let which = self.random.below(6);
        self.say(format!("refusal {which} at {name}"));
        let or = |errno: i32| if there { libc::EEXIST } else { errno };
        let (got, want) = match which {
            0 => (errno_of(&fs::create_dir(&path)), or(libc::EPERM)),
            1 => (errno_of(&calls::mkfifo(&path)), or(libc::EPERM)),
            2 => (errno_of(&std::os::unix::fs::symlink("error", &path)), or(libc::EPERM)),
            3 => (errno_of(&fs::hard_link(self.path("error"), &path)), or(libc::EPERM)),
            4 => (errno_of(&fs::remove_dir(&path)), if there { libc::ENOTDIR } else { libc::ENOENT }),
            _ => {
                let long = self.path(&format!(".{}", "n".repeat(255)));
                (errno_of(&File::create(long)), libc::ENAMETOOLONG)
            }
        };
        self.same(got, want);
    }

    /// A listing in progress shows each name that stays exactly once, whatever is created and removed meanwhile.
    fn change_while_listing(&mut self) {
        self.say("change while listing".into());
        let mut reader = fs::read_dir(self.path("")).expect("a directory");
        let mut seen: Vec<String> = Vec::new();
        let mut take = |reader: &mut fs::ReadDir| {
            let Some(entry) = reader.next() else { return false };
            seen.push(entry.expect("an entry").file_name().to_string_lossy().into_owned());
            true
        };
        take(&mut reader);
        let before = self.names.clone();
        for _ in 0..3 {
            if self.random.one_in(2) { self.unlink_one() } else { self.rename_plain() }
        }
        while take(&mut reader) {}
        for (name, entry) in &self.names {
            let stayed = match (before.get(name), entry) {
                (Some(Entry::Plain(old)), Entry::Plain(new)) => Rc::ptr_eq(old, new),
                (Some(Entry::Receipt(old)), Entry::Receipt(new)) => old == new,
                _ => false,
            };
            let times = seen.iter().filter(|other| *other == name).count();
            assert!(
                times <= 1 && (times == 1 || !stayed),
                "{name}: {times} times in {seen:?}; the last operations:\n{}",
                self.log.join("\n")
            );
        }
    }
}

fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn a_drop_box_is_a_plain_directory_until_a_name_commits() {
    need_fuse!();
    let first = number_from("RVF_MODEL_SEED", 1);
    for seed in first..first + 3 {
        let mut model = Model::new(seed);
        for _ in 0..number_from("RVF_MODEL_STEPS", 1500) {
            model.step();
        }
        model.list();
        let (rows, m) = (model.rows, &model.mounted);
        assert_eq!(m.status("vectors"), (2 + rows).to_string(), "seed {seed}");
        model.open.clear();
        assert!(model.mounted.unmount().success());
        let store = mounted::open_store(&model.mounted.source);
        assert_eq!(store.view().live(), 2 + rows, "seed {seed}");
    }
}
