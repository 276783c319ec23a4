//! Docker's programs, and what stand-ins for images are made of.
//!
//! They come from Debian's packages, unpacked into the cache, also where Docker is installed: the tests want these versions, and
//! an engine beside the one that is there.
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::source::Source;
use super::{DOWNLOAD_TIMEOUT, NODE, NPM, RustTarget, State, debian, fingerprint, on_path};
use crate::{process, workspace};

/// The oldest of Debian's releases with a Compose that has all that docker-compose.yaml uses.
const RELEASE: &str = "trixie";

/// The machine for which tools are fetched.
const HOST: &str = "x86_64-unknown-linux-gnu";

/// The plugin for Compose, which needs no engine to read a file.
pub fn compose() -> Result<PathBuf> {
    let place = compose_source().fetched(|to| debian::unpack_from(RELEASE, &["docker-compose"], to))?;
    Ok(place.join("usr/libexec/docker/cli-plugins/docker-compose"))
}

/// The programs of an engine.
#[derive(Clone, Debug)]
pub struct Docker {
    engine: PathBuf,
    /// What the engine needs of this machine and the machine lacks.
    lacking: PathBuf,
    compose: PathBuf,
}

/// Docker's engine, command line and plugins.
pub fn docker() -> Result<Docker> {
    Ok(Docker {
        engine: engine_source().fetched(|to| {
            debian::unpack_from(RELEASE, &["docker.io", "docker-cli", "docker-buildx", "containerd"], to)
        })?,
        lacking: lacking_source().fetched(|to| {
            debian::unpack_all(&["runc", "iptables", "iproute2"], to)?;
            // Debian chooses between two by links that scripts of the packages make.
            let programs = to.join("usr/sbin");
            for name in ["iptables", "ip6tables"] {
                if programs.join(format!("{name}-nft")).symlink_metadata().is_ok() {
                    symlink(format!("{name}-nft"), programs.join(name))?;
                }
            }
            Ok(())
        })?,
        compose: compose()?,
    })
}

impl Docker {
    /// Variables with which a shell finds all of them.
    pub fn environment(&self) -> Result<Vec<(&'static str, OsString)>> {
        let own = [&self.engine, &self.lacking]
            .map(|folder| ["usr/sbin", "usr/bin", "sbin", "bin"].map(|bin| folder.join(bin)));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(own.into_iter().flatten().chain(std::env::split_paths(&path)))?;
        let libraries = self.lacking.join("usr/lib/x86_64-linux-gnu");
        let extensions = libraries.join("xtables");
        let mut environment = vec![("PATH", path), ("LD_LIBRARY_PATH", libraries.into())];
        if extensions.exists() {
            environment.push(("XTABLES_LIBDIR", extensions.into()));
        }
        Ok(environment)
    }

    /// Puts the plugins where the command line looks for them.
    pub fn link_plugins(&self, configuration: &Path) -> Result<()> {
        let folder = configuration.join("cli-plugins");
        fs::create_dir_all(&folder)?;
        symlink(&self.compose, folder.join("docker-compose"))?;
        Ok(symlink(self.engine.join("usr/libexec/docker/cli-plugins/docker-buildx"), folder.join("docker-buildx"))?)
    }
}

/// A small Debian with Redis, and with a C compiler, which Rust links with.
pub fn root_file_system() -> Result<PathBuf> {
    root_source().fetched(|to| {
        let programs = ["bash", "dash", "coreutils", "grep", "sed", "tar", "gzip", "redis-server"];
        let libraries = ["gcc", "libc6-dev", "libstdc++6", "libssl3", "zlib1g"];
        debian::unpack_root(&[&programs[..], &libraries].concat(), to)
    })
}

/// The folder of npm, which is a program for Node.
pub fn npm() -> Result<PathBuf> {
    NPM.version()?;
    let mut command = Command::new(NPM.name);
    command.args(["root", "--global"]);
    let printed = process::run("npm", command, DOWNLOAD_TIMEOUT)?;
    let npm = Path::new(String::from_utf8_lossy(&printed).trim()).join("npm");
    ensure!(npm.is_dir(), "there is no npm in {}", npm.display());
    Ok(npm)
}

/// The folder of the program `rustup`.
pub fn rustup() -> Result<PathBuf> {
    let program = on_path(&["rustup"]).context("`rustup` is not on the PATH: install Rust by rustup.")?;
    Ok(program.parent().context("a program has a folder")?.to_owned())
}

/// The folder of the program `node`.
pub fn node() -> Result<PathBuf> {
    NODE.version()?;
    let program = on_path(&[NODE.name]).context("`node` is not on the PATH")?.canonicalize()?;
    Ok(program.parent().context("a program has a folder")?.to_owned())
}

/// A cache of npm with the package that this version of the image of `examples/chat` takes from there.
pub fn npm_cache(package: &str) -> Result<PathBuf> {
    let name = package.replace(['@', '/'], "-");
    let source = Source {
        name: format!("{package} for an image"),
        folder: format!("npm-cache{name}"),
        from: "npm",
        megabytes: 1,
    };
    source.fetched(|to| {
        let mut command = Command::new(NPM.name);
        command.args(["cache", "add", package, "--cache"]).arg(to);
        process::run("npm", command, DOWNLOAD_TIMEOUT).map(drop)
    })
}

/// A folder with the packages that `examples/chat` needs of NuGet, which can be a source of packages itself.
pub fn nuget_packages() -> Result<PathBuf> {
    let dotnet = super::dotnet_at_least(10)?;
    let project = workspace().join("examples/chat");
    let source = Source {
        name: "NuGet packages for an image".into(),
        folder: format!("nuget-{}", fingerprint([project.join("chat.csproj").as_path()])?),
        from: "NuGet",
        megabytes: 4,
    };
    source.fetched(|to| {
        let scratch = tempfile::tempdir()?;
        let mut command = dotnet.command();
        command.args(["restore", "--packages"]).arg(to);
        command.arg(format!("-p:BaseIntermediateOutputPath={}/", scratch.path().display())).current_dir(project);
        process::run_with_output("dotnet", command, DOWNLOAD_TIMEOUT)
    })
}

/// A home of cargo with the crates that `Cargo.lock` names: the user's own has others, and changes all the time.
pub fn crates() -> Result<PathBuf> {
    let source = Source {
        name: "the crates of Cargo.lock for an image".into(),
        folder: format!("crates-of-two-targets-{}", fingerprint([workspace().join("Cargo.lock").as_path()])?),
        from: "the Rust registry",
        megabytes: 25,
    };
    source.fetched(|to| {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // Cargo wants those of its own machine as well, although it builds for another.
        command.args(["fetch", "--locked", "--quiet", "--target", RustTarget::Module.name(), "--target", HOST]);
        command.env("CARGO_HOME", to).current_dir(workspace());
        process::run("cargo", command, DOWNLOAD_TIMEOUT)?;
        // What the image does not need is half of it.
        Ok(fs::remove_dir_all(to.join("registry/src"))?)
    })
}

pub(super) fn compose_state() -> State {
    compose_source().state()
}

pub(super) fn engine_state() -> State {
    engine_source().state()
}

fn compose_source() -> Source {
    Source {
        name: "Docker Compose".into(),
        folder: format!("docker-compose-{RELEASE}"),
        from: "Debian, docker-compose",
        megabytes: 13,
    }
}

fn engine_source() -> Source {
    Source {
        name: "Docker's engine".into(),
        folder: format!("docker-{RELEASE}"),
        from: "Debian, docker.io, docker-buildx, containerd",
        megabytes: 77,
    }
}

fn lacking_source() -> Source {
    Source {
        name: "what Docker needs".into(),
        folder: "docker-needs-debian".into(),
        from: "Debian, runc, iptables, iproute2",
        megabytes: 3,
    }
}

fn root_source() -> Source {
    Source {
        name: "a root file system for images".into(),
        folder: "root-debian-2".into(),
        from: "Debian, bash, gcc, redis-server and what they need",
        megabytes: 70,
    }
}
