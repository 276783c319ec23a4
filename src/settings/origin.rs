//! Origins (RFC 6454 section 6.2) whose pages may read a rejection: one, or those of all subdomains.
//!
//! The one `*` stands for whole labels, as in Envoy's own CORS filter and in ASP.NET Core: what it stands for is looked at, since
//! `https://*.example.com` must not be answered to `https://evil.com/.example.com`.

use super::Problem;

/// Whose pages may read a rejection. In lower case.
#[derive(Debug, PartialEq, Eq)]
pub enum AllowedOrigin {
    /// This origin.
    One(String),
    /// Each whose host ends so, with one label or more before it.
    Subdomains {
        /// Such as `https://`.
        scheme: String,
        /// Such as `.example.com`, and the port if it has one.
        domain: String,
    },
}

impl AllowedOrigin {
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let origin = text.to_ascii_lowercase();
        if !is_origin(&origin.replace('*', "a")) {
            return Err(Problem::NotAnOrigin(text.to_owned()));
        }
        if !origin.contains('*') {
            return Ok(Self::One(origin));
        }
        match origin.split_once("*.") {
            Some((scheme, domain)) if scheme.ends_with("://") && is_host(domain) => {
                Ok(Self::Subdomains { scheme: scheme.to_owned(), domain: format!(".{domain}") })
            }
            _ => Err(Problem::MisplacedWildcard(text.to_owned())),
        }
    }

    /// Whether a page of this origin may read the rejection.
    pub fn allows(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        match self {
            Self::One(own) => *own == origin,
            Self::Subdomains { scheme, domain } => {
                are_labels(origin.strip_prefix(scheme).and_then(|host| host.strip_suffix(domain)))
            }
        }
    }
}

/// Scheme, host and port, nothing after them.
fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return false };
    !scheme.is_empty()
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        && !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#".contains(&byte))
}

/// A name, and a port if there is one.
fn is_host(text: &str) -> bool {
    let (name, port) = text.split_once(':').unwrap_or((text, "443"));
    are_labels(Some(name)) && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
}

fn are_labels(host: Option<&str>) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    host.is_some_and(|host| host.split('.').all(is_label))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_wildcard_stands_for_whole_labels_of_the_host() {
        for (allowed, origin, expected) in [
            ("https://*.example.com", "https://a.example.com", true),
            ("https://*.example.com", "https://a.b.example.com", true),
            ("https://*.Example.com", "https://A_1.EXAMPLE.com", true),
            ("https://*.example.com", "https://example.com", false),
            ("https://*.example.com", "https://.example.com", false),
            ("https://*.example.com", "https://a..example.com", false),
            ("https://*.example.com", "https://evilexample.com", false),
            ("https://*.example.com", "https://a.example.com.evil.com", false),
            ("https://*.example.com", "https://evil.com/.example.com", false),
            ("https://*.example.com", "https://evil.com:1.example.com", false),
            ("https://*.example.com", "https://evil.com@a.example.com", false),
            ("https://*.example.com", "http://a.example.com", false),
            ("https://*.example.com", "https://a.example.com:8443", false),
            ("https://*.example.com:8443", "https://a.example.com:8443", true),
            ("https://*.example.com:8443", "https://a.example.com", false),
            ("https://*.example.com", "null", false),
            ("http://*.localhost:5173", "http://tenant.localhost:5173", true),
            ("https://chat.example.com", "https://CHAT.example.com", true),
            ("https://chat.example.com", "https://a.chat.example.com", false),
        ] {
            assert_eq!(AllowedOrigin::parse(allowed).unwrap().allows(origin), expected, "{allowed} and {origin}");
        }
    }

    #[test]
    fn a_wildcard_elsewhere_is_refused() {
        for (name, text) in [
            ("not a whole label", "https://*example.com"),
            ("behind a label", "https://a.*.example.com"),
            ("inside a label", "https://a*.example.com"),
            ("two", "https://*.*.example.com"),
            ("the whole host", "https://*"),
            ("nothing behind it", "https://*."),
            ("no name behind it", "https://*.:8443"),
            ("the port", "https://*.example.com:*"),
            ("an empty label", "https://*..example.com"),
        ] {
            assert_eq!(AllowedOrigin::parse(text), Err(Problem::MisplacedWildcard(text.to_owned())), "{name}");
        }
        for (name, text) in [
            ("by itself", "*"),
            ("the scheme", "*://example.com"),
            ("a path", "https://*.example.com/"),
            ("no scheme", "*.example.com"),
        ] {
            assert!(AllowedOrigin::parse(text).is_err(), "{name}");
        }
    }
}
