//! The controller of NGINX Inc. (F5): annotations, `Policy`, and `sessionCookie` of `VirtualServer` and `VirtualServerRoute`.

use std::time::Duration;

use super::{Reader, nginx_words};
use crate::convert::ask::{
    Ask, BALANCING, CONNECT, ELSEWHERE, HASH, HIDDEN, IDLE, PREFIX, ROUTE, SHARED, UNBUFFERED, UNKNOWN_KEY, UPGRADE,
    address, truth,
};

const ANNOTATION: &str = "/metadata/annotations/nginx.org~1";
const TO_A_POD: &str = "connections to a pod: `circuit_breakers`, or `limits.connections.per_hub`";

/// One annotation, without its prefix.
pub(super) fn annotation(reader: &mut Reader<'_>, name: &str, pointer: &str) {
    let text = reader.text(pointer).unwrap_or_default();
    let text = text.trim();
    let of = |name: &str| reader.text(&format!("{ANNOTATION}{name}"));
    let asks = match name {
        "websocket-services" => vec![Ask::better(UPGRADE)],
        "sticky-cookie-services" => text.split(';').flat_map(sticky).collect(),
        "lb-method" if text.starts_with("ip_hash") || text.starts_with("hash") => vec![Ask::better(HASH)],
        "lb-method" => vec![Ask::left(BALANCING)],
        "limit-req-rate" => vec![rate(text, of("limit-req-burst"), of("limit-req-key"))],
        "limit-req-burst" if of("limit-req-rate").is_some() => vec![Ask::same("`burst` of the rates")],
        "limit-req-burst" => vec![Ask::void("there is no rate")],
        "limit-req-key" => vec![Ask::key(nginx_words::key(text))],
        "limit-req-reject-code" => Ask::status(text),
        "limit-req-dry-run" => vec![dry_run(text)],
        "limit-req-delay" | "limit-req-no-delay" => vec![Ask::better("a request within `burst` passes at once")],
        "limit-req-zone-size" | "limit-req-log-level" => vec![Ask::better("nothing to set")],
        "limit-req-scale" => vec![Ask::impossible(SHARED)],
        "max-conns" => vec![Ask::left(TO_A_POD)],
        "proxy-read-timeout" | "proxy-send-timeout" => vec![Ask::better(IDLE)],
        "proxy-connect-timeout" => vec![Ask::same(CONNECT)],
        "proxy-buffering" => vec![Ask::same(UNBUFFERED)],
        "server-snippets" | "location-snippets" => nginx_words::snippet(text),
        "rewrites" => vec![Ask::left(PREFIX)],
        "use-cluster-ip" if truth(text) == Some(true) => vec![Ask::impossible(HIDDEN)],
        _ => vec![Ask::left(ELSEWHERE)],
    };
    reader.take_all(pointer, asks);
}

/// `serviceName=hub srv_id expires=1h path=/ httponly`.
fn sticky(service: &str) -> Vec<Ask> {
    let mut words = service.split_whitespace();
    let (Some(first), Some(cookie)) = (words.next(), words.next()) else { return Vec::new() };
    if !first.starts_with("serviceName=") {
        return vec![Ask::not("`serviceName=NAME COOKIE …`")];
    }
    let attributes = words.map(|word| {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        attribute(name, value)
    });
    [Ask::ClientCookie, Ask::Cookie("name", cookie.into())].into_iter().chain(attributes).collect()
}

fn attribute(name: &str, value: &str) -> Ask {
    match (name, value) {
        ("expires", "max") => Ask::Cookie("max_age", "400days".into()),
        ("expires", _) => Ask::max_age(value, "s"),
        _ => Ask::attribute(name, value),
    }
}

/// `5r/s` or `30r/m`. Without a burst, nginx admits one request in each interval.
fn rate(text: &str, burst: Option<String>, key: Option<String>) -> Ask {
    let Some(key) = key.map_or(Some(address()), |key| nginx_words::key(&key)) else {
        return Ask::impossible(UNKNOWN_KEY);
    };
    let read = || {
        let (requests, unit) = text.split_once("r/")?;
        let per = match unit {
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            _ => return None,
        };
        let burst = burst.map_or(Some(0), |burst| burst.trim().parse::<u64>().ok())?;
        Some(Ask::Rate { requests: requests.parse().ok()?, per, burst: burst.saturating_add(1), key })
    };
    read().unwrap_or_else(|| Ask::not("a rate such as `5r/s`"))
}

fn dry_run(text: &str) -> Ask {
    if truth(text) == Some(true) { Ask::Set("limits.mode", "shadow".into()) } else { Ask::same("limits are enforced") }
}

/// A Policy with `rateLimit`.
pub(super) fn policy(reader: &mut Reader<'_>) {
    let of = |name: &str| reader.text(&format!("/spec/rateLimit/{name}"));
    let has_condition = reader.get("/spec/rateLimit/condition").is_some();
    let (burst, key) = (of("burst"), of("key"));
    for leaf in reader.leaves("/spec") {
        let text = leaf.text.as_str();
        let asks = match leaf.name.strip_prefix("rateLimit.") {
            Some("rate") if has_condition => vec![Ask::impossible("it holds for some clients only: see `condition`")],
            Some(name) if name.starts_with("condition") => {
                vec![Ask::impossible("a limit of the filter holds for all clients that are not exempt")]
            }
            Some("rate") => vec![rate(text, burst.clone(), key.clone())],
            Some("burst") => vec![Ask::same("`burst` of the rates")],
            Some("key") => vec![Ask::key(nginx_words::key(text))],
            Some("rejectCode") => Ask::status(text),
            Some("dryRun") => vec![dry_run(text)],
            Some("scale") => vec![Ask::impossible(SHARED)],
            Some(_) => vec![Ask::better("nothing to set")],
            None => vec![Ask::left(ELSEWHERE)],
        };
        reader.take_all(&leaf.pointer, asks);
    }
}

/// A VirtualServer or a VirtualServerRoute with `sessionCookie`.
pub(super) fn virtual_server(reader: &mut Reader<'_>) {
    for upstream in reader.items("/spec/upstreams") {
        let is_on =
            reader.text(&format!("{upstream}/sessionCookie/enable")).is_some_and(|text| truth(&text) == Some(true));
        for leaf in reader.leaves(&upstream) {
            let ask = match (leaf.name.strip_prefix("sessionCookie."), leaf.name.as_str()) {
                (Some(_), _) if !is_on => Ask::void("`sessionCookie` is not enabled"),
                (Some("enable"), _) => Ask::ClientCookie,
                (Some("name"), _) => Ask::Cookie("name", leaf.text.into()),
                (Some(name), _) => attribute(name, &leaf.text),
                (None, "lb-method") if leaf.text.contains("hash") => Ask::better(HASH),
                (None, "lb-method") => Ask::left(BALANCING),
                (None, "read-timeout" | "send-timeout") => Ask::better(IDLE),
                (None, "max-conns") => Ask::left(TO_A_POD),
                (None, "use-cluster-ip") if leaf.text == "true" => Ask::impossible(HIDDEN),
                // The rest is the route, which has a line of its own.
                (None, _) => continue,
            };
            reader.take(&leaf.pointer, ask);
        }
        let port = reader.text(&format!("{upstream}/port")).and_then(|port| port.parse().ok());
        if let Some(name) = reader.text(&format!("{upstream}/service")) {
            let namespace = reader.namespace();
            reader.take(&upstream, Ask::Service { name, namespace, port });
        }
    }
    reader.take_resource(Ask::left(ROUTE));
}
