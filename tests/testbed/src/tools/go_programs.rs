//! Programs that others publish as Go modules only: the control planes of gateways.
//!
//! Each takes minutes of CPU to build, so `cargo xtask test` begins with that at its start, at a low priority and beside the tests.
//! A test that needs one waits for it. The folder of a program in `tests/testbed/tools` pins its modules.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::go::{alone, at_least};
use super::source::Source;
use super::{State, fingerprint, pinned};
use crate::process;

/// A build at a low priority, beside a whole suite of tests, on a machine whose cores are taken.
const BUILD_TIMEOUT: Duration = Duration::from_secs(2 * 3_600);

/// A program that is built from Go modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoProgram {
    /// The control plane of Envoy Gateway.
    EnvoyGateway,
}

struct Recipe {
    /// With its version.
    name: &'static str,
    /// The folder with its `go.mod` and `go.sum`, and the name of the program.
    folder: &'static str,
    package: &'static str,
    /// The minor version of Go that its `go.mod` asks for.
    oldest_go: u32,
    /// What is skipped without it.
    skipped: &'static str,
    /// About how much is downloaded, in MB.
    megabytes: u32,
}

impl GoProgram {
    /// All of them, in the order in which they are built.
    pub const ALL: [Self; 1] = [Self::EnvoyGateway];

    fn recipe(self) -> Recipe {
        match self {
            Self::EnvoyGateway => Recipe {
                name: "Envoy Gateway 1.9.1",
                folder: "envoy-gateway",
                package: "github.com/envoyproxy/gateway/cmd/envoy-gateway",
                oldest_go: 26,
                skipped: "the tests of Envoy Gateway are skipped",
                megabytes: 150,
            },
        }
    }

    /// Its name, with the version.
    pub fn name(self) -> &'static str {
        self.recipe().name
    }

    /// The program, which is built if it is not there yet. Fails with one sentence where Go is missing or too old.
    pub fn built(self) -> Result<PathBuf> {
        self.require_go()?;
        Ok(self.source()?.fetched(|to| self.build(to))?.join(self.recipe().folder))
    }

    pub(super) fn state(self) -> Result<State> {
        Ok(match self.require_go() {
            Err(error) => State::Optional(format!("{error} Without it {}", self.recipe().skipped)),
            Ok(()) => self.source()?.state(),
        })
    }

    fn build(self, to: &Path) -> Result<()> {
        let recipe = self.recipe();
        let mut build = Command::new("nice");
        build.args(["-n", "5", "go", "build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o"]);
        build.arg(to.join(recipe.folder)).arg(recipe.package);
        alone(&mut build).current_dir(self.project());
        process::run("go", build, BUILD_TIMEOUT).map(drop)
    }

    fn source(self) -> Result<Source> {
        let recipe = self.recipe();
        let files = ["go.mod", "go.sum"].map(|name| self.project().join(name));
        Ok(Source {
            name: recipe.name.into(),
            folder: format!("{}-{}", recipe.folder, fingerprint(files.iter().map(PathBuf::as_path))?),
            from: "Go's module proxy, and building it, which takes minutes,",
            megabytes: recipe.megabytes,
        })
    }

    fn require_go(self) -> Result<()> {
        at_least(self.recipe().oldest_go)
    }

    fn project(self) -> PathBuf {
        pinned(self.recipe().folder)
    }
}

/// Builds all that are missing, one after the other, while the caller goes on. Nothing happens where Go is missing.
pub fn build_go_programs_in_background() {
    thread::spawn(|| {
        for program in GoProgram::ALL.into_iter().filter(|program| program.require_go().is_ok()) {
            if let Err(error) = program.built() {
                eprintln!("{} could not be built: {error:#}", program.name());
            }
        }
    });
}
