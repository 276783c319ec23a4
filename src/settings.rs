//! The configuration, checked and compiled: what the rest of the crate uses.
//!
//! [`Settings::parse`] refuses everything that is wrong at once and whole, at configure time, with one line that names
//! the field. Once a [`Settings`] exists nothing downstream checks it again.

mod cookie;
mod error;
mod json;
mod limits;
mod origin;
mod path;
mod raw;
mod shared;

use std::time::Duration;

use crate::hub::HubLabel;
use crate::signalr::Transport;
use crate::store::Secret;
use crate::token::KeyRing;

pub use cookie::{ClientCookie, CookieAttributes};
pub use error::{Problem, SettingsError};
pub use limits::{ClientKeySource, ClientSettings, Limits, Rate, RejectionSettings};
pub use origin::AllowedOrigin;
pub use path::PathPattern;
pub use raw::{AbsentKey, AccessToken, Detail, Mode, NegotiateRejection, OnError, PinEncoding, SharedOnError};
pub use shared::{Login, SharedLimits};

/// Everything an operator chose, ready to use.
#[derive(Debug)]
pub struct Settings {
    /// The hubs served, or any.
    pub hubs: Hubs,
    /// The keys that seal routes; the process's own secret, good for one gateway only, when none was configured.
    pub ring: KeyRing,
    /// How routes travel in connection ids.
    pub connection_token: ConnectionToken,
    /// The cookie of one connection, when enabled.
    pub connection_cookie: Option<CookieAttributes>,
    /// The cookie of one client, when enabled.
    pub client_cookie: Option<ClientCookie>,
    /// How the upstream host is named to Envoy.
    pub pin: Pin,
    /// What clients may have.
    pub limits: Limits,
    /// What exempt clients may have: anything.
    unlimited: Limits,
    /// How closely WebSockets are looked at.
    pub detail: Detail,
    /// Whether open WebSockets are counted by pod.
    pub per_upstream: bool,
    /// Whether answers say what was decided and why.
    pub explain: bool,
}

/// Which paths are hubs.
#[derive(Debug)]
pub enum Hubs {
    /// Any path; the protocol decides.
    Any,
    /// These only.
    Listed(Vec<Hub>),
}

impl Hubs {
    /// The hub in the list that has this path, as the client wrote it.
    pub fn listed(&self, path: &[u8]) -> Option<&Hub> {
        match self {
            Self::Any => None,
            Self::Listed(hubs) => hubs.iter().find(|hub| hub.path.matches(path)),
        }
    }
}

/// A configured hub.
#[derive(Debug)]
pub struct Hub {
    /// Its path.
    pub path: PathPattern,
    /// Its metric label.
    pub name: String,
    /// Where its clients' access token travels behind the gateway.
    pub access_token: AccessToken,
    /// The only transports that its clients are offered; `None` for all that it has.
    pub transports: Option<Vec<Transport>>,
    /// Whether its event streams ask proxies not to hold them back.
    pub unbuffered_events: bool,
}

/// How routes travel in connection ids.
#[derive(Debug)]
pub struct ConnectionToken {
    /// Whether new ids get a route. Ids that carry one are opened and stripped regardless.
    pub issue: bool,
    /// How long a route steers.
    pub ttl: Duration,
    /// Whether the ids of negotiate version 0, which the application sees, get one too.
    pub negotiate_v0: bool,
}

/// How the upstream host is named to Envoy.
#[derive(Debug)]
pub struct Pin {
    /// Header name, in lower case.
    pub header: String,
    /// Name, in lower case, of the header that says that any other host will do. Checked and taken off a client's request
    /// also while the client cookie is disabled: a route may still read it.
    pub mark: Option<String>,
    /// Name, in lower case, of the header that names the cluster of the host. Routes then hold the cluster as well.
    pub cluster: Option<String>,
    /// Header value.
    pub encoding: PinEncoding,
}

/// What configuring needs from its surroundings.
pub struct Surroundings<'a> {
    /// Looks up an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The secret of this Envoy process; asked for only when no key is configured.
    pub process_secret: &'a dyn Fn() -> Secret,
}

/// What is logged when no key is configured.
pub const OWN_SECRET_WARNING: &str = "affinity.keys is empty: this Envoy made up a key of its own, so ids and cookies \
     hold until it restarts and no other gateway can read them; set a key when there is more than one gateway";

/// Shorter secrets are refused: XChaCha20's key has 256 bits, and a shorter secret cannot fill it.
const LEAST_SECRET: usize = 32;
impl Settings {
    /// Reads the JSON that Envoy or Istio hands over; nothing at all means every default.
    ///
    /// # Errors
    /// [`SettingsError`], whose display is one line naming the field, what is wrong and what is allowed. Operator's fault.
    pub fn parse(json: &[u8], surroundings: &Surroundings<'_>) -> Result<Self, SettingsError> {
        let raw = if json.trim_ascii().is_empty() { raw::Raw::default() } else { json::read(json)? };
        let raw::Affinity { keys, connection_token, connection_cookie, client_cookie, pin, cluster_header } =
            raw.affinity;
        let ring = key_ring(&keys, surroundings)?;
        let pin = check_pin(pin, client_cookie.mark.as_deref(), cluster_header.as_deref())?;
        let cookies = cookie::check(connection_cookie, client_cookie)?;
        let limits = raw.limits.map_or_else(limits::none, |raw| limits::check(raw, &keys, surroundings))?;
        refuse_shared_headers(&pin, &limits.client.key)?;
        Ok(Self {
            hubs: hubs(raw.hubs)?,
            ring,
            connection_token: ConnectionToken {
                issue: connection_token.enabled,
                ttl: TOKEN_LIVES.check("affinity.connection_token.ttl", connection_token.ttl)?,
                negotiate_v0: connection_token.negotiate_v0,
            },
            connection_cookie: cookies.connection,
            client_cookie: cookies.client,
            pin,
            // Every thread that reads a slot drops the sessions that are over, so all must agree on when that is.
            unlimited: Limits { long_polling_idle: limits.long_polling_idle, ..limits::none()? },
            limits,
            detail: raw.metrics.detail,
            per_upstream: raw.metrics.per_upstream,
            explain: raw.explain,
        })
    }
}

impl Settings {
    /// The limits that hold for a client.
    pub fn limits_for(&self, is_exempt: bool) -> &Limits {
        if is_exempt { &self.unlimited } else { &self.limits }
    }
}

fn key_ring(keys: &[raw::Key], surroundings: &Surroundings<'_>) -> Result<KeyRing, SettingsError> {
    if keys.is_empty() {
        return Ok(KeyRing::new([("process", (surroundings.process_secret)().bytes().as_slice())]));
    }
    let mut secrets: Vec<(&str, Vec<u8>)> = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let path = format!("affinity.keys[{index}]");
        let id = key.id.as_str();
        if id.is_empty() {
            return Err(SettingsError::at(format!("{path}.id"), Problem::Empty));
        }
        if secrets.iter().any(|(other, _)| *other == id) {
            return Err(SettingsError::at(format!("{path}.id"), Problem::Duplicate(id.to_owned())));
        }
        secrets.push((id, secret(&path, &key.secret, surroundings)?));
    }
    Ok(KeyRing::new(secrets.iter().map(|(id, secret)| (*id, secret.as_slice()))))
}

fn secret(path: &str, secret: &raw::SecretSource, surroundings: &Surroundings<'_>) -> Result<Vec<u8>, SettingsError> {
    let (field, value) = read_secret(&format!("{path}.secret"), secret, surroundings)?;
    if value.len() < LEAST_SECRET {
        return Err(SettingsError::at(field, Problem::SecretTooShort { bytes: value.len(), least: LEAST_SECRET }));
    }
    Ok(value.into_bytes())
}

/// A secret and the field that it stands in.
fn read_secret(
    path: &str,
    secret: &raw::SecretSource,
    surroundings: &Surroundings<'_>,
) -> Result<(String, String), SettingsError> {
    match secret {
        raw::SecretSource::Value(value) => Ok((format!("{path}.value"), value.clone())),
        raw::SecretSource::Env(name) => {
            let field = format!("{path}.env");
            match (surroundings.env)(name) {
                Some(value) => Ok((field, value)),
                None => Err(SettingsError::at(field, Problem::EnvNotSet(name.clone()))),
            }
        }
    }
}

fn hubs(raw: Vec<raw::Hub>) -> Result<Hubs, SettingsError> {
    if raw.is_empty() {
        return Ok(Hubs::Any);
    }
    let mut hubs: Vec<Hub> = Vec::with_capacity(raw.len());
    for (index, hub) in raw.into_iter().enumerate() {
        let field = format!("hubs[{index}].path");
        let path = PathPattern::parse(&hub.path).map_err(|problem| SettingsError::at(&*field, problem))?;
        if hubs.iter().any(|other| other.path == path) {
            return Err(SettingsError::at(field, Problem::Duplicate(hub.path)));
        }
        let name = hub.name.unwrap_or(hub.path);
        if name.is_empty() {
            return Err(SettingsError::at(format!("hubs[{index}].name"), Problem::Empty));
        }
        if name == HubLabel::OTHER {
            return Err(SettingsError::at(format!("hubs[{index}].name"), Problem::ReservedHubName));
        }
        let raw::Hub { access_token, transports, unbuffered_events, .. } = hub;
        let transports =
            transports.map(|names| check_transports(&format!("hubs[{index}].transports"), &names)).transpose()?;
        hubs.push(Hub { path, name, access_token, transports, unbuffered_events });
    }
    Ok(Hubs::Listed(hubs))
}

fn check_transports(field: &str, names: &[String]) -> Result<Vec<Transport>, SettingsError> {
    if names.is_empty() {
        return Err(SettingsError::at(field, Problem::Empty));
    }
    let mut transports = Vec::new();
    for name in names {
        let transport = Transport::ALL.into_iter().find(|transport| transport.label() == name);
        let transport = transport.ok_or_else(|| SettingsError::at(field, Problem::NotATransport(name.clone())))?;
        if transports.contains(&transport) {
            return Err(SettingsError::at(field, Problem::Duplicate(name.clone())));
        }
        transports.push(transport);
    }
    Ok(transports)
}

const PIN: &str = "affinity.pin.header";
const MARK: &str = "affinity.client_cookie.mark";
const CLUSTER: &str = "affinity.cluster_header";

fn check_pin(raw: raw::Pin, mark: Option<&str>, cluster: Option<&str>) -> Result<Pin, SettingsError> {
    Ok(Pin {
        header: own_header(PIN, "pin header", &raw.header)?,
        mark: mark.map(|name| own_header(MARK, "mark", name)).transpose()?,
        cluster: cluster.map(|name| own_header(CLUSTER, "cluster header", name)).transpose()?,
        encoding: raw.encoding,
    })
}

/// A header with two meanings: the filter would overwrite one of its own with another, or take off the one that names the
/// client.
fn refuse_shared_headers(pin: &Pin, key: &ClientKeySource) -> Result<(), SettingsError> {
    let key = match key {
        ClientKeySource::Header(name) | ClientKeySource::AddressHeader(name) => Some(name),
        ClientKeySource::SourceAddress
        | ClientKeySource::Cookie(_)
        | ClientKeySource::JwtClaim(_)
        | ClientKeySource::Query(_) => None,
    };
    let headers = [
        (PIN, Some(&pin.header)),
        (MARK, pin.mark.as_ref()),
        (CLUSTER, pin.cluster.as_ref()),
        ("limits.client.key.header", key),
    ];
    for (index, (field, name)) in headers.iter().enumerate() {
        if let Some((other, _)) = headers.iter().take(index).find(|(_, other)| name.is_some() && other == name) {
            return Err(SettingsError::at(*field, Problem::SameNameAs(other)));
        }
    }
    Ok(())
}

/// The name in lower case. A header that Envoy or the hub needs would be overwritten, and one that carries credentials would
/// leak.
fn own_header(field: &str, what: &'static str, name: &str) -> Result<String, SettingsError> {
    let header = name.to_ascii_lowercase();
    let own = header.strip_prefix("x-").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_name_byte));
    if !own || FOREIGN_HEADERS.iter().any(|foreign| header.starts_with(foreign)) {
        return Err(SettingsError::at(field, Problem::NotAnOwnHeader { what, name: name.to_owned() }));
    }
    Ok(header)
}

/// How the names of headers begin that Envoy, Istio, proxies before them, tracing, SignalR's clients or this filter write and
/// read. As a pin or a mark, such a header would be overwritten, and removed from requests and answers.
const FOREIGN_HEADERS: [&str; 16] = [
    "x-accel-",
    "x-b3-",
    "x-client-",
    "x-cloud-trace-",
    "x-csrf-",
    "x-datadog-",
    "x-envoy-",
    "x-forwarded-",
    "x-http-",
    "x-istio-",
    "x-original-",
    "x-ot-",
    "x-real-",
    "x-request",
    "x-signalr-explain",
    "x-signalr-user-agent",
];

/// The lives that a route may have, in words and as bounds.
struct Lives {
    least: (&'static str, Duration),
    most: (&'static str, Duration),
}

/// Shorter lives than this would not outlive a slow connect.
const LEAST_LIFE: (&str, Duration) = ("30s", Duration::from_secs(30));
/// Ten years keep the expiry within 32 bits until 2096.
const TOKEN_LIVES: Lives = Lives { least: LEAST_LIFE, most: ("10years", Duration::from_secs(3_652 * 86_400)) };
/// Browsers cut longer lives down (RFC 6265bis section 5.5).
const COOKIE_LIVES: Lives = Lives { least: LEAST_LIFE, most: ("400days", Duration::from_secs(400 * 86_400)) };

impl Lives {
    fn check(&self, field: &str, span: raw::Span) -> Result<Duration, SettingsError> {
        if (self.least.1..=self.most.1).contains(&span.0) {
            return Ok(span.0);
        }
        Err(SettingsError::at(field, Problem::OutOfRange { least: self.least.0, most: self.most.0 }))
    }
}

/// A byte of a header or cookie name: RFC 9110's token, less what cookies need quoted.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
