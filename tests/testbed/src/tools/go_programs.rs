//! Programs that others publish as Go modules, built here.
//!
//! A folder of `tests/testbed/tools` pins the modules of one program or of several. Go keeps what it fetches and compiles in the
//! user's own caches. Some take minutes of CPU, so `cargo xtask test` begins with them at its start, at a low priority, beside the
//! tests and in the order in which tests need them. A test that needs one waits for it.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::control_plane::{can_run_control_plane, control_plane};
use super::go::{alone, at_least};
use super::source::Source;
use super::{State, fingerprint, pinned};
use crate::process;

/// A program, and what it is built from.
pub(super) struct GoProgram {
    /// The program, as Go names it.
    name: &'static str,
    /// The same for the reader, with its version if that is pinned by hand.
    title: &'static str,
    package: &'static str,
    /// The folder with `go.mod` and `go.sum`, and sources of its own there.
    project: &'static str,
    sources: &'static [&'static str],
    /// The registry, and what else takes its time.
    from: &'static str,
    /// About how much is downloaded, in MB.
    megabytes: u32,
    /// What is skipped without Go.
    skipped: &'static str,
}

/// The minor version of Go that all of their `go.mod` ask for.
const OLDEST_GO: u32 = 26;

/// A build at a low priority, beside a whole suite of tests, on a machine whose cores are taken.
pub(super) const BACKGROUND_TIMEOUT: Duration = Duration::from_secs(2 * 3_600);

/// A program of `tools/go`: what checks packages and manifests. Istio's package and what it needs are some hundred packages.
const fn checker(name: &'static str, package: &'static str, megabytes: u32) -> GoProgram {
    GoProgram {
        name,
        title: name,
        package,
        project: "go",
        sources: &["istio-fetch/main.go"],
        from: "Go's module proxy, and building it",
        megabytes,
        skipped: "tests of the package and of manifests are skipped",
    }
}

pub(super) const KUSTOMIZE: GoProgram = checker("kustomize", "sigs.k8s.io/kustomize/kustomize/v5", 10);
pub(super) const KUBECTL_VALIDATE: GoProgram = checker("kubectl-validate", "sigs.k8s.io/kubectl-validate", 60);
const CRANE: GoProgram = checker("crane", "github.com/google/go-containerregistry/cmd/crane", 45);
const ACTIONLINT: GoProgram = checker("actionlint", "github.com/rhysd/actionlint/cmd/actionlint", 5);
const ISTIO_FETCH: GoProgram = checker("istio-fetch", "./istio-fetch", 90);

const FUNC_E: GoProgram = GoProgram {
    name: "func-e",
    title: "func-e",
    package: "github.com/tetratelabs/func-e/cmd/func-e",
    project: "func-e",
    sources: &[],
    from: "Go's module proxy, tetratelabs/func-e, and building it",
    megabytes: 21,
    skipped: "the tests of func-e are skipped",
};

const ENVOY_GATEWAY: GoProgram = GoProgram {
    name: "envoy-gateway",
    title: "Envoy Gateway 1.9.1",
    package: "github.com/envoyproxy/gateway/cmd/envoy-gateway",
    project: "envoy-gateway",
    sources: &[],
    from: "Go's module proxy, and building it, which takes minutes,",
    megabytes: 150,
    skipped: "the tests of Envoy Gateway are skipped",
};

const TRAEFIK: GoProgram = GoProgram {
    name: "traefik",
    title: "Traefik 3.6.12",
    package: "github.com/traefik/traefik/v3/cmd/traefik",
    project: "traefik",
    sources: &[],
    from: "Go's module proxy, and building it, which takes minutes,",
    megabytes: 420,
    skipped: "the comparison of converted limits with Traefik's own is skipped",
};

/// In the order in which tests need them.
const ALL: [GoProgram; 8] =
    [CRANE, ACTIONLINT, ISTIO_FETCH, KUSTOMIZE, KUBECTL_VALIDATE, TRAEFIK, FUNC_E, ENVOY_GATEWAY];

/// `crane`, of go-containerregistry: it pushes, pulls and validates images, and `crane registry serve` is a registry.
pub fn crane() -> Result<PathBuf> {
    CRANE.built()
}

/// `actionlint`, which checks workflows of GitHub Actions.
pub fn actionlint() -> Result<PathBuf> {
    ACTIONLINT.built()
}

/// `istio-fetch IMAGE FILE`: what Istio's agent does with the image of a WasmPlugin, by Istio's own code.
pub fn istio_fetch() -> Result<PathBuf> {
    ISTIO_FETCH.built()
}

/// `func-e`, which fetches Envoy and runs it. In tests it fetches nothing: it is given an Envoy.
pub fn func_e() -> Result<PathBuf> {
    FUNC_E.built()
}

/// Traefik.
pub fn traefik() -> Result<PathBuf> {
    TRAEFIK.built()
}

/// The control plane of Envoy Gateway.
pub fn envoy_gateway() -> Result<PathBuf> {
    ENVOY_GATEWAY.built()
}

pub(super) fn states() -> Result<Vec<(String, State)>> {
    ALL.iter().map(|program| Ok((program.title.to_owned(), program.state()?))).collect()
}

/// Builds those that are missing, one after the other, while the caller goes on. Nothing happens where Go is missing.
pub fn build_go_programs_in_background() {
    thread::spawn(|| {
        for program in ALL.iter().filter(|_| at_least(OLDEST_GO).is_ok()) {
            report(program.title, program.built());
        }
        if can_run_control_plane().is_ok() {
            report("the control plane of Istio", control_plane());
        }
    });
}

fn report<T>(program: &str, built: Result<T>) {
    if let Err(error) = built {
        eprintln!("{program} could not be built: {error:#}");
    }
}

impl GoProgram {
    /// The program, which is built if it is not there yet. Fails with one sentence where Go is missing or too old.
    pub(super) fn built(&self) -> Result<PathBuf> {
        at_least(OLDEST_GO)?;
        Ok(self.source()?.fetched(|to| self.build(to))?.join(self.name))
    }

    fn state(&self) -> Result<State> {
        let skipped = |error| State::Optional(format!("{error} Without it {}", self.skipped));
        at_least(OLDEST_GO).map_or_else(|error| Ok(skipped(error)), |()| Ok(self.source()?.state()))
    }

    fn build(&self, to: &Path) -> Result<()> {
        let mut build = Command::new("nice");
        build.args(["-n", "5", "go", "build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags=-s -w"]);
        build.arg("-o").arg(to.join(self.name)).arg(self.package);
        alone(&mut build).current_dir(self.folder());
        process::run("go", build, BACKGROUND_TIMEOUT).map(drop)
    }

    fn source(&self) -> Result<Source> {
        let files = ["go.mod", "go.sum"].iter().chain(self.sources).map(|name| self.folder().join(name));
        let files: Vec<_> = files.collect();
        Ok(Source {
            name: self.title.into(),
            folder: format!("{}-{}", self.name, fingerprint(files.iter().map(PathBuf::as_path))?),
            from: self.from,
            megabytes: self.megabytes,
        })
    }

    fn folder(&self) -> PathBuf {
        pinned(self.project)
    }
}
