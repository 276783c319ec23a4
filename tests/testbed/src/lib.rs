//! Real Envoy, real ASP.NET Core hubs and clients that others wrote, for the demo and the tests.
//!
//! A test starts hubs ([`hub`]), an Envoy in front of them ([`envoy`]), and runs clients through it
//! ([`clients`], or [`raw`] ones of its own). What they need is fetched once into a cache ([`tools`]). Everything started ends
//! when its value is dropped, and also when this process is killed ([`process`]).
//!
//! It is a crate of its own so that `cargo xtask demo` and the tests share it, and so that nothing
//! of it can get into the filter.
#![warn(missing_docs)]

pub mod clients;
pub mod docker;
pub mod docs;
pub mod envoy;
pub mod http;
pub mod hub;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod raw;
pub mod redis;
pub mod relay;
pub mod stand_in;
pub mod tasks;
pub mod tools;

use std::path::{Path, PathBuf};

/// The root of the repository.
pub fn workspace() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap_or(root)
}

/// Where cargo builds, and so where this crate may leave what can be made again.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => workspace().join(directory),
        None => workspace().join("target"),
    }
}
