//! Tier 6: hubs that are not ASP.NET Core's, and negotiates that an application answers itself, with clients that others wrote.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::clients::{
    Cookies, DotnetClient, GoClient, NodeClient, Outcome, Task, Transport, run_dotnet, run_go, run_node,
};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts, Patch, put_routes_first};
use testbed::hub::{start_go_hub, three_hubs_with};
use testbed::process::{PATIENCE, Process};
use testbed::tools::{self, EnvoyVersion, Skips};

const CONNECTS: u32 = 15;

/// Three pods with a Go hub, or nothing where Go is missing and `test` is reported as skipped.
fn three_go_hubs(test: &str) -> Option<Vec<(Process, String)>> {
    Skips::here().or_skip(test, tools::go())?;
    Some((1..4).map(|number| start_go_hub(&format!("go-hub-{number}")).unwrap()).collect())
}

fn before_go_hubs(hubs: &[(Process, String)], version: EnvoyVersion, filter: Filter) -> Envoy {
    let hosts = Hosts::Fixed(hubs.iter().map(|(_, address)| address.clone()).collect());
    Envoy::start(&EnvoyOptions { version, filter, hosts, ..EnvoyOptions::default() }).unwrap()
}

/// Both clients by WebSockets, without cookies. Each counts as connected when the hub has answered its invocations: to an unknown
/// id this hub answers 101, too, and then closes.
fn connect_to_go_hubs(envoy: &Envoy, try_timeout: Duration) -> [(&'static str, Outcome); 2] {
    let task = Task { try_timeout, ..Task::of(envoy.url(), CONNECTS) };
    let node = NodeClient { task: task.clone(), cookies: Cookies::Refused, ..NodeClient::default() };
    let go = GoClient { task, cookies: Cookies::Refused, ..GoClient::default() };
    [("JavaScript", run_node(&node).unwrap()), ("Go", run_go(&go).unwrap())]
}

/// They send no content type, which Go makes `text/plain`, and ids of padded base64.
#[test]
fn clients_of_go_hubs_reach_the_pod_that_negotiated() {
    let Some(hubs) = three_go_hubs("clients_of_go_hubs_reach_the_pod_that_negotiated") else { return };
    for version in EnvoyVersion::ALL {
        let envoy = before_go_hubs(&hubs, version, Filter::With(json!({})));
        for (name, outcome) in connect_to_go_hubs(&envoy, PATIENCE) {
            assert_eq!(outcome.connected, CONNECTS, "{version:?} {name}: {:?}", outcome.first_error());
        }
        let sealed = [("signalr_hub", "/chat"), ("signalr_result", "sealed")];
        let negotiations = envoy.metric("signalr_gateway_negotiations_total", &sealed).unwrap();
        assert_eq!(negotiations, f64::from(2 * CONNECTS), "{version:?}");
    }
}

/// The control: the test above can fail.
#[test]
fn without_the_filter_most_clients_of_go_hubs_fail() {
    let Some(hubs) = three_go_hubs("without_the_filter_most_clients_of_go_hubs_fail") else { return };
    let envoy = before_go_hubs(&hubs, EnvoyVersion::Newest, Filter::Absent);
    // Some wait for a pod that does not know them.
    for (name, outcome) in connect_to_go_hubs(&envoy, Duration::from_secs(10)) {
        assert!(outcome.connected < outcome.tried, "{name}: all of {} connected", outcome.tried);
    }
}

/// By the hub's path: what its negotiates have for a content type. They are real hubs', which Envoy changes in this before the
/// filter sees them.
const CONTENT_TYPES: [(&str, Option<&str>); 4] = [
    ("/plain", Some("text/plain; charset=utf-8")),
    ("/json", Some("text/json")),
    ("/bytes", Some("application/octet-stream")),
    ("/none", None),
];

fn content_types() -> Patch {
    Box::new(|bootstrap| {
        let routes = CONTENT_TYPES.map(|(hub, content_type)| {
            let mut route = json!({
                "match": { "path": format!("{hub}/negotiate") },
                "route": { "cluster": "hubs", "timeout": "0s" },
            });
            match content_type {
                Some(value) => {
                    let header = json!({ "key": "content-type", "value": value });
                    route["response_headers_to_add"] =
                        json!([{ "header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" }]);
                }
                None => route["response_headers_to_remove"] = json!(["content-type"]),
            }
            route
        });
        put_routes_first(bootstrap, routes.map(Value::from).into());
    })
}

#[test]
fn a_negotiates_answer_is_sealed_whatever_its_content_type() {
    let test = "a_negotiates_answer_is_sealed_whatever_its_content_type, with the .NET client";
    let has_dotnet_10 = Skips::here().or_skip(test, tools::dotnet_at_least(10)).is_some();
    let paths: Vec<_> = CONTENT_TYPES.map(|(hub, _)| hub.to_owned()).into();
    let hubs = three_hubs_with(|hubs| hubs.iter_mut().for_each(|hub| hub.hubs.clone_from(&paths))).unwrap();
    let hosts = Hosts::of(&hubs);
    let options = EnvoyOptions { hosts, patch: Some(content_types()), ..EnvoyOptions::default() };
    let envoy = Envoy::start(&options).unwrap();
    for (hub, content_type) in CONTENT_TYPES {
        let mut tried = 0;
        for transport in [Transport::WebSockets, Transport::LongPolling] {
            let client = NodeClient {
                task: Task { hub: hub.to_owned(), ..Task::of(envoy.url(), CONNECTS) },
                transport,
                cookies: Cookies::Refused,
                ..NodeClient::default()
            };
            let mut outcomes = vec![("JavaScript", run_node(&client).unwrap())];
            if has_dotnet_10 {
                let client = DotnetClient { common: client, ..DotnetClient::default() };
                outcomes.push((".NET", run_dotnet(&client).unwrap()));
            }
            for (name, outcome) in outcomes {
                let failed = outcome.first_error();
                assert_eq!(outcome.connected, CONNECTS, "{content_type:?} {name} {transport:?}: {failed:?}");
                tried += outcome.tried;
            }
        }
        let sealed = [("signalr_hub", hub), ("signalr_result", "sealed")];
        let negotiations = envoy.metric("signalr_gateway_negotiations_total", &sealed).unwrap();
        assert_eq!(negotiations, f64::from(tried), "{content_type:?}");
    }
}
