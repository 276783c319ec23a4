//! Tier 6: what moves under a connection, gateways, keys and pods, with real hubs behind real Envoys with four worker
//! threads each.

mod hanging;
mod requests;
mod second_cluster;

use std::collections::BTreeSet;

use requests::{
    Answer, Negotiated, Polling, Socket, Step, Visit, Visitor, negotiate, negotiate_on, negotiate_with, request,
};
use serde_json::{Value, json};
use testbed::clients::{NodeClient, Outcome, Running, Task, Transport, run_node, start_node};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, HealthStatus, Hosts, Patch};
use testbed::hub::{Hub, HubOptions, shared_hubs, three_hubs};
use testbed::process::wait_for;
use testbed::tools::EnvoyVersion;

fn all(hubs: &[Hub], health: HealthStatus) -> Vec<(String, HealthStatus)> {
    hubs.iter().map(|hub| (hub.address(), health)).collect()
}

fn changing(hubs: &[Hub]) -> Hosts {
    Hosts::Changing(all(hubs, HealthStatus::Healthy))
}

fn gateway(version: EnvoyVersion, hosts: Hosts, settings: Value) -> Envoy {
    Envoy::start(&EnvoyOptions { version, filter: Filter::With(settings), hosts, ..EnvoyOptions::default() }).unwrap()
}

/// Settings with these keys, of which the first seals.
fn keys(ids: &[&str]) -> Value {
    let key = |id: &&str| json!({ "id": id, "secret": { "value": id.repeat(32) } });
    json!({ "affinity": { "keys": ids.iter().map(key).collect::<Vec<_>>() } })
}

/// How many routes in an id came to this.
fn routes(envoy: &Envoy, outcome: &str) -> f64 {
    let labels = [("signalr_source", "connection_token"), ("signalr_outcome", outcome)];
    envoy.metric("signalr_gateway_affinity_total", &labels).unwrap()
}

fn wait_for_hosts(envoy: &Envoy, statistic: &str, expected: u64) {
    let name = format!("cluster.hubs.{statistic}");
    let reached = || envoy.counter(&name).is_ok_and(|value| value == expected);
    wait_for(&format!("{name} to be {expected}"), reached).unwrap();
}

/// Of both clusters of [`second_cluster`].
fn set_endpoints(envoy: &Envoy, hosts: &[(String, HealthStatus)], healthy: u64) {
    envoy.set_endpoints(hosts).unwrap();
    for cluster in ["hubs", second_cluster::NAME] {
        let name = format!("cluster.{cluster}.membership_healthy");
        wait_for(&format!("{name} to be {healthy}"), || envoy.counter(&name).is_ok_and(|value| value == healthy))
            .unwrap();
    }
}

fn connects(gateway: &Envoy, negotiated: &Negotiated) {
    let mut socket = Socket::open(&gateway.url(), &negotiated.id).unwrap();
    assert_eq!((socket.pod.clone(), socket.who_am_i()), (negotiated.pod.clone(), negotiated.pod.clone()));
}

/// The hub that gets this id does not know it: to the client the sign to negotiate anew.
fn is_unknown_to_the_hub(name: &str, answer: &Answer) {
    assert_eq!(answer.status(), 404, "{name}: {answer:?}");
    assert!(answer.pod().is_some(), "{name}: it was Envoy that answered: {answer:?}");
}

#[test]
fn gateways_with_the_same_keys_are_one() {
    let hubs = shared_hubs().unwrap();
    let [oldest, newest] = EnvoyVersion::ALL.map(|version| gateway(version, Hosts::of(hubs), keys(&["shared"])));
    for (negotiating, connecting) in [(&oldest, &newest), (&newest, &oldest)] {
        let mut pods = BTreeSet::new();
        for _ in 0..60 {
            let negotiated = negotiate(&negotiating.url());
            connects(connecting, &negotiated);
            pods.insert(negotiated.pod);
        }
        assert_eq!(pods.len(), 3, "negotiates were not balanced");
        assert_eq!(routes(connecting, "routed"), 60.0);
    }

    // A client that polls may meet another gateway with each request.
    let urls = [oldest.url(), newest.url()];
    for _ in 0..12 {
        let negotiated = negotiate(&urls[0]);
        let polling = Polling::open(&urls[1], &negotiated.id);
        for url in urls.iter().cycle().take(4) {
            assert_eq!(polling.who_am_i(url), negotiated.pod);
        }
    }
}

/// The control: the test above can fail.
#[test]
fn a_gateway_with_other_keys_takes_nobody_anywhere() {
    let hubs = shared_hubs().unwrap();
    let [here, there] = ["here", "there"].map(|key| gateway(EnvoyVersion::Newest, Hosts::of(hubs), keys(&[key])));
    for _ in 0..12 {
        let negotiated = negotiate(&here.url());
        is_unknown_to_the_hub("other keys", &request(&there.url(), Step::WebSocket, &negotiated.id));
    }
    assert_eq!((routes(&there, "unknown_key"), routes(&there, "routed")), (12.0, 0.0));
}

#[test]
fn a_key_from_the_environment_outlives_the_gateway() {
    let hubs = shared_hubs().unwrap();
    let from_environment =
        json!({ "affinity": { "keys": [{ "id": "1", "secret": { "env": "SIGNALR_AFFINITY_KEY" } }] } });
    for (name, settings, outlives) in [("configured", from_environment, true), ("made up", json!({}), false)] {
        let start = || {
            let environment = vec![("SIGNALR_AFFINITY_KEY".to_owned(), "k".repeat(32))];
            let filter = Filter::With(settings.clone());
            Envoy::start(&EnvoyOptions { filter, hosts: Hosts::of(hubs), environment, ..EnvoyOptions::default() })
                .unwrap()
        };
        let envoy = start();
        let negotiated: Vec<_> = (0..12).map(|_| negotiate(&envoy.url())).collect();
        let polled = negotiate(&envoy.url());
        let polling = Polling::open(&envoy.url(), &polled.id);
        drop(envoy);
        let envoy = start();
        for negotiated in &negotiated {
            if outlives {
                connects(&envoy, negotiated);
            } else {
                is_unknown_to_the_hub(name, &request(&envoy.url(), Step::WebSocket, &negotiated.id));
            }
        }
        let outcome = if outlives { "routed" } else { "unknown_key" };
        assert_eq!(routes(&envoy, outcome), 12.0, "{name}");
        if outlives {
            assert_eq!(polling.who_am_i(&envoy.url()), polled.pod);
        }
    }
}

#[test]
fn keys_rotate_without_losing_a_connection() {
    let hubs = shared_hubs().unwrap();
    let [before, during, after] =
        [&["old"][..], &["new", "old"], &["new"]].map(|ids| gateway(EnvoyVersion::Newest, Hosts::of(hubs), keys(ids)));
    for _ in 0..6 {
        connects(&during, &negotiate(&before.url()));
        connects(&after, &negotiate(&during.url()));
        let sealed_by_new = negotiate(&during.url());
        is_unknown_to_the_hub("sealed by the new key", &request(&before.url(), Step::WebSocket, &sealed_by_new.id));
    }
    for (name, envoy, expected) in
        [("before", &before, (0.0, 6.0)), ("during", &during, (6.0, 0.0)), ("after", &after, (6.0, 0.0))]
    {
        assert_eq!((routes(envoy, "routed"), routes(envoy, "unknown_key")), expected, "{name}");
    }
}

/// What real clients make of the loss of a pod.
struct Held(Vec<(Transport, Running)>);

impl Held {
    const EACH: u32 = 6;

    fn start(envoy: &Envoy) -> Self {
        let clients = Transport::ALL.map(|transport| {
            let client = NodeClient { task: Task::of(envoy.url(), Self::EACH), transport, ..NodeClient::default() };
            (transport, start_node(client).unwrap())
        });
        clients.iter().for_each(|(_, running)| running.wait_held().unwrap());
        Self(clients.into())
    }

    /// Those on `lost` were cut, the others were not.
    fn were_cut_only_from(self, lost: &str) {
        let mut cut = 0;
        for (transport, running) in self.0 {
            let outcome: Outcome = running.release().unwrap();
            assert_eq!(outcome.connected, Self::EACH, "{transport:?}: {:?}", outcome.first_error());
            for attempt in &outcome.tries {
                let was_on_it = attempt.answered_pod.as_deref() == Some(lost);
                assert_eq!(attempt.cut.is_some(), was_on_it, "{transport:?}: {attempt:?}");
                cut += u32::from(was_on_it);
            }
        }
        assert!(cut > 0, "no client was on {lost}");
    }
}

#[test]
fn a_dead_pod_makes_its_clients_negotiate_anew_and_no_others() {
    let mut hubs = three_hubs().unwrap();
    // Health checks are to notice late: until then it is the retry that finds a living pod.
    let patch: Patch = Box::new(|bootstrap| {
        let check = &mut bootstrap["static_resources"]["clusters"][0]["health_checks"][0];
        check["interval"] = "10s".into();
        check["no_traffic_interval"] = "10s".into();
    });
    let options = EnvoyOptions { hosts: changing(&hubs), patch: Some(patch), ..EnvoyOptions::default() };
    let envoy = Envoy::start(&options).unwrap();
    let lost = negotiate_on(&envoy.url(), "hub-1");
    let kept = negotiate_on(&envoy.url(), "hub-2");
    let polling = Polling::open(&envoy.url(), &kept.id);
    let held = Held::start(&envoy);
    hubs[0].kill();

    let mut gone = 0;
    let mut goes_on = |name: &str| {
        for step in Step::ALL {
            let answer = request(&envoy.url(), step, &lost.id);
            is_unknown_to_the_hub(&format!("{name}, {step:?}"), &answer);
            assert_ne!(answer.pod(), Some("hub-1"));
            gone += 1;
            connects(&envoy, &negotiate(&envoy.url()));
        }
        assert_eq!(polling.who_am_i(&envoy.url()), kept.pod);
    };
    goes_on("just killed");
    assert!(envoy.counter("cluster.hubs.upstream_rq_retry").unwrap() > 0, "the pod was not missed");
    wait_for("health checks to notice", || {
        goes_on("killed");
        envoy.counter("cluster.hubs.membership_healthy").is_ok_and(|healthy| healthy == 2)
    })
    .unwrap();
    goes_on("noticed by health checks");
    envoy.set_endpoints(&all(&hubs[1..], HealthStatus::Healthy)).unwrap();
    wait_for_hosts(&envoy, "membership_total", 2);
    goes_on("removed");

    assert!(routes(&envoy, "host_gone") >= f64::from(gone), "not all of {gone} were counted");
    for transport in Transport::ALL {
        let client = NodeClient { task: Task::of(envoy.url(), 12), transport, ..NodeClient::default() };
        let outcome = run_node(&client).unwrap();
        assert_eq!(outcome.connected, 12, "{transport:?}: {:?}", outcome.first_error());
    }
    held.were_cut_only_from("hub-1");
}

#[test]
fn a_draining_pod_keeps_its_clients_and_gets_no_new_ones() {
    let hubs = shared_hubs().unwrap();
    for version in EnvoyVersion::ALL {
        let envoy = gateway(version, changing(hubs), json!({}));
        let [held, polled, idle] = [(); 3].map(|()| negotiate_on(&envoy.url(), "hub-1"));
        let mut socket = Socket::open(&envoy.url(), &held.id).unwrap();
        let polling = Polling::open(&envoy.url(), &polled.id);

        let mut hosts = all(hubs, HealthStatus::Healthy);
        hosts[0].1 = HealthStatus::Draining;
        envoy.set_endpoints(&hosts).unwrap();
        wait_for_hosts(&envoy, "membership_healthy", 2);

        connects(&envoy, &idle);
        for _ in 0..12 {
            assert_eq!(socket.who_am_i(), "hub-1", "{version:?}");
            assert_eq!(polling.who_am_i(&envoy.url()), "hub-1", "{version:?}");
            let negotiated = negotiate(&envoy.url());
            assert_ne!(negotiated.pod, "hub-1", "{version:?}");
            connects(&envoy, &negotiated);
        }
        assert_eq!(routes(&envoy, "host_gone"), 0.0, "{version:?}");
    }
}

/// Pages and new connections that bring the cookie of its clients included.
#[test]
fn a_draining_pod_gets_no_new_ones_of_clients_that_have_been_there() {
    let hubs = shared_hubs().unwrap();
    for version in EnvoyVersion::ALL {
        let envoy = second_cluster::gateway(version, changing(hubs));
        let [held, polled, idle] = [(); 3].map(|()| negotiate_on(&envoy.url(), "hub-1"));
        let mut socket = Socket::open(&envoy.url(), &held.id).unwrap();
        let polling = Polling::open(&envoy.url(), &polled.id);
        let visitor = Visitor::of(&envoy.url(), "hub-1");
        let come_again = || Visit::ALL.map(|visit| visitor.visit(&envoy.url(), visit));
        // Each visit may meet another worker thread, and these learn of an endpoint's health a moment after the main thread.
        let all_come = |home: bool| {
            let each = || come_again().iter().all(|(pod, anew)| (pod == "hub-1", anew.is_none()) == (home, home));
            wait_for(&format!("{version:?}: all visits at home, {home}"), || (0..12).all(|_| each())).unwrap();
        };
        all_come(true);

        let mut hosts = all(hubs, HealthStatus::Healthy);
        hosts[0].1 = HealthStatus::Draining;
        set_endpoints(&envoy, &hosts, 2);
        all_come(false);
        let gone = [("signalr_source", "client_cookie"), ("signalr_outcome", "host_gone")];
        let gone = || envoy.metric("signalr_gateway_affinity_total", &gone).unwrap();
        let before = gone();

        connects(&envoy, &idle);
        for _ in 0..12 {
            assert_eq!(socket.who_am_i(), "hub-1", "{version:?}");
            assert_eq!(polling.who_am_i(&envoy.url()), "hub-1", "{version:?}");
            assert_eq!(visitor.disconnect(&envoy.url()), "hub-1", "{version:?}");
            for (visit, (pod, anew)) in Visit::ALL.into_iter().zip(come_again()) {
                assert_ne!(pod, "hub-1", "{version:?} {visit:?}");
                let (again, another) = anew.unwrap().visit(&envoy.url(), visit);
                assert!(again == pod && another.is_none(), "{version:?} {visit:?}: {pod}, then {again}");
            }
        }
        assert_eq!(routes(&envoy, "host_gone"), 0.0, "{version:?}");
        assert_eq!(gone() - before, 36.0, "{version:?}");

        set_endpoints(&envoy, &all(hubs, HealthStatus::Healthy), 3);
        all_come(true);
    }
}

#[test]
fn a_new_pod_moves_nobody_and_gets_its_share() {
    let hubs = shared_hubs().unwrap();
    let envoy = gateway(EnvoyVersion::Newest, changing(hubs), json!({}));
    let new = Hub::start(&HubOptions { pod: "hub-4".into(), ..HubOptions::default() }).unwrap();
    let [held, polled, idle] = [(); 3].map(|()| (0..12).map(|_| negotiate(&envoy.url())).collect::<Vec<_>>());
    let mut sockets: Vec<_> = held.iter().map(|one| Socket::open(&envoy.url(), &one.id).unwrap()).collect();
    let polling: Vec<_> = polled.iter().map(|one| Polling::open(&envoy.url(), &one.id)).collect();

    let with_new = [all(hubs, HealthStatus::Healthy), vec![(new.address(), HealthStatus::Healthy)]].concat();
    envoy.set_endpoints(&with_new).unwrap();
    wait_for("the new pod", || negotiate(&envoy.url()).pod == "hub-4").unwrap();

    for (negotiated, socket) in held.iter().zip(&mut sockets) {
        assert_eq!(socket.who_am_i(), negotiated.pod);
    }
    for (negotiated, polling) in polled.iter().zip(&polling) {
        assert_eq!(polling.who_am_i(&envoy.url()), negotiated.pod);
    }
    idle.iter().for_each(|negotiated| connects(&envoy, negotiated));
    let pods: BTreeSet<_> = (0..60).map(|_| negotiate(&envoy.url()).pod).collect();
    assert_eq!(pods.len(), 4, "{pods:?}");
    connects(&envoy, &negotiate_on(&envoy.url(), "hub-4"));
}

/// As a client with stateful reconnect does it. The hub of the tests has none and refuses, but it is the right one.
#[test]
fn a_websocket_that_broke_off_finds_its_pod_again() {
    let hubs = shared_hubs().unwrap();
    for version in EnvoyVersion::ALL {
        let envoy = gateway(version, Hosts::of(hubs), json!({}));
        for _ in 0..30 {
            let negotiated = negotiate(&envoy.url());
            Socket::open(&envoy.url(), &negotiated.id).unwrap().cut();
            let again = request(&envoy.url(), Step::WebSocket, &negotiated.id);
            assert!([404, 409].contains(&again.status()), "{again:?}");
            assert_eq!(again.pod(), Some(negotiated.pod.as_str()), "{version:?}: {again:?}");
        }
        assert_eq!(routes(&envoy, "routed"), 60.0, "{version:?}");
    }
}

/// pysignalr leaves the id of the connection that it lost in the URL when it negotiates again.
#[test]
fn a_negotiate_with_a_stale_id_begins_anew() {
    let hubs = shared_hubs().unwrap();
    let envoy = gateway(EnvoyVersion::Newest, Hosts::of(hubs), json!({}));
    let mut stale = negotiate_with(&envoy.url(), "");
    let mut pods = BTreeSet::new();
    for _ in 0..12 {
        let fresh = negotiate_with(&envoy.url(), &format!("id={}", stale.id));
        assert_ne!(fresh.id, stale.id);
        connects(&envoy, &fresh);
        let (bare, _) = stale.id.split_once('.').unwrap();
        let hub = hubs.iter().find(|hub| hub.pod() == fresh.pod).unwrap();
        let queries: Vec<_> = hub.requests().unwrap().into_iter().map(|request| request.query).collect();
        assert!(queries.contains(&format!("?id={bare}")), "the hub saw {queries:?}");
        pods.insert(fresh.pod.clone());
        stale = fresh;
    }
    assert_eq!(pods.len(), 3, "a stale id kept the client on its pod");
}
