//! Booting real kernels: a distribution's, with its own modules, from an .rvf file, in the emulator.
//!
//! `RVF_TEST_KERNEL_DIR` is the directory of an unpacked kernel package (`dpkg -x`), with `boot/vmlinuz-*` and
//! `lib/modules/` in it. With `RVF_REQUIRE_KERNEL` set, what is missing is a failure.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use common::Place;
use rvf_cow::query::{answer, request};
use rvf_cow::{BadRow, Batch, Embedding, NoProgress, SearchRequest, Value, View};
use rvf_kernel::{ExecKind, KernelOptions, KernelPayload};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than any boot here on a busy machine.
const LONG: Duration = Duration::from_secs(120);

/// What a boot needs.
struct Here {
    modules: PathBuf,
    image: Vec<u8>,
    guest: PathBuf,
}

fn here() -> Option<Here> {
    let missing = |what: &str| {
        assert!(std::env::var_os("RVF_REQUIRE_KERNEL").is_none(), "{what}, and RVF_REQUIRE_KERNEL is set");
        eprintln!("SKIPPED: {what}; this test boots a kernel");
    };
    if !cfg!(target_arch = "x86_64") {
        missing("only kernels for x86_64 are booted");
        return None;
    }
    if Command::new("qemu-system-x86_64").arg("--version").output().is_err() {
        missing("qemu-system-x86_64 is not installed");
        return None;
    }
    let Some(modules) = std::env::var_os("RVF_TEST_KERNEL_DIR").map(PathBuf::from) else {
        missing("RVF_TEST_KERNEL_DIR is not set");
        return None;
    };
    let images = fs::read_dir(modules.join("boot")).unwrap().map(|entry| entry.unwrap().path());
    let image = images.into_iter().find(|path| path.to_str().unwrap().contains("vmlinuz")).unwrap();
    let guest = PathBuf::from(env!("CARGO_BIN_EXE_rvf-exec")).with_file_name("rvf-guest");
    if !guest.exists() {
        missing("rvf-guest was not built: cargo build -p rvf-kernel");
        return None;
    }
    Some(Here { modules, image: fs::read(image).unwrap(), guest })
}

impl Here {
    /// A store of three hundred vectors with metadata, and this kernel in it.
    fn place(&self, image: &[u8], cmdline: &str) -> Place {
        let place = Place::new();
        let store = place.open();
        let n = 300;
        let batch = Batch {
            dimension: 3,
            ids: Some((100..100 + n).collect()),
            vectors: (0..n).flat_map(|i| [(i % 17) as f32, (i % 5) as f32 * 0.3, i as f32 * 0.01]).collect(),
            metadata: (0..n).map(|i| vec![("year".into(), Value::U64(1900 + i))]).collect(),
            on_bad_row: BadRow::Refuse,
        };
        store.ingest(&batch, &NoProgress).unwrap();
        let options = KernelOptions { cmdline: cmdline.into(), ..KernelOptions::default() };
        let payload = KernelPayload::new(image, &options).unwrap();
        let pieces = payload.pieces();
        let embedding = Embedding {
            kind: ExecKind::Kernel.segment_type(),
            payload: &pieces,
            digest: payload.digest,
            name: None,
        };
        store.embed(&embedding).unwrap();
        place
    }

    fn start(&self, place: &Place, more: &[&str]) -> Machine {
        let modules = self.modules.to_str().unwrap();
        let store = place.store();
        let mut words = vec!["--allow-unsigned", store.to_str().unwrap(), "--kind", "kernel", "--"];
        words.extend(["--port", "0", "--accel", "tcg", "--modules", modules, "--boot-timeout", "110"]);
        words.extend(more);
        let mut command = place.command(&words);
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Machine { child }
    }
}

struct Machine {
    child: Child,
}

impl Machine {
    /// The address that it says it listens on.
    fn address(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        match line.trim().strip_prefix("listening on ") {
            Some(address) => address.to_owned(),
            None => panic!("{line:?} {}", self.errors()),
        }
    }

    fn errors(&mut self) -> String {
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// QEMU's process.
    fn emulator(&self) -> u32 {
        let pid = self.child.id();
        let until = Instant::now() + LONG;
        loop {
            let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
            if let Some(first) = list.split_whitespace().next() {
                return first.parse().unwrap();
            }
            assert!(Instant::now() < until, "it has no child");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Its status and what it said, when it ended by itself.
    fn end(mut self) -> (Option<i32>, String) {
        let text = self.errors();
        (self.child.wait().unwrap().code(), text)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn wait_for_end_of(pid: u32) {
    let until = Instant::now() + LONG;
    // A process that ended and that nobody collected yet still has its directory, but no program.
    while fs::read_link(format!("/proc/{pid}/exe")).is_ok() {
        assert!(Instant::now() < until, "QEMU ({pid}) is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn ask(address: &str, method: &str, path: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let at = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..at]).into_owned();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    String::from_utf8(answer[at + 4..].to_vec()).unwrap()
}

/// What the engine answers here, in the mount's form.
fn engine(view: &View, body: &[u8]) -> String {
    let mut asked = request::parse(body, view.dimension()).unwrap();
    answer::look_up(view, &mut asked).unwrap();
    let answers = view
        .search(&SearchRequest {
            queries: &asked.vectors,
            k: asked.k.unwrap_or(rvf_cow::query::DEFAULT_K),
            ef: asked.ef,
            filter: asked.filter.as_deref(),
            exact: asked.exact.unwrap_or(false),
            deadline: None,
            threads: 1,
        })
        .unwrap();
    let mut out = Vec::new();
    answer::json(&answers, |id| Some(answer::shown_fields(view, id, asked.fields.as_deref()?)), &mut out);
    String::from_utf8(out).unwrap()
}

/// Without what depends on the moment.
fn steady(json: &str) -> serde_json::Value {
    let mut value: serde_json::Value = serde_json::from_str(json).unwrap();
    for query in value["queries"].as_array_mut().unwrap() {
        assert!(query.as_object_mut().unwrap().remove("microseconds").is_some());
    }
    value
}

/// A program for the first process that ends at once: `exit(0)`, as a whole ELF file.
fn exits_at_once() -> Vec<u8> {
    let code = [0x31, 0xFF, 0xB8, 60, 0, 0, 0, 0x0F, 0x05];
    let (head, base) = (64 + 56_u64, 0x40_0000_u64);
    let size = head + code.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend(2_u16.to_le_bytes());
    elf.extend(62_u16.to_le_bytes());
    elf.extend(1_u32.to_le_bytes());
    for number in [base + head, 64, 0] {
        elf.extend(number.to_le_bytes());
    }
    elf.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 64, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(1_u32.to_le_bytes());
    elf.extend(5_u32.to_le_bytes());
    for number in [0, base, base, size, size, 0x1000] {
        elf.extend(number.to_le_bytes());
    }
    elf.extend(code);
    elf
}

#[test]
fn a_real_kernel_boots_answers_as_the_engine_does_and_ends_by_a_signal() {
    let Some(here) = here() else { return };
    let place = here.place(&here.image, "console=ttyS0");
    let view = place.open().view();
    let mut machine = here.start(&place, &[]);
    let address = machine.address();
    for body in [
        &br#"{"vector":[3.3,0.2,1.5],"k":5}"#[..],
        br#"{"vectors":[[3.3,0.2,1.5],[0,0,0]],"k":3,"exact":true}"#,
        br#"{"id":120,"filter":"year > 2000 AND NOT year = 2100","fields":["year"]}"#,
        b"1,2,3\n4,5,6\n",
    ] {
        let answer = ask(&address, "POST", "/query", body);
        assert_eq!(steady(&answer), steady(&engine(&view, body)));
        assert!(answer.contains("\"hits\": [{"), "{answer}");
    }
    assert!(ask(&address, "GET", "/health", b"").contains("ok"));
    let status: serde_json::Value = serde_json::from_str(&ask(&address, "GET", "/status", b"")).unwrap();
    assert_eq!((&status["vectors"], &status["health"]), (&303.into(), &"ok".into()));
    assert_eq!(status["file_size"], fs::metadata(place.store()).unwrap().len());
    let emulator = machine.emulator();
    machine.signal("-INT");
    let (status, said) = machine.end();
    assert_eq!(status, Some(0), "{said}");
    wait_for_end_of(emulator);
    assert!(TcpStream::connect(&address).is_err(), "somebody still listens");
}

#[test]
fn nothing_is_left_of_a_helper_that_is_killed() {
    let Some(here) = here() else { return };
    let place = here.place(&here.image, "");
    // While it boots, and when it serves.
    for serving in [false, true] {
        let mut machine = here.start(&place, &[]);
        let emulator = machine.emulator();
        if serving {
            machine.address();
        }
        machine.signal("-KILL");
        wait_for_end_of(emulator);
    }
}

#[test]
fn a_guest_that_panics_or_never_answers_comes_to_a_bounded_end() {
    let Some(here) = here() else { return };
    let place = here.place(&here.image, "");
    let guest = place.path("guest");
    fs::write(&guest, exits_at_once()).unwrap();
    let (status, said) = here.start(&place, &["--guest", guest.to_str().unwrap()]).end();
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("Kernel panic"), "{said}");
    let machine = here.start(&place, &["--boot-timeout", "1"]);
    let emulator = machine.emulator();
    let (status, said) = machine.end();
    assert_eq!(status, Some(124), "{said}");
    assert!(said.contains("--boot-timeout"), "{said}");
    wait_for_end_of(emulator);
    // Something that only looks like a kernel.
    let place = here.place(&common::bz_image(), "");
    let modules = place.path("modules");
    fs::create_dir_all(modules.join("kernel")).unwrap();
    fs::write(modules.join("modules.builtin"), "kernel/virtio_blk.ko\nkernel/virtio_net.ko\n").unwrap();
    let more = ["--boot-timeout", "3", "--modules", modules.to_str().unwrap()];
    let (status, said) = here.start(&place, &more).end();
    assert!(matches!(status, Some(1 | 124)), "{status:?} {said}");
}

#[test]
fn what_cannot_be_booted_is_refused_before_anything_starts() {
    let Some(here) = here() else { return };
    let place = here.place(&here.image, "console=ttyS0 init=/bin/sh");
    let (status, said) = here.start(&place, &[]).end();
    assert_eq!(status, Some(126), "{said}");
    assert!(said.contains("init=/bin/sh"), "{said}");
    let place = here.place(&here.image, "");
    let dynamic = env!("CARGO_BIN_EXE_rvf-exec");
    for (more, want, word) in [
        (&["--guest", dynamic][..], 127, "statically"),
        (&["--guest", "/dev/null"], 127, "guest program"),
        (&["--modules", "/nowhere"], 127, "/nowhere"),
        (&["--modules", "/tmp"], 127, "/tmp"),
        (&["--memory", "1"], 2, "64"),
    ] {
        let (status, said) = here.start(&place, more).end();
        assert_eq!(status, Some(want), "{said}");
        assert!(said.contains(word), "{said}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (status, said) = here.start(&place, &["--port", &port]).end();
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("in use"), "{said}");
    assert!(here.guest.exists());
}
