//! The values that labels take, other than hubs: all fixed at compile time.

use crate::affinity::{Outcome, Source};
use crate::frame::Direction;
use crate::messages::MessageKind;
use crate::shared::CallFailure;
use crate::token::Refusal;

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
    Read(MessageKind),
    /// In a compressed WebSocket message: nobody knows which, or how many.
    Compressed,
}

impl MessageType {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Compressed => "compressed",
            Self::Read(kind) => match kind {
                MessageKind::Invocation => "invocation",
                MessageKind::StreamItem => "stream_item",
                MessageKind::Completion => "completion",
                MessageKind::StreamInvocation => "stream_invocation",
                MessageKind::CancelInvocation => "cancel_invocation",
                MessageKind::Ping => "ping",
                MessageKind::Close => "close",
                MessageKind::Ack => "ack",
                MessageKind::Sequence => "sequence",
                MessageKind::Other => "other",
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

impl Negotiation {
    pub(super) fn label(self) -> &'static str {
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
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Body => "body",
            Self::Random => "random",
            Self::Ledger => "ledger",
        }
    }
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

/// Value of the label `direction`: as the server sees it.
pub(super) fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Received => "received",
        Direction::Sent => "sent",
    }
}

/// How a call to Redis ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedCall {
    /// With an answer to each command.
    Answered,
    /// With none.
    Failed(CallFailure),
}

impl SharedCall {
    /// Value of the metric label `result`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Answered => "ok",
            Self::Failed(CallFailure::TimedOut) => "timeout",
            Self::Failed(CallFailure::Unreachable) => "unreachable",
            Self::Failed(CallFailure::Refused) => "error",
        }
    }
}
