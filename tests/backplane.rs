//! Tier 6: pods that pass messages on through a real Redis, Microsoft's backplane for SignalR. It moves messages, and a connection
//! still lives on one pod.

use std::collections::BTreeMap;

use serde_json::json;
use testbed::clients::{NodeClient, Task, Transport, run_node};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts};
use testbed::hub::{Hub, three_hubs_with};
use testbed::process::wait_for;
use testbed::raw::Client;
use testbed::redis::Redis;
use testbed::tools::{self, Skips};

#[test]
fn with_a_backplane_messages_reach_every_pod_and_connections_stay_on_theirs() {
    let test = "with_a_backplane_messages_reach_every_pod_and_connections_stay_on_theirs";
    let skips = Skips::here();
    let Some(program) = skips.or_skip(test, tools::dotnet_at_least(10).and_then(|_| tools::redis())) else { return };
    let redis = Redis::start(&program).unwrap();
    let hubs = three_hubs_with(|options| {
        for options in options {
            options.peers.clear();
            options.environment.push(("REDIS".into(), redis.address().into()));
        }
    });
    let hubs = hubs.unwrap();
    let hosts = || Hosts::Fixed(hubs.iter().map(Hub::address).collect());
    let [with, without] = [Filter::With(json!({})), Filter::Absent]
        .map(|filter| Envoy::start(&EnvoyOptions { filter, hosts: hosts(), ..EnvoyOptions::default() }).unwrap());

    let client = Client::of(&with.url());
    let mut sessions = BTreeMap::new();
    wait_for("a connection on each pod", || {
        let session = client.session(&client.negotiate().unwrap()).unwrap();
        let pod = session.ask("WhoAmI", &[])["pod"].as_str().unwrap().to_owned();
        sessions.entry(pod).or_insert(session);
        sessions.len() == hubs.len()
    })
    .unwrap();
    let speaker = sessions.values().next().unwrap();
    speaker.call("Send", &["ann", "hello"]);
    for (pod, session) in &sessions {
        wait_for(&format!("the message on {pod}"), || session.poll().text().contains("hello")).unwrap();
    }

    let connected = |gateway: &Envoy, transport| {
        let client = NodeClient { task: Task::of(gateway.url(), 20), transport, ..NodeClient::default() };
        run_node(&client).unwrap().connected
    };
    for transport in Transport::ALL {
        assert_eq!(connected(&with, transport), 20, "{transport:?} with the filter");
    }
    assert!(connected(&without, Transport::LongPolling) < 20, "a backplane alone does not keep connections together");
}
