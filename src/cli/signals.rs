//! Signals that ask a command to end.

use crate::logging::say;
use crate::{files, native};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU};
use signal_hook::iterator::{Handle, Signals};
use signal_hook::{flag, low_level::signal_name};
use std::fs::File;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

/// What people and systems end a process with.
const ENDS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// What batch systems send before they end a job: Slurm's and Grid Engine's warnings, LSF's, the limit of CPU time.
const WARNINGS: [i32; 3] = [SIGUSR1, SIGUSR2, SIGXCPU];

/// Says to the program that this one becomes that there was a terminal, which may be closed until it looks.
const TERMINAL: &str = "BITFIT_TERMINAL";

fn all() -> Vec<i32> {
    ENDS.into_iter().chain(WARNINGS).collect()
}

/// The thread that listens, and what ends it.
static LISTENING: Mutex<Option<(Handle, JoinHandle<()>)>> = Mutex::new(None);

/// Lets signals wait for the program that this one becomes, until that one listens. Returns what is to be in its environment. What was
/// heard before is in `stop` of [`stop_on_signal`].
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

/// A signal ends the process at once, without leaving an unfinished file.
pub fn end_on_signal() {
    // Where nothing can listen, the process ends as the system ends it.
    listen(|_| end_now());
}

/// The first signal asks the run to end after its step, and so does every warning of a batch system; the second that is none ends the process.
pub fn stop_on_signal(json: bool) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let heard = stop.clone();
    let mut asked = false;
    // Threads that begin later hold them too, so that the one that listens hears all.
    native::hold_signals(&all(), true);
    let listening = listen(move |signal| {
        let first = !heard.swap(true, Ordering::SeqCst);
        if ENDS.contains(&signal) && std::mem::replace(&mut asked, true) {
            end_now();
        }
        // Who reads JSON lines hears of it in the last one.
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

/// Calls `handler` with each signal from now on, in a thread of its own; returns whether that could be started.
///
/// A terminal that closes ends nothing: its signal counts only from a process that has no terminal, or has it still.
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
        // Not before there is a thread that listens: whatever has a handler ends the process no more.
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

/// Those that are listened to: under nohup all but the hang-up.
fn heeded() -> Vec<i32> {
    let mut signals = all();
    signals.retain(|signal| *signal != SIGHUP || !native::ignores(SIGHUP));
    signals
}

/// The same for a process that gets no more threads, with handlers that only set flags.
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
