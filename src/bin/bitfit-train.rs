//! `bitfit-train`: `bitfit train` with OpenMP threads that spin only briefly before they sleep.
//!
//! By default, waiting threads of GNU's OpenMP spin ten times as long, and a run beside another
//! busy program then takes up to 40 times as long. Without any spinning, a step of a small BERT
//! takes 1.4 times as long on a machine of its own.
//!
//! OpenMP reads its environment while libtorch is loaded, before `main`. So this program, which
//! does not load libtorch, sets the environment and then executes `bitfit`.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    const SPIN: &str = "GOMP_SPINCOUNT";
    let bitfit = match std::env::current_exe() {
        Ok(me) => me.with_file_name("bitfit"),
        Err(_) => "bitfit".into(),
    };
    let mut command = Command::new(&bitfit);
    command.arg0("bitfit-train").args(std::env::args_os().skip(1));
    if [SPIN, "OMP_WAIT_POLICY"].iter().all(|name| std::env::var_os(name).is_none()) {
        command.env(SPIN, "30000");
    }
    // `exec` returns only if it fails.
    let error = command.exec();
    let _ = writeln!(
        std::io::stderr(),
        "error: cannot start {bitfit:?}, which belongs beside bitfit-train: {error}"
    );
    ExitCode::FAILURE
}
