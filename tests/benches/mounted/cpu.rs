//! CPU clocks of a thread and of another process.

#![expect(unsafe_code, reason = "clock_gettime and clock_getcpuclockid have no safe form")]

use std::time::Duration;

/// CPU time that the calling thread has used.
pub(crate) fn of_thread() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time that a process has used; zero when there is no such process.
pub(crate) fn of_process(pid: u32) -> Duration {
    let mut clock = 0;
    // SAFETY: the pointer is to a valid clock id that lives through the call.
    let done = unsafe { libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) };
    if done == 0 { read(clock) } else { Duration::ZERO }
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a valid timespec that lives through the call.
    let done = unsafe { libc::clock_gettime(clock, &raw mut time) };
    if done != 0 {
        return Duration::ZERO;
    }
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
