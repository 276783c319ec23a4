//! The same file gets the same verdict, in the same words, from the module in Envoy and from `envoy-signalr check`.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use serde_json::{Value, json};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, signalr_filter};
use testbed::process::wait_for;
use testbed::{http, workspace};

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

fn options() -> EnvoyOptions {
    EnvoyOptions {
        filter: Filter::With(json!({})),
        concurrency: 2,
        environment: vec![(KEY.0.to_owned(), KEY.1.to_owned())],
        ..EnvoyOptions::default()
    }
}

/// An Envoy that hands over the text of `file` byte for byte.
fn options_with(file: &Path) -> EnvoyOptions {
    let file = file.to_owned();
    EnvoyOptions { patch: Some(Box::new(move |bootstrap| put_settings(bootstrap, &file))), ..options() }
}

fn put_settings(bootstrap: &mut Value, file: &Path) {
    let text = fs::read_to_string(file).unwrap();
    signalr_filter(bootstrap)["typed_config"]["config"]["configuration"]["value"] = json!(text);
}

/// The line with which `file` is to be refused.
fn refusal(file: &Path) -> String {
    let line = fs::read_to_string(file.with_extension("txt")).unwrap();
    format!("configuration refused: {}", line.trim_end())
}

/// One Envoy is asked for a listener with each mistake, beside one without any, so that the module is compiled once.
#[test]
fn envoy_refuses_each_mistake_with_its_line() {
    let files = files("refused", "json");
    assert!(files.len() > 50, "{}", files.len());
    let folder = tempfile::tempdir().unwrap();
    let (listeners, mistakes) = (folder.path().join("listeners.json"), files.clone());
    let discover = move |bootstrap: &mut Value| {
        let with_mistake = |file: &PathBuf| {
            let mut with_mistake = bootstrap.clone();
            put_settings(&mut with_mistake, file);
            let mut listener = with_mistake["static_resources"]["listeners"][0].take();
            listener["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
            listener["name"] = json!(file.file_stem().and_then(OsStr::to_str));
            listener
        };
        let found: Vec<_> = mistakes.iter().map(with_mistake).collect();
        fs::write(&listeners, json!({ "resources": found }).to_string()).unwrap();
        bootstrap["node"] = json!({ "id": "gateway", "cluster": "gateways" });
        bootstrap["dynamic_resources"] = json!({ "lds_config": { "path_config_source": { "path": listeners } } });
    };
    let envoy = Envoy::start(&EnvoyOptions { patch: Some(Box::new(discover)), ..options() }).unwrap();
    let lines = || {
        let log = envoy.log();
        let lines = log.lines().filter_map(|line| Some(line[line.find("configuration refused: ")?..].to_owned()));
        lines.collect::<Vec<_>>()
    };
    wait_for("a line for each mistake", || lines().len() >= files.len()).unwrap();
    for (file, line) in files.iter().zip(lines()) {
        assert_eq!(line, refusal(file), "{}", file.display());
    }
    let (_, serving) = http::get(&format!("{}/listeners", envoy.admin())).unwrap();
    assert_eq!(serving.lines().count(), 2, "{serving}");
}

#[test]
fn envoy_does_not_start_with_a_mistake_in_its_bootstrap() {
    let file = workspace().join("tests/configs/refused/hub_twice.json");
    let log = Envoy::refuses(&options_with(&file)).unwrap();
    assert!(log.lines().any(|line| line.ends_with(&refusal(&file))), "{log}");
}

#[test]
fn envoy_takes_what_is_right() {
    in_parallel(&files("accepted", "json"), |file| {
        let envoy = Envoy::start(&options_with(file)).unwrap_or_else(|error| panic!("{}: {error:#}", file.display()));
        assert!(!envoy.log().contains("refused"), "{}: {}", file.display(), envoy.log());
    });
}

#[test]
fn the_tool_says_the_same() {
    let program = testbed::tasks::envoy_signalr().unwrap();
    let check = |file: &Path| {
        let output = Command::new(&program).arg("check").arg(file).env(KEY.0, KEY.1).output().unwrap();
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
fn the_tool_reads_several_files_and_standard_input() {
    let file = |name: &str| workspace().join("tests/configs").join(name);
    let (right, wrong) = (file("accepted/defaults.json"), file("refused/hub_twice.json"));
    let mut check = Command::new(testbed::tasks::envoy_signalr().unwrap());
    check.args(["check".as_ref(), right.as_os_str(), "-".as_ref(), wrong.as_os_str()]).stdin(Stdio::piped());
    let mut check = check.stdout(Stdio::piped()).spawn().unwrap();
    check.stdin.take().unwrap().write_all(b"kind: Service\napiVersion: v1\n").unwrap();
    let output = check.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let rest = format!("-: nothing to check: no wasm plugin in it\n{}: {}\n", wrong.display(), refusal(&wrong));
    assert!(said.starts_with(&format!("{}: ok\n", right.display())) && said.ends_with(&rest), "{said}");
    assert_eq!(output.status.code(), Some(1));
}
