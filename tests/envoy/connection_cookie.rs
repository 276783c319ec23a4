//! The cookie of one connection: pending at the negotiate, bound at the first request with the id, cleared at the end.

use std::time::Duration;

use envoy_signalr::token::{Purpose, fingerprint_of_id};
use serde_json::{Value, json};
use testbed::envoy::{Patch, connection_manager};
use testbed::raw::{Request, Wire};

use crate::cookie::{SetCookie, set_cookie, set_cookies};
use crate::gateway::{Gateway, PODS, distinct, every_version, opened, pod, sealed};
use crate::upstream::hub;

const HOUR: Duration = Duration::from_secs(3_600);
const TRIES: usize = 2 * PODS;
/// What a pending cookie is bound to in place of an id.
const HUB: &str = "/chat";

/// Only cookies of connections steer, so that what they do is seen.
fn settings(cookie: Value) -> Value {
    json!({ "hubs": [{ "path": "/chat" }], "affinity": { "connection_token": { "enabled": false }, "connection_cookie": cookie } })
}

fn bound_name(id: &str) -> String {
    format!("signalr-affinity-{}", fingerprint_of_id(id.as_bytes()))
}

#[test]
fn a_cookie_follows_a_connection_from_negotiate_to_its_end() {
    for (version, options) in every_version(&settings(json!({}))) {
        let gateway = Gateway::with((0..PODS).map(hub), options);
        let negotiated = gateway.negotiate();
        assert_eq!(negotiated.seal, "", "{version:?}: the id is left alone");
        let pending = set_cookie("negotiate", &negotiated.answer);
        assert_eq!(
            (pending.name.as_str(), pending.attributes.as_str()),
            ("signalr-affinity", "Path=/chat; Max-Age=30; SameSite=Lax; HttpOnly"),
            "{version:?}"
        );
        let home = opened(Purpose::PendingCookie, HUB, &pending.value).unwrap().place.address;
        assert_eq!(home, gateway.address(negotiated.pod), "{version:?}");

        // Every first request sets the bound cookie, until the client brings it.
        let target = format!("/chat?id={}", negotiated.id);
        let pair = pending.pair();
        let mut bound = None;
        for request in [Request::get(&target), Request::post(&target), Request::websocket(&target)] {
            let answer = gateway.ask(&request.with("cookie", &pair));
            assert_eq!(pod(&answer), negotiated.pod, "{version:?}");
            let cookie = set_cookie("first request", &answer);
            assert_eq!(cookie.name, bound_name(&negotiated.id), "{version:?}");
            assert_eq!(cookie.attributes, "Path=/chat; Max-Age=86400; SameSite=Lax; HttpOnly", "{version:?}");
            let route = opened(Purpose::ConnectionCookie, &negotiated.id, &cookie.value).unwrap();
            assert_eq!(route.place.address, home, "{version:?}");
            bound = Some(cookie);
        }
        let bound = bound.unwrap().pair();

        // From now on the bound cookie steers, even if the pending one is of a newer negotiate.
        let other = gateway.address((negotiated.pod + 1) % PODS);
        let newer = format!("signalr-affinity={}", sealed(Purpose::PendingCookie, HUB, other, Duration::ZERO, HOUR));
        for cookies in [bound.clone(), format!("{newer}; {bound}"), format!("a=1; Path=/; {bound}; HttpOnly")] {
            for _ in 0..TRIES {
                let answer = gateway.ask(&Request::get(&target).with("cookie", &cookies));
                assert_eq!((pod(&answer), set_cookies(&answer)), (negotiated.pod, Vec::new()), "{version:?} {cookies}");
            }
        }
        let unsteered = ["expired", "forged", "unknown_key", "host_gone"];
        let unsteered: u32 = unsteered.iter().map(|outcome| gateway.affinity("connection_cookie", outcome)).sum();
        assert_eq!((unsteered, gateway.affinity("connection_cookie", "routed") as usize), (0, 3 + 3 * TRIES));
    }
}

#[test]
fn the_end_of_a_connection_clears_its_cookie() {
    let gateway = Gateway::start(settings(json!({})));
    let seal = |purpose, id| sealed(purpose, id, gateway.address(1), Duration::ZERO, HOUR);
    let bound = format!("{}={}", bound_name("tok"), seal(Purpose::ConnectionCookie, "tok"));
    let other = format!("{}={}", bound_name("other"), seal(Purpose::ConnectionCookie, "other"));
    let pending = format!("signalr-affinity={}", seal(Purpose::PendingCookie, HUB));
    let bound_cleared = SetCookie {
        name: bound_name("tok"),
        value: String::new(),
        attributes: "Path=/chat; Max-Age=0; SameSite=Lax; HttpOnly".to_owned(),
    };
    let all = format!("{pending}; {other}; {bound}");
    for (name, method, answer, cookies, expected) in [
        ("DELETE", "DELETE", "202", &all, vec![bound_cleared.clone()]),
        ("DELETE without the cookie", "DELETE", "202", &other, vec![]),
        ("unknown to the hub", "GET", "404", &all, vec![bound_cleared.clone()]),
        // A client's last send often comes after its DELETE, and by then the cookie may be the next connection's.
        ("unknown, pending only", "POST", "404", &pending, vec![]),
        ("unknown, without cookies", "GET", "404", &String::new(), vec![]),
        ("another error", "GET", "500", &all, vec![]),
        ("a DELETE that failed", "DELETE", "400", &all, vec![]),
        ("a poll that ended", "GET", "204", &bound, vec![]),
    ] {
        let target = format!("/chat?id=tok&answer={answer}");
        let answer = gateway.ask(&Request::new(method, &target).with("cookie", cookies));
        assert_eq!(set_cookies(&answer), expected, "{name}");
    }
}

/// A client that leaves connections behind must not send ever longer requests.
#[test]
fn sixteen_cookies_are_kept_and_the_oldest_go_first() {
    let gateway = Gateway::start(settings(json!({})));
    let pending = sealed(Purpose::PendingCookie, HUB, gateway.address(2), Duration::ZERO, HOUR);
    for (held, surplus) in [(0, 0), (14, 0), (15, 0), (16, 1), (20, 5), (32, 17), (40, 17)] {
        // The higher the number the older, sent in another order.
        let name = |number: usize| bound_name(&format!("old{number}"));
        let cookies = (0..held).map(|at| (at * 7 + 3) % held).map(|number| {
            let age = Duration::from_secs(60 * (number as u64 + 1));
            let id = format!("old{number}");
            format!("{}={}", name(number), sealed(Purpose::ConnectionCookie, &id, gateway.address(0), age, HOUR))
        });
        let cookies: Vec<_> = cookies.chain([format!("signalr-affinity={pending}")]).collect();
        let answer = gateway.ask(&Request::get("/chat?id=new").with("cookie", &cookies.join("; ")));
        let mut set = set_cookies(&answer).into_iter();
        let first = set.next().unwrap();
        assert_eq!((first.name, first.value.is_empty()), (bound_name("new"), false), "{held} held");
        let cleared: Vec<_> = set.map(|cookie| (cookie.name, cookie.value)).collect();
        assert_eq!(cleared.len(), surplus, "{held} held");
        // Of more than 32 only the first 32 are read, so which are the oldest is not known.
        if held <= 32 {
            let oldest: Vec<_> = (0..surplus).map(|at| (name(held - 1 - at), String::new())).collect();
            assert_eq!(cleared, oldest, "{held} held");
        }
    }
}

#[test]
fn a_cookie_made_for_something_else_never_steers() {
    let gateway = Gateway::start(settings(json!({})));
    let home = gateway.address(1);
    let seal = |purpose, id: &str| sealed(purpose, id, home.clone(), Duration::ZERO, HOUR);
    let late = |purpose, id: &str| sealed(purpose, id, home.clone(), 2 * HOUR, HOUR);
    let (tok, pending) = (bound_name("tok"), "signalr-affinity".to_owned());
    for (name, cookie, value, outcome) in [
        ("another connection's", &tok, seal(Purpose::ConnectionCookie, "other"), "forged"),
        ("a pending one as a bound one", &tok, seal(Purpose::PendingCookie, HUB), "forged"),
        ("a token as a bound one", &tok, seal(Purpose::ConnectionToken, "tok"), "forged"),
        ("a bound one as a pending one", &pending, seal(Purpose::ConnectionCookie, "tok"), "forged"),
        ("another hub's pending one", &pending, seal(Purpose::PendingCookie, "/other"), "forged"),
        ("a client's as a pending one", &pending, seal(Purpose::ClientCookie, ""), "forged"),
        ("nonsense", &tok, "x".to_owned(), "forged"),
        ("nothing", &pending, String::new(), "forged"),
        ("the past's", &tok, late(Purpose::ConnectionCookie, "tok"), "expired"),
        ("a forgotten negotiate's", &pending, late(Purpose::PendingCookie, HUB), "expired"),
    ] {
        let before = gateway.affinity("connection_cookie", outcome);
        let mut connection = Wire::open(&gateway.envoy.url());
        let cookie = format!("{cookie}={value}");
        let mut pods = Vec::new();
        for _ in 0..PODS {
            let answer = connection.ask(&Request::get("/chat?id=tok").with("cookie", &cookie));
            assert_eq!(set_cookies(&answer), [], "{name}");
            pods.push(pod(&answer));
        }
        assert_eq!(distinct(pods), PODS, "{name}");
        assert_eq!((gateway.affinity("connection_cookie", outcome) - before) as usize, PODS, "{name}");
    }
    assert_eq!(gateway.affinity("connection_cookie", "routed"), 0);
}

/// Whether the client came by https is what Envoy believes, not what a client says.
#[test]
fn the_attributes_are_the_operators() {
    let behind_a_proxy = || -> Option<Patch> {
        Some(Box::new(|bootstrap: &mut Value| connection_manager(bootstrap)["xff_num_trusted_hops"] = json!(1)))
    };
    let third_party = json!({ "name": "aff", "same_site": "none", "secure": true, "http_only": false, "partitioned": true,
        "domain": "example.test" });
    for (name, cookie, patch, scheme, expected) in [
        ("http", json!({}), None, "http", "Path=/chat; Max-Age=30; SameSite=Lax; HttpOnly"),
        ("a client that lies", json!({}), None, "https", "Path=/chat; Max-Age=30; SameSite=Lax; HttpOnly"),
        (
            "https at the proxy",
            json!({}),
            behind_a_proxy(),
            "https",
            "Path=/chat; Max-Age=30; SameSite=Lax; Secure; HttpOnly",
        ),
        ("http at the proxy", json!({}), behind_a_proxy(), "http", "Path=/chat; Max-Age=30; SameSite=Lax; HttpOnly"),
        (
            "always secure",
            json!({ "secure": true }),
            None,
            "http",
            "Path=/chat; Max-Age=30; SameSite=Lax; Secure; HttpOnly",
        ),
        (
            "never secure",
            json!({ "secure": false }),
            behind_a_proxy(),
            "https",
            "Path=/chat; Max-Age=30; SameSite=Lax; HttpOnly",
        ),
        ("strict", json!({ "same_site": "strict" }), None, "http", "Path=/chat; Max-Age=30; SameSite=Strict; HttpOnly"),
        (
            "for other sites",
            third_party,
            None,
            "http",
            "Path=/chat; Max-Age=30; SameSite=None; Domain=example.test; Secure; Partitioned",
        ),
    ] {
        let gateway = Gateway::patched(settings(cookie.clone()), patch);
        let negotiate = Request::post("/chat/negotiate").with("x-forwarded-proto", scheme);
        let set = set_cookie(name, &gateway.ask(&negotiate.with("x-forwarded-for", "192.0.2.1")));
        assert_eq!(set.name, cookie["name"].as_str().unwrap_or("signalr-affinity"), "{name}");
        assert_eq!(set.attributes, expected, "{name}");
    }
}
