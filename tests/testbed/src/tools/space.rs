//! Room on disk. A build that runs out of it stops in the middle with an error of the compiler or the linker.
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use nix::sys::statvfs::statvfs;

use super::{State, cache_dir};
use crate::target_dir;

/// What a first run of all tests writes: 6 GB of `target/`, 4 GB of the cache, and 12 GB that Go keeps of what it fetches and compiles.
const FIRST_RUN: u64 = 25;
/// With less, not even what is built anew at every change has room.
const LEAST: u64 = 3;

/// Fails with one sentence where there is too little room for `target/` or the cache, and prints a line where a first run may not have
/// enough.
pub fn require_space() -> Result<()> {
    for folder in folders()? {
        let Some(free) = free(&folder) else { continue };
        let place = folder.display();
        ensure!(
            free >= LEAST,
            "Only {free} GB are free in {place}: make room for {LEAST} GB, or {FIRST_RUN} GB if this is the first run."
        );
        if free < FIRST_RUN {
            println!("{free} GB are free in {place}. A first run of all tests writes up to {FIRST_RUN} GB.");
        }
    }
    Ok(())
}

/// How much room there is, for `cargo xtask doctor`.
pub(super) fn state() -> Result<State> {
    let free = folders()?.iter().filter_map(|folder| free(folder)).min();
    Ok(match free {
        Some(free) if free < LEAST => {
            State::Missing(format!("{free} GB free; {FIRST_RUN} GB are needed for all tests"))
        }
        Some(free) => State::Ready(format!("{free} GB free; a first run of all tests writes up to {FIRST_RUN} GB")),
        None => State::Optional("unknown".to_owned()),
    })
}

fn folders() -> Result<[PathBuf; 2]> {
    Ok([target_dir(), cache_dir()?])
}

/// Whole GB that are free where a folder is, or will be.
fn free(folder: &Path) -> Option<u64> {
    let present = folder.ancestors().find(|ancestor| ancestor.exists())?;
    let room = statvfs(present).ok()?;
    Some(room.blocks_available().saturating_mul(room.fragment_size()) / 1_000_000_000)
}
