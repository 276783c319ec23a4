//! WebSockets over HTTP/2 (RFC 8441) to real hubs, which know only those of HTTP/1.1.
//!
//! Envoy turns the one into the other but sends no `sec-websocket-key`, so ASP.NET Core refuses; the filter adds it.

use serde_json::json;
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts};
use testbed::hub::three_hubs;
use testbed::raw::Client;
use testbed::raw::http2::Connection;

use crate::gateway::every_version;

#[test]
fn a_websocket_over_http2_reaches_the_hub_that_negotiated() {
    let hubs = three_hubs().unwrap();
    for (version, options) in every_version(&json!({})) {
        let envoy = Envoy::start(&EnvoyOptions { hosts: Hosts::of(&hubs), ..options }).unwrap();
        let mut connection = Connection::open(&envoy.url());
        // All on one connection, and the last without a negotiate.
        let client = Client::of(&envoy.url());
        let mut targets: Vec<_> = (0..6).map(|_| format!("/chat?id={}", client.negotiate().unwrap())).collect();
        targets.push("/chat".to_owned());
        let mut tunnels = Vec::new();
        for target in &targets {
            let mut tunnel = connection.tunnel(target);
            assert_eq!(tunnel.answer.status(), 200, "{version:?} {target}");
            assert_eq!(tunnel.answer.head.one("sec-websocket-accept"), None, "{version:?}: the answer to no key");
            tunnel.shake_hands();
            tunnels.push(tunnel);
        }
        for (number, tunnel) in tunnels.iter_mut().enumerate() {
            let text = format!("hello {number}");
            tunnel.send(&json!({ "type": 1, "invocationId": "7", "target": "Echo", "arguments": [text] }));
            let expected = json!({ "type": 3, "invocationId": "7", "result": text });
            assert_eq!(tunnel.record(), expected, "{version:?}");
        }
        let routed = [("signalr_source", "connection_token"), ("signalr_outcome", "routed")];
        assert_eq!(envoy.metric("signalr_gateway_affinity_total", &routed).unwrap(), 6.0, "{version:?}");
    }
    let requests: Vec<_> = hubs.iter().flat_map(|hub| hub.requests().unwrap()).collect();
    let keys: Vec<_> =
        requests.iter().filter_map(|request| request.headers.get("sec-websocket-key")).flatten().collect();
    assert_eq!(keys.len(), 2 * 7);
    assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), keys.len(), "each has a key of its own");
}

/// The control: without the filter the hub misses the key.
#[test]
fn without_the_filter_the_hub_refuses_websockets_over_http2() {
    let hubs = three_hubs().unwrap();
    let envoy = Envoy::before(&hubs, Filter::Absent).unwrap();
    let answer = Connection::open(&envoy.url()).tunnel("/chat").answer;
    assert!(answer.status() >= 400, "{answer:?}");
}
