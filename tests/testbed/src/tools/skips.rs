//! What becomes of a test when a tool that it needs is not to be had.
use std::io::Write as _;

use anyhow::Result;

/// Set where a skipped test would pass for one that passed: in CI.
const VARIABLE: &str = "ENVOY_SIGNALR_NO_SKIPS";

/// Whether a test may be skipped for want of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skips {
    /// It says so and does nothing.
    Allowed,
    /// It fails.
    Forbidden,
}

impl Skips {
    /// What holds here: forbidden where `ENVOY_SIGNALR_NO_SKIPS` is set.
    pub fn here() -> Self {
        if std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty()) { Self::Forbidden } else { Self::Allowed }
    }

    /// What makes it hold in the environment of a child.
    pub fn environment(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Allowed => None,
            Self::Forbidden => Some((VARIABLE, "1")),
        }
    }

    /// The tool that `test` needs, or nothing when `test` is to be skipped.
    pub fn or_skip<T>(self, test: &str, tool: Result<T>) -> Option<T> {
        match (tool, self) {
            (Ok(tool), _) => Some(tool),
            (Err(missing), Self::Forbidden) => panic!("{test} may not be skipped here ({VARIABLE}): {missing:#}"),
            (Err(missing), Self::Allowed) => {
                // Not by a macro: the test runner would keep it to itself.
                let _ = writeln!(std::io::stderr(), "skipped: {test}: {missing:#}");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_tool_that_is_there_is_used_whatever_holds() {
        for skips in [Skips::Allowed, Skips::Forbidden] {
            assert_eq!(skips.or_skip("a test", Ok("tool")), Some("tool"), "{skips:?}");
        }
    }

    #[test]
    fn a_missing_tool_skips_the_test() {
        assert_eq!(Skips::Allowed.or_skip::<()>("nothing, but to see one skipped", Err(anyhow!("install it"))), None);
    }

    #[test]
    #[should_panic(expected = "a test may not be skipped here (ENVOY_SIGNALR_NO_SKIPS): install it")]
    fn a_missing_tool_fails_the_test_where_skips_are_forbidden() {
        Skips::Forbidden.or_skip::<()>("a test", Err(anyhow!("install it")));
    }
}
