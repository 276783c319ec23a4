//! Whether routes let SignalR through: WebSockets, answers that last, and the headers by which the filter chooses a route.
//!
//! Routes that Envoy fetches (`rds`) are not in the file, and nothing is said of them.

use std::time::Duration;

use envoy_signalr::settings::Settings;
use regex::Regex;
use serde_json::Value;

use super::super::finding::Finding;
use super::super::plugin::Plugin;
use super::{Manager, is_anywhere, items, member, warning};

pub(super) fn warnings(manager: &Manager<'_>, plugin: &Plugin<'_>, settings: &Settings) -> Vec<Finding> {
    let mut warnings = Vec::new();
    if !is_anywhere(manager.value, &upgrades) {
        warnings.push(warning(
            manager.place(""),
            "Envoy answers every WebSocket 403 before the filter sees it: add `upgrade_configs: [{ upgrade_type: websocket }]` to the \
             HTTP connection manager",
        ));
    }
    let Some(config) = member(manager.value, "route_config") else { return warnings };
    warnings.extend(cut(&Routes::of(config), &hub_paths(plugin)).into_iter().map(|route| {
        let place = manager.place(&format!("/route_config{}", route.pointer));
        let timeout = route.timeout.as_secs_f64();
        warning(
            place,
            format!(
                "event streams and long polls are cut after {timeout} s: set `timeout: 0s` in the route to the hubs"
            ),
        )
    }));
    let headers = [
        ("affinity.client_cookie.mark", settings.client_cookie.as_ref().and(settings.pin.mark.as_deref())),
        ("affinity.cluster_header", settings.pin.cluster.as_deref()),
    ];
    for (field, name) in headers {
        if let Some(name) = name.filter(|name| !is_anywhere(config, &|value| reads(value, name))) {
            let text = format!(
                "no route matches `{name}`, and so it does nothing: {field} is for routes that match the header"
            );
            warnings.push(warning(plugin.place_of(field), text));
        }
    }
    warnings
}

/// Whether this is what lets WebSockets through.
fn upgrades(value: &Value) -> bool {
    items(value, "upgrade_configs").any(|upgrade| {
        let kind = member(upgrade, "upgrade_type").and_then(Value::as_str);
        let is_off = upgrade.get("enabled").is_some_and(|enabled| enabled == false);
        kind.is_some_and(|kind| kind.eq_ignore_ascii_case("websocket")) && !is_off
    })
}

/// Whether this is a route that chooses by the header.
fn reads(value: &Value, header: &str) -> bool {
    let is_it =
        |name: Option<&Value>| name.and_then(Value::as_str).is_some_and(|name| name.eq_ignore_ascii_case(header));
    is_it(member(value, "cluster_header"))
        || value.get("match").is_some_and(|matched| items(matched, "headers").any(|matched| is_it(matched.get("name"))))
}

/// The hubs' paths as they are configured, each with a word in the place of a `*`.
fn hub_paths(plugin: &Plugin<'_>) -> Vec<String> {
    let settings: Value = serde_json::from_str(&plugin.json()).unwrap_or_default();
    let paths = items(&settings, "hubs").filter_map(|hub| hub.get("path").and_then(Value::as_str));
    paths.map(|path| path.replace('*', "any")).collect()
}

/// A route that leads to a cluster.
#[derive(Debug)]
struct Route<'a> {
    /// Within the route configuration.
    pointer: String,
    matched: &'a Value,
    timeout: Duration,
}

/// The routes of each virtual host, in their order.
struct Routes<'a>(Vec<Vec<Route<'a>>>);

impl<'a> Routes<'a> {
    fn of(config: &'a Value) -> Self {
        let hosts = items(config, "virtual_hosts").enumerate();
        Self(hosts.map(|(host, value)| routes(host, value)).collect())
    }
}

fn routes(host: usize, value: &Value) -> Vec<Route<'_>> {
    let routes = items(value, "routes").enumerate();
    let to_clusters = routes.filter_map(|(index, route)| {
        let action = route.get("route")?;
        Some(Route {
            pointer: format!("/virtual_hosts/{host}/routes/{index}"),
            matched: route.get("match").unwrap_or(&Value::Null),
            timeout: action.get("timeout").map_or(DEFAULT_TIMEOUT, duration),
        })
    });
    to_clusters.collect()
}

/// Envoy's own.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// As protobuf writes it in JSON: `1.5s`.
fn duration(value: &Value) -> Duration {
    let seconds = value.as_str().and_then(|text| text.strip_suffix('s')?.parse().ok());
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or_default()
}

/// The routes that cut event streams and long polls of hubs. A virtual host may be for another application: as long as one lets a hub
/// through, nothing is said of the others.
fn cut<'r>(routes: &'r Routes<'_>, hubs: &[String]) -> Vec<&'r Route<'r>> {
    let mut cut: Vec<&Route<'_>> = Vec::new();
    if hubs.is_empty() {
        let any: Vec<_> = routes.0.iter().flatten().filter(|route| route.may_stream()).collect();
        if any.iter().all(|route| !route.lasts()) {
            cut = any;
        }
    }
    for hub in hubs {
        let hosts: Vec<Vec<_>> =
            routes.0.iter().map(|host| to_hub(host, hub)).filter(|host| !host.is_empty()).collect();
        let lets_through = |host: &Vec<&Route<'_>>| host.iter().any(|route| route.lasts());
        let any_lasts = hosts.iter().any(lets_through);
        let judged = hosts.iter().filter(|host| !any_lasts || lets_through(host)).flatten();
        for route in judged.filter(|route| !route.lasts()) {
            if !cut.iter().any(|other| other.pointer == route.pointer) {
                cut.push(route);
            }
        }
    }
    cut
}

/// The routes that a request for the hub can meet: all up to the first without a further condition.
fn to_hub<'r>(host: &'r [Route<'r>], hub: &str) -> Vec<&'r Route<'r>> {
    let mut met = Vec::new();
    for route in host.iter().filter(|route| route.matches(hub)) {
        if route.may_stream() {
            met.push(route);
        }
        if !route.has_conditions() {
            break;
        }
    }
    met
}

impl Route<'_> {
    fn lasts(&self) -> bool {
        self.timeout.is_zero()
    }

    fn has_conditions(&self) -> bool {
        ["headers", "query_parameters", "runtime_fraction", "dynamic_metadata"]
            .iter()
            .any(|condition| member(self.matched, condition).is_some())
    }

    /// Whether an event stream or a poll can come here: negotiates and sends, which are POST, are short.
    fn may_stream(&self) -> bool {
        let is_negotiate = ["path", "prefix", "path_separated_prefix"]
            .iter()
            .filter_map(|name| member(self.matched, name)?.as_str())
            .chain(self.regex())
            .any(|text| text.contains("negotiate"));
        let is_post = items(self.matched, "headers").any(|header| {
            header.get("name").is_some_and(|name| name == ":method")
                && is_anywhere(header, &|value| value.get("exact").is_some_and(|method| method == "POST"))
        });
        !is_negotiate && !is_post
    }

    fn regex(&self) -> Option<&str> {
        member(self.matched, "safe_regex")?.get("regex")?.as_str()
    }

    fn matches(&self, path: &str) -> bool {
        let is_sensitive = member(self.matched, "case_sensitive").and_then(Value::as_bool).unwrap_or(true);
        let fold = |text: &str| if is_sensitive { text.to_owned() } else { text.to_ascii_lowercase() };
        let text = |name| member(self.matched, name).and_then(Value::as_str).map(fold);
        let path = fold(path);
        if let Some(prefix) = text("prefix") {
            return path.starts_with(&prefix);
        }
        if let Some(prefix) = text("path_separated_prefix") {
            return path.strip_prefix(&prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        }
        if let Some(exact) = text("path") {
            return path == exact;
        }
        // What cannot be read is not judged.
        self.regex()
            .and_then(|regex| Regex::new(&format!("^(?:{regex})$")).ok())
            .is_some_and(|regex| regex.is_match(&path))
    }
}
