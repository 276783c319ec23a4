//! As much of istiod and pilot-agent as the files of `istio/` need: it turns them into what the gateway's Envoy gets.
//!
//! It follows istiod's sources (`model/extensions.go`, `envoyfilter/*.go`, `pkg/bootstrap`) and panics on whatever it
//! does not know, so that a file cannot hold more than is tested.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use testbed::envoy::connection_manager;
use testbed::workspace;

pub(crate) const GATEWAY_POD: &str = "istio/gateway-pods/deployment/deployment.yaml";
pub(crate) const ENVOY_FILTER: &str = "istio/filter/steering/envoy-filter.yaml";
pub(crate) const TRAFFIC_EXTENSION: &str = "istio/filter/traffic-extension/traffic-extension.yaml";
pub(crate) const WASM_PLUGIN: &str = "istio/filter/wasm-plugin/wasm-plugin.yaml";

/// One document of a file of this repository.
pub(crate) fn read(file: &str) -> Value {
    serde_yaml_ng::from_str(&fs::read_to_string(workspace().join(file)).unwrap()).unwrap()
}

/// The bootstrap of a gateway whose files for discovery lie in `folder`.
pub(crate) fn gateway(folder: &Path) -> Value {
    let text = fs::read_to_string(workspace().join("tests/istio/gateway.yaml")).unwrap();
    let text = text.replace("/etc/istio/proxy", folder.to_str().unwrap());
    let mut bootstrap = serde_yaml_ng::from_str(&text).unwrap();
    extract_labels(&labels(&read(GATEWAY_POD)), &mut bootstrap);
    apply(&read(ENVOY_FILTER), &mut bootstrap);
    bootstrap
}

/// Makes of a RequestAuthentication what istiod does (`authn/policy_applier.go`), with the keys that it has fetched.
pub(crate) fn authenticate(authentication: &Value, jwks: &str, bootstrap: &mut Value) {
    let [rule] = authentication["spec"]["jwtRules"].as_array().unwrap().as_slice() else {
        panic!("this control plane knows one rule: {authentication}")
    };
    let mut provider = json!({
        "local_jwks": { "inline_string": jwks },
        "payload_in_metadata": "payload",
        "normalize_payload_in_metadata": { "space_delimited_claims": ["permission", "scope"] },
        "clear_route_cache": true,
    });
    for (field, value) in rule.as_object().unwrap() {
        let (name, value) = match field.as_str() {
            "issuer" | "audiences" => (field.as_str(), value.clone()),
            "jwksUri" => continue,
            "forwardOriginalToken" => ("forward", value.clone()),
            "outputClaimToHeaders" => {
                let outputs = value.as_array().unwrap().iter();
                let named = |output: &Value| json!({ "header_name": output["header"], "claim_name": output["claim"] });
                ("claim_to_headers", outputs.map(named).collect())
            }
            _ => panic!("this control plane knows no such field: {rule}"),
        };
        provider[name] = value;
    }
    let requirements = json!([{ "provider_name": "origins-0" }, { "allow_missing": {} }]);
    let requires = json!({ "requires_any": { "requirements": requirements } });
    let found = connection_manager(bootstrap)["http_filters"].as_array_mut().unwrap().iter_mut();
    let mut filters = found.filter(|filter| filter["name"] == "envoy.filters.http.jwt_authn");
    let config = json!({
        "providers": { "origins-0": provider },
        "rules": [{ "match": { "prefix": "/" }, "requires": requires }],
        "bypass_cors_preflight": true,
    });
    merge(&mut filters.next().unwrap()["typed_config"], &config);
}

/// The answer of extension discovery, once pilot-agent has fetched the module.
pub(crate) fn extensions(plugin: &Value, module: &Path) -> Value {
    let (metadata, spec) = (&plugin["metadata"], &plugin["spec"]);
    assert!(spec.get("phase").is_none(), "gateway.yaml has the filter where one without a phase stands");
    let name = format!("{}.{}", metadata["namespace"].as_str().unwrap(), metadata["name"].as_str().unwrap());
    let variables = spec["vmConfig"]["env"].as_array().unwrap().iter().map(|variable| {
        assert_eq!(variable["valueFrom"], "HOST");
        &variable["name"]
    });
    discovered(&json!({
        "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        "name": format!("extensions.istio.io/wasmplugin/{name}"),
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": name,
                "failure_policy": spec["failStrategy"],
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": spec["pluginConfig"].to_string(),
                },
                "vm_config": {
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": { "local": { "filename": module } },
                    "environment_variables": { "host_env_keys": variables.collect::<Vec<_>>() },
                },
            },
        },
    }))
}

/// The answer of endpoint discovery for pods on this machine, each with its health.
pub(crate) fn endpoints(pods: &[(u16, &str)]) -> Value {
    let endpoints = pods.iter().map(|(port, health)| {
        let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
        json!({ "endpoint": { "address": address }, "health_status": health })
    });
    discovered(&json!({
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": "outbound|80||hub.default.svc.cluster.local",
        "endpoints": [{ "lb_endpoints": endpoints.collect::<Vec<_>>() }],
    }))
}

/// Puts an answer where Envoy watches for it. It sees a file only when one is moved there.
pub(crate) fn publish(file: &Path, answer: &Value) {
    let fresh = file.with_extension("next");
    fs::write(&fresh, answer.to_string()).unwrap();
    fs::rename(fresh, file).unwrap();
}

fn discovered(resource: &Value) -> Value {
    json!({ "resources": [resource] })
}

/// The tags of statistics that a pod's annotation adds to Istio's own.
pub(crate) fn labels(pod: &Value) -> Vec<String> {
    let annotations = &pod["spec"]["template"]["metadata"]["annotations"];
    let config: Value = serde_yaml_ng::from_str(annotations["proxy.istio.io/config"].as_str().unwrap()).unwrap();
    serde_json::from_value(config["extraStatTags"].clone()).unwrap()
}

/// The template of the bootstrap makes one expression of each tag.
fn extract_labels(tags: &[String], bootstrap: &mut Value) {
    let expressions = tags.iter().map(|tag| json!({ "tag_name": tag, "regex": format!(r"({tag}=\.=(.*?);\.;)") }));
    let known = bootstrap["stats_config"]["stats_tags"].as_array_mut().unwrap();
    let place = known.iter().position(|tag| tag["tag_name"] == "cache").unwrap();
    known.splice(place..place, expressions);
}

fn apply(envoy_filter: &Value, bootstrap: &mut Value) {
    for patch in envoy_filter["spec"]["configPatches"].as_array().unwrap() {
        let (object, wanted) = (patch["applyTo"].as_str().unwrap(), &patch["match"]);
        let (operation, value) = (patch["patch"]["operation"].as_str().unwrap(), &patch["patch"]["value"]);
        assert_eq!(wanted["context"], "GATEWAY", "{patch}");
        let resources = &mut bootstrap["static_resources"];
        let network_filter = &mut resources["listeners"][0]["filter_chains"][0]["filters"][0];
        match (object, operation) {
            ("HTTP_FILTER", "INSERT_BEFORE") => {
                let wanted = &wanted["listener"]["filterChain"]["filter"];
                assert_eq!(wanted["name"], network_filter["name"], "{patch}");
                let filters = network_filter["typed_config"]["http_filters"].as_array_mut().unwrap();
                let place = filters.iter().position(|filter| filter["name"] == wanted["subFilter"]["name"]).unwrap();
                filters.insert(place, value.clone());
            }
            ("ROUTE_CONFIGURATION", "MERGE") => merge(&mut network_filter["typed_config"]["route_config"], value),
            ("CLUSTER", "MERGE") => {
                let service = format!("||{}", wanted["cluster"]["service"].as_str().unwrap());
                let mut clusters = resources["clusters"].as_array_mut().unwrap().iter_mut();
                merge(clusters.find(|cluster| cluster["name"].as_str().unwrap().ends_with(&service)).unwrap(), value);
            }
            _ => panic!("this control plane knows no such patch: {patch}"),
        }
    }
}

/// Merges as protobuf does: lists grow, single values are replaced.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(from)) => into.extend(from.iter().cloned()),
        (into, from) => *into = from.clone(),
    }
}
