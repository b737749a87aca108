//! `bitfit-train --config configs/movie-reviews.toml`

fn main() -> std::process::ExitCode {
    bitfit::cli::train_main()
}
