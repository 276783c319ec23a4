//! What becomes of a test when a tool that it needs is missing.
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Set where a skipped test must not count as passed: in CI.
const FORBIDDEN: &str = "ENVOY_SIGNALR_NO_SKIPS";

/// The file to which a test adds a line when it is skipped, so that `cargo xtask test` can count them.
const LIST: &str = "ENVOY_SIGNALR_SKIPS";

/// Whether a test may be skipped for want of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skips {
    /// It prints that and does nothing.
    Allowed,
    /// It fails.
    Forbidden,
}

impl Skips {
    /// What holds here: forbidden where `ENVOY_SIGNALR_NO_SKIPS` is set.
    pub fn here() -> Self {
        if std::env::var_os(FORBIDDEN).is_some_and(|value| !value.is_empty()) { Self::Forbidden } else { Self::Allowed }
    }

    /// What makes it hold in the environment of a child.
    pub fn environment(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Allowed => None,
            Self::Forbidden => Some((FORBIDDEN, "1")),
        }
    }

    /// The tool that `test` needs, or nothing when `test` is to be skipped.
    pub fn or_skip<T>(self, test: &str, tool: Result<T>) -> Option<T> {
        match (tool, self) {
            (Ok(tool), _) => Some(tool),
            (Err(missing), Self::Forbidden) => panic!("{test} may not be skipped here ({FORBIDDEN}): {missing:#}"),
            (Err(missing), Self::Allowed) => {
                let line = format!("{test}: {missing:#}\n");
                // Not by a macro: the test runner would not show it.
                let _ = write!(std::io::stderr(), "skipped: {line}");
                if let Some(list) = std::env::var_os(LIST) {
                    let written =
                        OpenOptions::new().append(true).open(list).map(|mut list| list.write_all(line.as_bytes()));
                    written.expect("the list of skipped tests can be written").expect("the list can be appended to");
                }
                None
            }
        }
    }
}

/// Runs `tests` with a variable to set for their processes, and returns the lines of those that were skipped.
pub fn count_skips(folder: &Path, tests: impl FnOnce((&'static str, PathBuf)) -> Result<()>) -> Result<Vec<String>> {
    fs::create_dir_all(folder)?;
    let list = folder.join(format!("skipped-{}", std::process::id()));
    File::create(&list).with_context(|| format!("cannot write {}", list.display()))?;
    let outcome = tests((LIST, list.clone()));
    let lines = fs::read_to_string(&list)?.lines().map(str::to_owned).collect();
    fs::remove_file(list)?;
    outcome.map(|()| lines)
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
    #[should_panic(expected = "a test may not be skipped here (ENVOY_SIGNALR_NO_SKIPS): install it")]
    fn a_missing_tool_fails_the_test_where_skips_are_forbidden() {
        Skips::Forbidden.or_skip::<()>("a test", Err(anyhow!("install it")));
    }
}
