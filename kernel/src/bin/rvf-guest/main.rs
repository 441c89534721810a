//! `rvf-guest`: the first and only process of a virtual machine that an embedded kernel boots. It serves the store on
//! the machine's drives, until the machine is ended.
//!
//! What it says on the console is for the launcher: one line when it answers, or one that says why it cannot.

mod machine;
mod sys;

use machine::Failed;
use rvf_cow::{Access, OpenOptions, SearchRequest, Store};
use rvf_kernel::server::{Options, Server};
use rvf_kernel::vm::{FAILED_MARKER, GUEST_VERSION, READY_MARKER};
use std::io::Write;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of vectors with which a query is made beforehand.
const MAX_WARM_BYTES: u64 = 8 << 20;
const WARM_TIME: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("rvf-guest: this is the first process of a virtual machine; use rvf launch, or rvf serve");
        return ExitCode::from(2);
    }
    // Before any thread is made, so that none of them takes a signal.
    sys::block_ending_signals();
    if let Err(failed) = run() {
        say(&format!("{FAILED_MARKER}{failed}"));
    }
    sys::power_off();
    // Only where the kernel refuses to end; the launcher then does it.
    loop {
        thread::park();
    }
}

fn run() -> Result<(), Failed> {
    let machine = machine::prepare()?;
    let options = OpenOptions { access: Access::ReadOnly, verify: false, ..OpenOptions::default() };
    let store = Store::open_devices(&machine.drives, &options)
        .map_err(|e| Failed(format!("cannot open the store: {e}")))?;
    store.view().complete().map_err(|e| Failed(e.to_string()))?;
    warm_up(&store);
    let server = serve(store, machine.port).map_err(|e| Failed(format!("cannot listen: {e}")))?;
    say(&format!("{READY_MARKER}{} {GUEST_VERSION}", machine.port));
    server.run().map_err(|e| Failed(format!("cannot accept connections: {e}")))
}

/// Has the store make, before anybody waits for it, what its first query would make: a machine that goes on from here has it
/// already. With many vectors the start would take long for it, and then it is left to the first query.
fn warm_up(store: &Store) {
    let view = store.view();
    let bytes = view.live().saturating_mul(4 * view.dimension() as u64);
    if bytes > MAX_WARM_BYTES {
        return;
    }
    let query = vec![1.0; view.dimension()];
    let deadline = Instant::now() + WARM_TIME;
    // What one search may leave to the next is made by the second.
    for _ in 0..2 {
        // What is wrong with the store is for those to hear who ask it.
        let _answer = view.search(&SearchRequest {
            queries: &query,
            k: 1,
            ef: None,
            filter: None,
            exact: false,
            deadline: Some(deadline),
            threads: 1,
        });
    }
}

fn serve(store: std::sync::Arc<Store>, port: u16) -> std::io::Result<Server> {
    // A machine of 128 MiB must not end for what one client sends.
    let options = Options {
        max_connections: 16,
        max_body: 4 << 20,
        body_budget: 8 << 20,
        max_answer: 8 << 20,
        answer_budget: 16 << 20,
        ..Options::default()
    };
    let server = Server::bind(("0.0.0.0", port), store, options)?;
    for wait in [sys::wait_for_end as fn(), machine::listen_to_console] {
        let stopper = server.stopper()?;
        thread::Builder::new().spawn(move || {
            wait();
            stopper.stop();
        })?;
    }
    Ok(server)
}

/// One line of its own, whatever the kernel wrote before.
fn say(line: &str) {
    let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let _gone = std::io::stdout().write_all(format!("\n{line}\n").as_bytes());
}
