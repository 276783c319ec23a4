//! The hub's answer to a negotiate: read without changing it, then the sealed route put in behind the id, and transports
//! taken out that are not to be offered.
//!
//! The answer is spliced, not written anew, so that member order, white space, escapes and members of later protocol
//! versions stay byte for byte as the hub gave them.

use std::ops::Range;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Transport;
use crate::http;

/// Longest answer that is read. ASP.NET Core's has some 300 bytes; a redirect's access token may have a few KiB.
///
/// The answer is held in Envoy's buffer until it is whole, and when that overflows Envoy resets the stream: so this is half
/// of the smallest buffer in common use, the 32 KiB that Envoy's guide for edge proxies advises.
pub const MAX_ANSWER: usize = 16 * 1_024;
/// Longest id that gets a route; with it the request line stays well below the 8 KiB that servers accept.
const MAX_ID: usize = 256;

/// What a hub answered to a negotiate.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// An id that later requests carry.
    Id(IssuedId),
    /// An id of unusual length, or with control characters: left alone.
    OddId,
    /// Go to another URL (Azure SignalR Service, or a hub that moved).
    Redirect,
    /// The hub refuses, in words for the user.
    Error,
    /// JSON or not, but no answer to a negotiate.
    Unknown,
}

/// The id that the client will send as `id`, and its place in the answer.
#[derive(Debug, PartialEq, Eq)]
pub struct IssuedId {
    /// The id.
    pub id: Vec<u8>,
    /// Offset of the closing quote of the id's JSON string.
    end: usize,
}

/// The members that decide. Everything else is none of our business.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Members<'a> {
    #[serde(borrow, default)]
    connection_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    connection_token: Option<&'a RawValue>,
    #[serde(borrow, default)]
    available_transports: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    url: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

impl Answer {
    /// Reads an answer.
    pub fn read(body: &[u8]) -> Self {
        let Ok(members) = serde_json::from_slice::<Members<'_>>(body) else { return Self::Unknown };
        // A client looks at these two first, whatever else the answer has.
        if members.error.is_some() {
            return Self::Error;
        }
        if members.url.is_some() {
            return Self::Redirect;
        }
        // ASP.NET Core always lists the transports; without them this is some other document with an id in it.
        let (Some(raw), Some(_)) = (members.connection_token.or(members.connection_id), members.available_transports)
        else {
            return Self::Unknown;
        };
        match serde_json::from_str::<String>(raw.get()) {
            Ok(id) if is_sealable(&id) => match end_of(raw, body) {
                Some(end) => Self::Id(IssuedId { id: id.into_bytes(), end }),
                None => Self::Unknown,
            },
            Ok(_) => Self::OddId,
            Err(_) => Self::Unknown,
        }
    }
}

impl IssuedId {
    /// The answer with `.sealed` behind the id.
    pub fn splice(&self, body: &[u8], sealed: &str) -> Option<Vec<u8>> {
        let (before, after) = body.split_at_checked(self.end)?;
        Some([before, b".", sealed.as_bytes(), after].concat())
    }
}

/// The answer without the transports that are not among `offered`, also those that nobody here knows; `None` if that changes
/// nothing, or if the answer brings no connection. None at all may be left: the client then says that there is none.
pub fn offer_only(body: &[u8], offered: &[Transport]) -> Option<Vec<u8>> {
    let members = serde_json::from_slice::<Members<'_>>(body).ok()?;
    if members.error.is_some() || members.url.is_some() {
        return None;
    }
    let offers = members.available_transports?.into_iter().map(|raw| {
        let offer = serde_json::from_slice::<Value>(raw.get().as_bytes()).unwrap_or_default();
        let transport = offer.get("transport").and_then(Value::as_str).and_then(Transport::named);
        Some((place_of(raw, body)?, transport.is_some_and(|transport| offered.contains(&transport))))
    });
    let offers: Vec<(Range<usize>, bool)> = offers.collect::<Option<_>>()?;
    let (mut cuts, mut kept_before) = (Vec::new(), false);
    for (index, (place, keep)) in offers.iter().enumerate() {
        kept_before |= keep;
        let neighbour = |index: Option<usize>| offers.get(index?).map(|(place, _)| place);
        match (keep, kept_before) {
            (true, _) => {}
            // One comma goes with it: behind the last that stays, or before the first.
            (false, true) => {
                let before = neighbour(index.checked_sub(1)).map_or(place.start, |before| before.end);
                cuts.push(before..place.end);
            }
            (false, false) => {
                let after = neighbour(index.checked_add(1)).map_or(place.end, |after| after.start);
                cuts.push(place.start..after);
            }
        }
    }
    (!cuts.is_empty()).then(|| http::without(body, &cuts))
}

/// The seal needs no encoding in a URL (RFC 3986, unreserved), so an id with one needs no more than the id alone.
fn is_sealable(id: &str) -> bool {
    (1..=MAX_ID).contains(&id.len()) && !id.bytes().any(|byte| byte.is_ascii_control())
}

/// Whether an answer of this content type may be a negotiate's. Most clients do not look at it, and hubs of other makes send
/// `text/plain` or none; but what is streamed must not be held back, and a page is no answer.
pub fn may_be_negotiate_answer(content_type: Option<&[u8]>) -> bool {
    let Some(content_type) = content_type else { return true };
    let essence = http::essence(content_type).to_ascii_lowercase();
    match essence.strip_prefix(b"text/") {
        Some(text) => text != b"html" && text != b"event-stream",
        None => {
            [b"".as_slice(), b"application/json", b"application/octet-stream"].contains(&essence.as_slice())
                || essence.ends_with(b"+json")
        }
    }
}

/// The offset in `body` of the closing quote of `raw`, which borrows from it.
fn end_of(raw: &RawValue, body: &[u8]) -> Option<usize> {
    let end = place_of(raw, body)?.end.checked_sub(1)?;
    (body.get(end) == Some(&b'"')).then_some(end)
}

/// Where `raw` stands in `body`, from which it borrows.
fn place_of(raw: &RawValue, body: &[u8]) -> Option<Range<usize>> {
    let start = raw.get().as_ptr().addr().checked_sub(body.as_ptr().addr())?;
    Some(start..start.checked_add(raw.get().len())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const V1: &str = r#"{"negotiateVersion":1,"connectionId":"pub","connectionToken":"tok","availableTransports":[]}"#;
    const V0: &str =
        r#"{"connectionId":"pub","availableTransports":[{"transport":"WebSockets","transferFormats":["Text"]}]}"#;

    #[test]
    fn the_answer_is_told_from_lookalikes() {
        let id = |body: &str| match Answer::read(body.as_bytes()) {
            Answer::Id(id) => String::from_utf8(id.id).unwrap(),
            other => format!("{other:?}"),
        };
        for (name, body, expected) in [
            ("version 1: the token", V1, "tok"),
            ("version 0: the id", V0, "pub"),
            ("escaped", r#"{"connectionToken":"to\u006b","availableTransports":[]}"#, "tok"),
            ("null token", r#"{"connectionId":"pub","connectionToken":null,"availableTransports":[]}"#, "pub"),
            ("redirect", r#"{"url":"https://x","accessToken":"y","availableTransports":[]}"#, "Redirect"),
            ("error", r#"{"error":"no"}"#, "Error"),
            ("error beside an id", r#"{"connectionId":"pub","availableTransports":[],"error":"no"}"#, "Error"),
            ("an id that is a number", r#"{"connectionId":7,"availableTransports":[]}"#, "Unknown"),
            ("an id that clients must encode", r#"{"connectionId":"a+b/é","availableTransports":[]}"#, "a+b/é"),
            ("padded base64", r#"{"connectionId":"ab==","availableTransports":[]}"#, "ab=="),
            ("a control character", r#"{"connectionId":"a\u0001","availableTransports":[]}"#, "OddId"),
            ("an empty id", r#"{"connectionId":"","availableTransports":[]}"#, "OddId"),
            ("a member twice", r#"{"connectionId":"a","connectionId":"b","availableTransports":[]}"#, "Unknown"),
            ("classic SignalR", r#"{"ConnectionId":"a","ConnectionToken":"b","ProtocolVersion":"2.0"}"#, "Unknown"),
            ("some other JSON", r#"{"connectionId":"a"}"#, "Unknown"),
            ("an array", "[1]", "Unknown"),
            ("a page", "<!doctype html>", "Unknown"),
            ("nothing", "", "Unknown"),
            ("cut off", &V1[..V1.len() - 1], "Unknown"),
            ("followed by more", r#"{"connectionId":"a","availableTransports":[]} {}"#, "Unknown"),
        ] {
            assert_eq!(id(body), expected, "{name}");
        }
        assert_eq!(
            Answer::read(b"{\"connectionId\":\"\xff\",\"availableTransports\":[]}"),
            Answer::Unknown,
            "not UTF-8"
        );
    }

    #[test]
    fn clients_do_not_look_at_the_content_type_but_streams_and_pages_pass() {
        for (content_type, expected) in [
            (None, true),
            (Some(""), true),
            (Some("application/json; charset=utf-8"), true),
            (Some("Application/JSON"), true),
            (Some("application/problem+json"), true),
            (Some("text/plain; charset=utf-8"), true),
            (Some("text/json"), true),
            (Some("application/octet-stream"), true),
            (Some("text/html; charset=utf-8"), false),
            (Some("text/event-stream"), false),
            (Some("application/grpc"), false),
            (Some("image/png"), false),
        ] {
            assert_eq!(may_be_negotiate_answer(content_type.map(str::as_bytes)), expected, "{content_type:?}");
        }
    }

    #[test]
    fn nothing_but_the_id_changes() {
        let body =
            "{ \"x\" : [1, 2.50] ,\n\"connectionToken\":\t\"to\\u006b\" , \"availableTransports\":[], \"y\":\"\\/é\"}";
        let Answer::Id(id) = Answer::read(body.as_bytes()) else { panic!("not recognised") };
        let spliced = String::from_utf8(id.splice(body.as_bytes(), "SEALED").unwrap()).unwrap();
        assert_eq!(spliced, body.replace("to\\u006b", "to\\u006b.SEALED"));
    }

    #[test]
    fn transports_go_with_one_comma_and_the_rest_stays() {
        use Transport::{LongPolling, ServerSentEvents, WebSockets};
        let offer =
            |list: &str| format!("{{ \"connectionId\" :\"a\" ,\n\"availableTransports\"\t: {list} ,\"x\":[1, 2.50]}}");
        let all = r#"[{"transport":"WebSockets","transferFormats":["Text","Binary"]},{"transport":"ServerSentEvents","transferFormats":["Text"]},{"transport":"LongPolling","transferFormats":["Text","Binary"]}]"#;
        let (first, second, third) = (
            r#"{"transport":"WebSockets","transferFormats":["Text","Binary"]}"#,
            r#"{"transport":"ServerSentEvents","transferFormats":["Text"]}"#,
            r#"{"transport":"LongPolling","transferFormats":["Text","Binary"]}"#,
        );
        let odd = "[ {\"transferFormats\":[\"],{\"], \"transport\":\"Web\\u0053ockets\"}\n, {\"transport\" : \"LongPolling\"} ]";
        for (list, offered, expected) in [
            (all, &[WebSockets][..], format!("[{first}]")),
            (all, &[ServerSentEvents], format!("[{second}]")),
            (all, &[LongPolling], format!("[{third}]")),
            (all, &[LongPolling, WebSockets], format!("[{first},{third}]")),
            (all, &[ServerSentEvents, LongPolling], format!("[{second},{third}]")),
            (all, &[WebSockets, ServerSentEvents], format!("[{first},{second}]")),
            (all, &[WebSockets, ServerSentEvents, LongPolling], "-".to_owned()),
            (odd, &[WebSockets], odd.replace("\n, {\"transport\" : \"LongPolling\"}", "")),
            (odd, &[LongPolling], "[ {\"transport\" : \"LongPolling\"} ]".to_owned()),
            (odd, &[ServerSentEvents], "[  ]".to_owned()),
            (
                r#"[{"transport":"WebTransport"},{"transport":"WebSockets"}]"#,
                &[WebSockets],
                r#"[{"transport":"WebSockets"}]"#.to_owned(),
            ),
            (r#"[{"transport":"websockets"}]"#, &[WebSockets], "[]".to_owned()),
            (
                r#"[7, {"transport":"WebSockets"}, {"x":"]"} , null]"#,
                &[WebSockets],
                r#"[{"transport":"WebSockets"}]"#.to_owned(),
            ),
            ("[]", &[WebSockets], "-".to_owned()),
            ("[ ]", &[WebSockets], "-".to_owned()),
        ] {
            let cut = offer_only(offer(list).as_bytes(), offered).map(|cut| String::from_utf8(cut).unwrap());
            let expected = Some(expected).filter(|expected| expected != "-").map(|expected| offer(&expected));
            assert_eq!(cut, expected, "{list} {offered:?}");
        }
        let transports = r#""availableTransports":[{"transport":"LongPolling"}]"#;
        for other in ["", "7", &format!(r#"{{"url":"u",{transports}}}"#), &format!(r#"{{"error":"e",{transports}}}"#)] {
            assert_eq!(offer_only(other.as_bytes(), &[WebSockets]), None, "{other}");
        }
    }
}
