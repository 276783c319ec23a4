//! The pin header is between two filters of one Envoy: a client can neither send it nor see it, and no pod sees it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use testbed::envoy::{Patch, connection_manager};

use crate::client::{Connection, Request};
use crate::gateway::{Gateway, PODS, distinct, keyed};

const PIN: &str = "x-signalr-pin";

/// Leaves the pin on the request where nothing but the filter takes it off.
fn keep_pins_on_the_route() -> Patch {
    Box::new(|bootstrap: &mut Value| {
        let host = &mut connection_manager(bootstrap)["route_config"]["virtual_hosts"][0];
        host.as_object_mut().unwrap().remove("request_headers_to_remove").expect("the route takes the pin off");
    })
}

/// How clients might write a pin of their own to `address`.
fn pins(address: &str) -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    let pin = STANDARD.encode(address);
    vec![
        ("one", vec![(PIN, pin.clone())]),
        ("several", vec![(PIN, pin.clone()), (PIN, pin.clone()), ("X-Signalr-Pin", pin.clone())]),
        ("upper case", vec![("X-SIGNALR-PIN", pin.clone())]),
        ("a list", vec![(PIN, format!("{pin}, {pin}"))]),
        ("empty first", vec![(PIN, String::new()), (PIN, pin.clone())]),
        ("as it is", vec![(PIN, address.to_owned())]),
    ]
}

#[test]
fn a_pin_of_the_clients_own_steers_nothing_and_reaches_no_pod() {
    for (name, patch) in [("as users have it", None), ("with nothing on the route", Some(keep_pins_on_the_route()))] {
        let gateway = Gateway::patched(json!({}), patch);
        for (how, fields) in pins(&gateway.pods[1].address()) {
            for request in [
                Request::get("/"),
                Request::get("/chat?id=abc.def"),
                Request::post("/chat/negotiate?negotiateVersion=1"),
                Request::post("/chat/negotiate"),
                Request::websocket("/chat"),
            ] {
                let target = request.target;
                let request = fields.iter().fold(request, |request, (name, value)| request.with(name, value));
                let mut pods = Vec::new();
                let websocket = request.fields.iter().any(|(name, _)| *name == "upgrade");
                let mut connection = Connection::open(&gateway.envoy);
                // A WebSocket keeps its connection, and another may be served by another worker thread.
                for _ in 0..if websocket { 4 * PODS } else { PODS } {
                    let answer = connection.ask(&request);
                    assert_eq!(answer.head.all(PIN), [""; 0], "{name}, {how}, {target}");
                    pods.push(answer.pod());
                    if websocket {
                        connection = Connection::open(&gateway.envoy);
                    }
                }
                assert_eq!(distinct(pods), PODS, "{name}, {how}, {target}");
                for received in gateway.take_received() {
                    assert_eq!(received.head.all(PIN), [""; 0], "{name}, {how}, {target}");
                }
            }
        }
    }
}

#[test]
fn the_filters_own_pin_is_seen_by_nobody() {
    let gateway = Gateway::start(json!({}));
    let negotiated = gateway.negotiate();
    assert_eq!(negotiated.answer.head.all(PIN), [""; 0]);
    let id = format!("/chat?id={}.{}", negotiated.id, negotiated.seal);
    // A client's own pin to another pod, beside a good id, changes nothing.
    let other = STANDARD.encode(gateway.pods[(negotiated.pod + 1) % PODS].address());
    for (name, request, by_pod) in [
        ("steered", Request::get(&id), true),
        ("steered, with a pin of the client's", Request::get(&id).with(PIN, &other).with(PIN, &other), true),
        ("steered WebSocket", Request::websocket(&id), true),
        ("steered to an error", Request::get(&format!("{id}&answer=500")), true),
        ("answered by Envoy", Request::get("/relay"), false),
    ] {
        for _ in 0..PODS {
            let answer = gateway.ask(&request);
            assert_eq!(answer.head.all(PIN), [""; 0], "{name}");
            if by_pod {
                assert_eq!(answer.pod(), negotiated.pod, "{name}");
                assert_eq!(gateway.take_one(name).head.all(PIN), [""; 0], "{name}");
            }
        }
    }
}

/// The name is the operator's, who then also names it to the session filter and the route.
#[test]
fn a_pin_by_another_name_steers_as_well() {
    let patch: Patch = Box::new(|bootstrap: &mut Value| {
        let text = bootstrap
            .to_string()
            .replace(PIN, "x-to-pod")
            .replace(r#"\"header\":\"x-to-pod\""#, r#"\"header\":\"X-To-Pod\""#);
        *bootstrap = serde_json::from_str(&text).unwrap();
    });
    let settings = keyed(json!({ "affinity": { "pin": { "header": PIN } } }));
    let gateway = Gateway::patched(settings, Some(patch));
    let negotiated = gateway.negotiate();
    let target = format!("/chat?id={}.{}", negotiated.id, negotiated.seal);
    for _ in 0..2 * PODS {
        let answer = gateway.ask(&Request::get(&target).with("x-to-pod", "x"));
        assert_eq!((answer.pod(), answer.head.all("x-to-pod")), (negotiated.pod, Vec::new()));
        assert_eq!(gateway.take_one("renamed").head.all("x-to-pod"), [""; 0]);
    }
}
