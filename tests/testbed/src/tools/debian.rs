//! Programs that no language's registry carries, from Debian's packages.
//!
//! They are unpacked into the cache with the libraries that this machine lacks. So root is not needed, and a run by root
//! does not change the machine. `apt` gets a package list of its own, because a fresh machine has none.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::source::Source;
use super::{State, on_path};
use crate::process;

const FETCH: &str = r#"
set -e
apt() {
    apt-get --quiet --yes --option Dir::State::Lists="$PWD/lists" --option Dir::Cache="$PWD/cache" \
        --option APT::Sandbox::User= --option Debug::NoLocking=true "$@"
}
mkdir -p lists/partial cache/archives/partial
apt update
apt --no-install-recommends --download-only install "$2"
for package in cache/archives/*.deb; do dpkg --extract "$package" "$1"; done
"#;

/// Unpacks a package of Debian's, and those that it depends on and that are not installed, into `to`.
pub(super) fn unpack(package: &str, to: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut command = Command::new("sh");
    command.args(["-c", FETCH, "sh"]).arg(to).arg(package).current_dir(scratch.path());
    process::run("apt-get", command, Duration::from_secs(900)).map(drop)
}

/// The folder with `prometheus` and `promtool`: on the PATH, or else Debian's.
pub fn prometheus() -> Result<PathBuf> {
    if let Some(folder) = prometheus_on_path() {
        return Ok(folder);
    }
    let place = prometheus_source().fetched(|to| unpack("prometheus", to));
    Ok(place.context("`prometheus` and `promtool` are not on the PATH: install Prometheus.")?.join("usr/bin"))
}

pub(super) fn prometheus_state() -> State {
    prometheus_on_path()
        .map_or_else(|| prometheus_source().state(), |folder| State::Ready(folder.display().to_string()))
}

fn prometheus_on_path() -> Option<PathBuf> {
    let folder = on_path(&["prometheus"])?.parent()?.to_owned();
    folder.join("promtool").is_file().then_some(folder)
}

/// The program `nginx`: on the PATH, or else Debian's.
pub fn nginx() -> Result<PathBuf> {
    if let Some(program) = on_path(&["nginx"]) {
        return Ok(program);
    }
    let place = nginx_source().fetched(|to| unpack("nginx", to));
    Ok(place.context("`nginx` is not on the PATH: install nginx.")?.join("usr/sbin/nginx"))
}

pub(super) fn nginx_state() -> State {
    on_path(&["nginx"]).map_or_else(|| nginx_source().state(), |program| State::Ready(program.display().to_string()))
}

fn nginx_source() -> Source {
    Source { name: "nginx".into(), folder: "nginx-debian".into(), from: "Debian, nginx", megabytes: 1 }
}

fn prometheus_source() -> Source {
    Source { name: "Prometheus".into(), folder: "prometheus-debian".into(), from: "Debian, prometheus", megabytes: 60 }
}
