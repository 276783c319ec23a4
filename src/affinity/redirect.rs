//! The seal, put back where an answer carries the id that it was taken off.
//!
//! The hub sees the bare id, so its redirects carry the bare id, and so do Envoy's own, which Envoy builds after the filter. A
//! client that follows one would lose its pod. Envoy's *internal* redirects are followed before any filter sees the answer.
//!
//! ```text
//! request    GET /old/chat?id=abc.SEAL             the hub sees   GET /old/chat?id=abc
//! answer     307, location: /chat?id=abc&x=1       becomes        307, location: /chat?id=abc.SEAL&x=1
//! ```

use std::borrow::Cow;
use std::ops::Range;

use crate::http::{self, Head, HeaderOp};

/// Headers of an answer that name a URL which a client may follow (RFC 9110 sections 8.7 and 10.2.2, RFC 8288).
const URL_HEADERS: [&str; 3] = ["location", "content-location", "link"];

/// What is taken off the id of a request: the dot and what follows it.
#[derive(Debug)]
pub struct Seal {
    /// Where it stands in the request target.
    pub range: Range<usize>,
    /// As the client wrote it.
    pub written: Vec<u8>,
}

impl Seal {
    /// Puts the seal behind the bare `id`, wherever the answer's URLs have it.
    pub fn put_back(&self, id: &[u8], answer: &Head) -> Vec<HeaderOp> {
        URL_HEADERS.into_iter().flat_map(|name| self.put_back_into(name, id, answer)).collect()
    }

    fn put_back_into(&self, name: &'static str, id: &[u8], answer: &Head) -> Vec<HeaderOp> {
        let values: Vec<_> = answer.all(name).map(|value| (value, self.in_url(id, value))).collect();
        if values.iter().all(|(_, sealed)| sealed.is_none()) {
            return Vec::new();
        }
        let values = values.into_iter().map(|(value, sealed)| sealed.unwrap_or_else(|| value.to_vec()));
        let remove = HeaderOp::Remove(Cow::Borrowed(name));
        [remove].into_iter().chain(values.map(|value| HeaderOp::Add(Cow::Borrowed(name), value))).collect()
    }

    /// The value with the seal, or `None` if the bare id is not in it. What ends a URL in `link` ends a parameter, too.
    fn in_url(&self, id: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        let (mut sealed, mut rest, mut found) = (Vec::new(), value, false);
        while let Some(at) = rest.iter().position(|byte| b"?&".contains(byte)) {
            let (before, after) = rest.split_at_checked(at.saturating_add(1))?;
            let length = after.iter().position(|byte| b"&#>\" ".contains(byte)).unwrap_or(after.len());
            let (parameter, after) = after.split_at_checked(length)?;
            sealed.extend_from_slice(before);
            sealed.extend_from_slice(parameter);
            if is_bare_id(id, parameter) {
                sealed.extend_from_slice(&self.written);
                found = true;
            }
            rest = after;
        }
        sealed.extend_from_slice(rest);
        found.then_some(sealed)
    }
}

fn is_bare_id(id: &[u8], parameter: &[u8]) -> bool {
    let (key, value_at) = http::key(parameter);
    key.eq_ignore_ascii_case(b"id") && http::decode_form(parameter.get(value_at..).unwrap_or_default()) == id
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_seal_goes_behind_the_bare_id_and_nowhere_else() {
        for (name, id, url, expected) in [
            ("relative", "abc", "/chat?id=abc", Some("/chat?id=abc.SEAL")),
            ("absolute", "abc", "https://h:8/chat?id=abc", Some("https://h:8/chat?id=abc.SEAL")),
            ("between others", "abc", "/chat?a=1&id=abc&b=2", Some("/chat?a=1&id=abc.SEAL&b=2")),
            ("before a fragment", "abc", "/chat?id=abc#x", Some("/chat?id=abc.SEAL#x")),
            ("key in another case", "abc", "/chat?ID=abc", Some("/chat?ID=abc.SEAL")),
            ("encoded key and id", "a+b=", "/chat?%69d=a%2Bb%3D", Some("/chat?%69d=a%2Bb%3D.SEAL")),
            ("padding as it is", "ab==", "/chat?id=ab==&x", Some("/chat?id=ab==.SEAL&x")),
            ("twice", "abc", "/chat?id=abc&id=abc", Some("/chat?id=abc.SEAL&id=abc.SEAL")),
            ("in a link", "abc", "</c?id=abc>; rel=\"a\", <x>", Some("</c?id=abc.SEAL>; rel=\"a\", <x>")),
            ("another id", "abc", "/chat?id=abcd", None),
            ("another parameter", "abc", "/chat?xid=abc", None),
            ("no value", "abc", "/chat?id", None),
            ("the path only", "abc", "/chat/id=abc", None),
            ("sealed by somebody else", "abc", "/chat?id=abc.OTHER", None),
            ("empty", "abc", "", None),
        ] {
            let seal = Seal { range: 0..0, written: b".SEAL".to_vec() };
            let sealed = seal.in_url(id.as_bytes(), url.as_bytes()).map(|sealed| String::from_utf8(sealed).unwrap());
            assert_eq!(sealed.as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn other_values_of_the_same_header_stay() {
        let links = ["</a>; rel=\"x\"", "</c?id=abc>"].map(|value| ("link", value));
        let seal = Seal { range: 0..0, written: b".SEAL".to_vec() };
        let expected = [
            HeaderOp::Remove("link".into()),
            HeaderOp::Add("link".into(), b"</a>; rel=\"x\"".to_vec()),
            HeaderOp::Add("link".into(), b"</c?id=abc.SEAL>".to_vec()),
        ];
        assert_eq!(seal.put_back(b"abc", &http::head_of(&links)), expected);
    }
}
