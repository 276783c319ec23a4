//! Tier 6: clients that are redirected with their connection id reach their pod, without cookies.
//!
//! The hub and Envoy's router see the id without its seal, so whatever they redirect to has the bare id. WebSockets never follow
//! a redirect; long polling does, and event streams where the location is absolute: the `eventsource` of the client in Node fails
//! on a relative one, with a hub alone, too.

use serde_json::{Value, json};
use testbed::clients::{Cookies, NodeClient, Outcome, Task, Transport, certificate, run_node};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts, Patch, connection_manager, put_routes_first};
use testbed::hub::{Hub, three_hubs_with};
use testbed::process::free_port;
use testbed::tools::{self, EnvoyVersion, Skips};

const CONNECTS: u32 = 12;

/// Hubs that were once below `/old`, and redirect to https at this port.
fn moved_hubs(https: Option<u16>) -> Vec<Hub> {
    let mut variables = vec![("MOVED_FROM".to_owned(), "/old".into())];
    if let Some(port) = https {
        variables.push(("ASPNETCORE_HTTPS_PORT".to_owned(), port.to_string().into()));
        variables.push(("ASPNETCORE_FORWARDEDHEADERS_ENABLED".to_owned(), "true".into()));
    }
    three_hubs_with(|hubs| hubs.iter_mut().for_each(|hub| hub.environment.extend(variables.iter().cloned()))).unwrap()
}

fn envoy(hubs: &[Hub], version: EnvoyVersion, patch: Patch) -> Envoy {
    let hosts = Hosts::of(hubs);
    let filter = Filter::With(json!({}));
    Envoy::start(&EnvoyOptions { version, filter, hosts, patch: Some(patch), ..EnvoyOptions::default() }).unwrap()
}

/// A route on which Envoy redirects so. Its default, 301, would make a `GET` of a `POST`.
fn redirect(prefix: &str, mut to: Value) -> Value {
    to["response_code"] = "TEMPORARY_REDIRECT".into();
    json!({ "match": { "prefix": prefix }, "redirect": to })
}

fn connect(envoy: &Envoy, hub: &str, transport: Transport) -> Outcome {
    let client = NodeClient {
        task: Task { hub: hub.to_owned(), ..Task::of(envoy.url(), CONNECTS) },
        transport,
        cookies: Cookies::Refused,
        trusts_any_certificate: true,
        ..NodeClient::default()
    };
    run_node(&client).unwrap()
}

/// All connected, and none of their requests was balanced.
fn assert_all_reached_their_pod(name: &str, envoy: &Envoy, outcome: &Outcome) {
    assert_eq!(outcome.connected, CONNECTS, "{name}: {:?}", outcome.first_error());
    let affinity = |outcome| {
        envoy
            .metric("signalr_gateway_affinity_total", &[("signalr_hub", "/chat"), ("signalr_outcome", outcome)])
            .unwrap()
    };
    assert!(affinity("routed") >= f64::from(CONNECTS), "{name}");
    assert_eq!(affinity("none"), 0.0, "{name}: an id lost its seal");
}

#[test]
fn clients_that_follow_a_redirect_to_another_path_reach_their_pod() {
    let hubs = moved_hubs(None);
    for version in EnvoyVersion::ALL {
        let patch: Patch = Box::new(|bootstrap| {
            put_routes_first(bootstrap, vec![redirect("/before/", json!({ "prefix_rewrite": "/" }))]);
        });
        let envoy = envoy(&hubs, version, patch);
        for (hub, transport) in [
            ("/old/chat", Transport::LongPolling),
            ("/before/chat", Transport::LongPolling),
            ("/before/chat", Transport::ServerSentEvents),
        ] {
            let outcome = connect(&envoy, hub, transport);
            assert_all_reached_their_pod(&format!("{version:?} {hub} {transport:?}"), &envoy, &outcome);
        }
    }
}

/// A second listener, with TLS, beside the first one, which keeps its routes and gets `plain` before them.
fn and_tls(port: u16, plain: Vec<Value>) -> Patch {
    let pem = certificate().unwrap();
    Box::new(move |bootstrap| {
        let listeners = bootstrap["static_resources"]["listeners"].as_array_mut().unwrap();
        let mut tls = listeners[0].clone();
        tls["name"] = "tls".into();
        tls["address"]["socket_address"]["port_value"] = port.into();
        let both = json!({ "inline_string": pem });
        tls["filter_chains"][0]["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": { "tls_certificates": [{ "certificate_chain": both, "private_key": both }] },
            },
        });
        listeners.push(tls);
        put_routes_first(bootstrap, plain.clone());
        connection_manager(bootstrap)["stat_prefix"] = "plain".into();
    })
}

#[test]
fn clients_that_are_sent_to_https_reach_their_pod() {
    let needed = tools::dotnet_at_least(10);
    if Skips::here().or_skip("clients_that_are_sent_to_https_reach_their_pod", needed).is_none() {
        return;
    }
    let port = free_port().unwrap();
    let hubs = moved_hubs(Some(port));
    let by_envoy = redirect("/", json!({ "https_redirect": true, "port_redirect": port }));
    for (name, plain) in [("by the hub", Vec::new()), ("by Envoy", vec![by_envoy])] {
        let envoy = envoy(&hubs, EnvoyVersion::Newest, and_tls(port, plain));
        for transport in [Transport::LongPolling, Transport::ServerSentEvents] {
            let outcome = connect(&envoy, "/chat", transport);
            assert_all_reached_their_pod(&format!("{name} {transport:?}"), &envoy, &outcome);
        }
    }
}
