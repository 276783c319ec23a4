//! The controller of NGINX Inc. (F5): annotations, `Policy` and `VirtualServer`.

use std::time::Duration;

use super::{Reader, nginx_words};
use crate::convert::ask::{Ask, ELSEWHERE, HASH, IDLE, ROUTE, UPGRADE, truth};

const PREFIX: &str = "/metadata/annotations/nginx.org~1";

/// One annotation, without its prefix.
pub(super) fn annotation(reader: &mut Reader<'_>, name: &str, pointer: &str) {
    let text = reader.text(pointer).unwrap_or_default();
    let text = text.trim();
    let asks = match name {
        "websocket-services" => vec![Ask::better(UPGRADE)],
        "sticky-cookie-services" => text.split(';').flat_map(sticky).collect(),
        "lb-method" if text.starts_with("ip_hash") || text.starts_with("hash") => vec![Ask::better(HASH)],
        "lb-method" => vec![Ask::left("how new connections are spread: `lb_policy`")],
        "limit-req-rate" => vec![rate(text, reader.text(&format!("{PREFIX}limit-req-burst")))],
        "limit-req-burst" if reader.get(&format!("{PREFIX}limit-req-rate")).is_some() => {
            vec![Ask::same("`burst` of the rates")]
        }
        "limit-req-key" => vec![nginx_words::key(text)],
        "limit-req-reject-code" => Ask::status(text),
        "limit-req-dry-run" if truth(text) == Some(true) => vec![Ask::Set("limits.mode", "shadow".into())],
        "limit-req-dry-run" => vec![Ask::same("limits are enforced")],
        "limit-req-delay" | "limit-req-no-delay" => vec![Ask::better("a request within `burst` passes at once")],
        "limit-req-zone-size" | "limit-req-log-level" => vec![Ask::better("nothing to set")],
        "limit-req-scale" => vec![Ask::impossible(
            "each gateway counts for itself: divide the rate by the number of gateways, docs/limits.md",
        )],
        "limit-req-burst" => vec![Ask::void("there is no rate")],
        "max-conns" => vec![Ask::left("connections to a pod: `circuit_breakers`, or `limits.connections.per_hub`")],
        "proxy-read-timeout" | "proxy-send-timeout" => vec![Ask::better(IDLE)],
        "proxy-connect-timeout" => vec![Ask::same("1 s; a request that no pod has seen goes to another pod")],
        "proxy-buffering" => vec![Ask::same("Envoy passes on each part as it comes")],
        "server-snippets" | "location-snippets" => nginx_words::snippet(text),
        "rewrites" => {
            vec![Ask::left("a route; the path of a hub in `hubs` is the one that clients see, any prefix included")]
        }
        "use-cluster-ip" => vec![Ask::impossible(
            "the gateway must know the pods to lead a connection to one, and the service's address hides them",
        )],
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
        attribute(&name.to_ascii_lowercase(), value)
    });
    [Ask::ClientCookie, Ask::Cookie("name", cookie.into())].into_iter().chain(attributes).collect()
}

fn attribute(name: &str, value: &str) -> Ask {
    match name {
        "expires" if value == "max" => Ask::Cookie("max_age", "400days".into()),
        "expires" => Ask::max_age(value, "s"),
        "path" => Ask::Cookie("path", value.into()),
        "domain" => Ask::Cookie("domain", value.into()),
        "httponly" => Ask::Cookie("http_only", (value != "false").into()),
        "secure" => Ask::Cookie("secure", (value != "false").into()),
        "samesite" => Ask::same_site(value),
        _ => Ask::not("an attribute of the cookie"),
    }
}

/// `5r/s` or `30r/m`. Without a burst, nginx admits one request in each interval.
fn rate(text: &str, burst: Option<String>) -> Ask {
    let read = || {
        let (requests, unit) = text.split_once("r/")?;
        let per = match unit {
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            _ => return None,
        };
        let burst = burst.map_or(Some(0), |burst| burst.trim().parse::<u64>().ok())?;
        Some(Ask::Rate { requests: requests.parse().ok()?, per, burst: burst.saturating_add(1) })
    };
    read().unwrap_or_else(|| Ask::not("a rate such as `5r/s`"))
}

/// A Policy with `rateLimit`.
pub(super) fn policy(reader: &mut Reader<'_>) {
    for leaf in reader.leaves("/spec") {
        let text = leaf.text.as_str();
        let asks = match leaf.name.as_str() {
            "rateLimit.rate" => vec![rate(text, reader.text("/spec/rateLimit/burst"))],
            "rateLimit.burst" => vec![Ask::same("`burst` of the rates")],
            "rateLimit.key" => vec![nginx_words::key(text)],
            "rateLimit.rejectCode" => Ask::status(text),
            "rateLimit.dryRun" if text == "true" => vec![Ask::Set("limits.mode", "shadow".into())],
            "rateLimit.scale" => {
                vec![Ask::impossible("each gateway counts for itself: divide the rate by their number")]
            }
            name if name.starts_with("rateLimit.") => vec![Ask::better("nothing to set")],
            _ => vec![Ask::left(ELSEWHERE)],
        };
        reader.take_all(&leaf.pointer, asks);
    }
}

/// A VirtualServer with `sessionCookie`.
pub(super) fn virtual_server(reader: &mut Reader<'_>) {
    for upstream in reader.items("/spec/upstreams") {
        let is_on = reader.text(&format!("{upstream}/sessionCookie/enable")).as_deref() == Some("true");
        for leaf in reader.leaves(&upstream) {
            let ask = match leaf.name.as_str() {
                "sessionCookie.enable" if is_on => Ask::ClientCookie,
                "sessionCookie.name" => Ask::Cookie("name", leaf.text.into()),
                name if name.starts_with("sessionCookie.") => {
                    attribute(&name.trim_start_matches("sessionCookie.").to_ascii_lowercase(), &leaf.text)
                }
                "lb-method" if leaf.text.contains("hash") => Ask::better(HASH),
                "read-timeout" | "send-timeout" => Ask::better(IDLE),
                "max-conns" => Ask::left("connections to a pod: `circuit_breakers`"),
                _ => continue,
            };
            reader.take(&leaf.pointer, ask);
        }
    }
    reader.take_resource(Ask::left(ROUTE));
}
