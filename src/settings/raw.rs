//! The configuration as an operator writes it: a strict mirror of the documented schema, defaults included.
//!
//! Every structure refuses keys that it does not know, so that a misspelt option never becomes a default in silence.
//! What a value means, and which values go together, is decided in [`super`].

mod limits;

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use serde_json::Value;

pub use limits::{AbsentKey, Mode, NegotiateRejection, OnError, SharedOnError};
pub(super) use limits::{
    ClientKeySource, Count, LimitClient, LimitConnections, Limits, Network, Rate, Redis, Reject, Shared, Status,
};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object")]
pub(super) struct Raw {
    pub(super) hubs: Vec<Hub>,
    pub(super) affinity: Affinity,
    pub(super) limits: Option<Limits>,
    pub(super) metrics: Metrics,
    pub(super) explain: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object such as {\"path\": \"/chat\"}")]
pub(super) struct Hub {
    pub(super) path: String,
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) access_token: AccessToken,
    pub(super) transports: Option<Vec<String>>,
    #[serde(default)]
    pub(super) unbuffered_events: bool,
}

/// Where the access token of a hub's clients travels behind the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessToken {
    /// Where the client put it: browsers cannot send headers with WebSockets and event streams.
    #[default]
    Query,
    /// In `authorization`, because URLs end up in logs.
    Header,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object")]
pub(super) struct Affinity {
    pub(super) keys: Vec<Key>,
    pub(super) connection_token: ConnectionToken,
    pub(super) connection_cookie: ConnectionCookie,
    pub(super) client_cookie: ClientCookie,
    pub(super) pin: Pin,
    /// Off: without a route that reads it, it would be one more header, and ids would grow for nothing.
    pub(super) cluster_header: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an object such as {\"id\": \"1\", \"secret\": {\"env\": \"NAME_OF_A_VARIABLE\"}}"
)]
pub(super) struct Key {
    pub(super) id: String,
    pub(super) secret: SecretSource,
}

/// Read by hand, because serde's messages quote what they refuse, and this must not reach a log.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
pub(super) enum SecretSource {
    Env(String),
    Value(String),
}

impl TryFrom<Value> for SecretSource {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        const EXPECTED: &str = "expected {\"env\": \"NAME_OF_A_VARIABLE\"} or {\"value\": \"…\"}";
        let members = value.as_object().ok_or(EXPECTED)?;
        let mut texts = members.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?.to_owned())));
        match (members.len(), texts.next()) {
            (1, Some(("env", name))) => Ok(Self::Env(name)),
            (1, Some(("value", secret))) => Ok(Self::Value(secret)),
            _ => Err(EXPECTED),
        }
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretSource")
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object")]
pub(super) struct ConnectionToken {
    pub(super) enabled: bool,
    pub(super) ttl: Span,
    pub(super) negotiate_v0: bool,
}

impl Default for ConnectionToken {
    fn default() -> Self {
        // A stateful reconnect may come days after the negotiate: a week outlives what browsers keep open.
        Self { enabled: true, ttl: Span::hours(168), negotiate_v0: true }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object")]
pub(super) struct ConnectionCookie {
    pub(super) enabled: bool,
    pub(super) name: String,
    pub(super) max_age: Span,
    pub(super) same_site: SameSite,
    pub(super) secure: Secure,
    pub(super) http_only: bool,
    pub(super) partitioned: bool,
    pub(super) domain: Option<String>,
}

impl Default for ConnectionCookie {
    fn default() -> Self {
        Self {
            enabled: true,
            name: "signalr-affinity".to_owned(),
            max_age: Span::hours(24),
            same_site: SameSite::Lax,
            secure: Secure::Auto,
            http_only: true,
            partitioned: false,
            domain: None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object")]
pub(super) struct ClientCookie {
    pub(super) enabled: bool,
    pub(super) name: String,
    pub(super) max_age: Span,
    pub(super) rebalance_after: Option<Span>,
    pub(super) mark: Option<String>,
    pub(super) paths: Vec<String>,
    pub(super) path: String,
    pub(super) same_site: SameSite,
    pub(super) secure: Secure,
    pub(super) http_only: bool,
    pub(super) partitioned: bool,
    pub(super) domain: Option<String>,
}

impl Default for ClientCookie {
    fn default() -> Self {
        Self {
            // Off: one client, one pod is less even than one connection, one pod, and only Blazor needs it.
            enabled: false,
            name: "signalr-client".to_owned(),
            max_age: Span::hours(24),
            rebalance_after: None,
            // Without a route that reads it, it would be one more header for nothing.
            mark: None,
            paths: Vec::new(),
            path: "/".to_owned(),
            same_site: SameSite::Lax,
            secure: Secure::Auto,
            http_only: true,
            partitioned: false,
            domain: None,
        }
    }
}

/// RFC 6265bis section 5.6.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SameSite {
    Lax,
    Strict,
    None,
}

/// When a cookie gets the `Secure` attribute. YAML's and JSON's booleans are `always` and `never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secure {
    Auto,
    Always,
    Never,
}

impl<'de> Deserialize<'de> for Secure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SecureVisitor;
        impl Visitor<'_> for SecureVisitor {
            type Value = Secure;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`auto`, true or false")
            }

            fn visit_bool<E: de::Error>(self, always: bool) -> Result<Secure, E> {
                Ok(if always { Secure::Always } else { Secure::Never })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secure, E> {
                match text {
                    "auto" => Ok(Secure::Auto),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(SecureVisitor)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object")]
pub(super) struct Pin {
    pub(super) header: String,
    pub(super) encoding: PinEncoding,
}

impl Default for Pin {
    fn default() -> Self {
        Self { header: "x-signalr-pin".to_owned(), encoding: PinEncoding::Base64 }
    }
}

/// How the pin header names a host: each of Envoy's two consumers has its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PinEncoding {
    /// Standard base64, for the `stateful_session` filter in header mode.
    Base64,
    /// As it is, for the `override_host` load balancing policy.
    Plain,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object")]
pub(super) struct Metrics {
    pub(super) detail: Detail,
    pub(super) per_upstream: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { detail: Detail::Frames, per_upstream: false }
    }
}

/// How closely WebSockets are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    /// No frame is touched.
    Connections,
    /// Frame headers: messages, bytes, close codes.
    Frames,
    /// SignalR messages by type.
    Messages,
}

/// A whole number of 0 to `most`. `expected` says what is allowed.
fn whole_number<'de, D>(deserializer: D, most: u64, expected: &'static str) -> Result<u64, D::Error>
where
    D: Deserializer<'de>,
{
    struct WholeNumberVisitor {
        most: u64,
        expected: &'static str,
    }
    impl Visitor<'_> for WholeNumberVisitor {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.expected)
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
            if number <= self.most {
                Ok(number)
            } else {
                Err(E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }
        }

        /// For negative numbers only.
        fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
            Err(E::invalid_value(de::Unexpected::Signed(number), &self))
        }
    }
    deserializer.deserialize_u64(WholeNumberVisitor { most, expected })
}

/// A length of time, written as text: `90s`, `24h`, `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

impl Span {
    const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    const fn hours(hours: u64) -> Self {
        Self::seconds(hours.saturating_mul(3_600))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SpanVisitor;
        impl Visitor<'_> for SpanVisitor {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"90s\" or \"24h\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                humantime::parse_duration(text)
                    .map(Span)
                    .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(SpanVisitor)
    }
}
