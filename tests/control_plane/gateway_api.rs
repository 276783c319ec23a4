//! Gateways that istiod makes itself, by the Kubernetes Gateway API.

use serde_json::json;
use testbed::process::wait_for;

use crate::demo::{connect_all, one};
use crate::lab::{Lab, Pod, lab};

impl Lab {
    fn gateway_named(&self, namespace: &str, name: &str) -> Pod {
        let label = format!("gateway.networking.k8s.io/gateway-name={name}");
        wait_for("istiod to make a gateway", || !self.pods(namespace, &label).is_empty()).unwrap();
        one(self.pods(namespace, &label))
    }
}

#[test]
fn everything_in_a_namespace_of_its_own_connects() {
    let Some(lab) = lab("everything_in_a_namespace_of_its_own_connects") else { return };
    lab.kubectl(&["create", "namespace", "signalr"]);
    lab.create_key("signalr");
    lab.apply("istio/one-namespace");
    lab.rolled_out("signalr", "deployment/hub");
    let gateway = lab.gateway_named("signalr", "signalr");
    gateway.wait_sealed(80);
    connect_all(&gateway.url(80), 10);
    lab.kubectl(&["delete", "-k", "istio/one-namespace", "--wait=false"]);
}

#[test]
fn a_gateway_is_chosen_by_its_name() {
    let Some(lab) = lab("a_gateway_is_chosen_by_its_name") else { return };
    lab.serve_demo();
    lab.remove_filter();
    lab.apply("istio/gateway-pods/gateway-api");
    let pods = json!({ "parametersRef": { "group": "", "kind": "ConfigMap", "name": "signalr-gateway-pod" } });
    let listener =
        json!({ "name": "http", "protocol": "HTTP", "port": 80, "allowedRoutes": { "namespaces": { "from": "All" } } });
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": { "name": "gateway", "namespace": "istio-ingress" },
        "spec": { "gatewayClassName": "istio", "infrastructure": pods, "listeners": [listener] },
    });
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": { "name": "hub", "namespace": "default" },
        "spec": {
            "parentRefs": [{ "name": "gateway", "namespace": "istio-ingress" }],
            "rules": [{ "backendRefs": [{ "name": "hub", "port": 80 }] }],
        },
    });
    lab.apply_text(&json!({ "apiVersion": "v1", "kind": "List", "items": [gateway, route] }).to_string());
    let gateway = lab.gateway_named("istio-ingress", "gateway");
    lab.apply("istio/filter/target-refs");
    gateway.wait_sealed(80);
    connect_all(&gateway.url(80), 10);
    // The other gateway of the namespace has no filter.
    lab.gateway().wait_status(8080, 200);
    lab.remove_filter();
    lab.in_gateways(&["delete", "gateway.gateway.networking.k8s.io", "gateway"]);
}
