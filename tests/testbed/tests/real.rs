//! The testbed itself, with nothing of the filter in it: what it starts is real, and what a client
//! reports is true. The tests of the filter rest on this.
use std::time::Duration;

use testbed::clients::{
    BrowserClient, Cookies, NodeClient, Protocol, Task, Transport, run_browser, run_node, run_python, start_node,
};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, HealthStatus, Hosts};
use testbed::http;
use testbed::hub::{Hub, HubOptions, three_hubs};
use testbed::process::wait_for;
use testbed::tools::EnvoyVersion;

#[test]
fn clients_reach_a_single_hub_by_every_transport() {
    let hub = Hub::start(&HubOptions::default()).unwrap();
    for cookies in [Cookies::Kept, Cookies::Refused] {
        for transport in Transport::ALL {
            let client = NodeClient { task: Task::of(hub.url(), 6), transport, cookies, ..NodeClient::default() };
            let outcome = run_node(&client).unwrap();
            assert_eq!(outcome.connected, 6, "{transport:?}, {cookies:?}: {:?}", outcome.first_error());
            let attempt = &outcome.tries[0];
            assert_eq!(attempt.transport.as_deref(), Some(format!("{transport:?}").as_str()));
        }
    }
    for transport in [Transport::WebSockets, Transport::LongPolling] {
        let protocol = Protocol::MessagePack;
        let client = NodeClient { task: Task::of(hub.url(), 6), transport, protocol, ..NodeClient::default() };
        let outcome = run_node(&client).unwrap();
        assert_eq!(outcome.connected, 6, "{transport:?}, {protocol:?}: {:?}", outcome.first_error());
    }
    let outcome = run_python(&Task::of(hub.url(), 6)).unwrap();
    assert_eq!(outcome.connected, 6, "{:?}", outcome.first_error());
    let requests = hub.requests().unwrap();
    assert!(requests.iter().any(|request| request.method == "POST" && request.path == "/chat/negotiate"));
}

#[test]
fn a_page_reaches_a_hub_on_its_own_site_and_on_another() {
    // The site of a URL is its host, so `localhost` and `127.0.0.1` are two.
    let port = testbed::process::free_port().unwrap();
    let site = format!("http://localhost:{port}");
    let options = HubOptions { port: Some(port), cors_origins: vec![site.clone()], ..HubOptions::default() };
    let hub = Hub::start(&options).unwrap();
    for (name, page) in [("own", hub.url()), ("another", site)] {
        for transport in Transport::ALL {
            let client = BrowserClient { transport, ..BrowserClient::of(page.clone(), hub.url(), 3) };
            let outcome = run_browser(&client).unwrap();
            assert_eq!(outcome.connected, 3, "{name} site, {transport:?}: {:?}", outcome.first_error());
        }
    }
}

#[test]
fn without_affinity_clients_fail_and_say_which_pods_they_met() {
    let hubs = three_hubs().unwrap();
    let envoy = Envoy::start(&EnvoyOptions {
        filter: Filter::Absent,
        hosts: Hosts::of(&hubs),
        // One worker: round robin then sends the second request elsewhere without fail.
        concurrency: 1,
        ..EnvoyOptions::default()
    })
    .unwrap();
    // Some wait for a pod that does not know them, and would do so for as long as they may.
    let task = Task { parallel: 1, try_timeout: Duration::from_secs(10), ..Task::of(envoy.url(), 5) };
    let outcome = run_node(&NodeClient { task: task.clone(), ..NodeClient::default() }).unwrap();
    assert_eq!((outcome.tried, outcome.connected), (5, 0));
    assert!(outcome.tries.iter().all(|attempt| attempt.negotiated_pod.is_some()));
    assert_eq!(run_python(&task).unwrap().connected, 0);
    assert!(envoy.counter("cluster.hubs.upstream_rq_total").unwrap() > 0);
}

#[test]
fn hosts_change_while_envoy_runs_and_a_held_connection_is_seen() {
    let hubs = three_hubs().unwrap();
    // Only the host in question: with fewer than half of them healthy, Envoy would use them all.
    let only = |number: usize| vec![(hubs[number].address(), HealthStatus::Healthy)];
    for version in EnvoyVersion::ALL {
        let envoy = Envoy::start(&EnvoyOptions {
            version,
            filter: Filter::Absent,
            hosts: Hosts::Changing(only(0)),
            ..EnvoyOptions::default()
        })
        .unwrap();
        let held = start_node(NodeClient { task: Task::of(envoy.url(), 3), ..NodeClient::default() }).unwrap();
        held.wait_held().unwrap();
        assert_eq!(envoy.counter("http.signalr.downstream_cx_upgrades_active").unwrap(), 3);
        let outcome = held.release().unwrap();
        assert_eq!(outcome.connected, 3, "{:?}", outcome.first_error());
        assert!(outcome.tries.iter().all(|attempt| attempt.answered_pod.as_deref() == Some("hub-1")));

        envoy.set_endpoints(&only(1)).unwrap();
        let negotiate = format!("{}/chat/negotiate", envoy.url());
        let seen = || hubs[1].requests().unwrap().len();
        let before = seen();
        wait_for("the second hub", || http::post(&negotiate).is_ok() && seen() > before).unwrap();
    }
}

#[test]
fn a_refused_configuration_is_told() {
    let options = EnvoyOptions {
        filter: Filter::Absent,
        patch: Some(Box::new(|bootstrap| bootstrap["static_resources"]["listeners"][0]["nonsense"] = 1.into())),
        ..EnvoyOptions::default()
    };
    let log = Envoy::refuses(&options).unwrap();
    assert!(log.contains("nonsense"), "{log}");
}
