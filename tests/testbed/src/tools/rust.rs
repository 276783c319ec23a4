//! What Rust itself lacks on a fresh machine: targets, and the test runner for WebAssembly.
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::source::{self, Source, with_progress};
use super::{State, cache_dir};
use crate::{process, workspace};

/// A target that something here is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RustTarget {
    /// `wasm32-wasip1`: the module.
    Module,
    /// `wasm32-unknown-unknown`: the core's tests at 32 bits, under Node.
    Core,
    /// `x86_64-unknown-linux-musl`: the command-line program that runs on any Linux.
    Tool,
}

impl RustTarget {
    /// All.
    pub const ALL: [Self; 3] = [Self::Module, Self::Core, Self::Tool];

    /// Rust's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Module => "wasm32-wasip1",
            Self::Core => "wasm32-unknown-unknown",
            Self::Tool => "x86_64-unknown-linux-musl",
        }
    }

    /// Returns its name once Rust can build for it; rustup installs what is missing.
    pub fn installed(self) -> Result<&'static str> {
        let name = self.name();
        if self.is_present()? {
            return Ok(name);
        }
        let _lock = source::exclusive(&cache_dir()?, name)?;
        if self.is_present()? {
            return Ok(name);
        }
        if Command::new("rustup").arg("--version").output().is_err() {
            bail!("the Rust target {name} is missing and there is no rustup to add it: install Rust by rustup.");
        }
        with_progress(&format!("fetching the Rust target {name} from rustup (25 to 40 MB)"), None, || {
            let mut add = Command::new("rustup");
            add.args(["target", "add", name]).current_dir(workspace());
            process::run("rustup", add, Duration::from_secs(900))
                .with_context(|| format!("the Rust target {name} is missing: `rustup target add {name}` failed"))
        })?;
        Ok(name)
    }

    pub(super) fn state(self) -> State {
        match self.is_present() {
            Ok(true) => State::Ready("installed".into()),
            Ok(false) => State::Fetchable("25 to 40 MB from rustup".into()),
            Err(error) => State::Missing(format!("{error:#}")),
        }
    }

    fn is_present(self) -> Result<bool> {
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc.args(["--print", "target-libdir", "--target", self.name()]).current_dir(workspace());
        let printed = rustc.output().context("cannot start rustc")?.stdout;
        Ok(PathBuf::from(String::from_utf8_lossy(&printed).trim()).exists())
    }
}

/// The test runner of exactly the `wasm-bindgen` that `Cargo.lock` names: any other version refuses to work.
pub fn wasm_bindgen_runner() -> Result<PathBuf> {
    let (source, version) = wasm_bindgen()?;
    let place = source.fetched(|to| {
        let mut install = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        install
            .args(["install", "wasm-bindgen-cli", "--version", &version, "--debug", "--quiet"])
            // Not `--locked`: a registry that mirrors another may lack the newest versions that the lock file names.
            .args(["--bin", "wasm-bindgen-test-runner", "--root"])
            .arg(to);
        process::run("cargo", install, Duration::from_secs(1_800)).map(drop)
    })?;
    Ok(place.join("bin/wasm-bindgen-test-runner"))
}

pub(super) fn wasm_bindgen() -> Result<(Source, String)> {
    let version = include_str!("../../../../Cargo.lock")
        .split("[[package]]")
        .find_map(|package| package.trim().strip_prefix("name = \"wasm-bindgen\"\nversion = \""))
        .and_then(|rest| rest.split('"').next())
        .context("Cargo.lock names no wasm-bindgen")?;
    let source = Source {
        name: format!("the test runner of wasm-bindgen {version}, and building it,"),
        folder: format!("wasm-bindgen-cli-{version}"),
        from: "the Rust registry, wasm-bindgen-cli",
        megabytes: 15,
    };
    Ok((source, version.to_owned()))
}
