//! How cookies are written into answers (RFC 6265bis section 4.1, CHIPS for `Partitioned`).

use std::borrow::Cow;
use std::time::Duration;

use crate::http::HeaderOp;
use crate::settings::CookieAttributes;

/// A `set-cookie` that gives `name` a value for `life`.
pub(super) fn set_cookie(
    cookie: &CookieAttributes,
    name: &str,
    value: &str,
    path: &str,
    life: Duration,
    https: bool,
) -> HeaderOp {
    let mut text = format!("{name}={value}; Path={path}; Max-Age={}; SameSite={}", life.as_secs(), cookie.same_site);
    if let Some(domain) = &cookie.domain {
        text.push_str("; Domain=");
        text.push_str(domain);
    }
    let flags = [
        (cookie.secure.unwrap_or(https), "; Secure"),
        (cookie.http_only, "; HttpOnly"),
        (cookie.partitioned, "; Partitioned"),
    ];
    text.extend(flags.iter().filter(|(present, _)| *present).map(|(_, flag)| *flag));
    HeaderOp::Add(Cow::Borrowed("set-cookie"), text.into_bytes())
}

/// A `set-cookie` that removes `name`: browsers match it by name, path, domain and partition.
pub(super) fn clear_cookie(cookie: &CookieAttributes, name: &str, path: &str, https: bool) -> HeaderOp {
    set_cookie(cookie, name, "", path, Duration::ZERO, https)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_cookie_says_what_was_configured() {
        let plain = CookieAttributes {
            name: "n".to_owned(),
            max_age: Duration::from_secs(60),
            same_site: "Lax",
            secure: None,
            http_only: true,
            partitioned: false,
            domain: None,
        };
        let third_party = CookieAttributes {
            same_site: "None",
            secure: Some(true),
            http_only: false,
            partitioned: true,
            domain: Some("example.com".to_owned()),
            ..plain.clone()
        };
        for (name, cookie, https, expected) in [
            ("http", &plain, false, "n=v; Path=/chat; Max-Age=60; SameSite=Lax; HttpOnly"),
            ("https", &plain, true, "n=v; Path=/chat; Max-Age=60; SameSite=Lax; Secure; HttpOnly"),
            (
                "third party",
                &third_party,
                false,
                "n=v; Path=/chat; Max-Age=60; SameSite=None; Domain=example.com; Secure; Partitioned",
            ),
        ] {
            let op = set_cookie(cookie, "n", "v", "/chat", cookie.max_age, https);
            assert_eq!(op, HeaderOp::Add("set-cookie".into(), expected.into()), "{name}");
        }
    }
}
