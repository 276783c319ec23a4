//! The pin header is between two filters of one Envoy: a client can neither send it nor see it, and no pod sees it. Nor can a
//! client send the mark, which chooses the route.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use envoy_signalr::token::Purpose;
use serde_json::{Value, json};
use testbed::envoy::{EnvoyOptions, Patch, connection_manager, put_routes_first};
use testbed::raw::{Request, Wire};

use crate::gateway::{Gateway, PODS, distinct, every_version, keyed, pod, sealed};
use crate::upstream::hub;

const PIN: &str = "x-signalr-pin";
const MARK: &str = "x-signalr-preferred";

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
                let mut connection = Wire::open(&gateway.envoy.url());
                // A WebSocket keeps its connection, and another may be served by another worker thread.
                for _ in 0..if websocket { 4 * PODS } else { PODS } {
                    let answer = connection.ask(&request);
                    assert_eq!(answer.head.all(PIN), [""; 0], "{name}, {how}, {target}");
                    pods.push(pod(&answer));
                    if websocket {
                        connection = Wire::open(&gateway.envoy.url());
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
                assert_eq!(pod(&answer), negotiated.pod, "{name}");
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
        assert_eq!((pod(&answer), answer.head.all("x-to-pod")), (negotiated.pod, Vec::new()));
        assert_eq!(gateway.take_one("renamed").head.all("x-to-pod"), [""; 0]);
    }
}

/// Envoy has chosen a route before the filter runs, and chooses it again once the filter has written a header.
#[test]
fn only_the_filters_own_mark_chooses_the_route() {
    let by_mark = || -> Patch {
        Box::new(|bootstrap: &mut Value| {
            let header = json!({ "name": MARK, "present_match": true });
            let route =
                json!({ "match": { "prefix": "/", "headers": [header] }, "direct_response": { "status": 418 } });
            put_routes_first(bootstrap, vec![route]);
        })
    };
    let cookie =
        |mark: Value| json!({ "affinity": { "client_cookie": { "enabled": true, "paths": ["/app"], "mark": mark } } });
    for (version, options) in every_version(&cookie(json!("X-SignalR-Preferred"))) {
        let gateway = Gateway::with((0..PODS).map(hub), EnvoyOptions { patch: Some(by_mark()), ..options });
        let value = sealed(Purpose::ClientCookie, "", gateway.address(1), Duration::ZERO, Duration::from_secs(60));
        let value = format!("signalr-client={value}");
        for (target, request) in [
            ("of nobody's", Request::get("/other")),
            ("a page", Request::get("/app")),
            ("a poll", Request::get("/chat?id=abc.def")),
            ("a negotiate", Request::post("/chat/negotiate?negotiateVersion=1")),
            ("a WebSocket", Request::websocket("/chat")),
        ] {
            let steered = ["a page", "a negotiate", "a WebSocket"].contains(&target);
            for (how, fields) in [
                ("none", vec![]),
                ("one", vec![(MARK, "1")]),
                ("several", vec![(MARK, "1"), ("X-SIGNALR-PREFERRED", "")]),
            ] {
                let with = |cookie: Option<&str>| {
                    let fields = fields.iter().copied().chain(cookie.map(|cookie| ("cookie", cookie)));
                    let request = Request { fields: request.fields.clone(), ..request };
                    gateway.ask(&fields.fold(request, |request, (name, value)| request.with(name, value)))
                };
                with(None).pod();
                assert_eq!(gateway.take_one(target).head.all(MARK), [""; 0], "{version:?}, {target}, {how}");
                let answer = with(Some(&value));
                assert_eq!(answer.status() == 418, steered, "{version:?}, {target}, {how}: {answer:?}");
                gateway.take_received();
            }
        }
    }
    // The control: a mark that is not the filter's own passes.
    let gateway = Gateway::patched(cookie(Value::Null), Some(by_mark()));
    assert_eq!(gateway.ask(&Request::get("/other").with(MARK, "1")).status(), 418);
}
