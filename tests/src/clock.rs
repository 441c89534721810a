//! CPU time and CPU affinity, for benches on a machine that does other things too.

#![expect(unsafe_code, reason = "clock_gettime and sched_setaffinity have no safe form")]

use std::io;
use std::time::{Duration, Instant};

/// CPU time that all threads of this process have used.
///
/// # Panics
/// When the system has no such clock.
#[must_use]
pub fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a valid timespec that lives through the call.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(done, 0, "a clock for CPU time");
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Runs the calling thread, and what it starts from now on, on these CPUs only.
///
/// # Errors
/// The operating system's.
pub fn pin(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in cpus.iter().filter(|cpu| **cpu < libc::CPU_SETSIZE as usize) {
        // SAFETY: the set is valid and the number within its size.
        unsafe { libc::CPU_SET(*cpu, &mut set) };
    }
    // SAFETY: the pointer is to a valid set of the size given; 0 means the calling thread.
    let done = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// CPU and wall time of some work.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// CPU time of all threads.
    pub cpu: Duration,
    /// Time that went by.
    pub wall: Duration,
}

/// Measures some work.
pub fn took<T>(work: impl FnOnce() -> T) -> (Took, T) {
    let (cpu, wall) = (cpu_time(), Instant::now());
    let result = work();
    (Took { cpu: cpu_time().saturating_sub(cpu), wall: wall.elapsed() }, result)
}

/// The middle of some figures; NaN of none.
#[must_use]
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => figures[n / 2],
        n => f64::midpoint(figures[n / 2 - 1], figures[n / 2]),
    }
}
