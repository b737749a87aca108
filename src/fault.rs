//! Faults on demand, for tests of code that writes files. The environment variable `BITFIT_FAULT`,
//! read once, selects the fault and its operation:
//!
//! - `kill:N` kills the process at its N-th operation, counted from 1; half of it is done first,
//!   if it can be halved.
//! - `stop:N` stops the process before that operation, until SIGCONT.
//! - `fail:N:ERRNO` makes that operation fail with the error ERRNO.
//! - `fail:NAME:ERRNO` makes every operation called NAME fail.

use crate::native;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const VARIABLE: &str = "BITFIT_FAULT";

#[derive(Debug)]
enum Fault {
    Kill(u64),
    Stop(u64),
    Fail(u64, i32),
    FailEach(String, i32),
}

impl Fault {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let fault = match (parts.next()?, parts.next()?, parts.next()) {
            ("kill", number, None) => Self::Kill(number.parse().ok()?),
            ("stop", number, None) => Self::Stop(number.parse().ok()?),
            ("fail", which, Some(code)) => {
                let code = code.parse().ok()?;
                match which.parse() {
                    Ok(number) => Self::Fail(number, code),
                    Err(_) => Self::FailEach(which.into(), code),
                }
            }
            _ => return None,
        };
        Some(fault)
    }
}

/// Counts an operation called `name` that is about to change files, and makes the fault that is due
/// at this operation. Before the fault `kill`, does `half` of the operation.
///
/// Errs with the fault's ERRNO if the operation is to fail.
pub fn at(name: &str, half: impl FnOnce()) -> io::Result<()> {
    static FAULT: OnceLock<Option<Fault>> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let read = || std::env::var(VARIABLE).ok().and_then(|text| Fault::parse(&text));
    let Some(fault) = FAULT.get_or_init(read) else { return Ok(()) };
    let count = 1 + COUNT.fetch_add(1, Ordering::SeqCst);
    match fault {
        Fault::Kill(number) if *number == count => {
            half();
            native::kill_this_process()
        }
        Fault::Stop(number) if *number == count => {
            native::stop_this_process();
            Ok(())
        }
        Fault::Fail(number, code) if *number == count => Err(io::Error::from_raw_os_error(*code)),
        Fault::FailEach(which, code) if which == name => Err(io::Error::from_raw_os_error(*code)),
        _ => Ok(()),
    }
}
