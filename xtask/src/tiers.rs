//! `cargo xtask test`: every tier of tests, one after the other, and at the end what each took and what was skipped.
//!
//! docs/testing.md says what each tier proves. A tier that fails does not keep the next from running.
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testbed::tools::{RustTarget, Skips, count_skips, wasm_bindgen_runner};

use crate::cargo::run;
use crate::lanes::run_in_lanes;

/// One tier as it is run.
struct Tier {
    name: &'static str,
    kind: Kind,
}

enum Kind {
    /// The core's own tests, on this machine.
    Core,
    /// The core's own tests on `wasm32-unknown-unknown`, under Node.
    CoreAt32Bits,
    /// The tests of `xtask` and the testbed.
    Tools,
    /// These files of `tests`. They use the module, which is built once, and run in [`LANES`].
    Files(Vec<String>),
}

/// Files of `tests` that do not belong to tier 6.
const TIER_4: [&str; 2] = ["module", "release"];
const TIER_5: [&str; 4] = ["envoy", "istio", "manifests", "metrics"];
const TIER_7: [&str; 2] = ["control_plane", "envoy_gateway"];

/// So many files run beside each other: a test of a real gateway waits for half of its time.
const LANES: usize = 2;

/// The file that takes longest, and so begins first.
const LONGEST: &str = "shared";

/// Files that run by themselves: they take all cores for minutes, or cut connections of clients that give up after some seconds.
const ALONE: [&str; 4] = ["compose", "dotnet", "limits", "load"];

/// Runs all tests, or those whose name contains `name`.
pub(crate) fn test(name: Option<&str>, skips: Skips) -> Result<()> {
    testbed::tools::require_programs()?;
    testbed::tools::require_space()?;
    if name.is_none() {
        testbed::tools::build_go_programs_in_background();
    }
    let tiers = tiers()?;
    println!("{} groups of tests:", tiers.len());
    tiers.iter().for_each(|tier| println!("  {}", tier.name));
    let mut took = Vec::new();
    let skipped = count_skips(&testbed::target_dir(), |list| {
        for tier in &tiers {
            let started = Instant::now();
            let outcome = tier.run(name, skips, &list);
            if let Err(error) = &outcome {
                println!("== {error:#}");
            }
            took.push((tier.name, started.elapsed(), outcome.is_ok()));
        }
        Ok(())
    })?;
    report(&took, &skipped);
    ensure!(took.iter().all(|(_, _, passed)| *passed), "some tests failed: see above");
    Ok(())
}

fn tiers() -> Result<Vec<Tier>> {
    let folder = testbed::workspace().join("tests");
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let is_test = path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").is_file();
        files.extend(path.file_stem().filter(|_| is_test).map(|stem| stem.to_string_lossy().into_owned()));
    }
    files.sort();
    let others = [&TIER_4[..], &TIER_5, &TIER_7].concat();
    files.retain(|file| !others.contains(&file.as_str()));
    let listed = |names: &[&str]| Kind::Files(names.iter().map(|name| (*name).to_owned()).collect());
    Ok([
        ("tiers 1 and 2: the core", Kind::Core),
        ("tier 3: the core at 32 bits, under Node", Kind::CoreAt32Bits),
        ("the tasks and the testbed", Kind::Tools),
        ("tier 4: the module and its package", listed(&TIER_4)),
        ("tier 5: Envoy with the module", listed(&TIER_5)),
        ("tier 6: real hubs and clients behind Envoy", Kind::Files(files)),
        ("tier 7: control planes", listed(&TIER_7)),
    ]
    .map(|(name, kind)| Tier { name, kind })
    .into())
}

impl Tier {
    fn run(&self, name: Option<&str>, skips: Skips, list: &(&str, PathBuf)) -> Result<()> {
        let mut command = Command::new(env!("CARGO"));
        command.args(["test", "--no-fail-fast"]).env(list.0, &list.1).envs(skips.environment());
        match &self.kind {
            Kind::Core => command.args(["--package", "envoy-signalr", "--lib", "--"]),
            Kind::CoreAt32Bits => {
                let target = RustTarget::Core.installed()?;
                let variable = format!("CARGO_TARGET_{}_RUNNER", target.to_uppercase().replace('-', "_"));
                command
                    .args(["--package", "envoy-signalr", "--lib", "--target", target, "--"])
                    .env(variable, wasm_bindgen_runner()?)
            }
            Kind::Tools => {
                command.args(["--package", "xtask", "--package", "testbed", "--package", "envoy-signalr-cli", "--"])
            }
            Kind::Files(files) => return self.run_files(files, name, skips, list),
        };
        run(self.name, command.args(name))
    }

    /// Runs the tests of these files: first those that may run beside others, then the rest.
    fn run_files(&self, files: &[String], name: Option<&str>, skips: Skips, list: &(&str, PathBuf)) -> Result<()> {
        // The module is built once here, and the tests find it by this variable.
        let module = testbed::envoy::module()?;
        let cargo_test = |files: &[&String]| {
            let mut command = Command::new(env!("CARGO"));
            command.args(["test", "--package", "envoy-signalr"]).env("ENVOY_SIGNALR_WASM", &module);
            command.env(list.0, &list.1).envs(skips.environment());
            command.args(files.iter().flat_map(|file| ["--test", file]));
            command
        };
        run(&format!("{}: building", self.name), cargo_test(&files.iter().collect::<Vec<_>>()).arg("--no-run"))?;
        // A test here starts several processes of its own.
        let test = |file: &String| {
            let mut command = cargo_test(&[file]);
            command.args(["--", "--test-threads", "1"]).args(name);
            command
        };
        let (alone, mut beside): (Vec<_>, Vec<_>) = files.iter().partition(|file| ALONE.contains(&file.as_str()));
        beside.sort_by_key(|file| *file != LONGEST);
        let passed = [run_in_lanes(LANES, &beside, test), run_in_lanes(1, &alone, test)];
        ensure!(passed == [true, true], "failed: {}", self.name);
        Ok(())
    }
}

fn report(took: &[(&str, Duration, bool)], skipped: &[String]) {
    println!("\n{:<46} {:>6}", "tests", "time");
    for (name, time, passed) in took {
        println!("{name:<46} {:>4} s  {}", time.as_secs(), if *passed { "passed" } else { "FAILED" });
    }
    let total: Duration = took.iter().map(|(_, time, _)| *time).sum();
    println!("{:<46} {:>4} s\n", "all", total.as_secs());
    println!("{} tests were skipped{}", skipped.len(), if skipped.is_empty() { "." } else { ":" });
    skipped.iter().for_each(|line| println!("  {line}"));
}
