//! Changing the bootstrap that users are given into one for a test.
//!
//! What is changed for every test is found by name or type, so that the file can be rearranged; a [`Patch`] may go by position.
//! What a change looks for and does not find is an error: a test would else run something else
//! than it says.
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{EnvoyOptions, Filter, Hosts, HubTimeouts};
use crate::docs::samples;
use crate::process::PATIENCE;

/// A further change to the bootstrap.
pub type Patch = Box<dyn Fn(&mut Value) + Send + Sync>;

/// The connection manager of the listener for clients. For a [`Patch`], which returns no error: it panics without one.
pub fn connection_manager(bootstrap: &mut Value) -> &mut Value {
    manager_of(&mut bootstrap["static_resources"]["listeners"][0])
}

/// The filters of HTTP in their order.
pub fn http_filters(bootstrap: &mut Value) -> &mut Vec<Value> {
    filters_of(connection_manager(bootstrap))
}

/// Ours among them.
pub fn signalr_filter(bootstrap: &mut Value) -> &mut Value {
    ours_of(http_filters(bootstrap))
}

/// Puts the filter of another bootstrap in the place of ours. Addresses and all else stay.
pub fn filter_of(mut other: Value) -> Patch {
    let filter = signalr_filter(&mut other).clone();
    Box::new(move |bootstrap| *signalr_filter(bootstrap) = filter.clone())
}

/// Loads another module, such as [`super::module_that_traps`].
pub fn load_module(bootstrap: &mut Value, module: &Path) {
    signalr_filter(bootstrap)["typed_config"]["config"]["vm_config"]["code"] =
        json!({ "local": { "filename": module } });
}

/// Gives each worker thread as many connections as the others.
pub fn balance_exactly(bootstrap: &mut Value) {
    bootstrap["static_resources"]["listeners"][0]["connection_balance_config"] = json!({ "exact_balance": {} });
}

/// Our filter in a listener that is no part of a bootstrap.
pub(super) fn signalr_filter_of_listener(listener: &mut Value) -> &mut Value {
    ours_of(filters_of(manager_of(listener)))
}

fn manager_of(listener: &mut Value) -> &mut Value {
    listener.pointer_mut("/filter_chains/0/filters/0/typed_config").expect("envoy.yaml has a connection manager")
}

fn filters_of(manager: &mut Value) -> &mut Vec<Value> {
    manager["http_filters"].as_array_mut().expect("envoy.yaml has filters")
}

fn ours_of(filters: &mut [Value]) -> &mut Value {
    filters.iter_mut().find(|filter| filter["name"] == "signalr").expect("envoy.yaml has our filter")
}

/// Routes before all others, in the only virtual host.
pub fn put_routes_first(bootstrap: &mut Value, routes: Vec<Value>) {
    let all = connection_manager(bootstrap).pointer_mut("/route_config/virtual_hosts/0/routes");
    let all = all.and_then(Value::as_array_mut).expect("envoy.yaml has routes");
    all.splice(..0, routes);
}

/// One cluster more.
pub fn add_cluster(bootstrap: &mut Value, cluster: Value) {
    let all = bootstrap.pointer_mut("/static_resources/clusters").and_then(Value::as_array_mut);
    all.expect("envoy.yaml has clusters").push(cluster);
}

/// Turns the filters off except on the routes of the hub `/chat`, as `envoy/README.md` says.
pub fn restrict_to_hub_routes(bootstrap: &mut Value) {
    let samples = samples("envoy/README.md", Some("## On the routes of hubs alone"), "yaml envoy");
    let [filters, routes] = samples.as_slice() else { panic!("the chapter has two samples") };
    let elements = |sample: &Value| sample.as_array().expect("a list").clone();
    for change in elements(filters) {
        let filter = http_filters(bootstrap).iter_mut().find(|filter| filter["name"] == change["name"]);
        filter.expect("envoy.yaml has the filter")["disabled"] = change["disabled"].clone();
    }
    let present = connection_manager(bootstrap).pointer("/route_config/virtual_hosts/0/routes");
    let present = present.and_then(Value::as_array).expect("envoy.yaml has routes");
    let is_for_negotiates = |route: &Value| !route["match"]["safe_regex"].is_null();
    let copies = elements(routes).into_iter().map(|change| {
        let same_use = |route: &&Value| is_for_negotiates(route) == is_for_negotiates(&change);
        let mut copy =
            present.iter().rfind(same_use).expect("envoy.yaml has routes for negotiates and for all else").clone();
        for (name, value) in change.as_object().expect("a route") {
            copy[name] = value.clone();
        }
        copy
    });
    let copies = copies.collect();
    put_routes_first(bootstrap, copies);
}

/// For hubs that answer none: without health checks Envoy takes all hubs for healthy.
pub fn remove_health_checks(bootstrap: &mut Value) {
    let cluster = bootstrap["static_resources"]["clusters"][0].as_object_mut();
    cluster.and_then(|cluster| cluster.remove("health_checks")).expect("envoy.yaml has health checks");
}

/// What [`HubTimeouts::Long`] does to the route for negotiates, for one that a [`Patch`] brings.
pub fn lengthen_tries(route: &mut Value) {
    route["route"]["timeout"] = long();
    route["route"]["retry_policy"]["per_try_timeout"] = long();
}

fn long() -> Value {
    format!("{}s", PATIENCE.as_secs()).into()
}

/// A route on which Envoy itself answers a negotiate, at any path that begins so.
pub fn negotiate_route(prefix: &str) -> Value {
    let answer = r#"{"connectionId":"abc","connectionToken":"def","negotiateVersion":1,"availableTransports":[]}"#;
    let json = json!({ "key": "content-type", "value": "application/json" });
    json!({
        "match": { "prefix": prefix },
        "direct_response": { "status": 200, "body": { "inline_string": answer } },
        "response_headers_to_add": [{ "header": json, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" }],
    })
}

/// What the endpoint discovery service says of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthStatus {
    /// It serves.
    Healthy,
    /// It serves, but not well.
    Degraded,
    /// It is going away and keeps what it has.
    Draining,
    /// It does not serve.
    Unhealthy,
}

impl HealthStatus {
    fn name(self) -> &'static str {
        match self {
            Self::Healthy => "HEALTHY",
            Self::Degraded => "DEGRADED",
            Self::Draining => "DRAINING",
            Self::Unhealthy => "UNHEALTHY",
        }
    }
}

const LISTENERS: &str = "/static_resources/listeners";
const CLUSTERS: &str = "/static_resources/clusters";

/// What this Envoy got on this machine.
pub(super) struct Places {
    pub(super) port: u16,
    pub(super) admin: u16,
    pub(super) metrics: u16,
    pub(super) module: Option<PathBuf>,
    pub(super) folder: PathBuf,
}

impl Places {
    /// The file that holds changing endpoints.
    pub(super) fn endpoints(&self) -> PathBuf {
        self.folder.join("endpoints/hubs.json")
    }
}

/// The bootstrap in `text`, changed as `options` say.
pub(super) fn patched(text: &str, options: &EnvoyOptions, places: &Places) -> Result<Value> {
    let mut bootstrap: Value = serde_yaml_ng::from_str(text).context("envoy.yaml is no YAML")?;
    bootstrap["admin"]["address"] = socket_address("127.0.0.1", places.admin);
    set_addresses(named(&mut bootstrap, CLUSTERS, "admin")?, &[format!("127.0.0.1:{}", places.admin)])?;
    named(&mut bootstrap, LISTENERS, "metrics")?["address"] = socket_address("127.0.0.1", places.metrics);
    set_hosts(named(&mut bootstrap, CLUSTERS, "hubs")?, &options.hosts, places)?;
    if options.hub_timeouts == HubTimeouts::Long {
        lengthen_timeouts(&mut bootstrap)?;
    }
    let listener = named(&mut bootstrap, LISTENERS, "signalr")?;
    listener["address"] = socket_address("127.0.0.1", places.port);
    let chains = for_each_filter_chain(listener, &mut |filters| match &options.filter {
        Filter::With(settings) => configure(filters, settings, places),
        Filter::Absent => {
            filters.retain(|filter| !is_type(filter, "Wasm") && !is_type(filter, "StatefulSession"));
            Ok(())
        }
    })?;
    ensure!(chains > 0, "envoy.yaml has no `http_filters`");
    if let Some(patch) = &options.patch {
        patch(&mut bootstrap);
    }
    Ok(bootstrap)
}

/// Writes endpoints where Envoy watches for them. It sees a file only when one is moved there.
pub(super) fn write_endpoints(file: &Path, hosts: &[(String, HealthStatus)]) -> Result<()> {
    let endpoints = hosts.iter().map(|(address, health)| endpoint(address, Some(*health)));
    let assignment = json!({
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": "hubs",
        "endpoints": [{ "lb_endpoints": endpoints.collect::<Result<Vec<_>>>()? }],
    });
    let folder = file.parent().context("a file has a folder")?;
    fs::create_dir_all(folder)?;
    let fresh = folder.with_extension("next");
    fs::write(&fresh, serde_json::to_vec(&json!({ "resources": [assignment] }))?)?;
    Ok(fs::rename(fresh, file)?)
}

fn set_hosts(cluster: &mut Value, hosts: &Hosts, places: &Places) -> Result<()> {
    match hosts {
        Hosts::Fixed(addresses) => {
            cluster["type"] = "STATIC".into();
            set_addresses(cluster, addresses)?;
        }
        Hosts::Changing(first) => {
            let file = places.endpoints();
            write_endpoints(&file, first)?;
            cluster["type"] = "EDS".into();
            cluster["eds_cluster_config"] = json!({ "eds_config": {
                "resource_api_version": "V3",
                "path_config_source": { "path": file, "watched_directory": { "path": file.parent() } },
            }});
            cluster.as_object_mut().context("a cluster is a map")?.remove("load_assignment");
        }
    }
    Ok(())
}

fn set_addresses(cluster: &mut Value, addresses: &[String]) -> Result<()> {
    let endpoints = addresses.iter().map(|address| endpoint(address, None)).collect::<Result<Vec<_>>>()?;
    cluster["load_assignment"]["endpoints"] = json!([{ "lb_endpoints": endpoints }]);
    Ok(())
}

/// Of the health check, of connecting and of the route for negotiates. An Envoy that waits for a core takes a connection that is
/// there for one that was not made in time, and asks another pod.
fn lengthen_timeouts(bootstrap: &mut Value) -> Result<()> {
    for (place, missing) in [
        ("/health_checks/0/timeout", "envoy.yaml has no health check"),
        ("/connect_timeout", "envoy.yaml has no connect_timeout"),
    ] {
        *named(bootstrap, CLUSTERS, "hubs")?.pointer_mut(place).context(missing)? = long();
    }
    let routes =
        manager_of(named(bootstrap, LISTENERS, "signalr")?).pointer_mut("/route_config/virtual_hosts/0/routes");
    let mut routes = routes.and_then(Value::as_array_mut).context("envoy.yaml has no routes")?.iter_mut();
    let negotiate = routes.find(|route| route.pointer("/route/retry_policy/per_try_timeout").is_some());
    lengthen_tries(negotiate.context("envoy.yaml has no route for negotiates")?);
    Ok(())
}

fn configure(filters: &mut [Value], settings: &Value, places: &Places) -> Result<()> {
    let filter = filters.iter_mut().find(|filter| is_type(filter, "Wasm")).context("envoy.yaml has no wasm filter")?;
    let config = &mut filter["typed_config"]["config"];
    config["vm_config"]["code"] = json!({ "local": { "filename": places.module } });
    // A Struct would reach the filter as protobuf.
    let value = settings.to_string();
    config["configuration"] = json!({ "@type": "type.googleapis.com/google.protobuf.StringValue", "value": value });
    Ok(())
}

/// Calls `change` with each list of HTTP filters, and returns how many there were.
fn for_each_filter_chain(value: &mut Value, change: &mut impl FnMut(&mut Vec<Value>) -> Result<()>) -> Result<usize> {
    let mut count = 0;
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::Array(filters) if name == "http_filters" => {
                        change(filters)?;
                        count += 1;
                    }
                    other => count += for_each_filter_chain(other, change)?,
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                count += for_each_filter_chain(item, change)?;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    Ok(count)
}

fn is_type(filter: &Value, message: &str) -> bool {
    let name = filter["typed_config"]["@type"].as_str().unwrap_or_default();
    name.rsplit('.').next() == Some(message)
}

/// The element of the list at `pointer` that has this name.
fn named<'a>(bootstrap: &'a mut Value, pointer: &str, name: &str) -> Result<&'a mut Value> {
    let list = bootstrap.pointer_mut(pointer).and_then(Value::as_array_mut);
    let found = list.and_then(|list| list.iter_mut().find(|element| element["name"] == name));
    found.with_context(|| format!("envoy.yaml has no `{name}` in {pointer}"))
}

fn endpoint(address: &str, health: Option<HealthStatus>) -> Result<Value> {
    let (host, port) = address.rsplit_once(':').with_context(|| format!("no port: {address}"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut endpoint = json!({ "endpoint": { "address": socket_address(host, port.parse()?) } });
    if let Some(health) = health {
        endpoint["health_status"] = health.name().into();
    }
    Ok(endpoint)
}

fn socket_address(host: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": host, "port_value": port } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    fn bootstrap(options: &EnvoyOptions) -> Value {
        let text = fs::read_to_string(workspace().join("envoy/envoy.yaml")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (module, folder) = (Some("/m.wasm".into()), folder.path().into());
        let places = Places { port: 1, admin: 2, metrics: 3, module, folder };
        patched(&text, options, &places).unwrap()
    }

    fn types(bootstrap: &Value) -> Vec<String> {
        let mut found = Vec::new();
        let mut bootstrap = bootstrap.clone();
        let listener = named(&mut bootstrap, LISTENERS, "signalr").unwrap();
        for_each_filter_chain(listener, &mut |filters| {
            let name = |filter: &Value| filter["typed_config"]["@type"].as_str().unwrap().to_owned();
            found.extend(filters.iter().map(name));
            Ok(())
        })
        .unwrap();
        found.iter().map(|name| name.rsplit('.').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn ports_module_settings_and_hosts_are_put_in() {
        let patched = bootstrap(&EnvoyOptions {
            filter: Filter::With(json!({ "explain": true })),
            hosts: Hosts::Fixed(vec!["127.0.0.1:7".into(), "[::1]:8".into()]),
            ..EnvoyOptions::default()
        });
        let text = patched.to_string();
        for (name, expected) in [
            ("listener", r#""socket_address":{"address":"127.0.0.1","port_value":1}"#),
            ("admin", r#""admin":{"address":{"socket_address":{"address":"127.0.0.1","port_value":2}}"#),
            ("listener of metrics", r#""socket_address":{"address":"127.0.0.1","port_value":3}"#),
            ("where it leads", r#""endpoint":{"address":{"socket_address":{"address":"127.0.0.1","port_value":2}}}"#),
            ("module", r#""local":{"filename":"/m.wasm"}"#),
            ("settings", r#""value":"{\"explain\":true}""#),
            ("host", r#""socket_address":{"address":"127.0.0.1","port_value":7}"#),
            ("IPv6 host", r#""socket_address":{"address":"::1","port_value":8}"#),
        ] {
            assert!(text.contains(expected), "{name}: {text}");
        }
        assert_eq!(types(&patched), ["Wasm", "StatefulSession", "Router"]);
    }

    #[test]
    fn time_outs_are_long_unless_they_are_the_point() {
        for (hub_timeouts, expected) in
            [(HubTimeouts::Long, ["180s", "180s", "180s", "180s"]), (HubTimeouts::Shipped, ["3s", "1s", "15s", "3s"])]
        {
            let mut patched = bootstrap(&EnvoyOptions { hub_timeouts, ..EnvoyOptions::default() });
            let cluster = named(&mut patched, CLUSTERS, "hubs").unwrap().clone();
            let routes = &connection_manager(&mut patched)["route_config"]["virtual_hosts"][0]["routes"];
            let routes: Vec<_> = routes.as_array().unwrap().iter().map(|route| &route["route"]).collect();
            let tried = |route: &&&Value| !route["retry_policy"]["per_try_timeout"].is_null();
            let negotiate = routes.iter().find(tried).unwrap();
            let (check, connect) = (&cluster["health_checks"][0]["timeout"], &cluster["connect_timeout"]);
            let found = [check, connect, &negotiate["timeout"], &negotiate["retry_policy"]["per_try_timeout"]];
            assert_eq!(found, expected, "{hub_timeouts:?}");
            assert_eq!(routes.last().unwrap()["timeout"], "0s", "{hub_timeouts:?}");
        }
    }

    #[test]
    fn without_the_filter_nothing_steers() {
        let patched = bootstrap(&EnvoyOptions { filter: Filter::Absent, ..EnvoyOptions::default() });
        assert_eq!(types(&patched), ["Router"]);
    }

    #[test]
    fn changing_hosts_are_watched_for() {
        let patched = bootstrap(&EnvoyOptions { hosts: Hosts::Changing(Vec::new()), ..EnvoyOptions::default() });
        let mut patched = patched;
        let cluster = named(&mut patched, CLUSTERS, "hubs").unwrap();
        assert_eq!(cluster["type"], "EDS");
        assert!(cluster.get("load_assignment").is_none());
    }

    #[test]
    fn what_is_not_there_is_named() {
        let places = Places { port: 1, admin: 2, metrics: 3, module: None, folder: PathBuf::new() };
        let error = patched("static_resources: { clusters: [] }", &EnvoyOptions::default(), &places).unwrap_err();
        assert!(error.to_string().contains("`admin` in /static_resources/clusters"), "{error}");
    }
}
