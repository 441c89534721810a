//! What a mount needs beside the daemon: `mount.rvf`, and `rvf-exec`, which runs what a file carries.
//!
//! - [`mount`]: the mount(8) helper, which hands everything to `rvf-mount`.
//! - [`verify`](mod@verify): the seven steps between a program in a file and its execution. Whatever runs a program takes a
//!   [`Verified`], and takes the program's bytes from it alone.
//! - [`policy`]: what a user or a machine allows to run at all.
//! - `cache`: what is kept for later runs of the same user.
//! - [`confine`] and [`child`]: taking rights away from what runs a program.
//!
//! The daemon uses none of this, and nothing here is used by the daemon.

#[cfg(any(feature = "wasm", feature = "vm"))]
pub mod cache;
pub mod child;
pub mod command;
pub mod confine;
#[cfg(feature = "ebpf")]
pub mod ebpf;
pub mod facts;
pub mod mount;
pub mod policy;
pub mod refusal;
pub mod run;
pub mod sealed;
mod sys;
pub mod verify;
#[cfg(feature = "vm")]
pub mod vm;
#[cfg(feature = "wasm")]
pub mod wasm;

pub use mount::{HELP, Request, USAGE, arguments, candidates, parse};
pub use refusal::{Passed, Refusal, Step};
pub use sealed::Sealed;
pub use verify::{Pick, Verified, Wanted};
