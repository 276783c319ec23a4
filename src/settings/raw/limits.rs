//! The section `limits`, as an operator writes it.

use std::fmt;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::{SecretSource, Span, whole_number};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object")]
pub(in crate::settings) struct Limits {
    pub(in crate::settings) mode: Mode,
    pub(in crate::settings) client: LimitClient,
    pub(in crate::settings) connections: LimitConnections,
    pub(in crate::settings) negotiate_rate: Option<Rate>,
    pub(in crate::settings) connect_rate: Option<Rate>,
    pub(in crate::settings) reject: Reject,
    pub(in crate::settings) long_polling_idle: Span,
    pub(in crate::settings) on_error: OnError,
    pub(in crate::settings) shared: Option<Shared>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            client: LimitClient::default(),
            connections: LimitConnections::default(),
            negotiate_rate: None,
            connect_rate: None,
            reject: Reject::default(),
            long_polling_idle: Span::seconds(15),
            on_error: OnError::Allow,
            shared: None,
        }
    }
}

/// Whether limits reject or only count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// What is over a limit is rejected.
    Enforce,
    /// What is over a limit is counted and passes.
    Shadow,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object")]
pub(in crate::settings) struct LimitClient {
    pub(in crate::settings) key: ClientKeySource,
    pub(in crate::settings) absent: AbsentKey,
    pub(in crate::settings) ipv4_prefix: Prefix<32>,
    pub(in crate::settings) ipv6_prefix: Prefix<128>,
    pub(in crate::settings) exempt: Vec<Network>,
}

impl Default for LimitClient {
    fn default() -> Self {
        Self {
            key: ClientKeySource::SourceAddress,
            absent: AbsentKey::Address,
            ipv4_prefix: Prefix(32),
            ipv6_prefix: Prefix(64),
            exempt: Vec::new(),
        }
    }
}

#[derive(Debug)]
pub(in crate::settings) enum ClientKeySource {
    SourceAddress,
    Header(String),
    AddressHeader(String),
    Cookie(String),
    JwtClaim(String),
    Query(String),
}

/// Every way to write a client key that is not `source_address`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object")]
struct NamedKey {
    header: Option<String>,
    r#as: Option<HeaderReading>,
    cookie: Option<String>,
    jwt_claim: Option<String>,
    query: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum HeaderReading {
    Address,
}

impl<'de> Deserialize<'de> for ClientKeySource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = ClientKeySource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`source_address`, or an object such as {\"header\": \"x-user\"}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ClientKeySource, E> {
                match text {
                    "source_address" => Ok(ClientKeySource::SourceAddress),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ClientKeySource, A::Error> {
                let NamedKey { header, r#as, cookie, jwt_claim, query } =
                    NamedKey::deserialize(MapAccessDeserializer::new(map))?;
                match (header, r#as, cookie, jwt_claim, query) {
                    (Some(name), None, None, None, None) => Ok(ClientKeySource::Header(name)),
                    (Some(name), Some(HeaderReading::Address), None, None, None) => {
                        Ok(ClientKeySource::AddressHeader(name))
                    }
                    (None, None, Some(name), None, None) => Ok(ClientKeySource::Cookie(name)),
                    (None, None, None, Some(name), None) => Ok(ClientKeySource::JwtClaim(name)),
                    (None, None, None, None, Some(name)) => Ok(ClientKeySource::Query(name)),
                    (None, Some(_), ..) => {
                        Err(de::Error::custom("`as` says how a `header` is read, and there is none"))
                    }
                    _ => Err(de::Error::custom("exactly one of `header`, `cookie`, `jwt_claim` and `query` is needed")),
                }
            }
        }
        deserializer.deserialize_any(KeyVisitor)
    }
}

/// What becomes of a request without the client key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbsentKey {
    /// It counts for its source address.
    Address,
    /// It is rejected.
    Refuse,
}

/// A prefix length of 0 to `MOST` bits.
#[derive(Debug)]
pub(in crate::settings) struct Prefix<const MOST: u8>(pub(in crate::settings) u8);

impl<'de, const MOST: u8> Deserialize<'de> for Prefix<MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = if MOST == 32 { "a whole number from 0 to 32" } else { "a whole number from 0 to 128" };
        let bits = whole_number(deserializer, MOST.into(), expected)?;
        u8::try_from(bits).map(Self).map_err(de::Error::custom)
    }
}

/// How many there may be. Zero is read, so that its refusal can say more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::settings) struct Count(pub(in crate::settings) u32);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let count = whole_number(deserializer, u32::MAX.into(), "a whole number from 1 to 4294967295")?;
        u32::try_from(count).map(Self).map_err(de::Error::custom)
    }
}

/// The status of an answer. Which of them are for rejections is decided later.
#[derive(Debug)]
pub(in crate::settings) struct Status(pub(in crate::settings) u16);

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let status = whole_number(deserializer, u16::MAX.into(), "a whole number from 400 to 599")?;
        u16::try_from(status).map(Self).map_err(de::Error::custom)
    }
}

/// Addresses with a prefix in common.
#[derive(Debug)]
pub(in crate::settings) struct Network(pub(in crate::settings) IpNet);

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NetworkVisitor;
        impl Visitor<'_> for NetworkVisitor {
            type Value = Network;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a network such as \"10.0.0.0/8\" or \"192.0.2.7/32\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Network, E> {
                text.parse().map(Network).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(NetworkVisitor)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object")]
pub(in crate::settings) struct LimitConnections {
    pub(in crate::settings) per_client: Option<Count>,
    pub(in crate::settings) per_hub: Option<Count>,
    pub(in crate::settings) total: Option<Count>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object such as {\"requests\": 10, \"per\": \"1s\", \"burst\": 20}")]
pub(in crate::settings) struct Rate {
    pub(in crate::settings) requests: Count,
    pub(in crate::settings) per: Span,
    pub(in crate::settings) burst: Count,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object")]
pub(in crate::settings) struct Reject {
    pub(in crate::settings) status: Status,
    pub(in crate::settings) retry_after: Span,
    pub(in crate::settings) negotiate: NegotiateRejection,
    pub(in crate::settings) allow_origins: Vec<String>,
}

impl Default for Reject {
    fn default() -> Self {
        Self {
            status: Status(429),
            retry_after: Span::seconds(5),
            // Most clients show their users the error, and the status without its reason: the table is in docs/limits.md.
            negotiate: NegotiateRejection::Error,
            allow_origins: Vec::new(),
        }
    }
}

/// How a negotiate is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NegotiateRejection {
    /// With the configured status.
    Status,
    /// With 200 and an error in words, as the protocol has it.
    Error,
}

/// What happens when the ledger cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The request passes.
    Allow,
    /// The request is rejected.
    Deny,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with the member `redis`")]
pub(in crate::settings) struct Shared {
    pub(in crate::settings) redis: Redis,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object such as {\"cluster\": \"redis\", \"namespace\": \"production\"}")]
pub(in crate::settings) struct Redis {
    pub(in crate::settings) cluster: String,
    pub(in crate::settings) namespace: String,
    #[serde(default)]
    pub(in crate::settings) username: Option<String>,
    #[serde(default)]
    pub(in crate::settings) password: Option<SecretSource>,
    #[serde(default = "Redis::timeout")]
    pub(in crate::settings) timeout: Span,
    #[serde(default)]
    pub(in crate::settings) on_error: SharedOnError,
}

impl Redis {
    fn timeout() -> Span {
        Span(std::time::Duration::from_millis(250))
    }
}

/// What holds while Redis does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SharedOnError {
    /// The limits of this gateway process alone.
    #[default]
    Local,
    /// No limit.
    Allow,
    /// Requests that would ask Redis are rejected.
    Deny,
}
