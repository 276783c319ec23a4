//! Tier 6: a route that splits traffic by weight over two versions of real hubs, set up as `envoy/README.md` says.

use serde_json::{Value, json};
use testbed::clients::{Cookies, NodeClient, Task, Transport, run_node};
use testbed::docs::samples;
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts, Patch, connection_manager};
use testbed::hub::{Hub, shared_hubs};
use testbed::raw::Client;
use testbed::tools::EnvoyVersion;

const KEY: &str = "one key for all gateways of this test";
const CONNECTIONS: u32 = 40;

/// The samples of the section: the settings, and what the virtual host gets.
fn settings_and_host() -> [Value; 2] {
    samples("envoy/README.md", Some("## Versions by weight"), "yaml envoy").try_into().unwrap()
}

/// An Envoy with two pods of version 1 and one of version 2, of the weights given. `change` is the last to change the routes.
fn gateway(
    version: EnvoyVersion,
    hubs: &[Hub],
    cluster_header: bool,
    weights: [u32; 2],
    change: fn(&mut Vec<Value>),
) -> Envoy {
    let [settings, host] = settings_and_host();
    let mut settings: Value = serde_json::from_str(settings["value"].as_str().unwrap()).unwrap();
    settings["affinity"]["keys"] = json!([{ "id": "1", "secret": { "value": KEY } }]);
    if !cluster_header {
        settings["affinity"]["cluster_header"] = Value::Null;
    }
    let addresses: Vec<String> = hubs.iter().map(Hub::address).collect();
    let patch: Patch = Box::new(move |bootstrap| {
        let virtual_host = &mut connection_manager(bootstrap)["route_config"]["virtual_hosts"][0];
        for (field, value) in host.as_object().unwrap() {
            virtual_host[field] = value.clone();
        }
        let routes = virtual_host["routes"].as_array_mut().unwrap();
        let clusters = &mut routes.last_mut().unwrap()["route"]["weighted_clusters"]["clusters"];
        clusters
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .zip(weights)
            .for_each(|(one, weight)| one["weight"] = weight.into());
        change(routes);
        let clusters = bootstrap["static_resources"]["clusters"].as_array_mut().unwrap();
        let hubs = clusters.remove(0);
        for (name, addresses) in [("hubs-v1", &addresses[..2]), ("hubs-v2", &addresses[2..])] {
            let mut cluster = hubs.clone();
            cluster["name"] = name.into();
            let endpoint = |address: &String| {
                let (host, port) = address.rsplit_once(':').unwrap();
                let port: u16 = port.parse().unwrap();
                json!({ "endpoint": { "address": { "socket_address": { "address": host, "port_value": port } } } })
            };
            let endpoints: Vec<_> = addresses.iter().map(endpoint).collect();
            cluster["load_assignment"]["endpoints"] = json!([{ "lb_endpoints": endpoints }]);
            clusters.push(cluster);
        }
    });
    let options = EnvoyOptions {
        version,
        filter: Filter::With(settings),
        hosts: Hosts::of(hubs),
        patch: Some(patch),
        ..EnvoyOptions::default()
    };
    Envoy::start(&options).unwrap()
}

fn connected(envoy: &Envoy, transport: Transport) -> u32 {
    let task = Task { parallel: 4, ..Task::of(envoy.url(), CONNECTIONS) };
    let client = NodeClient { task, transport, cookies: Cookies::Refused, ..NodeClient::default() };
    let outcome = run_node(&client).unwrap();
    println!("{transport:?}: {} of {}", outcome.connected, outcome.tried);
    outcome.connected
}

#[test]
fn a_connection_stays_in_the_version_that_the_weights_chose() {
    let hubs = shared_hubs().unwrap();
    for version in EnvoyVersion::ALL {
        let envoy = gateway(version, hubs, true, [50, 50], |_| {});
        for transport in Transport::ALL {
            assert_eq!(connected(&envoy, transport), CONNECTIONS, "{version:?} {transport:?}");
        }
    }
    let without = gateway(EnvoyVersion::Newest, hubs, false, [50, 50], |_| {});
    assert!(connected(&without, Transport::LongPolling) < CONNECTIONS, "the control");
}

#[test]
fn only_a_sealed_route_chooses_the_version() {
    let hubs = shared_hubs().unwrap();
    let served = |envoy: &Envoy, cluster: &str| envoy.counter(&format!("cluster.{cluster}.upstream_rq_200")).unwrap();
    let first_only = gateway(EnvoyVersion::Newest, hubs, true, [100, 0], |_| {});
    let client = Client::of(&first_only.url());
    for _ in 0..12 {
        client.clone().header("x-signalr-cluster", "hubs-v2").negotiate().unwrap();
    }
    assert_eq!((served(&first_only, "hubs-v1"), served(&first_only, "hubs-v2")), (12, 0));

    // Of another gateway, whose weights are the opposite: the version is gone here.
    let second_only = gateway(EnvoyVersion::Newest, hubs, true, [0, 100], |routes| drop(routes.remove(0)));
    let answer = Client::of(&second_only.url()).poll(&client.negotiate().unwrap());
    assert_eq!(answer.status(), 404, "a hub of the other version does not know it: {answer:?}");
    let gone = [("signalr_source", "connection_token"), ("signalr_outcome", "host_gone")];
    assert_eq!(second_only.metric("signalr_gateway_affinity_total", &gone).unwrap(), 1.0);
}
