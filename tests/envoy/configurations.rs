//! The same file gets the same verdict, in the same words, from the module in Envoy and from `check-config`.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use serde_json::{Value, json};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, signalr_filter};
use testbed::workspace;

/// Files are many, and an Envoy takes a third of a second of which most is waiting.
const AT_ONCE: usize = 4;
const KEY: (&str, &str) = ("SIGNALR_AFFINITY_KEY", "0123456789abcdef0123456789abcdef");

/// The files of a folder of `tests/configs` that end so.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(workspace().join("tests/configs").join(folder)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension() == Some(OsStr::new(extension)));
    files.sort();
    files
}

fn in_parallel(files: &[PathBuf], check: impl Fn(&Path) + Sync) {
    let next = Mutex::new(files.iter());
    let one = || {
        let file = next.lock().unwrap().next();
        file.map(|file| check(file))
    };
    thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(|| while one().is_some() {}))));
}

/// An Envoy that hands over the text of `file` byte for byte.
fn options(file: &Path) -> EnvoyOptions {
    let text = fs::read_to_string(file).unwrap();
    let patch = move |bootstrap: &mut Value| {
        signalr_filter(bootstrap)["typed_config"]["config"]["configuration"]["value"] = json!(text);
    };
    EnvoyOptions {
        filter: Filter::With(json!({})),
        concurrency: 2,
        environment: vec![(KEY.0.to_owned(), KEY.1.to_owned())],
        patch: Some(Box::new(patch)),
        ..EnvoyOptions::default()
    }
}

/// The line with which `file` is to be refused.
fn refusal(file: &Path) -> String {
    let line = fs::read_to_string(file.with_extension("txt")).unwrap();
    format!("configuration refused: {}", line.trim_end())
}

#[test]
fn envoy_refuses_each_mistake_with_its_line() {
    let files = files("refused", "json");
    assert!(files.len() > 50, "{}", files.len());
    in_parallel(&files, |file| {
        let log = Envoy::refuses(&options(file)).unwrap_or_else(|error| panic!("{}: {error:#}", file.display()));
        let expected = refusal(file);
        let line = log.lines().find(|line| line.contains("configuration refused: "));
        assert!(line.is_some_and(|line| line.ends_with(&expected)), "{}: {line:?}", file.display());
    });
}

#[test]
fn envoy_takes_what_is_right() {
    in_parallel(&files("accepted", "json"), |file| {
        let envoy = Envoy::start(&options(file)).unwrap_or_else(|error| panic!("{}: {error:#}", file.display()));
        assert!(!envoy.log().contains("refused"), "{}: {}", file.display(), envoy.log());
    });
}

#[test]
fn check_config_says_the_same() {
    let program = testbed::tasks::xtask().unwrap();
    let check = |file: &Path| {
        let output = Command::new(&program).arg("check-config").arg(file).env(KEY.0, KEY.1).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    in_parallel(&files("refused", "json"), |file| {
        assert_eq!(check(file), (Some(1), format!("{}: {}\n", file.display(), refusal(file))));
    });
    let envoy = workspace().join("envoy/envoy.yaml");
    let accepted = [files("accepted", "json"), files("accepted", "yaml"), vec![envoy]].concat();
    assert!(accepted.len() > 6, "{}", accepted.len());
    in_parallel(&accepted, |file| {
        let (code, said) = check(file);
        assert!(code == Some(0) && said.starts_with(&format!("{}: ok", file.display())), "{code:?} {said}");
    });
}

#[test]
fn check_config_reads_several_files_and_standard_input() {
    let file = |name: &str| workspace().join("tests/configs").join(name);
    let (right, wrong) = (file("accepted/defaults.json"), file("refused/hub_twice.json"));
    let mut check = Command::new(testbed::tasks::xtask().unwrap());
    check.args(["check-config".as_ref(), right.as_os_str(), "-".as_ref(), wrong.as_os_str()]).stdin(Stdio::piped());
    let mut check = check.stdout(Stdio::piped()).spawn().unwrap();
    check.stdin.take().unwrap().write_all(b"kind: Service\napiVersion: v1\n").unwrap();
    let output = check.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let rest = format!("-: nothing to check: no wasm plugin in it\n{}: {}\n", wrong.display(), refusal(&wrong));
    assert!(said.starts_with(&format!("{}: ok\n", right.display())) && said.ends_with(&rest), "{said}");
    assert_eq!(output.status.code(), Some(1));
}
