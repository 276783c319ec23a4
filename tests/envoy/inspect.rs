//! `envoy-signalr inspect` opens what the filter in Envoy has sealed.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts};
use testbed::hub::three_hubs;
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
