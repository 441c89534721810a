//! The query server: one store over HTTP/1.1, read-only. The same code serves on the host (`rvf serve`) and inside a
//! virtual machine (`rvf-guest`).
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /query` | body: what a mount takes in `query/in`, any form; answer: its `query/out.json`, or `query/out` for `Accept: text/plain` |
//! | `GET /status` | `status.json` of a mount |
//! | `GET /health` | `{"status": "ok"}`, or 503 and why not |
//! | `GET /file` | the whole file as of one commit, with ranges and an `ETag` |
//! | `GET /` | with [`search_page`]: a page that searches the file by itself, with the module that it carries |
//!
//! Every client is taken to be hostile: heads, bodies and connections are bounded in size, number and time, whoever
//! reads or writes too slowly is cut off, and all bodies together stay within one budget, all answers within another. A `Host` that is a name of
//! somewhere else is refused, and so is what a page of another origin sends: a web site must not reach a server that
//! listens on the visitor's own machine. One thread serves a connection, and as many queries run at once as there are
//! processors.

mod api;
mod budget;
mod connection;
mod file;
mod head;
mod reply;

use api::Api;
use rvf_cow::Store;
use std::collections::HashMap;
use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Stack of a connection's thread: parsing is iterative, and batches are searched on threads of their own.
const STACK: usize = 1 << 20;
/// How long a stopped server waits for answers that are being made.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

/// Bounds and extras of a server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connections at once; one more is told so and closed.
    pub max_connections: usize,
    /// Bytes of one request's body.
    pub max_body: u64,
    /// Bytes of all bodies that are held at the same time.
    pub body_budget: u64,
    /// Bytes of the answer to one query request. What would be longer is refused.
    pub max_answer: u64,
    /// Bytes of all such answers that are held at the same time, from the first byte written to memory to the last byte sent.
    pub answer_budget: u64,
    /// From the first byte of a request's head to its last.
    pub head_time: Duration,
    /// Between requests of one connection.
    pub idle_time: Duration,
    /// Without a single byte taken or given while a body moves. A body has this much time and one second for every
    /// 16 KiB in all.
    pub stall_time: Duration,
    /// Longest time for the queries of a request, which may ask for less.
    pub query_time: Duration,
    /// Queries that are answered at the same time, and threads for one batch.
    pub threads: usize,
    /// Names by which clients may call this server, besides addresses and `localhost`.
    pub hosts: Vec<String>,
    /// Fixed documents to serve.
    pub pages: Vec<Page>,
    /// Whether large files are checked against their checksums in the background.
    pub verify: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_connections: 64,
            max_body: 16 << 20,
            body_budget: 64 << 20,
            max_answer: 64 << 20,
            answer_budget: 256 << 20,
            head_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(60),
            stall_time: Duration::from_secs(15),
            query_time: Duration::from_secs(60),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            hosts: Vec::new(),
            pages: Vec::new(),
            verify: true,
        }
    }
}

/// A document that is served as it is.
#[derive(Debug, Clone)]
pub struct Page {
    /// Path, such as `/`.
    pub path: &'static str,
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Its `Content-Security-Policy`.
    pub policy: &'static str,
    /// Its bytes.
    pub body: &'static [u8],
}

/// A page that reads the file with ranges and searches it in the browser; the server answers no query for it.
#[must_use]
pub fn search_page() -> Vec<Page> {
    // Nothing but what this server gives away, and no code that is put together at run time but WebAssembly.
    const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self'; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let page = |path, content_type, body: &'static [u8]| Page { path, content_type, policy: POLICY, body };
    vec![
        page("/", "text/html; charset=utf-8", include_bytes!("../../web/index.html")),
        page("/page.js", "text/javascript; charset=utf-8", include_bytes!("../../web/page.js")),
        page("/page.css", "text/css; charset=utf-8", include_bytes!("../../web/page.css")),
    ]
}

/// A server that has its address, and does not answer before [`Server::run`].
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
}

/// Stops a server from another thread.
#[derive(Debug, Clone)]
pub struct Stopper {
    shared: Arc<Shared>,
    address: SocketAddr,
}

#[derive(Debug)]
struct Shared {
    api: Api,
    stopping: AtomicBool,
    /// The sockets of open connections, so that stopping can end them.
    open: Mutex<HashMap<u64, TcpStream>>,
    closed: Condvar,
    next: AtomicU64,
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// Takes an address. Port 0 takes a free one; see [`Server::address`].
    ///
    /// # Errors
    /// The operating system's.
    pub fn bind(address: impl ToSocketAddrs, store: Arc<Store>, options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let shared = Shared {
            api: Api::new(store, options),
            stopping: AtomicBool::new(false),
            open: Mutex::default(),
            closed: Condvar::new(),
            next: AtomicU64::new(0),
        };
        Ok(Self { listener, shared: Arc::new(shared) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The operating system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What stops [`Server::run`].
    ///
    /// # Errors
    /// The operating system's.
    pub fn stopper(&self) -> io::Result<Stopper> {
        Ok(Stopper { shared: self.shared.clone(), address: self.address()? })
    }

    /// Serves until it is stopped. Returns when every connection has ended, or three seconds after.
    ///
    /// # Errors
    /// Of accepting connections, when it is not a single connection that failed.
    pub fn run(self) -> io::Result<()> {
        if self.shared.api.options.verify {
            let shared = self.shared.clone();
            std::thread::Builder::new().name("verify".into()).spawn(move || shared.api.verify())?;
        }
        let result = self.accept();
        let until = Instant::now() + LAST_ANSWERS;
        let mut open = self.shared.open();
        while !open.is_empty() {
            let Some(left) = until.checked_duration_since(Instant::now()) else { break };
            open = match self.shared.closed.wait_timeout(open, left) {
                Ok((open, _)) => open,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        result
    }

    fn accept(&self) -> io::Result<()> {
        loop {
            let accepted = self.listener.accept();
            if self.shared.stopping.load(Ordering::Acquire) {
                return Ok(());
            }
            match accepted {
                Ok((stream, _)) => self.start(stream),
                // The client went away before it was taken.
                Err(e) if matches!(e.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                // Descriptors or memory ran out: connections that end give some back.
                Err(e)
                    if matches!(
                        e.raw_os_error(),
                        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS)
                    ) =>
                {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(e) => return Err(e),
            }
        }
    }

    fn start(&self, stream: TcpStream) {
        let shared = self.shared.clone();
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        {
            let mut open = shared.open();
            if open.len() >= shared.api.options.max_connections {
                drop(open);
                return refuse(&stream);
            }
            let Ok(copy) = stream.try_clone() else { return };
            open.insert(number, copy);
        }
        let guard = Registered { shared, number };
        // A thread that cannot be made drops the guard, which closes the connection.
        let _ = std::thread::Builder::new().name("connection".into()).stack_size(STACK).spawn(move || {
            let guard = guard;
            connection::serve(&stream, &guard.shared.api, &guard.shared.stopping);
        });
    }
}

/// Takes a connection off the list when it ends, whatever ended it.
struct Registered {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(stream) = self.shared.open().remove(&self.number) {
            let _gone = stream.shutdown(Shutdown::Both);
        }
        self.shared.closed.notify_all();
    }
}

fn refuse(mut stream: &TcpStream) {
    let text = "{\"error\": \"too many connections; try again\"}\n";
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Retry-After: 1\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    // A socket that was just made has room for so little; one that has not is not waited for.
    if stream.set_nonblocking(true).is_ok() {
        let _sent = stream.write(answer.as_bytes());
    }
}

impl Stopper {
    /// Ends the server: no connection is accepted any more, and those that wait for a request are closed.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        for stream in self.shared.open().values() {
            // Answers that are being made can still be written.
            let _gone = stream.shutdown(Shutdown::Read);
        }
        // Accepting waits for a connection: this is one.
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        let _woken = TcpStream::connect_timeout(&address, Duration::from_secs(1));
    }
}
