//! The files of `envoy-gateway/` on the real control plane of Envoy Gateway, with real hubs and real clients.
//!
//! What Kubernetes would do is done here: `resources.rs` puts addresses in the place of services, and `control_plane.rs` gives the
//! gateway its key.

mod control_plane;
mod registry;
mod resources;
mod shared;

use control_plane::ControlPlane;
use registry::Registry;
use resources::{apply, backend, named, read, replace_services, set_port, settings};
use serde_json::{Value, json};
use testbed::clients::{Cookies, NodeClient, Task, Transport, run_node, run_python};
use testbed::envoy::{module, sum_of_metric};
use testbed::http;
use testbed::hub::{Hub, shared_hubs, three_hubs};
use testbed::process::{free_port, wait_for};
use testbed::raw::{Client, are_one};
use testbed::stand_in::listen;
use testbed::tools::{EnvoyVersion, Skips, envoy_gateway};

const KEY: (&str, &str) = ("SIGNALR_AFFINITY_KEY", "all gateways of this test have this key");
const CONNECTS: u32 = 20;

/// A gateway with the files that every user applies, before these pods.
struct Gateway {
    plane: ControlPlane,
    port: u16,
    resources: Vec<Value>,
    _registry: Registry,
}

impl Gateway {
    fn before(hubs: &[Hub]) -> Self {
        Self::start(&addresses(hubs), &[KEY], |_| {})
    }

    fn start(pods: &[String], environment: &[(&str, &str)], change: impl FnOnce(&mut Vec<Value>)) -> Self {
        let registry = Registry::with(&module().unwrap());
        let port = free_port().unwrap();
        let mut resources = [read("gateway.yaml"), read("signalr.yaml")].concat();
        let image = &mut named(&mut resources, "EnvoyExtensionPolicy", "signalr")["spec"]["wasm"][0]["code"]["image"];
        image["url"] = registry.image().into();
        image["pullSecretRef"] = json!({ "name": "registry" });
        resources.push(registry.secret("registry"));
        resources.push(backend("hub", pods));
        change(&mut resources);
        set_port(&mut resources, port);
        replace_services(&mut resources);
        let mut plane = ControlPlane::start(EnvoyVersion::Newest, &resources, environment);
        plane.wait_for_port(port);
        Self { plane, port, resources, _registry: registry }
    }

    /// Changes the resources of a running gateway.
    fn change(&mut self, change: impl FnOnce(&mut Vec<Value>)) {
        change(&mut self.resources);
        self.plane.apply(&self.resources);
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn client(&self) -> Client {
        Client::of(&self.url())
    }

    /// Envoy has the filter a moment after the listener.
    fn wait_serving(&self) {
        wait_for("the filter", || self.client().negotiate().is_ok_and(|token| token.contains('.'))).unwrap();
    }

    fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        sum_of_metric(&self.plane.admin("/stats/prometheus"), name, labels)
    }
}

fn addresses(hubs: &[Hub]) -> Vec<String> {
    hubs.iter().map(Hub::address).collect()
}

/// Whether the control plane can be built here.
fn possible(test: &str) -> bool {
    Skips::here().or_skip(test, envoy_gateway()).is_some()
}

fn connected(gateway: &Gateway, transport: Transport) {
    let (task, cookies) = (Task::of(gateway.url(), CONNECTS), Cookies::Refused);
    let outcome = run_node(&NodeClient { task, transport, cookies, ..NodeClient::default() }).unwrap();
    assert_eq!(outcome.connected, CONNECTS, "{transport:?}: {:?}", outcome.first_error());
}

#[test]
fn clients_reach_their_pod_and_metrics_have_labels() {
    if !possible("clients behind Envoy Gateway") {
        return;
    }
    let hubs = three_hubs().unwrap();
    let gateway = Gateway::before(&hubs);
    gateway.wait_serving();
    for transport in Transport::ALL {
        connected(&gateway, transport);
    }
    let outcome = run_python(&Task::of(gateway.url(), CONNECTS)).unwrap();
    assert_eq!(outcome.connected, CONNECTS, "pysignalr: {:?}", outcome.first_error());
    for request in hubs.iter().flat_map(|hub| hub.requests().unwrap()) {
        assert!(!request.headers.contains_key("x-signalr-pin"), "the hub sees the pin: {request:?}");
        assert!(!request.query.contains('.'), "the hub sees a sealed id: {request:?}");
    }
    let labels = [("signalr_hub", "/chat"), ("signalr_source", "connection_token"), ("signalr_outcome", "routed")];
    let routed = gateway.metric("signalr_gateway_affinity_total", &labels);
    assert!(routed >= f64::from(4 * CONNECTS), "{routed} requests were routed");
    assert_eq!(gateway.metric("websocket_connections_total", &[("signalr_hub", "/chat")]), f64::from(2 * CONNECTS));
}

#[test]
fn a_negotiate_that_a_pod_does_not_answer_goes_to_another_one() {
    if !possible("negotiates behind Envoy Gateway") {
        return;
    }
    // A pod that takes connections and says nothing.
    let hanging = listen(|mut stream| std::io::copy(&mut stream, &mut std::io::sink())).unwrap();
    let pods = [shared_hubs().unwrap()[0].address(), hanging.to_string()];
    let gateway = Gateway::start(&pods, &[KEY], |_| {});
    gateway.wait_serving();
    for attempt in 0..4 {
        assert!(gateway.client().negotiate().is_ok(), "attempt {attempt}");
    }
    let retried = "cluster.httproute/default/hub/rule/0.upstream_rq_retry_success: ";
    let stats = gateway.plane.admin("/stats");
    let count: u32 = stats.lines().find_map(|line| line.strip_prefix(retried)).expect(retried).parse().unwrap();
    assert!(count > 0, "no pod hung");
}

#[test]
fn a_draining_pod_keeps_its_connections_with_the_patch() {
    if !possible("draining pods behind Envoy Gateway") {
        return;
    }
    let hubs = three_hubs().unwrap();
    let mut gateway = Gateway::before(&hubs);
    gateway.wait_serving();
    let negotiations =
        |hub: &Hub| hub.requests().unwrap().iter().filter(|request| request.path == "/chat/negotiate").count();
    let before: Vec<_> = hubs.iter().map(negotiations).collect();
    let token = gateway.client().negotiate().unwrap();
    assert_eq!(gateway.client().poll(&token).status(), 200);
    let (own, _) = hubs.iter().zip(before).find(|(hub, before)| negotiations(hub) > *before).unwrap();
    gateway.change(|resources| apply(resources, draining(own)));
    wait_for("the pod to drain", || gateway.plane.admin("/clusters").matches("eds_status_draining").count() == 2)
        .unwrap();
    let count = negotiations(own);

    let url = format!("{}/chat?id={token}", gateway.url());
    // Sends nothing to the hub, which only the pod with the connection accepts.
    let kept = || http::post(&url).unwrap().0 == 200;
    assert!(!kept() && !kept() && !kept(), "the control: its connections are lost");
    gateway.change(|resources| resources.extend(read("draining-patch.yaml")));
    wait_for("the patch", kept).unwrap();
    for attempt in 0..12 {
        assert!(kept(), "attempt {attempt}");
        gateway.client().negotiate().unwrap();
    }
    assert_eq!(negotiations(own), count, "new connections go elsewhere");
}

/// What Kubernetes reports of a pod that terminates, as Envoy Gateway passes it on.
fn draining(pod: &Hub) -> Value {
    let address = pod.address();
    let (_, port) = address.rsplit_once(':').unwrap();
    let patch = |rule: usize| {
        json!({
            "type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "name": format!("httproute/default/hub/rule/{rule}"),
            "operation": {
                "op": "add",
                "jsonPath": format!("$.endpoints[*].lb_endpoints[?(@.endpoint.address.socket_address.port_value == {port})]"),
                "path": "health_status",
                "value": "DRAINING",
            },
        })
    };
    json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "EnvoyPatchPolicy",
        "metadata": { "name": "kubernetes", "namespace": "default" },
        "spec": {
            "targetRef": { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gateway" },
            "type": "JSONPatch",
            "jsonPatches": [patch(0), patch(1)],
        },
    })
}

#[test]
fn a_connection_stays_in_the_version_that_the_weights_chose() {
    if !possible("versions behind Envoy Gateway") {
        return;
    }
    let hubs = shared_hubs().unwrap();
    let gateway = Gateway::start(&addresses(hubs), &[KEY], |resources| {
        for route in read("versions-by-weight.yaml") {
            apply(resources, route);
        }
        resources.push(backend("hub-v1", &addresses(&hubs[..2])));
        resources.push(backend("hub-v2", &addresses(&hubs[2..])));
        settings(resources)["affinity"]["cluster_header"] = "x-signalr-cluster".into();
        for backend in named(resources, "HTTPRoute", "hub")["spec"]["rules"][0]["backendRefs"].as_array_mut().unwrap() {
            backend["weight"] = 50.into();
        }
    });
    gateway.wait_serving();
    for transport in Transport::ALL {
        connected(&gateway, transport);
    }
}

#[test]
fn clients_connect_over_tls() {
    if !possible("TLS at Envoy Gateway") {
        return;
    }
    let mut gateway = Gateway::before(shared_hubs().unwrap());
    let port = free_port().unwrap();
    let secret = gateway.plane.certificate("gateway-certificate");
    gateway.change(|resources| {
        for resource in read("tls.yaml") {
            apply(resources, resource);
        }
        set_port(resources, port);
        resources.push(secret);
    });
    gateway.plane.wait_for_port(port);
    let task = Task::of(format!("https://127.0.0.1:{port}"), CONNECTS);
    for transport in Transport::ALL {
        let (task, cookies) = (task.clone(), Cookies::Refused);
        let client = NodeClient { task, transport, cookies, trusts_any_certificate: true, ..NodeClient::default() };
        let outcome = run_node(&client).unwrap();
        assert_eq!(outcome.connected, CONNECTS, "{transport:?}: {:?}", outcome.first_error());
    }
}

#[test]
fn limits_count_by_the_address_that_a_trusted_proxy_saw() {
    if !possible("limits behind Envoy Gateway") {
        return;
    }
    let limited = |resources: &mut Vec<Value>| {
        settings(resources)["hubs"] = json!([{ "path": "/chat" }]);
        settings(resources)["limits"] = json!({ "connections": { "per_client": 1 } });
    };
    let pods = addresses(shared_hubs().unwrap());
    for (trusted, two_of_one_proxy_are_one) in [(None, true), (Some(json!({ "numTrustedHops": 1 })), false)] {
        let gateway = Gateway::start(&pods, &[KEY], |resources| {
            limited(resources);
            if let Some(trusted) = trusted {
                named(resources, "ClientTrafficPolicy", "signalr")["spec"]["clientIPDetection"] =
                    json!({ "xForwardedFor": trusted });
            }
        });
        gateway.wait_serving();
        let seen = |addresses: &str| gateway.client().header("x-forwarded-for", addresses);
        let [ann, bob, made_up] = ["198.51.100.1", "198.51.100.2", "198.51.100.3, 198.51.100.1"].map(seen);
        assert_eq!(are_one(&ann, &bob), two_of_one_proxy_are_one);
        assert!(are_one(&ann, &made_up), "what the client itself sent counts for nothing");
    }
}

#[test]
fn settings_that_the_filter_refuses_are_answered_503() {
    if !possible("refused settings behind Envoy Gateway") {
        return;
    }
    let pods = addresses(shared_hubs().unwrap());
    let gateway = Gateway::start(&pods, &[KEY], |resources| settings(resources)["afinity"] = json!({}));
    wait_for("the refusal", || gateway.plane.log().contains("configuration refused: afinity: unknown field")).unwrap();
    assert_eq!(gateway.client().negotiate_answer().status(), 503);
}
