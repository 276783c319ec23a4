//! What `docs/troubleshooting.md` says of refusals and silence that are Envoy's own, and of their cure.

use serde_json::{Value, json};
use testbed::envoy::{EnvoyOptions, Patch, connection_manager, http_filters};
use testbed::raw::{Request, Wire};

use crate::gateway::{Gateway, PODS, every_version};
use crate::upstream::hub;

/// Apache HttpClient 5.4 offers TLS by `GET`, `HEAD` and `OPTIONS` (RFC 2817).
#[test]
fn an_offer_of_tls_is_answered_403_unless_envoy_ignores_it() {
    let ignores: fn(&mut Value) = |bootstrap| {
        connection_manager(bootstrap)["http_protocol_options"] =
            json!({ "ignore_http_11_upgrade": [{ "prefix": "TLS/" }] });
    };
    for (name, patch, expected) in [("as shipped", None, 403), ("ignored", Some(ignores), 200)] {
        for (version, options) in every_version(&json!({})) {
            let name = format!("{name}, {version:?}");
            let patch = patch.map(|patch| -> Patch { Box::new(patch) });
            let gateway = Gateway::with((0..PODS).map(hub), EnvoyOptions { patch, ..options });
            let offering = |request: Request<'static>| {
                gateway.ask(&request.with("upgrade", "TLS/1.2").with("connection", "Upgrade"))
            };
            assert_eq!(offering(Request::get("/chat?id=abc")).status(), expected, "{name}");
            let answer = offering(Request::post("/chat/negotiate?negotiateVersion=1"));
            assert_eq!(answer.status(), expected, "{name}: {answer:?}");
            if expected == 200 {
                let body: Value = answer.json();
                assert!(body["connectionToken"].as_str().unwrap().contains('.'), "{name}: {body}");
            }
            for received in gateway.take_received() {
                assert_eq!(received.head.one("upgrade"), None, "{name}: {received:?}");
            }
            assert_eq!(gateway.ask(&Request::websocket("/chat?id=abc")).status(), 101, "{name}");
            let logged = gateway.envoy.finish().unwrap().contains("details=upgrade_failed ");
            assert_eq!(logged, expected == 403, "{name}");
        }
    }
}

/// Envoy's `buffer` waits for the end of a request before it passes on its beginning, and a WebSocket has none: nobody hears of it
/// until it is too large.
#[test]
fn a_buffer_holds_websockets_back_unless_it_is_switched_off_for_the_hubs() {
    const MOST: usize = 1_024;
    for (place, switched_off, expected) in [(0, false, 413), (1, false, 413), (0, true, 101)] {
        for (version, options) in every_version(&json!({})) {
            let name = format!("at place {place}, switched off: {switched_off}, {version:?}");
            let buffers = move |bootstrap: &mut Value| {
                let kind = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3";
                let buffer = json!({ "@type": format!("{kind}.Buffer"), "max_request_bytes": MOST });
                http_filters(bootstrap)
                    .insert(place, json!({ "name": "envoy.filters.http.buffer", "typed_config": buffer }));
                if switched_off {
                    let host = &mut connection_manager(bootstrap)["route_config"]["virtual_hosts"][0];
                    host["typed_per_filter_config"] = json!({
                        "envoy.filters.http.buffer": { "@type": format!("{kind}.BufferPerRoute"), "disabled": true },
                    });
                }
            };
            let gateway = Gateway::with([hub(0)], EnvoyOptions { patch: Some(Box::new(buffers)), ..options });
            let mut wire = Wire::open(&gateway.envoy.url());
            // No client says so much before the answer; here it makes an end of the silence.
            wire.send(&[Request::websocket("/chat?id=abc").bytes(), vec![0; 2 * MOST]].concat());
            assert_eq!(wire.receive("GET").unwrap().status(), expected, "{name}");
            assert_eq!(gateway.take_received().len(), usize::from(switched_off), "{name}");
        }
    }
}
