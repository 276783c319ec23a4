//! The module under test: the one that is given, or else built from this tree.
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{process, target_dir, workspace};

const TARGET: &str = "wasm32-wasip1";

/// The path of the module: `$ENVOY_SIGNALR_WASM`, or else it is built, once in a process.
pub fn module() -> Result<PathBuf> {
    static MODULE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = MODULE.get_or_init(|| match std::env::var_os("ENVOY_SIGNALR_WASM") {
        Some(path) => std::path::absolute(path).map_err(|error| error.to_string()),
        None => build(&[]).map_err(|error| format!("{error:#}")),
    });
    built.clone().map_err(anyhow::Error::msg)
}

/// The module with the feature `trap`, built beside the other: a request with `x-signalr-trap` ends its VM.
pub fn module_that_traps() -> Result<PathBuf> {
    let folder = target_dir().join("trap");
    build(&["--features", "trap", "--target-dir", folder.to_str().context("the target folder is not UTF-8")?])
}

fn build(arguments: &[&str]) -> Result<PathBuf> {
    require_target()?;
    eprintln!("building the module (cargo build --release --target {TARGET}) …");
    let started = Instant::now();
    let mut command = cargo();
    command
        .args(["build", "--release", "--target", TARGET, "--package", "envoy-signalr", "--lib"])
        .arg("--message-format=json-render-diagnostics")
        .args(arguments)
        // Else the places of panics would name this machine's folders, and no two machines would build the same module.
        .env("CARGO_ENCODED_RUSTFLAGS", remapped_paths()?)
        .current_dir(workspace());
    let messages = process::run("cargo", command, Duration::from_secs(900))?;
    eprintln!("… done in {:.0} s", started.elapsed().as_secs_f32().ceil());
    artifact(&String::from_utf8_lossy(&messages)).context("cargo built the module but did not say where")
}

/// Compiler flags that take the folders of this machine out of what is built.
fn remapped_paths() -> Result<String> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home =
        home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"))).context("HOME is not set")?;
    let folders = [(home.join("registry/src"), "/registry"), (workspace(), "/envoy-signalr")];
    let flags = folders.map(|(folder, name)| format!("--remap-path-prefix={}={name}", folder.display()));
    // The separator of CARGO_ENCODED_RUSTFLAGS.
    Ok(flags.join("\x1f"))
}

/// The path of the module among cargo's messages, one JSON object a line.
fn artifact(messages: &str) -> Option<PathBuf> {
    let values = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let files = values
        .filter(|value| value["reason"] == "compiler-artifact")
        .flat_map(|value| value["filenames"].as_array().cloned().unwrap_or_default());
    files
        .filter_map(|file| Some(PathBuf::from(file.as_str()?)))
        .find(|file| file.file_name().is_some_and(|name| name == "envoy_signalr.wasm"))
}

fn require_target() -> Result<()> {
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(workspace())
        .output()
        .context("cannot start rustc")?;
    if !PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).exists() {
        bail!("Rust cannot build for {TARGET} here: run `rustup target add {TARGET}`.");
    }
    Ok(())
}

/// The cargo that runs us, if one does.
fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_found_among_the_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","filenames":["/t/release/liblog.rlib"]}"#,
            "\n",
            r#"{"reason":"compiler-artifact","filenames":["/t/release/envoy_signalr.wasm","/t/release/libenvoy_signalr.rlib"]}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(artifact(messages), Some(PathBuf::from("/t/release/envoy_signalr.wasm")));
    }
}
