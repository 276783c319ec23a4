//! Tier 6: SignalR clients that neither Microsoft's JavaScript nor pysignalr share code with, through a real Envoy.
//!
//! What a client cannot do with a hub alone is not asked of it: see `testbed::clients::GoClient` and `run_signalrcore`. The
//! Java client sends the items of a stream by long polling in parallel requests, so that some come after the completion;
//! its invocations come in order.

use serde_json::json;
use testbed::clients::{
    Cookies, GoClient, JavaClient, JavaTransport, Outcome, PythonClient, run_go, run_java, run_signalrcore,
};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts};
use testbed::hub::{Hub, three_hubs};
use testbed::process::PATIENCE;
use testbed::tools::{self, Skips};

const CONNECTS: u32 = 40;

struct Client {
    name: &'static str,
    /// Whether this machine has what it needs; if not, the test of this name is reported as skipped.
    is_here: fn(test: &str) -> bool,
    /// All that it can do through a gateway, by name.
    run: fn(url: String) -> Vec<(String, Outcome)>,
}

const JAVA: Client =
    Client { name: "the Java client", is_here: |test| Skips::here().or_skip(test, tools::java()).is_some(), run: java };
const GO: Client =
    Client { name: "the Go client", is_here: |test| Skips::here().or_skip(test, tools::go()).is_some(), run: go };
const SIGNALRCORE: Client = Client { name: "signalrcore", is_here: |_| true, run: signalrcore };

fn java(url: String) -> Vec<(String, Outcome)> {
    let ways = [
        (JavaTransport::WebSockets, Cookies::Kept),
        (JavaTransport::WebSockets, Cookies::Refused),
        (JavaTransport::LongPolling, Cookies::Kept),
        (JavaTransport::LongPolling, Cookies::Refused),
    ];
    let run = |(transport, cookies)| {
        let client = JavaClient { url: url.clone(), transport, cookies, connects: CONNECTS, ..JavaClient::default() };
        (format!("Java, {transport:?}, cookies {cookies:?}"), run_java(&client).unwrap())
    };
    ways.map(run).into()
}

fn go(url: String) -> Vec<(String, Outcome)> {
    let run = |cookies| {
        let client = GoClient { url: url.clone(), cookies, connects: CONNECTS, ..GoClient::default() };
        (format!("Go, cookies {cookies:?}"), run_go(&client).unwrap())
    };
    [Cookies::Kept, Cookies::Refused].map(run).into()
}

fn signalrcore(url: String) -> Vec<(String, Outcome)> {
    let client = PythonClient { url, connects: CONNECTS, try_timeout: PATIENCE, ..PythonClient::default() };
    vec![("signalrcore".into(), run_signalrcore(&client).unwrap())]
}

impl Client {
    fn reaches_the_pod_that_negotiated(&self) {
        if !(self.is_here)(&format!("{} reaches the pod that negotiated", self.name)) {
            return;
        }
        let hubs = three_hubs().unwrap();
        let envoy = envoy(&hubs, Filter::With(json!({})));
        let outcomes = (self.run)(envoy.url());
        for (name, outcome) in &outcomes {
            assert_eq!(outcome.connected, CONNECTS, "{name}: {:?}", outcome.first_error());
        }
        let sealed = [("signalr_hub", "/chat"), ("signalr_result", "sealed")];
        let negotiations = envoy.metric("signalr_gateway_negotiations_total", &sealed).unwrap();
        let tried: u32 = outcomes.iter().map(|(_, outcome)| outcome.tried).sum();
        assert_eq!(negotiations, f64::from(tried), "{}", self.name);
    }
}

fn envoy(hubs: &[Hub], filter: Filter) -> Envoy {
    let hosts = Hosts::Fixed(hubs.iter().map(Hub::address).collect());
    Envoy::start(&EnvoyOptions { filter, hosts, ..EnvoyOptions::default() }).unwrap()
}

#[test]
fn the_java_client_reaches_the_pod_that_negotiated() {
    JAVA.reaches_the_pod_that_negotiated();
}

#[test]
fn the_go_client_reaches_the_pod_that_negotiated() {
    GO.reaches_the_pod_that_negotiated();
}

#[test]
fn signalrcore_reaches_the_pod_that_negotiated() {
    SIGNALRCORE.reaches_the_pod_that_negotiated();
}

/// The control: the tests above can fail.
#[test]
fn without_the_filter_most_connections_of_these_clients_fail() {
    let hubs = three_hubs().unwrap();
    let envoy = envoy(&hubs, Filter::Absent);
    for client in [JAVA, GO, SIGNALRCORE] {
        if !(client.is_here)(&format!("{} fails without the filter", client.name)) {
            continue;
        }
        for (name, outcome) in (client.run)(envoy.url()) {
            assert!(outcome.connected < outcome.tried, "{name}: all of {} connected", outcome.tried);
        }
    }
}
