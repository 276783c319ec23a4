//! `check-config`: reads a plugin configuration as the module would, natively, and prints what the module would say.
//!
//! The configuration is the file itself, as JSON or YAML, or stands in it: in an Envoy bootstrap or an EnvoyFilter as
//! the `configuration` of a wasm filter, in a WasmPlugin or a TrafficExtension as `pluginConfig`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use envoy_signalr::settings::{AbsentKey, ClientKeySource, Hubs, OWN_SECRET_WARNING, Settings, Surroundings};
use envoy_signalr::store::Secret;
use serde::Deserialize;
use serde_json::Value;

/// A plugin configuration, and what its file says of the module's surroundings.
#[derive(Debug, Default, PartialEq)]
struct Found {
    json: String,
    env: BTreeMap<String, String>,
    manager: Option<Manager>,
    /// Whether a cluster of the file lets a pin lead to a draining pod.
    pins_to_draining: bool,
}

/// What matters of the HTTP connection manager in an Envoy configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Manager {
    uses_remote_address: bool,
    normalizes_path: bool,
    /// Whether Envoy adds the address of its peer to `x-forwarded-for`.
    adds_peer: bool,
    /// Whether it holds requests back until they have ended.
    buffers: bool,
}

pub(crate) fn run(file: &Path) -> Result<ExitCode> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut code = ExitCode::SUCCESS;
    for found in find(&text).with_context(|| format!("{}", file.display()))? {
        match check(&found) {
            Ok(warnings) => {
                println!("{}: ok", file.display());
                warnings.iter().for_each(|warning| println!("{}: warning: {warning}", file.display()));
            }
            Err(refusal) => {
                println!("{}: configuration refused: {refusal}", file.display());
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// The module's verdict: what the operator should know, or why the module refuses.
fn check(found: &Found) -> Result<Vec<&'static str>, String> {
    let warning = std::cell::Cell::new(None);
    let process_secret = || {
        warning.set(Some(OWN_SECRET_WARNING));
        Secret::new([0; 32])
    };
    let env = |name: &str| found.env.get(name).cloned().or_else(|| std::env::var(name).ok());
    let surroundings = Surroundings { env: &env, process_secret: &process_secret };
    let settings = Settings::parse(found.json.as_bytes(), &surroundings).map_err(|error| error.to_string())?;
    let draining = (found.pins_to_draining && settings.client_cookie.is_some() && settings.pin.mark.is_none()).then_some(
        "the client cookie brings new connections to draining pods, too, because `override_host_status` has `DRAINING`: see \
         `affinity.client_cookie.mark`",
    );
    let buffer = found.manager.is_some_and(|manager| manager.buffers).then_some(
        "WebSockets never open, because `envoy.filters.http.buffer` waits for the end of a request and they have none: switch it off \
         for the hubs' routes by a `BufferPerRoute` with `disabled: true`",
    );
    Ok(warning
        .get()
        .into_iter()
        .chain(draining)
        .chain(buffer)
        .chain(warnings_of_limits(&settings, found.manager))
        .collect())
}

/// What a configuration with limits rests on, and does not have.
fn warnings_of_limits(settings: &Settings, manager: Option<Manager>) -> Vec<&'static str> {
    let limits = &settings.limits;
    let counts = [limits.per_client, limits.per_hub, limits.total].iter().any(Option::is_some);
    if !counts && limits.negotiate_rate.is_none() && limits.connect_rate.is_none() {
        return Vec::new();
    }
    let by_address = limits.client.key == ClientKeySource::SourceAddress || limits.client.absent == AbsentKey::Address;
    let mut warnings = Vec::new();
    if matches!(settings.hubs, Hubs::Any) {
        warnings.push(
            "limits without hubs: any path counts as a hub as soon as it answers a negotiate; list your hubs in `hubs`",
        );
    }
    if manager.is_some_and(|manager| by_address && !manager.uses_remote_address) {
        warnings.push(
            "limits count by the client's address, which a client can make up: set `use_remote_address: true` in the HTTP \
             connection manager",
        );
    }
    if limits.client.key == ClientKeySource::Header("x-forwarded-for".to_owned()) {
        warnings.push(
            "each client writes into `x-forwarded-for`, and so can be as many clients as it likes: add `\"as\": \"address\"` to \
             `limits.client.key`",
        );
    }
    let by_last_entry = limits.client.key == ClientKeySource::AddressHeader("x-forwarded-for".to_owned());
    if manager.is_some_and(|manager| by_last_entry && manager.adds_peer) {
        warnings.push(
            "all clients behind one proxy are one, because Envoy adds the proxy's address to `x-forwarded-for`: set \
             `skip_xff_append: true` in the HTTP connection manager",
        );
    }
    if manager.is_some_and(|manager| !manager.normalizes_path) {
        warnings.push(
            "a client can write a hub's path in several ways: set `normalize_path: true` in the HTTP connection manager",
        );
    }
    warnings
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
            _ if around => search(document, None, &mut found)?,
            _ => {
                let json = if is_json { text.to_owned() } else { document.to_string() };
                found.push(Found { json, ..Found::default() });
            }
        }
    }
    ensure!(!found.is_empty(), "there is no configuration of a wasm plugin in it");
    let pins_to_draining = documents.iter().any(pins_to_draining);
    Ok(found.into_iter().map(|found| Found { pins_to_draining, ..found }).collect())
}

/// Whether a cluster, at any depth, has `DRAINING` in its `override_host_status`.
fn pins_to_draining(value: &Value) -> bool {
    is_anywhere(value, &|value| {
        let statuses = value.pointer("/override_host_status/statuses").and_then(Value::as_array);
        statuses.is_some_and(|statuses| statuses.iter().any(|status| status == "DRAINING"))
    })
}

/// Whether a connection manager has Envoy's buffer among its filters, and no route of its own that switches it off.
fn buffers(manager: &Value) -> bool {
    let filters = manager.get("http_filters").and_then(Value::as_array).into_iter().flatten();
    let is_off = |value: &Value| value.get("disabled").and_then(Value::as_bool).unwrap_or(false);
    let has_type = |value: &Value, kind: &str| {
        let own = value.get("@type").and_then(Value::as_str);
        own.is_some_and(|own| own.ends_with(&format!("envoy.extensions.filters.http.buffer.v3.{kind}")))
    };
    let mut buffers =
        filters.filter(|filter| filter.get("typed_config").is_some_and(|config| has_type(config, "Buffer")));
    buffers.any(|filter| !is_off(filter))
        && !is_anywhere(manager, &|value| has_type(value, "BufferPerRoute") && is_off(value))
}

/// Whether this holds for the value or for one inside it, at any depth.
fn is_anywhere(value: &Value, holds: &impl Fn(&Value) -> bool) -> bool {
    holds(value)
        || match value {
            Value::Object(members) => members.values().any(|member| is_anywhere(member, holds)),
            Value::Array(items) => items.iter().any(|item| is_anywhere(item, holds)),
            _ => false,
        }
}

/// Looks for Envoy's wasm plugins at any depth. `manager` is the connection manager around.
fn search(value: &Value, manager: Option<Manager>, found: &mut Vec<Found>) -> Result<()> {
    match value {
        Value::Object(members) => {
            let is_set = |name| members.get(name).and_then(Value::as_bool).unwrap_or(false);
            let manager = members
                .contains_key("http_filters")
                .then(|| Manager {
                    uses_remote_address: is_set("use_remote_address"),
                    normalizes_path: is_set("normalize_path"),
                    adds_peer: is_set("use_remote_address") && !is_set("skip_xff_append"),
                    buffers: buffers(value),
                })
                .or(manager);
            if members.contains_key("vm_config") {
                let json = any(members.get("configuration"))?;
                found.push(Found { json, env: envoy_env(value), manager, ..Found::default() });
            }
            members.values().try_for_each(|member| search(member, manager, found))
        }
        Value::Array(items) => items.iter().try_for_each(|item| search(item, manager, found)),
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
        // Istio's gateways have both settings.
        manager: None,
        pins_to_draining: false,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(text: &str) -> Vec<&'static str> {
        let found = find(text).unwrap();
        check(&found[0]).unwrap()
    }

    /// A bootstrap with these settings of the filter, and of the HTTP connection manager.
    fn bootstrap(manager: &str, settings: &str) -> String {
        let value = Value::from(settings);
        let configuration = format!(r#"{{"@type": "google.protobuf.StringValue", "value": {value}}}"#);
        format!(
            r#"{{"static_resources": {{"typed_config": {{{manager} "http_filters": [{{"vm_config": {{}}, "configuration": {configuration}}}]}}}}}}"#
        )
    }

    #[test]
    fn limits_without_what_they_rest_on_are_warned_of() {
        let plugin = r#"{"hubs": HUBS, "affinity": {"keys": [{"id": "1", "secret": {"value": "0123456789abcdef0123456789abcdef"}}]}, "limits": {"connections": {"per_client": 1}}}"#;
        let bootstrap = |manager: &str, hubs: &str| bootstrap(manager, &plugin.replace("HUBS", hubs));
        let listed = r#"[{"path": "/chat"}]"#;
        for (name, text, expected) in [
            ("all there", bootstrap(r#""use_remote_address": true, "normalize_path": true,"#, listed), vec![]),
            ("no address", bootstrap(r#""normalize_path": true,"#, listed), vec!["use_remote_address"]),
            (
                "as given",
                bootstrap(r#""use_remote_address": true, "normalize_path": false,"#, listed),
                vec!["normalize_path"],
            ),
            ("nothing", bootstrap("", "[]"), vec!["`hubs`", "use_remote_address", "normalize_path"]),
            ("a plugin alone", plugin.replace("HUBS", "[]"), vec!["`hubs`"]),
        ] {
            let got = warnings(&text);
            assert_eq!(got.len(), expected.len(), "{name}: {got:?}");
            assert!(got.iter().zip(expected).all(|(got, expected)| got.contains(expected)), "{name}: {got:?}");
        }
    }

    #[test]
    fn a_forwarded_address_that_names_the_proxy_or_whom_the_client_likes_is_warned_of() {
        let settings = r#"{"hubs": [{"path": "/chat"}], "affinity": {"keys": [{"id": "1", "secret": {"value": "0123456789abcdef0123456789abcdef"}}]}, "limits": {"client": {"key": KEY}, "connections": {"per_client": 1}}}"#;
        let skips = r#""use_remote_address": true, "skip_xff_append": true, "normalize_path": true,"#;
        let adds = r#""use_remote_address": true, "normalize_path": true,"#;
        let address = r#"{"header": "X-Forwarded-For", "as": "address"}"#;
        for (name, manager, key, expected) in [
            ("Envoy adds none", skips, address, vec![]),
            ("Envoy adds the proxy", adds, address, vec!["skip_xff_append"]),
            ("another header", adds, r#"{"header": "cf-connecting-ip", "as": "address"}"#, vec![]),
            ("the list as it stands", skips, r#"{"header": "x-forwarded-for"}"#, vec![r#""as": "address""#]),
        ] {
            let got = warnings(&bootstrap(manager, &settings.replace("KEY", key)));
            assert_eq!(got.len(), expected.len(), "{name}: {got:?}");
            assert!(got.iter().zip(expected).all(|(got, expected)| got.contains(expected)), "{name}: {got:?}");
        }
    }

    #[test]
    fn a_client_cookie_that_leads_to_draining_pods_is_warned_of() {
        let text = fs::read_to_string(testbed::workspace().join("envoy/envoy.yaml")).unwrap();
        for (name, cookie, statuses, expected) in [
            ("no mark", r#""enabled": true"#, "DRAINING", 1),
            ("a mark", r#""enabled": true, "mark": "x-mark""#, "DRAINING", 0),
            ("disabled", r#""enabled": false"#, "DRAINING", 0),
            ("a cluster that keeps nobody", r#""enabled": true"#, "DEGRADED", 0),
        ] {
            let settings = format!(r#"{{"affinity": {{"client_cookie": {{{cookie}}}}}}}"#);
            let text =
                text.replace("                            {}\n", &format!("                            {settings}\n"));
            let text = text.replace("DEGRADED, DRAINING]", &format!("DEGRADED, {statuses}]"));
            assert!(text.contains(&settings), "{name}");
            let got = warnings(&text);
            let of_it = got.iter().filter(|warning| warning.contains("affinity.client_cookie.mark"));
            assert_eq!(of_it.count(), expected, "{name}: {got:?}");
        }
    }

    #[test]
    fn a_buffer_that_holds_websockets_back_is_warned_of() {
        let kind = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3";
        let shipped = fs::read_to_string(testbed::workspace().join("envoy/envoy.yaml")).unwrap();
        let filter = |more: &str| {
            format!(
                r#"- {{ name: body-limit, {more} typed_config: {{ "@type": {kind}.Buffer, max_request_bytes: 1024 }} }}"#
            )
        };
        let routes = |disabled: bool| {
            format!(
                r#"typed_per_filter_config: {{ body-limit: {{ "@type": {kind}.BufferPerRoute, disabled: {disabled} }} }}"#
            )
        };
        for (name, filters, routes, expected) in [
            ("none", String::new(), String::new(), 0),
            ("one", filter(""), String::new(), 1),
            ("one that is disabled", filter("disabled: true,"), String::new(), 0),
            ("switched off for routes", filter(""), routes(true), 0),
            ("switched on for routes", filter(""), routes(false), 1),
        ] {
            let text = shipped.replace(
                "                  - name: signalr\n",
                &format!("                  {filters}\n                  - name: signalr\n"),
            );
            let text = text.replace(
                "                      routes:\n",
                &format!("                      {routes}\n                      routes:\n"),
            );
            assert!(text.contains(&filters) && text.contains(&routes), "{name}");
            let got = warnings(&text);
            let of_it = got.iter().filter(|warning| warning.contains("envoy.filters.http.buffer"));
            assert_eq!(of_it.count(), expected, "{name}: {got:?}");
        }
    }

    #[test]
    fn the_shipped_bootstrap_has_no_warning_but_of_its_key() {
        let text = fs::read_to_string(testbed::workspace().join("envoy/envoy.yaml")).unwrap();
        assert!(warnings(&text).iter().all(|warning| *warning == OWN_SECRET_WARNING));
    }
}
