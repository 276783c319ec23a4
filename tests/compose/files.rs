//! What Compose makes of the file, and what the files name. No engine is needed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use testbed::tools::{self, EnvoyVersion, Skips};
use testbed::workspace;

const KEY: (&str, &str) = ("SIGNALR_AFFINITY_KEY", "0123456789abcdef0123456789abcdef");

fn read(file: &str) -> String {
    fs::read_to_string(workspace().join(file)).unwrap()
}

/// The file as Compose has it with these profiles and variables.
fn configuration(compose: &Path, profiles: &[&str], variables: &[(&str, &str)]) -> Value {
    let mut command = Command::new(compose);
    command.args(["--file", "envoy/docker-compose.yaml"]);
    for profile in profiles {
        command.args(["--profile", profile]);
    }
    command.args(["config", "--format", "json"]).env_remove(KEY.0).envs(variables.iter().copied());
    let output = command.current_dir(workspace()).output().unwrap();
    assert!(output.status.success(), "{profiles:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn compose_reads_the_file_with_every_profile() {
    let test = "compose_reads_the_file_with_every_profile";
    let Some(compose) = Skips::here().or_skip(test, tools::compose()) else { return };
    for (profiles, expected) in [
        (&[][..], "envoy hub"),
        (&["metrics"], "envoy grafana hub prometheus"),
        (&["second-gateway"], "envoy envoy-2 hub"),
        (&["metrics", "second-gateway"], "envoy envoy-2 grafana hub prometheus"),
    ] {
        let services = configuration(&compose, profiles, &[])["services"].take();
        let services = services.as_object().unwrap();
        let names: Vec<_> = services.keys().map(String::as_str).collect();
        assert_eq!(names.join(" "), expected);
        for (name, service) in services {
            // Nothing of this machine is mounted: who may read it there would depend on the umask.
            assert_eq!(service["volumes"], Value::Null, "{name}");
            for port in service["ports"].as_array().into_iter().flatten() {
                assert_eq!(port["host_ip"], "127.0.0.1", "{name}");
            }
        }
    }
    let published = |variables: &[(&str, &str)]| {
        let port = &configuration(&compose, &[], variables)["services"]["envoy"]["ports"][0];
        format!("{} {}", port["host_ip"].as_str().unwrap(), port["published"].as_str().unwrap())
    };
    assert_eq!(published(&[]), "127.0.0.1 8080");
    assert_eq!(published(&[("GATEWAY", "0.0.0.0:80")]), "0.0.0.0 80");
}

#[test]
fn a_key_makes_all_gateways_use_it() {
    let Some(compose) = Skips::here().or_skip("a_key_makes_all_gateways_use_it", tools::compose()) else { return };
    for (case, variables, expected) in [
        ("none", &[][..], "/etc/envoy/envoy.yaml"),
        ("empty", &[(KEY.0, "")], "/etc/envoy/envoy.yaml"),
        ("one", &[KEY], "/etc/envoy/envoy-with-key.yaml"),
    ] {
        let services = configuration(&compose, &["second-gateway"], variables)["services"].take();
        for (service, expected) in [("envoy", expected), ("envoy-2", "/etc/envoy/envoy-with-key.yaml")] {
            let command = services[service]["command"][2].as_str().unwrap();
            assert!(command.ends_with(expected), "{case}: {command}");
        }
    }
}

#[test]
fn the_example_names_every_variable() {
    let compose = read("envoy/docker-compose.yaml");
    let used = compose.split("${").skip(1).map(|rest| rest.split([':', '}']).next().unwrap());
    let example = read("envoy/.env.example");
    let named = example.lines().filter_map(|line| line.strip_prefix('#')?.split_once('=')).map(|(name, _)| name);
    assert_eq!(named.collect::<BTreeSet<_>>(), used.collect::<BTreeSet<_>>());
}

/// One thing has one version, wherever it is written.
#[test]
fn versions_agree() {
    let version = env!("CARGO_PKG_VERSION");
    let dockerfile = read("envoy/Dockerfile");
    for expected in [
        format!("FROM envoyproxy/envoy:v{} AS envoy", EnvoyVersion::Newest.number()),
        format!("FROM --platform=$BUILDPLATFORM rust:{}-slim AS build", env!("CARGO_PKG_RUST_VERSION")),
        format!("org.opencontainers.image.version=\"{version}\""),
        format!("--tag registry.example.com/envoy-signalr:{version}"),
    ] {
        assert!(dockerfile.contains(&expected), "{expected}");
    }
    let clients: Value = serde_json::from_str(&read("tests/clients/package.json")).unwrap();
    let client = format!("@microsoft/signalr@{}", clients["dependencies"]["@microsoft/signalr"].as_str().unwrap());
    for file in ["examples/chat/Dockerfile", "examples/chat/README.md"] {
        assert!(read(file).contains(&client), "{file}: {client}");
    }
}
