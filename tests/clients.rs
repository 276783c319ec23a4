//! Tier 6: clients that others wrote, against real hubs, through a real Envoy with four worker threads.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::clients::{Cookies, NodeClient, Outcome, Task, Transport, run_node, run_python};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts};
use testbed::hub::{Hub, HubOptions, three_hubs};
use testbed::tools::EnvoyVersion;

const CONNECTS: u32 = 60;

fn all_connected(name: &str, outcome: &Outcome) {
    assert_eq!(outcome.connected, outcome.tried, "{name}: {:?}", outcome.first_error());
    assert!(outcome.tried >= CONNECTS, "{name}");
}

/// What a hub must never see: a route behind an id, or the pin.
fn hubs_saw_only_their_own(hubs: &[Hub], pin: &str) {
    let mut ids = 0;
    for request in hubs.iter().flat_map(|hub| hub.requests().unwrap()) {
        assert!(!request.headers.contains_key(pin), "the pin reached a hub: {request:?}");
        let query = request.query.trim_start_matches('?');
        for id in query.split('&').filter_map(|pair| pair.strip_prefix("id=")) {
            assert_eq!(id.len(), 22, "not an id that ASP.NET Core issues: {request:?}");
            ids += 1;
        }
    }
    assert!(ids > 0, "no request with an id was logged");
}

#[test]
fn every_client_reaches_the_pod_that_negotiated() {
    for version in EnvoyVersion::ALL {
        let hubs = three_hubs().unwrap();
        let hosts = Hosts::of(&hubs);
        let envoy = Envoy::start(&EnvoyOptions { version, hosts, ..EnvoyOptions::default() }).unwrap();
        for transport in Transport::ALL {
            for cookies in [Cookies::Kept, Cookies::Refused] {
                let client =
                    NodeClient { task: Task::of(envoy.url(), CONNECTS), transport, cookies, ..NodeClient::default() };
                all_connected(&format!("{version:?} {transport:?} {cookies:?}"), &run_node(&client).unwrap());
            }
        }
        let outcome = run_python(&Task::of(envoy.url(), CONNECTS)).unwrap();
        all_connected(&format!("{version:?} pysignalr"), &outcome);
        hubs_saw_only_their_own(&hubs, "x-signalr-pin");

        let routed = [("signalr_hub", "/chat"), ("signalr_source", "connection_token"), ("signalr_outcome", "routed")];
        assert!(envoy.metric("signalr_gateway_affinity_total", &routed).unwrap() >= f64::from(7 * CONNECTS));
        let sealed = [("signalr_hub", "/chat"), ("signalr_result", "sealed")];
        let negotiations = envoy.metric("signalr_gateway_negotiations_total", &sealed).unwrap();
        assert!((negotiations - f64::from(7 * CONNECTS)).abs() < f64::EPSILON, "{negotiations} negotiations");
        assert_eq!(envoy.metric("signalr_gateway_internal_errors_total", &[]).unwrap(), 0.0);
    }
}

/// The control: the test above can fail.
#[test]
fn without_the_filter_most_clients_fail() {
    let hubs = three_hubs().unwrap();
    let envoy = Envoy::before(&hubs, Filter::Absent).unwrap();
    // Some wait for a pod that does not know them, and would do so for as long as they may.
    let task = Task { try_timeout: Duration::from_secs(10), ..Task::of(envoy.url(), 12) };
    for transport in Transport::ALL {
        let client = NodeClient { task: task.clone(), transport, ..NodeClient::default() };
        let outcome = run_node(&client).unwrap();
        assert!(outcome.connected < outcome.tried, "{transport:?}: all of {} connected", outcome.tried);
    }
    let outcome = run_python(&task).unwrap();
    assert!(outcome.connected < outcome.tried, "pysignalr: all of {} connected", outcome.tried);
}

#[test]
fn a_client_that_skips_negotiation_connects_anywhere() {
    let hubs = three_hubs().unwrap();
    let envoy = Envoy::before(&hubs, Filter::With(json!({}))).unwrap();
    let client = NodeClient { task: Task::of(envoy.url(), CONNECTS), skip_negotiation: true, ..NodeClient::default() };
    all_connected("skip negotiation", &run_node(&client).unwrap());
}

/// The affinity carriers one by one: each alone does what it can for a client that keeps cookies.
#[test]
fn each_carrier_alone_brings_clients_to_their_pod() {
    let hubs = three_hubs().unwrap();
    let off = json!({"enabled": false});
    let carriers: [(&str, Value); 3] = [
        ("connection_token", json!({"affinity": {"connection_cookie": off}})),
        ("connection_cookie", json!({"affinity": {"connection_token": off}})),
        (
            "client_cookie",
            json!({"affinity": {"connection_token": off, "connection_cookie": off, "client_cookie": {"enabled": true}}}),
        ),
    ];
    for (carrier, settings) in carriers {
        let envoy = Envoy::before(&hubs, Filter::With(settings)).unwrap();
        for transport in Transport::ALL {
            let client = NodeClient { task: Task::of(envoy.url(), CONNECTS), transport, ..NodeClient::default() };
            all_connected(&format!("{carrier} {transport:?}"), &run_node(&client).unwrap());
        }
        let labels = [("signalr_source", carrier), ("signalr_outcome", "routed")];
        assert!(envoy.metric("signalr_gateway_affinity_total", &labels).unwrap() > 0.0, "{carrier} steered nothing");
    }
    hubs_saw_only_their_own(&hubs, "x-signalr-pin");
}

#[test]
fn hubs_at_the_root_under_a_path_base_and_in_wildcards_are_served() {
    let settings = json!({"hubs": [{"path": "/"}, {"path": "/app/*/chat", "name": "tenants"}]});
    for (path_base, hub, label) in
        [(None, "/", "/"), (Some("/app/v2"), "/app/v2/chat", "tenants"), (Some("/app/v2"), "/App/V2/CHAT/", "tenants")]
    {
        let hubs: Vec<_> = (1..4)
            .map(|number| HubOptions {
                pod: format!("hub-{number}"),
                hubs: vec![if path_base.is_some() { "/chat" } else { "/" }.to_owned()],
                path_base: path_base.map(str::to_owned),
                ..HubOptions::default()
            })
            .collect();
        let hubs = Hub::start_all(&hubs).unwrap();
        let envoy = Envoy::before(&hubs, Filter::With(settings.clone())).unwrap();
        for transport in Transport::ALL {
            let task = Task { hub: hub.to_owned(), ..Task::of(envoy.url(), 12) };
            let client = NodeClient { task, transport, ..NodeClient::default() };
            let outcome = run_node(&client).unwrap();
            assert_eq!(outcome.connected, 12, "{hub} {transport:?}: {:?}", outcome.first_error());
        }
        let sealed =
            envoy.metric("signalr_gateway_negotiations_total", &[("signalr_hub", label), ("signalr_result", "sealed")]);
        assert_eq!(sealed.unwrap(), 36.0, "{hub}");
    }
}
