//! Every command in the READMEs is run in a copy of the repository, or stands in [`COMMANDS`] with the test that covers it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testbed::docs::commands;
use testbed::{envoy, process, target_dir, workspace};

/// The documents whose commands are looked at.
const DOCUMENTS: [&str; 4] = ["README.md", "envoy/README.md", "istio/README.md", "envoy-gateway/README.md"];

/// What becomes of a command.
enum Cover {
    /// It is run here, ends with success, and prints this.
    Prints(&'static str),
    /// It is not run here, for this reason.
    Elsewhere(&'static str),
}
use Cover::{Elsewhere, Prints};

/// By what a command contains. The first row that fits counts; a command that fits none fails the test.
const COMMANDS: &[(&str, Cover)] = &[
    ("docker compose ", Elsewhere("tests/compose runs it on an engine")),
    ("docker ", Elsewhere("needs an engine")),
    ("envoy/.env", Prints("")),
    ("kubectl ", Elsewhere("needs a cluster")),
    ("istioctl ", Elsewhere("needs a cluster")),
    (
        "http://$GATEWAY/chat/negotiate",
        Elsewhere("needs the gateway of a cluster; tests/envoy asks the same of an Envoy"),
    ),
    ("helm ", Elsewhere("needs a cluster")),
    ("sh examples/verify.sh", Elsewhere("tests/verify.rs runs it")),
    ("func-e ", Elsewhere("tests/func_e.rs runs it")),
    ("cargo xtask hubs", Elsewhere("tests/func_e.rs runs it")),
    ("cargo xtask demo", Elsewhere("serves until it is interrupted; .ci/run has `cargo xtask demo --once`")),
    ("cargo xtask package", Elsewhere("tests/release runs it")),
    ("cargo xtask test", Elsewhere("would run this test again")),
    ("cargo xtask check-config", Prints(": ok")),
    ("cargo xtask wasm", Prints("envoy_signalr.wasm")),
    ("export SIGNALR_AFFINITY_KEY=", Prints("")),
];

/// What the first call of `cargo xtask` in the copy may take: it builds the tasks.
const PATIENT: Duration = Duration::from_secs(1_800);

#[test]
fn every_command_of_the_readmes_works_or_is_covered_elsewhere() {
    let clone = clone();
    let module = envoy::module().unwrap();
    let mut seen = BTreeSet::new();
    for document in DOCUMENTS {
        let commands = commands(document);
        assert!(!commands.is_empty(), "{document}");
        for command in commands {
            let cover = COMMANDS.iter().find(|(part, _)| command.contains(part));
            let Some((_, cover)) = cover else {
                panic!("{document}: add a row for this command to COMMANDS in {}: {command}", file!());
            };
            match cover {
                Elsewhere(why) => assert!(!why.is_empty()),
                Prints(expected) if seen.insert(command.clone()) => run(document, &command, expected, &clone, &module),
                Prints(_) => {}
            }
        }
    }
}

fn run(document: &str, command: &str, expected: &str, clone: &Path, module: &Path) {
    let mut shell = Command::new("bash");
    // The module is not built anew: its bytes do not depend on the folder, as tests/module.rs shows.
    shell.args(["-euo", "pipefail", "-c", command]).current_dir(clone).env("ENVOY_SIGNALR_WASM", module);
    let printed =
        process::run("command", shell, PATIENT).unwrap_or_else(|error| panic!("{document}: {command}: {error:#}"));
    let printed = String::from_utf8_lossy(&printed);
    assert!(printed.contains(expected), "{document}: {command} printed {printed}");
}

/// A copy of the repository, without what git ignores. It builds in the same target folder, so that only the workspace itself is
/// built again; the copy keeps its place and its files their age, so that a second run builds nothing.
fn clone() -> PathBuf {
    let clone = target_dir().join("clone");
    if clone.exists() {
        fs::remove_dir_all(&clone).unwrap();
    }
    for file in files() {
        let (from, to) = (workspace().join(&file), clone.join(&file));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&from, &to).unwrap();
        let changed = from.metadata().unwrap().modified().unwrap();
        File::options().append(true).open(&to).and_then(|file| file.set_modified(changed)).unwrap();
    }
    symlink(target_dir(), clone.join("target")).unwrap();
    clone
}

fn files() -> Vec<PathBuf> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(workspace());
    let listed = process::run("git", git, process::PATIENCE).unwrap();
    let listed = String::from_utf8(listed).unwrap();
    let files = listed.split_terminator('\0').map(PathBuf::from);
    files.filter(|file| workspace().join(file).is_file()).collect()
}
