//! Several commands beside each other, each line of output with the name of its command.
use std::io::{self, BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

/// Runs a command for each of `names`, at most `lanes` at once, in their order. Returns whether all of them succeeded.
pub(crate) fn run_in_lanes(lanes: usize, names: &[&String], command: impl Fn(&String) -> Command + Sync) -> bool {
    let (next, passed) = (AtomicUsize::new(0), AtomicBool::new(true));
    let lane = || {
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = run_named(name, command(name)) {
                println!("{name}: {error:#}");
                passed.store(false, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| (0..lanes).for_each(|_| drop(scope.spawn(lane))));
    passed.into_inner()
}

fn run_named(name: &str, mut command: Command) -> Result<()> {
    println!("== {name}");
    let start = Instant::now();
    let (output, input) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input);
    let mut child = command.spawn().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    // Holds the writing end of the pipe, whose reader would wait for it.
    drop(command);
    for line in BufReader::new(output).split(b'\n') {
        println!("{name}: {}", String::from_utf8_lossy(&line?));
    }
    ensure!(child.wait()?.success(), "failed");
    println!("== {name}: done in {:.0} s", start.elapsed().as_secs_f32());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn every_command_runs_and_one_that_fails_is_reported() {
        let (good, bad) = ("true".to_owned(), "exit 3".to_owned());
        for (name, names, expected) in [
            ("none", vec![], true),
            ("all succeed", vec![&good, &good, &good], true),
            ("the first fails", vec![&bad, &good], false),
            ("the last fails", vec![&good, &good, &bad], false),
        ] {
            let count = AtomicUsize::new(0);
            let passed = run_in_lanes(2, &names, |script| {
                count.fetch_add(1, Ordering::Relaxed);
                shell(script)
            });
            assert_eq!((passed, count.into_inner()), (expected, names.len()), "{name}");
        }
    }

    #[test]
    fn two_lanes_run_two_commands_at_once() {
        let folder = std::env::temp_dir().join(format!("envoy-signalr-lanes-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        // Each waits for the file of the other.
        let scripts = ["touch a; until [ -e b ]; do sleep 0.02; done", "touch b; until [ -e a ]; do sleep 0.02; done"]
            .map(str::to_owned);
        let passed = run_in_lanes(2, &scripts.iter().collect::<Vec<_>>(), |script| {
            let mut command = shell(script);
            command.current_dir(&folder);
            command
        });
        assert!(passed);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
