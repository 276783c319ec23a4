//! The clients that others wrote: `@microsoft/signalr` for Node, `pysignalr` for Python, Autobahn's cases for WebSockets.
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{cache_dir, fingerprint, install, npm_install, pinned, pip_install, require};
use crate::workspace;

/// A folder with the `node_modules` of the Node clients.
pub fn node_clients() -> Result<PathBuf> {
    let manifest = workspace().join("tests/clients");
    let lock = fingerprint([manifest.join("package-lock.json").as_path()])?;
    install(
        &cache_dir()?,
        &format!("node-clients-{lock}"),
        "fetching the Node clients (npm @microsoft/signalr)",
        |to| npm_install(to, &manifest),
    )
}

/// A folder for `PYTHONPATH` that holds pysignalr.
pub fn python_clients() -> Result<PathBuf> {
    let requirements = workspace().join("tests/clients/requirements.txt");
    let lock = fingerprint([requirements.as_path()])?;
    let python = python_tag()?;
    install(
        &cache_dir()?,
        &format!("python-clients-{python}-{lock}"),
        "fetching the Python client (PyPI pysignalr)",
        |to| pip_install(to, &requirements, &[]),
    )
}

/// A folder for `PYTHONPATH` that holds kosoku, which runs Autobahn's cases.
pub fn autobahn() -> Result<PathBuf> {
    let requirements = pinned("autobahn.txt");
    let folder = format!("autobahn-{}", fingerprint([requirements.as_path()])?);
    install(&cache_dir()?, &folder, "fetching Autobahn's cases (PyPI kosoku)", |to| pip_install(to, &requirements, &[]))
}

/// Some wheels are made for one version of Python, so each version needs a folder of its own.
fn python_tag() -> Result<String> {
    require("python3", &["--version"], "Python 3.10 or newer with pip (on Debian: python3 and python3-pip)")?;
    let output = std::process::Command::new("python3")
        .args(["-c", "import sys; print(sys.implementation.cache_tag, end='')"])
        .current_dir(Path::new("/"))
        .output()
        .context("cannot start python3")?;
    Ok(String::from_utf8(output.stdout)?)
}
