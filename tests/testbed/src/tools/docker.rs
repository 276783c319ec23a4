//! Docker Compose, from Debian's packages, unpacked into the cache.
use std::path::PathBuf;

use anyhow::Result;

use super::source::Source;
use super::{State, debian};

/// The oldest of Debian's releases with a Compose that has all that docker-compose.yaml uses.
const RELEASE: &str = "trixie";

/// The plugin for Compose, which needs no engine to read a file.
pub fn compose() -> Result<PathBuf> {
    let place = compose_source().fetched(|to| debian::unpack_from(RELEASE, &["docker-compose"], to))?;
    Ok(place.join("usr/libexec/docker/cli-plugins/docker-compose"))
}

pub(super) fn compose_state() -> State {
    compose_source().state()
}

fn compose_source() -> Source {
    Source {
        name: "Docker Compose".into(),
        folder: format!("docker-compose-{RELEASE}"),
        from: "Debian, docker-compose",
        megabytes: 13,
    }
}
