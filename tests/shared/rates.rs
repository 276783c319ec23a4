//! Rates, modes, and which clients and hubs a limit is for, over all gateways.

use std::net::Ipv4Addr;

use serde_json::{Value, json};
use testbed::raw::{Client, are_one};

use crate::gateways::{Gateways, Plan, connect, is_full, redis, rush};

/// So many at once, and no more for an hour.
const BURST: usize = 7;

fn rate() -> Value {
    json!({ "requests": 1, "per": "1h", "burst": BURST })
}

#[test]
fn as_many_come_at_once_through_all_gateways_as_a_rate_allows() {
    const ATTEMPTS: usize = 60;
    let Some(program) = redis("as_many_come_at_once_through_all_gateways_as_a_rate_allows") else { return };
    let limits = json!({ "negotiate_rate": rate(), "connect_rate": rate() });
    let gateways = Gateways::start(&program, 3, &Plan::by_user(&limits));
    for user in ["ann", "bob"] {
        let negotiated = rush(ATTEMPTS, |attempt| gateways.user(attempt, user).negotiate().ok());
        assert_eq!(negotiated.len(), BURST, "{user}: negotiates");
        let open = rush(ATTEMPTS, |attempt| gateways.user(attempt, user).bare_socket(None).ok());
        assert_eq!(open.len(), BURST, "{user}: connects");
        drop(open);
        gateways.settle(user, 0);
        // Who has left has spent the tokens all the same.
        assert!((0..3).all(|at| is_full(&gateways.user(at, user))), "{user}: afterwards");
    }
    gateways.assert_sound("rates");
}

#[test]
fn each_hub_has_a_limit_of_its_own() {
    let Some(program) = redis("each_hub_has_a_limit_of_its_own") else { return };
    let gateways = Gateways::start(&program, 2, &Plan::by_user(&json!({ "connections": { "per_hub": 3 } })));
    let user = |attempt: usize, hub| gateways.user(attempt, &format!("user{attempt}")).hub(hub);
    let [chat, notifications] = ["/chat", "/notifications"].map(|hub| {
        let open = rush(30, |attempt| user(attempt, hub).bare_socket(None).ok());
        assert_eq!(open.len(), 3, "{hub}");
        open
    });
    gateways.settle("both", 6);
    drop(chat);
    gateways.settle("one", 3);
    assert!((0..2).all(|at| is_full(&user(at, "/notifications"))));
    let open = connect(&user(1, "/chat"));
    drop((notifications, open));
    gateways.settle("all closed", 0);
    gateways.assert_sound("hubs");
}

#[test]
fn who_is_exempt_takes_a_place_and_is_never_refused() {
    let Some(program) = redis("who_is_exempt_takes_a_place_and_is_never_refused") else { return };
    let gateways = Gateways::start(
        &program,
        2,
        &Plan::of(&json!({
            "client": { "key": { "header": "x-real-ip", "as": "address" }, "exempt": ["10.0.0.0/8"] },
            "connections": { "per_client": 2, "total": 3 },
            "connect_rate": rate(),
        })),
    );
    let from = |at: usize, address: &str| gateways.client(at).header("x-real-ip", address);
    let [guest, exempt] = ["192.0.2.1", "10.0.0.1"].map(|address| move |at| from(at, address));
    let mut open: Vec<_> = (0..2).map(|at| connect(&exempt(at))).collect();
    gateways.settle("two", 2);
    let visitor = connect(&guest(0));
    gateways.settle("three", 3);
    assert!((0..2).all(|at| is_full(&from(at, "192.0.2.2"))), "three of three");
    open.extend((0..8).map(|at| connect(&exempt(at))));
    gateways.settle("many", 11);
    assert!((0..2).all(|at| is_full(&from(at, "192.0.2.3"))), "eleven of three");
    drop((open, visitor));
    gateways.settle("all closed", 0);
    drop(connect(&guest(1)));
    gateways.settle("all closed", 0);
    gateways.assert_sound("exempt");
}

#[test]
fn a_client_is_the_same_at_each_gateway_whatever_tells_who_it_is() {
    let Some(program) = redis("a_client_is_the_same_at_each_gateway_whatever_tells_who_it_is") else { return };
    type Identify = fn(Client, usize) -> Client;
    let sources: [(&str, Value, Identify); 5] = [
        ("header", json!({ "header": "x-user" }), |client, user| client.header("x-user", &format!("user{user}"))),
        ("cookie", json!({ "cookie": "session" }), |client, user| {
            client.header("cookie", &format!("theme=dark; session=user{user}"))
        }),
        ("query", json!({ "query": "user" }), |client, user| client.query(&format!("user=user{user}"))),
        ("address in a header", json!({ "header": "x-real-ip", "as": "address" }), |client, user| {
            client.header("x-real-ip", &format!("192.0.2.{user}"))
        }),
        ("source address", json!("source_address"), |client, user| {
            client.from(Ipv4Addr::new(127, 0, 0, u8::try_from(user).unwrap()))
        }),
    ];
    for (name, key, identify) in sources {
        let limits = json!({ "client": { "key": key }, "connections": { "per_client": 1 } });
        let gateways = Gateways::start(&program, 3, &Plan::of(&limits));
        let user = |at, user| identify(gateways.client(at), user);
        for other in [1, 2] {
            assert!(are_one(&user(0, 2), &user(other, 2)), "{name}: the same at gateway {other}");
            assert!(!are_one(&user(0, 2), &user(other, 3)), "{name}: another at gateway {other}");
        }
        gateways.settle(name, 0);
        gateways.assert_sound(name);
    }
}

#[test]
fn in_shadow_mode_everything_passes_and_is_counted() {
    let Some(program) = redis("in_shadow_mode_everything_passes_and_is_counted") else { return };
    let plan = Plan::by_user(&json!({ "mode": "shadow", "connections": { "per_client": 2 } }));
    let gateways = Gateways::start(&program, 2, &plan);
    // Two that the first gateway is over its own limit with, and one that it knows of through Redis.
    let open = [0, 0, 0, 0, 1].map(|at| connect(&gateways.user(at, "ann")));
    let over = |at: usize| {
        let labels = [("signalr_limit", "per_client"), ("signalr_mode", "shadow")];
        gateways.envoys[at].metric("signalr_gateway_rejected_total", &labels).unwrap()
    };
    // Each at its negotiate and at its connect.
    assert_eq!((over(0), over(1)), (4.0, 2.0));
    gateways.settle("five", 5);
    drop(open);
    gateways.settle("all closed", 0);
    gateways.assert_sound("shadow");
}
