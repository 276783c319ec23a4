//! The two cookies' attributes, and the combinations that browsers drop (RFC 6265bis, CHIPS).

use std::time::Duration;

use super::raw::{self, SameSite, Secure};
use super::{COOKIE_LIVES, PathPattern, Problem, SettingsError, is_name_byte};

/// How a cookie is set: everything of `Set-Cookie` but its value and path.
#[derive(Clone, Debug)]
pub struct CookieAttributes {
    /// The cookie's name; connection cookies append the connection's fingerprint.
    pub name: String,
    /// How long the cookie, and the route in it, lives.
    pub max_age: Duration,
    /// Value of the attribute `SameSite`.
    pub same_site: &'static str,
    /// `None`: as the request's scheme says.
    pub secure: Option<bool>,
    /// Attribute `HttpOnly`.
    pub http_only: bool,
    /// Attribute `Partitioned`.
    pub partitioned: bool,
    /// Attribute `Domain`.
    pub domain: Option<String>,
}

/// The cookie of one client.
#[derive(Debug)]
pub struct ClientCookie {
    /// Its attributes.
    pub attributes: CookieAttributes,
    /// Its path.
    pub path: String,
    /// At a negotiate, a placement older than this is given up for a new one.
    pub rebalance_after: Option<Duration>,
    /// Pages that are steered by this cookie and set it.
    pub pages: Vec<PathPattern>,
}

pub(super) struct Cookies {
    pub(super) connection: Option<CookieAttributes>,
    pub(super) client: Option<ClientCookie>,
}

/// Checks both cookies, also disabled ones: a mistake should not wait for the day when it is switched on.
pub(super) fn check(connection: raw::ConnectionCookie, client: raw::ClientCookie) -> Result<Cookies, SettingsError> {
    let (use_connection, use_client) = (connection.enabled, client.enabled);
    let raw::ConnectionCookie { name, max_age, same_site, secure, http_only, partitioned, domain, .. } = connection;
    let attributes = Attributes { name, max_age, same_site, secure, http_only, partitioned, domain };
    // A connection cookie's path is its hub's, which a `__Host-` cookie cannot have.
    let connection = attributes.check("affinity.connection_cookie", "the hub's path")?;
    let client = check_client(client)?;
    if connection.name == client.attributes.name {
        let field = "affinity.client_cookie.name";
        return Err(SettingsError::at(field, Problem::SameNameAs("affinity.connection_cookie")));
    }
    Ok(Cookies { connection: use_connection.then_some(connection), client: use_client.then_some(client) })
}

fn check_client(raw: raw::ClientCookie) -> Result<ClientCookie, SettingsError> {
    const FIELD: &str = "affinity.client_cookie";
    let raw::ClientCookie { name, max_age, same_site, secure, http_only, partitioned, domain, path, .. } = raw;
    let attributes =
        Attributes { name, max_age, same_site, secure, http_only, partitioned, domain }.check(FIELD, &path)?;
    if !path.starts_with('/') || path.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b';') {
        return Err(SettingsError::at(format!("{FIELD}.path"), Problem::NotAPath(path)));
    }
    let rebalance_after = raw.rebalance_after.map(|span| span.0);
    if rebalance_after.is_some_and(|after| after >= attributes.max_age) {
        return Err(SettingsError::at(format!("{FIELD}.rebalance_after"), Problem::BeyondMaxAge(attributes.max_age)));
    }
    let pages = raw.paths.iter().enumerate().map(|(index, path)| {
        PathPattern::parse(path).map_err(|problem| SettingsError::at(format!("{FIELD}.paths[{index}]"), problem))
    });
    Ok(ClientCookie { attributes, path, rebalance_after, pages: pages.collect::<Result<_, _>>()? })
}

/// What the two cookies have in common, as it was written.
struct Attributes {
    name: String,
    max_age: raw::Span,
    same_site: SameSite,
    secure: Secure,
    http_only: bool,
    partitioned: bool,
    domain: Option<String>,
}

impl Attributes {
    fn check(self, field: &str, path: &str) -> Result<CookieAttributes, SettingsError> {
        let Self { name, max_age, same_site, secure, http_only, partitioned, domain } = self;
        let refuse = |member: &str, problem| Err(SettingsError::at(format!("{field}.{member}"), problem));
        if !(1..=64).contains(&name.len()) || !name.bytes().all(is_name_byte) {
            return refuse("name", Problem::NotACookieName(name));
        }
        if name.starts_with("__Host-") && (path != "/" || domain.is_some()) {
            return refuse("name", Problem::NotAHostCookie);
        }
        if let Some(domain) = domain.as_ref().filter(|domain| !is_domain(domain)) {
            return refuse("domain", Problem::NotADomain(domain.clone()));
        }
        let reasons = [
            ("same_site", "`none`", same_site == SameSite::None),
            ("partitioned", "it", partitioned),
            ("name", "the prefix", name.starts_with("__Host-") || name.starts_with("__Secure-")),
        ];
        for (member, what, present) in reasons {
            if present && secure != Secure::Always {
                return refuse(member, Problem::NeedsSecure(what));
            }
        }
        Ok(CookieAttributes {
            name,
            max_age: COOKIE_LIVES.check(&format!("{field}.max_age"), max_age)?,
            same_site: match same_site {
                SameSite::Lax => "Lax",
                SameSite::Strict => "Strict",
                SameSite::None => "None",
            },
            secure: match secure {
                Secure::Auto => None,
                Secure::Always => Some(true),
                Secure::Never => Some(false),
            },
            http_only,
            partitioned,
            domain,
        })
    }
}

fn is_domain(domain: &str) -> bool {
    let labels = domain.strip_prefix('.').unwrap_or(domain).split('.');
    domain.len() <= 253
        && labels
            .into_iter()
            .all(|label| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'))
}
