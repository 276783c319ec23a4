//! Limits of all gateways, by `shared-limits.yaml`.

use serde_json::{Value, json};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts, add_cluster};
use testbed::hub::shared_hubs;
use testbed::process::wait_for;
use testbed::raw::{Answer, Client, Socket};
use testbed::redis::Redis;
use testbed::tools::{Skips, redis};

use crate::resources::{apply, named, read, settings};
use crate::{Gateway, KEY, addresses, possible};

const PASSWORD: (&str, &str) = ("REDIS_PASSWORD", "of the Redis of this test");

/// The bootstrap of an EnvoyProxy.
fn bootstrap(resources: &mut [Value]) -> &mut Value {
    &mut named(resources, "EnvoyProxy", "signalr")["spec"]["bootstrap"]["value"]
}

fn parsed(bootstrap: &Value) -> Value {
    serde_yaml_ng::from_str(bootstrap.as_str().unwrap()).unwrap()
}

#[test]
fn the_files_differ_in_what_is_for_redis_alone() {
    let (mut shared, mut plain) = (read("shared-limits.yaml"), [read("gateway.yaml"), read("signalr.yaml")].concat());
    let mut with_redis = parsed(bootstrap(&mut shared));
    assert!(with_redis.as_object_mut().unwrap().remove("static_resources").is_some());
    assert_eq!(with_redis, parsed(bootstrap(&mut plain)));
    *bootstrap(&mut shared) = bootstrap(&mut plain).clone();
    let container = "/spec/provider/kubernetes/envoyDeployment/container/env";
    let proxy = named(&mut shared, "EnvoyProxy", "signalr");
    proxy.pointer_mut(container).unwrap().as_array_mut().unwrap().retain(|variable| variable["name"] != PASSWORD.0);
    let policy = named(&mut shared, "EnvoyExtensionPolicy", "signalr");
    policy["spec"]["wasm"][0]["env"]["hostKeys"].as_array_mut().unwrap().retain(|name| name != PASSWORD.0);
    assert!(policy["spec"]["wasm"][0]["config"].as_object_mut().unwrap().remove("limits").is_some());
    for resource in shared {
        let kind = resource["kind"].as_str().unwrap();
        assert_eq!(resource, *named(&mut plain, kind, "signalr"), "{kind}");
    }
}

#[test]
fn connections_at_another_gateway_count() {
    if !possible("shared limits behind Envoy Gateway") {
        return;
    }
    let Some(program) = Skips::here().or_skip("connections_at_another_gateway_count", redis()) else { return };
    let redis = Redis::start_with(&program, &["--requirepass", PASSWORD.1]).unwrap();
    let hubs = shared_hubs().unwrap();
    let mut gateway = Gateway::start(&addresses(hubs), &[KEY, PASSWORD], |resources| {
        let image = named(resources, "EnvoyExtensionPolicy", "signalr")["spec"]["wasm"][0]["code"].clone();
        read("shared-limits.yaml").into_iter().for_each(|resource| apply(resources, resource));
        named(resources, "EnvoyExtensionPolicy", "signalr")["spec"]["wasm"][0]["code"] = image;
        settings(resources)["limits"]["connections"]["per_client"] = 2.into();
        let mut changed = parsed(bootstrap(resources));
        let address = "/static_resources/clusters/0/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address";
        changed.pointer_mut(address).unwrap()["socket_address"] =
            json!({ "address": "127.0.0.1", "port_value": redis.port() });
        *bootstrap(resources) = changed.to_string().into();
    });
    gateway.wait_serving();
    let ok = [("signalr_result", "ok")];
    wait_for("a call to Redis", || gateway.metric("signalr_gateway_shared_calls_total", &ok) > 0.0).unwrap();

    let cluster = parsed(bootstrap(&mut gateway.resources))["static_resources"]["clusters"][0].take();
    let other = Envoy::start(&EnvoyOptions {
        filter: Filter::With(settings(&mut gateway.resources).clone()),
        hosts: Hosts::of(hubs),
        environment: [KEY, PASSWORD].map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        patch: Some(Box::new(move |bootstrap| {
            add_cluster(bootstrap, cluster.clone());
            let variables = json!({ "host_env_keys": [KEY.0, PASSWORD.0] });
            let filter = testbed::envoy::signalr_filter(bootstrap);
            filter["typed_config"]["config"]["vm_config"]["environment_variables"] = variables;
        })),
        ..EnvoyOptions::default()
    })
    .unwrap();
    let _held = [connect(&gateway.url()).unwrap(), connect(&other.url()).unwrap()];
    for url in [gateway.url(), other.url()] {
        let refusal = connect(&url).err().expect("the limit of two holds for both together");
        assert!(refusal.text().contains("Connection limit reached"), "{refusal:?}");
    }
}

fn connect(gateway: &str) -> Result<Socket, Answer> {
    Client::of(gateway).connect()
}
