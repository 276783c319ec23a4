//! The cookie of one client: it brings what has no id to the pod that the client was given, Blazor's circuits above all.

use std::time::Duration;

use envoy_signalr::token::Purpose;
use serde_json::{Value, json};
use testbed::raw::{Request, Wire};

use crate::cookie::{SetCookie, set_cookie, set_cookies};
use crate::gateway::{Gateway, PODS, distinct, every_version, opened, pod, sealed};
use crate::upstream::hub;

const HOUR: Duration = Duration::from_secs(3_600);
const TRIES: usize = 2 * PODS;

/// Only the cookie of the client steers.
fn settings(cookie: Value) -> Value {
    let off = json!({ "enabled": false });
    let mut client = json!({ "enabled": true, "paths": ["/app/*"] });
    client.as_object_mut().unwrap().extend(cookie.as_object().unwrap().clone());
    json!({ "affinity": { "connection_token": off, "connection_cookie": off, "client_cookie": client } })
}

/// Every request that a client's cookie may place, by the status of its answer.
fn placing() -> [(&'static str, Request<'static>); 4] {
    [
        ("negotiate", Request::post("/chat/negotiate?negotiateVersion=1")),
        ("negotiate of version 0", Request::post("/chat/negotiate")),
        ("WebSocket that skips negotiation", Request::websocket("/chat")),
        ("a page", Request::get("/app/counter")),
    ]
}

#[test]
fn a_client_is_given_a_pod_and_finds_it_again() {
    for (version, options) in every_version(&settings(json!({}))) {
        let gateway = Gateway::with((0..PODS).map(hub), options);
        for (placed_by, request) in placing() {
            let first = gateway.ask(&request);
            let cookie = set_cookie(placed_by, &first);
            assert_eq!(
                (cookie.name.as_str(), cookie.attributes.as_str()),
                ("signalr-client", "Path=/; Max-Age=86400; SameSite=Lax; HttpOnly"),
                "{version:?} {placed_by}"
            );
            let home = opened(Purpose::ClientCookie, "", &cookie.value).unwrap().place.address;
            assert_eq!(home, gateway.address(pod(&first)), "{version:?} {placed_by}");
            let pair = cookie.pair();
            let others = [
                ("disconnect", Request::post("/_blazor/disconnect")),
                ("disconnect below a path", Request::post("/x/_blazor/disconnect/")),
                ("an id without a route", Request::get("/chat?id=tok")),
                ("a page's form", Request::post("/app/counter")),
            ];
            for (name, request) in placing().into_iter().chain(others) {
                let request = request.with("cookie", &pair);
                for _ in 0..TRIES {
                    let answer = gateway.ask(&request);
                    let got = (pod(&answer), set_cookies(&answer));
                    assert_eq!(got, (pod(&first), vec![]), "{version:?} {name}, placed by {placed_by}");
                }
            }
        }
        assert_eq!(gateway.affinity("client_cookie", "routed") as usize, 4 * 8 * TRIES, "{version:?}");
    }
}

#[test]
fn nothing_else_sets_or_follows_it() {
    let gateway = Gateway::start(settings(json!({})));
    let cookie = sealed(Purpose::ClientCookie, "", gateway.address(1), Duration::ZERO, HOUR);
    let pair = format!("signalr-client={cookie}");
    for (name, request) in [
        ("another page", Request::get("/other")),
        ("below the page", Request::get("/app/a/b")),
        ("a page's DELETE", Request::new("DELETE", "/app/a")),
        ("GET disconnect", Request::get("/_blazor/disconnect")),
        ("GET negotiate", Request::get("/chat/negotiate")),
    ] {
        let mut connection = Wire::open(&gateway.envoy.url());
        assert_eq!(set_cookies(&connection.ask(&request)), [], "{name}");
        let request = request.with("cookie", &pair);
        let pods: Vec<_> = (0..PODS).map(|_| pod(&connection.ask(&request))).collect();
        assert_eq!(distinct(pods), PODS, "{name}");
    }
    for (name, request) in [
        ("a failed negotiate", Request::post("/chat/negotiate?answer=500")),
        ("a refused WebSocket", Request::websocket("/chat?answer=403")),
        ("a page that is missing", Request::get("/app/x?answer=404")),
        ("disconnect", Request::post("/_blazor/disconnect")),
        ("an id without a route", Request::get("/chat?id=tok")),
    ] {
        assert_eq!(set_cookies(&gateway.ask(&request)), [], "{name}");
    }
}

#[test]
fn a_cookie_that_was_not_sealed_for_a_client_never_steers() {
    let gateway = Gateway::start(settings(json!({})));
    let home = gateway.address(1);
    let seal = |purpose, id| sealed(purpose, id, home.clone(), Duration::ZERO, HOUR);
    let good = seal(Purpose::ClientCookie, "");
    let expired = sealed(Purpose::ClientCookie, "", home.clone(), 2 * HOUR, HOUR);
    for (name, value, outcome) in [
        ("a token", seal(Purpose::ConnectionToken, ""), "forged"),
        ("a pending cookie", seal(Purpose::PendingCookie, "/chat"), "forged"),
        ("a connection's cookie", seal(Purpose::ConnectionCookie, ""), "forged"),
        ("cut", good[..good.len() - 1].to_owned(), "forged"),
        ("changed", good.replace(&good[40..41], if &good[40..41] == "A" { "B" } else { "A" }), "forged"),
        ("expired", expired, "expired"),
    ] {
        let pair = format!("signalr-client={value}");
        for (step, request) in placing() {
            if step == "WebSocket that skips negotiation" {
                continue;
            }
            let request = request.with("cookie", &pair);
            let mut connection = Wire::open(&gateway.envoy.url());
            let pods = (0..PODS).map(|_| {
                let answer = connection.ask(&request);
                // The client is placed anew.
                let cookie = set_cookie(name, &answer);
                let home = opened(Purpose::ClientCookie, "", &cookie.value).unwrap().place.address;
                assert_eq!(home, gateway.address(pod(&answer)), "{name}, {step}");
                pod(&answer)
            });
            assert_eq!(distinct(pods), PODS, "{name}, {step}");
        }
        assert!(gateway.affinity("client_cookie", outcome) > 0, "{name}");
    }
    assert_eq!(gateway.affinity("client_cookie", "routed"), 0);
}

/// Clients that stay for days would never find the pods that were added; but no connection moves while it lives.
#[test]
fn a_placement_is_given_up_at_a_negotiate_and_only_there() {
    let gateway = Gateway::start(settings(json!({ "rebalance_after": "1h" })));
    let home = 1;
    let placed = |ago: Duration| {
        let value = sealed(Purpose::ClientCookie, "", gateway.address(home), ago, 24 * HOUR);
        SetCookie { name: "signalr-client".to_owned(), value, attributes: String::new() }.pair()
    };
    let (young, old) = (HOUR / 60, 2 * HOUR);
    for (name, ago, request, moves) in [
        ("a young placement's negotiate", young, Request::post("/chat/negotiate"), false),
        ("an old placement's negotiate", old, Request::post("/chat/negotiate"), true),
        ("an old placement's WebSocket", old, Request::websocket("/chat"), false),
        ("an old placement's page", old, Request::get("/app/counter"), false),
        ("an old placement's disconnect", old, Request::post("/_blazor/disconnect"), false),
        ("an old placement's poll", old, Request::get("/chat?id=tok"), false),
    ] {
        let pair = placed(ago);
        let request = request.with("cookie", &pair);
        // Each on a connection of its own: of twice as many as workers and pods, some go elsewhere if they may.
        let mut pods = Vec::new();
        for _ in 0..4 * PODS {
            let answer = gateway.ask(&request);
            assert_eq!(set_cookies(&answer).len(), usize::from(moves), "{name}");
            pods.push(pod(&answer));
        }
        assert_eq!(distinct(pods.iter().copied()), if moves { PODS } else { 1 }, "{name}: {pods:?}");
        assert!(moves || pods[0] == home, "{name}: {pods:?}");
    }
    assert_eq!(gateway.affinity("client_cookie", "expired") as usize, 4 * PODS);
}
