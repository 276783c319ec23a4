//! Whether Envoy makes labels of what the filter writes into the names of its metrics.

use super::super::finding::{Finding, Level};
use super::super::plugin::Plugin;
use super::{items, member};

/// Of a whole bootstrap only: a part of one does not show it.
pub(super) fn notes(plugin: &Plugin<'_>) -> Option<Finding> {
    let bootstrap = &plugin.document.value;
    member(bootstrap, "static_resources")?;
    let is_ours = |tag: &serde_json::Value| {
        member(tag, "tag_name").and_then(serde_json::Value::as_str).is_some_and(|name| name.starts_with("signalr_"))
    };
    let has_labels = member(bootstrap, "stats_config").is_some_and(|config| items(config, "stats_tags").any(is_ours));
    let text = "labels stay in the names of metrics, as `signalr_hub=.=/chat;.;`: add the `stats_tags` of envoy/envoy.yaml to `stats_config`";
    (!has_labels).then(|| Finding::new(Level::Note, None, text))
}
