//! A byte view of HTTP/1.1 and HTTP/2 header blocks: request targets, query parameters, cookies, and the
//! operations that a plan asks the host to apply.
//!
//! Header values are bytes (RFC 9110 section 5.5 allows obs-text), so nothing here decodes them as text.
//! Query parameters keep their place in the target, because a rewrite must leave every other byte as it was.

mod head;

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::percent_decode;

pub use head::{Head, header_map};

/// What the host does to a header block. Names are in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderOp {
    /// Replace every value of the header by this one.
    Set(Cow<'static, str>, Vec<u8>),
    /// Add a value and keep those that are there.
    Add(Cow<'static, str>, Vec<u8>),
    /// Take the header away.
    Remove(Cow<'static, str>),
}

/// The path of a request target, without its query.
pub fn path(target: &[u8]) -> &[u8] {
    target.split(|byte| *byte == b'?').next().unwrap_or_default()
}

/// A path without the slash at its end, which clients write or leave out; the root's stays.
pub fn without_slash(path: &[u8]) -> &[u8] {
    if path.len() > 1 { path.strip_suffix(b"/").unwrap_or(path) } else { path }
}

/// One `key=value` of a query, with its place in the target.
#[derive(Debug)]
pub struct Param<'a> {
    /// Percent-decoded key.
    pub key: Cow<'a, [u8]>,
    /// The value as it stands in the target.
    pub raw: &'a [u8],
    /// Where `raw` stands in the target.
    pub range: Range<usize>,
    /// Where the whole of it begins, which ends with `raw`.
    start: usize,
}

impl Param<'_> {
    /// What to cut out of `target` so that this parameter is gone and the others stay as they are: it, and the separator
    /// behind it, or the one before the last.
    pub fn with_separator(&self, target: &[u8]) -> Range<usize> {
        match target.get(self.range.end) {
            Some(_) => self.start..self.range.end.saturating_add(1),
            None => self.start.saturating_sub(1)..self.range.end,
        }
    }
}

/// `bytes` without these ranges, which come in order and do not overlap.
pub fn without(bytes: &[u8], cuts: &[Range<usize>]) -> Vec<u8> {
    let (mut kept, mut at) = (Vec::with_capacity(bytes.len()), 0);
    for cut in cuts {
        kept.extend_from_slice(bytes.get(at..cut.start).unwrap_or_default());
        at = cut.end;
    }
    kept.extend_from_slice(bytes.get(at..).unwrap_or_default());
    kept
}

/// The key of a `key=value`, percent-decoded, and where its value begins. Without `=` there is no value: at the end.
pub fn key(pair: &[u8]) -> (Cow<'_, [u8]>, usize) {
    let length = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
    let key = percent_decode(pair.get(..length).unwrap_or_default()).into();
    (key, length.saturating_add(1).min(pair.len()))
}

/// The query parameters of a request target, in order; a parameter without `=` has an empty value.
pub fn params(target: &[u8]) -> impl Iterator<Item = Param<'_>> {
    let start = path(target).len().saturating_add(1);
    let pairs = target.get(start..).into_iter().flat_map(|query| query.split(|byte| *byte == b'&'));
    pairs.scan(start, |at, pair| {
        let (key, value_at) = key(pair);
        let range = at.saturating_add(value_at)..at.saturating_add(pair.len());
        let end = range.end;
        let param = Param { key, raw: pair.get(value_at..).unwrap_or_default(), range, start: *at };
        *at = end.saturating_add(1);
        Some(param)
    })
}

/// The bytes of a path as ASP.NET Core decodes it: all but `%2F`, which is no separator (Kestrel's `UrlDecoder`).
pub fn decode_path(path: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = path;
    std::iter::from_fn(move || {
        let encoded = rest.strip_prefix(b"%").and_then(<[u8]>::first_chunk::<2>).and_then(|digits| {
            let value = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            let [high, low] = *digits;
            Some(value(high)? << 4 | value(low)?)
        });
        let (byte, length) = match encoded.filter(|byte| *byte != b'/') {
            Some(byte) => (byte, 3),
            None => (*rest.first()?, 1),
        };
        rest = rest.get(length..).unwrap_or_default();
        Some(byte)
    })
}

/// The value of a query parameter as ASP.NET Core decodes it: a plus is a space.
pub fn decode_form(raw: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = raw.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&spaced).collect()
}

/// Whether the client speaks https to the outermost proxy that Envoy trusts.
pub fn is_https(head: &Head) -> bool {
    // Envoy always sets or checks x-forwarded-proto; over HTTP/2 a client chooses :scheme itself.
    let scheme = head.get("x-forwarded-proto").or_else(|| head.get(":scheme"));
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https"))
}

/// Whether `wanted` holds for one of the media types of the `accept` headers (RFC 9110 section 12.5.1), parameters included.
pub fn accepts(head: &Head, wanted: impl Fn(&[u8]) -> bool) -> bool {
    head.all("accept").flat_map(members).any(wanted)
}

/// The members of a list (RFC 9110 section 5.6.1), without surrounding space. A comma in a quoted string does not separate; a
/// backslash in it quotes the next byte.
pub fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    value
        .split(move |byte| {
            let separates = *byte == b',' && !quoted;
            quoted ^= *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && quoted && !escaped;
            separates
        })
        .map(<[u8]>::trim_ascii)
}

/// A media type without its parameters.
pub fn essence(media_type: &[u8]) -> &[u8] {
    media_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

/// A head with these fields.
#[cfg(test)]
pub(crate) fn head_of(fields: &[(&str, impl AsRef<[u8]>)]) -> Head {
    Head::new(header_map(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_ref()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn parameters_know_their_place() {
        for (name, target, expected) in [
            ("none", "/chat", vec![]),
            ("empty query", "/chat?", vec![("", "")]),
            ("one", "/chat?id=a", vec![("id", "a")]),
            ("no value", "/chat?id&x=", vec![("id", ""), ("x", "")]),
            ("encoded key", "/chat?%69d=a%2Eb&id=c=d", vec![("id", "a%2Eb"), ("id", "c=d")]),
            ("question mark in the query", "/c?a=?&b=1", vec![("a", "?"), ("b", "1")]),
        ] {
            let mut got = Vec::new();
            for param in params(target.as_bytes()) {
                assert_eq!(&target.as_bytes()[param.range.clone()], param.raw, "{name}");
                got.push((
                    String::from_utf8(param.key.to_vec()).unwrap(),
                    String::from_utf8(param.raw.to_vec()).unwrap(),
                ));
            }
            let expected: Vec<_> = expected.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            assert_eq!(got, expected, "{name}");
        }
    }

    #[test]
    fn a_parameter_goes_and_the_others_stay() {
        for (target, expected) in [
            ("/c?t=1", "/c"),
            ("/c?t=1&a=%20", "/c?a=%20"),
            ("/c?a&t=1&&b=", "/c?a&&b="),
            ("/c?a=?&t=1", "/c?a=?"),
            ("/c?&t", "/c?"),
        ] {
            let cut = params(target.as_bytes()).find(|param| *param.key == *b"t").unwrap();
            let kept = without(target.as_bytes(), &[cut.with_separator(target.as_bytes())]);
            assert_eq!(String::from_utf8(kept).unwrap(), expected, "{target}");
        }
        assert_eq!(without(b"abcdef", &[1..2, 2..3, 5..6]), b"ade");
    }

    #[test]
    fn media_types_are_separated_as_aspnet_does() {
        let events = |media_type: &[u8]| media_type.eq_ignore_ascii_case(b"text/event-stream");
        for (accept, expected) in [
            ("text/event-stream", true),
            ("Text/Event-Stream", true),
            ("*/*, text/event-stream", true),
            ("*/*,text/event-stream ,x/y", true),
            ("text/event-stream;x=1", false),
            ("text/event-stream, text/event-stream;q=0.5", true),
            (r#"x/y;a="b,text/event-stream,c""#, false),
            (r#"x/y;a="b\",text/event-stream,c""#, false),
            ("text/event-streams", false),
            ("", false),
        ] {
            assert_eq!(accepts(&head_of(&[("accept", accept)]), events), expected, "{accept}");
        }
        let two = ["*/*", "text/event-stream"].map(|value| ("accept", value));
        assert!(accepts(&head_of(&two), events), "in a second header");
    }

    #[test]
    fn paths_are_decoded_as_aspnet_does() {
        for (path, expected) in [
            ("/c%68at", "/chat"),
            ("/a%2fb", "/a%2fb"),
            ("/%", "/%"),
            ("/%4", "/%4"),
            ("/%zz", "/%zz"),
            ("/a+b", "/a+b"),
        ] {
            let decoded: Vec<u8> = decode_path(path.as_bytes()).collect();
            assert_eq!(String::from_utf8(decoded).unwrap(), expected, "{path}");
        }
    }

    #[test]
    fn forms_are_decoded_as_aspnet_does() {
        assert_eq!(decode_form(b"a+b%2Bc%20d"), b"a b+c d");
    }
}
