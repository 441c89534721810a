//! Stores with real kernels in them, and the machines that these boot, for tests of `rvf-exec`.
#![allow(dead_code, reason = "each test uses its part")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::Place;
use rvf_cow::query::{answer, request};
use rvf_cow::{BadRow, Batch, Embedding, NoProgress, SearchRequest, Store, Value, View};
use rvf_kernel::{ExecKind, KernelOptions, KernelPayload};

/// Longer than any boot here on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// What a boot needs.
pub(crate) struct Here {
    pub(crate) modules: PathBuf,
    pub(crate) image: Vec<u8>,
    pub(crate) guest: PathBuf,
}

pub(crate) fn here() -> Option<Here> {
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
    pub(crate) fn place(&self, image: &[u8], cmdline: &str) -> Place {
        let place = self.plain_place();
        embed(&place.open(), image, cmdline);
        place
    }

    /// The same without a kernel.
    pub(crate) fn plain_place(&self) -> Place {
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
        place
    }

    /// Starts the machine by a boot, of which nothing is kept.
    pub(crate) fn start(&self, place: &Place, more: &[&str]) -> Machine {
        self.launch(place, &[], &[&["--no-cache"], more].concat())
    }

    /// Starts the machine with these options and arguments of `rvf-exec`.
    pub(crate) fn launch(&self, place: &Place, options: &[&str], more: &[&str]) -> Machine {
        self.launch_store(place, &place.store(), options, more)
    }

    /// The same of a store of this name.
    pub(crate) fn launch_store(
        &self,
        place: &Place,
        store: &Path,
        options: &[&str],
        more: &[&str],
    ) -> Machine {
        let modules = self.modules.to_str().unwrap();
        let mut words = vec!["--allow-unsigned"];
        words.extend(options);
        words.extend([store.to_str().unwrap(), "--kind", "kernel", "--"]);
        words.extend(["--port", "0", "--accel", "tcg", "--modules", modules, "--boot-timeout", "110"]);
        words.extend(more);
        let mut command = place.command(&words);
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Machine { child }
    }
}

/// Embeds a kernel.
pub(crate) fn embed(store: &Store, image: &[u8], cmdline: &str) {
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
}

pub(crate) struct Machine {
    pub(crate) child: Child,
}

impl Machine {
    /// The address that it says it listens on.
    pub(crate) fn address(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        match line.trim().strip_prefix("listening on ") {
            Some(address) => address.to_owned(),
            None => panic!("{line:?} {}", self.errors()),
        }
    }

    pub(crate) fn errors(&mut self) -> String {
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// QEMU's process.
    pub(crate) fn emulator(&self) -> u32 {
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

    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Its status and what it said, when it ended by itself.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
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

pub(crate) fn wait_for_end_of(pid: u32) {
    let until = Instant::now() + LONG;
    // A process that ended and that nobody collected yet still has its directory, but no program.
    while fs::read_link(format!("/proc/{pid}/exe")).is_ok() {
        assert!(Instant::now() < until, "QEMU ({pid}) is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn ask(address: &str, method: &str, path: &str, body: &[u8]) -> String {
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
pub(crate) fn engine(view: &View, body: &[u8]) -> String {
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
pub(crate) fn steady(json: &str) -> serde_json::Value {
    let mut value: serde_json::Value = serde_json::from_str(json).unwrap();
    for query in value["queries"].as_array_mut().unwrap() {
        assert!(query.as_object_mut().unwrap().remove("microseconds").is_some());
    }
    value
}
