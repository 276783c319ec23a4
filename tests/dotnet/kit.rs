//! What the tests of this folder have in common.

use serde_json::json;
use testbed::clients::{DotnetClient, NodeClient, Outcome, Task};
use testbed::envoy::{Envoy, Filter};
use testbed::tools::{self, Skips};

/// How many connections a client makes.
pub(crate) const CONNECTS: u32 = 10;

/// Whether .NET 10 is here. If not, `test` is reported as skipped.
pub(crate) fn has_dotnet_10(test: &str) -> bool {
    Skips::here().or_skip(test, tools::dotnet_at_least(10)).is_some()
}

/// The filter with its defaults.
pub(crate) fn defaults() -> Filter {
    Filter::With(json!({}))
}

/// A client in each of whose connections the hub asks back and streams go both ways.
pub(crate) fn talkative(envoy: &Envoy) -> NodeClient {
    NodeClient { task: Task::of(envoy.url(), CONNECTS), rounds: 1, ..NodeClient::default() }
}

pub(crate) fn dotnet(common: NodeClient) -> DotnetClient {
    DotnetClient { common, ..DotnetClient::default() }
}

pub(crate) fn all_connected(name: &str, outcome: &Outcome) {
    assert_eq!(outcome.connected, outcome.tried, "{name}: {:?}", outcome.first_error());
    assert!(outcome.tried > 0, "{name}");
}
