//! What a request is in the SignalR protocol, decided from its head alone (TransportProtocols.md of ASP.NET Core).
//!
//! Recognition is by protocol, not by client: methods, the path's last segment, the `id` parameter, `upgrade` and
//! `accept`. User agents are no evidence. What is not recognised passes untouched.

mod negotiate;

use std::ops::Range;

use percent_encoding::percent_decode;

use crate::http::{self, Head};
use crate::settings::{Hubs, Settings};

pub use negotiate::{Answer, MAX_ANSWER};

/// One request of the SignalR protocol.
#[derive(Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Which request it is.
    pub step: Step,
    /// The hub's path as the client wrote it: without `/negotiate` and the like, `/` for a hub at the root.
    pub hub: Vec<u8>,
    /// The connection id it carries.
    pub id: Option<IdParam>,
}

/// Where in the protocol a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `POST {hub}/negotiate`.
    Negotiate(NegotiateVersion),
    /// A WebSocket: with an id after a negotiate or to resume, without one when the client skips negotiation.
    WebSocket,
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
    /// At a hub's own path with neither id nor upgrade, which hubs refuse: something on the way lost the upgrade of a client
    /// that skips negotiation. See [`classify_refused`].
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
        [Self::WebSockets, Self::ServerSentEvents, Self::LongPolling]
            .into_iter()
            .find(|transport| transport.code() == code)
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
    /// Percent-decoded.
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
    let html = b"text/html";
    is_page(path, settings)
        && head.get("accept").is_some_and(|accept| accept.windows(html.len()).any(|part| part == html))
}

/// Recognises a request, or tells that it is none of SignalR's.
pub fn classify(head: &Head, settings: &Settings) -> Option<Exchange> {
    let target = head.get(":path")?;
    let method = head.get(":method")?;
    let path = http::path(target);
    let id = match find_id(target) {
        Id::Absent => None,
        Id::One(id) => Some(id),
        // ASP.NET Core joins repeated values with a comma and finds no such connection: nothing to steer.
        Id::Repeated => return None,
    };
    let is_post = method == b"POST";
    let websocket = head.get("upgrade").is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(b"websocket"));
    let (step, hub) = if let (true, Some(hub)) = (is_post, strip_segment(path, b"negotiate")) {
        (Step::Negotiate(negotiate_version(target)), hub)
    } else if websocket {
        (Step::WebSocket, path)
    } else if id.is_some() && !is_navigation(path, head, settings) {
        let accept = head.get("accept").unwrap_or_default();
        let hub = strip_segment(path, b"refresh").filter(|_| is_post);
        let step = match method {
            _ if hub.is_some() => Step::Other,
            b"GET" if accept.starts_with(b"text/event-stream") => Step::ServerSentEvents,
            b"GET" => Step::Poll,
            b"POST" => Step::Send,
            b"DELETE" => Step::Delete,
            _ => Step::Other,
        };
        (step, hub.unwrap_or(path))
    } else if let (true, Some(hub)) = (is_post && settings.client_cookie.is_some(), blazor_hub(path)) {
        (Step::BlazorDisconnect, hub)
    } else {
        let steered = is_page(path, settings) && matches!(method, b"GET" | b"POST");
        return steered.then(|| Exchange { step: Step::Page, hub: path.to_vec(), id: None });
    };
    let hub = or_root(hub);
    serves(settings, hub).then(|| Exchange { step, hub: hub.to_vec(), id })
}

/// Recognises what a hub refuses, so that the refusal can be told: [`Step::NotNegotiate`] and [`Step::WithoutId`]. Of a request
/// without id only `is_hub` tells that it is for a hub.
pub fn classify_refused(head: &Head, settings: &Settings, is_hub: impl FnOnce(&[u8]) -> bool) -> Option<Exchange> {
    let target = head.get(":path")?;
    let path = http::path(target);
    let (step, hub) = match (strip_segment(path, b"negotiate"), find_id(target)) {
        (Some(hub), _) if serves(settings, or_root(hub)) => (Step::NotNegotiate, hub),
        (None, Id::Absent) if head.get(":method")? != b"OPTIONS" && is_hub(path) => (Step::WithoutId, path),
        _ => return None,
    };
    Some(Exchange { step, hub: or_root(hub).to_vec(), id: None })
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

enum Id {
    Absent,
    One(IdParam),
    Repeated,
}

fn find_id(target: &[u8]) -> Id {
    let mut ids = http::params(target).filter(|param| param.key.eq_ignore_ascii_case(b"id"));
    match (ids.next(), ids.next()) {
        (None, _) => Id::Absent,
        (Some(_), Some(_)) => Id::Repeated,
        (Some(param), None) if param.raw.is_empty() => Id::Absent,
        (Some(param), None) => Id::One(IdParam { value: percent_decode(param.raw).collect(), range: param.range }),
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
