//! Tier 4, further: what `cargo xtask package` writes, and the workflows that publish it.
mod image;
mod package;
mod version;
mod workflows;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use testbed::{process, workspace};

/// The first call builds what xtask lacks.
const BUILD_TIMEOUT: Duration = Duration::from_secs(1_800);

/// The package of this tree, written once.
fn package() -> &'static Path {
    static PACKAGE: OnceLock<PathBuf> = OnceLock::new();
    PACKAGE.get_or_init(|| {
        let out = process::run_dir().unwrap().join("dist");
        write_package(&out, &[]);
        out
    })
}

fn write_package(out: &Path, arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--quiet", "--package", "xtask", "--", "package", "--out"]).arg(out).args(arguments);
    // What a machine may have otherwise, and no file may show.
    command.env("TZ", "Asia/Tokyo").current_dir(workspace());
    process::run("cargo xtask package", command, BUILD_TIMEOUT).unwrap();
}
