//! What is counted, and the names that it has in Envoy.
//!
//! A stat's name carries its labels as `signalr_hub=.=/chat;.;` before the metric's own name: Istio extracts this form
//! by itself (`extraStatTags`), plain Envoy by the `stats_tags` of `envoy/envoy.yaml`. Labels are bounded and never
//! name a client, a user or a connection.

mod gauges;
mod labels;

use crate::affinity::{Outcome, Source};
use crate::frame::{Close, Direction};
use crate::hub::HubLabel;
use crate::lifecycle::{ClosedBy, code_label};
use crate::limit::Limit;
use crate::settings::Mode;
use crate::signalr::Transport;

pub use gauges::Gauges;
pub use labels::{InternalError, MessageType, Negotiation, SharedCall, TrafficUnit};

/// What a sample does to its metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
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
    /// `signalr_gateway_connections_resumed_total`: a WebSocket came back with the id of a connection (stateful reconnect).
    Resumed(HubLabel),
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
    /// `signalr_gateway_shared_data_conflicts_total`: another worker thread wrote first, so many times.
    Conflicts(u64),
    /// `signalr_gateway_shared_calls_total`: a call to the Redis through which gateways share limits.
    SharedCall(SharedCall),
    /// `signalr_gateway_shared_call_milliseconds`.
    SharedCallTook {
        /// From its start to its answer or failure.
        milliseconds: u64,
    },
    /// `signalr_gateway_internal_errors_total`: Envoy refused something that the filter relies on.
    InternalError(InternalError),
}

impl Count {
    /// What it does.
    pub fn change(&self) -> Change {
        match self {
            Self::NegotiateToConnect { milliseconds, .. }
            | Self::WebSocketDuration { milliseconds, .. }
            | Self::WebSocketHandshake { milliseconds, .. }
            | Self::SharedCallTook { milliseconds } => Change::Observe(*milliseconds),
            Self::WebSocketTraffic { amount, .. } | Self::Message { amount, .. } | Self::Conflicts(amount) => {
                Change::Add(*amount)
            }
            Self::Affinity { .. }
            | Self::Negotiation { .. }
            | Self::Rejected { .. }
            | Self::Opened { .. }
            | Self::Resumed(_)
            | Self::WebSocketOpened(_)
            | Self::WebSocketClosed { .. }
            | Self::WebSocketHandshakeFailed { .. }
            | Self::WebSocketError { .. }
            | Self::SharedCall(_)
            | Self::InternalError(_) => Change::Add(1),
        }
    }

    /// Whether it changes nothing.
    pub fn is_nothing(&self) -> bool {
        self.change() == Change::Add(0)
    }

    /// The metric's name in Envoy, labels included.
    pub fn stat(&self) -> String {
        match self {
            Self::Affinity { hub, source, outcome } => stat(
                "signalr_gateway_affinity_total",
                &[("hub", hub.as_str()), ("source", source.label()), ("outcome", outcome.label())],
            ),
            Self::Negotiation { hub, result } => {
                stat("signalr_gateway_negotiations_total", &[("hub", hub.as_str()), ("result", result.label())])
            }
            Self::Rejected { hub, limit, mode } => {
                let mode = match mode {
                    Mode::Enforce => "enforce",
                    Mode::Shadow => "shadow",
                };
                stat(
                    "signalr_gateway_rejected_total",
                    &[("hub", hub.as_str()), ("limit", limit.label()), ("mode", mode)],
                )
            }
            Self::Opened { hub, transport } => {
                stat("signalr_gateway_connections_total", &[("hub", hub.as_str()), ("transport", transport.label())])
            }
            Self::Resumed(hub) => stat("signalr_gateway_connections_resumed_total", &[("hub", hub.as_str())]),
            Self::NegotiateToConnect { hub, .. } => {
                stat("signalr_gateway_negotiate_to_connect_milliseconds", &[("hub", hub.as_str())])
            }
            Self::WebSocketOpened(hub) => stat("websocket_connections_total", &[("hub", hub.as_str())]),
            Self::WebSocketClosed { hub, by, close } => stat(
                "websocket_connections_closed_total",
                &[("hub", hub.as_str()), ("closed_by", by.label()), ("code", code_label(*close))],
            ),
            Self::WebSocketDuration { hub, .. } => {
                stat("websocket_connection_duration_milliseconds", &[("hub", hub.as_str())])
            }
            Self::WebSocketHandshake { hub, .. } => stat("websocket_handshake_milliseconds", &[("hub", hub.as_str())]),
            Self::WebSocketHandshakeFailed { hub, status } => {
                let status = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
                stat("websocket_handshake_failures_total", &[("hub", hub.as_str()), ("status", &status)])
            }
            Self::WebSocketTraffic { hub, direction, unit, .. } => {
                let name = match unit {
                    TrafficUnit::Messages => "websocket_messages_total",
                    TrafficUnit::Bytes => "websocket_bytes_total",
                };
                stat(name, &[("hub", hub.as_str()), ("direction", labels::direction(*direction))])
            }
            Self::Message { hub, direction, message, .. } => stat(
                "signalr_gateway_messages_total",
                &[("hub", hub.as_str()), ("direction", labels::direction(*direction)), ("type", message.label())],
            ),
            Self::WebSocketError { hub, kind } => {
                stat("websocket_errors_total", &[("hub", hub.as_str()), ("kind", kind)])
            }
            Self::SharedCall(call) => stat("signalr_gateway_shared_calls_total", &[("result", call.label())]),
            Self::SharedCallTook { .. } => stat("signalr_gateway_shared_call_milliseconds", &[]),
            Self::Conflicts(_) => stat("signalr_gateway_shared_data_conflicts_total", &[]),
            Self::InternalError(kind) => stat("signalr_gateway_internal_errors_total", &[("kind", kind.label())]),
        }
    }
}

/// The names of most metrics are not longer, in bytes.
const LONGEST_USUAL: usize = 192;

fn stat(metric: &str, labels: &[(&str, &str)]) -> String {
    let mut name = String::with_capacity(LONGEST_USUAL);
    for (tag, value) in labels {
        ["signalr_", tag, "=.=", value, ";.;"].iter().for_each(|part| name.push_str(part));
    }
    name.push_str(metric);
    name
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
        let expected = "signalr_hub=.=/chat_._x__;.;signalr_source=.=none;.;signalr_outcome=.=none;.;signalr_gateway_affinity_total";
        assert_eq!(count.stat(), expected);
    }
}
