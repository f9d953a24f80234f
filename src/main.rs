//! The `isochrone` binary; everything lives in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    isochrone::cli::main()
}
