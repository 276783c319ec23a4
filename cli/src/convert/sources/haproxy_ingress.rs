//! The two controllers with HAProxy: haproxy-ingress (`haproxy-ingress.github.io/`, before `ingress.kubernetes.io/`) and that of HAProxy
//! Technologies (`haproxy.org/`).

use std::time::Duration;

use super::Reader;
use crate::convert::ask::{Ask, ELSEWHERE, HASH, IDLE, UPGRADE, duration, truth};

const SECOND: Duration = Duration::from_secs(1);

/// One annotation of haproxy-ingress, without its prefix.
pub(super) fn annotation(reader: &mut Reader<'_>, name: &str, pointer: &str) {
    let text = reader.text(pointer).unwrap_or_default();
    let text = text.trim();
    let asks = match name {
        "affinity" if text == "cookie" => vec![Ask::ClientCookie],
        "affinity" => vec![Ask::not("`cookie`, which is the one kind that haproxy-ingress has")],
        "session-cookie-name" => vec![Ask::Cookie("name", text.into())],
        "session-cookie-domain" => vec![Ask::Cookie("domain", text.into())],
        "session-cookie-same-site" if truth(text) == Some(true) => vec![Ask::Cookie("same_site", "none".into())],
        "session-cookie-same-site" => vec![Ask::same("the default is `lax`")],
        "session-cookie-keywords" => text.split_whitespace().filter_map(keyword).collect(),
        "session-cookie-strategy" if text == "insert" => vec![Ask::same("the filter sets a cookie of its own")],
        "session-cookie-strategy" => {
            vec![Ask::impossible("the application's own cookie is not touched; the filter sets one of its own")]
        }
        "session-cookie-dynamic"
        | "session-cookie-preserve"
        | "session-cookie-shared"
        | "session-cookie-value-strategy"
        | "cookie-key" => vec![Ask::better("the cookie holds the sealed route: nothing to set")],
        "limit-connections" => vec![Ask::per_client_in(text)],
        // `conn_rate(1s)`, and a client that is over it is refused.
        "limit-rps" => vec![rate(text, SECOND)],
        "limit-whitelist" | "limit-allowlist" => vec![Ask::Exempt(text.split(',').map(str::to_owned).collect())],
        "balance-algorithm" if is_hash(text) => vec![Ask::better(HASH)],
        "balance-algorithm" => vec![Ask::left("how new connections are spread: `lb_policy`")],
        "timeout-tunnel" | "timeout-client" | "timeout-server" => vec![Ask::better(IDLE)],
        "maxconn-server" | "maxqueue-server" => vec![Ask::left("connections to a pod: `circuit_breakers`")],
        "service-upstream" if truth(text) == Some(true) => vec![Ask::impossible(
            "the gateway must know the pods to lead a connection to one, and the service's address hides them",
        )],
        "drain-support" | "drain-support-redispatch" => {
            vec![Ask::better("pods that drain keep their connections: DRAINING in `override_host_status`")]
        }
        "websocket" => vec![Ask::better(UPGRADE)],
        "whitelist-source-range" | "allowlist-source-range" | "denylist-source-range" => {
            vec![Ask::left("access by address: AuthorizationPolicy in Istio, SecurityPolicy in Envoy Gateway")]
        }
        _ => vec![Ask::left(ELSEWHERE)],
    };
    reader.take_all(pointer, asks);
}

/// One annotation of HAProxy Technologies' controller, without its prefix.
pub(super) fn annotation_of_haproxy_technologies(reader: &mut Reader<'_>, name: &str, pointer: &str) {
    const PREFIX: &str = "/metadata/annotations/haproxy.org~1";
    let text = reader.text(pointer).unwrap_or_default();
    let text = text.trim();
    let asks = match name {
        "cookie-persistence" | "cookie-persistence-no-dynamic" => {
            let name = text.split_whitespace().next().unwrap_or_default();
            vec![Ask::ClientCookie, Ask::Cookie("name", name.into())]
        }
        "rate-limit-requests" => {
            let period = reader.text(&format!("{PREFIX}rate-limit-period"));
            vec![
                duration(period.as_deref().unwrap_or("1s"), "ms")
                    .map_or_else(|| Ask::not("a time"), |per| rate(text, per)),
            ]
        }
        "rate-limit-period" => vec![Ask::same("`per` of the rates")],
        "rate-limit-status-code" => Ask::status(text),
        "rate-limit-whitelist" => vec![Ask::Exempt(text.split(',').map(str::to_owned).collect())],
        "rate-limit-size" => vec![Ask::better("the filter counts without a table: nothing to set")],
        "load-balance" if is_hash(text) => vec![Ask::better(HASH)],
        "load-balance" => vec![Ask::left("how new connections are spread: `lb_policy`")],
        "timeout-tunnel" | "timeout-client" | "timeout-server" => vec![Ask::better(IDLE)],
        "pod-maxconn" => vec![Ask::left("connections to a pod: `circuit_breakers`")],
        "src-ip-header" => {
            vec![Ask::Set(
                "limits.client.key",
                serde_json::json!({ "header": text.to_ascii_lowercase(), "as": "address" }),
            )]
        }
        _ => vec![Ask::left(ELSEWHERE)],
    };
    reader.take_all(pointer, asks);
}

fn is_hash(text: &str) -> bool {
    ["source", "uri", "url_param", "hdr", "hash", "rdp-cookie"].iter().any(|kind| text.starts_with(kind))
}

/// No more than so many in the time.
fn rate(text: &str, per: Duration) -> Ask {
    match text.parse() {
        Ok(0) => Ask::same("0 is no limit"),
        Ok(requests) => Ask::Rate { requests, per, burst: requests },
        Err(_) => Ask::not("a whole number"),
    }
}

fn keyword(word: &str) -> Option<Ask> {
    match word {
        "httponly" => Some(Ask::Cookie("http_only", true.into())),
        "secure" => Some(Ask::Cookie("secure", true.into())),
        "indirect" | "nocache" => Some(Ask::Same(format!("`{word}`: the hub never sees the cookie"))),
        _ => Some(Ask::Impossible(format!("`{word}`: the filter's cookie has no such attribute"))),
    }
}
