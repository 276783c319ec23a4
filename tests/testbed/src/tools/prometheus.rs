//! Prometheus and its `promtool`: those on the PATH, or else Debian's, which no language's registry carries.
//!
//! Debian's package is unpacked into the cache, so that root is not wanted. Its list of packages is fetched for that alone:
//! a fresh machine has none.
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{cache_dir, install};
use crate::process;

const FETCH: &str = r#"
apt() { apt-get --quiet --option Dir::State::Lists="$PWD/lists" --option Dir::Cache="$PWD/cache" --option APT::Sandbox::User= "$@"; }
set -e
mkdir --parents lists/partial cache/archives/partial
apt update
apt download prometheus
dpkg --extract prometheus_*.deb "$1"
"#;

/// The folder with `prometheus` and `promtool`.
pub fn prometheus() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let complete = |folder: &PathBuf| folder.join("promtool").is_file() && folder.join("prometheus").is_file();
    if let Some(folder) = std::env::split_paths(&path).find(complete) {
        return Ok(folder);
    }
    let place = install(&cache_dir()?, "prometheus-debian", "fetching Prometheus (Debian's package)", |to| {
        let scratch = tempfile::tempdir()?;
        let mut command = Command::new("sh");
        command.args(["-c", FETCH, "sh"]).arg(to).current_dir(scratch.path());
        process::run("apt-get", command, Duration::from_secs(120)).map(drop)
    });
    Ok(place.context("`prometheus` and `promtool` are not on the PATH: install Prometheus.")?.join("usr/bin"))
}
