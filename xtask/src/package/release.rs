//! Which release it is: the version of `Cargo.toml`, the commit, and the compiler, without which a build cannot be repeated.
use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testbed::workspace;

pub(super) struct Release {
    pub(super) version: String,
    pub(super) description: String,
    pub(super) license: String,
    /// The commit's hash, with `-dirty` where files differ from it.
    pub(super) revision: String,
    /// When the commit was made, as RFC 3339 has it. Nothing in a package is dated later.
    pub(super) created: String,
    /// The version of the compiler, such as `1.95.0`.
    pub(super) rustc: String,
}

impl Release {
    /// What the working tree holds.
    pub(super) fn here() -> Result<Self> {
        let metadata = output("cargo", env!("CARGO"), &["metadata", "--no-deps", "--format-version", "1"])?;
        let metadata: Value = serde_json::from_str(&metadata)?;
        let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ours =
            packages.iter().find(|package| package["name"] == "envoy-signalr").context("cargo knows no filter")?;
        let field =
            |name: &str| ours[name].as_str().map(str::to_owned).with_context(|| format!("Cargo.toml: no {name}"));
        let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
        let rustc = output("rustc", &std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into()), &["--version"])?;
        Ok(Self {
            version: field("version")?,
            description: field("description")?,
            license: field("license")?,
            revision: git(&["rev-parse", "HEAD"])? + if changed { "-dirty" } else { "" },
            created: git(&["show", "--no-patch", "--format=%cd", "--date=format-local:%Y-%m-%dT%H:%M:%SZ", "HEAD"])?,
            rustc: rustc.split(' ').nth(1).context("rustc names no version")?.to_owned(),
        })
    }

    /// What an image says of itself, by the keys that OCI defined.
    pub(super) fn annotations(&self) -> BTreeMap<&'static str, &str> {
        BTreeMap::from([
            ("org.opencontainers.image.title", "envoy-signalr"),
            ("org.opencontainers.image.description", &self.description),
            ("org.opencontainers.image.version", &self.version),
            ("org.opencontainers.image.revision", &self.revision),
            ("org.opencontainers.image.created", &self.created),
            ("org.opencontainers.image.licenses", &self.license),
        ])
    }
}

fn git(arguments: &[&str]) -> Result<String> {
    // A container may build a checkout that belongs to another user, whom git would not trust.
    output("git", "git", &[&["-c", "safe.directory=*"], arguments].concat())
}

/// What a program prints, less the last line's end.
pub(super) fn output(name: &str, program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(workspace()).env("TZ", "UTC0");
    let output = command.output().with_context(|| format!("cannot start {name}"))?;
    ensure!(output.status.success(), "{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}
