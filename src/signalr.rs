//! What a request is in the SignalR protocol, decided from its head alone (TransportProtocols.md of ASP.NET Core).
//!
//! Recognition is by protocol, not by client: methods, the path's last segment, the `id` parameter, `upgrade` and
//! `accept`. User agents are no evidence. What is not recognised passes untouched.

mod negotiate;

use std::ops::Range;

use percent_encoding::percent_decode;

use crate::http::{self, Head};
use crate::settings::{Hubs, Settings};

pub use negotiate::{Answer, MAX_ANSWER, may_be_negotiate_answer, offer_only};

/// One request of the SignalR protocol.
#[derive(Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Which request it is.
    pub step: Step,
    /// The hub's path as the client wrote it: without `/negotiate` and the like, `/` for a hub at the root.
    pub hub: Vec<u8>,
    /// The connection id it carries.
    pub id: Id,
}

/// The `id` parameters of a request. A hub joins all that are not empty (`StringValues`), and empty ones do not exist to it.
#[derive(Debug, PartialEq, Eq)]
pub enum Id {
    /// None.
    Absent,
    /// One.
    One(IdParam),
    /// Several, which no connection has as its id: nothing steers such a request, and it counts like any other.
    Several,
}

impl Id {
    fn of(target: &[u8]) -> Self {
        let mut ids = http::params(target)
            .filter(|param| param.key.eq_ignore_ascii_case(b"id") && !param.raw.is_empty())
            .map(|param| IdParam { value: http::decode_form(param.raw), range: param.range });
        match (ids.next(), ids.next()) {
            (None, _) => Self::Absent,
            (Some(id), None) => Self::One(id),
            (Some(_), Some(_)) => Self::Several,
        }
    }

    /// The id, if there is exactly one.
    pub fn one(&self) -> Option<&IdParam> {
        match self {
            Self::One(id) => Some(id),
            Self::Absent | Self::Several => None,
        }
    }
}

/// Where in the protocol a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `POST {hub}/negotiate`.
    Negotiate(NegotiateVersion),
    /// A WebSocket: with an id after a negotiate or to resume, without one when the client skips negotiation.
    WebSocket,
    /// What was a WebSocket before something on the way took its `upgrade`: nothing but a WebSocket has the headers that are left.
    UpgradeLost,
    /// `GET {hub}?id=` that accepts `text/event-stream`.
    ServerSentEvents,
    /// Any other `GET {hub}?id=`: a long poll.
    Poll,
    /// `POST {hub}?id=`: messages of a client that receives by events or polls.
    Send,
    /// `DELETE {hub}?id=`: the end of a long-polling connection.
    Delete,
    /// Carries an id but is none of the above: a CORS preflight, or a request of a later protocol version.
    Other,
    /// `{hub}/negotiate` by another method than POST: a CORS preflight, or a client that does it wrongly.
    NotNegotiate,
    /// At a hub's own path with neither id nor upgrade, which hubs refuse: something on the way lost all of the WebSocket of a
    /// client that skips negotiation. See [`classify_refused`].
    WithoutId,
    /// `POST …/_blazor/disconnect`: a Blazor page says goodbye, with its circuit in the body and no id.
    BlazorDisconnect,
    /// A page that the client cookie steers.
    Page,
}

/// How a connection's messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// A WebSocket.
    WebSockets,
    /// Server-sent events, and a request for each message to the hub.
    ServerSentEvents,
    /// A request for each message, either way.
    LongPolling,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::WebSockets, Self::ServerSentEvents, Self::LongPolling];

    /// A number for it, where bytes count.
    pub fn code(self) -> u8 {
        match self {
            Self::WebSockets => 0,
            Self::ServerSentEvents => 1,
            Self::LongPolling => 2,
        }
    }

    /// The transport with this number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|transport| transport.code() == code)
    }

    /// The transport that a hub offers by this name, which clients compare as it stands.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "WebSockets" => Some(Self::WebSockets),
            "ServerSentEvents" => Some(Self::ServerSentEvents),
            "LongPolling" => Some(Self::LongPolling),
            _ => None,
        }
    }

    /// OpenTelemetry's value of `signalr.transport`.
    pub fn label(self) -> &'static str {
        match self {
            Self::WebSockets => "web_sockets",
            Self::ServerSentEvents => "server_sent_events",
            Self::LongPolling => "long_polling",
        }
    }
}

impl Step {
    /// The step in one word.
    pub fn label(self) -> &'static str {
        match self {
            Self::Negotiate(_) => "negotiate",
            Self::WebSocket => "websocket",
            Self::UpgradeLost => "upgrade_lost",
            Self::ServerSentEvents => "server_sent_events",
            Self::Poll => "poll",
            Self::Send => "send",
            Self::Delete => "delete",
            Self::Other => "other",
            Self::NotNegotiate => "not_negotiate",
            Self::WithoutId => "without_id",
            Self::BlazorDisconnect => "blazor_disconnect",
            Self::Page => "page",
        }
    }

    /// The transport of a step that opens or goes on with a connection.
    pub fn transport(self) -> Option<Transport> {
        match self {
            Self::WebSocket => Some(Transport::WebSockets),
            Self::ServerSentEvents => Some(Transport::ServerSentEvents),
            Self::Poll => Some(Transport::LongPolling),
            Self::Negotiate(_)
            | Self::UpgradeLost
            | Self::Send
            | Self::Delete
            | Self::Other
            | Self::NotNegotiate
            | Self::WithoutId
            | Self::BlazorDisconnect
            | Self::Page => None,
        }
    }
}

/// `negotiateVersion` as the client asked: version 0 has one id, later ones separate the public id from the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NegotiateVersion {
    /// Absent or 0.
    V0,
    /// 1 or, by the specification, later.
    V1,
}

/// The `id` parameter of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct IdParam {
    /// Decoded, as the hub reads it.
    pub value: Vec<u8>,
    /// Where the encoded value stands in the request target.
    pub range: Range<usize>,
}

/// Whether a request target alone can be of interest: the first question asked of every request, so it copies nothing.
///
/// `false` is final unless the request is a WebSocket upgrade.
pub fn may_concern(target: &[u8], settings: &Settings) -> bool {
    let path = http::path(target);
    let has_id = || http::params(target).any(|param| param.key.eq_ignore_ascii_case(b"id"));
    let is_companion = || settings.client_cookie.is_some() && (blazor_hub(path).is_some() || is_page(path, settings));
    strip_segment(path, b"negotiate").is_some() || has_id() || is_companion()
}

/// Whether the client cookie steers this page.
fn is_page(path: &[u8], settings: &Settings) -> bool {
    settings.client_cookie.as_ref().is_some_and(|cookie| cookie.pages.iter().any(|page| page.matches(path)))
}

/// Whether a browser asks for a steered page: such a page may have an `id` of its own, and SignalR never asks for HTML.
fn is_navigation(path: &[u8], head: &Head, settings: &Settings) -> bool {
    is_page(path, settings)
        && http::accepts(head, |media_type| http::essence(media_type).eq_ignore_ascii_case(b"text/html"))
}

/// Recognises a request, or finds that it is none of SignalR's. `is_hub` knows hubs by their path.
///
/// What the request is does not depend on its ids, and every comparison is the hub's own: methods and media types ignore
/// case (ASP.NET Core's `HttpMethods`, `HttpConnectionDispatcher`).
pub fn classify(head: &Head, settings: &Settings, is_hub: impl Fn(&[u8]) -> bool) -> Option<Exchange> {
    let target = head.get(":path")?;
    let path = http::path(target);
    let id = Id::of(target);
    let method = Method::of(head.get(":method")?);
    let hub = strip_segment(path, b"negotiate").filter(|_| method == Method::Post);
    let (step, hub) = if let Some(hub) = hub {
        (Step::Negotiate(negotiate_version(target)), hub)
    } else if method == Method::Get && asks_for_websocket(head) {
        (Step::WebSocket, path)
    } else if method == Method::Get && (id != Id::Absent || is_hub(path)) && has_lost_upgrade(head) {
        (Step::UpgradeLost, path)
    } else if id != Id::Absent && (is_hub(path) || !is_navigation(path, head, settings)) {
        let refreshed = strip_segment(path, b"refresh").filter(|_| method == Method::Post && !is_hub(path));
        let step = match method {
            _ if refreshed.is_some() => Step::Other,
            Method::Get if asks_for_events(head) => Step::ServerSentEvents,
            Method::Get => Step::Poll,
            Method::Post => Step::Send,
            Method::Delete => Step::Delete,
            Method::Options | Method::Other => Step::Other,
        };
        (step, refreshed.unwrap_or(path))
    } else if let (Method::Post, true, Some(hub)) = (method, settings.client_cookie.is_some(), blazor_hub(path)) {
        (Step::BlazorDisconnect, hub)
    } else {
        let steered = is_page(path, settings) && matches!(method, Method::Get | Method::Post) && !is_hub(path);
        return steered.then(|| Exchange { step: Step::Page, hub: path.to_vec(), id: Id::Absent });
    };
    let hub = or_root(hub);
    serves(settings, hub).then(|| Exchange { step, hub: hub.to_vec(), id })
}

/// Recognises what a hub refuses, so that the refusal can be counted: [`Step::NotNegotiate`] and [`Step::WithoutId`]. Nothing
/// but `is_hub` shows that a request without an id is for a hub.
pub fn classify_refused(head: &Head, settings: &Settings, is_hub: impl Fn(&[u8]) -> bool) -> Option<Exchange> {
    let target = head.get(":path")?;
    let path = http::path(target);
    let (step, hub) = match (strip_segment(path, b"negotiate"), Id::of(target)) {
        (Some(hub), _) if serves(settings, or_root(hub)) => (Step::NotNegotiate, hub),
        (None, Id::Absent) if Method::of(head.get(":method")?) != Method::Options && is_hub(path) => {
            (Step::WithoutId, path)
        }
        _ => return None,
    };
    Some(Exchange { step, hub: or_root(hub).to_vec(), id: Id::Absent })
}

/// A request's method as a hub reads it: in any case (`HttpMethods.Equals`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Get,
    Post,
    Delete,
    Options,
    Other,
}

impl Method {
    fn of(method: &[u8]) -> Self {
        let known = [
            (b"GET".as_slice(), Self::Get),
            (b"POST", Self::Post),
            (b"DELETE", Self::Delete),
            (b"OPTIONS", Self::Options),
        ];
        known.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(method)).map_or(Self::Other, |(_, known)| known)
    }
}

/// Envoy shows an extended CONNECT of HTTP/2 (RFC 8441) as this too, and removes `upgrade` from what is no upgrade.
fn asks_for_websocket(head: &Head) -> bool {
    head.get("upgrade").is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(b"websocket"))
}

/// `upgrade` goes from hop to hop, so a proxy that does not know it drops it; these go from end to end (RFC 6455 section 4.1), and no
/// page can set them. Asked of what asks for no WebSocket.
fn has_lost_upgrade(head: &Head) -> bool {
    ["sec-websocket-key", "sec-websocket-version"].iter().any(|name| head.get(name).is_some())
}

/// Any other `accept`, also one with parameters, is a poll to a hub: it looks for this media type as it stands
/// (`HttpConnectionDispatcher.ExecuteAsync`).
fn asks_for_events(head: &Head) -> bool {
    http::accepts(head, |media_type| media_type.eq_ignore_ascii_case(b"text/event-stream"))
}

/// A hub at the root has no path before `/negotiate`.
fn or_root(hub: &[u8]) -> &[u8] {
    if hub.is_empty() { b"/" } else { hub }
}

/// Whether `hub` is one of the configured hubs, or any path is.
fn serves(settings: &Settings, hub: &[u8]) -> bool {
    match &settings.hubs {
        Hubs::Any => true,
        Hubs::Listed(_) => settings.hubs.listed(hub).is_some(),
    }
}

fn negotiate_version(target: &[u8]) -> NegotiateVersion {
    let asked = http::params(target).find(|param| param.key.eq_ignore_ascii_case(b"negotiateVersion"));
    match asked.map_or(b"0".as_slice(), |param| param.raw) {
        b"" | b"0" => NegotiateVersion::V0,
        _ => NegotiateVersion::V1,
    }
}

/// What stands before the last segment of `path` if that segment is `name` (lower case), as ASP.NET Core compares.
fn strip_segment<'a>(path: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    let (before, last) = path.split_at_checked(slash)?;
    let last = percent_decode(last.get(1..)?).map(|byte| byte.to_ascii_lowercase());
    last.eq(name.iter().copied()).then_some(before)
}

/// The hub of a Blazor Server app, if `path` is its `disconnect` endpoint.
fn blazor_hub(path: &[u8]) -> Option<&[u8]> {
    let hub = strip_segment(path, b"disconnect")?;
    strip_segment(hub, b"_blazor").map(|_| hub)
}

#[cfg(test)]
mod tests;
