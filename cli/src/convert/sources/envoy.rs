//! Envoy, by itself or in an EnvoyFilter: `stateful_session`, hashes and limits of its own, wherever they stand.

use serde_json::Value;

use super::{Leaf, Reader};
use crate::check::document::escaped;
use crate::convert::ask::{Ask, HASH, ROUTE};

/// Looks at every object of the document.
pub(super) fn read(reader: &mut Reader<'_>) {
    let root = reader.root.clone();
    let mut found = Vec::new();
    if let Some(value) = reader.document.value.pointer(&root) {
        search(value, "", &mut found);
    }
    for (pointer, kind) in found {
        match kind {
            Kind::Session => session(reader, &pointer),
            Kind::Hash => hash(reader, &pointer),
            Kind::Ring => reader.take(&pointer, Ask::better("any `lb_policy`: it chooses for new connections alone")),
            Kind::Rate => reader.take(
                &pointer,
                Ask::impossible(
                    "it stays and counts by its own descriptors; `limits` counts for each client, docs/limits.md",
                ),
            ),
            Kind::Connections => reader.take(&pointer, Ask::left("TCP connections of a listener; it stays")),
            Kind::Breakers => reader.take(&pointer, Ask::left("connections to the hubs; each WebSocket is one")),
            Kind::Routes => reader.take(&pointer, Ask::left(ROUTE)),
        }
    }
}

enum Kind {
    Session,
    Hash,
    Ring,
    Rate,
    Connections,
    Breakers,
    Routes,
}

impl Kind {
    /// By the type of an extension's configuration.
    fn of_type(name: &str) -> Option<Self> {
        Some(match name.rsplit('.').next()? {
            "StatefulSession" | "StatefulSessionPerRoute" => Self::Session,
            "LocalRateLimit" | "RateLimit" => Self::Rate,
            "ConnectionLimit" => Self::Connections,
            "RingHash" | "Maglev" => Self::Ring,
            _ => return None,
        })
    }
}

fn search(value: &Value, pointer: &str, found: &mut Vec<(String, Kind)>) {
    let kind = value.get("@type").and_then(Value::as_str).and_then(Kind::of_type);
    found.extend(kind.map(|kind| (pointer.to_owned(), kind)));
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let pointer = format!("{pointer}/{}", escaped(name));
                match name.as_str() {
                    "hash_policy" | "hashPolicy" => found.push((pointer, Kind::Hash)),
                    "circuit_breakers" | "circuitBreakers" => found.push((pointer, Kind::Breakers)),
                    "lb_policy" | "lbPolicy" if member == "RING_HASH" || member == "MAGLEV" => {
                        found.push((pointer, Kind::Ring));
                    }
                    "virtual_hosts" | "virtualHosts" => {
                        found.push((pointer.clone(), Kind::Routes));
                        search(member, &pointer, found);
                    }
                    _ => search(member, &pointer, found),
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                search(item, &format!("{pointer}/{index}"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// `stateful_session` with its state, also that of a route.
fn session(reader: &mut Reader<'_>, pointer: &str) {
    const STATE: [&str; 4] = ["stateful_session.", "statefulSession.", "session_state.", "sessionState."];
    for leaf in reader.leaves(pointer) {
        let mut name = leaf.name.as_str();
        while let Some(rest) = STATE.iter().find_map(|prefix| name.strip_prefix(prefix)) {
            name = rest;
        }
        let is_state = name != leaf.name;
        let name = name.strip_prefix("typed_config.").or_else(|| name.strip_prefix("typedConfig.")).unwrap_or(name);
        if let Some(field) = name.strip_prefix("cookie.") {
            cookie(reader, &leaf, field);
            continue;
        }
        let ask = match name {
            "strict" if leaf.text == "true" => Ask::impossible(
                "a pod that is gone has lost the connection; `strict: true` in the `stateful_session` of the filter would answer 503",
            ),
            // The state's own name has a dot in it, a header has none.
            "name" | "header.name" if is_state && !leaf.text.starts_with("envoy.") => {
                Ask::better("the filter sets the header, so that no client can choose a pod")
            }
            _ => continue,
        };
        reader.take(&leaf.pointer, ask);
    }
}

/// A route's `hash_policy`. A cookie with a `ttl` is one that Envoy sets; without, the application does.
fn hash(reader: &mut Reader<'_>, pointer: &str) {
    for policy in reader.items(pointer) {
        let cookie = format!("{policy}/cookie");
        if reader.get(&format!("{cookie}/ttl")).is_none() {
            reader.take(&policy, Ask::better(HASH));
            continue;
        }
        for leaf in reader.leaves(&cookie) {
            self::cookie(reader, &leaf, &leaf.name);
        }
    }
}

/// A field of a cookie that Envoy sets, by its name in the cookie's message, which Istio shares.
pub(super) fn cookie(reader: &mut Reader<'_>, leaf: &Leaf, field: &str) {
    match field {
        "name" => reader.take_cookie(&leaf.pointer, Ask::Cookie("name", leaf.text.as_str().into())),
        "path" => reader.take(&leaf.pointer, Ask::Cookie("path", leaf.text.as_str().into())),
        "ttl" => reader.take(&leaf.pointer, Ask::max_age(&leaf.text, "s")),
        "attributes.name" => {
            let value = leaf.pointer.rsplit_once('/').and_then(|(item, _)| reader.text(&format!("{item}/value")));
            reader.take(&leaf.pointer, Ask::attribute(&leaf.text, &value.unwrap_or_default()));
        }
        // The value of an attribute, which its name has brought along.
        _ => {}
    }
}
