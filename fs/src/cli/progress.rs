//! A progress bar on stderr, when that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use rvf_cow::Progress;
use std::io::IsTerminal;

/// Shows how far a long job is. Removed from the terminal when dropped.
#[derive(Debug)]
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// A bar with a word before it; silent when stderr is not a terminal.
    pub(super) fn new(label: &'static str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len} {elapsed} (left {eta})")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(label);
        Self(bar)
    }
}

impl Progress for Bar {
    fn step(&self, done: u64, total: u64) -> bool {
        self.0.set_length(total);
        self.0.set_position(done);
        true
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
