//! `rvf serve`: a store over HTTP.

use super::failure::Failure;
use super::open;
use super::output::{Out, note};
use crate::sys;
use rvf_kernel::server::{Options, Server, search_page};
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Path to the RVF store
    path: PathBuf,
    /// Address and port to listen on; port 0 takes a free one. Nobody is asked who they are: let others than this
    /// machine in only where everybody may read the store
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080")]
    bind: SocketAddr,
    /// Port to listen on, instead of that in --bind
    #[arg(short, long, value_name = "PORT")]
    port: Option<u16>,
    /// A name by which clients may call this server, besides localhost and addresses; may be repeated
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// Queries answered at the same time, and threads for one batch [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Open the last committed snapshot even if the file ends inside a segment
    #[arg(long)]
    recover: bool,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let store = open::glancing(&args.path, args.recover)?;
    let mut address = args.bind;
    address.set_port(args.port.unwrap_or(address.port()));
    let mut options = Options { hosts: args.host.clone(), pages: search_page(), ..Options::default() };
    options.threads = args.threads.map_or(options.threads, usize::from);
    let failed = |e: std::io::Error| Failure::new(format!("cannot listen on {address}: {e}"));
    // Before any thread is made, so that none of them takes a signal.
    sys::block_ending_signals();
    let server = Server::bind(address, store, options).map_err(failed)?;
    let stopper = server.stopper().map_err(failed)?;
    let waiting = std::thread::Builder::new().name("signals".into()).spawn(move || {
        let _which = sys::wait_for_end();
        stopper.stop();
    });
    waiting.map_err(|e| Failure::new(format!("cannot start a thread: {e}")))?;
    let address = server.address().map_err(failed)?;
    if !address.ip().is_loopback() {
        note(&format!("warning: everybody who can reach {address} can read {}", args.path.display()));
    }
    out.line(format_args!("rvf: listening on {address}"))?;
    out.flush()?;
    server.run().map_err(|e| Failure::new(format!("cannot accept connections on {address}: {e}")))
}
