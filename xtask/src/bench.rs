//! `cargo xtask bench`: what something costs, measured by a command that anybody can repeat.

mod gateway;
mod growth;
mod load;
mod report;
mod sides;
mod size;

use std::process::Command;

use anyhow::Result;
use testbed::tools::RustTarget;

use crate::cargo;

/// What to measure.
#[derive(clap::Args, Debug)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// The cost of a connect and its end in the ledger, against hubs, instances, open connections and threads
    Ledger {
        /// How many times each case is measured
        #[arg(long, default_value_t = 31)]
        rounds: u32,
        /// Measure WebAssembly under V8, in Node.js, instead of native code
        #[arg(long)]
        v8: bool,
    },
    /// What a request and a message cost in Envoy with and without the filter, and in other proxies
    Gateway(gateway::Options),
    /// What the module's code is made of
    Size,
    /// Whether a connect or a message costs more while many WebSockets are open, and the memory of one
    Growth(growth::Options),
}

/// Measures, and prints Markdown tables.
pub(crate) fn run(Bench { what }: &Bench) -> Result<()> {
    match what {
        What::Ledger { rounds, v8 } => ledger(*rounds, *v8),
        What::Gateway(options) => gateway::run(options),
        What::Size => size::run(),
        What::Growth(options) => growth::run(options),
    }
}

/// Settings of the C library for a program. This one makes its memory of huge pages, where Linux has them.
const TUNABLES: &str = "GLIBC_TUNABLES";

fn ledger(rounds: u32, v8: bool) -> Result<()> {
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["bench", "--quiet", "--package", "envoy-signalr", "--bench", "ledger"])
        .current_dir(testbed::workspace());
    // All cases together fill more pages than a processor remembers the places of, and each connect would measure that.
    if std::env::var_os(TUNABLES).is_none() {
        command.env(TUNABLES, "glibc.malloc.hugetlb=1");
    }
    if v8 {
        command
            .args(["--target", RustTarget::Module.installed()?])
            .env("CARGO_TARGET_WASM32_WASIP1_RUNNER", "node --no-warnings --single-threaded tests/bench/wasi.mjs");
    }
    cargo::run("the ledger", command.args(["--", &rounds.to_string()]))
}
