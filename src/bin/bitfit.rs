//! `bitfit`: everything but training by its famous name.

fn main() -> std::process::ExitCode {
    bitfit::cli::main()
}
