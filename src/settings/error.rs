//! What can be wrong in a configuration, in the words that an operator reads in Envoy's log.

use std::fmt;
use std::time::Duration;

/// A configuration that was refused. The display is one line: the field's path, what is wrong, what is allowed.
#[derive(Debug, PartialEq, Eq)]
pub struct SettingsError {
    field: String,
    problem: Problem,
}

/// What is wrong with a field. Always the operator's fault.
#[derive(Debug, PartialEq, Eq)]
pub enum Problem {
    /// Not JSON, a key that does not exist, or a value of the wrong type.
    Malformed {
        /// What the reader says.
        what: String,
        /// Line and column, for a text that a person wrote.
        at: Option<(usize, usize)>,
    },
    /// Not a name of a transport.
    NotATransport(String),
    /// Must not be empty.
    Empty,
    /// Stands twice.
    Duplicate(String),
    /// The environment variable that should hold a secret is not set.
    EnvNotSet(String),
    /// Too short to be a secret.
    SecretTooShort {
        /// Length of what was given.
        bytes: usize,
        /// Shortest allowed.
        least: usize,
    },
    /// Outside its bounds.
    OutOfRange {
        /// Shortest allowed.
        least: &'static str,
        /// Longest allowed.
        most: &'static str,
    },
    /// Not a path of `/`-separated segments.
    NotAPath(String),
    /// A `*` that is not a whole segment.
    PartialWildcard(String),
    /// Not a name for a header of our own.
    NotAnOwnHeader {
        /// What was to have this name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A header that says nothing of the client, or that Envoy shows under another name.
    NotAClientHeader(String),
    /// The name of what has no name of its own.
    ReservedHubName,
    /// More than can be kept.
    TooMany {
        /// The most that can be.
        most: u32,
    },
    /// Not a cookie name (RFC 6265 section 4.1.1).
    NotACookieName(String),
    /// Not a cookie domain.
    NotADomain(String),
    /// Another field has this name, and both may not.
    SameNameAs(&'static str),
    /// Browsers drop the cookie unless it is `Secure`.
    NeedsSecure(&'static str),
    /// A `__Host-` cookie has no domain and the path `/`.
    NotAHostCookie,
    /// Must be at least one.
    Zero,
    /// A section of limits without a limit.
    LimitsNothing,
    /// Not a header or cookie name.
    NotAName(String),
    /// Every request has the key.
    NeverAbsent,
    /// Not a name under which gateways share.
    NotANamespace(String),
    /// A user without a password.
    NeedsPassword,
    /// Limits are shared, and there is no key that all gateways have.
    NeedsKey,
    /// Not 400 to 599.
    NotAnErrorStatus(u16),
    /// Not an origin.
    NotAnOrigin(String),
    /// An origin with a `*` that is not the first label of its host.
    MisplacedWildcard(String),
    /// Longer than the cookie lives, so it would never happen.
    BeyondMaxAge(Duration),
}

impl SettingsError {
    /// The name of the configuration as a whole.
    pub(super) const WHOLE: &str = "configuration";

    pub(super) fn at(field: impl Into<String>, problem: Problem) -> Self {
        Self { field: field.into(), problem }
    }

    /// What serde says of a field, in words of JSON. `field` is empty for the whole.
    pub(super) fn malformed(field: String, what: &str, at: Option<(usize, usize)>) -> Self {
        let field = if field.is_empty() { Self::WHOLE.to_owned() } else { field };
        let what = in_words_of_json(what);
        // What stands in the place of a key may be a secret.
        let what = if field.starts_with("affinity.keys") || field.starts_with("limits.shared.redis.password") {
            without_the_text(what)
        } else {
            what
        };
        Self::at(field, Problem::Malformed { what, at })
    }

    /// The field's path, such as `hubs[0].path`, or `configuration` for the whole.
    pub fn field(&self) -> &str {
        &self.field
    }
}

/// Serde names what it finds and expects in its own words.
fn in_words_of_json(what: &str) -> String {
    const FOUND: [(&str, &str); 5] = [
        ("invalid type: unit value,", "invalid type: null,"),
        ("invalid type: sequence,", "invalid type: array,"),
        ("invalid type: map,", "invalid type: object,"),
        ("invalid type: floating point ", "invalid type: number "),
        ("unknown variant ", "unknown value "),
    ];
    let found = FOUND.iter().find_map(|(serde, json)| Some(format!("{json}{}", what.strip_prefix(serde)?)));
    let what = found.unwrap_or_else(|| what.to_owned());
    match what.strip_suffix(", expected a sequence") {
        Some(found) => format!("{found}, expected an array"),
        None => what,
    }
}

fn without_the_text(what: String) -> String {
    match (what.strip_prefix("invalid type: string "), what.rsplit_once(", expected ")) {
        (Some(_), Some((_, expected))) => format!("invalid type: string, expected {expected}"),
        _ => what,
    }
}

impl std::error::Error for SettingsError {}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { what, at: None } => f.write_str(what),
            Self::Malformed { what, at: Some((line, column)) } => write!(f, "{what} (line {line}, column {column})"),
            Self::NotATransport(name) => {
                write!(f, "unknown transport `{name}`, expected `web_sockets`, `server_sent_events` or `long_polling`")
            }
            Self::Empty => f.write_str("must not be empty"),
            Self::Duplicate(what) => write!(f, "`{what}` stands twice; each may stand once"),
            Self::EnvNotSet(name) => write!(
                f,
                "environment variable `{name}` is not set in the module; set it in the gateway's own environment, and pass it on with host_env_keys (Istio: vmConfig.env, Envoy Gateway: env.hostKeys)"
            ),
            Self::SecretTooShort { bytes, least } => {
                write!(f, "a secret of {bytes} bytes is too short; at least {least} are needed")
            }
            Self::OutOfRange { least, most } => write!(f, "out of range; {least} to {most} is allowed"),
            Self::NotAPath(path) => {
                write!(f, "`{path}` is not a path; it starts with `/` and has no query, space or empty segment")
            }
            Self::PartialWildcard(path) => {
                write!(f, "`{path}` has a `*` inside a segment; a `*` stands for one whole segment")
            }
            Self::NotAnOwnHeader { what, name } => {
                write!(
                    f,
                    "`{name}` cannot be the {what}; a name is needed that starts with `x-` and that neither Envoy nor a proxy uses"
                )
            }
            Self::NotAClientHeader(name) => {
                write!(
                    f,
                    "`{name}` does not distinguish clients; name a header that a proxy or an authentication filter sets"
                )
            }
            Self::ReservedHubName => f.write_str("`other` is the label of all unknown hubs; choose another name"),
            Self::TooMany { most } => write!(f, "at most {most} can be counted; leave it out for no limit"),
            Self::NotACookieName(name) => {
                write!(f, "`{name}` is not a cookie name; 1 to 64 letters, digits and !#$%&'*+-.^_`|~ are allowed")
            }
            Self::NotADomain(domain) => {
                write!(f, "`{domain}` is not a domain; a name such as `example.com` is needed, or null")
            }
            Self::SameNameAs(other) => write!(f, "is also the name of {other}; the two must differ"),
            Self::NeedsSecure(what) => {
                write!(f, "{what} needs the attribute Secure, or browsers drop the cookie; set secure to true")
            }
            Self::NotAHostCookie => f.write_str("a `__Host-` cookie has the path / and no domain; choose another name"),
            Self::Zero => f.write_str("must be at least 1; leave it out for no limit"),
            Self::LimitsNothing => {
                f.write_str("sets no limit; set connections, negotiate_rate or connect_rate, or leave it out")
            }
            Self::NotAName(name) => {
                write!(f, "`{name}` is not a name; 1 to 64 letters, digits and !#$%&'*+-.^_`|~ are allowed")
            }
            Self::NeverAbsent => f.write_str("every request has a source address; leave it out"),
            Self::NotANamespace(name) => {
                write!(f, "`{name}` is not a namespace; 1 to 64 letters, digits, `-`, `.` and `_` are allowed")
            }
            Self::NeedsPassword => f.write_str("a user needs a password; set password too, or leave it out"),
            Self::NeedsKey => f.write_str(
                "needs affinity.keys: gateways that share limits hash clients with the first key, and must have the same",
            ),
            Self::NotAnErrorStatus(status) => {
                write!(f, "{status} is no status for a rejection; 400 to 599 are allowed")
            }
            Self::NotAnOrigin(origin) => {
                write!(
                    f,
                    "`{origin}` is not an origin; scheme, host and port are needed, such as `https://app.example.com`"
                )
            }
            Self::MisplacedWildcard(origin) => {
                write!(
                    f,
                    "`{origin}` has a `*` in the wrong place; one may stand as the first label of the host, such as `https://*.example.com`"
                )
            }
            Self::BeyondMaxAge(max_age) => {
                write!(f, "must be shorter than max_age ({})", humantime::format_duration(*max_age))
            }
        }
    }
}
