//! The files of `envoy-gateway/`, changed where they say `CHANGE`, and what Kubernetes would add.
use std::fs;

use serde::Deserialize as _;
use serde_json::{Value, json};
use testbed::workspace;

/// The resources of this file.
pub(crate) fn read(file: &str) -> Vec<Value> {
    let path = workspace().join("envoy-gateway").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let documents = serde_yaml_ng::Deserializer::from_str(&text);
    documents.map(|document| Value::deserialize(document).unwrap_or_else(|error| panic!("{file}: {error}"))).collect()
}

/// The only resource of this kind and name.
pub(crate) fn named<'a>(resources: &'a mut [Value], kind: &str, name: &str) -> &'a mut Value {
    let mut found: Vec<_> = resources
        .iter_mut()
        .filter(|resource| resource["kind"] == kind && resource["metadata"]["name"] == name)
        .collect();
    assert_eq!(found.len(), 1, "resources of the kind {kind} with the name {name}");
    found.remove(0)
}

/// Puts a resource in the place of the one with its kind and name, or adds it, as `kubectl apply` does.
pub(crate) fn apply(resources: &mut Vec<Value>, resource: Value) {
    let same =
        |other: &Value| other["kind"] == resource["kind"] && other["metadata"]["name"] == resource["metadata"]["name"];
    resources.retain(|other| !same(other));
    resources.push(resource);
}

/// The filter's settings.
pub(crate) fn settings(resources: &mut [Value]) -> &mut Value {
    &mut named(resources, "EnvoyExtensionPolicy", "signalr")["spec"]["wasm"][0]["config"]
}

/// Listens on another port.
pub(crate) fn set_port(resources: &mut [Value], port: u16) {
    named(resources, "Gateway", "gateway")["spec"]["listeners"][0]["port"] = port.into();
}

/// Without Kubernetes there are no services: routes go to Backends of the same name, which hold addresses.
pub(crate) fn replace_services(resources: &mut [Value]) {
    for route in resources.iter_mut().filter(|resource| resource["kind"] == "HTTPRoute") {
        for rule in route["spec"]["rules"].as_array_mut().unwrap() {
            for backend in rule["backendRefs"].as_array_mut().unwrap() {
                let backend = backend.as_object_mut().unwrap();
                backend.remove("port").expect("a port of a service");
                backend.insert("group".into(), "gateway.envoyproxy.io".into());
                backend.insert("kind".into(), "Backend".into());
            }
        }
    }
}

/// The pods of a service.
pub(crate) fn backend(name: &str, addresses: &[String]) -> Value {
    let endpoint = |address: &String| {
        let (host, port) = address.rsplit_once(':').unwrap();
        json!({ "ip": { "address": host, "port": port.parse::<u16>().unwrap() } })
    };
    json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "Backend",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>() },
    })
}
