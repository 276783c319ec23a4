//! The second cluster of `envoy/README.md`, to which the marked requests go.

use serde_json::{Value, json};
use testbed::docs::samples;
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts, Patch, connection_manager, lengthen_tries, put_routes_first};
use testbed::tools::EnvoyVersion;
use testbed::workspace;

/// The name of the cluster that knows of no draining pod.
pub(crate) const NAME: &str = "hubs-not-draining";

/// An Envoy that is set up as the section says.
pub(crate) fn gateway(version: EnvoyVersion, hosts: Hosts) -> Envoy {
    let [settings, host, cluster] = settings_host_and_cluster();
    assert_eq!(cluster, json!([second(&cluster_of_envoy_yaml())]), "the cluster of the section");
    let patch: Patch = Box::new(move |bootstrap| {
        let virtual_host = &mut connection_manager(bootstrap)["route_config"]["virtual_hosts"][0];
        virtual_host["request_headers_to_remove"] = host["request_headers_to_remove"].clone();
        let mut routes = host["routes"].as_array().unwrap().clone();
        lengthen_tries(&mut routes[0]);
        put_routes_first(bootstrap, routes);
        let clusters = bootstrap["static_resources"]["clusters"].as_array_mut().unwrap();
        let mut second = second(&clusters[0]);
        second["eds_cluster_config"]["service_name"] = "hubs".into();
        clusters.push(second);
    });
    let settings = serde_json::from_str(settings["value"].as_str().unwrap()).unwrap();
    let filter = Filter::With(settings);
    let envoy = Envoy::start(&EnvoyOptions { version, filter, hosts, patch: Some(patch), ..EnvoyOptions::default() });
    envoy.unwrap()
}

/// The samples of the section: the settings, what the virtual host gets, and the cluster.
fn settings_host_and_cluster() -> [Value; 3] {
    samples("envoy/README.md", Some("### With the client cookie"), "yaml envoy").try_into().unwrap()
}

fn cluster_of_envoy_yaml() -> Value {
    let text = std::fs::read_to_string(workspace().join("envoy/envoy.yaml")).unwrap();
    let mut bootstrap: Value = serde_yaml_ng::from_str(&text).unwrap();
    bootstrap["static_resources"]["clusters"][0].take()
}

/// The same cluster under another name, and without leave to go to a draining pod.
fn second(cluster: &Value) -> Value {
    let mut second = cluster.clone();
    second["name"] = NAME.into();
    second.as_object_mut().unwrap().remove("common_lb_config").expect("envoy.yaml has override_host_status");
    second
}
