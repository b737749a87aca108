//! Signals, and the end of this process.

use std::ffi::c_int;

/// Makes a write beyond the file size limit (`ulimit -f`) fail, as on a full disk, instead of
/// ending the process.
pub fn ignore_file_size_signal() {
    // SAFETY: ignoring a signal installs no handler.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Under a memory limit (RLIMIT_AS or RLIMIT_DATA), installs handlers that explain the likely cause
/// of SIGSEGV and SIGABRT and end the process with code 1: oneDNN does not check whether its
/// allocations succeed, and Rust aborts where its own fail.
pub fn explain_lack_of_memory() {
    extern "C" fn explain(signal: c_int) {
        const UNCHECKED: &str = "error: segmentation fault: the memory is limited (ulimit -v or \
                                 -d), and oneDNN does not check whether it got memory; raise that \
                                 limit, or limit memory by a control group\n";
        const ABORTED: &str = "error: aborted: the memory is limited (ulimit -v or -d), and an \
                               allocation may have failed; raise that limit, or limit memory by a \
                               control group\n";
        let why = if signal == libc::SIGABRT { ABORTED } else { UNCHECKED };
        // SAFETY: both calls are async-signal-safe, and the text is static.
        unsafe {
            libc::write(libc::STDERR_FILENO, why.as_ptr().cast(), why.len());
            libc::_exit(1)
        }
    }
    let is_limited = |what| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: getrlimit writes to `limit` only during the call.
        let code = unsafe { libc::getrlimit(what, &mut limit) };
        code == 0 && limit.rlim_cur != libc::RLIM_INFINITY
    };
    if !is_limited(libc::RLIMIT_AS) && !is_limited(libc::RLIMIT_DATA) {
        return;
    }
    // SAFETY: all bytes zero are a valid sigaction, and the handler makes only the calls above.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = explain as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK;
        for signal in [libc::SIGSEGV, libc::SIGABRT] {
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// Blocks `signals` in the calling thread if `hold`, else unblocks them. Unblocking delivers
/// pending signals. The mask is inherited through exec.
pub fn hold_signals(signals: &[i32], hold: bool) {
    let how = if hold { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
    // SAFETY: sigemptyset initialises the set before it is read, and the set outlives the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        libc::pthread_sigmask(how, &set, std::ptr::null_mut());
    }
}

/// Whether this process was started with `signal` ignored, as nohup does.
pub fn ignores(signal: i32) -> bool {
    // SAFETY: all bytes zero are a valid sigaction. The call sets no new action and only writes the
    // current one to `action`.
    let (code, action) = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(signal, std::ptr::null(), &mut action), action)
    };
    code == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Sends SIGKILL to this process, so that nothing is cleaned up.
pub fn kill_this_process() -> ! {
    // SAFETY: raising a signal touches no memory, and neither call returns.
    unsafe {
        libc::raise(libc::SIGKILL);
        libc::_exit(137)
    }
}

/// Stops this process until it receives SIGCONT.
pub fn stop_this_process() {
    // SAFETY: raising a signal touches no memory.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// Ends the process at once, without destructors. `std::process::exit` would run libtorch's
/// destructors while other threads still compute.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit does not return and runs no handlers.
    unsafe { libc::_exit(code) }
}
