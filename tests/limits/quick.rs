//! A hub that Envoy itself is: it answers every negotiate and every poll at once. For requests by the thousand.

use serde_json::{Value, json};
use testbed::envoy::{EnvoyOptions, Filter, Hosts, negotiate_route, put_routes_first};
use testbed::raw::Request;

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

pub(crate) fn negotiate(user: &str) -> Vec<u8> {
    Request::post("/chat/negotiate?negotiateVersion=1").with("x-user", user).bytes()
}

pub(crate) fn poll(user: &str, id: &str) -> Vec<u8> {
    Request::get(&format!("/chat?id={id}")).with("x-user", user).bytes()
}

pub(crate) fn delete(user: &str, id: &str) -> Vec<u8> {
    Request::new("DELETE", &format!("/chat?id={id}")).with("x-user", user).bytes()
}
