//! `envoy-signalr`: the command-line program for those who run the filter.
//!
//! It reads configurations and sealed ids with the filter's own code, so the two never disagree.
//!
//! | command | module |
//! |---|---|
//! | `check` | [`check`]: configurations, and what stands around them |
//! | `convert` | [`convert`]: settings and manifests from the configuration of another proxy |
//! | `inspect` | [`inspect`]: a sealed id or cookie |
//! | `render` | [`render`]: manifests |
//! | `keygen`, `keys rotate` | [`keys`]: secrets, and the way from one to the next |
#![warn(missing_docs)]

pub mod check;
pub mod convert;
pub mod inspect;
pub mod keys;
pub mod render;
mod settings;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

/// What the program is asked to do.
#[derive(Debug, Parser)]
#[command(
    name = "envoy-signalr",
    version,
    about = "Check, understand and operate the SignalR filter for Envoy and Istio"
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Check),
    Convert(convert::Convert),
    Inspect(inspect::Inspect),
    Keygen(keys::Keygen),
    /// Manage the keys of a configuration
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Print manifests, ready to apply
    #[command(subcommand)]
    Render(render::Render),
    /// Print a script that completes this program's commands in a shell
    #[command(after_help = "Example:\n  source <(envoy-signalr completions bash)")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// The text of a file; `-` is standard input.
///
/// # Errors
/// A file that cannot be read, with its name.
pub(crate) fn read(file: &Path) -> Result<String> {
    let text =
        if file == Path::new("-") { std::io::read_to_string(std::io::stdin()) } else { fs::read_to_string(file) };
    text.with_context(|| format!("cannot read {}", file.display()))
}

/// Prints to standard output. A reader that has seen enough, such as `head`, is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Does what is asked.
///
/// # Errors
/// What keeps it from an answer, such as a file that cannot be read. An answer that is bad news is a status.
pub fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.command {
        Command::Check(options) => return check::run(&options),
        Command::Convert(options) => return convert::run(&options),
        Command::Inspect(options) => return inspect::run(&options),
        Command::Keygen(options) => keys::generate(&options)?,
        Command::Keys(keys) => keys::run(&keys)?,
        Command::Render(render) => render::run(&render)?,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "envoy-signalr", &mut std::io::stdout());
        }
    }
    Ok(ExitCode::SUCCESS)
}
