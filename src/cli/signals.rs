//! Signals that ask a command to end.

use crate::logging::say;
use crate::{files, native};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU};
use signal_hook::{flag, iterator::Signals, low_level::signal_name};
use std::fs::File;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

/// What people and systems end a process with.
const ENDS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// What batch systems send before they end a job: Slurm's and Grid Engine's warnings, LSF's, the limit of CPU time.
const WARNINGS: [i32; 3] = [SIGUSR1, SIGUSR2, SIGXCPU];

/// Says to the program that this one becomes that there was a terminal, which may be closed until it looks.
const TERMINAL: &str = "BITFIT_TERMINAL";

fn all() -> Vec<i32> {
    ENDS.into_iter().chain(WARNINGS).collect()
}

/// Lets signals wait for the program that this one becomes, until that one listens. Returns what is to be in its environment.
pub fn hand_on() -> Option<(&'static str, &'static str)> {
    native::hold_signals(&all(), true);
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
    }
    native::hold_signals(&all(), false);
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
    let mut signals = all();
    // So it is under nohup.
    signals.retain(|signal| *signal != SIGHUP || !native::ignores(SIGHUP));
    let (begun, begins) = mpsc::channel();
    let thread = std::thread::Builder::new().name("signals".into()).spawn(move || {
        // Not before there is a thread that listens: whatever has a handler ends the process no more.
        let Ok(mut signals) = Signals::new(signals) else { return };
        let _ = begun.send(());
        for signal in signals.forever() {
            if signal == SIGHUP && closed() {
                tracing::warn!("the terminal was closed; going on without it");
            } else {
                handler(signal);
            }
        }
    });
    thread.is_ok() && begins.recv().is_ok()
}

/// The same for a process that gets no more threads, with handlers that only set flags.
fn stop_without_thread(stop: &Arc<AtomicBool>) {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in ENDS {
        let _ = flag::register_conditional_shutdown(signal, 130, asked.clone());
        let _ = flag::register(signal, asked.clone());
    }
    for signal in all() {
        let _ = flag::register(signal, stop.clone());
    }
}
