//! Istio: DestinationRules, and the labels of a Service for its own sessions.

use super::{Reader, envoy};
use crate::convert::ask::{Ask, BALANCING, HASH};

/// A DestinationRule with its subsets and ports.
pub(super) fn destination_rule(reader: &mut Reader<'_>) {
    const COOKIE: &str = "loadBalancer.consistentHash.httpCookie.";
    for leaf in reader.leaves("/spec") {
        // The same in a subset, and for a port.
        let name = leaf.name.trim_start_matches("subsets.").trim_start_matches("trafficPolicy.");
        let name = name.trim_start_matches("portLevelSettings.");
        let cookie = leaf.pointer.find("/httpCookie/").and_then(|end| leaf.pointer.get(..end));
        // Without a life, Envoy sets none: it is the application's.
        let sets_cookie = cookie.is_some_and(|before| reader.get(&format!("{before}/httpCookie/ttl")).is_some());
        if let Some(field) = name.strip_prefix(COOKIE).filter(|_| sets_cookie) {
            envoy::cookie(reader, &leaf, field);
            continue;
        }
        let ask = match name {
            _ if name.starts_with("loadBalancer.consistentHash.") => Ask::better(HASH),
            "loadBalancer.simple" => Ask::left(BALANCING),
            "connectionPool.tcp.maxConnections" => Ask::left(
                "it stays in the DestinationRule; each WebSocket is a connection, and `limits` holds for clients and hubs",
            ),
            _ if name.ends_with("maxConnectionDuration") => {
                Ask::left("it stays in the DestinationRule, and may close connections that are so old")
            }
            _ if name.starts_with("outlierDetection.") => Ask::left(
                "it stays in the DestinationRule; a pod that it ejects keeps its connections: UNHEALTHY in `override_host_status`",
            ),
            _ => Ask::left("it stays in the DestinationRule"),
        };
        reader.take(&leaf.pointer, ask);
    }
}

/// The labels with which istiod makes a `stateful_session` of its own.
pub(super) fn labels(reader: &mut Reader<'_>) {
    for (name, pointer) in reader.members("/metadata/labels") {
        let text = reader.text(&pointer).unwrap_or_default();
        match name.as_str() {
            "istio.io/persistent-session" => {
                let (name, path) = text.split_once(':').unwrap_or((&text, ""));
                reader.take_cookie(&pointer, Ask::Cookie("name", name.into()));
                if !path.is_empty() {
                    reader.take(&pointer, Ask::Cookie("path", path.into()));
                }
                reader.take(&pointer, Ask::better("take the label off: the gateway would steer by its cookie, too"));
            }
            "istio.io/persistent-session-header" => reader.take(
                &pointer,
                Ask::better(
                    "take the label off: each connection keeps its pod by its id, also where clients send no header",
                ),
            ),
            _ => {}
        }
    }
}
