//! Mapped files that are truncated while they are read: a line that names the file, instead of a
//! bare SIGBUS.

use std::ffi::{c_int, c_void};
use std::path::Path;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicUsize, Ordering};
use tch::Tensor;

/// The address range of a mapped file, and the error line for when the file cannot be read any
/// more.
struct Mapping {
    start: AtomicUsize,
    end: AtomicUsize,
    text: AtomicPtr<u8>,
    length: AtomicUsize,
}

/// The most recently mapped files. A new file replaces the oldest entry.
static MAPPINGS: [Mapping; 1024] = [const {
    Mapping {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        text: AtomicPtr::new(std::ptr::null_mut()),
        length: AtomicUsize::new(0),
    }
}; 1024];

/// The format of the lines that [`name_mapped`] keeps: 0 keeps none (the value before
/// [`report_bus_errors`]), 1 is text, 2 is JSON.
static REPORTS: AtomicU8 = AtomicU8::new(0);

/// Installs a SIGBUS handler that reports a mapped file that is truncated while it is read. The
/// handler writes a line to stderr that names the file, as JSON or text, and exits with code 1.
///
/// Only programs should call this function: a library leaves signal handlers to its caller.
pub fn report_bus_errors(as_json: bool) {
    REPORTS.store(if as_json { 2 } else { 1 }, Ordering::SeqCst);
    // SAFETY: all bytes zero are a valid sigaction, and the handler makes only async-signal-safe
    // calls.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_bus_error as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND;
        libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
    }
}

extern "C" fn on_bus_error(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the system passes a valid siginfo_t, and SIGBUS sets its address.
    let address = unsafe { (*info).si_addr() } as usize;
    for mapping in &MAPPINGS {
        let end = mapping.end.load(Ordering::Acquire);
        let start = mapping.start.load(Ordering::Relaxed);
        if (start..end).contains(&address) {
            let text = mapping.text.load(Ordering::Relaxed);
            // SAFETY: the text is never freed, and both calls are async-signal-safe.
            unsafe {
                libc::write(2, text.cast(), mapping.length.load(Ordering::Relaxed));
                libc::_exit(1)
            }
        }
    }
    // The address is in no file of ours. The instruction runs again, and the process ends as it
    // would have without this handler.
}

/// Records that the tensor `whole` maps the file `path`, for the handler of [`report_bus_errors`].
/// Returns the record's place, for [`forget_mapped`]; `None` before [`report_bus_errors`].
pub fn name_mapped(whole: &Tensor, path: &Path) -> Option<usize> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let problem = "it was cut short, or its disk failed, while it was in use; bring it back as it \
                   was, and start the same command again (a training with --resume)";
    let shown: String = crate::escape::line(path.display());
    let line = match REPORTS.load(Ordering::SeqCst) {
        0 => return None,
        1 => format!("error: {shown}: {problem}\n"),
        _ => {
            let error = format!("{shown}: {problem}");
            format!("{}\n", serde_json::json!({"error": error, "exit_code": 1}))
        }
    };
    let text: &'static mut [u8] = line.into_bytes().leak();
    let place = NEXT.fetch_add(1, Ordering::SeqCst) % MAPPINGS.len();
    let mapping = MAPPINGS.get(place)?;
    let start = whole.data_ptr() as usize;
    mapping.end.store(0, Ordering::SeqCst);
    mapping.start.store(start, Ordering::SeqCst);
    mapping.length.store(text.len(), Ordering::SeqCst);
    mapping.text.store(text.as_mut_ptr(), Ordering::SeqCst);
    mapping.end.store(start + whole.numel(), Ordering::SeqCst);
    Some(place)
}

/// Removes a record of [`name_mapped`]: another mapping may take the addresses.
pub fn forget_mapped(place: usize) {
    if let Some(mapping) = MAPPINGS.get(place) {
        mapping.end.store(0, Ordering::SeqCst);
    }
}
