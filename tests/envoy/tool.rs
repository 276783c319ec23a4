//! `envoy-signalr`: `inspect` opens what the filter in Envoy has sealed, and Envoy runs what `render` prints.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use testbed::clients::{NodeClient, Task, Transport, run_node};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts, filter_of, module};
use testbed::hub::three_hubs;
use testbed::process::wait_for;
use testbed::raw::Client;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The status and the answer of the program.
fn inspect(token: &str, more: &[&str]) -> (Option<i32>, Value) {
    let mut command = Command::new(testbed::tasks::envoy_signalr().unwrap());
    command.args(["inspect", token, "--output", "json"]).args(more).env("BLUE", SECRET);
    let output = command.output().unwrap();
    let answer = serde_json::from_slice(&output.stdout);
    (output.status.code(), answer.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))))
}

#[test]
fn ids_and_cookies_open_with_the_gateways_key() {
    let hubs = three_hubs().unwrap();
    let settings = json!({ "affinity": { "keys": [{ "id": "blue", "secret": { "value": SECRET } }] } });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.json");
    fs::write(&file, settings.to_string()).unwrap();
    let options = EnvoyOptions { filter: Filter::With(settings), hosts: Hosts::of(&hubs), ..EnvoyOptions::default() };
    let envoy = Envoy::start(&options).unwrap();
    let answer = Client::of(&envoy.url()).negotiate_answer();
    let pod = hubs.iter().find(|hub| answer.pod() == Some(hub.pod())).unwrap().address();
    let token = answer.json()["connectionToken"].as_str().unwrap().to_owned();
    let cookie = answer.head.one("set-cookie").unwrap().split(';').next().unwrap().to_owned();

    for more in [["--config", file.to_str().unwrap()], ["--key", "blue=BLUE"]] {
        let (status, opened) = inspect(&token, &more);
        assert_eq!((status, &opened["pod"], &opened["key"]), (Some(0), &json!(pod), &json!("blue")), "{opened}");
        let (status, opened) = inspect(&cookie, &more);
        assert_eq!((status, &opened["pod"]), (Some(0), &json!(pod)), "{opened}");
    }
    let (status, opened) = inspect(&token, &["--key", "green=BLUE"]);
    assert_eq!((status, &opened["reason"]), (Some(1), &json!("unknown_key")), "{opened}");
}

#[test]
fn a_rendered_bootstrap_serves_clients_within_its_limits() {
    const LIMIT: u32 = 3;
    let hubs = three_hubs().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("settings.yaml");
    fs::write(&settings, format!("limits: {{ connections: {{ per_client: {LIMIT} }} }}")).unwrap();
    let (settings, module) = (settings.to_str().unwrap(), module().unwrap());
    let options = ["render", "envoy", "--hub", "/chat", "--key", "BLUE", "--settings", settings, "--module"];
    let rendered = testbed::tasks::printed(options.iter().map(OsStr::new).chain([module.as_os_str()])).unwrap();
    // Its own addresses are put in below, as the testbed puts them into `envoy/envoy.yaml`, of which the rest is.
    let patch = Some(filter_of(serde_yaml_ng::from_str(&rendered).unwrap()));
    let environment = vec![("BLUE".to_owned(), SECRET.to_owned())];
    let options = EnvoyOptions { hosts: Hosts::of(&hubs), environment, patch, ..EnvoyOptions::default() };
    let envoy = Envoy::start(&options).unwrap();
    for transport in Transport::ALL {
        let client = NodeClient { task: Task::of(envoy.url(), 1), transport, ..NodeClient::default() };
        assert_eq!(run_node(&client).unwrap().connected, 1, "{transport:?}");
    }
    let open = || envoy.metric("signalr_gateway_connections_active", &[]).is_ok_and(|open| open == 0.0);
    wait_for("the end of all connections", open).unwrap();
    let client = Client::of(&envoy.url());
    let sockets: Vec<_> = (0..=LIMIT).map(|_| client.negotiate().and_then(|id| client.socket(&id))).collect();
    assert_eq!(sockets.iter().filter(|socket| socket.is_ok()).count(), LIMIT as usize);
}
