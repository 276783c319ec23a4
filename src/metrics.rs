//! What is counted, and the names that it has in Envoy.
//!
//! A stat's name carries its labels as `signalr_hub=.=/chat;.;` before the metric's own name: Istio extracts this form
//! by itself (`extraStatTags`), plain Envoy by the `stats_tags` of `envoy/envoy.yaml`. Labels are bounded and never
//! name a client, a user or a connection.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::affinity::{Outcome, Source};
use crate::frame::{Close, Direction};
use crate::lifecycle::{ClosedBy, code_label};
use crate::limit::{Limit, Upstream};
use crate::messages;
use crate::settings::{Hubs, Mode, Settings};
use crate::signalr::Transport;
use crate::store::{HubNames, Store};
use crate::token::{Address, Refusal};

/// What a sample does to its metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Adds to a counter.
    Add(u64),
    /// Adds an observation, in milliseconds, to a histogram.
    Observe(u64),
}

/// One event that moves a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Count {
    /// `signalr_gateway_affinity_total`: what became of a route, or that there was none.
    Affinity {
        /// The hub.
        hub: HubLabel,
        /// What carried the route.
        source: Source,
        /// What became of it.
        outcome: Outcome,
    },
    /// `signalr_gateway_negotiations_total`: how a negotiate was answered.
    Negotiation {
        /// The hub.
        hub: HubLabel,
        /// How.
        result: Negotiation,
    },
    /// `signalr_gateway_rejected_total`: a request was over a limit.
    Rejected {
        /// The hub.
        hub: HubLabel,
        /// The limit.
        limit: Limit,
        /// Whether it was rejected, or only counted.
        mode: Mode,
    },
    /// `signalr_gateway_connections_total`: a connection was opened.
    Opened {
        /// The hub.
        hub: HubLabel,
        /// How it connects.
        transport: Transport,
    },
    /// `signalr_gateway_negotiate_to_connect_milliseconds`.
    NegotiateToConnect {
        /// The hub.
        hub: HubLabel,
        /// From the negotiate's answer to the connect's.
        milliseconds: u64,
    },
    /// `websocket_connections_total`: a WebSocket was opened.
    WebSocketOpened(HubLabel),
    /// `websocket_connections_closed_total`.
    WebSocketClosed {
        /// The hub.
        hub: HubLabel,
        /// Who ended it.
        by: ClosedBy,
        /// The first Close, if there was one.
        close: Option<Close>,
    },
    /// `websocket_connection_duration_milliseconds`.
    WebSocketDuration {
        /// The hub.
        hub: HubLabel,
        /// From 101 to the end.
        milliseconds: u64,
    },
    /// `websocket_handshake_milliseconds`.
    WebSocketHandshake {
        /// The hub.
        hub: HubLabel,
        /// From the request to 101.
        milliseconds: u64,
    },
    /// `websocket_handshake_failures_total`.
    WebSocketHandshakeFailed {
        /// The hub.
        hub: HubLabel,
        /// What was answered; `None` when the client left before.
        status: Option<u16>,
    },
    /// `websocket_messages_total` and `websocket_bytes_total`.
    WebSocketTraffic {
        /// The hub.
        hub: HubLabel,
        /// Which way.
        direction: Direction,
        /// What of it.
        unit: TrafficUnit,
        /// How much.
        amount: u64,
    },
    /// `signalr_gateway_messages_total`.
    Message {
        /// The hub.
        hub: HubLabel,
        /// Which way.
        direction: Direction,
        /// Of which type.
        message: MessageType,
        /// How many.
        amount: u64,
    },
    /// `websocket_errors_total`.
    WebSocketError {
        /// The hub.
        hub: HubLabel,
        /// What went wrong.
        kind: &'static str,
    },
    /// `signalr_gateway_internal_errors_total`: Envoy refused something that the filter relies on.
    InternalError(InternalError),
}

/// What traffic is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficUnit {
    /// Data messages, counted when complete.
    Messages,
    /// Payload of data frames, as it is on the wire.
    Bytes,
}

/// A type of SignalR message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// One that was read.
    Read(messages::Kind),
    /// In a compressed WebSocket message: nobody knows which, or how many.
    Compressed,
}

impl MessageType {
    fn label(self) -> &'static str {
        match self {
            Self::Compressed => "compressed",
            Self::Read(kind) => match kind {
                messages::Kind::Invocation => "invocation",
                messages::Kind::StreamItem => "stream_item",
                messages::Kind::Completion => "completion",
                messages::Kind::StreamInvocation => "stream_invocation",
                messages::Kind::CancelInvocation => "cancel_invocation",
                messages::Kind::Ping => "ping",
                messages::Kind::Close => "close",
                messages::Kind::Ack => "ack",
                messages::Kind::Sequence => "sequence",
                messages::Kind::Other => "other",
            },
        }
    }
}

/// How a negotiate was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Negotiation {
    /// With an id, which now carries its route.
    Sealed,
    /// With an id that was left alone: by configuration, or because clients would have to encode it.
    Unsealed,
    /// With another URL to negotiate at.
    Redirect,
    /// With an error in words for the user.
    Error,
    /// With a status other than 200.
    Failed,
    /// With 200 and something that is no answer to a negotiate.
    Unrecognised,
    /// With more than the filter reads.
    TooLarge,
    /// Compressed, although not asked for.
    Encoded,
    /// The answer broke off, or ended with trailers.
    Incomplete,
}

/// What Envoy refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InternalError {
    /// A change of a header.
    Header,
    /// A change of a body.
    Body,
    /// Randomness.
    Random,
    /// A change of the ledger, too often in a row.
    Ledger,
}

impl Count {
    /// What it does.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NegotiateToConnect { milliseconds, .. }
            | Self::WebSocketDuration { milliseconds, .. }
            | Self::WebSocketHandshake { milliseconds, .. } => Kind::Observe(*milliseconds),
            Self::WebSocketTraffic { amount, .. } | Self::Message { amount, .. } => Kind::Add(*amount),
            Self::Affinity { .. }
            | Self::Negotiation { .. }
            | Self::Rejected { .. }
            | Self::Opened { .. }
            | Self::WebSocketOpened(_)
            | Self::WebSocketClosed { .. }
            | Self::WebSocketHandshakeFailed { .. }
            | Self::WebSocketError { .. }
            | Self::InternalError(_) => Kind::Add(1),
        }
    }

    /// Whether it changes nothing.
    pub fn is_nothing(&self) -> bool {
        self.kind() == Kind::Add(0)
    }

    /// The metric's name in Envoy, labels included.
    pub fn stat(&self) -> String {
        match self {
            Self::Affinity { hub, source, outcome } => stat(
                "signalr_gateway_affinity_total",
                &[("hub", &hub.0), ("source", source.label()), ("outcome", outcome.label())],
            ),
            Self::Negotiation { hub, result } => {
                stat("signalr_gateway_negotiations_total", &[("hub", &hub.0), ("result", result.label())])
            }
            Self::Rejected { hub, limit, mode } => {
                let mode = match mode {
                    Mode::Enforce => "enforce",
                    Mode::Shadow => "shadow",
                };
                stat("signalr_gateway_rejected_total", &[("hub", &hub.0), ("limit", limit.label()), ("mode", mode)])
            }
            Self::Opened { hub, transport } => {
                stat("signalr_gateway_connections_total", &[("hub", &hub.0), ("transport", transport.label())])
            }
            Self::NegotiateToConnect { hub, .. } => {
                stat("signalr_gateway_negotiate_to_connect_milliseconds", &[("hub", &hub.0)])
            }
            Self::WebSocketOpened(hub) => stat("websocket_connections_total", &[("hub", &hub.0)]),
            Self::WebSocketClosed { hub, by, close } => stat(
                "websocket_connections_closed_total",
                &[("hub", &hub.0), ("closed_by", by.label()), ("code", code_label(*close))],
            ),
            Self::WebSocketDuration { hub, .. } => {
                stat("websocket_connection_duration_milliseconds", &[("hub", &hub.0)])
            }
            Self::WebSocketHandshake { hub, .. } => stat("websocket_handshake_milliseconds", &[("hub", &hub.0)]),
            Self::WebSocketHandshakeFailed { hub, status } => {
                let status = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
                stat("websocket_handshake_failures_total", &[("hub", &hub.0), ("status", &status)])
            }
            Self::WebSocketTraffic { hub, direction, unit, .. } => {
                let name = match unit {
                    TrafficUnit::Messages => "websocket_messages_total",
                    TrafficUnit::Bytes => "websocket_bytes_total",
                };
                stat(name, &[("hub", &hub.0), ("direction", direction_label(*direction))])
            }
            Self::Message { hub, direction, message, .. } => stat(
                "signalr_gateway_messages_total",
                &[("hub", &hub.0), ("direction", direction_label(*direction)), ("type", message.label())],
            ),
            Self::WebSocketError { hub, kind } => stat("websocket_errors_total", &[("hub", &hub.0), ("kind", kind)]),
            Self::InternalError(kind) => stat("signalr_gateway_internal_errors_total", &[("kind", kind.label())]),
        }
    }
}

/// The gauges, by name with labels: `signalr_gateway_connections_active` and `websocket_connections_active`, the latter by
/// pod where `upstreams` has been asked for.
pub fn gauges(
    connections: &[(HubLabel, Transport, u64)],
    upstreams: Option<&BTreeMap<Upstream, u64>>,
) -> BTreeMap<String, u64> {
    let websockets = "websocket_connections_active";
    let mut gauges = BTreeMap::new();
    for (hub, transport, count) in connections {
        let labels = [("hub", hub.as_str()), ("transport", transport.label())];
        gauges.insert(stat("signalr_gateway_connections_active", &labels), *count);
        if *transport == Transport::WebSockets && upstreams.is_none() {
            gauges.insert(stat(websockets, &[("hub", hub.as_str())]), *count);
        }
    }
    for (Upstream { hub, address }, count) in upstreams.into_iter().flatten() {
        gauges.insert(stat(websockets, &[("hub", hub.as_str()), ("upstream", address.as_str())]), *count);
    }
    gauges
}

/// As the server sees it.
fn direction_label(direction: Direction) -> &'static str {
    match direction {
        Direction::Received => "received",
        Direction::Sent => "sent",
    }
}

fn stat(metric: &str, labels: &[(&str, &str)]) -> String {
    let mut name = String::new();
    for (tag, value) in labels {
        // Writing to a String cannot fail.
        let _ = write!(name, "signalr_{tag}=.={value};.;");
    }
    name.push_str(metric);
    name
}

impl Source {
    /// Value of the label `source`.
    pub fn label(self) -> &'static str {
        match self {
            Self::ConnectionToken => "connection_token",
            Self::ConnectionCookie | Self::PendingCookie => "connection_cookie",
            Self::ClientCookie => "client_cookie",
            Self::Nothing => "none",
        }
    }
}

impl Outcome {
    /// Value of the label `outcome`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Routed => "routed",
            Self::HostGone => "host_gone",
            Self::Refused(Refusal::Expired) => "expired",
            Self::Refused(Refusal::Forged) => "forged",
            Self::Refused(Refusal::UnknownKey) => "unknown_key",
            Self::Absent => "none",
        }
    }
}

impl Negotiation {
    fn label(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Unsealed => "unsealed",
            Self::Redirect => "redirect",
            Self::Error => "error",
            Self::Failed => "failed",
            Self::Unrecognised => "unrecognised",
            Self::TooLarge => "too_large",
            Self::Encoded => "encoded",
            Self::Incomplete => "incomplete",
        }
    }
}

impl InternalError {
    fn label(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Body => "body",
            Self::Random => "random",
            Self::Ledger => "ledger",
        }
    }
}

/// Value of the label `hub`: a configured name, the path of a hub that answered a negotiate, or `other`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HubLabel(String);

impl HubLabel {
    /// Longest label; the rest of a longer path is left out.
    const MOST: usize = 64;

    /// The label of `hub`, a path as the client wrote it.
    pub fn of(hub: &[u8], settings: &Settings, names: &mut HubNames, store: &dyn Store) -> Self {
        if let Hubs::Listed(hubs) = &settings.hubs {
            let listed = hubs.iter().find(|listed| listed.path.matches(hub));
            return listed.map_or_else(Self::other, |listed| Self::clean(listed.name.as_bytes()));
        }
        let label = Self::learned(hub);
        if names.knows(&label.0, store) { label } else { Self::other() }
    }

    /// The label that `hub` has once it has answered a negotiate; paths that differ in case are one hub.
    pub fn learned(hub: &[u8]) -> Self {
        let trimmed = if hub.len() > 1 { hub.strip_suffix(b"/").unwrap_or(hub) } else { hub };
        Self::clean(&trimmed.to_ascii_lowercase())
    }

    /// Whether the hub is told apart from others.
    pub fn is_known(&self) -> bool {
        *self != Self::other()
    }

    /// A label that was written down before.
    pub(crate) fn restored(text: &str) -> Self {
        Self::clean(text.as_bytes())
    }

    /// 32 bits that stand for the label where bytes count (FNV-1a).
    pub(crate) fn hash(&self) -> u32 {
        self.0.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The label of a pod: its address.
    pub(crate) fn address(address: &Address) -> Self {
        Self::clean(address.as_bytes())
    }

    /// Whatever is not told apart.
    pub(crate) fn other() -> Self {
        Self("other".to_owned())
    }

    fn clean(text: &[u8]) -> Self {
        let plain = |byte: &u8| {
            if byte.is_ascii_alphanumeric() || b"/_.*-~:[]".contains(byte) { char::from(*byte) } else { '_' }
        };
        Self(text.iter().take(Self::MOST).map(plain).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn labels_stand_in_the_name_as_istio_reads_them() {
        let hub = HubLabel::learned(b"/Chat;.;x=%20/");
        let count = Count::Affinity { hub, source: Source::Nothing, outcome: Outcome::Absent };
        let expected = "signalr_hub=.=/chat_._x__20;.;signalr_source=.=none;.;signalr_outcome=.=none;.;signalr_gateway_affinity_total";
        assert_eq!(count.stat(), expected);
    }
}
