//! The section `limits`, checked and compiled.

use std::time::Duration;

use ipnet::IpNet;

use super::origin::AllowedOrigin;
use super::raw::{self, AbsentKey, Mode, NegotiateRejection, OnError};
use super::shared::{self, SharedLimits};
use super::{Lives, Problem, SettingsError, Surroundings, is_name_byte};

/// What a client may have and how fast it may ask for it.
#[derive(Debug)]
pub struct Limits {
    /// Reject, or only count.
    pub mode: Mode,
    /// Who a client is.
    pub client: ClientSettings,
    /// Concurrent connections of one client.
    pub per_client: Option<u32>,
    /// Concurrent connections of one hub.
    pub per_hub: Option<u32>,
    /// Concurrent connections of all hubs together.
    pub total: Option<u32>,
    /// Negotiates of one client.
    pub negotiate_rate: Option<Rate>,
    /// Connects of one client.
    pub connect_rate: Option<Rate>,
    /// What a rejected client gets.
    pub rejection: RejectionSettings,
    /// A long-polling connection without a poll for this long has ended.
    pub long_polling_idle: Duration,
    /// What happens when the ledger fails.
    pub on_error: OnError,
    /// Where the limits are shared with other gateways.
    pub shared: Option<SharedLimits>,
}

impl Limits {
    /// Whether a request can be over one of them.
    pub fn apply(&self) -> bool {
        let Self { per_client, per_hub, total, negotiate_rate, connect_rate, .. } = self;
        [per_client, per_hub, total].iter().any(|limit| limit.is_some()) || negotiate_rate.or(*connect_rate).is_some()
    }
}

/// Who a client is.
#[derive(Debug)]
pub struct ClientSettings {
    /// What distinguishes clients.
    pub key: ClientKeySource,
    /// What becomes of a request without it.
    pub absent: AbsentKey,
    /// Addresses that share this many leading bits are one client.
    pub ipv4_prefix: u8,
    /// The same for IPv6: a household commonly has a /64 to itself.
    pub ipv6_prefix: u8,
    /// Addresses that no limit holds for.
    pub exempt: Vec<IpNet>,
}

/// What distinguishes clients.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientKeySource {
    /// The address that Envoy trusts: `source.address`.
    SourceAddress,
    /// A request header, in lower case.
    Header(String),
    /// The address in a request header, in lower case.
    AddressHeader(String),
    /// A cookie.
    Cookie(String),
    /// A claim of the token that `jwt_authn` has verified.
    JwtClaim(String),
    /// A query parameter.
    Query(String),
}

/// A token bucket: `burst` at once, then one per `interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Microseconds in which one request is earned; at least 1.
    pub interval: u64,
    /// How many can be saved up.
    pub burst: u32,
}

/// What a rejected client gets.
#[derive(Debug)]
pub struct RejectionSettings {
    /// 400 to 599.
    pub status: u16,
    /// Value of `retry-after`, in seconds.
    pub retry_after: Duration,
    /// How a negotiate is rejected.
    pub negotiate: NegotiateRejection,
    /// Origins whose pages may read the rejection.
    pub allow_origins: Vec<AllowedOrigin>,
}

const IDLE_LIVES: Lives = Lives { least: ("1s", Duration::from_secs(1)), most: ("1h", Duration::from_secs(3_600)) };
const RETRY_LIVES: Lives = Lives { least: ("0s", Duration::ZERO), most: ("1day", Duration::from_secs(86_400)) };
const RATE_LIVES: Lives = Lives { least: ("1ms", Duration::from_millis(1)), most: ("1h", Duration::from_secs(3_600)) };

/// A client's connections share one slot of the ledger: half of its 8,192 entries, so that as many are left for the clients
/// that share the slot.
const MOST_PER_CLIENT: u32 = 4_096;

/// Headers that say nothing of the client, and `host`, which Envoy shows as `:authority`.
const SAME_FOR_ALL: [&str; 12] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "host",
    "sec-websocket-key",
    "sec-websocket-version",
    "te",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// The section as it was written, which must limit something.
pub(super) fn check(
    mut raw: raw::Limits,
    keys: &[raw::Key],
    surroundings: &Surroundings<'_>,
) -> Result<Limits, SettingsError> {
    let raw::LimitConnections { per_client, per_hub, total } = raw.connections;
    if [per_client, per_hub, total] == [None; 3] && raw.negotiate_rate.is_none() && raw.connect_rate.is_none() {
        return Err(SettingsError::at("limits", Problem::LimitsNothing));
    }
    let shared = raw.shared.take();
    let limits = compile(raw)?;
    let shared = shared.map(|raw| shared::check(raw, keys, surroundings)).transpose()?;
    Ok(Limits { shared, ..limits })
}

/// No limit at all. Connections are counted all the same.
pub(super) fn none() -> Result<Limits, SettingsError> {
    compile(raw::Limits::default())
}

fn compile(raw: raw::Limits) -> Result<Limits, SettingsError> {
    let raw::Limits {
        mode,
        client,
        connections,
        negotiate_rate,
        connect_rate,
        reject,
        long_polling_idle,
        on_error,
        ..
    } = raw;
    let raw::LimitConnections { per_client, per_hub, total } = connections;
    let [per_client, per_hub, total] = [per_client, per_hub, total].map(|limit| limit.map(|raw::Count(limit)| limit));
    let counts = [("per_client", per_client), ("per_hub", per_hub), ("total", total)];
    if let Some((name, _)) = counts.iter().find(|(_, limit)| *limit == Some(0)) {
        return Err(SettingsError::at(format!("limits.connections.{name}"), Problem::Zero));
    }
    if per_client.is_some_and(|limit| limit > MOST_PER_CLIENT) {
        return Err(SettingsError::at("limits.connections.per_client", Problem::TooMany { most: MOST_PER_CLIENT }));
    }
    Ok(Limits {
        mode,
        client: check_client(client)?,
        per_client,
        per_hub,
        total,
        negotiate_rate: negotiate_rate.map(|raw| rate("limits.negotiate_rate", &raw)).transpose()?,
        connect_rate: connect_rate.map(|raw| rate("limits.connect_rate", &raw)).transpose()?,
        rejection: check_rejection(reject)?,
        long_polling_idle: IDLE_LIVES.check("limits.long_polling_idle", long_polling_idle)?,
        on_error,
        shared: None,
    })
}

fn check_client(raw: raw::LimitClient) -> Result<ClientSettings, SettingsError> {
    let field = |name: &str| format!("limits.client.key.{name}");
    let key = match raw.key {
        raw::ClientKeySource::SourceAddress => ClientKeySource::SourceAddress,
        raw::ClientKeySource::Header(name) => ClientKeySource::Header(check_header(field("header"), name)?),
        raw::ClientKeySource::AddressHeader(name) => {
            ClientKeySource::AddressHeader(check_header(field("header"), name)?)
        }
        raw::ClientKeySource::Cookie(name) => ClientKeySource::Cookie(check_name(field("cookie"), name)?),
        raw::ClientKeySource::JwtClaim(name) if name.is_empty() => {
            return Err(SettingsError::at(field("jwt_claim"), Problem::Empty));
        }
        raw::ClientKeySource::JwtClaim(name) => ClientKeySource::JwtClaim(name),
        raw::ClientKeySource::Query(name) if name.is_empty() => {
            return Err(SettingsError::at(field("query"), Problem::Empty));
        }
        raw::ClientKeySource::Query(name) => ClientKeySource::Query(name),
    };
    if raw.absent == AbsentKey::Refuse && key == ClientKeySource::SourceAddress {
        return Err(SettingsError::at("limits.client.absent", Problem::NeverAbsent));
    }
    Ok(ClientSettings {
        key,
        absent: raw.absent,
        ipv4_prefix: raw.ipv4_prefix.0,
        ipv6_prefix: raw.ipv6_prefix.0,
        exempt: raw.exempt.into_iter().map(|raw::Network(network)| network).collect(),
    })
}

fn check_header(field: String, name: String) -> Result<String, SettingsError> {
    let name = check_name(field.clone(), name)?.to_ascii_lowercase();
    if SAME_FOR_ALL.contains(&name.as_str()) {
        return Err(SettingsError::at(field, Problem::NotAClientHeader(name)));
    }
    Ok(name)
}

fn check_name(field: String, name: String) -> Result<String, SettingsError> {
    if (1..=64).contains(&name.len()) && name.bytes().all(is_name_byte) {
        return Ok(name);
    }
    Err(SettingsError::at(field, Problem::NotAName(name)))
}

fn rate(field: &str, raw: &raw::Rate) -> Result<Rate, SettingsError> {
    let raw::Rate { requests: raw::Count(requests), burst: raw::Count(burst), per } = *raw;
    for (name, value) in [("requests", requests), ("burst", burst)] {
        if value == 0 {
            return Err(SettingsError::at(format!("{field}.{name}"), Problem::Zero));
        }
    }
    let per = RATE_LIVES.check(&format!("{field}.per"), per)?;
    let per = u64::try_from(per.as_micros()).unwrap_or(u64::MAX);
    // At least 1: a million requests a second are no limit worth a name.
    let interval = per.checked_div(u64::from(requests)).unwrap_or(u64::MAX).max(1);
    Ok(Rate { interval, burst })
}

fn check_rejection(raw: raw::Reject) -> Result<RejectionSettings, SettingsError> {
    let raw::Status(status) = raw.status;
    if !(400..600).contains(&status) {
        return Err(SettingsError::at("limits.reject.status", Problem::NotAnErrorStatus(status)));
    }
    let allow_origins = raw.allow_origins.iter().enumerate().map(|(index, origin)| {
        let field = || format!("limits.reject.allow_origins[{index}]");
        AllowedOrigin::parse(origin).map_err(|problem| SettingsError::at(field(), problem))
    });
    Ok(RejectionSettings {
        status,
        retry_after: RETRY_LIVES.check("limits.reject.retry_after", raw.retry_after)?,
        negotiate: raw.negotiate,
        allow_origins: allow_origins.collect::<Result<_, _>>()?,
    })
}
