//! What a plugin rests on in the file around it. Where that is missing, Envoy starts all the same, and the filter is useless.
//!
//! Only what stands in the file is judged: nothing is said of routes that Envoy fetches, or of what Istio adds.

mod clusters;
pub(super) mod filters;
mod limits;
mod restricted;
mod routes;
mod stats;

use envoy_signalr::settings::Settings;
use serde_json::Value;

use super::document::Document;
use super::finding::{Finding, Level, Place};
use super::plugin::Plugin;

/// The HTTP connection manager around a plugin.
struct Manager<'a> {
    document: &'a Document,
    pointer: &'a str,
    value: &'a Value,
}

impl Manager<'_> {
    /// Where this part of it stands.
    fn place(&self, below: &str) -> Option<Place> {
        self.document.place(&format!("{}{below}", self.pointer))
    }

    fn is_set(&self, name: &str) -> bool {
        member(self.value, name).and_then(Value::as_bool).unwrap_or(false)
    }
}

/// What makes the filter useless, or less than it could be, without a word of Envoy.
pub(super) fn warnings(plugin: &Plugin<'_>, settings: &Settings) -> Vec<Finding> {
    let manager = plugin.manager.as_deref().and_then(|pointer| {
        let value = plugin.document.value.pointer(pointer)?;
        Some(Manager { document: plugin.document, pointer, value })
    });
    let mut warnings = clusters::warnings(plugin, settings);
    if let Some(manager) = &manager {
        warnings.extend(filters::warnings(manager, plugin, settings));
        warnings.extend(routes::warnings(manager, plugin, settings));
        warnings.extend(restricted::warnings(manager, plugin, settings));
    }
    warnings.extend(limits::warnings(manager.as_ref(), plugin, settings));
    warnings.extend(stats::notes(plugin));
    warnings
}

fn warning(place: Option<Place>, text: impl Into<String>) -> Finding {
    Finding::new(Level::Warning, place, text)
}

/// A member of a protobuf message in JSON, which may have either spelling: `http_filters` or `httpFilters`.
pub(super) fn member<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.get(name).or_else(|| value.get(camel_case(name)))
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let mut letters = word.chars();
        let capital = letters.next().map(|letter| letter.to_ascii_uppercase());
        name + &capital.into_iter().chain(letters).collect::<String>()
    })
}

/// The elements of a list, none if there is no list.
pub(super) fn items<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    member(value, name).and_then(Value::as_array).into_iter().flatten()
}

/// Whether this holds for the value or for one inside it, at any depth.
fn is_anywhere(value: &Value, holds: &impl Fn(&Value) -> bool) -> bool {
    holds(value)
        || match value {
            Value::Object(members) => members.values().any(|member| is_anywhere(member, holds)),
            Value::Array(items) => items.iter().any(|item| is_anywhere(item, holds)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
}

/// Whether this is the configuration of the extension whose type ends so.
fn is_type(config: &Value, name: &str) -> bool {
    config.get("@type").and_then(Value::as_str).is_some_and(|own| own.ends_with(name))
}
