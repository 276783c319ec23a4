//! ingress-nginx: annotations of an Ingress, and the ConfigMap of the controller.

use std::time::Duration;

use super::{Reader, nginx_words};
use crate::convert::ask::{
    ACCESS, ADDRESS, Ask, BALANCING, CONNECT, ELSEWHERE, HASH, HIDDEN, IDLE, PREFIX, REPLACED, ROUTE, SHARED,
    UNBUFFERED, UPGRADE, VERSIONS, address, truth,
};

const ANNOTATION: &str = "/metadata/annotations/nginx.ingress.kubernetes.io~1";
/// Of `limit-rps` and `limit-rpm`, by default.
const BURST_MULTIPLIER: u64 = 5;
const BANDWIDTH: &str = "the filter limits no bandwidth";
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// One annotation, without its prefix.
pub(super) fn annotation(reader: &mut Reader<'_>, name: &str, pointer: &str) {
    let text = reader.text(pointer).unwrap_or_default();
    let text = text.trim();
    let of = |name: &str| reader.text(&format!("{ANNOTATION}{name}"));
    let asks = match name {
        "affinity" if text == "cookie" => vec![Ask::ClientCookie],
        "affinity" => vec![Ask::not("`cookie`, which is the one kind that ingress-nginx has")],
        "affinity-mode" => vec![mode(text)],
        "affinity-canary-behavior" if text == "legacy" => vec![Ask::left("routes by weight choose anew, as before")],
        "affinity-canary-behavior" => vec![Ask::left(VERSIONS)],
        "session-cookie-name" => vec![Ask::Cookie("name", text.into())],
        "session-cookie-path" => vec![Ask::Cookie("path", text.into())],
        "session-cookie-domain" => vec![Ask::Cookie("domain", text.into())],
        "session-cookie-secure" => vec![Ask::flag("secure", text)],
        "session-cookie-partitioned" => vec![Ask::flag("partitioned", text)],
        "session-cookie-samesite" => vec![Ask::same_site(text)],
        "session-cookie-max-age" => vec![Ask::max_age(text, "s")],
        "session-cookie-expires" if of("session-cookie-max-age").is_some() => {
            vec![Ask::same("`session-cookie-max-age` wins in every browser")]
        }
        "session-cookie-expires" => vec![Ask::max_age(text, "s")],
        "session-cookie-conditional-samesite-none" => {
            vec![Ask::impossible(
                "the filter does not judge browsers; one that drops the cookie has the route in its ids",
            )]
        }
        "session-cookie-change-on-failure" if text == "true" => {
            vec![Ask::same(REPLACED)]
        }
        "session-cookie-change-on-failure" => {
            vec![Ask::same("the cookie keeps its pod for as long as the pod is there")]
        }
        "session-cookie-hash" => vec![Ask::void("ingress-nginx dropped it in version 0.24")],
        "upstream-hash-by" if of("affinity").is_some() => vec![Ask::void("`affinity: cookie` wins")],
        "upstream-hash-by" | "upstream-hash-by-subset" | "upstream-hash-by-subset-size" => vec![Ask::better(HASH)],
        "limit-connections" => vec![Ask::per_address(text)],
        "limit-rps" | "limit-rpm" => vec![rate(name, text, of)],
        "limit-burst-multiplier" if of("limit-rps").or(of("limit-rpm")).is_some() => {
            vec![Ask::same("`burst` of the rates")]
        }
        "limit-burst-multiplier" => vec![Ask::void("there is no rate")],
        "limit-whitelist" | "limit-allowlist" => vec![Ask::exempt(text)],
        "limit-rate" | "limit-rate-after" => vec![Ask::impossible(BANDWIDTH)],
        "whitelist-source-range" | "allowlist-source-range" | "denylist-source-range" => vec![Ask::left(ACCESS)],
        "proxy-read-timeout" | "proxy-send-timeout" => vec![Ask::better(IDLE)],
        "proxy-connect-timeout" => vec![Ask::same(CONNECT)],
        "proxy-buffering" | "proxy-request-buffering" => vec![Ask::same(UNBUFFERED)],
        "proxy-http-version" => vec![Ask::better(UPGRADE)],
        "websocket-services" | "websocket" | "enable-websocket" | "websockets" => {
            vec![Ask::Void(format!("ingress-nginx has no such annotation; {UPGRADE}"))]
        }
        "configuration-snippet" | "server-snippet" | "stream-snippet" | "auth-snippet" => nginx_words::snippet(text),
        "rewrite-target" | "app-root" | "use-regex" | "add-base-url" => vec![Ask::left(PREFIX)],
        "enable-cors" => {
            vec![Ask::left("the hub's CORS policy answers; `limits.reject.allow_origins` is for refusals")]
        }
        "load-balance" => vec![Ask::left(BALANCING)],
        "service-upstream" if truth(text) == Some(false) => vec![Ask::same("the gateway knows the pods")],
        "service-upstream" => vec![Ask::impossible(HIDDEN)],
        _ if name.starts_with("global-rate-limit") => vec![Ask::impossible(SHARED)],
        _ if name.starts_with("canary") => vec![Ask::left(ROUTE)],
        _ if is_misspelt(name) => vec![Ask::void("ingress-nginx has no such annotation")],
        _ => vec![Ask::left(ELSEWHERE)],
    };
    reader.take_all(pointer, asks);
}

/// A setting in the ConfigMap of the controller. None of its other settings concerns the filter.
pub(super) fn config_map(name: &str, text: &str) -> Option<Vec<Ask>> {
    Some(match name {
        "limit-conn-status-code" | "limit-req-status-code" => Ask::status(text),
        "proxy-read-timeout" | "proxy-send-timeout" | "worker-shutdown-timeout" | "upstream-keepalive-timeout" => {
            vec![Ask::better(IDLE)]
        }
        "use-forwarded-headers" | "forwarded-for-header" | "proxy-real-ip-cidr" | "use-proxy-protocol" => {
            vec![Ask::left(ADDRESS)]
        }
        "http-snippet" | "server-snippet" | "location-snippet" => nginx_words::snippet(text),
        "limit-rate" | "limit-rate-after" => vec![Ask::impossible(BANDWIDTH)],
        "load-balance" => vec![Ask::left(BALANCING)],
        _ if name.starts_with("global-rate-limit") => vec![Ask::impossible(SHARED)],
        _ => return None,
    })
}

fn mode(text: &str) -> Ask {
    match text {
        "persistent" => Ask::same("a client keeps its pod for the life of the cookie"),
        "balanced" => Ask::better(
            "a client keeps its pod when pods are added; `client_cookie.rebalance_after` moves some of them at a negotiate",
        ),
        _ => Ask::not("`balanced` or `persistent`"),
    }
}

/// nginx counts all requests, and lets `burst` of them pass before their time: at once it admits one more than these. Of two rates
/// it keeps both; here the one that admits less in the long run counts.
fn rate(name: &str, text: &str, of: impl Fn(&str) -> Option<String>) -> Ask {
    let number = |text: Option<String>| text.and_then(|text| text.trim().parse::<u64>().ok());
    let Some(requests) = number(Some(text.to_owned())) else { return Ask::not("a whole number") };
    if requests == 0 {
        return Ask::same("0 is no limit");
    }
    let per_minute = |of_name: &str, rate: u64| if of_name == "limit-rps" { rate.saturating_mul(60) } else { rate };
    let other = if name == "limit-rps" { "limit-rpm" } else { "limit-rps" };
    if let Some(rate) = number(of(other)).filter(|rate| *rate > 0)
        && (per_minute(other, rate), other) < (per_minute(name, requests), name)
    {
        return Ask::Impossible(format!("the filter has one rate, and `{other}` admits less in the long run"));
    }
    let multiplier =
        number(of("limit-burst-multiplier")).filter(|multiplier| *multiplier > 0).unwrap_or(BURST_MULTIPLIER);
    let burst = requests.saturating_mul(multiplier).saturating_add(1);
    Ask::Rate { requests, per: if name == "limit-rps" { SECOND } else { MINUTE }, burst, key: address() }
}

/// A name that sounds like affinity or a limit and is none of ingress-nginx.
fn is_misspelt(name: &str) -> bool {
    ["affinity", "session-cookie", "sticky", "limit", "upstream-hash"].iter().any(|word| name.contains(word))
}
