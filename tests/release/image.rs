//! The image, as others read it.
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testbed::process::{self, Process, free_port};
use testbed::tools::{self, Skips};

use crate::package;
use crate::version::version;

const TIMEOUT: Duration = Duration::from_secs(300);

/// The digest by which an image layout names its image.
pub(crate) fn digest(package: &Path) -> String {
    let index: Value = serde_json::from_slice(&fs::read(package.join("oci/index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

/// `crane registry serve`, which keeps images in its memory.
struct Registry<'a> {
    crane: &'a Path,
    host: String,
    _process: Process,
}

impl<'a> Registry<'a> {
    fn start(crane: &'a Path) -> Self {
        let host = format!("127.0.0.1:{}", free_port().unwrap());
        let mut command = Command::new(crane);
        command.args(["registry", "serve", "--address", &host]);
        let mut process = Process::spawn("registry", command).unwrap();
        process.wait_ready(|| TcpStream::connect(&host).is_ok()).unwrap();
        Self { crane, host, _process: process }
    }

    /// Pushes the package's image as `docs/releasing.md` does, and returns its name with the digest.
    fn push(&self) -> String {
        let tagged = format!("{}/envoy-signalr:{}", self.host, version());
        let layout = package().join("oci");
        crane(self.crane, &["push", layout.to_str().unwrap(), &tagged])
    }
}

fn crane(crane: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(crane);
    command.args(arguments);
    String::from_utf8(process::run("crane", command, TIMEOUT).unwrap()).unwrap().trim().to_owned()
}

#[test]
fn a_registry_keeps_the_digest_and_crane_finds_the_image_valid() {
    let test = "a_registry_keeps_the_digest_and_crane_finds_the_image_valid";
    let Some(program) = Skips::here().or_skip(test, tools::crane()) else { return };
    let registry = Registry::start(&program);
    let pushed = registry.push();
    assert!(pushed.ends_with(&format!("@{}", digest(package()))), "{pushed}");
    crane(&program, &["validate", "--remote", &pushed]);
    let config: Value = serde_json::from_str(&crane(&program, &["config", &pushed])).unwrap();
    assert_eq!((&config["os"], &config["architecture"]), (&"linux".into(), &"amd64".into()));
    assert_eq!(config["config"]["Labels"]["org.opencontainers.image.version"], version());
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/envoy-signalr"]));
}

/// What Docker would unpack, and run.
#[test]
fn the_image_runs_the_command_line_program() {
    let test = "the_image_runs_the_command_line_program";
    let Some(program) = Skips::here().or_skip(test, tools::crane()) else { return };
    let registry = Registry::start(&program);
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("files.tar");
    crane(&program, &["export", &registry.push(), files.to_str().unwrap()]);
    let mut unpack = Command::new("tar");
    unpack.arg("--extract").arg("--file").arg(&files).arg("--directory").arg(folder.path());
    process::run("tar", unpack, TIMEOUT).unwrap();
    let mut help = Command::new(folder.path().join("envoy-signalr"));
    let output = help.env_clear().arg("--version").output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("envoy-signalr "));
}

#[test]
fn the_archive_has_the_form_of_docker_save() {
    let test = "the_archive_has_the_form_of_docker_save";
    let Some(program) = Skips::here().or_skip(test, tools::crane()) else { return };
    let archive = package().join("envoy_signalr.oci.tar");
    crane(&program, &["validate", "--tarball", archive.to_str().unwrap()]);
}

#[test]
fn istio_fetches_the_module_from_the_image() {
    let test = "istio_fetches_the_module_from_the_image";
    let tools = tools::crane().and_then(|crane| Ok((crane, tools::istio_fetch()?)));
    let Some((crane, istio_fetch)) = Skips::here().or_skip(test, tools) else { return };
    let registry = Registry::start(&crane);
    let fetched = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new(istio_fetch);
    command.arg(registry.push()).arg(fetched.path());
    process::run("istio-fetch", command, TIMEOUT).unwrap();
    assert!(fs::read(fetched.path()).unwrap() == fs::read(package().join("envoy_signalr.wasm")).unwrap());
}
