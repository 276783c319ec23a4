//! Istio: DestinationRules, and the labels of a Service for its own sessions.

use super::Reader;
use crate::convert::ask::{Ask, HASH};

const STAYS: &str = "it stays in the DestinationRule";

/// A DestinationRule with its subsets and ports.
pub(super) fn destination_rule(reader: &mut Reader<'_>) {
    for leaf in reader.leaves("/spec") {
        // The same in a subset, and for a port.
        let name = leaf
            .name
            .trim_start_matches("subsets.")
            .trim_start_matches("trafficPolicy.")
            .trim_start_matches("portLevelSettings.");
        let hash = name.strip_prefix("loadBalancer.consistentHash.");
        let ask = match (hash, name) {
            (Some("httpCookie.name"), _) => {
                reader.take_cookie(&leaf.pointer, Ask::Cookie("name", leaf.text.into()));
                continue;
            }
            (Some("httpCookie.path"), _) => Ask::Cookie("path", leaf.text.into()),
            (Some("httpCookie.ttl"), _) => Ask::max_age(&leaf.text, "s"),
            (Some("httpCookie.attributes.name"), _) => {
                let value = leaf.pointer.rsplit_once('/').and_then(|(item, _)| reader.text(&format!("{item}/value")));
                attribute(&leaf.text, &value.unwrap_or_default())
            }
            (Some("httpCookie.attributes.value"), _) => continue,
            (Some(_), _) => Ask::better(HASH),
            (None, "loadBalancer.simple") => {
                Ask::left("how new connections are spread: it stays in the DestinationRule")
            }
            (None, name) if name.starts_with("connectionPool.tcp.maxConnections") => Ask::left(
                "it stays in the DestinationRule; each WebSocket is a connection, and `limits` holds for clients and hubs",
            ),
            (None, name)
                if name.starts_with("connectionPool.http.idleTimeout") || name.contains("maxConnectionDuration") =>
            {
                Ask::left(
                    "it stays in the DestinationRule; it must be longer than a connection is silent, which is 15 s",
                )
            }
            (None, name) if name.starts_with("connectionPool.") => Ask::left(STAYS),
            (None, name) if name.starts_with("outlierDetection.") => Ask::left(
                "it stays in the DestinationRule; a pod that it ejects keeps its connections: UNHEALTHY in `override_host_status`",
            ),
            _ => Ask::left(STAYS),
        };
        reader.take(&leaf.pointer, ask);
    }
}

fn attribute(name: &str, value: &str) -> Ask {
    match name.to_ascii_lowercase().as_str() {
        "samesite" => Ask::same_site(value),
        "secure" => Ask::Cookie("secure", true.into()),
        "httponly" => Ask::Cookie("http_only", true.into()),
        "partitioned" => Ask::Cookie("partitioned", true.into()),
        "domain" => Ask::Cookie("domain", value.into()),
        _ => Ask::impossible("the filter's cookie has no such attribute"),
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
