//! A Docker engine for one test, apart from the machine's own.
//!
//! The test runs itself again in namespaces of its own ([`in_namespaces`]), where [`Engine::start`] finds no other engine: its
//! network, its mounts and its `/run` are seen by nobody else, ports of containers are taken in there alone, and with the
//! namespaces ends all that runs in them. Only images and what was built stay, below the target folder, for the next run.
//! No registry is reached from there: [`images`] makes what builds begin with.
mod images;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::process::Process;
use crate::tools::{self, exclusive};
use crate::{process, target_dir};

/// Set in the namespaces.
const INSIDE: &str = "ENVOY_SIGNALR_INSIDE";

/// Builds of images are among it: minutes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(1_800);

/// The programs run by a shell of the namespaces, as its only process at first.
const ENTER: &str = r#"mount -t tmpfs tmpfs /run && ip link set lo up && exec "$@""#;

/// Fetches all that an engine and its images are made of, and fails with one sentence where none can run.
pub fn prepare() -> Result<()> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--fork", "--pid", "--mount-proc", "--net", "--mount", "true"]);
    process::run("unshare", unshare, TIMEOUT).context("a Docker engine needs root, and namespaces of its own")?;
    tools::docker()?;
    images::contexts().map(drop)
}

/// Whether this is the test's second run, in namespaces.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs the test of this name of the present program in namespaces.
pub fn in_namespaces(test: &str) -> Result<()> {
    // One at a time: they share the images.
    let _alone = exclusive(&target_dir(), "docker")?;
    let mut command = Command::new("unshare");
    command
        .args(["--fork", "--pid", "--kill-child", "--mount-proc", "--net", "--mount", "sh", "-c", ENTER, "sh"])
        .arg(std::env::current_exe()?)
        .args(["--exact", test, "--nocapture"])
        .envs(tools::docker()?.environment()?)
        .env(INSIDE, "1")
        // Only the end of what it prints is shown.
        .env("RUST_BACKTRACE", "0");
    process::run_with_output("namespaces", command, 2 * TIMEOUT)
}

/// A running engine. Its containers end with it.
#[derive(Debug)]
pub struct Engine {
    configuration: PathBuf,
    _daemon: Process,
}

impl Engine {
    /// Starts it, in namespaces, without containers that an earlier run left, and makes the stand-ins.
    pub fn start() -> Result<Self> {
        ensure!(is_inside(), "an engine starts in namespaces of its own");
        // Below `/run`, which ends with the namespaces.
        let configuration = PathBuf::from("/run/docker-configuration");
        tools::docker()?.link_plugins(&configuration)?;
        fs::write(configuration.join("daemon.json"), "{}")?;
        let mut command = Command::new("dockerd");
        command
            .arg("--config-file")
            .arg(configuration.join("daemon.json"))
            .arg("--data-root")
            .arg(target_dir().join("docker"))
            .args(["--storage-driver", "overlay2"]);
        let mut daemon = Process::spawn("dockerd", command)?;
        daemon.wait_ready(|| UnixStream::connect("/run/docker.sock").is_ok())?;
        let engine = Self { configuration, _daemon: daemon };
        engine.clear()?;
        images::make(&engine)?;
        Ok(engine)
    }

    /// Runs Docker's command line in this folder, and returns what it prints.
    pub fn ask<S: AsRef<OsStr>>(&self, folder: &Path, arguments: impl IntoIterator<Item = S>) -> Result<String> {
        Ok(String::from_utf8(process::run("docker", self.command(folder, arguments), TIMEOUT)?)?)
    }

    /// Runs it for what it does. Builds report their errors among all that they print.
    pub fn run<S: AsRef<OsStr>>(&self, folder: &Path, arguments: impl IntoIterator<Item = S>) -> Result<()> {
        process::run_with_output("docker", self.command(folder, arguments), TIMEOUT)
    }

    fn command<S: AsRef<OsStr>>(&self, folder: &Path, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("docker");
        command.args(arguments).env("DOCKER_CONFIG", &self.configuration).current_dir(folder);
        // It holds a name by which the engine knows what it has of a folder: with another name all is sent again.
        command.env("BUILDX_CONFIG", target_dir().join("docker-buildx"));
        command
    }

    /// Removes what a run that was killed left behind.
    fn clear(&self) -> Result<()> {
        let folder = Path::new("/");
        for container in self.ask(folder, ["ps", "--all", "--quiet"])?.lines() {
            self.run(folder, ["rm", "--force", "--volumes", container])?;
        }
        for things in ["network", "volume", "image"] {
            self.run(folder, [things, "prune", "--force"])?;
        }
        Ok(())
    }
}
