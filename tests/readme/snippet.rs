//! README's snippet, pasted into a minimal Envoy file.

use serde_json::{Value, json};
use testbed::clients::{NodeClient, Task, Transport, run_node, start_node};
use testbed::docs::blocks;
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts};
use testbed::hub::{Hub, three_hubs};

const CONNECTS: u32 = 30;

/// The only block of README that holds a connection manager.
fn snippet() -> String {
    let blocks = blocks("README.md", "yaml");
    let [snippet] = blocks.as_slice() else { panic!("README.md has {} blocks of YAML", blocks.len()) };
    snippet.clone()
}

/// Envoy with this text as the filters of its only listener. Of the shipped bootstrap only the addresses are left.
fn pasted(text: &str, hubs: &[Hub]) -> Envoy {
    let filters: Value = serde_yaml_ng::from_str(text).unwrap();
    let patch = move |bootstrap: &mut Value| {
        let listener = &bootstrap["static_resources"]["listeners"][0]["address"];
        let endpoints = &bootstrap["static_resources"]["clusters"][0]["load_assignment"];
        let module =
            testbed::envoy::signalr_filter(&mut bootstrap.clone())["typed_config"]["config"]["vm_config"]["code"]
                .clone();
        let mut minimal = json!({
            "admin": bootstrap["admin"],
            "static_resources": {
                "listeners": [{ "address": listener, "filter_chains": [{ "filters": filters }] }],
                "clusters": [{ "name": "hubs", "type": "STATIC", "load_assignment": endpoints }],
            },
        });
        testbed::envoy::signalr_filter(&mut minimal)["typed_config"]["config"]["vm_config"]["code"] = module;
        *bootstrap = minimal;
    };
    let key = ("SIGNALR_AFFINITY_KEY".to_owned(), "0123456789abcdef0123456789abcdef".to_owned());
    Envoy::start(&EnvoyOptions {
        filter: Filter::With(json!({})),
        hosts: Hosts::of(hubs),
        environment: vec![key],
        patch: Some(Box::new(patch)),
        ..EnvoyOptions::default()
    })
    .unwrap()
}

#[test]
fn the_snippet_serves_clients_of_all_transports() {
    let hubs = three_hubs().unwrap();
    let envoy = pasted(&snippet(), &hubs);
    for transport in Transport::ALL {
        let client = NodeClient { task: Task::of(envoy.url(), CONNECTS), transport, ..NodeClient::default() };
        let outcome = run_node(&client).unwrap();
        assert_eq!(outcome.connected, CONNECTS, "{transport:?}: {:?}", outcome.first_error());
    }
    for request in hubs.iter().flat_map(|hub| hub.requests().unwrap()) {
        assert!(!request.headers.contains_key("x-signalr-pin"), "the pin reached a hub: {request:?}");
    }
}

/// The control is the same text with Envoy's own time-out: when that has cut its streams, those opened before are still there.
#[test]
fn the_snippet_cuts_no_event_stream() {
    let hubs = three_hubs().unwrap();
    let text = snippet();
    let control = text.replace(", timeout: 0s", "");
    assert_ne!(control, text);
    let [envoy, control] = [text, control].map(|text| pasted(&text, &hubs));
    let start = |envoy: &Envoy| {
        let transport = Transport::ServerSentEvents;
        let client =
            start_node(NodeClient { task: Task::of(envoy.url(), 3), transport, ..NodeClient::default() }).unwrap();
        client.wait_held().unwrap();
        client
    };
    let steady = start(&envoy);
    let cut = start(&control).finish().unwrap();
    assert!(cut.tries.iter().all(|attempt| attempt.cut.is_some()), "{cut:?}");
    let steady = steady.release().unwrap();
    assert!(steady.tries.iter().all(|attempt| attempt.ok && attempt.cut.is_none()), "{steady:?}");
}
