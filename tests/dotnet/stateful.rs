//! Stateful reconnect with real hubs: a connection outlives its TCP connections, and loses nothing.

use std::collections::BTreeSet;
use std::thread;

use serde_json::json;
use testbed::clients::{NodeClient, Outcome, Protocol, Task, run_dotnet, run_node};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts, add_cluster};
use testbed::hub::{Hub, three_hubs};
use testbed::process::wait_for;
use testbed::redis::{Redis, cluster};
use testbed::tools::{self, Skips};

use crate::gate::Gate;
use crate::kit::{all_connected, dotnet, has_dotnet_10, talkative};
use crate::wire::{Way, Wire};

type Run = fn(NodeClient) -> Outcome;

const CLIENTS: [(&str, Run); 2] =
    [(".NET", |client| run_dotnet(&dotnet(client)).unwrap()), ("JavaScript", |client| run_node(&client).unwrap())];

/// How often each connection is cut.
const CUTS: u32 = 6;

/// Runs one client over a wire that is cut at the beginning of each round; in turn, what comes down is lost, and what goes up.
/// Each TCP connection goes to the next of the gateways. Calls `act` when that is over and the connection still open.
fn cut(run: Run, client: NodeClient, gateways: &[&Envoy], act: impl FnOnce()) -> Outcome {
    let urls: Vec<_> = gateways.iter().map(|envoy| envoy.url()).collect();
    let (wire, gate) = (Wire::lay(&urls), Gate::open());
    let task = Task { parallel: 1, ..Task::of(wire.url(), 1) };
    let client = NodeClient { task, gate: Some(gate.url()), rounds: CUTS, ..client };
    let client = thread::spawn(move || run(client));
    for way in [Way::Down, Way::Up].into_iter().cycle().take(CUTS as usize) {
        gate.pass(&client, || {
            // Nobody says anything now but acknowledgements. When a connection breaks twice between two of them, client and hub
            // wait for each other without end, with a gateway or without.
            wire.listen();
            wire.lose(way);
        });
    }
    gate.pass(&client, act);
    client.join().unwrap()
}

/// The pod and the id of each WebSocket that reached a hub.
fn websockets(hubs: &[Hub]) -> Vec<(String, String)> {
    let of = |hub: &Hub| {
        let requests = hub.requests().unwrap().into_iter().filter(|request| request.headers.contains_key("upgrade"));
        requests.map(|request| (hub.pod().to_owned(), request.query)).collect::<Vec<_>>()
    };
    hubs.iter().flat_map(of).collect()
}

/// Waits until gateways have so many open connections, all together.
fn wait_for_active(name: &str, gateways: &[&Envoy], count: f64) {
    let active = |envoy: &&Envoy| envoy.metric("signalr_gateway_connections_active", &[]).unwrap();
    let all = || gateways.iter().map(active).sum::<f64>();
    wait_for(&format!("{name}: {count} active connections"), || all() == count).unwrap();
}

/// Whether each WebSocket reached the same pod with the same id, and no gateway rejected one.
fn assert_resumed(name: &str, gateways: &[&Envoy], hubs: &[Hub]) {
    let websockets = websockets(hubs);
    assert_eq!(websockets.len(), CUTS as usize + 1, "{name}: {websockets:?}");
    assert_eq!(websockets.iter().collect::<BTreeSet<_>>().len(), 1, "{name}: {websockets:?}");
    for envoy in gateways {
        assert_eq!(envoy.metric("signalr_gateway_rejected_total", &[]).unwrap(), 0.0, "{name}");
    }
}

#[test]
fn a_connection_that_is_cut_again_and_again_resumes_on_its_pod_and_loses_nothing() {
    if !has_dotnet_10("a_connection_that_is_cut_again_and_again_resumes_on_its_pod_and_loses_nothing") {
        return;
    }
    for (name, run) in CLIENTS {
        for protocol in [Protocol::Json, Protocol::MessagePack] {
            let name = format!("{name} {protocol:?}");
            let hubs = three_hubs().unwrap();
            let only_one = json!({"limits": {"connections": {"per_client": 1, "per_hub": 1, "total": 1}}});
            let envoy = Envoy::before(&hubs, Filter::With(only_one)).unwrap();
            let client = NodeClient { protocol, stateful_reconnect: true, ..talkative(&envoy) };
            all_connected(&name, &cut(run, client, &[&envoy], || wait_for_active(&name, &[&envoy], 1.0)));
            wait_for_active(&name, &[&envoy], 0.0);
            assert_resumed(&name, &[&envoy], &hubs);
        }
    }
}

#[test]
fn a_connection_that_resumes_through_another_gateway_each_time_is_one_for_all_of_them() {
    let test = "a_connection_that_resumes_through_another_gateway_each_time_is_one_for_all_of_them";
    if !has_dotnet_10(test) {
        return;
    }
    let Some(program) = Skips::here().or_skip(test, tools::redis()) else { return };
    for (name, run) in CLIENTS {
        let (redis, hubs) = (Redis::start(&program).unwrap(), three_hubs().unwrap());
        let gateways = [(); 2].map(|()| sharing(&redis, &hubs));
        let gateways = gateways.each_ref();
        let client = NodeClient { stateful_reconnect: true, ..talkative(gateways[0]) };
        all_connected(name, &cut(run, client, &gateways, || wait_for_active(name, &gateways, 1.0)));
        wait_for_active(name, &gateways, 0.0);
        assert_resumed(name, &gateways, &hubs);
        for envoy in gateways {
            let resumed = envoy.metric("signalr_gateway_connections_resumed_total", &[]).unwrap();
            assert!(resumed > 0.0, "{name}: both gateways are used");
        }
    }
}

/// A gateway that shares its limits: one connection, however counted.
fn sharing(redis: &Redis, hubs: &[Hub]) -> Envoy {
    let cluster = cluster(&[redis.port()]);
    let settings = json!({
        "affinity": { "keys": [{ "id": "k1", "secret": { "value": "a secret of thirty-two bytes or more" } }] },
        "limits": {
            "connections": { "per_client": 1, "per_hub": 1, "total": 1 },
            "shared": { "redis": { "cluster": "redis", "namespace": "test", "timeout": "5s" } },
        },
    });
    Envoy::start(&EnvoyOptions {
        filter: Filter::With(settings),
        hosts: Hosts::of(hubs),
        patch: Some(Box::new(move |bootstrap| {
            add_cluster(bootstrap, cluster.clone());
        })),
        ..EnvoyOptions::default()
    })
    .unwrap()
}

/// The control: the wire does break connections.
#[test]
fn a_connection_that_cannot_resume_is_over_when_it_is_cut() {
    if !has_dotnet_10("a_connection_that_cannot_resume_is_over_when_it_is_cut") {
        return;
    }
    let hubs = three_hubs().unwrap();
    let envoy = Envoy::before(&hubs, Filter::With(json!({}))).unwrap();
    for (name, run) in CLIENTS {
        let outcome = cut(run, talkative(&envoy), &[&envoy], || panic!("{name}: it lived on"));
        assert_eq!(outcome.connected, 0, "{name}: {outcome:?}");
    }
    assert_eq!(websockets(&hubs).len(), CLIENTS.len());
}
