//! What several sources share with nginx: directives in a snippet, and variables as keys.

use crate::convert::ask::{Ask, ELSEWHERE, HASH, IDLE, UPGRADE};

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
        "proxy_buffering" | "proxy_cache" | "proxy_request_buffering" => {
            Ask::same("Envoy passes on each part as it comes")
        }
        "hash" | "ip_hash" => Ask::better(HASH),
        "real_ip_header" | "set_real_ip_from" | "real_ip_recursive" => {
            Ask::left("the client's address: docs/limits.md, \"What stands before your gateway\"")
        }
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

/// The client's key that nginx has in a variable, such as `${binary_remote_addr}` or `$http_x_user`.
pub(super) fn key(text: &str) -> Ask {
    let name = text.trim_matches(['$', '{', '}', ' ']);
    let header = |name: &str| name.replace('_', "-");
    if ["binary_remote_addr", "remote_addr"].contains(&name) {
        Ask::same("the source address is the default")
    } else if let Some(name) = name.strip_prefix("http_") {
        Ask::key("header", &header(name))
    } else if let Some(name) = name.strip_prefix("cookie_") {
        Ask::Set("limits.client.key", serde_json::json!({ "cookie": name }))
    } else if let Some(name) = name.strip_prefix("arg_") {
        Ask::Set("limits.client.key", serde_json::json!({ "query": name }))
    } else if let Some(name) = name.strip_prefix("jwt_claim_") {
        Ask::Set("limits.client.key", serde_json::json!({ "jwt_claim": name }))
    } else {
        Ask::impossible("nothing that the filter knows a client by: docs/limits.md, \"Choosing a key\"")
    }
}
