//! A sealed id brings each of its requests to the pod that issued it, and the pod sees what it would see without us.

use serde_json::json;
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts};
use testbed::raw::{Request, ask};

use crate::gateway::{Gateway, PODS, every_version, pod};
use crate::upstream::{Upstream, hub};

/// With three pods in turn, chance passes all of so many in one of 3^6 runs.
const TRIES: usize = 6;

/// Where an id may stand, written as `{id}` (the hub's), and what a client may put around it. `{seal}` is taken off.
fn targets() -> Vec<(&'static str, String)> {
    let many: String = (0..19).map(|n| format!("p{n}=%{n:02x}v&")).collect();
    let token = "e30.".repeat(1_024);
    [
        ("alone", "/chat?id={id}.{seal}"),
        ("first", "/chat?id={id}.{seal}&a=%41&B=%2f%2F&c=&d&&e=="),
        ("in the middle", "/chat?a=1+2&id={id}.{seal}&b=%20?/:@!$'()*,;"),
        ("last", "/chat?b=%C3%A9&a=x%2By&id={id}.{seal}"),
        ("of twenty", &format!("/chat?{many}id={{id}}.{{seal}}")),
        ("in upper case", "/chat?ID={id}.{seal}&_=1700000000000"),
        ("percent-encoded key", "/chat?x=%69d&%69d={id}.{seal}"),
        ("percent-encoded dot", "/chat?id={id}%2E{seal}&x=."),
        ("percent-encoded id", "/chat?id=%74{id}.{seal}"),
        ("before a long access token", &format!("/chat?id={{id}}.{{seal}}&access_token={token}")),
        ("with a trailing slash", "/chat/?id={id}.{seal}"),
        ("in another case of the path", "/Chat?id={id}.{seal}"),
        ("below the hub", "/chat/refresh?id={id}.{seal}"),
    ]
    .map(|(name, target)| (name, target.to_owned()))
    .to_vec()
}

#[test]
fn the_id_goes_back_to_its_pod_and_nothing_else_in_the_target_changes() {
    for (version, options) in every_version(&json!({})) {
        let gateway = Gateway::with((0..PODS).map(hub), options);
        let negotiated = gateway.negotiate();
        let fill = |target: &str, seal: &str| {
            // The row that encodes the id's first letter brings the rest of it.
            let target = target.replace("%74{id}", &format!("%74{}", &negotiated.id[1..]));
            target.replace("{id}", &negotiated.id).replace("{seal}", seal)
        };
        for (name, target) in targets() {
            let expected = fill(&target.replace(".{seal}", "").replace("%2E{seal}", ""), "");
            for _ in 0..TRIES {
                let answer = gateway.ask(&Request::get(&fill(&target, &negotiated.seal)));
                assert_eq!((answer.status(), pod(&answer)), (200, negotiated.pod), "{version:?} {name}");
                assert_eq!(gateway.take_one(name).target(), expected, "{version:?} {name}");
            }
        }
        let requests = u32::try_from(targets().len() * TRIES).unwrap();
        assert_eq!(gateway.affinity("connection_token", "routed"), requests, "{version:?}");
        assert_eq!(gateway.affinity("none", "none"), 0, "{version:?}");
    }
}

#[test]
fn every_step_of_a_connection_is_steered() {
    let gateway = Gateway::start(json!({}));
    let negotiated = gateway.negotiate();
    let target = format!("/chat?id={}.{}", negotiated.id, negotiated.seal);
    let body = br#"{"type":6}"#;
    for (name, request, status) in [
        ("WebSocket", Request::websocket(&target), 101),
        ("events", Request::get(&target).with("accept", "text/event-stream"), 200),
        ("poll", Request::get(&target), 200),
        ("send", Request { body, ..Request::post(&target) }, 200),
        ("preflight", Request::new("OPTIONS", &target).with("access-control-request-method", "POST"), 200),
        ("delete", Request::new("DELETE", &target), 202),
        ("a method to come", Request::new("PATCH", &target), 200),
    ] {
        for _ in 0..TRIES {
            let answer = gateway.ask(&request);
            assert_eq!((answer.status(), pod(&answer)), (status, negotiated.pod), "{name}");
            let received = gateway.take_one(name);
            assert_eq!(received.target(), format!("/chat?id={}", negotiated.id), "{name}");
            assert_eq!(received.body, request.body, "{name}");
        }
    }
}

/// A gateway that seals no more, or seals with a newer key, still opens what is out there.
#[test]
fn a_sealed_id_outlives_a_change_of_the_settings() {
    let key = |id: &str| json!({ "id": id, "secret": { "value": id.repeat(32) } });
    let (old, new) = (key("o"), key("n"));
    let options = |affinity| {
        let filter = Filter::With(json!({ "hubs": [{ "path": "/chat" }], "affinity": affinity }));
        EnvoyOptions { filter, concurrency: 2, ..EnvoyOptions::default() }
    };
    let first = Gateway::with((0..PODS).map(hub), options(json!({ "keys": [old] })));
    let negotiated = first.negotiate();
    let target = format!("/chat?id={}.{}", negotiated.id, negotiated.seal);
    for (name, affinity, outcome) in [
        ("a newer key seals", json!({ "keys": [new, old] }), "routed"),
        ("ids are sealed no more", json!({ "keys": [old], "connection_token": { "enabled": false } }), "routed"),
        ("the old key is out", json!({ "keys": [new] }), "unknown_key"),
    ] {
        let hosts = Hosts::Fixed(first.pods.iter().map(Upstream::address).collect());
        let second = Envoy::start(&EnvoyOptions { hosts, ..options(affinity) }).unwrap();
        let pods = (0..TRIES).map(|_| pod(&ask(&second.url(), &Request::get(&target))));
        let home = pods.filter(|pod| *pod == negotiated.pod).count();
        assert_eq!(home == TRIES, outcome == "routed", "{name}: {home} of {TRIES}");
        let labels = [("signalr_source", "connection_token"), ("signalr_outcome", outcome)];
        assert_eq!(second.metric("signalr_gateway_affinity_total", &labels).unwrap() as usize, TRIES, "{name}");
    }
}
