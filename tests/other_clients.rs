//! Tier 6: clients for SignalR in Java, Go and Python that share no code with those of `tests/clients.rs`, through a real Envoy.
//!
//! What a client cannot do with a hub alone is not asked of it: see `testbed::clients::GoClient` and `run_signalrcore`. By long
//! polling the Java client sends the items of a stream in parallel requests, so that some come after the completion, with a hub
//! alone, too; its invocations come in order.

use std::time::Duration;

use serde_json::json;
use testbed::clients::{Cookies, GoClient, JavaClient, Outcome, Task, Transport, run_go, run_java, run_signalrcore};
use testbed::envoy::{Envoy, Filter};
use testbed::hub::three_hubs;
use testbed::tools::{self, Skips};

const CONNECTS: u32 = 40;

struct Client {
    name: &'static str,
    /// Whether this machine has what it needs; if not, the test of this name is reported as skipped.
    is_here: fn(test: &str) -> bool,
    /// Does the task in all the ways that it has, and names them.
    run: fn(&Task) -> Vec<(String, Outcome)>,
}

const JAVA: Client =
    Client { name: "the Java client", is_here: |test| Skips::here().or_skip(test, tools::java()).is_some(), run: java };
const GO: Client =
    Client { name: "the Go client", is_here: |test| Skips::here().or_skip(test, tools::go()).is_some(), run: go };
const SIGNALRCORE: Client = Client { name: "signalrcore", is_here: |_| true, run: signalrcore };

fn java(task: &Task) -> Vec<(String, Outcome)> {
    let ways = [
        (Transport::WebSockets, Cookies::Kept),
        (Transport::WebSockets, Cookies::Refused),
        (Transport::LongPolling, Cookies::Kept),
        (Transport::LongPolling, Cookies::Refused),
    ];
    let run = |(transport, cookies)| {
        let client = JavaClient { task: task.clone(), transport, cookies };
        (format!("Java, {transport:?}, cookies {cookies:?}"), run_java(&client).unwrap())
    };
    ways.map(run).into()
}

fn go(task: &Task) -> Vec<(String, Outcome)> {
    let ways = [
        (Transport::WebSockets, 1, Cookies::Kept),
        (Transport::WebSockets, 1, Cookies::Refused),
        (Transport::WebSockets, 0, Cookies::Refused),
        (Transport::ServerSentEvents, 0, Cookies::Refused),
    ];
    let run = |(transport, negotiate_version, cookies)| {
        let client = GoClient { task: task.clone(), transport, negotiate_version, cookies };
        let name = format!("Go, {transport:?}, version {negotiate_version}, cookies {cookies:?}");
        (name, run_go(&client).unwrap())
    };
    ways.map(run).into()
}

fn signalrcore(task: &Task) -> Vec<(String, Outcome)> {
    vec![("signalrcore".into(), run_signalrcore(task).unwrap())]
}

impl Client {
    fn reaches_the_pod_that_negotiated(&self) {
        if !(self.is_here)(&format!("{} reaches the pod that negotiated", self.name)) {
            return;
        }
        let hubs = three_hubs().unwrap();
        let envoy = Envoy::before(&hubs, Filter::With(json!({}))).unwrap();
        let outcomes = (self.run)(&Task::of(envoy.url(), CONNECTS));
        for (name, outcome) in &outcomes {
            assert_eq!(outcome.connected, CONNECTS, "{name}: {:?}", outcome.first_error());
        }
        let sealed = [("signalr_hub", "/chat"), ("signalr_result", "sealed")];
        let negotiations = envoy.metric("signalr_gateway_negotiations_total", &sealed).unwrap();
        let tried: u32 = outcomes.iter().map(|(_, outcome)| outcome.tried).sum();
        assert_eq!(negotiations, f64::from(tried), "{}", self.name);
    }
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

/// The control: the tests above can fail. By long polling and events some clients do not notice that the hub refused them, and
/// wait until their time is over: so it is short here, and the hubs' refusals are counted.
#[test]
fn without_the_filter_most_connections_of_these_clients_fail() {
    let hubs = three_hubs().unwrap();
    let envoy = Envoy::before(&hubs, Filter::Absent).unwrap();
    let task = Task { try_timeout: Duration::from_secs(10), ..Task::of(envoy.url(), 10) };
    for client in [JAVA, GO, SIGNALRCORE] {
        if !(client.is_here)(&format!("{} fails without the filter", client.name)) {
            continue;
        }
        let refused = || envoy.counter("cluster.hubs.upstream_rq_404").unwrap();
        let before = refused();
        for (name, outcome) in (client.run)(&task) {
            assert!(outcome.connected < outcome.tried, "{name}: all of {} connected", outcome.tried);
        }
        assert!(refused() > before, "{}: no hub refused a connection", client.name);
    }
}
