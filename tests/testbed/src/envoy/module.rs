//! The module under test: the one that is given, or else built from this tree.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::tools::{RustTarget, with_progress};
use crate::{process, target_dir, workspace};

/// A first build on a busy machine takes many minutes.
const BUILD_TIMEOUT: Duration = Duration::from_secs(1_800);

/// The path of the module: `$ENVOY_SIGNALR_WASM`, or else it is built, once in a process.
pub fn module() -> Result<PathBuf> {
    static MODULE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = MODULE.get_or_init(|| match std::env::var_os("ENVOY_SIGNALR_WASM") {
        Some(path) => std::path::absolute(path).map_err(|error| error.to_string()),
        None => built_here("the module", &[]).map_err(|error| format!("{error:#}")),
    });
    built.clone().map_err(anyhow::Error::msg)
}

/// The module with the feature `trap`, built beside the other: a request with `x-signalr-trap` ends its VM.
pub fn module_that_traps() -> Result<PathBuf> {
    let folder = target_dir().join("trap");
    let folder = folder.to_str().context("the target folder is not UTF-8")?;
    built_here("the module that traps", &["--features", "trap", "--target-dir", folder])
}

/// The module with the names of its functions, built beside the other: Envoy shows them in the stack trace of a trap.
pub fn module_with_names() -> Result<PathBuf> {
    let folder = target_dir().join("names");
    let folder = folder.to_str().context("the target folder is not UTF-8")?;
    // Another profile would order the functions otherwise.
    built_here("the module with names", &["--target-dir", folder, "--", "-C", "strip=debuginfo"])
}

/// A module that does nothing, to compare the other with.
pub fn module_that_does_nothing() -> Result<PathBuf> {
    RustTarget::Module.installed()?;
    // Beside the other's: their flags differ, so each build would discard what the other compiled.
    let folder = target_dir().join("empty");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["build", "--quiet", "--release", "--package", "envoy-signalr", "--example", "empty"])
        .args(["--target", RustTarget::Module.name(), "--target-dir"])
        .arg(&folder)
        .current_dir(workspace());
    with_progress("building the module that does nothing", None, || process::run("cargo", command, BUILD_TIMEOUT))?;
    Ok(folder.join(RustTarget::Module.name()).join("release/examples/empty.wasm"))
}

/// The module, built again from a copy of the sources in `folder`, by a user with another home.
pub fn module_built_in(folder: &Path) -> Result<PathBuf> {
    let (sources, home) = (folder.join("sources"), folder.join("home/.cargo"));
    for member in ["Cargo.toml", "Cargo.lock", "src", "cli", "xtask", "tests/testbed"] {
        copy(&workspace().join(member), &sources.join(member))?;
    }
    fs::create_dir_all(&home)?;
    // A link, so that nothing is fetched again: what is built bears the path that cargo was given.
    std::os::unix::fs::symlink(cargo_home()?.join("registry"), home.join("registry"))?;
    build("the module in another folder", &sources, &home, &["--target-dir", "target"])
}

fn built_here(what: &str, arguments: &[&str]) -> Result<PathBuf> {
    build(what, &workspace(), &cargo_home()?, arguments)
}

fn build(what: &str, sources: &Path, cargo_home: &Path, arguments: &[&str]) -> Result<PathBuf> {
    RustTarget::Module.installed()?;
    let mut command = Command::new("sh");
    command
        .arg(workspace().join("envoy/build-module.sh"))
        .args(["--quiet", "--message-format=json-render-diagnostics"])
        .args(arguments)
        .env("CARGO_HOME", cargo_home)
        .current_dir(sources);
    let what = format!("building {what} (cargo build --release --target {})", RustTarget::Module.name());
    let messages = with_progress(&what, None, || process::run("cargo", command, BUILD_TIMEOUT))?;
    artifact(&String::from_utf8_lossy(&messages)).context("cargo built the module but did not say where")
}

/// Where cargo keeps what it fetched.
fn cargo_home() -> Result<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"));
    std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home).context("HOME is not set")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else {
        fs::create_dir_all(to.parent().context("a file has a folder")?)?;
        fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
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
