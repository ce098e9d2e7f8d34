//! The `thalweg` binary: everything is in the library.

fn main() -> std::process::ExitCode {
    thalweg::cli::main()
}
