//! What a crash, a full disk, another program or a second writer can do to a store: nothing that was committed is
//! lost, and nothing half done shows.

mod cut;
mod derive;
mod disk;
mod full;
mod kill;
mod program;
mod swap;
mod writers;
