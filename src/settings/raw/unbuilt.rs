//! Sections of the schema that this version does not act on yet.
//!
//! They are parsed all the same, so that a mistake in them is told as such; then [`super::super`] refuses them, because
//! an operator who writes a limit must not believe that it holds.
#![expect(dead_code, reason = "validated before they are built")]

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::Span;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::settings) struct Limits {
    mode: LimitMode,
    client: LimitClient,
    connections: LimitConnections,
    negotiate_rate: Option<Rate>,
    connect_rate: Option<Rate>,
    reject: Reject,
    long_polling_idle: Span,
    on_error: OnError,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            mode: LimitMode::Enforce,
            client: LimitClient::default(),
            connections: LimitConnections::default(),
            negotiate_rate: None,
            connect_rate: None,
            reject: Reject::default(),
            long_polling_idle: Span::seconds(15),
            on_error: OnError::Allow,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LimitMode {
    Enforce,
    Shadow,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitClient {
    key: ClientKey,
    ipv4_prefix: Prefix<32>,
    ipv6_prefix: Prefix<128>,
    exempt: Vec<IpNet>,
}

impl Default for LimitClient {
    fn default() -> Self {
        Self { key: ClientKey::SourceAddress, ipv4_prefix: Prefix(32), ipv6_prefix: Prefix(64), exempt: Vec::new() }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ClientKey {
    SourceAddress,
    Header(String),
    Cookie(String),
    JwtClaim(String),
    Query(String),
}

/// A prefix length of 0 to `MOST` bits.
#[derive(Debug)]
struct Prefix<const MOST: u8>(u8);

impl<'de, const MOST: u8> Deserialize<'de> for Prefix<MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bits = u64::deserialize(deserializer)?;
        match u8::try_from(bits) {
            Ok(bits) if bits <= MOST => Ok(Self(bits)),
            _ => Err(de::Error::invalid_value(de::Unexpected::Unsigned(bits), &format!("0 to {MOST}").as_str())),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitConnections {
    per_client: Option<u32>,
    per_hub: Option<u32>,
    total: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rate {
    requests: u32,
    per: Span,
    burst: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Reject {
    status: u16,
    retry_after: Span,
    negotiate: RejectNegotiate,
    allow_origins: Vec<String>,
}

impl Default for Reject {
    fn default() -> Self {
        Self {
            status: 429,
            retry_after: Span::seconds(5),
            negotiate: RejectNegotiate::Status,
            allow_origins: Vec::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RejectNegotiate {
    Status,
    Error,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnError {
    Allow,
    Deny,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::settings) struct Metrics {
    detail: Detail,
    per_upstream: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { detail: Detail::Frames, per_upstream: false }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Detail {
    Connections,
    Frames,
    Messages,
}
