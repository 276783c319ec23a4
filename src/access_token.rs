//! The access token, moved from the URL to the header that is made for it.
//!
//! A browser can send no header with a WebSocket or an event stream, so SignalR's clients put their bearer token into the query
//! (`access_token`, RFC 6750 section 2.3), and URLs end up in the logs of hubs and of all that stands before them. ASP.NET
//! Core's `JwtBearer` reads `authorization` by itself, and the query only where an application makes it.

use std::borrow::Cow;
use std::ops::Range;

use crate::http::{self, Head, HeaderOp};

/// A token on its way from the query to the header.
#[derive(Debug, PartialEq, Eq)]
pub struct Moved {
    /// The part of the request target that goes.
    pub cut: Range<usize>,
    /// The header, unless the request has one. That one stays: what the client chose to send as a header is not overwritten.
    pub header: Option<HeaderOp>,
}

/// Finds the token in the query of a request. `None` when there is none to move: no parameter, several, so that the hub
/// reads none of them as it is, or a value that can be no token.
pub fn in_query(head: &Head) -> Option<Moved> {
    let target = head.get(":path")?;
    let mut params =
        http::params(target).filter(|param| param.key.eq_ignore_ascii_case(b"access_token") && !param.raw.is_empty());
    let (param, None) = (params.next()?, params.next()) else { return None };
    let token = http::decode_form(param.raw);
    // Tokens have no other bytes (RFC 6750 section 2.1), and a header must not have some of the others.
    if !token.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let header = || HeaderOp::Set(Cow::Borrowed("authorization"), [b"Bearer ", token.as_slice()].concat());
    Some(Moved { cut: param.with_separator(target), header: head.get("authorization").is_none().then(header) })
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// The target that goes on, and the header.
    fn moved(target: &str, authorization: Option<&str>) -> String {
        let own = authorization.map(|value| ("authorization", value));
        let fields: Vec<_> = [(":path", target)].into_iter().chain(own).collect();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        match in_query(&http::head_of(&fields)) {
            None => "-".to_owned(),
            Some(Moved { cut, header }) => {
                let target = text(http::without(target.as_bytes(), &[cut]));
                let header = header.map(|op| match op {
                    HeaderOp::Set(name, value) => format!(" {name}: {}", text(value)),
                    other => panic!("{other:?}"),
                });
                target + &header.unwrap_or_default()
            }
        }
    }

    #[test]
    fn the_token_moves_and_everything_else_stays() {
        for (target, expected) in [
            ("/c?access_token=a.b-c_d", "/c authorization: Bearer a.b-c_d"),
            ("/c?id=x%2Ey&access_token=t", "/c?id=x%2Ey authorization: Bearer t"),
            ("/c?access_token=t&id=x&&", "/c?id=x&& authorization: Bearer t"),
            ("/c?a=%20+&access_token=t&id=x", "/c?a=%20+&id=x authorization: Bearer t"),
            ("/c?Access%5FToken=a%2Bb%2F%3D%3D", "/c authorization: Bearer a+b/=="),
            ("/c?access_token=&access_token=t", "/c?access_token= authorization: Bearer t"),
            ("/c?id=x", "-"),
            ("/c", "-"),
            ("/c?access_token", "-"),
            ("/c?access_token=", "-"),
            ("/c?xaccess_token=t", "-"),
            ("/c?access_token=a&ACCESS_TOKEN=b", "-"),
            ("/c?access_token=a%0d%0ax-admin:%201", "-"),
            ("/c?access_token=a%00", "-"),
            ("/c?access_token=%7F", "-"),
            ("/c?access_token=a+b", "-"),
            ("/c?access_token=%C3%A9", "-"),
        ] {
            assert_eq!(moved(target, None), expected, "{target}");
        }
    }

    #[test]
    fn a_header_of_the_clients_own_stays() {
        for own in ["Bearer other", "Basic eA==", ""] {
            assert_eq!(moved("/c?access_token=t&id=x", Some(own)), "/c?id=x", "{own}");
            assert_eq!(moved("/c?access_token=%0a&id=x", Some(own)), "-", "{own}");
        }
    }
}
