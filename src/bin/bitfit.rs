//! `bitfit`: all commands. Started under the name `bitfit-train`, it is `bitfit train`.

fn main() {
    bitfit::internal::cli::main()
}
