//! Tier 6: `examples/verify.sh` passes at a gateway that is right, and says what is wrong with every other.

use std::process::Command;

use serde_json::{Value, json};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts, Patch, connection_manager, http_filters};
use testbed::hub::shared_hubs;
use testbed::process::free_port;
use testbed::tools::{self, Skips};
use testbed::workspace;

/// The exit status, and what it printed.
fn verify(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new("sh");
    let output = command.arg(workspace().join("examples/verify.sh")).args(arguments).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(printed).unwrap())
}

/// Envoy before the hubs, with a change that makes it wrong.
fn gateway(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Envoy {
    let patch: Patch = Box::new(change);
    let hosts = Hosts::of(shared_hubs().unwrap());
    Envoy::start(&EnvoyOptions { hosts, patch: Some(patch), concurrency: 1, ..EnvoyOptions::default() }).unwrap()
}

fn remove_filter(bootstrap: &mut Value, name: &str) {
    http_filters(bootstrap).retain(|filter| filter["name"] != name);
}

fn has_curl(test: &str) -> bool {
    Skips::here().or_skip(test, tools::curl()).is_some()
}

#[test]
fn a_right_gateway_passes() {
    if !has_curl("a_right_gateway_passes") {
        return;
    }
    let envoy = Envoy::before(shared_hubs().unwrap(), Filter::With(json!({}))).unwrap();
    let (hub, metrics) = (format!("{}/chat", envoy.url()), format!("{}/stats/prometheus", envoy.admin()));
    for metrics in [metrics.clone(), format!("curl --silent {metrics}")] {
        let expected = "ok: all 10 ids are sealed.\nok: 10 connections stayed on their pods.\nok: a WebSocket opens.\nok: metrics have their labels.\n";
        assert_eq!(verify(&[&hub, "--metrics", &metrics]), (Some(0), expected.to_owned()));
    }
    // What stands behind `--` reaches the hub.
    let (status, printed) = verify(&[&hub, "--connections", "1", "--", "--header", "x-of-verify: 1"]);
    assert_eq!(status, Some(0), "{printed}");
    let requests = shared_hubs().unwrap().iter().flat_map(|hub| hub.requests().unwrap());
    let passed_on = requests.filter(|request| request.headers.contains_key("x-of-verify")).count();
    assert!(passed_on >= 6, "{passed_on} requests had the header");
}

#[test]
fn a_wrong_gateway_fails_with_the_reason() {
    if !has_curl("a_wrong_gateway_fails_with_the_reason") {
        return;
    }
    let session = "envoy.filters.http.stateful_session";
    let absent = Envoy::before(shared_hubs().unwrap(), Filter::Absent).unwrap();
    let not_steered = gateway(|bootstrap| remove_filter(bootstrap, session));
    let only_steered = gateway(|bootstrap| remove_filter(bootstrap, "signalr"));
    let no_upgrade = gateway(|bootstrap| {
        connection_manager(bootstrap).as_object_mut().unwrap().remove("upgrade_configs").unwrap();
    });
    let no_labels = gateway(|bootstrap| bootstrap["stats_config"]["stats_tags"] = json!([]));
    let metrics = format!("{}/stats/prometheus", no_labels.admin());
    let nobody = format!("http://127.0.0.1:{}", free_port().unwrap());
    for (gateway, path, metrics, reason) in [
        (
            absent.url(),
            "/chat",
            None,
            "The id of connection 1 is not sealed (0 before it were): the filter does not run",
        ),
        (not_steered.url(), "/chat", None, "missed their pod (404), though their ids are sealed."),
        (only_steered.url(), "/chat", None, "The gateway shows the pods' addresses in the header x-signalr-pin."),
        (no_upgrade.url(), "/chat", None, "A WebSocket is answered 403, not 101."),
        (no_labels.url(), "/chat", Some(metrics.as_str()), "The labels stand in the metrics' names."),
        (no_labels.url(), "/chat", Some("false"), "The metrics cannot be read from: false"),
        (no_labels.url(), "/chat", Some("true"), "There are no metrics of the filter at: true"),
        (absent.url(), "/nothing", None, "/nothing (404)."),
        (absent.url(), "/healthz", None, "/healthz"),
        (nobody, "/chat", None, "cannot be reached: curl: (7)"),
    ] {
        let hub = format!("{gateway}{path}");
        let mut arguments = vec![hub.as_str(), "--connections", "5"];
        arguments.extend(metrics.iter().flat_map(|metrics| ["--metrics", metrics]));
        let (status, printed) = verify(&arguments);
        let failed = printed.lines().find(|line| line.starts_with("FAILED: ")).unwrap_or_default();
        assert!(status == Some(1) && failed.contains(reason), "{reason}\n{status:?} {printed}");
    }
}

#[test]
fn wrong_arguments_are_not_taken_for_a_wrong_gateway() {
    for arguments in
        [&[][..], &["localhost"], &["http://a", "http://b"], &["http://a", "--metrics"], &["http://a", "-x"]]
    {
        let (status, printed) = verify(arguments);
        assert!(status == Some(2) && printed.contains("Usage: verify.sh HUB"), "{arguments:?}: {status:?} {printed}");
    }
}
