//! The files of `istio/` on the Envoy configuration that istiod makes of them, with real hubs and real clients.
//!
//! Here `control_plane.rs` stands in for istiod, on the oldest and the newest Envoy; `gateway.yaml` is the gateway's configuration
//! before the files are applied. `tests/control_plane` has the real istiod, with the newest Envoy alone.

mod control_plane;
#[path = "../limits/jwt.rs"]
mod jwt;
mod users;

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use testbed::clients::{Cookies, NodeClient, Task, Transport, run_node, run_python};
use testbed::envoy::{Envoy, EnvoyOptions, module};
use testbed::http;
use testbed::hub::{Hub, three_hubs};
use testbed::process::{run_dir, wait_for};
use testbed::raw::Client;
use testbed::tools::EnvoyVersion;

use crate::control_plane::{ENVOY_FILTER, GATEWAY_POD, TRAFFIC_EXTENSION, WASM_PLUGIN};

const KEY: &str = "all gateways of this test have this key";
const CONNECTS: u32 = 20;

/// A pod of the gateway.
struct Gateway {
    envoy: Envoy,
    endpoints: PathBuf,
}

impl Gateway {
    fn start(name: &str, version: EnvoyVersion, hubs: &[Hub]) -> Self {
        Self::start_with(name, version, hubs, &control_plane::read(WASM_PLUGIN), |_| {})
    }

    /// One with this WasmPlugin, and a change to its bootstrap.
    fn start_with(
        name: &str,
        version: EnvoyVersion,
        hubs: &[Hub],
        plugin: &Value,
        change: impl FnOnce(&mut Value),
    ) -> Self {
        let folder = run_dir().unwrap().join(name);
        fs::create_dir_all(&folder).unwrap();
        let extensions = control_plane::extensions(plugin, &module().unwrap());
        control_plane::publish(&folder.join("extensions.json"), &extensions);
        let endpoints = folder.join("endpoints.json");
        let all: Vec<_> = hubs.iter().map(|hub| (port(hub), "HEALTHY")).collect();
        control_plane::publish(&endpoints, &control_plane::endpoints(&all));
        let mut gateway = control_plane::gateway(&folder);
        change(&mut gateway);
        let options = EnvoyOptions {
            version,
            environment: vec![("SIGNALR_AFFINITY_KEY".into(), KEY.into())],
            // Nothing stays of the standalone configuration but the ports.
            patch: Some(Box::new(move |standalone| {
                let mut gateway = gateway.clone();
                for address in ["/admin/address", "/static_resources/listeners/0/address"] {
                    *gateway.pointer_mut(address).unwrap() = standalone.pointer_mut(address).unwrap().take();
                }
                *standalone = gateway;
            })),
            ..EnvoyOptions::default()
        };
        Self { envoy: Envoy::start(&options).unwrap(), endpoints }
    }

    /// Begins a connection by long polling and returns its token.
    fn negotiate(&self) -> String {
        Client::of(&self.envoy.url()).negotiate().unwrap()
    }

    /// The first poll, which is answered at once.
    fn poll(&self, token: &str) -> u16 {
        Client::of(&self.envoy.url()).poll(token).status()
    }

    /// Sends nothing to the hub, which only the pod with the connection accepts.
    fn send(&self, token: &str) -> u16 {
        http::post(&format!("{}/chat?id={token}", self.envoy.url())).unwrap().0
    }
}

fn port(hub: &Hub) -> u16 {
    hub.address().rsplit_once(':').unwrap().1.parse().unwrap()
}

fn negotiations(hub: &Hub) -> usize {
    hub.requests().unwrap().iter().filter(|request| request.path == "/chat/negotiate").count()
}

#[test]
fn clients_reach_their_pod_through_the_chain_that_istiod_makes() {
    for version in EnvoyVersion::ALL {
        let hubs = three_hubs().unwrap();
        let gateway = Gateway::start(&format!("istio-clients-{version:?}"), version, &hubs);
        let url = gateway.envoy.url();
        for transport in Transport::ALL {
            let (task, cookies) = (Task::of(url.clone(), CONNECTS), Cookies::Refused);
            let client = NodeClient { task, transport, cookies, ..NodeClient::default() };
            let outcome = run_node(&client).unwrap();
            assert_eq!(outcome.connected, CONNECTS, "{version:?} {transport:?}: {:?}", outcome.first_error());
        }
        let outcome = run_python(&Task::of(url, CONNECTS)).unwrap();
        assert_eq!(outcome.connected, CONNECTS, "{version:?} pysignalr: {:?}", outcome.first_error());

        assert!(hubs.iter().all(|hub| negotiations(hub) > 0), "{version:?}: some pod got no client at all");
        for request in hubs.iter().flat_map(|hub| hub.requests().unwrap()) {
            assert!(!request.headers.contains_key("x-signalr-pin"), "{version:?}: the hub sees the pin: {request:?}");
            assert!(!request.query.contains('.'), "{version:?}: the hub sees a sealed id: {request:?}");
        }
        let labels = [("signalr_hub", "/chat"), ("signalr_source", "connection_token"), ("signalr_outcome", "routed")];
        let routed = gateway.envoy.metric("signalr_gateway_affinity_total", &labels).unwrap();
        assert!(routed >= f64::from(4 * CONNECTS), "{version:?}: {routed} requests were routed");
        let labels = [("signalr_hub", "/chat"), ("signalr_result", "sealed")];
        let sealed = gateway.envoy.metric("signalr_gateway_negotiations_total", &labels).unwrap();
        assert_eq!(sealed, f64::from(4 * CONNECTS), "{version:?}");
    }
}

#[test]
fn another_gateway_with_the_same_key_finds_the_pod() {
    let hubs = three_hubs().unwrap();
    let [first, second] = ["one", "another"].map(|name| Gateway::start(name, EnvoyVersion::Newest, &hubs));
    for attempt in 0..12 {
        let token = first.negotiate();
        assert_eq!(second.poll(&token), 200, "attempt {attempt}");
    }
}

/// The number of the hub that a connection of this gateway is on, and its token.
fn connect(gateway: &Gateway, hubs: &[Hub]) -> (usize, String) {
    let before: Vec<_> = hubs.iter().map(negotiations).collect();
    let token = gateway.negotiate();
    assert_eq!(gateway.poll(&token), 200);
    (hubs.iter().zip(before).position(|(hub, before)| negotiations(hub) > before).unwrap(), token)
}

/// Lets istiod say this of one pod, and waits until Envoy knows.
fn report(gateway: &Gateway, hubs: &[Hub], own: usize, status: &str) {
    let health = |number| if number == own { status } else { "HEALTHY" };
    let pods: Vec<_> = hubs.iter().enumerate().map(|(number, hub)| (port(hub), health(number))).collect();
    control_plane::publish(&gateway.endpoints, &control_plane::endpoints(&pods));
    let clusters = format!("{}/clusters?format=json", gateway.envoy.admin());
    let seen = || http::get(&clusters).is_ok_and(|(_, body)| body.contains(status));
    wait_for("Envoy to see how a pod is", seen).unwrap();
}

#[test]
fn a_pod_that_drains_or_is_not_ready_keeps_its_connections_and_gets_no_new_ones() {
    let hubs = three_hubs().unwrap();
    for version in EnvoyVersion::ALL {
        let gateway = Gateway::start(&format!("istio-draining-{version:?}"), version, &hubs);
        let (own, token) = connect(&gateway, &hubs);
        for status in ["DRAINING", "UNHEALTHY"] {
            report(&gateway, &hubs, own, status);
            let before = negotiations(&hubs[own]);
            for attempt in 0..10 {
                assert_eq!(gateway.send(&token), 200, "{version:?} {status}: attempt {attempt}");
                gateway.negotiate();
            }
            assert_eq!(negotiations(&hubs[own]), before, "{version:?} {status}");
        }
    }
}

#[test]
fn a_request_for_a_pod_that_is_dead_and_not_ready_reaches_another() {
    for version in EnvoyVersion::ALL {
        let mut hubs = three_hubs().unwrap();
        let gateway = Gateway::start(&format!("istio-dead-{version:?}"), version, &hubs);
        let (own, token) = connect(&gateway, &hubs);
        report(&gateway, &hubs, own, "UNHEALTHY");
        hubs[own].kill();
        let closed = format!("::{}::cx_active::0", hubs[own].address());
        let clusters = format!("{}/clusters", gateway.envoy.admin());
        let seen = || http::get(&clusters).is_ok_and(|(_, body)| body.contains(&closed));
        wait_for("Envoy to see that its connections to the pod are closed", seen).unwrap();
        // The answer of a hub that does not know the id, at which a client negotiates anew.
        assert_eq!(gateway.send(&token), 404, "{version:?}");
    }
}

#[test]
fn both_apis_configure_the_same_filter() {
    let (plugin, extension) = (control_plane::read(WASM_PLUGIN), control_plane::read(TRAFFIC_EXTENSION));
    assert_eq!(plugin["metadata"], extension["metadata"]);
    // What TrafficExtension keeps outside of `wasm` is what goes for filters in Lua, too.
    let mut flat = extension["spec"]["wasm"].clone();
    flat["selector"] = extension["spec"]["selector"].clone();
    assert_eq!(plugin["spec"], flat);
}

#[test]
fn the_pods_of_the_gateway_have_the_key_that_the_filter_asks_for() {
    let pod = control_plane::read(GATEWAY_POD);
    let plugin = control_plane::read(WASM_PLUGIN);
    let variable = &pod["spec"]["template"]["spec"]["containers"][0]["env"][0]["name"];
    assert_eq!(plugin["spec"]["vmConfig"]["env"][0]["name"], *variable);
    assert_eq!(plugin["spec"]["pluginConfig"]["affinity"]["keys"][0]["secret"]["env"], *variable);
}

#[test]
fn every_kind_of_gateway_gets_the_same_pods() {
    let deployment = &control_plane::read(GATEWAY_POD)["spec"];
    let overlay = control_plane::read("istio/gateway-pods/gateway-api/config-map/deployment.yaml");
    assert_eq!(overlay["spec"], *deployment);
    let helm = control_plane::read("istio/gateway-pods/helm-values.yaml");
    let (metadata, container) = (&deployment["template"]["metadata"], &deployment["template"]["spec"]["containers"][0]);
    for (value, expected) in [
        ("labels", &metadata["labels"]),
        ("podAnnotations", &metadata["annotations"]),
        ("envVarFrom", &container["env"]),
    ] {
        assert_eq!(helm[value], *expected, "{value}");
    }
}

#[test]
fn the_filter_is_for_pods_that_have_the_key() {
    let labels = &control_plane::read(GATEWAY_POD)["spec"]["template"]["metadata"]["labels"];
    for (file, selector) in [
        (WASM_PLUGIN, "/spec/selector/matchLabels"),
        (TRAFFIC_EXTENSION, "/spec/selector/matchLabels"),
        (ENVOY_FILTER, "/spec/workloadSelector/labels"),
        ("istio/request-authentication.yaml", "/spec/selector/matchLabels"),
    ] {
        assert_eq!(control_plane::read(file).pointer(selector), Some(labels), "{file}");
    }
}

#[test]
fn istio_extracts_the_labels_that_standalone_envoy_extracts() {
    let standalone = control_plane::read("envoy/envoy.yaml");
    let pod = control_plane::read(GATEWAY_POD);
    let expected = standalone["stats_config"]["stats_tags"].as_array().unwrap();
    assert_eq!(
        control_plane::labels(&pod),
        expected.iter().map(|tag| tag["tag_name"].as_str().unwrap()).collect::<Vec<_>>()
    );
}
