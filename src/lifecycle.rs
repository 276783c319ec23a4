//! How a WebSocket ended: by whom, with which code, or why it never began.
//!
//! The first Close frame shows who said goodbye. Without one, Envoy's response flags and details show who broke off: a
//! clean and a dirty end look the same in them.

use crate::frame::{Close, Direction};

/// Who ended a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedBy {
    /// The client.
    Client,
    /// The hub.
    Server,
    /// Nobody sent anything for too long.
    IdleTimeout,
    /// Envoy: a drained listener, the longest life allowed.
    Gateway,
    /// It cannot be known.
    Unknown,
}

impl ClosedBy {
    /// Value of the metric label `closed_by`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::IdleTimeout => "idle_timeout",
            Self::Gateway => "gateway",
            Self::Unknown => "unknown",
        }
    }
}

/// What Envoy knows when a stream has ended: `response.flags` and `response.code_details`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// Bits of `CoreResponseFlag`, in the order of Envoy's `stream_info.h`.
    pub flags: u64,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: Vec<u8>,
}

/// `UpstreamConnectionFailure`, `UpstreamConnectionTermination`.
const UPSTREAM: u64 = 1 << 5 | 1 << 6;
/// `DownstreamConnectionTermination`, `DownstreamRemoteReset`.
const DOWNSTREAM: u64 = 1 << 14 | 1 << 28;
/// `StreamIdleTimeout`.
const IDLE: u64 = 1 << 16;
/// `DurationTimeout`.
const DURATION: u64 = 1 << 20;

/// Who said goodbye first, in a Close frame or in SignalR's own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goodbye {
    /// Nobody did.
    Nobody,
    /// This side.
    Of(Direction),
    /// No frame was read.
    Unseen,
}

impl Ending {
    /// Who ended the WebSocket.
    pub fn closed_by(&self, goodbye: Goodbye) -> ClosedBy {
        match goodbye {
            Goodbye::Of(Direction::Received) => return ClosedBy::Client,
            Goodbye::Of(Direction::Sent) => return ClosedBy::Server,
            Goodbye::Nobody | Goodbye::Unseen => {}
        }
        let local = [b"downstream_local_disconnect".as_slice(), b"max_duration_timeout"];
        match self.flags {
            flags if flags & IDLE != 0 => ClosedBy::IdleTimeout,
            flags if flags & DURATION != 0 || local.iter().any(|details| self.details.starts_with(details)) => {
                ClosedBy::Gateway
            }
            // After a goodbye of either side it is the server that ends the TCP connection (RFC 6455 section 7.1.1).
            flags if flags & UPSTREAM != 0 && goodbye == Goodbye::Unseen => ClosedBy::Unknown,
            flags if flags & UPSTREAM != 0 => ClosedBy::Server,
            flags if flags & DOWNSTREAM != 0 => ClosedBy::Client,
            _ => ClosedBy::Unknown,
        }
    }
}

/// Value of the metric label `code`: registered codes (RFC 6455 section 7.4.1, IANA), so that it is bounded. An empty Close
/// is 1005 by section 7.1.5.
pub fn code_label(close: Option<Close>) -> &'static str {
    match close.map(|close| close.code.unwrap_or(1005)) {
        None => "none",
        Some(1000) => "1000",
        Some(1001) => "1001",
        Some(1002) => "1002",
        Some(1003) => "1003",
        Some(1005) => "1005",
        Some(1006) => "1006",
        Some(1007) => "1007",
        Some(1008) => "1008",
        Some(1009) => "1009",
        Some(1010) => "1010",
        Some(1011) => "1011",
        Some(1012) => "1012",
        Some(1013) => "1013",
        Some(1014) => "1014",
        Some(1015) => "1015",
        Some(_) => "other",
    }
}

/// Why a request failed, by what hub or gateway answered (ASP.NET Core's `HttpConnectionDispatcher`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// 404 `No Connection with that ID`: another pod, a restarted one, or more than 15 s after the negotiate.
    UnknownConnection,
    /// 404 `… transport not supported by this end point type`.
    TransportDisabled,
    /// 404 of something else than a hub.
    NotAHub,
    /// 400 `Connection ID required`.
    MissingId,
    /// 400 `Cannot change transports mid-connection`.
    TransportChanged,
    /// 409: the id is in use.
    AlreadyConnected,
    /// A WebSocket request whose upgrade was lost on its way: before the gateway, or behind it, where a 200 shows it.
    UpgradeLost,
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 405 on a send.
    SendOnWebSocket,
    /// 405 otherwise: a preflight where CORS is not enabled, or a negotiate that is no POST.
    MethodNotAllowed,
    /// 400 to a WebSocket, without a text that says more: as of a server on which WebSockets are not enabled.
    WebSocketsUnavailable,
    /// 307 or 308.
    Redirected,
    /// 413 or 431: often a long access token.
    TokenTooLarge,
    /// 502, 503 or 504.
    Unavailable,
    /// Anything else that is no success.
    Other,
}

/// How much of an error's body distinguishes hubs' errors.
pub const ERROR_LENGTH: usize = 64;

impl Failure {
    /// Reads a failure from the status and the beginning of the body; `None` for a success.
    pub fn read(status: u16, body: &[u8], is_websocket: bool) -> Option<Self> {
        let says = |text: &[u8]| body.windows(text.len()).any(|part| part == text);
        Some(match status {
            200 if is_websocket => Self::UpgradeLost,
            100..300 => return None,
            307 | 308 => Self::Redirected,
            400 if says(b"Connection ID required") => Self::MissingId,
            400 if says(b"Cannot change transports") => Self::TransportChanged,
            400 if is_websocket => Self::WebSocketsUnavailable,
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 if says(b"No Connection with that ID") => Self::UnknownConnection,
            404 if says(b"transport not supported") => Self::TransportDisabled,
            404 => Self::NotAHub,
            405 if says(b"WebSocket connections") => Self::SendOnWebSocket,
            405 => Self::MethodNotAllowed,
            409 => Self::AlreadyConnected,
            413 | 431 => Self::TokenTooLarge,
            502..=504 => Self::Unavailable,
            _ => Self::Other,
        })
    }

    /// Value of the metric label `kind`.
    pub fn label(self) -> &'static str {
        match self {
            Self::UnknownConnection => "unknown_connection",
            Self::TransportDisabled => "transport_disabled",
            Self::NotAHub => "not_a_hub",
            Self::MissingId => "missing_id",
            Self::TransportChanged => "transport_changed",
            Self::AlreadyConnected => "already_connected",
            Self::UpgradeLost => "upgrade_lost",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::SendOnWebSocket => "send_on_websocket",
            Self::MethodNotAllowed => "cors_or_method",
            Self::WebSocketsUnavailable => "websockets_unavailable",
            Self::Redirected => "redirected",
            Self::TokenTooLarge => "token_too_large",
            Self::Unavailable => "unavailable",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// The table of endings seen on Envoy 1.40.
    #[test]
    fn each_ending_has_one_who_ended_it() {
        for (name, flags, details, goodbye, expected) in [
            (
                "client's Close",
                16_384,
                "downstream_remote_disconnect",
                Goodbye::Of(Direction::Received),
                ClosedBy::Client,
            ),
            ("server's Close", 16_384, "downstream_remote_disconnect", Goodbye::Of(Direction::Sent), ClosedBy::Server),
            ("client's FIN or RST", 16_384, "downstream_remote_disconnect", Goodbye::Nobody, ClosedBy::Client),
            ("client's RST_STREAM", 268_435_456, "http2.remote_reset", Goodbye::Nobody, ClosedBy::Client),
            (
                "server's FIN or RST",
                64,
                "upstream_reset_after_response_started{connection_termination}",
                Goodbye::Nobody,
                ClosedBy::Server,
            ),
            (
                "server's FIN after a goodbye that nobody read, or without one",
                64,
                "upstream_reset_after_response_started{connection_termination}",
                Goodbye::Unseen,
                ClosedBy::Unknown,
            ),
            (
                "client's FIN, and no frame was read",
                16_384,
                "downstream_remote_disconnect",
                Goodbye::Unseen,
                ClosedBy::Client,
            ),
            ("silence", 65_536, "stream_idle_timeout", Goodbye::Nobody, ClosedBy::IdleTimeout),
            ("longest life", 0, "max_duration_timeout", Goodbye::Nobody, ClosedBy::Gateway),
            (
                "drain",
                16_384,
                "downstream_local_disconnect(filter_chain_is_being_removed)",
                Goodbye::Nobody,
                ClosedBy::Gateway,
            ),
            ("reset by a filter", 0, "via_upstream", Goodbye::Nobody, ClosedBy::Unknown),
        ] {
            assert_eq!(Ending { flags, details: details.into() }.closed_by(goodbye), expected, "{name}");
        }
    }

    #[test]
    fn hubs_errors_are_told_apart() {
        for (status, body, websocket, expected) in [
            (101, "", true, None),
            (200, "", false, None),
            (200, "<!doctype html>", true, Some(Failure::UpgradeLost)),
            (404, "No Connection with that ID", true, Some(Failure::UnknownConnection)),
            (404, "WebSockets transport not supported by this end point type", true, Some(Failure::TransportDisabled)),
            (404, "", true, Some(Failure::NotAHub)),
            (400, "Connection ID required", false, Some(Failure::MissingId)),
            (400, "Cannot change transports mid-connection", false, Some(Failure::TransportChanged)),
            (405, "POST requests are not allowed for WebSocket connections.", false, Some(Failure::SendOnWebSocket)),
            (405, "", false, Some(Failure::MethodNotAllowed)),
            (400, "", true, Some(Failure::WebSocketsUnavailable)),
            (400, "", false, Some(Failure::Other)),
            (409, "", true, Some(Failure::AlreadyConnected)),
            (503, "no healthy upstream", true, Some(Failure::Unavailable)),
            (418, "", true, Some(Failure::Other)),
        ] {
            assert_eq!(Failure::read(status, body.as_bytes(), websocket), expected, "{status} {body}");
        }
    }
}
