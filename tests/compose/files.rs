//! What Compose makes of the file, what the files name, and the bootstraps that the image has. No engine is needed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts, add_cluster, signalr_filter};
use testbed::hub::shared_hubs;
use testbed::raw::{Answer, Client, Socket};
use testbed::redis::Redis;
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
        (&["shared"], "envoy envoy-shared-1 envoy-shared-2 hub hub-shared redis"),
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

/// A bootstrap as the commands of the Dockerfile make it of `envoy.yaml`.
fn bootstrap(name: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("envoy")).unwrap();
    for file in ["envoy/envoy.yaml", "envoy/redis.yaml"] {
        fs::write(folder.path().join(file), read(file)).unwrap();
    }
    let dockerfile = read("envoy/Dockerfile").replace("\\\n", "");
    for command in dockerfile.lines().filter_map(|line| line.strip_prefix("RUN ")).filter(|run| run.starts_with("sed "))
    {
        assert!(Command::new("sh").args(["-c", command]).current_dir(&folder).status().unwrap().success(), "{command}");
    }
    serde_yaml_ng::from_str(&fs::read_to_string(folder.path().join("envoy").join(name)).unwrap()).unwrap()
}

/// The settings, and the cluster that is added for Redis, at this port.
fn shared(port: u16) -> (Value, Value) {
    let (mut shared, mut plain) = (bootstrap("envoy-shared.yaml"), bootstrap("envoy.yaml"));
    let settings = signalr_filter(&mut shared)["typed_config"]["config"]["configuration"]["value"].take();
    let mut redis = shared["static_resources"]["clusters"].as_array_mut().unwrap().remove(0);
    let address =
        |cluster: &str| format!("{cluster}/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address");
    let hubs = shared.pointer_mut(&address("/static_resources/clusters/0")).unwrap();
    assert_eq!(hubs["address"], "hub-shared");
    hubs["address"] = json!("hub");
    signalr_filter(&mut plain)["typed_config"]["config"]["configuration"]["value"].take();
    assert_eq!(shared, plain, "nothing else differs");
    let socket = redis.pointer_mut(&address("")).unwrap();
    assert_eq!(*socket, json!({ "address": "redis", "port_value": 6379 }));
    *socket = json!({ "address": "127.0.0.1", "port_value": port });
    (serde_json::from_str(settings.as_str().unwrap()).unwrap(), redis)
}

#[test]
fn gateways_of_the_profile_shared_have_one_limit() {
    let Some(program) = Skips::here().or_skip("gateways_of_the_profile_shared_have_one_limit", tools::redis()) else {
        return;
    };
    let mut redis = Redis::start(&program).unwrap();
    let (settings, cluster) = shared(redis.port());
    let gateways = [(); 2].map(|()| {
        let cluster = cluster.clone();
        let options = EnvoyOptions {
            filter: Filter::With(settings.clone()),
            hosts: Hosts::of(shared_hubs().unwrap()),
            environment: vec![(KEY.0.to_owned(), KEY.1.to_owned())],
            patch: Some(Box::new(move |bootstrap| {
                add_cluster(bootstrap, cluster.clone());
            })),
            ..EnvoyOptions::default()
        };
        Envoy::start(&options).unwrap()
    });
    let connect = |at: usize| -> Result<Socket, Answer> { Client::of(&gateways[at % 2].url()).connect() };
    let mut sockets: Vec<_> = (0..6).map(|at| connect(at).unwrap_or_else(|answer| panic!("{answer:?}"))).collect();
    for gateway in [0, 1] {
        let refusal = connect(gateway).err().unwrap();
        assert!(refusal.text().contains("Connection limit reached"), "{refusal:?}");
    }
    // As the README says: each of the gateways then counts by itself.
    redis.kill();
    sockets.extend((0..6).map(|at| connect(at).unwrap_or_else(|answer| panic!("{answer:?}"))));
    for gateway in [0, 1] {
        connect(gateway).err().unwrap();
    }
    assert!(sockets.iter_mut().all(Socket::echoes), "none was cut");
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
