//! The clients that others wrote: `@microsoft/signalr` for Node, `pysignalr` and `signalrcore` for Python,
//! Autobahn's cases for WebSockets.
use std::path::PathBuf;

use anyhow::Result;

use super::source::Source;
use super::{PYTHON, State, fingerprint, npm_install, pinned, pip_install};
use crate::workspace;

/// A folder with the `node_modules` of the Node clients.
pub fn node_clients() -> Result<PathBuf> {
    node_source()?.fetched(|to| npm_install(to, &workspace().join("tests/clients")))
}

pub(super) fn node_source() -> Result<Source> {
    let lock = fingerprint([workspace().join("tests/clients/package-lock.json").as_path()])?;
    Ok(Source {
        name: "the Node clients".into(),
        folder: format!("node-clients-{lock}"),
        from: "npm, @microsoft/signalr, playwright-core, wscat and axe-core",
        megabytes: 7,
    })
}

/// A folder for `PYTHONPATH` that holds the Python clients.
pub fn python_clients() -> Result<PathBuf> {
    python_source()?.fetched(|to| pip_install(to, &python_requirements(), &[]))
}

pub(super) fn python_state() -> State {
    python_source().map_or_else(|error| State::Missing(format!("{error:#}")), |source| source.state())
}

/// Some wheels are made for one version of Python, so each version needs a folder of its own.
fn python_source() -> Result<Source> {
    let lock = fingerprint([python_requirements().as_path()])?;
    let version = PYTHON.version()?;
    Ok(Source {
        name: "the Python clients".into(),
        folder: format!("python-clients-{version}-{lock}"),
        from: "PyPI, pysignalr and signalrcore",
        megabytes: 6,
    })
}

fn python_requirements() -> PathBuf {
    workspace().join("tests/clients/requirements.txt")
}

/// A folder for `PYTHONPATH` that holds kosoku, which runs Autobahn's cases.
pub fn autobahn() -> Result<PathBuf> {
    autobahn_source()?.fetched(|to| pip_install(to, &pinned("autobahn.txt"), &[]))
}

pub(super) fn autobahn_source() -> Result<Source> {
    Ok(Source {
        name: "Autobahn's test cases".into(),
        folder: format!("autobahn-{}", fingerprint([pinned("autobahn.txt").as_path()])?),
        from: "PyPI, kosoku",
        megabytes: 1,
    })
}
