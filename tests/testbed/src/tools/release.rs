//! What checks a release: `crane`, which is also a registry, `actionlint`, and Istio's own code that fetches a module.
//!
//! All are Go modules, pinned by `tools/go/go.sum`. Go keeps what it fetches and builds in the user's own caches.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::source::Source;
use super::{State, fingerprint, go, pinned};
use crate::process;

/// The minor version of Go that `tools/go/go.mod` asks for, because Istio does.
const OLDEST: u32 = 26;

/// Istio's package and what it needs are some hundred packages, and the machine may be busy.
const BUILD_TIMEOUT: Duration = Duration::from_secs(1_800);

/// A program of `tools/go`, and its Go package.
pub(super) struct Built {
    pub(super) name: &'static str,
    pub(super) package: &'static str,
    pub(super) megabytes: u32,
}

const CRANE: Built =
    Built { name: "crane", package: "github.com/google/go-containerregistry/cmd/crane", megabytes: 45 };
const ACTIONLINT: Built =
    Built { name: "actionlint", package: "github.com/rhysd/actionlint/cmd/actionlint", megabytes: 5 };
const ISTIO_FETCH: Built = Built { name: "istio-fetch", package: "./istio-fetch", megabytes: 90 };

/// `crane`, of go-containerregistry: it pushes, pulls and validates images, and `crane registry serve` is a registry.
pub fn crane() -> Result<PathBuf> {
    CRANE.program()
}

/// `actionlint`, which checks workflows of GitHub Actions.
pub fn actionlint() -> Result<PathBuf> {
    ACTIONLINT.program()
}

/// `istio-fetch IMAGE FILE`: what Istio's agent does with the image of a WasmPlugin, by Istio's own code.
pub fn istio_fetch() -> Result<PathBuf> {
    ISTIO_FETCH.program()
}

pub(super) fn states() -> Result<Vec<(String, State)>> {
    [CRANE, ACTIONLINT, ISTIO_FETCH].iter().map(|built| Ok((built.name.to_owned(), built.state()?))).collect()
}

impl Built {
    pub(super) fn program(&self) -> Result<PathBuf> {
        go::at_least(OLDEST)?;
        Ok(self.source()?.fetched(|to| self.build(to))?.join(self.name))
    }

    pub(super) fn state(&self) -> Result<State> {
        match go::at_least(OLDEST) {
            Ok(()) => Ok(self.source()?.state()),
            Err(error) => Ok(State::Optional(format!("{error} Without it tests of the package are skipped"))),
        }
    }

    fn source(&self) -> Result<Source> {
        let files = ["go/go.mod", "go/go.sum", "go/istio-fetch/main.go"].map(pinned);
        Ok(Source {
            name: self.name.into(),
            folder: format!("{}-{}", self.name, fingerprint(files.iter().map(PathBuf::as_path))?),
            from: "Go's module proxy, and building it",
            megabytes: self.megabytes,
        })
    }

    fn build(&self, to: &Path) -> Result<()> {
        let mut build = Command::new("go");
        build.args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-o"]).arg(to).arg(self.package);
        go::alone(&mut build).current_dir(pinned("go"));
        process::run("go", build, BUILD_TIMEOUT).map(drop)
    }
}
