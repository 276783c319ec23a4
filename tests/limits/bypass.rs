//! What a client writes does not switch the limits off, each way seen to do so before.

use serde_json::{Value, json};
use testbed::envoy::{connection_manager, put_routes_first};
use testbed::http;

use crate::gateway::Gateway;

/// One negotiate an hour.
fn rate() -> Value {
    json!({ "requests": 1, "per": "1h", "burst": 1 })
}

fn post(gateway: &Gateway, target: &str) -> u16 {
    http::post(&format!("{}{target}", gateway.envoy.url())).unwrap().0
}

#[test]
fn a_negotiate_is_limited_however_its_ids_are_written() {
    for target in ["/chat/negotiate?negotiateVersion=1&id&id", "/chat/negotiate?id=a&id=b", "/chat/negotiat%65"] {
        let gateway = Gateway::with(&json!({ "negotiate_rate": rate(), "reject": { "negotiate": "status" } }));
        assert_eq!([post(&gateway, target), post(&gateway, target)], [200, 429], "{target}");
    }
}

#[test]
fn a_negotiate_is_refused_where_its_connect_would_be() {
    let gateway = Gateway::with(&json!({ "connect_rate": rate() }));
    let client = gateway.client();
    let open = client.connect().unwrap();
    assert!(client.negotiate().unwrap_err().is_refusal());
    assert_eq!(gateway.rejected("connect_rate", "enforce"), 1);
    drop(open);
}

/// The path of a hub in more spellings than there is room for hubs that were learned: each letter as it is, in upper case or
/// percent-encoded.
fn spellings() -> impl Iterator<Item = String> {
    (0..81_u32).map(|number| {
        let letters = "chat".chars().zip(0..);
        let spelled = letters.map(|(letter, place)| match number / 3_u32.pow(place) % 3 {
            0 => letter.to_string(),
            1 => letter.to_ascii_uppercase().to_string(),
            _ => format!("%{:x}", u32::from(letter)),
        });
        format!("/{}", spelled.collect::<String>())
    })
}

#[test]
fn a_hub_is_one_hub_in_whatever_way_its_path_is_written() {
    let as_written = |bootstrap: &mut Value| connection_manager(bootstrap)["normalize_path"] = json!(false);
    let gateway = Gateway::patched(&json!({ "connections": { "per_hub": 1 } }), Box::new(as_written));
    for path in spellings() {
        assert_eq!(post(&gateway, &format!("{path}/negotiate?negotiateVersion=1")), 200, "{path}");
    }
    let client = gateway.client();
    let open = client.connect().unwrap();
    for path in ["/chat", "/CHAT", "/c%68at", "/chat/"] {
        let client = gateway.client().hub(path);
        assert!(client.negotiate().unwrap_err().is_refusal(), "{path}");
        assert!(client.bare_socket(None).err().unwrap().is_refusal(), "{path}");
    }
    let opened =
        |hub: &str| gateway.envoy.metric("signalr_gateway_connections_total", &[("signalr_hub", hub)]).unwrap();
    assert_eq!((opened("/chat"), opened("other")), (1.0, 0.0));
    drop(open);
}

#[test]
fn a_session_is_not_ended_by_a_delete_that_another_route_answers() {
    let elsewhere = |bootstrap: &mut Value| {
        put_routes_first(
            bootstrap,
            vec![json!({ "match": { "path": "/other" }, "direct_response": { "status": 204 } })],
        );
    };
    let limits = json!({ "connections": { "per_client": 1 }, "long_polling_idle": "1h" });
    let gateway = Gateway::patched(&limits, Box::new(elsewhere));
    let client = gateway.client();
    let token = client.negotiate().unwrap();
    let session = client.session(&token).unwrap();
    gateway.settles("one session", [0, 0, 1]);
    assert_eq!(client.hub("/other").delete(&token).status(), 204);
    assert!(gateway.client().negotiate().unwrap_err().is_refusal(), "its place is taken");
    session.close();
    gateway.settles("none", [0; 3]);
}

#[test]
fn an_upgrade_that_is_answered_200_is_no_connection() {
    let page = |bootstrap: &mut Value| {
        let hub = json!({ "match": { "path": "/page" }, "direct_response": { "status": 200, "body": { "inline_string": "a page" } } });
        put_routes_first(bootstrap, vec![hub]);
    };
    let gateway = Gateway::patched(&json!({ "connections": { "per_client": 1 } }), Box::new(page));
    let answer = gateway.client().hub("/page").bare_socket(None).err().unwrap();
    assert_eq!(answer.status(), 200);
    let open = gateway.client().bare_socket(None).expect("the place is free");
    let opened =
        |hub: &str| gateway.envoy.metric("signalr_gateway_connections_total", &[("signalr_hub", hub)]).unwrap();
    assert_eq!(opened("other"), 1.0, "only the WebSocket");
    drop(open);
}

#[test]
fn other_applications_negotiate_without_limit_and_hubs_do_not() {
    let other = |bootstrap: &mut Value| {
        let body = json!({ "inline_string": "<p>agreed</p>" });
        let route =
            json!({ "match": { "path": "/app/negotiate" }, "direct_response": { "status": 200, "body": body } });
        put_routes_first(bootstrap, vec![route]);
        // Each worker thread learns for itself.
        bootstrap["static_resources"]["listeners"][0]["connection_balance_config"] = json!({ "exact_balance": {} });
    };
    let rate = json!({ "requests": 1, "per": "1h", "burst": 9 });
    let gateway =
        Gateway::patched(&json!({ "negotiate_rate": rate, "reject": { "negotiate": "status" } }), Box::new(other));
    let statuses: Vec<_> = (0..40).map(|_| post(&gateway, "/app/negotiate")).collect();
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let statuses: Vec<_> = (0..10).map(|_| post(&gateway, "/chat/negotiate")).collect();
    assert!(statuses.contains(&429), "{statuses:?}");
}
