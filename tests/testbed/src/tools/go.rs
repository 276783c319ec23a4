//! The SignalR client and server for Go of philippseith, and the programs that drive them.
//!
//! Go keeps what it fetches and builds in the user's own caches, as it always does; `go.sum` pins the content.
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::source::Source;
use super::{DOWNLOAD_TIMEOUT, Program, State, fingerprint};
use crate::{process, workspace};

const GO: Program = Program { name: "go", probe: &["env", "GOVERSION"], remedy: "Go" };

/// The minor version that `tests/clients/go/go.mod` asks for.
const OLDEST: u32 = 24;

/// Fails with one sentence where Go is missing or too old.
pub fn go() -> Result<()> {
    at_least(OLDEST)
}

/// The same for a tool that needs another minor version of Go.
pub(super) fn at_least(oldest: u32) -> Result<()> {
    let version = GO.version()?;
    match minor(&version) {
        Some(minor) if minor >= oldest => Ok(()),
        _ => bail!("`go` here is {version}: install Go 1.{oldest} or newer."),
    }
}

/// No other Go than the one that is here, and no C compiler.
pub(super) fn alone(build: &mut Command) -> &mut Command {
    build.env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0")
}

/// The program that drives the Go client.
pub fn go_client() -> Result<PathBuf> {
    go()?;
    Ok(source()?.fetched(build)?.join("client"))
}

/// The program that serves a Go hub.
pub fn go_hub() -> Result<PathBuf> {
    go()?;
    Ok(source()?.fetched(build)?.join("hub"))
}

pub(super) fn state() -> Result<State> {
    let skipped =
        |error| State::Optional(format!("{error} Without it the tests of the Go client and of Go hubs are skipped"));
    go().map_or_else(|error| Ok(skipped(error)), |()| Ok(source()?.state()))
}

/// Of `go1.26.8`, 26.
fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("go1.")?.split(|other: char| !other.is_ascii_digit()).next()?.parse().ok()
}

fn source() -> Result<Source> {
    let files = ["go.mod", "go.sum", "main.go", "hub/main.go"].map(|name| project().join(name));
    Ok(Source {
        name: "the Go client and hub".into(),
        folder: format!("go-client-{}", fingerprint(files.iter().map(PathBuf::as_path))?),
        from: "Go's module proxy, philippseith/signalr, and building it",
        megabytes: 17,
    })
}

fn build(to: &Path) -> Result<()> {
    for (program, package) in [("client", "."), ("hub", "./hub")] {
        let mut build = Command::new(GO.name);
        build.args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-o"]).arg(to.join(program)).arg(package);
        alone(&mut build).current_dir(project());
        process::run("go", build, DOWNLOAD_TIMEOUT)?;
    }
    Ok(())
}

fn project() -> PathBuf {
    workspace().join("tests/clients/go")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_go_is_read() {
        for (version, expected) in
            [("go1.26.8", Some(26)), ("go1.24", Some(24)), ("go1.25rc1", Some(25)), ("devel +1a2b", None), ("", None)]
        {
            assert_eq!(minor(version), expected, "{version}");
        }
    }
}
