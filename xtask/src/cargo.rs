//! Tasks that call cargo: the checks and the tests, tier by tier.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use testbed::tools::Skips;

const MODULE_TARGET: &str = "wasm32-wasip1";
const CORE_TARGET: &str = "wasm32-unknown-unknown";

/// Format, lints on every target the code is built for and of the fuzz targets, documentation.
pub(crate) fn check() -> Result<()> {
    add_target(MODULE_TARGET)?;
    add_target(CORE_TARGET)?;
    cargo("format", &["fmt", "--all", "--check"])?;
    cargo("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    for target in [MODULE_TARGET, CORE_TARGET] {
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
    add_target(MODULE_TARGET)?;
    add_target(CORE_TARGET)?;
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
    let runner = wasm_bindgen_runner()?;
    let core = ["test", "--package", "envoy-signalr", "--lib", "--target", CORE_TARGET, "--"];
    let variable = format!("CARGO_TARGET_{}_RUNNER", CORE_TARGET.to_uppercase().replace('-', "_"));
    run(
        "tier 3: the core at 32 bits, under Node",
        Command::new(env!("CARGO")).args([&core, filter].concat()).env(variable, runner),
    )
}

/// The test runner of exactly the `wasm-bindgen` that `Cargo.lock` names: another version refuses to work.
fn wasm_bindgen_runner() -> Result<PathBuf> {
    let lock = include_str!("../../Cargo.lock");
    let version = lock
        .split("[[package]]")
        .find_map(|package| package.trim().strip_prefix("name = \"wasm-bindgen\"\nversion = \""))
        .and_then(|rest| rest.split('"').next())
        .context("Cargo.lock names no wasm-bindgen")?;
    let root = testbed::tools::cache_dir()?.join(format!("wasm-bindgen-cli-{version}"));
    let runner = root.join("bin/wasm-bindgen-test-runner");
    if !runner.exists() {
        let root = root.to_str().context("the cache's path is not UTF-8")?;
        cargo(
            &format!("build wasm-bindgen-cli {version}, once"),
            &[
                "install",
                "wasm-bindgen-cli",
                "--version",
                version,
                "--root",
                root,
                "--debug",
                "--bin",
                "wasm-bindgen-test-runner",
                "--quiet",
            ],
        )?;
    }
    Ok(runner)
}

/// Asks rustup for a target; says what to do where there is no rustup.
fn add_target(target: &str) -> Result<()> {
    let sysroot =
        Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).args(["--print", "sysroot"]).output();
    let sysroot =
        String::from_utf8(sysroot.context("cannot run rustc")?.stdout).context("rustc's sysroot is not UTF-8")?;
    if PathBuf::from(sysroot.trim()).join("lib/rustlib").join(target).exists() {
        return Ok(());
    }
    println!("rustup target add {target}");
    let added = Command::new("rustup").args(["target", "add", target]).status();
    ensure!(
        added.is_ok_and(|status| status.success()),
        "the Rust target {target} is missing: install it with `rustup target add {target}`"
    );
    Ok(())
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
