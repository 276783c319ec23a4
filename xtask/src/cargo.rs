//! Tasks that call cargo: the checks and the tests, tier by tier.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use testbed::tools::{RustTarget, Skips, wasm_bindgen_runner};

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

/// All tests, or those whose name contains `name`.
pub(crate) fn test(name: Option<&str>, skips: Skips) -> Result<()> {
    let filter: Vec<&str> = name.into_iter().collect();
    let core = ["test", "--package", "envoy-signalr", "--lib", "--"];
    cargo("tiers 1 and 2: the core", &[&core, filter.as_slice()].concat())?;
    cargo(
        "the tasks and the testbed",
        &[&["test", "--package", "xtask", "--package", "testbed", "--"], filter.as_slice()].concat(),
    )?;
    at_32_bits(&filter)?;
    // The module is built once here, and the tests of the tiers below find it by this variable.
    let module = testbed::envoy::module()?;
    // A test of these tiers starts several processes of its own; two at a time keep a small machine's clocks honest.
    let real = ["test", "--package", "envoy-signalr", "--test", "*", "--", "--test-threads", "2"];
    run(
        "tiers 4 to 6: the module, real Envoy, real hubs and clients",
        Command::new(env!("CARGO"))
            .args([&real, filter.as_slice()].concat())
            .env("ENVOY_SIGNALR_WASM", module)
            .envs(skips.environment()),
    )
}

/// Tier 3: the core's own tests on a 32-bit target, under Node.
fn at_32_bits(filter: &[&str]) -> Result<()> {
    let target = RustTarget::Core.installed()?;
    let runner = wasm_bindgen_runner()?;
    let core = ["test", "--package", "envoy-signalr", "--lib", "--target", target, "--"];
    let variable = format!("CARGO_TARGET_{}_RUNNER", target.to_uppercase().replace('-', "_"));
    run(
        "tier 3: the core at 32 bits, under Node",
        Command::new(env!("CARGO")).args([&core, filter].concat()).env(variable, runner),
    )
}

fn cargo(what: &str, arguments: &[&str]) -> Result<()> {
    run(what, Command::new(env!("CARGO")).args(arguments))
}

fn run(what: &str, command: &mut Command) -> Result<()> {
    println!("== {what}");
    let start = Instant::now();
    let status = command.status().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !status.success() {
        bail!("failed: {what}");
    }
    println!("== {what}: done in {:.0} s", start.elapsed().as_secs_f32());
    Ok(())
}
