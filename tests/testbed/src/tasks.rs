//! `cargo xtask` and `envoy-signalr` as programs, for tests of what users call.
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::workspace;

/// The program that `cargo xtask` runs. It is built, once in a process.
pub fn xtask() -> Result<PathBuf> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = PROGRAM.get_or_init(|| build("xtask", "xtask").map_err(|error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}

/// The command-line program of this project. It is built, once in a process.
pub fn envoy_signalr() -> Result<PathBuf> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built =
        PROGRAM.get_or_init(|| build("envoy-signalr-cli", "envoy-signalr").map_err(|error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}

/// What the command-line program prints, called with these arguments.
pub fn printed(arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> Result<String> {
    let output = Command::new(envoy_signalr()?).args(arguments).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn build(package: &str, program: &str) -> Result<PathBuf> {
    let arguments = ["build", "--quiet", "--package", package, "--message-format", "json"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(workspace()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout)?;
    let mut messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let file = messages.find_map(|message| {
        let ours = message["target"]["name"] == program;
        message["executable"].as_str().filter(|_| ours).map(PathBuf::from)
    });
    file.context("cargo did not name the program")
}
