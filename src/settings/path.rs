//! Paths in the configuration, and how a request's path compares to them.
//!
//! ASP.NET Core's routing ignores case and a trailing slash and decodes percent encodings, so the comparison does too.

use percent_encoding::percent_decode;

use super::Problem;

/// A path whose `*` segments stand for any one segment.
#[derive(Debug, PartialEq, Eq)]
pub struct PathPattern(Vec<Segment>);

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Any,
    /// In lower case.
    Exact(Vec<u8>),
}

impl PathPattern {
    pub(super) fn parse(path: &str) -> Result<Self, Problem> {
        let not_a_path = || Problem::NotAPath(path.to_owned());
        let rest = path.strip_prefix('/').ok_or_else(not_a_path)?;
        if path.bytes().any(|byte| !byte.is_ascii_graphic() || b"?#;%".contains(&byte)) {
            return Err(not_a_path());
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.is_empty() {
            return if path == "/" { Ok(Self(Vec::new())) } else { Err(not_a_path()) };
        }
        let segments = rest.split('/').map(|segment| match segment {
            "" => Err(not_a_path()),
            "*" => Ok(Segment::Any),
            _ if segment.contains('*') => Err(Problem::PartialWildcard(path.to_owned())),
            _ => Ok(Segment::Exact(segment.to_ascii_lowercase().into_bytes())),
        });
        segments.collect::<Result<_, _>>().map(Self)
    }

    /// Whether `path`, as it stands in a request target, is this one.
    pub fn matches(&self, path: &[u8]) -> bool {
        let Some(rest) = path.strip_prefix(b"/") else { return false };
        let rest = rest.strip_suffix(b"/").unwrap_or(rest);
        if rest.is_empty() {
            return self.0.is_empty();
        }
        let mut wanted = self.0.iter();
        rest.split(|byte| *byte == b'/').all(|got| match wanted.next() {
            None => false,
            Some(Segment::Any) => !got.is_empty(),
            Some(Segment::Exact(text)) => {
                percent_decode(got).map(|byte| byte.to_ascii_lowercase()).eq(text.iter().copied())
            }
        }) && wanted.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_pattern_matches_as_aspnet_routes() {
        for (pattern, path, expected) in [
            ("/chat", "/chat", true),
            ("/chat", "/Chat/", true),
            ("/chat", "/c%48at", true),
            ("/chat", "/chats", false),
            ("/chat", "/chat/x", false),
            ("/chat", "chat", false),
            ("/chat", "/", false),
            ("/", "/", true),
            ("/", "/x", false),
            ("/app/*/chat", "/app/v2/chat", true),
            ("/app/*/chat", "/app//chat", false),
            ("/app/*/chat", "/app/v2/chat/x", false),
            ("/app/*/chat", "/app/v2", false),
        ] {
            assert_eq!(PathPattern::parse(pattern).unwrap().matches(path.as_bytes()), expected, "{pattern} {path}");
        }
    }
}
