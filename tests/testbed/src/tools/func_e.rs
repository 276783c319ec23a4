//! func-e, the program that fetches Envoy and runs it. What it fetches here is nothing: it is given an Envoy.
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::source::Source;
use super::{DOWNLOAD_TIMEOUT, State, fingerprint, go, pinned};
use crate::process;

/// The minor version of Go that func-e asks for.
const OLDEST_GO: u32 = 26;

/// The program `func-e`.
pub fn func_e() -> Result<PathBuf> {
    go::at_least(OLDEST_GO)?;
    Ok(source()?.fetched(build)?.join("func-e"))
}

pub(super) fn state() -> Result<State> {
    let skipped = |error| State::Optional(format!("{error} Without it the tests of func-e are skipped"));
    go::at_least(OLDEST_GO).map_or_else(|error| Ok(skipped(error)), |()| Ok(source()?.state()))
}

fn source() -> Result<Source> {
    let files = ["go.mod", "go.sum"].map(|name| pinned("func-e").join(name));
    Ok(Source {
        name: "func-e".into(),
        folder: format!("func-e-{}", fingerprint(files.iter().map(PathBuf::as_path))?),
        from: "Go's module proxy, tetratelabs/func-e, and building it",
        megabytes: 21,
    })
}

fn build(to: &Path) -> Result<()> {
    let mut build = Command::new("go");
    build.args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-o"]).arg(to);
    build.arg("github.com/tetratelabs/func-e/cmd/func-e");
    go::alone(&mut build).current_dir(pinned("func-e"));
    process::run("go", build, DOWNLOAD_TIMEOUT).map(drop)
}
