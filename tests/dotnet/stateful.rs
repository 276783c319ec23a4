//! Stateful reconnect with real hubs: a connection outlives its TCP connections, and loses nothing.

use std::collections::BTreeSet;
use std::thread;

use serde_json::json;
use testbed::clients::{NodeClient, Outcome, Protocol, Task, run_dotnet, run_node};
use testbed::envoy::{Envoy, Filter};
use testbed::hub::{Hub, three_hubs};
use testbed::process::wait_for;

use crate::gate::Gate;
use crate::kit::{all_connected, dotnet, has_dotnet_10, talkative};
use crate::wire::{Way, Wire};

type Run = fn(NodeClient) -> Outcome;

const CLIENTS: [(&str, Run); 2] =
    [(".NET", |client| run_dotnet(&dotnet(client)).unwrap()), ("JavaScript", |client| run_node(&client).unwrap())];

/// How often each connection is cut.
const CUTS: u32 = 6;

/// Runs one client over a wire that is cut at the beginning of each round; in turn, what comes down is lost, and what goes up.
/// Calls `act` when that is over and the connection still open.
fn cut(run: Run, client: NodeClient, act: impl FnOnce()) -> Outcome {
    let (wire, gate) = (Wire::lay(&client.task.url), Gate::open());
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
            let has_active = |count: f64| {
                let active = || envoy.metric("signalr_gateway_connections_active", &[]).unwrap();
                wait_for(&format!("{name}: {count} active connections"), || active() == count).unwrap();
            };
            let client = NodeClient { protocol, stateful_reconnect: true, ..talkative(&envoy) };
            all_connected(&name, &cut(run, client, || has_active(1.0)));
            has_active(0.0);
            let websockets = websockets(&hubs);
            assert_eq!(websockets.len(), CUTS as usize + 1, "{name}: {websockets:?}");
            assert_eq!(websockets.iter().collect::<BTreeSet<_>>().len(), 1, "{name}: {websockets:?}");
            assert_eq!(envoy.metric("signalr_gateway_rejected_total", &[]).unwrap(), 0.0, "{name}");
        }
    }
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
        let outcome = cut(run, talkative(&envoy), || panic!("{name}: it lived on"));
        assert_eq!(outcome.connected, 0, "{name}: {outcome:?}");
    }
    assert_eq!(websockets(&hubs).len(), CLIENTS.len());
}
