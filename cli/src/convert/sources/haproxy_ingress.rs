//! The two controllers with HAProxy: haproxy-ingress (`haproxy-ingress.github.io/`, before `ingress.kubernetes.io/`) and that of HAProxy
//! Technologies (`haproxy.org/`, `haproxy.com/`, before `ingress.kubernetes.io/`). Most settings may also stand in their ConfigMap.

use std::time::Duration;

use super::Reader;
use crate::convert::ask::{
    ACCESS, Ask, BALANCING, ELSEWHERE, HASH, HIDDEN, IDLE, NO_TABLE, OWN_COOKIE, UPGRADE, address_in, duration, truth,
};

const SECOND: Duration = Duration::from_secs(1);
const TO_A_POD: &str = "connections to a pod: `circuit_breakers`";

/// One annotation of haproxy-ingress, without its prefix.
pub(super) fn annotation(reader: &mut Reader<'_>, name: &str, pointer: &str) {
    let text = reader.text(pointer).unwrap_or_default();
    let prefix = pointer.strip_suffix(name).unwrap_or_default();
    let strategy = reader.text(&format!("{prefix}session-cookie-strategy"));
    let period = reader.text(&format!("{prefix}rate-limit-period"));
    let is_own = strategy.is_some_and(|strategy| strategy.trim() != "insert");
    let asks = match name {
        "session-cookie-name" if is_own => Some(vec![Ask::impossible(OWN_COOKIE)]),
        _ => of_haproxy_ingress(name, text.trim())
            .or_else(|| of_haproxy_technologies(name, text.trim(), period.as_deref())),
    };
    reader.take_all(pointer, asks.unwrap_or_else(|| vec![Ask::left(ELSEWHERE)]));
}

/// One annotation of HAProxy Technologies' controller, without its prefix.
pub(super) fn annotation_of_haproxy_technologies(reader: &mut Reader<'_>, name: &str, pointer: &str) {
    let text = reader.text(pointer).unwrap_or_default();
    let prefix = pointer.strip_suffix(name).unwrap_or_default();
    let period = reader.text(&format!("{prefix}rate-limit-period"));
    let mut asks =
        of_haproxy_technologies(name, text.trim(), period.as_deref()).unwrap_or_else(|| vec![Ask::left(ELSEWHERE)]);
    if let Some(header) = reader.text(&format!("{prefix}src-ip-header")) {
        for ask in &mut asks {
            if let Ask::Rate { key, .. } = ask {
                *key = address_in(&header);
            }
        }
    }
    reader.take_all(pointer, asks);
}

/// A setting in the ConfigMap of either, by its name there.
pub(super) fn config_map(name: &str, text: &str) -> Option<Vec<Ask>> {
    of_haproxy_ingress(name, text).or_else(|| of_haproxy_technologies(name, text, None))
}

fn of_haproxy_ingress(name: &str, text: &str) -> Option<Vec<Ask>> {
    Some(match name {
        "affinity" if text == "cookie" => vec![Ask::ClientCookie],
        "affinity" => vec![Ask::not("`cookie`, which is the one kind that haproxy-ingress has")],
        "session-cookie-name" => vec![Ask::Cookie("name", text.into())],
        "session-cookie-domain" => vec![Ask::Cookie("domain", text.into())],
        "session-cookie-same-site" if truth(text) == Some(true) => vec![Ask::Cookie("same_site", "none".into())],
        "session-cookie-same-site" => vec![Ask::same("the default is `lax`")],
        "session-cookie-keywords" => text.split_whitespace().map(keyword).collect(),
        "session-cookie-strategy" if text == "insert" => vec![Ask::same("the filter sets a cookie of its own")],
        "session-cookie-strategy" => vec![Ask::impossible(OWN_COOKIE)],
        "session-cookie-dynamic"
        | "session-cookie-preserve"
        | "session-cookie-shared"
        | "session-cookie-value-strategy"
        | "cookie-key" => {
            vec![Ask::better("the cookie holds the sealed route: nothing to set")]
        }
        "limit-connections" => vec![Ask::per_address(text)],
        // `conn_rate(1s)`, and a client that is over it is refused.
        "limit-rps" => vec![Ask::rate_of_address(text, SECOND)],
        "limit-whitelist" | "limit-allowlist" => vec![Ask::exempt(text)],
        "balance-algorithm" if is_hash(text) => vec![Ask::better(HASH)],
        "balance-algorithm" => vec![Ask::left(BALANCING)],
        "timeout-tunnel" | "timeout-client" | "timeout-server" => vec![Ask::better(IDLE)],
        "maxconn-server" | "maxqueue-server" => vec![Ask::left(TO_A_POD)],
        "service-upstream" if truth(text) == Some(true) => vec![Ask::impossible(HIDDEN)],
        "drain-support" | "drain-support-redispatch" => {
            vec![Ask::better("pods that drain keep their connections: DRAINING in `override_host_status`")]
        }
        "websocket" => vec![Ask::better(UPGRADE)],
        "whitelist-source-range" | "allowlist-source-range" | "denylist-source-range" => vec![Ask::left(ACCESS)],
        _ if is_raw(name) => vec![raw()],
        _ => return None,
    })
}

/// Without a period it is a second.
fn of_haproxy_technologies(name: &str, text: &str, period: Option<&str>) -> Option<Vec<Ask>> {
    Some(match name {
        "cookie-persistence" | "cookie-persistence-no-dynamic" => {
            let name = text.split_whitespace().next().unwrap_or_default();
            vec![Ask::ClientCookie, Ask::Cookie("name", name.into())]
        }
        "rate-limit-requests" => vec![
            duration(period.unwrap_or("1s"), "ms")
                .map_or_else(|| Ask::not("a time"), |per| Ask::rate_of_address(text, per)),
        ],
        "rate-limit-period" => vec![Ask::same("`per` of the rates")],
        "rate-limit-status-code" => Ask::status(text),
        "rate-limit-whitelist" => vec![Ask::exempt(text)],
        "rate-limit-size" => vec![Ask::better(NO_TABLE)],
        "load-balance" if is_hash(text) => vec![Ask::better(HASH)],
        "load-balance" => vec![Ask::left(BALANCING)],
        "timeout-tunnel" | "timeout-client" | "timeout-server" => vec![Ask::better(IDLE)],
        "pod-maxconn" => vec![Ask::left(TO_A_POD)],
        "src-ip-header" => vec![Ask::Key(address_in(text))],
        _ if is_raw(name) => vec![raw()],
        _ => return None,
    })
}

/// Text for the configuration of HAProxy.
fn is_raw(name: &str) -> bool {
    name.starts_with("config-") || name.ends_with("-snippet")
}

fn raw() -> Ask {
    Ask::impossible("a part of haproxy.cfg is not read here: convert it as a file with its section around it")
}

fn is_hash(text: &str) -> bool {
    ["source", "uri", "url_param", "hdr", "hash", "rdp-cookie"].iter().any(|kind| text.starts_with(kind))
}

fn keyword(word: &str) -> Ask {
    match word {
        "httponly" | "secure" => Ask::attribute(word, ""),
        "indirect" | "nocache" => Ask::Same(format!("`{word}`: the hub never sees the cookie")),
        _ => Ask::Impossible(format!("`{word}`: the filter's cookie has no such attribute")),
    }
}
