//! Where a document configures a wasm plugin, and which environment variables it passes on.
//!
//! Envoy has the plugin as an object with `vm_config`, wherever that stands: in a bootstrap, a listener, one filter or the patch of
//! an EnvoyFilter. WasmPlugin, TrafficExtension and EnvoyExtensionPolicy have words of their own. Anything else is a
//! configuration by itself, unless it is plainly something else of Envoy or Kubernetes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::document::{Document, escaped};
use super::finding::{Finding, Level, Place};
use super::surroundings::member;

/// A plugin's configuration in a document.
#[derive(Debug)]
pub(super) struct Plugin<'a> {
    pub(super) document: &'a Document,
    /// Where the plugin stands.
    pub(super) pointer: String,
    pub(super) configuration: Configuration,
    pub(super) environment: Environment,
    /// Where the HTTP connection manager around it stands.
    pub(super) manager: Option<String>,
}

/// What the filter gets to read.
#[derive(Debug)]
pub(super) enum Configuration {
    /// The document as it was written.
    Whole,
    /// This part of the document.
    Part(String),
    /// The text at this place.
    Text(String),
    /// None.
    Absent,
}

/// Where the filter's environment variables come from.
#[derive(Debug)]
pub(super) enum Environment {
    /// The document does not say: a configuration by itself.
    Unknown,
    /// The document says.
    Given {
        /// Variables with their values.
        values: BTreeMap<String, String>,
        /// Those that the gateway's own environment has.
        passed_on: BTreeSet<String>,
        /// How to pass one on.
        way: Way,
    },
}

/// Who passes variables on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    Envoy,
    Istio,
    EnvoyGateway,
}

/// What is taken for a configuration by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alone {
    /// All that is not plainly something else, so that misspelt settings are refused.
    Always,
    /// What has a field of the settings: a folder has other files as well.
    IfKnown,
}

impl Way {
    /// What to add for this variable.
    pub(super) fn line(self, name: &str) -> String {
        match self {
            Self::Envoy => format!("add `environment_variables: {{ host_env_keys: [{name}] }}` to `vm_config`"),
            Self::Istio => format!("add `- {{ name: {name}, valueFrom: HOST }}` to `vmConfig.env`"),
            Self::EnvoyGateway => format!("add `env: {{ hostKeys: [{name}] }}` beside `config`"),
        }
    }
}

impl Plugin<'_> {
    /// What the filter gets.
    pub(super) fn json(&self) -> String {
        let part = |pointer: &str| self.document.value.pointer(pointer);
        match &self.configuration {
            Configuration::Whole => self.document.json.clone().unwrap_or_else(|| self.document.value.to_string()),
            Configuration::Part(pointer) => part(pointer).map(Value::to_string).unwrap_or_default(),
            Configuration::Text(pointer) => part(pointer).and_then(Value::as_str).unwrap_or_default().to_owned(),
            Configuration::Absent => String::new(),
        }
    }

    /// Whether the plugin's name, module or image says that it is this filter. Other plugins have settings of their own.
    pub(super) fn bears_our_name(&self) -> bool {
        let Some(mut plugin) = self.document.value.pointer(&self.pointer).cloned() else { return false };
        if let Some(members) = plugin.as_object_mut() {
            for settings in ["configuration", "pluginConfig", "config"] {
                members.remove(settings);
            }
        }
        plugin.to_string().contains("signalr")
    }

    /// Where the plugin stands; nothing for a configuration by itself.
    pub(super) fn place(&self) -> Option<Place> {
        match &self.configuration {
            Configuration::Whole => None,
            Configuration::Part(_) | Configuration::Text(_) | Configuration::Absent => {
                self.document.place(&self.pointer)
            }
        }
    }

    /// Where a field of the configuration stands, which is named as refusals name it: `hubs[0].path`.
    pub(super) fn place_of(&self, field: &str) -> Option<Place> {
        let below = pointer_of(field);
        match &self.configuration {
            // The refusal has the line where the text has several.
            Configuration::Whole if self.document.json.is_some() => None,
            Configuration::Whole => self.document.place(&below),
            Configuration::Part(pointer) => self.document.place(&format!("{pointer}{below}")),
            Configuration::Text(pointer) => self.place_in_text(pointer, &below),
            Configuration::Absent => self.place(),
        }
    }

    fn place_in_text(&self, pointer: &str, below: &str) -> Option<Place> {
        let name = self.document.place(pointer)?;
        let Some(first_line) = self.document.first_line(pointer) else { return Some(name) };
        let text = super::document::read(&self.json()).ok()?;
        let within = text.first().and_then(|text| text.place(below));
        // YAML takes the indentation off each line, by which the column would have to be moved.
        Some(within.map_or(name, |within| Place { line: first_line + within.line - 1, column: 1 }))
    }
}

/// All plugins of a document. What Envoy would not hand over as JSON is a finding.
pub(super) fn find<'a>(document: &'a Document, alone: Alone, findings: &mut Vec<Finding>) -> Vec<Plugin<'a>> {
    let mut search = Search { document, plugins: Vec::new(), findings };
    let before = search.findings.len();
    search.resource(&document.value, "");
    let by_itself = match alone {
        Alone::Always => is_settings(&document.value),
        Alone::IfKnown => is_settings(&document.value) && document.value.as_object().is_some_and(looks_like_ours),
    };
    if search.plugins.is_empty() && search.findings.len() == before && by_itself {
        search.plugins.push(Plugin {
            document,
            pointer: String::new(),
            configuration: Configuration::Whole,
            environment: Environment::Unknown,
            manager: None,
        });
    }
    search.plugins
}

struct Search<'a, 'f> {
    document: &'a Document,
    plugins: Vec<Plugin<'a>>,
    findings: &'f mut Vec<Finding>,
}

impl Search<'_, '_> {
    /// A resource of Kubernetes, or anything else.
    fn resource(&mut self, value: &Value, pointer: &str) {
        match value.get("kind").and_then(Value::as_str) {
            Some("WasmPlugin") => self.istio(value.get("spec"), &format!("{pointer}/spec")),
            Some("TrafficExtension") => self.istio(value.pointer("/spec/wasm"), &format!("{pointer}/spec/wasm")),
            Some("EnvoyExtensionPolicy") => {
                let modules = value.pointer("/spec/wasm").and_then(Value::as_array).into_iter().flatten();
                for (index, module) in modules.enumerate() {
                    self.envoy_gateway(module, &format!("{pointer}/spec/wasm/{index}"));
                }
            }
            Some("List") => {
                let items = value.get("items").and_then(Value::as_array).into_iter().flatten();
                for (index, item) in items.enumerate() {
                    self.resource(item, &format!("{pointer}/items/{index}"));
                }
            }
            _ => self.envoy(value, pointer, None),
        }
    }

    fn istio(&mut self, plugin: Option<&Value>, pointer: &str) {
        let Some(plugin) = plugin.filter(|plugin| plugin.is_object()) else { return };
        let entries = plugin.pointer("/vmConfig/env").and_then(Value::as_array).into_iter().flatten();
        let text = |entry: &Value, key| entry.get(key).and_then(Value::as_str).map(str::to_owned);
        let (passed_on, values): (Vec<_>, Vec<_>) =
            entries.partition(|entry| entry.get("valueFrom").is_some_and(|from| from == "HOST"));
        self.add(
            pointer,
            part_of(plugin, pointer, "pluginConfig"),
            Environment::Given {
                values: values
                    .into_iter()
                    .filter_map(|entry| Some((text(entry, "name")?, text(entry, "value")?)))
                    .collect(),
                passed_on: passed_on.into_iter().filter_map(|entry| text(entry, "name")).collect(),
                way: Way::Istio,
            },
        );
    }

    fn envoy_gateway(&mut self, module: &Value, pointer: &str) {
        self.add(
            pointer,
            part_of(module, pointer, "config"),
            Environment::Given {
                values: BTreeMap::new(),
                passed_on: texts(module.pointer("/env/hostKeys")),
                way: Way::EnvoyGateway,
            },
        );
    }

    /// `manager` is where the HTTP connection manager around the value stands.
    fn envoy(&mut self, value: &Value, pointer: &str, manager: Option<&str>) {
        match value {
            Value::Object(members) => {
                let manager = if member(value, "http_filters").is_some() { Some(pointer) } else { manager };
                if member(value, "vm_config").is_some() {
                    self.envoy_plugin(value, pointer, manager);
                }
                for (name, member) in members {
                    self.envoy(member, &format!("{pointer}/{}", escaped(name)), manager);
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.envoy(item, &format!("{pointer}/{index}"), manager);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn envoy_plugin(&mut self, plugin: &Value, pointer: &str, manager: Option<&str>) {
        let configuration = match plugin.get("configuration") {
            None => Configuration::Absent,
            Some(any) => {
                let kind = any.get("@type").and_then(Value::as_str).unwrap_or_default();
                let text = any.get("value");
                match (kind.rsplit('.').next(), text) {
                    (Some("StringValue"), None) => Configuration::Absent,
                    (Some("StringValue"), Some(Value::String(_))) => {
                        Configuration::Text(format!("{pointer}/configuration/value"))
                    }
                    _ => {
                        let place = self.document.place(&format!("{pointer}/configuration"));
                        let text = format!(
                            "the plugin's configuration has the type `{kind}`, which Envoy hands to a module as protobuf; put it \
                             as JSON text into a google.protobuf.StringValue"
                        );
                        self.findings.push(Finding::new(Level::Error, place, text));
                        return;
                    }
                }
            }
        };
        let environment = member(plugin, "vm_config").and_then(|config| member(config, "environment_variables"));
        let variables = |name: &str| member(environment?, name);
        let values = variables("key_values").and_then(Value::as_object).into_iter().flatten();
        let environment = Environment::Given {
            values: values.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect(),
            passed_on: texts(variables("host_env_keys")),
            way: Way::Envoy,
        };
        self.add(pointer, configuration, environment);
        if let Some(added) = self.plugins.last_mut() {
            added.manager = manager.map(str::to_owned);
        }
    }

    fn add(&mut self, pointer: &str, configuration: Configuration, environment: Environment) {
        let pointer = pointer.to_owned();
        self.plugins.push(Plugin { document: self.document, pointer, configuration, environment, manager: None });
    }
}

fn part_of(plugin: &Value, pointer: &str, name: &str) -> Configuration {
    if plugin.get(name).is_some() { Configuration::Part(format!("{pointer}/{name}")) } else { Configuration::Absent }
}

fn texts(list: Option<&Value>) -> BTreeSet<String> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(|text| Some(text.as_str()?.to_owned())).collect()
}

/// Whether a document without a plugin is taken for the filter's settings. Misspelt ones are to be refused, so it is what Envoy,
/// Kubernetes and Compose write that is recognised.
fn is_settings(value: &Value) -> bool {
    const OF_OTHERS: [&str; 23] = [
        "@type",
        "admin",
        "apiVersion",
        "clusters",
        "domains",
        "dynamic_resources",
        "endpoints",
        "filter_chains",
        "filters",
        "http_filters",
        "lb_policy",
        "listeners",
        "load_assignment",
        "load_balancing_policy",
        "match",
        "resources",
        "route",
        "routes",
        "services",
        "spec",
        "static_resources",
        "typed_config",
        "virtual_hosts",
    ];
    match value {
        Value::Object(members) => !OF_OTHERS.iter().any(|name| members.contains_key(*name)),
        Value::Array(items) => items.is_empty() || items.iter().any(is_settings),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

/// Whether an object has a field that only our settings have, or none but those of our settings.
fn looks_like_ours(members: &Map<String, Value>) -> bool {
    let own = |name: &str| ["hubs", "affinity", "limits", "metrics", "explain"].contains(&name);
    ["hubs", "affinity"].iter().any(|name| members.contains_key(*name))
        || (!members.is_empty() && members.keys().all(|name| own(name)))
}

/// The JSON pointer of a field that a refusal names.
fn pointer_of(field: &str) -> String {
    if field == "configuration" {
        return String::new();
    }
    field.split(['.', '[']).map(|part| format!("/{}", escaped(part.trim_end_matches(']')))).collect()
}
