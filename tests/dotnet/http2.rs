//! WebSockets over HTTP/2 (RFC 8441) as clients open them: .NET's, without TLS and with it, and a browser.

use serde_json::json;
use testbed::clients::{
    BrowserClient, DotnetClient, HttpVersion, NodeClient, Outcome, Task, Transport, certificate, run_browser,
    run_dotnet,
};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts, Patch};
use testbed::hub::{Hub, three_hubs};
use testbed::process::wait_for;

use crate::kit::{CONNECTS, all_connected, defaults, has_dotnet_10, talkative};

/// An Envoy that speaks TLS only.
fn envoy_with_tls(hubs: &[Hub]) -> Envoy {
    let pem = certificate().unwrap();
    let patch: Patch = Box::new(move |bootstrap| {
        // The certificate and its key are in one PEM, and Envoy picks its own from it.
        let both = json!({ "inline_string": pem });
        bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {
                    "alpn_protocols": ["h2", "http/1.1"],
                    "tls_certificates": [{ "certificate_chain": both, "private_key": both }],
                },
            },
        });
    });
    let hosts = Hosts::of(hubs);
    Envoy::start(&EnvoyOptions { filter: defaults(), hosts, patch: Some(patch), ..EnvoyOptions::default() }).unwrap()
}

fn with_tls(url: &str) -> String {
    url.replace("http://", "https://")
}

fn over_http2(common: NodeClient) -> Outcome {
    run_dotnet(&DotnetClient { common, http_version: HttpVersion::Http2, ..DotnetClient::default() }).unwrap()
}

/// All that came was HTTP/2, which has no other WebSockets than those by extended CONNECT; `connects` of them came.
fn assert_extended_connects(name: &str, envoy: &Envoy, connects: u32) {
    let count = |name: &str| envoy.counter(&format!("http.signalr.{name}")).unwrap();
    assert_eq!(count("downstream_cx_http1_total"), 0, "{name}");
    assert!(count("downstream_cx_http2_total") > 0, "{name}");
    assert_eq!(count("downstream_cx_upgrades_total"), u64::from(connects), "{name}");
    let logged = || {
        let log = envoy.log();
        let upgrades = log.lines().filter(|line| line.contains("GET /chat HTTP/2 ") && line.contains("step=websocket"));
        upgrades.count() == connects as usize
    };
    wait_for(&format!("{name}: {connects} WebSockets over HTTP/2 in the access log"), logged).unwrap();
}

#[test]
fn dotnet_clients_reach_their_pod_over_http2_alone() {
    if !has_dotnet_10("dotnet_clients_reach_their_pod_over_http2_alone") {
        return;
    }
    let hubs = three_hubs().unwrap();
    for (name, envoy, url) in [
        ("without TLS", Envoy::before(&hubs, defaults()).unwrap(), str::to_owned as fn(&str) -> String),
        ("over TLS", envoy_with_tls(&hubs), with_tls),
    ] {
        for transport in Transport::ALL {
            let task = Task::of(url(&envoy.url()), CONNECTS);
            let client = NodeClient { task, transport, ..talkative(&envoy) };
            all_connected(&format!("{name} {transport:?}"), &over_http2(client));
        }
        assert_extended_connects(name, &envoy, CONNECTS);
    }
}

#[test]
fn dotnet_clients_reach_their_pod_over_tls_by_http_1() {
    if !has_dotnet_10("dotnet_clients_reach_their_pod_over_tls_by_http_1") {
        return;
    }
    let hubs = three_hubs().unwrap();
    let envoy = envoy_with_tls(&hubs);
    let common = NodeClient { task: Task::of(with_tls(&envoy.url()), CONNECTS), ..talkative(&envoy) };
    all_connected("HTTP/1.1", &run_dotnet(&DotnetClient { common, ..DotnetClient::default() }).unwrap());
    assert_eq!(envoy.counter("http.signalr.downstream_cx_http2_total").unwrap(), 0);
}

#[test]
fn a_browser_opens_websockets_over_http2_where_there_is_tls() {
    if !has_dotnet_10("a_browser_opens_websockets_over_http2_where_there_is_tls") {
        return;
    }
    let hubs = three_hubs().unwrap();
    let envoy = envoy_with_tls(&hubs);
    let url = with_tls(&envoy.url());
    let client = BrowserClient::of(format!("{url}/healthz"), url, CONNECTS);
    all_connected("Chromium", &run_browser(&client).unwrap());
    assert_extended_connects("Chromium", &envoy, CONNECTS);
}

/// The control: the filter adds the key that a hub asks for, and steers.
#[test]
fn without_the_filter_no_dotnet_client_connects_over_http2() {
    if !has_dotnet_10("without_the_filter_no_dotnet_client_connects_over_http2") {
        return;
    }
    let hubs = three_hubs().unwrap();
    let envoy = Envoy::before(&hubs, Filter::Absent).unwrap();
    assert_eq!(over_http2(talkative(&envoy)).connected, 0);
}
