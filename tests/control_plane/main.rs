//! Tier 7: the files of `istio/` on a real API server and a real istiod, with real hubs and clients.
//!
//! `lab.rs` starts the cluster, which all tests share. The gateway's Envoy is upstream's, so some filters of Istio's own are turned
//! off: `lab/mesh.yaml` names them.

mod changes;
mod demo;
mod gateway_api;
mod hubs;
mod lab;
mod shared;

use std::time::Duration;

use demo::{connect, connect_all};
use lab::lab;

const CONNECTS: u32 = 20;

#[test]
fn clients_of_each_transport_reach_their_pod_by_the_files_as_they_are() {
    let Some(lab) = lab("clients_of_each_transport_reach_their_pod_by_the_files_as_they_are") else { return };
    lab.serve_demo();
    lab.remove_filter();
    // The control: some wait for a pod that does not know them.
    for (transport, outcome) in connect(&lab.gateway().url(8080), CONNECTS, Duration::from_secs(5)) {
        assert!(outcome.connected < CONNECTS, "{transport:?}: all connected without the filter");
    }
    lab.serve_demo();
    connect_all(&lab.gateway().url(8080), CONNECTS);
}

#[test]
fn a_wasm_plugin_is_the_same_filter() {
    let Some(lab) = lab("a_wasm_plugin_is_the_same_filter") else { return };
    lab.serve_demo();
    lab.remove_filter();
    lab.apply("istio/filter/wasm-plugin");
    let gateway = lab.gateway();
    gateway.wait_sealed(8080);
    connect_all(&gateway.url(8080), CONNECTS);
}

#[test]
fn metrics_have_their_labels_where_prometheus_scrapes_a_gateway() {
    let Some(lab) = lab("metrics_have_their_labels_where_prometheus_scrapes_a_gateway") else { return };
    lab.serve_demo();
    let gateway = lab.gateway();
    connect_all(&gateway.url(8080), 1);
    // Of pilot-agent, and of Envoy itself.
    for port in [15020, 15090] {
        let metrics = gateway.metrics(port);
        let sealed = r#"signalr_gateway_negotiations_total{signalr_hub="/chat",signalr_result="sealed"}"#;
        assert!(metrics.contains(sealed), "{port}: {metrics}");
    }
}
