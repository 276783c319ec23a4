//! `check-config`: reads a plugin configuration as the module would, natively, and says what the module would say.
//!
//! The configuration is the file itself, as JSON or YAML, or stands in it: in an Envoy bootstrap or an EnvoyFilter as
//! the `configuration` of a wasm filter, in a WasmPlugin or a TrafficExtension as `pluginConfig`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use envoy_signalr::settings::{OWN_SECRET_WARNING, Settings, Surroundings};
use envoy_signalr::store::Secret;
use serde::Deserialize;
use serde_json::Value;

/// A plugin configuration and the environment that its file gives to the module.
#[derive(Debug, Default, PartialEq)]
struct Found {
    json: String,
    env: BTreeMap<String, String>,
}

pub(crate) fn run(file: &Path) -> Result<ExitCode> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut code = ExitCode::SUCCESS;
    for found in find(&text).with_context(|| format!("{}", file.display()))? {
        match check(&found) {
            Ok(warning) => println!(
                "{}: ok{}",
                file.display(),
                warning.map(|text| format!("; warning: {text}")).unwrap_or_default()
            ),
            Err(refusal) => {
                println!("{}: configuration refused: {refusal}", file.display());
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// The module's verdict: a warning, or why it refuses.
fn check(found: &Found) -> Result<Option<&'static str>, String> {
    let warning = std::cell::Cell::new(None);
    let process_secret = || {
        warning.set(Some(OWN_SECRET_WARNING));
        Secret::new([0; 32])
    };
    let env = |name: &str| found.env.get(name).cloned().or_else(|| std::env::var(name).ok());
    Settings::parse(found.json.as_bytes(), &Surroundings { env: &env, process_secret: &process_secret })
        .map(|_| warning.get())
        .map_err(|error| error.to_string())
}

fn find(text: &str) -> Result<Vec<Found>> {
    // JSON goes to the module as it is, so that lines and columns are the file's own; so does broken JSON.
    let is_json = text.trim_start().starts_with(['{', '[']) || text.trim().is_empty();
    let documents: Vec<Value> = match serde_json::from_str(text) {
        Ok(document) => vec![document],
        Err(_) if is_json => return Ok(vec![Found { json: text.to_owned(), ..Found::default() }]),
        Err(_) => {
            let documents = serde_yaml_ng::Deserializer::from_str(text).map(Value::deserialize);
            documents.collect::<Result<_, _>>().context("neither JSON nor YAML")?
        }
    };
    let mut found = Vec::new();
    for document in documents.iter().filter(|document| !document.is_null()) {
        let around = ["apiVersion", "static_resources", "resources"].iter().any(|key| document.get(key).is_some());
        match document.get("kind").and_then(Value::as_str) {
            Some("WasmPlugin") => found.push(istio(document.get("spec"))),
            Some("TrafficExtension") => found.push(istio(document.pointer("/spec/wasm"))),
            _ if around => search(document, &mut found)?,
            _ => {
                let json = if is_json { text.to_owned() } else { document.to_string() };
                found.push(Found { json, ..Found::default() });
            }
        }
    }
    ensure!(!found.is_empty(), "there is no configuration of a wasm plugin in it");
    Ok(found)
}

/// Looks for Envoy's wasm plugins at any depth.
fn search(value: &Value, found: &mut Vec<Found>) -> Result<()> {
    match value {
        Value::Object(members) => {
            if members.contains_key("vm_config") {
                found.push(Found { json: any(members.get("configuration"))?, env: envoy_env(value) });
            }
            members.values().try_for_each(|member| search(member, found))
        }
        Value::Array(items) => items.iter().try_for_each(|item| search(item, found)),
        _ => Ok(()),
    }
}

/// What Istio hands to the module.
fn istio(plugin: Option<&Value>) -> Found {
    let plugin = plugin.unwrap_or(&Value::Null);
    let entries = plugin.pointer("/vmConfig/env").and_then(Value::as_array).into_iter().flatten();
    let text = |entry: &Value, key| entry.get(key).and_then(Value::as_str).map(str::to_owned);
    Found {
        json: plugin.get("pluginConfig").map(Value::to_string).unwrap_or_default(),
        env: entries.filter_map(|entry| Some((text(entry, "name")?, text(entry, "value")?))).collect(),
    }
}

/// What Envoy hands to the module for a `google.protobuf.Any`.
fn any(configuration: Option<&Value>) -> Result<String> {
    let Some(configuration) = configuration else { return Ok(String::new()) };
    let kind = configuration.get("@type").and_then(Value::as_str).unwrap_or_default();
    match (kind.rsplit('.').next(), configuration.get("value")) {
        (Some("StringValue"), None) => Ok(String::new()),
        (Some("StringValue"), Some(Value::String(text))) => Ok(text.clone()),
        _ => bail!(
            "the plugin's configuration has the type `{kind}`, which Envoy hands to a module as protobuf; put it as JSON text \
             into a google.protobuf.StringValue"
        ),
    }
}

fn envoy_env(plugin: &Value) -> BTreeMap<String, String> {
    let entries =
        plugin.pointer("/vm_config/environment_variables/key_values").and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}
