//! `bitfit`: all commands. Started under the name `bitfit-train`, it is `bitfit train`.

fn main() -> std::process::ExitCode {
    bitfit::internal::cli::main()
}
