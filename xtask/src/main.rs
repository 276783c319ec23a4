//! `cargo xtask`: the one entry point to every task of this repository.
//!
//! It needs Rust (by rustup), Python 3 and Node, installs everything else into a cache, and says what it does.

mod bench;
mod cargo;
mod demo;
mod doctor;
mod gateways;
mod hubs;
mod lanes;
mod package;
mod pictures;
mod tiers;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use envoy_signalr_cli::check;
use testbed::tools::Skips;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Every task of envoy-signalr", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Show real SignalR clients through real Envoy, without the filter and with it, then serve a page to play with
    Demo(demo::Demo),
    /// Serve hubs of the chat example on ports 8081 to 8083, for an Envoy that you start beside them
    Hubs(hubs::Hubs),
    /// Run all tests: the core (also at 32 bits), the module, real Envoy, real hubs with real clients
    Test {
        /// Run only the tests whose name contains this
        name: Option<String>,
    },
    /// Check format, lints (native, wasm and the fuzz targets) and documentation
    Check,
    /// Show what this machine has of what the tasks need, what they would fetch, and what is missing
    Doctor,
    /// Build the module and print its path
    Wasm,
    /// Write what users get of a release: the module, its image and SBOM, and the manifests that name the image by its digest
    Package(package::Package),
    /// Measure what something costs
    Bench(bench::Bench),
    /// Make the pictures of the documentation anew: the chat page in Chromium, and its metrics from a real Prometheus
    Pictures,
    /// What CI runs: check, then test, of which nothing may be skipped
    Ci,
    /// What `envoy-signalr check` does
    CheckConfig(check::Check),
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Demo(options) => return demo::run(options),
        Task::Doctor => return doctor::run(),
        Task::Hubs(options) => hubs::run(&options)?,
        Task::Package(options) => package::run(&options)?,
        Task::Bench(options) => bench::run(&options)?,
        Task::CheckConfig(options) => return check::run(&options),
        Task::Test { name } => tiers::test(name.as_deref(), Skips::here())?,
        Task::Check => cargo::check()?,
        Task::Pictures => pictures::make()?,
        Task::Wasm => println!("{}", testbed::envoy::module()?.display()),
        Task::Ci => {
            cargo::check()?;
            tiers::test(None, Skips::Forbidden)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
