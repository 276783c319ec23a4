//! `metrics.per_upstream`: open WebSockets by pod.

use std::collections::BTreeMap;

use serde_json::json;
use testbed::envoy::Envoy;
use testbed::hub::{Hub, three_hubs};

use crate::client::Client;
use crate::scrape::{settles, start};

/// So many connections, by the pod that each is on.
fn connect(envoy: &Envoy, connections: usize) -> BTreeMap<String, Vec<Client>> {
    let mut pods = BTreeMap::<_, Vec<_>>::new();
    for _ in 0..connections {
        let mut client = Client::connect(envoy, "/chat");
        pods.entry(client.pod()).or_default().push(client);
    }
    pods
}

/// The gauges of these pods, each with as many WebSockets as are open.
fn gauges(hubs: &[Hub], pods: &BTreeMap<String, Vec<Client>>) -> Vec<(String, u64)> {
    let gauge = |hub: &Hub| {
        let open = pods.get(hub.pod()).map_or(0, Vec::len);
        (format!("websocket_connections_active{{hub=/chat,upstream={}}}", hub.address()), open as u64)
    };
    hubs.iter().map(gauge).collect()
}

#[test]
fn open_websockets_are_told_by_pod_and_a_pod_that_died_has_none() {
    let mut hubs = three_hubs().unwrap();
    let envoy = start(&hubs, 4, json!({"metrics": {"per_upstream": true}}), |_| {});
    let wanted = |series: &str| series.starts_with("websocket_connections_active{");
    let mut pods = connect(&envoy, 24);
    assert!(hubs.iter().all(|hub| pods[hub.pod()].len() > 2), "all pods have some: {:?}", gauges(&hubs, &pods));
    settles("all open", &envoy, wanted, &gauges(&hubs, &pods));

    for client in pods.get_mut(hubs[0].pod()).unwrap().drain(..2) {
        client.close(Some(1000));
    }
    settles("two of the first pod closed", &envoy, wanted, &gauges(&hubs, &pods));

    hubs[1].kill();
    // Kept open on this side: it is the pod that ends them.
    let _lost = pods.remove(hubs[1].pod());
    settles("the second pod died", &envoy, wanted, &gauges(&hubs, &pods));

    // Whoever lost it goes to the others.
    for (pod, clients) in connect(&envoy, 8) {
        pods.get_mut(&pod).unwrap().extend(clients);
    }
    settles("eight came back", &envoy, wanted, &gauges(&hubs, &pods));
}
