//! `cargo xtask` as a program, for tests of what users call.
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::workspace;

/// The program that `cargo xtask` runs. It is built, once in a process.
pub fn xtask() -> Result<PathBuf> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = PROGRAM.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}

fn build() -> Result<PathBuf> {
    let arguments = ["build", "--quiet", "--package", "xtask", "--message-format", "json"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(workspace()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout)?;
    let mut messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = messages.find_map(|message| {
        let ours = message["target"]["name"] == "xtask";
        message["executable"].as_str().filter(|_| ours).map(PathBuf::from)
    });
    program.context("cargo did not name the program")
}
