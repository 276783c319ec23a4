//! What a line of another proxy's configuration asks for, in the words of this filter.
//!
//! Each source translates its own words into these, and [`Plan`](super::plan::Plan) alone decides what becomes of them: which setting, and
//! what the report says.

use std::time::Duration;

use serde_json::{Value, json};

/// What one line asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ask {
    /// One cookie for each client, which leads it to the same pod.
    ClientCookie,
    /// An attribute of that cookie: a field of `affinity.client_cookie`.
    Cookie(&'static str, Value),
    /// Pages that the cookie steers.
    Pages(Vec<String>),
    /// A field of the settings, by its full name.
    Set(&'static str, Value),
    /// What identifies a client.
    Key(Value),
    /// Connections that a client may have, and what identifies it.
    PerClient(u64, Value),
    /// How often a client may negotiate and connect.
    Rate {
        /// So many
        requests: u64,
        /// in this time,
        per: Duration,
        /// and so many at once.
        burst: u64,
        /// What identifies the client.
        key: Value,
    },
    /// Networks and addresses that no limit holds for.
    Exempt(Vec<String>),
    /// The service of the hubs: its name and namespace, and its port if that is known.
    Service {
        /// Without the namespace.
        name: String,
        namespace: String,
        port: Option<u16>,
    },
    /// Nothing to set: the filter or the rendered manifests do the same by themselves.
    Same(String),
    /// Nothing to set: what it was for is solved in another way.
    Better(String),
    /// The routes of `ingress2gateway`, or the platform.
    Left(String),
    /// What neither has.
    Impossible(String),
    /// What had no effect before, or cannot be read.
    Void(String),
}

/// The source address, which is the default of the settings.
pub(super) fn address() -> Value {
    "source_address".into()
}

/// Why a hash of what a client sends is not needed.
pub(super) const HASH: &str =
    "each connection keeps its pod by its id; a hash moves clients whenever the number of pods changes";
/// Why a time-out of a proxy needs no setting.
pub(super) const IDLE: &str =
    "SignalR pings every 15 s, so a connection stays as long as it lives, and ends after 120 s of silence";
/// Why WebSockets need no setting.
pub(super) const UPGRADE: &str = "the rendered gateway lets WebSockets through";
/// Why routes are not converted.
pub(super) const ROUTE: &str = "a route";
/// Why the path of a route matters.
pub(super) const PREFIX: &str = "a route; the path of a hub in `hubs` is the one that clients see, any prefix included";
/// For what is known to be about something else.
pub(super) const ELSEWHERE: &str = "not about affinity or limits";
/// For what is not known.
pub(super) const UNREAD: &str = "not read; look whether it is about affinity or limits";
/// For what sees the address of a client.
pub(super) const ADDRESS: &str = "the client's address: docs/limits.md, \"What stands before your gateway\"";
/// For lists of addresses that may connect at all.
pub(super) const ACCESS: &str =
    "access by address: AuthorizationPolicy in Istio, SecurityPolicy in Envoy Gateway, the filter `rbac` in Envoy";
/// For a limit that several proxies share.
pub(super) const SHARED: &str = "each gateway counts for itself, unless they share limits through Redis: docs/limits.md, \"Limits for all gateways\"";
/// For a service's own address in the place of those of its pods.
pub(super) const HIDDEN: &str =
    "the gateway must know the pods to lead a connection to one, and the service's address hides them";
/// For limits that admit nobody.
pub(super) const NOBODY: &str = "a limit of 0 admits nobody";
/// For a client that is known by something else.
pub(super) const UNKNOWN_KEY: &str = "nothing that the filter knows a client by: docs/limits.md, \"Choosing a key\"";
/// For affinity to one of several versions.
pub(super) const VERSIONS: &str = "routes by weight; `affinity.cluster_header` keeps a connection in its version: envoy/README.md, \"Versions by weight\"";
/// For how new connections are spread.
pub(super) const BALANCING: &str = "how new connections are spread: `lb_policy`";
/// For what a stick table holds.
pub(super) const NO_TABLE: &str = "the filter counts without a table: nothing to set";
/// For the addresses of pods.
pub(super) const PODS: &str = "the pods: endpoints of the platform";
/// For health checks.
pub(super) const HEALTH: &str = "health checks: the platform";
/// For the time to connect to a pod.
pub(super) const CONNECT: &str = "the rendered gateway waits 1 s, then tries another pod";
/// For proxies that hold answers back.
pub(super) const UNBUFFERED: &str = "Envoy passes on each part as it comes";
/// For a pod that is gone.
pub(super) const REPLACED: &str = "a client whose pod is gone gets another one and a new cookie";
/// For affinity by a header.
pub(super) const NO_HEADER: &str = "each connection keeps its pod by its id, also where clients send no header";
/// For a cookie that the application sets.
pub(super) const OWN_COOKIE: &str = "the application's own cookie is not used; the filter sets one with another name";

impl Ask {
    /// A limit of connections of one address, where 0 is none.
    pub(super) fn per_address(text: &str) -> Self {
        match text.trim().parse() {
            Ok(0) => Self::same("0 is no limit"),
            Ok(most) => Self::PerClient(most, address()),
            Err(_) => Self::not("a whole number"),
        }
    }

    /// No more than so many of one address in the time, where 0 is no limit.
    pub(super) fn rate_of_address(text: &str, per: Duration) -> Self {
        match text.trim().parse() {
            Ok(0) => Self::same("0 is no limit"),
            Ok(requests) => Self::Rate { requests, per, burst: requests, key: address() },
            Err(_) => Self::not("a whole number"),
        }
    }

    pub(super) fn same(text: &str) -> Self {
        Self::Same(text.to_owned())
    }

    pub(super) fn better(text: &str) -> Self {
        Self::Better(text.to_owned())
    }

    pub(super) fn left(text: &str) -> Self {
        Self::Left(text.to_owned())
    }

    pub(super) fn impossible(text: &str) -> Self {
        Self::Impossible(text.to_owned())
    }

    pub(super) fn void(text: &str) -> Self {
        Self::Void(text.to_owned())
    }

    /// A value that is none of what it should be.
    pub(super) fn not(expected: &str) -> Self {
        Self::Void(format!("not {expected}"))
    }

    /// A flag of the client's cookie.
    pub(super) fn flag(field: &'static str, text: &str) -> Self {
        truth(text).map_or_else(|| Self::not("`true` or `false`"), |set| Self::Cookie(field, set.into()))
    }

    /// A life of the client's cookie. `unit` holds for a bare number.
    pub(super) fn max_age(text: &str, unit: &str) -> Self {
        match duration(text, unit) {
            Some(life) if !life.is_zero() => Self::Cookie("max_age", written(life).into()),
            Some(_) => Self::same("a cookie of the browser's session lives for `max_age` here, which is a day"),
            None => Self::not("a duration"),
        }
    }

    pub(super) fn same_site(text: &str) -> Self {
        let word = text.to_ascii_lowercase();
        if ["none", "lax", "strict"].contains(&word.as_str()) {
            Self::Cookie("same_site", word.into())
        } else {
            Self::not("`None`, `Lax` or `Strict`")
        }
    }

    /// An attribute of a cookie by its name in `Set-Cookie`. Without a value, it is a flag that is set.
    pub(super) fn attribute(name: &str, value: &str) -> Self {
        match (name.to_ascii_lowercase().as_str(), value) {
            ("samesite", _) => Self::same_site(value),
            ("path", _) => Self::Cookie("path", value.into()),
            ("domain", _) => Self::Cookie("domain", value.trim_start_matches('.').into()),
            ("secure", "") => Self::Cookie("secure", true.into()),
            ("secure", _) => Self::flag("secure", value),
            ("httponly", "") => Self::Cookie("http_only", true.into()),
            ("httponly", _) => Self::flag("http_only", value),
            ("partitioned", "") => Self::Cookie("partitioned", true.into()),
            ("partitioned", _) => Self::flag("partitioned", value),
            _ => Self::Impossible(format!("the filter's cookie has no attribute `{name}`")),
        }
    }

    /// The status of a refusal.
    pub(super) fn status(text: &str) -> Vec<Self> {
        match text.trim().parse::<u16>() {
            Ok(status) => vec![
                Self::Set("limits.reject.status", status.into()),
                Self::Set("limits.reject.negotiate", "status".into()),
            ],
            Err(_) => vec![Self::not("a status")],
        }
    }

    /// Networks with commas between them.
    pub(super) fn exempt(text: &str) -> Self {
        Self::Exempt(text.split(',').map(str::trim).filter(|network| !network.is_empty()).map(str::to_owned).collect())
    }

    /// The key's own line.
    pub(super) fn key(key: Option<Value>) -> Self {
        match key {
            Some(key) if key == address() => Self::same("the source address is the default"),
            Some(key) => Self::Key(key),
            None => Self::impossible(UNKNOWN_KEY),
        }
    }
}

/// A header as a key. The address in `x-forwarded-for` is what Envoy makes the source address of.
pub(super) fn header_key(name: &str) -> Value {
    if name.eq_ignore_ascii_case("x-forwarded-for") {
        address()
    } else {
        json!({ "header": name.to_ascii_lowercase() })
    }
}

/// The address in a header as a key.
pub(super) fn address_in(header: &str) -> Value {
    json!({ "header": header.trim().to_ascii_lowercase(), "as": "address" })
}

/// A yes or no as the many formats write it.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// A duration as nginx, HAProxy, Go and Kubernetes write it: numbers, each with a unit, `unit` where there is none.
pub(super) fn duration(text: &str, unit: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(number) = text.parse::<u64>() {
        return Some(Duration::from_millis(number.checked_mul(milliseconds(unit)?)?));
    }
    let mut rest = text;
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let number: f64 = number.parse().ok()?;
        let part = number * f64::from(u32::try_from(milliseconds(unit)?).ok()?);
        // A duration beyond this is no duration.
        if !(0.0..1e15).contains(&part) {
            return None;
        }
        total = total.checked_add(part as u64)?;
        rest = after.trim_start();
    }
    (!text.is_empty()).then(|| Duration::from_millis(total))
}

fn milliseconds(unit: &str) -> Option<u64> {
    Some(match unit {
        "us" => 0,
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 604_800_000,
        "y" => 31_536_000_000,
        _ => return None,
    })
}

/// A duration as the settings have it.
pub(super) fn written(duration: Duration) -> String {
    let whole = |unit: u64| duration.as_secs().is_multiple_of(unit);
    if duration.subsec_millis() != 0 {
        format!("{}ms", duration.as_millis())
    } else if whole(86_400) && duration.as_secs() > 86_400 {
        format!("{}days", duration.as_secs() / 86_400)
    } else if whole(3600) {
        format!("{}h", duration.as_secs() / 3600)
    } else if whole(60) {
        format!("{}m", duration.as_secs() / 60)
    } else {
        format!("{}s", duration.as_secs())
    }
}
