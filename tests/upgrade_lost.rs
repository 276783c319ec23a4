//! Tier 6: something before the gateway loses the upgrade of WebSockets, as proxies do that are not configured for them.

use serde_json::{Value, json};
use testbed::clients::{NodeClient, Outcome, Task, Transport, drive_node, run_node};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts};
use testbed::hub::{Hub, HubOptions};
use testbed::process::{PATIENCE, wait_for};
use testbed::proxy::Proxy;
use testbed::raw::{self, Client, Request};
use testbed::tools::{self, Skips};

fn envoy(hub: &Hub, settings: Value) -> Envoy {
    let hosts = Hosts::Fixed(vec![hub.address()]);
    Envoy::start(&EnvoyOptions { filter: Filter::With(settings), hosts, concurrency: 1, ..EnvoyOptions::default() })
        .unwrap()
}

/// What a WebSocket's request is without `upgrade` and `connection`.
const LEFT: [(&str, &str); 2] = [("sec-websocket-version", "13"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")];

/// The status of the answer, and what the filter took the request for.
fn ask(envoy: &Envoy, target: &str, fields: &[(&str, &str)]) -> (u16, String) {
    let request = fields.iter().fold(Request::get(target), |request, (name, value)| request.with(name, value));
    let answer = raw::ask(&envoy.url(), &request);
    let explain = answer.head.one("x-signalr-explain").unwrap_or_default();
    (answer.status(), explain.split(';').next().unwrap_or_default().to_owned())
}

/// A sealed id of its own, which the hub has never seen.
fn id(envoy: &Envoy) -> String {
    Client::of(&envoy.url()).negotiate().unwrap()
}

fn count(envoy: &Envoy, name: &str, labels: &[(&str, &str)]) -> u64 {
    envoy.metric(name, labels).unwrap() as u64
}

const KIND: [(&str, &str); 2] = [("signalr_hub", "/chat"), ("signalr_kind", "upgrade_lost")];
const POLLS: [(&str, &str); 1] = [("signalr_transport", "long_polling")];

#[test]
fn a_lost_upgrade_is_counted_as_such_and_not_as_a_poll() {
    let hub = Hub::start(&HubOptions::default()).unwrap();
    let envoy = envoy(&hub, json!({"explain": true}));
    let lost = "step=upgrade_lost".to_owned();
    for (before, target, status) in [
        (0, format!("/chat?id={}", id(&envoy)), 200),
        // The hub has a poll of this connection open, by what it knows.
        (1, "/chat?id=made-up".to_owned(), 404),
        // A client that skips negotiation.
        (2, "/chat".to_owned(), 400),
    ] {
        assert_eq!(count(&envoy, "websocket_errors_total", &[]), before, "{target}");
        assert_eq!(ask(&envoy, &target, &LEFT), (status, lost.clone()), "{target}");
        assert_eq!(count(&envoy, "websocket_errors_total", &KIND), before + 1, "{target}");
        let status = status.to_string();
        let failed = [("signalr_hub", "/chat"), ("signalr_status", status.as_str())];
        assert_eq!(count(&envoy, "websocket_handshake_failures_total", &failed), 1, "{target}");
    }
    // The control, and a later event that shows that the gauges have been set since.
    assert_eq!(ask(&envoy, &format!("/chat?id={}", id(&envoy)), &[]), (200, "step=poll".to_owned()));
    wait_for("the gauge", || count(&envoy, "signalr_gateway_connections_active", &POLLS) == 1).unwrap();
    assert_eq!(count(&envoy, "signalr_gateway_connections_total", &[]), 1);
    wait_for("the access log", || envoy.log().matches("step=upgrade_lost transport=-").count() == 3).unwrap();
}

#[test]
fn a_proxy_that_drops_upgrades_shows_in_the_counters() {
    let test = "a_proxy_that_drops_upgrades_shows_in_the_counters";
    if Skips::here().or_skip(test, tools::nginx()).is_none() {
        return;
    }
    let hub = Hub::start(&HubOptions::default()).unwrap();
    let envoy = envoy(&hub, json!({}));
    // Without `proxy_set_header Upgrade` it passes none on.
    let proxy = Proxy::nginx(&format!(
        "server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass {}; proxy_http_version 1.1; }} }}",
        envoy.url()
    ))
    .unwrap();
    let connects = 3;
    let client = NodeClient { task: Task::of(proxy.url(), connects), ..NodeClient::default() };
    let mut options = serde_json::to_value(&client).unwrap();
    options["transport"] = "whichever".into();
    let outcome: Outcome = drive_node("signalr.mjs", &options, PATIENCE).unwrap();
    assert_eq!(outcome.connected, connects, "{:?}", outcome.first_error());
    assert!(outcome.tries.iter().all(|one| one.transport.as_deref() == Some("ServerSentEvents")), "{outcome:?}");
    assert_eq!(count(&envoy, "websocket_errors_total", &KIND), u64::from(connects));
    assert_eq!(count(&envoy, "signalr_gateway_connections_total", &POLLS), 0);
    assert_eq!(count(&envoy, "signalr_gateway_connections_total", &[]), u64::from(connects));
}

/// A poll with one more header is a poll all the same.
#[test]
fn a_lost_upgrade_takes_up_a_place_where_places_are_limited() {
    let hub = Hub::start(&HubOptions::default()).unwrap();
    let limits = json!({"connections": {"per_client": 1}, "long_polling_idle": "1h"});
    let envoy = envoy(&hub, json!({"explain": true, "hubs": [{"path": "/chat"}], "limits": limits}));
    let [first, second] = [id(&envoy), id(&envoy)];
    let lost = "step=upgrade_lost".to_owned();
    assert_eq!(ask(&envoy, &format!("/chat?id={first}"), &LEFT), (200, lost));
    assert_eq!(ask(&envoy, &format!("/chat?id={second}"), &LEFT).0, 429);
    assert_eq!(ask(&envoy, &format!("/chat?id={second}"), &[]).0, 429);
    let (task, transport) = (Task::of(envoy.url(), 1), Transport::LongPolling);
    let client = NodeClient { task, transport, ..NodeClient::default() };
    assert_eq!(run_node(&client).unwrap().connected, 0);
    assert_eq!(count(&envoy, "signalr_gateway_connections_total", &[]), 0);
}
