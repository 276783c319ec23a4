//! What is here, what would be fetched and what is missing: the answer of `cargo xtask doctor`.
use anyhow::Result;

use super::{
    EnvoyVersion, NODE, NPM, PYTHON, PrometheusVersion, RedisVersion, RustTarget, chromium, clients, control_plane,
    debian, docker, dotnet, envoy, go, go_programs, java, rust, space,
};

/// How a tool stands on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is here: its version or its place.
    Ready(String),
    /// It is fetched when a task needs it: how much, and from where.
    Fetchable(String),
    /// It is missing, and some tests are skipped for that: what to install, and what is skipped.
    Optional(String),
    /// It is missing and nothing works without it: what to do.
    Missing(String),
}

/// A tool that some task needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Its name, with the version if that is pinned.
    pub name: String,
    /// How it stands.
    pub state: State,
}

/// All tools, in the order in which a first run needs them. Nothing is fetched or changed.
pub fn survey() -> Result<Vec<Tool>> {
    let programs = [&PYTHON, &NODE, &NPM].map(|program| (program.name.to_owned(), program.state()));
    let targets = RustTarget::ALL.map(|target| (format!("Rust target {}", target.name()), target.state()));
    let (bindgen, version) = rust::wasm_bindgen()?;
    let fetched = [
        ("Node clients".to_owned(), clients::node_source()?.state()),
        ("Python clients".to_owned(), clients::python_state()),
        ("Java client".to_owned(), java::state()?),
        ("Go client and hub".to_owned(), go::state()?),
        ("control plane".to_owned(), control_plane::state()?),
        ("browser".to_owned(), chromium::state()),
        ("Docker Compose".to_owned(), docker::compose_state()),
        ("Docker's engine".to_owned(), docker::engine_state()),
        ("Autobahn's test cases".to_owned(), clients::autobahn_source()?.state()),
        (format!("wasm-bindgen test runner {version}"), bindgen.state()),
    ];
    let prometheuses = PrometheusVersion::ALL
        .map(|version| (format!("Prometheus {}", version.major()), debian::prometheus_state(version)));
    let envoys =
        EnvoyVersion::ALL.map(|version| (format!("Envoy {}", version.number()), envoy::source(version).state()));
    let all = programs
        .into_iter()
        .chain([("room on disk".to_owned(), space::state()?)])
        .chain(targets)
        .chain(envoys)
        .chain([(".NET SDK".to_owned(), dotnet::state())])
        .chain(fetched)
        .chain(debian::states())
        .chain(RedisVersion::ALL.map(RedisVersion::state))
        .chain(prometheuses)
        .chain(go_programs::states()?);
    Ok(all.map(|(name, state)| Tool { name, state }).collect())
}
