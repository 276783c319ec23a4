//! A browser: Chromium.
//!
//! The one on the PATH, or else the build that npm's `@sparticuz/chromium` carries together with
//! the libraries it needs, so that neither root nor a package manager is wanted.
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use super::{cache_dir, install, npm_install, pinned};
use crate::process;

/// Chromium, and the environment it runs in.
#[derive(Clone, Debug)]
pub struct Chromium {
    /// The program.
    pub program: PathBuf,
    /// What must be set for it.
    pub environment: Vec<(&'static str, OsString)>,
}

/// Chromium on the PATH, or else the one from npm.
pub fn chromium() -> Result<Chromium> {
    if let Some(program) = on_path() {
        return Ok(Chromium { program, environment: Vec::new() });
    }
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        bail!("`chromium` is not on the PATH, and npm has a build for Linux on x86-64 only: install Chromium.");
    }
    let place = install(&cache_dir()?, "chromium-153.0.0", "fetching Chromium 153 (npm @sparticuz/chromium)", |to| {
        npm_install(to, &pinned("chromium"))?;
        let mut unpack = Command::new("node");
        unpack
            .args(["--input-type=module", "--eval"])
            .arg("const { default: chromium } = await import('@sparticuz/chromium'); await chromium.executablePath();")
            // The package unpacks into the folder for temporary files, and brings its libraries
            // only when it believes itself on a bare machine.
            .env("TMPDIR", to)
            .env("AWS_LAMBDA_JS_RUNTIME", "nodejs22.x")
            .current_dir(to);
        process::run("node", unpack, Duration::from_secs(120)).map(drop)
    })?;
    let environment =
        vec![("LD_LIBRARY_PATH", place.join("al2023/lib").into()), ("FONTCONFIG_PATH", place.join("fonts").into())];
    Ok(Chromium { program: place.join("chromium"), environment })
}

fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let candidates = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&path)
        .flat_map(|folder| candidates.map(|name| folder.join(name)))
        .find(|program| program.is_file())
}
