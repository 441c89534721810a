//! What a crash, a full disk, another program or a second writer can do to a store: nothing that was committed is
//! lost, and nothing half done shows.

mod cut;
mod derive;
mod disk;
mod family;
mod full;
mod kill;
mod program;
#[path = "../../../cow/tests/recorder/mod.rs"]
mod recorder;
mod swap;
mod torn;
mod writers;
