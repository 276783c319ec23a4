//! A hub that Envoy itself is: it answers every negotiate and every poll at once. For requests by the thousand.

use serde_json::{Value, json};
use testbed::envoy::{EnvoyOptions, Filter, Hosts, negotiate_route, put_routes_first};

/// An Envoy with four worker threads and these limits before no other hub.
pub(crate) fn options(limits: &Value, change: fn(&mut Value)) -> EnvoyOptions {
    EnvoyOptions {
        // Listed, because Envoy's own answers teach the filter no hubs.
        filter: Filter::With(json!({ "hubs": [{ "path": "/chat" }], "limits": limits })),
        hosts: Hosts::Changing(Vec::new()),
        patch: Some(Box::new(move |bootstrap| {
            let others = json!({ "match": { "path": "/chat" }, "direct_response": { "status": 200 } });
            put_routes_first(bootstrap, vec![negotiate_route("/chat/negotiate"), others]);
            change(bootstrap);
        })),
        ..EnvoyOptions::default()
    }
}

pub(crate) fn negotiate(user: &str) -> String {
    request("POST /chat/negotiate?negotiateVersion=1", user)
}

pub(crate) fn poll(user: &str, id: &str) -> String {
    request(&format!("GET /chat?id={id}"), user)
}

pub(crate) fn delete(user: &str, id: &str) -> String {
    request(&format!("DELETE /chat?id={id}"), user)
}

fn request(start: &str, user: &str) -> String {
    format!("{start} HTTP/1.1\r\nhost: gateway\r\nx-user: {user}\r\ncontent-length: 0\r\n\r\n")
}
