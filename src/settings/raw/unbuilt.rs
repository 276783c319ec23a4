//! Sections of the schema that this version does not act on yet.
//!
//! They are parsed all the same, so that a mistake in them is told as such; then [`super::super`] refuses them, because
//! an operator who asks for something must not believe that it happens.

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::settings) struct Metrics {
    detail: Detail,
    per_upstream: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { detail: Detail::Frames, per_upstream: false }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Detail {
    Connections,
    Frames,
    Messages,
}
