//! The program; what it does is in the library.

use std::process::ExitCode;

use clap::Parser as _;
use envoy_signalr_cli::{Arguments, run};

fn main() -> ExitCode {
    run(Arguments::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        // 1 is for bad news about what was read.
        ExitCode::from(2)
    })
}
