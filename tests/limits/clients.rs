//! What Microsoft's client tells its application when a limit refuses it.

use serde::Deserialize;
use serde_json::{Value, json};
use testbed::clients::{drive_chromium, drive_node};
use testbed::envoy::EnvoyOptions;
use testbed::hub::{Hub, HubOptions};
use testbed::process::PATIENCE;

use crate::gateway::{Gateway, addresses, settings};

#[derive(Debug, Deserialize)]
struct Refused {
    error: Option<String>,
}

/// Where the client runs.
#[derive(Clone, Copy, Debug)]
enum Place<'a> {
    Node,
    /// In Chromium, in a page of this URL.
    Page(&'a str),
}

fn connect(place: Place<'_>, gateway: &Gateway, transport: &str, skip_negotiation: bool) -> String {
    let url = format!("{}/chat", gateway.envoy.url());
    let mut options = json!({ "url": url, "transport": transport, "skipNegotiation": skip_negotiation });
    let refused: Refused = match place {
        Place::Node => drive_node("refused.mjs", &options, PATIENCE).unwrap(),
        Place::Page(page) => {
            options["page"] = page.into();
            drive_chromium("refused.mjs", &options).unwrap()
        }
    };
    refused.error.unwrap_or_else(|| panic!("{place:?} {transport}: connected"))
}

#[test]
fn clients_tell_their_users_that_a_limit_was_reached() {
    // A page of the hub's own is on another site than the gateway, which is addressed by IP.
    let hub = Hub::start(&HubOptions::default()).unwrap();
    let page = format!("{}/healthz", hub.url_by_name());
    let origin = hub.url_by_name();
    let hub = [Hub::start(&HubOptions { cors_origins: vec![origin.clone()], ..HubOptions::default() }).unwrap()];
    let gateway = |reject: Value| {
        let limits = json!({ "connections": { "per_client": 1 }, "reject": reject });
        let filter = settings(&limits);
        let gateway = Gateway::start(EnvoyOptions { filter, hosts: addresses(&hub), ..EnvoyOptions::default() });
        let client = gateway.client();
        let open = client.socket(&client.negotiate().unwrap()).unwrap();
        (gateway, open)
    };
    let reason = "Connection limit reached: this client has too many connections open.";
    let allowed = json!([origin]);
    let (by_status, _one) = gateway(json!({ "allow_origins": allowed }));
    let (by_error, _two) = gateway(json!({ "allow_origins": allowed, "negotiate": "error" }));
    let (unreadable, _three) = gateway(json!({}));
    let (node, browser) = (Place::Node, Place::Page(&page));
    let status_too = format!("{reason}: Status code '429'");
    for (name, place, gateway, skip, expected) in [
        ("negotiate by status", node, &by_status, false, status_too.as_str()),
        ("negotiate by error", node, &by_error, false, reason),
        ("negotiate by status", browser, &by_status, false, &status_too),
        ("negotiate by error", browser, &by_error, false, reason),
        // A browser tells no page why a WebSocket failed, and Node's WebSocket tells the client nothing, either.
        ("skipped", node, &by_status, true, "WebSocket failed to connect."),
        ("skipped", browser, &by_status, true, "WebSocket failed to connect."),
        // Nor can a page read an answer whose origin is not its own.
        ("not allowed", browser, &unreadable, false, "Failed to fetch"),
    ] {
        let error = connect(place, gateway, "WebSockets", skip);
        println!("{name}, {place:?}: {error}");
        assert!(error.contains(expected), "{name}, {place:?}: {error}");
        let names_the_limit = error.contains("Connection limit reached");
        assert_eq!(names_the_limit, !skip && name != "not allowed", "{name}, {place:?}: {error}");
    }
    for transport in ["ServerSentEvents", "LongPolling"] {
        let error = connect(node, &by_status, transport, false);
        assert!(error.contains(reason), "{transport}: {error}");
    }
}
