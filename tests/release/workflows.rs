//! The workflows of GitHub Actions, which no test here can run.
use std::fs;
use std::process::Command;
use std::time::Duration;

use testbed::tools::{self, Skips};
use testbed::{process, workspace};

#[test]
fn actionlint_finds_nothing_wrong_with_the_workflows() {
    let test = "actionlint_finds_nothing_wrong_with_the_workflows";
    let Some(actionlint) = Skips::here().or_skip(test, tools::actionlint()) else { return };
    let mut command = Command::new(actionlint);
    // Not what else may be installed here: the result is the same on every machine.
    command.args(["-no-color", "-shellcheck=", "-pyflakes="]).current_dir(workspace());
    let mut found = 0;
    for entry in fs::read_dir(workspace().join(".github/workflows")).unwrap() {
        command.arg(entry.unwrap().path());
        found += 1;
    }
    assert!(found >= 2, "{found} workflows");
    process::run_with_output("actionlint", command, Duration::from_secs(300)).unwrap();
}

#[test]
fn every_action_is_pinned_to_a_commit() {
    for entry in fs::read_dir(workspace().join(".github/workflows")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        for line in text.lines().filter(|line| line.contains("uses: ")) {
            let pin = line.split_once('@').map(|(_, pin)| pin.split(' ').next().unwrap_or_default());
            let is_hash = pin.is_some_and(|pin| pin.len() == 40 && pin.bytes().all(|byte| byte.is_ascii_hexdigit()));
            assert!(is_hash && line.contains(" # v"), "{}: {line}", path.display());
        }
    }
}
