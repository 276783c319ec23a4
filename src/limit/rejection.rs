//! What a client over a limit gets: an answer that names the limit, and never the client.

use crate::settings::{Limits, NegotiateRejection};

/// A limit that a request was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `limits.connections.per_client`.
    PerClient,
    /// `limits.connections.per_hub`.
    PerHub,
    /// `limits.connections.total`.
    Total,
    /// `limits.negotiate_rate`.
    NegotiateRate,
    /// `limits.connect_rate`.
    ConnectRate,
    /// None: the request has no client key, and `limits.client.absent` is `refuse`.
    NoClientKey,
    /// None: the ledger failed, and `limits.on_error` is `deny`.
    Ledger,
    /// None: Redis does not answer, and `limits.shared.redis.on_error` is `deny`.
    Shared,
}

impl Limit {
    /// Value of the metric label `limit`.
    pub fn label(self) -> &'static str {
        match self {
            Self::PerClient => "per_client",
            Self::PerHub => "per_hub",
            Self::Total => "total",
            Self::NegotiateRate => "negotiate_rate",
            Self::ConnectRate => "connect_rate",
            Self::NoClientKey => "no_client_key",
            Self::Ledger => "ledger",
            Self::Shared => "shared",
        }
    }

    /// Envoy's `%RESPONSE_CODE_DETAILS%`.
    pub fn details(self) -> &'static str {
        match self {
            Self::PerClient => "signalr_connection_limit",
            Self::PerHub => "signalr_hub_limit",
            Self::Total => "signalr_total_limit",
            Self::NegotiateRate => "signalr_negotiate_rate",
            Self::ConnectRate => "signalr_connect_rate",
            Self::NoClientKey => "signalr_no_client_key",
            Self::Ledger => "signalr_ledger_failure",
            Self::Shared => "signalr_shared_failure",
        }
    }

    /// What users read, so in their words.
    fn message(self) -> &'static str {
        match self {
            Self::PerClient => "Connection limit reached: this client has too many connections open.",
            Self::PerHub => "Connection limit reached: this hub is full.",
            Self::Total => "Connection limit reached: the server is full.",
            Self::NegotiateRate | Self::ConnectRate => "Connection limit reached: this client connects too often.",
            Self::NoClientKey => "This client is not known here: sign in first.",
            Self::Ledger | Self::Shared => "Connections cannot be counted at the moment.",
        }
    }
}

/// An answer that the filter gives itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejection {
    /// HTTP status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: String,
    /// Envoy's `%RESPONSE_CODE_DETAILS%`.
    pub details: &'static str,
}

/// The answer to a request that is over `limit`. `origin` is its header of that name.
pub fn reject(limits: &Limits, limit: Limit, is_negotiate: bool, origin: Option<&[u8]>) -> Rejection {
    let settings = &limits.rejection;
    let in_words = is_negotiate && settings.negotiate == NegotiateRejection::Error;
    let mut headers =
        vec![("cache-control", "no-store".to_owned()), ("retry-after", settings.retry_after.as_secs().to_string())];
    let (status, body) = if in_words {
        headers.push(("content-type", "application/json".to_owned()));
        (200, serde_json::json!({ "error": limit.message() }).to_string())
    } else {
        headers.push(("content-type", "text/plain".to_owned()));
        (settings.status, limit.message().to_owned())
    };
    if let Some(origin) = origin.and_then(|origin| str::from_utf8(origin).ok())
        && settings.allow_origins.iter().any(|allowed| allowed.allows(origin))
    {
        // Without these a page of another origin sees a network error and no reason.
        headers.push(("access-control-allow-origin", origin.to_owned()));
        headers.push(("access-control-allow-credentials", "true".to_owned()));
        headers.push(("vary", "origin".to_owned()));
    }
    Rejection { status, headers, body, details: limit.details() }
}
