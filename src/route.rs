//! The whole contract with what stands after the filter in Envoy: how the pin is written, which headers a WebSocket
//! over HTTP/2 lacks, what a negotiate must not ask for, and how cookies are written.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::affinity::{Pinned, Tie};
use crate::http::{Head, HeaderOp};
use crate::settings::{CookieAttributes, Pin, PinEncoding};

/// Names the pod to the filter or balancer that sends the request there, and marks a request that another pod may take as
/// well: a route that matches the mark leads to a cluster that excludes draining pods.
///
/// Envoy chooses the route anew after every change that a module of this ABI (0.2.1) makes to a request's headers.
pub fn pin(pin: &Pin, pinned: &Pinned) -> impl Iterator<Item = HeaderOp> {
    let address = pinned.address.as_bytes();
    let value = match pin.encoding {
        PinEncoding::Base64 => STANDARD.encode(address).into_bytes(),
        PinEncoding::Plain => address.to_vec(),
    };
    let mark = match pinned.tie {
        Tie::Bound => None,
        Tie::Preferred => pin.mark.clone().map(|mark| HeaderOp::Set(Cow::Owned(mark), b"1".to_vec())),
    };
    std::iter::once(HeaderOp::Set(Cow::Owned(pin.header.clone()), value)).chain(mark)
}

/// The request headers that only the filter may write.
pub fn own_headers(pin: &Pin) -> impl Iterator<Item = &str> {
    std::iter::once(&pin.header).chain(&pin.mark).map(String::as_str)
}

/// Whether Envoy itself writes the pin header into responses: `stateful_session` does when it had to balance.
pub fn pin_comes_back(pin: &Pin) -> bool {
    match pin.encoding {
        PinEncoding::Base64 => true,
        PinEncoding::Plain => false,
    }
}

/// Asks the hub for an answer that can be read: browsers offer gzip on every negotiate, and some hubs take it.
pub fn ask_for_plain_answer() -> HeaderOp {
    HeaderOp::Set(Cow::Borrowed("accept-encoding"), b"identity".to_vec())
}

/// The `sec-websocket-key` (RFC 6455 section 4.1) that a WebSocket over HTTP/2 (RFC 8441) does not have and an HTTP/1.1
/// hub needs. Envoy turns the one into the other but sends no key (envoyproxy/envoy#8547).
pub fn websocket_key(random: [u8; 16]) -> HeaderOp {
    HeaderOp::Set(Cow::Borrowed("sec-websocket-key"), STANDARD.encode(random).into_bytes())
}

/// Takes off the answer to a key that the client never sent.
pub fn drop_websocket_accept() -> HeaderOp {
    HeaderOp::Remove(Cow::Borrowed("sec-websocket-accept"))
}

/// Whether the client speaks https to the outermost proxy that Envoy trusts.
pub fn is_https(head: &Head) -> bool {
    // Envoy always sets or checks x-forwarded-proto; over HTTP/2 a client chooses :scheme itself.
    let scheme = head.get("x-forwarded-proto").or_else(|| head.get(":scheme"));
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https"))
}

/// A `set-cookie` that gives `name` a value for `life`.
pub fn set_cookie(
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
pub fn clear_cookie(cookie: &CookieAttributes, name: &str, path: &str, https: bool) -> HeaderOp {
    set_cookie(cookie, name, "", path, Duration::ZERO, https)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affinity::Source;
    use crate::clock::Millis;
    use crate::token::Address;
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

    #[test]
    fn the_pin_is_written_for_its_reader() {
        let address = Address::new(b"[::1]:8080").unwrap();
        let pinned = Pinned { address, source: Source::ClientCookie, tie: Tie::Preferred, issued: Millis::default() };
        for (encoding, expected) in [(PinEncoding::Base64, "Wzo6MV06ODA4MA=="), (PinEncoding::Plain, "[::1]:8080")] {
            let settings = Pin { header: "x-pin".to_owned(), mark: None, encoding };
            let ops: Vec<_> = pin(&settings, &pinned).collect();
            assert_eq!(ops, [HeaderOp::Set("x-pin".into(), expected.into())], "{encoding:?}");
        }
    }
}
