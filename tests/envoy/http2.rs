//! WebSockets over HTTP/2 (RFC 8441) to real hubs, which know only those of HTTP/1.1.
//!
//! Envoy turns the one into the other but sends no `sec-websocket-key`, so ASP.NET Core refuses; the filter adds it.

use serde_json::{Value, json};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts};
use testbed::hub::{Hub, three_hubs};
use tungstenite::http::StatusCode;

use crate::client;
use crate::gateway::every_version;
use crate::tunnel::Connection;

/// Negotiates and returns the connection's token, which has a route behind a dot.
fn negotiate(envoy: &Envoy) -> String {
    let answer = client::ask(envoy, &client::Request::post("/chat/negotiate?negotiateVersion=1"));
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    body["connectionToken"].as_str().unwrap().to_owned()
}

fn hosts(hubs: &[Hub]) -> Hosts {
    Hosts::Fixed(hubs.iter().map(Hub::address).collect())
}

#[test]
fn a_websocket_over_http2_reaches_the_hub_that_negotiated() {
    let hubs = three_hubs().unwrap();
    for (version, options) in every_version(&json!({})) {
        let envoy = Envoy::start(&EnvoyOptions { hosts: hosts(&hubs), ..options }).unwrap();
        let mut connection = Connection::open(&envoy.url());
        // All on one connection, and the last without a negotiate.
        let mut targets: Vec<_> = (0..6).map(|_| format!("/chat?id={}", negotiate(&envoy))).collect();
        targets.push("/chat".to_owned());
        let mut tunnels = Vec::new();
        for target in &targets {
            let mut tunnel = connection.tunnel(target);
            assert_eq!(tunnel.status, StatusCode::OK, "{version:?} {target}");
            assert_eq!(tunnel.fields.get("sec-websocket-accept"), None, "{version:?}: the answer to no key");
            tunnel.send(&json!({ "protocol": "json", "version": 1 }));
            assert_eq!(tunnel.record(), json!({}), "{version:?}");
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
    let envoy =
        Envoy::start(&EnvoyOptions { filter: Filter::Absent, hosts: hosts(&hubs), ..EnvoyOptions::default() }).unwrap();
    let tunnel = Connection::open(&envoy.url()).tunnel("/chat");
    assert!(tunnel.status.is_client_error() || tunnel.status.is_server_error(), "{}", tunnel.status);
}
