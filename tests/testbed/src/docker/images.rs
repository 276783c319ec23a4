//! Stand-ins for the images that the repository's Dockerfiles begin with: `tools/stand-ins` says what each is.
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Engine, TIMEOUT};
use crate::process;
use crate::tools::{self, EnvoyVersion, PrometheusVersion, RustTarget};

/// The version that the chat's Dockerfile names.
const CLIENT: &str = "@microsoft/signalr@10.0.11";

pub(super) fn make(engine: &Engine) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/stand-ins");
    let mut build = engine.command(&folder, ["compose", "--progress", "plain", "build"]);
    build.envs(contexts()?);
    process::run_with_output("docker", build, TIMEOUT)
}

/// The variables of the stand-ins' compose file. What they name is fetched if it is not there yet.
pub(super) fn contexts() -> Result<Vec<(&'static str, OsString)>> {
    // The image takes it from the toolchain here.
    RustTarget::Module.installed()?;
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "sysroot"]);
    let sysroot = PathBuf::from(String::from_utf8(process::run("rustc", rustc, TIMEOUT)?)?.trim());
    let toolchain = sysroot.file_name().context("a toolchain has a folder")?.to_owned();
    let folder = |program: PathBuf| program.parent().map(Path::to_owned).context("a program has a folder");
    let places = [
        ("RUSTUP", tools::rustup()?),
        ("CRATES", tools::crates()?),
        ("DEBIAN", tools::root_file_system()?),
        ("DOTNET", tools::dotnet_at_least(10)?.root()?),
        ("ENVOY", folder(tools::envoy(EnvoyVersion::Newest)?)?),
        ("NODE", tools::node()?),
        ("NPM", tools::npm()?),
        ("NPM_CACHE", tools::npm_cache(CLIENT)?),
        ("NUGET_PACKAGES", tools::nuget_packages()?),
        ("PROMETHEUS", tools::prometheus(PrometheusVersion::Three)?),
        ("SYSROOT", sysroot),
    ];
    let places = places.map(|(name, place)| (name, place.into_os_string()));
    Ok(places.into_iter().chain([("TOOLCHAIN", toolchain)]).collect())
}
