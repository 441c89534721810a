//! A SIGBUS handler that turns reads past the end of a cut mapping into zeros.
//!
//! The handler does only what is allowed in one: atomic loads and stores, `mmap`, `sigaction`. It finds the mapping in
//! a fixed table; a fault anywhere else goes to the handler that was there before.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const SLOTS: usize = 4096;
/// A slot whose owner is still filling it in; no address lies in `1..0`.
const RESERVED: usize = 1;

struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    poisoned: AtomicBool,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot { start: AtomicUsize::new(0), end: AtomicUsize::new(0), poisoned: AtomicBool::new(false) }
}; SLOTS];
/// One past the highest slot ever used, so that the handler does not look at all of them.
static USED: AtomicUsize = AtomicUsize::new(0);
static PAGE: AtomicUsize = AtomicUsize::new(4096);
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// A mapping in the table; leaving scope takes it out.
#[derive(Debug)]
pub(super) struct Registration {
    slot: usize,
}

impl Registration {
    pub(super) fn is_poisoned(&self) -> bool {
        TABLE[self.slot].poisoned.load(Ordering::Acquire)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let slot = &TABLE[self.slot];
        slot.end.store(0, Ordering::SeqCst);
        slot.start.store(0, Ordering::SeqCst);
    }
}

/// Protects `start..start + len`. `None` when the table is full.
pub(super) fn register(start: usize, len: usize) -> io::Result<Option<Registration>> {
    install()?;
    for (index, slot) in TABLE.iter().enumerate() {
        if slot.start.compare_exchange(0, RESERVED, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
            slot.poisoned.store(false, Ordering::SeqCst);
            slot.end.store(start + len, Ordering::SeqCst);
            slot.start.store(start, Ordering::SeqCst);
            USED.fetch_max(index + 1, Ordering::SeqCst);
            return Ok(Some(Registration { slot: index }));
        }
    }
    Ok(None)
}

/// Installs the handler, once.
fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Option<i32>> = OnceLock::new();
    let failed = INSTALLED.get_or_init(|| install_now().err().map(|error| error.raw_os_error().unwrap_or(0)));
    match failed {
        None => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(*code)),
    }
}

fn install_now() -> io::Result<()> {
    // SAFETY: sysconf has no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    PAGE.store(usize::try_from(page).unwrap_or(4096), Ordering::SeqCst);
    // SAFETY: all-zero bytes are a valid sigaction (default action, empty mask, no flags).
    let mut previous: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null new action only queries; `previous` is valid for writing.
    if unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut previous) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Stored before the handler can run.
    let _ = PREVIOUS.set(previous);
    // SAFETY: as above.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: `action` is fully initialised and `handler` has the signature that SA_SIGINFO asks for.
    if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

extern "C" fn handler(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo with SA_SIGINFO.
    let code = unsafe { (*info).si_code };
    // SAFETY: as above; the address means something only for a real fault, which the code tells.
    let address = unsafe { (*info).si_addr() } as usize;
    // SAFETY: errno is thread-local and always there.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; the interrupted code must not see errno change.
    let saved = unsafe { *errno };
    if code == libc::BUS_ADRERR && patch(address) {
        // SAFETY: as above.
        unsafe { *errno = saved };
        return;
    }
    forward(signal, info, context);
}

/// Puts a zero page under the address if it lies in a registered mapping.
fn patch(address: usize) -> bool {
    let used = USED.load(Ordering::SeqCst).min(SLOTS);
    for slot in &TABLE[..used] {
        let start = slot.start.load(Ordering::SeqCst);
        let end = slot.end.load(Ordering::SeqCst);
        if start <= RESERVED || !(start..end).contains(&address) {
            continue;
        }
        let size = PAGE.load(Ordering::SeqCst);
        let page = address & !(size - 1);
        // SAFETY: the page lies inside a mapping that this crate owns and whose user is blocked in this very read, so
        // replacing it invalidates nothing; the old page has no bytes (that is why it faulted).
        let mapped = unsafe {
            libc::mmap(
                page as *mut libc::c_void,
                size,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return false;
        }
        slot.poisoned.store(true, Ordering::SeqCst);
        return true;
    }
    false
}

/// Hands a fault that is not ours to whoever handled it before.
fn forward(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let previous =
        PREVIOUS.get().filter(|previous| ![libc::SIG_DFL, libc::SIG_IGN].contains(&previous.sa_sigaction));
    let Some(previous) = previous else {
        // SAFETY: all-zero bytes are the default action; the fault repeats at once and ends the process as it would
        // have without us (a fault cannot be ignored).
        let default: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: `default` is initialised, and a null old action is allowed.
        unsafe { libc::sigaction(signal, &raw const default, std::ptr::null_mut()) };
        return;
    };
    if previous.sa_flags & libc::SA_SIGINFO != 0 {
        // SAFETY: whoever installed the previous action with SA_SIGINFO promised this signature.
        let call: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
            unsafe { std::mem::transmute(previous.sa_sigaction) };
        call(signal, info, context);
    } else {
        // SAFETY: without SA_SIGINFO the signature takes the signal number only.
        let call: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(previous.sa_sigaction) };
        call(signal);
    }
}
