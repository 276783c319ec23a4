//! Calling cargo: the checks, and what the test tiers share with them.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use testbed::tools::RustTarget;

/// Format, lints on every target the code is built for and of the fuzz targets, documentation.
pub(crate) fn check() -> Result<()> {
    let targets = [RustTarget::Module.installed()?, RustTarget::Core.installed()?];
    cargo("format", &["fmt", "--all", "--check"])?;
    cargo("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    for target in targets {
        cargo(
            &format!("lints for {target}"),
            &["clippy", "--package", "envoy-signalr", "--lib", "--target", target, "--", "-D", "warnings"],
        )?;
    }
    fuzz_targets()?;
    run(
        "documentation",
        Command::new(env!("CARGO"))
            .args(["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links"),
    )
}

/// A workspace of their own, so nothing above has seen them. They are only checked, so the fuzzer's library is not built,
/// which would want a C++ compiler: a place of it that is not looked at keeps its build script from that.
fn fuzz_targets() -> Result<()> {
    let folder = testbed::workspace().join("fuzz");
    run("format of the fuzz targets", Command::new(env!("CARGO")).args(["fmt", "--check"]).current_dir(&folder))?;
    run(
        "lints for the fuzz targets",
        Command::new(env!("CARGO"))
            .args(["clippy", "--target-dir", "../target/fuzz", "--", "-D", "warnings"])
            .env("CUSTOM_LIBFUZZER_PATH", "unused/libfuzzer.a")
            .current_dir(&folder),
    )
}

fn cargo(what: &str, arguments: &[&str]) -> Result<()> {
    run(what, Command::new(env!("CARGO")).args(arguments))
}

/// Runs `command`, and prints `what` it does before and how long it took after.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<()> {
    println!("== {what}");
    let start = Instant::now();
    let status = command.status().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !status.success() {
        bail!("failed: {what}");
    }
    println!("== {what}: done in {:.0} s", start.elapsed().as_secs_f32());
    Ok(())
}
