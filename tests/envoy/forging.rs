//! An id that this gateway did not seal so never steers: the request goes on unchanged, to whom the balancer says.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use envoy_signalr::token::{Address, KeyRing, Purpose, Route};
use serde_json::json;
use testbed::raw::{Request, Wire};

use crate::gateway::{Gateway, Negotiated, PODS, distinct, every_version, pod, sealed};
use crate::upstream::{Upstream, hub};

const HOUR: Duration = Duration::from_secs(3_600);
/// A connection is served by one worker thread, and its balancer takes the pods in turn.
const TURNS: usize = 2 * PODS;

fn start() -> Gateway {
    Gateway::start(json!({ "hubs": [{ "path": "/chat" }] }))
}

/// Sends each id on one connection; each must reach a pod as it stands, and all of them the pods in turn.
fn never_steers<'a>(gateway: &Gateway, name: &str, ids: impl IntoIterator<Item = &'a str>) -> u32 {
    let mut connection = Wire::open(&gateway.envoy.url());
    let mut pods = Vec::new();
    for id in ids {
        let target = format!("/chat?a=%20&id={id}&b");
        let answer = connection.ask(&Request::get(&target));
        assert_eq!(answer.status(), 200, "{name}: {id}");
        assert_eq!(gateway.take_one(name).target(), target, "{name}");
        pods.push(pod(&answer));
    }
    assert!(pods.len() >= TURNS, "{name}: too few to know");
    assert!(pods.windows(PODS).all(|turn| distinct(turn.iter().copied()) == PODS), "{name}: {pods:?}");
    u32::try_from(pods.len()).unwrap()
}

#[test]
fn a_seal_with_any_bit_changed_never_steers() {
    let gateway = start();
    let Negotiated { id, seal, .. } = gateway.negotiate();
    let bytes = URL_SAFE_NO_PAD.decode(&seal).unwrap();
    let altered = |at: usize, flip: u8| {
        let mut bytes = bytes.clone();
        bytes[at] ^= flip;
        format!("{id}.{}", URL_SAFE_NO_PAD.encode(bytes))
    };
    let ids: Vec<_> =
        (0..bytes.len()).flat_map(|at| [altered(at, 0x01), altered(at, 0x80), altered(at, 0xff)]).collect();
    let sent = never_steers(&gateway, "altered", ids.iter().map(String::as_str));
    // The four bytes behind the version name the key.
    assert_eq!(gateway.affinity("connection_token", "unknown_key"), 4 * 3);
    assert_eq!(gateway.affinity("connection_token", "forged"), sent - 4 * 3);
    assert_eq!(gateway.affinity("connection_token", "routed"), 0);
}

#[test]
fn a_seal_with_any_letter_changed_or_cut_at_any_length_never_steers() {
    let gateway = start();
    let Negotiated { id, seal, .. } = gateway.negotiate();
    let cut: Vec<_> = (0..seal.len()).map(|length| format!("{id}.{}", &seal[..length])).collect();
    let other_letter = |at: usize| {
        let letter = if seal.as_bytes()[at] == b'A' { "B" } else { "A" };
        format!("{id}.{}{letter}{}", &seal[..at], &seal[at + 1..])
    };
    let changed: Vec<_> = (0..seal.len()).map(other_letter).collect();
    let longer: Vec<_> =
        ["A", "AA", "=", "==", ".", "~", "%00"].iter().map(|end| format!("{id}.{seal}{end}")).collect();
    let ids = [cut, changed, longer].concat();
    let sent = never_steers(&gateway, "changed or cut", ids.iter().map(String::as_str));
    let forged = gateway.affinity("connection_token", "forged") + gateway.affinity("connection_token", "unknown_key");
    assert_eq!((forged, gateway.affinity("connection_token", "routed")), (sent, 0));
}

#[test]
fn a_seal_made_for_something_else_never_steers() {
    let gateway = start();
    let (first, second) = (gateway.negotiate(), gateway.negotiate());
    let target = gateway.address(0);
    let by_gateway = |purpose, id: &str| sealed(purpose, id, target.clone(), Duration::ZERO, HOUR);
    let id = "tok";
    let route = Route::new(target.clone().into(), envoy_signalr::clock::Millis::since_epoch(HOUR), 1_000_000 * HOUR);
    let by = |key_id, secret: &[u8]| {
        KeyRing::new([(key_id, secret)]).seal(Purpose::ConnectionToken, b"tok", &route, [1; 24])
    };
    let other_secret = by("2026-11", &[b'x'; 32]).unwrap();
    let other_name = by("2026-12", crate::gateway::KEY.1.as_bytes()).unwrap();
    for (name, id, outcome) in [
        ("another id's", format!("{}.{}", second.id, first.seal), "forged"),
        ("no id's", format!(".{}", first.seal), "forged"),
        ("a longer id's", format!("{}x.{}", first.id, first.seal), "forged"),
        ("twice", format!("{}.{}.{}", first.id, first.seal, first.seal), "forged"),
        ("a connection cookie's", format!("{id}.{}", by_gateway(Purpose::ConnectionCookie, id)), "forged"),
        ("a pending cookie's", format!("{id}.{}", by_gateway(Purpose::PendingCookie, "")), "forged"),
        ("a client cookie's", format!("{id}.{}", by_gateway(Purpose::ClientCookie, "")), "forged"),
        ("not a seal", format!("{id}.42"), "forged"),
        ("another secret", format!("{id}.{other_secret}"), "unknown_key"),
        ("another key's name", format!("{id}.{other_name}"), "unknown_key"),
    ] {
        let before = gateway.affinity("connection_token", outcome);
        let sent = never_steers(&gateway, name, [id.as_str(); TURNS]);
        assert_eq!(gateway.affinity("connection_token", outcome) - before, sent, "{name}");
    }
    assert_eq!(gateway.affinity("connection_token", "routed"), 0);
}

/// Authentic, so its time is known and the hub's own id too: the seal is taken off, but does not steer.
#[test]
fn an_expired_seal_is_taken_off_and_does_not_steer() {
    let gateway = start();
    let seal = sealed(Purpose::ConnectionToken, "tok", gateway.address(0), 2 * HOUR, HOUR);
    let mut connection = Wire::open(&gateway.envoy.url());
    let target = format!("/chat?id=tok.{seal}&x=1");
    let mut pods = Vec::new();
    for _ in 0..TURNS {
        pods.push(pod(&connection.ask(&Request::get(&target))));
        assert_eq!(gateway.take_one("expired").target(), "/chat?id=tok&x=1");
    }
    assert_eq!(distinct(pods), PODS);
    assert_eq!(gateway.affinity("connection_token", "expired") as usize, TURNS);
}

/// An address that the gateway itself sealed, of a pod that has gone or never was: Envoy alone says who is a pod.
#[test]
fn no_seal_leads_out_of_the_cluster() {
    for (version, options) in every_version(&json!({ "hubs": [{ "path": "/chat" }] })) {
        let gateway = Gateway::with((0..PODS).map(hub), options);
        let stranger = Upstream::start(hub(PODS));
        let gone = stranger.address();
        let port = gone.rsplit(':').next().unwrap();
        let outside = [gone.clone(), "127.0.0.1:1".into(), format!("localhost:{port}"), format!("[::1]:{port}")];
        for address in &outside {
            let seal = sealed(
                Purpose::ConnectionToken,
                "tok",
                Address::new(address.as_bytes()).unwrap(),
                Duration::ZERO,
                HOUR,
            );
            let mut connection = Wire::open(&gateway.envoy.url());
            let target = format!("/chat?id=tok.{seal}");
            let pods: Vec<_> = (0..TURNS).map(|_| pod(&connection.ask(&Request::get(&target)))).collect();
            assert_eq!(distinct(pods), PODS, "{version:?} {address}");
            for received in gateway.take_received() {
                assert_eq!(received.target(), "/chat?id=tok", "{version:?} {address}");
            }
        }
        assert_eq!(stranger.take_received().len(), 0, "{version:?}");
        assert_eq!(gateway.affinity("connection_token", "host_gone") as usize, outside.len() * TURNS, "{version:?}");
    }
}

#[test]
fn requests_that_no_client_should_send_are_answered_all_the_same() {
    let gateway = start();
    let negotiated = gateway.negotiate();
    let good = format!("{}.{}", negotiated.id, negotiated.seal);
    for (name, target) in [
        ("the id twice", format!("/chat?id={good}&id={good}")),
        ("an empty id", "/chat?id=".to_owned()),
        ("a lone dot", "/chat?id=.".to_owned()),
        ("a broken escape", format!("/chat?id={good}%")),
        ("a long id", format!("/chat?id={}.{}", "a".repeat(20_000), negotiated.seal)),
        ("a long seal", format!("/chat?id=a.{}", "A".repeat(20_000))),
        ("dots only", format!("/chat?id={}", ".".repeat(5_000))),
        ("no hub", format!("/other?id={good}")),
    ] {
        let answer = gateway.ask(&Request::get(&target));
        assert_eq!(answer.status(), 200, "{name}");
        assert_eq!(gateway.take_one(name).target(), target, "{name}");
    }
    // Bytes that are no text, which Envoy itself may refuse.
    let mut connection = Wire::open(&gateway.envoy.url());
    let request = [b"GET /chat?id=\xff\xfe.", negotiated.seal.as_bytes(), b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
    connection.send(&request);
    assert!(matches!(connection.receive("GET").unwrap().status(), 200 | 400), "an id of no text");
    assert_eq!(gateway.ask(&Request::get("/chat?id=a")).status(), 200, "the filter still runs");
    assert_eq!(gateway.count("signalr_gateway_internal_errors_total", &[]), 0);
}
