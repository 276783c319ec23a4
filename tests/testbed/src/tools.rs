//! What the testbed needs and this machine may lack, fetched once into a cache.
//!
//! Each tool has a file that finds or fetches it, and says which of the two it would be: that is what
//! `cargo xtask doctor` prints ([`survey()`]). Packages are pinned by version and hash, except Debian's.
mod chromium;
mod clients;
mod control_plane;
mod debian;
mod docker;
mod dotnet;
mod envoy;
mod go;
mod go_programs;
mod java;
mod kubernetes;
mod rust;
mod skips;
mod source;
mod space;
mod survey;

pub use chromium::{Chromium, chromium};
pub use clients::{autobahn, node_clients, python_clients};
pub use control_plane::{ControlPlane, can_run_control_plane, control_plane};
pub use debian::{PrometheusVersion, RedisVersion, etcd, haproxy, nginx, prometheus, redis};
pub use docker::{Docker, compose, crates, docker, node, npm, npm_cache, nuget_packages, root_file_system, rustup};
pub use dotnet::{Dotnet, dotnet, dotnet_at_least};
pub use envoy::{EnvoyVersion, envoy};
pub use go::{go, go_client, go_hub};
pub use go_programs::{
    actionlint, build_go_programs_in_background, crane, envoy_gateway, func_e, istio_fetch, traefik,
};
pub use java::{java, java_client};
pub use kubernetes::{GatewayApi, Kubernetes, kubernetes};
pub use rust::{RustTarget, wasm_bindgen_runner};
pub use skips::{Skips, count_skips};
pub(crate) use source::exclusive;
pub use source::with_progress;
pub use space::require_space;
pub use survey::{State, Tool, survey};

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::process;

/// Long enough for a slow line, and short enough for a CI job to say what it waited for.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(900);

/// A program that must be installed before anything else can be fetched.
struct Program {
    name: &'static str,
    /// Ends with success, and prints the version, if the program is new enough.
    probe: &'static [&'static str],
    /// What to install if not.
    remedy: &'static str,
}

const PYTHON: Program = Program {
    name: "python3",
    probe: &["-c", "import pip, sys; assert sys.version_info >= (3, 10); print(sys.version.split()[0])"],
    remedy: "Python 3.10 or newer with pip (on Debian: python3 and python3-pip)",
};

const NODE: Program = Program {
    name: "node",
    probe: &["-e", "console.log(process.version); process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)"],
    remedy: "Node.js 20 or newer",
};

const NPM: Program = Program { name: "npm", probe: &["--version"], remedy: "npm (it comes with Node.js)" };

impl Program {
    /// The version, or one sentence that says what to install.
    fn version(&self) -> Result<String> {
        match Command::new(self.name).args(self.probe).output() {
            Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            _ => bail!("`{}` is missing here or too old: install {}.", self.name, self.remedy),
        }
    }

    fn state(&self) -> State {
        self.version().map_or_else(|error| State::Missing(error.to_string()), State::Ready)
    }
}

/// Fails with one sentence where curl is missing.
pub fn curl() -> Result<()> {
    Program { name: "curl", probe: &["--version"], remedy: "curl" }.version().map(drop)
}

/// Stops with one sentence when a program is missing that nothing can be fetched without.
pub fn require_programs() -> Result<()> {
    [PYTHON, NODE, NPM].iter().try_for_each(|program| program.version().map(drop))
}

/// The folder that keeps what was fetched: `$ENVOY_SIGNALR_CACHE`, or `envoy-signalr` in the
/// user's cache folder.
pub fn cache_dir() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("ENVOY_SIGNALR_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("envoy-signalr")))
        .or_else(|| Some(set("HOME")?.join(".cache/envoy-signalr")))
        .context("no place for what must be fetched: set ENVOY_SIGNALR_CACHE to a folder")
}

/// Installs the wheels that the requirements file names into `directory`.
fn pip_install(directory: &Path, requirements: &Path, options: &[&str]) -> Result<()> {
    PYTHON.version()?;
    let mut command = Command::new(PYTHON.name);
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
    NODE.version()?;
    NPM.version()?;
    for name in ["package.json", "package-lock.json"] {
        let from = manifest.join(name);
        fs::copy(&from, directory.join(name)).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let mut command = Command::new(NPM.name);
    command.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(directory);
    process::run("npm", command, DOWNLOAD_TIMEOUT).map(drop)
}

/// The first of these programs that is on the PATH.
fn on_path(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let candidates = std::env::split_paths(&path).flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    candidates.into_iter().find(|program| program.is_file())
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
    fn a_missing_program_is_one_sentence() {
        let absent = Program { name: "no-such-tool", probe: &["--version"], remedy: "the tool" };
        let error = absent.version().unwrap_err();
        assert_eq!(error.to_string(), "`no-such-tool` is missing here or too old: install the tool.");
    }
}
