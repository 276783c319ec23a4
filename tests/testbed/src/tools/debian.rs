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

/// A program on the PATH, or else from the Debian package of the same name.
struct Packaged {
    /// The program, as it is called on the PATH.
    name: &'static str,
    /// Its folder in the package.
    folder: &'static str,
    /// Where the package comes from, for the reader.
    from: &'static str,
    /// The size of the package and what it needs.
    megabytes: u32,
}

const NGINX: Packaged = Packaged { name: "nginx", folder: "usr/sbin", from: "Debian, nginx", megabytes: 1 };
const REDIS: Packaged =
    Packaged { name: "redis-server", folder: "usr/bin", from: "Debian, redis-server", megabytes: 2 };

impl Packaged {
    fn program(&self) -> Result<PathBuf> {
        if let Some(program) = on_path(&[self.name]) {
            return Ok(program);
        }
        let place = self.source().fetched(|to| unpack(self.name, to));
        let missing = || format!("`{0}` is not on the PATH: install {0}.", self.name);
        Ok(place.with_context(missing)?.join(self.folder).join(self.name))
    }

    fn state(&self) -> State {
        on_path(&[self.name])
            .map_or_else(|| self.source().state(), |program| State::Ready(program.display().to_string()))
    }

    fn source(&self) -> Source {
        Source {
            name: self.name.into(),
            folder: format!("{}-debian", self.name),
            from: self.from,
            megabytes: self.megabytes,
        }
    }
}

/// The program `nginx`.
pub fn nginx() -> Result<PathBuf> {
    NGINX.program()
}

/// The program `redis-server`.
pub fn redis() -> Result<PathBuf> {
    REDIS.program()
}

pub(super) fn nginx_state() -> State {
    NGINX.state()
}

pub(super) fn redis_state() -> State {
    REDIS.state()
}

fn prometheus_source() -> Source {
    Source { name: "Prometheus".into(), folder: "prometheus-debian".into(), from: "Debian, prometheus", megabytes: 60 }
}
