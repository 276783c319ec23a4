//! Envoy, by itself or in an EnvoyFilter: `stateful_session`, hashes and limits of its own, wherever they stand.

use serde_json::Value;

use super::Reader;
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
                    "it counts all requests together and stays; `limits` counts for each client, docs/limits.md",
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

fn search(value: &Value, pointer: &str, found: &mut Vec<(String, Kind)>) {
    let is_type = |name: &str| value.get("@type").and_then(Value::as_str).is_some_and(|own| own.ends_with(name));
    if is_type(".StatefulSession") {
        found.push((pointer.to_owned(), Kind::Session));
    } else if is_type(".LocalRateLimit") || is_type(".RateLimit") {
        found.push((pointer.to_owned(), Kind::Rate));
    } else if is_type(".ConnectionLimit") {
        found.push((pointer.to_owned(), Kind::Connections));
    }
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let pointer = format!("{pointer}/{}", crate::check::document::escaped(name));
                match name.as_str() {
                    "hash_policy" | "hashPolicy" => found.push((pointer, Kind::Hash)),
                    "circuit_breakers" | "circuitBreakers" => found.push((pointer, Kind::Breakers)),
                    "lb_policy" | "lbPolicy" if member == "RING_HASH" || member == "MAGLEV" => {
                        found.push((pointer, Kind::Ring))
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

/// `stateful_session` with its state.
fn session(reader: &mut Reader<'_>, pointer: &str) {
    for leaf in reader.leaves(pointer) {
        let name = leaf.name.replace("sessionState", "session_state").replace("typedConfig", "typed_config");
        let ask = match name.trim_start_matches("session_state.typed_config.") {
            "cookie.name" => {
                reader.take_cookie(&leaf.pointer, Ask::Cookie("name", leaf.text.into()));
                continue;
            }
            "cookie.path" => Ask::Cookie("path", leaf.text.into()),
            "cookie.ttl" => Ask::max_age(&leaf.text, "s"),
            "cookie.attributes.name" => attribute(
                &leaf.text.to_ascii_lowercase(),
                reader.text(&format!("{}/value", parent(&leaf.pointer))).as_deref(),
            ),
            "strict" if leaf.text == "true" => Ask::impossible(
                "a pod that is gone has lost the connection; `strict: true` in the `stateful_session` of the filter would answer 503",
            ),
            // A header by name: the client's to send.
            "name" if leaf.pointer.contains("typed_config") || leaf.pointer.contains("typedConfig") => {
                Ask::better("the filter sets the header, so that no client can choose a pod")
            }
            _ => continue,
        };
        reader.take(&leaf.pointer, ask);
    }
}

fn parent(pointer: &str) -> &str {
    pointer.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn attribute(name: &str, value: Option<&str>) -> Ask {
    match name {
        "samesite" => Ask::same_site(value.unwrap_or_default()),
        "secure" => Ask::Cookie("secure", true.into()),
        "httponly" => Ask::Cookie("http_only", true.into()),
        "partitioned" => Ask::Cookie("partitioned", true.into()),
        "domain" => Ask::Cookie("domain", value.unwrap_or_default().into()),
        _ => Ask::impossible("the filter's cookie has no such attribute"),
    }
}

/// A route's `hash_policy`. A cookie with a `ttl` is one that Envoy sets; without, the application does.
fn hash(reader: &mut Reader<'_>, pointer: &str) {
    for policy in reader.items(pointer) {
        let cookie = format!("{policy}/cookie");
        if reader.get(&cookie).is_none() || reader.get(&format!("{cookie}/ttl")).is_none() {
            reader.take(&policy, Ask::better(HASH));
            continue;
        }
        for leaf in reader.leaves(&cookie) {
            let ask = match leaf.name.as_str() {
                "name" => {
                    reader.take_cookie(&leaf.pointer, Ask::Cookie("name", leaf.text.into()));
                    continue;
                }
                "path" => Ask::Cookie("path", leaf.text.into()),
                "ttl" => Ask::max_age(&leaf.text, "s"),
                "attributes.name" => attribute(
                    &leaf.text.to_ascii_lowercase(),
                    reader.text(&format!("{}/value", parent(&leaf.pointer))).as_deref(),
                ),
                _ => continue,
            };
            reader.take(&leaf.pointer, ask);
        }
    }
}
