//! Whether a filter that is off, and on again on some routes, is on wherever it is needed: see "On the routes of hubs alone" in
//! envoy/README.md.

use envoy_signalr::settings::Settings;
use serde_json::Value;

use super::super::finding::{Finding, Level};
use super::super::plugin::Plugin;
use super::filters::{own_index, reads};
use super::{Manager, is_anywhere, items, member, warning};

pub(super) fn warnings(manager: &Manager<'_>, plugin: &Plugin<'_>, settings: &Settings) -> Vec<Finding> {
    let Some(own) = own_index(manager, plugin) else { return Vec::new() };
    let filters = items(manager.value, "http_filters").enumerate();
    let off: Vec<(usize, &str)> = filters
        .filter(|(index, filter)| *index == own || reads(filter).is_some())
        .filter(|(_, filter)| is_disabled(filter))
        .filter_map(|(index, filter)| Some((index, filter.get("name")?.as_str()?)))
        .collect();
    // Routes that Envoy fetches are not in the file.
    let Some(routes) = member(manager.value, "route_config") else { return Vec::new() };
    let place = |index: usize| manager.place(&format!("/http_filters/{index}"));
    if let Some((index, name)) = off.iter().find(|(_, name)| !is_anywhere(routes, &|value| turns_on(value, name))) {
        let text = format!(
            "`{name}` is off, and no route turns it on: add `typed_per_filter_config: {{ {name}: {{ \"@type\": \
             type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {{}} }} }}` to the routes of your hubs"
        );
        return vec![warning(place(*index), text)];
    }
    if let [(index, one), (_, other)] = off[..]
        && is_anywhere(routes, &|value| turns_on(value, one) != turns_on(value, other))
    {
        let text = format!("a route turns on one of `{one}` and `{other}` without the other, and needs both");
        return vec![warning(place(index), text)];
    }
    let cookie = !off.is_empty() && settings.client_cookie.is_some();
    let note = "the filter is on for some routes only: those of the pages in `affinity.client_cookie.paths`, and `/_blazor`, need it, too";
    cookie.then(|| Finding::new(Level::Note, plugin.place_of("affinity.client_cookie"), note)).into_iter().collect()
}

fn is_disabled(value: &Value) -> bool {
    value.get("disabled").and_then(Value::as_bool).unwrap_or(false)
}

/// Whether a route, or what holds routes, turns this filter on.
fn turns_on(value: &Value, filter: &str) -> bool {
    let config = member(value, "typed_per_filter_config").and_then(|filters| filters.get(filter));
    config.is_some_and(|config| !is_disabled(config))
}
