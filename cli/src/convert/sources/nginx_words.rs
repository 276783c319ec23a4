//! What several sources share with nginx: directives in a snippet, and variables as keys.

use serde_json::{Value, json};

use crate::convert::ask::{ADDRESS, Ask, ELSEWHERE, HASH, IDLE, UNBUFFERED, UPGRADE, address, header_key};

/// What each directive of a snippet asks for.
pub(super) fn snippet(text: &str) -> Vec<Ask> {
    let directives = text.split([';', '\n', '{', '}']).map(str::trim);
    let directives = directives.filter(|directive| !directive.is_empty() && !directive.starts_with('#'));
    directives.map(|directive| named(directive, self::directive(directive))).collect()
}

fn directive(directive: &str) -> Ask {
    let mut words = directive.split_whitespace();
    let (name, value) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_ascii_lowercase());
    match name {
        "proxy_set_header" if ["upgrade", "connection"].contains(&value.as_str()) => Ask::better(UPGRADE),
        "proxy_set_header" | "grpc_set_header" if value == "l5d-dst-override" => {
            Ask::better("without it Linkerd keeps to the pod that the gateway has chosen")
        }
        "proxy_http_version" => Ask::better(UPGRADE),
        "proxy_read_timeout" | "proxy_send_timeout" => Ask::better(IDLE),
        "proxy_buffering" | "proxy_cache" | "proxy_request_buffering" => Ask::same(UNBUFFERED),
        "hash" | "ip_hash" => Ask::better(HASH),
        "real_ip_header" | "set_real_ip_from" | "real_ip_recursive" => Ask::left(ADDRESS),
        "limit_conn" | "limit_req" | "limit_conn_zone" | "limit_req_zone" => Ask::impossible(
            "a snippet's limit is not read, as its zone stands elsewhere: write `limits` by hand, docs/limits.md",
        ),
        _ => Ask::left(ELSEWHERE),
    }
}

/// One of several things in a text: the report's line has the text's beginning only.
fn named(directive: &str, ask: Ask) -> Ask {
    let with =
        |text: String| format!("`{}`: {text}", directive.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
    match ask {
        Ask::Same(text) => Ask::Same(with(text)),
        Ask::Better(text) => Ask::Better(with(text)),
        Ask::Left(text) => Ask::Left(with(text)),
        Ask::Impossible(text) => Ask::Impossible(with(text)),
        other => other,
    }
}

/// The client's key that nginx has in a variable, such as `${binary_remote_addr}` or `$http_x_user`, if the filter knows it.
pub(super) fn key(text: &str) -> Option<Value> {
    let name = text.trim_matches(['$', '{', '}', ' ']);
    if ["binary_remote_addr", "remote_addr"].contains(&name) {
        return Some(address());
    }
    let of = |prefix: &str| name.strip_prefix(prefix);
    of("http_")
        .map(|name| header_key(&name.replace('_', "-")))
        .or_else(|| of("cookie_").map(|name| json!({ "cookie": name })))
        .or_else(|| of("arg_").map(|name| json!({ "query": name })))
        .or_else(|| of("jwt_claim_").map(|name| json!({ "jwt_claim": name })))
}
