//! Microsoft's SignalR client for Java, and the program that drives it.
//!
//! Maven keeps what it fetches in the user's own repository, as it always does. It pins versions but no content, so
//! `jars.sha256` does.
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::source::Source;
use super::{DOWNLOAD_TIMEOUT, Program, State, fingerprint};
use crate::{process, workspace};

/// Of the same JDK as `java`, and the only part of it that knows whether it is new enough.
const JAVAC: Program =
    Program { name: "javac", probe: &["--release", "17", "--version"], remedy: "a JDK, version 17 or newer" };

const MAVEN: Program = Program { name: "mvn", probe: &["--quiet", "--version"], remedy: "Maven" };

/// Not by their short names, for which Maven would ask the registry for lists.
const GOALS: [&str; 2] = [
    "org.apache.maven.plugins:maven-compiler-plugin:compile",
    "org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies",
];

/// Fails with one sentence where a program is missing without which there is no Java client.
pub fn java() -> Result<()> {
    JAVAC.version()?;
    MAVEN.version().map(drop)
}

/// The class path of the Java client.
pub fn java_client() -> Result<OsString> {
    java()?;
    let place = source()?.fetched(build)?;
    let jars = fs::read_to_string(project().join("jars.sha256")).context("cannot read the list of jars")?;
    let names = jars.lines().filter_map(|line| line.split_whitespace().nth(1));
    let jars = names.map(|name| place.join("jars").join(name));
    Ok(std::env::join_paths([place.join("classes")].into_iter().chain(jars))?)
}

pub(super) fn state() -> Result<State> {
    let skipped = |error| State::Optional(format!("{error} Without it the tests of the Java client are skipped"));
    java().map_or_else(|error| Ok(skipped(error)), |()| Ok(source()?.state()))
}

fn source() -> Result<Source> {
    let files = ["pom.xml", "jars.sha256", "Client.java"].map(|name| project().join(name));
    Ok(Source {
        name: "the Java client".into(),
        folder: format!("java-client-{}", fingerprint(files.iter().map(PathBuf::as_path))?),
        from: "Maven Central, com.microsoft.signalr",
        megabytes: 26,
    })
}

fn build(to: &Path) -> Result<()> {
    let mut maven = Command::new(MAVEN.name);
    maven.args(["--batch-mode", "--quiet"]).arg(format!("-Dto={}", to.display())).args(GOALS).current_dir(project());
    process::run_with_output("mvn", maven, DOWNLOAD_TIMEOUT)?;
    let mut check = Command::new("sha256sum");
    check.arg("-c").arg(project().join("jars.sha256")).current_dir(to.join("jars"));
    process::run_with_output("sha256sum", check, process::PATIENCE)
}

fn project() -> PathBuf {
    workspace().join("tests/clients/java")
}
