//! Signals that ask a command to end.

use crate::files::say;
use crate::{files, native};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU};
use signal_hook::iterator::{Handle, Signals};
use signal_hook::{flag, low_level::signal_name};
use std::fs::File;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

/// The signals with which people and systems end a process.
const ENDS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// The signals that batch systems send before they end a job: the warnings of Slurm and Grid
/// Engine, of LSF, and of the CPU time limit.
const WARNINGS: [i32; 3] = [SIGUSR1, SIGUSR2, SIGXCPU];

/// The environment variable that tells the next program of this process that there was a terminal.
/// The terminal may be closed before that program looks.
const TERMINAL: &str = "BITFIT_TERMINAL";

fn all() -> Vec<i32> {
    ENDS.into_iter().chain(WARNINGS).collect()
}

/// The thread that listens for signals, and the handle that ends it.
static LISTENING: Mutex<Option<(Handle, JoinHandle<()>)>> = Mutex::new(None);

/// Blocks signals until the next program of this process listens for them. Returns a variable for
/// that program's environment, if it needs one.
///
/// Signals that arrived before are in the flag of [`stop_on_signal`].
pub fn hand_on() -> Option<(&'static str, &'static str)> {
    native::hold_signals(&all(), true);
    let listening = LISTENING.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((handle, thread)) = listening {
        handle.close();
        let _ = thread.join();
    }
    had_terminal().then_some((TERMINAL, "1"))
}

fn had_terminal() -> bool {
    std::env::var_os(TERMINAL).is_some() || File::open("/dev/tty").is_ok()
}

/// Ends the process at once on a signal, and removes its unfinished files.
pub fn end_on_signal() {
    // Without a listening thread, the signal's default action ends the process.
    listen(|_| end_now());
}

/// Returns a flag that a signal sets, to ask the run to end after its step.
///
/// A batch system's warning only sets the flag. The second signal that is not such a warning ends
/// the process at once. With `json`, prints nothing.
pub fn stop_on_signal(json: bool) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let heard = stop.clone();
    let mut asked = false;
    // Threads that start later inherit the blocked signals, so that only the listening thread gets
    // them.
    native::hold_signals(&all(), true);
    let listening = listen(move |signal| {
        let first = !heard.swap(true, Ordering::SeqCst);
        if ENDS.contains(&signal) && std::mem::replace(&mut asked, true) {
            end_now();
        }
        // A reader of JSON lines learns of the interruption from the last line.
        if json {
            return;
        }
        if ENDS.contains(&signal) {
            say("\nending after this step; again to end at once\n");
        } else if first {
            let name = signal_name(signal).unwrap_or("a signal");
            say(&format!("\n{name}: ending after this step\n"));
        }
    });
    if !listening {
        stop_without_thread(&stop);
        native::hold_signals(&all(), false);
    }
    stop
}

fn end_now() -> ! {
    files::abandon();
    native::exit_now(130)
}

/// Calls `handler` with each signal from now on, in a new thread. Returns whether the thread could
/// be started.
///
/// A terminal that closes ends nothing: SIGHUP is passed on only if the process never had a
/// terminal, or its terminal is still open.
fn listen(mut handler: impl FnMut(i32) + Send + 'static) -> bool {
    let (had, terminal) = (had_terminal(), File::open("/dev/tty").ok());
    let closed = move || had && !terminal.as_ref().is_some_and(File::is_terminal);
    let mut hear = move |signal| {
        if signal == SIGHUP && closed() {
            tracing::warn!("the terminal was closed; going on without it");
        } else {
            handler(signal);
        }
    };
    let (begun, begins) = mpsc::channel();
    let thread = std::thread::Builder::new().name("signals".into()).spawn(move || {
        // Handlers are set only once the thread runs, because a signal with a handler no longer
        // ends the process by default.
        let Ok(mut signals) = Signals::new(heeded()) else { return };
        native::hold_signals(&all(), false);
        let _ = begun.send(signals.handle());
        signals.forever().for_each(&mut hear);
        native::hold_signals(&all(), true);
        signals.pending().for_each(&mut hear);
    });
    let (Ok(thread), Ok(handle)) = (thread, begins.recv()) else { return false };
    *LISTENING.lock().unwrap_or_else(PoisonError::into_inner) = Some((handle, thread));
    true
}

/// The signals to listen to: all, or all but SIGHUP if it is ignored, as under nohup.
fn heeded() -> Vec<i32> {
    let mut signals = all();
    signals.retain(|signal| *signal != SIGHUP || !native::ignores(SIGHUP));
    signals
}

/// Does what [`stop_on_signal`] does, for a process that can start no more threads: handlers only
/// set flags.
fn stop_without_thread(stop: &Arc<AtomicBool>) {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in heeded().into_iter().filter(|signal| ENDS.contains(signal)) {
        let _ = flag::register_conditional_shutdown(signal, 130, asked.clone());
        let _ = flag::register(signal, asked.clone());
    }
    for signal in heeded() {
        let _ = flag::register(signal, stop.clone());
    }
}
