//! The command-line program as it is released: one file for any Linux on x86-64, the same bytes from the same commit.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use testbed::tools::{RustTarget, with_progress};
use testbed::{process, target_dir, workspace};

/// A first build on a busy machine takes many minutes.
const BUILD_TIMEOUT: Duration = Duration::from_secs(1_800);

/// Separates flags in `CARGO_ENCODED_RUSTFLAGS`.
const SEPARATOR: &str = "\x1f";

/// Builds it, linked to musl's C library, which needs no other file.
pub(super) fn build() -> Result<Vec<u8>> {
    let target = RustTarget::Tool.installed()?;
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["build", "--quiet", "--release", "--package", "envoy-signalr-cli", "--target", target])
        .env("CARGO_ENCODED_RUSTFLAGS", without_folders()?.join(SEPARATOR))
        .current_dir(workspace());
    let what = format!("building envoy-signalr (cargo build --release --target {target})");
    with_progress(&what, None, || process::run("cargo", command, BUILD_TIMEOUT))?;
    let file = target_dir().join(target).join("release/envoy-signalr");
    fs::read(&file).with_context(|| format!("cannot read {}", file.display()))
}

/// Flags that take the folders of this machine out of the places that panics name. `envoy/build-module.sh` has the same for the module.
fn without_folders() -> Result<Vec<String>> {
    let print = |arguments: &[&str]| -> Result<String> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let output =
            Command::new(rustc).args(arguments).current_dir(workspace()).output().context("cannot start rustc")?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let sysroot = print(&["--print", "sysroot"])?;
    let version = print(&["--version", "--verbose"])?;
    let commit = version.lines().find_map(|line| line.strip_prefix("commit-hash: ")).unwrap_or_default();
    let home = || Some(OsString::from(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let cargo_home = std::env::var_os("CARGO_HOME").or_else(home).context("HOME is not set")?;
    Ok([
        format!("{}/registry/src=/registry", cargo_home.display()),
        format!("{}=/envoy-signalr", workspace().display()),
        format!("{sysroot}/lib/rustlib/src/rust=/rustc/{commit}"),
    ]
    .map(|pair| format!("--remap-path-prefix={pair}"))
    .into())
}
