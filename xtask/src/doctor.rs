//! `cargo xtask doctor`: what this machine has of what the tasks need, and where the rest would come from.
use std::process::ExitCode;

use anyhow::Result;
use testbed::tools::{self, State};

/// Prints one line for each tool. Fails when one is missing that no task can fetch.
pub(crate) fn run() -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for tool in tools::survey()? {
        let (state, detail) = match &tool.state {
            State::Ready(detail) => ("ready", detail),
            State::Fetchable(detail) => ("to fetch", detail),
            State::Optional(detail) => ("optional", detail),
            State::Missing(detail) => {
                code = ExitCode::FAILURE;
                ("missing", detail)
            }
        };
        println!("{:<36} {state:<9} {detail}", tool.name);
    }
    println!("\nWhat is to fetch goes to {}, when a task first needs it.", tools::cache_dir()?.display());
    Ok(code)
}
