//! `render`: the manifests for one installation, with no line left to change by hand.
//!
//! They are the files of `envoy/`, `istio/` and `envoy-gateway/`, which the tests run, with the options put in. Without options they are
//! those files, but for the marks of what differs from one installation to the next.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::check::{any_secret, settings_in};
use crate::print;
use crate::settings::Reasoned;

const ENVOY: &str = include_str!("../../envoy/envoy.yaml");
const WASM_PLUGIN: &str = include_str!("../../istio/filter/wasm-plugin/wasm-plugin.yaml");
const TRAFFIC_EXTENSION: &str = include_str!("../../istio/filter/traffic-extension/traffic-extension.yaml");
const STEERING: &str = include_str!("../../istio/filter/steering/envoy-filter.yaml");
const GATEWAY: &str = include_str!("../../envoy-gateway/gateway.yaml");
const SIGNALR: &str = include_str!("../../envoy-gateway/signalr.yaml");

/// What stands in the files for an image.
const IMAGE: &str = "registry.example.com/envoy-signalr:0.1.0";
/// The variable of the shipped files that holds the key.
const VARIABLE: &str = "SIGNALR_AFFINITY_KEY";
/// Marks of lines that differ from one installation to the next.
const MARKS: [&str; 2] = [" # CHANGE", " # from istio/values"];

/// What can be rendered.
#[derive(Debug, clap::Subcommand)]
pub enum Render {
    /// A bootstrap for Envoy by itself
    #[command(
        after_help = "Example:\n  envoy-signalr render envoy --hub /chat --upstream hub.internal:8080 --key SIGNALR_AFFINITY_KEY > envoy.yaml"
    )]
    Envoy(Envoy),
    /// The filter and what steers by it, for an ingress gateway of Istio
    #[command(after_help = "\
Example:
  envoy-signalr render istio --hub /chat --service hub.chat.svc.cluster.local --image registry.example.com/signalr@sha256:… |
    kubectl apply -f -

The gateway's pods need the key and the label first: see istio/README.md.")]
    Istio(Istio),
    /// A Gateway, an HTTPRoute for the hubs and the filter on it, for Envoy Gateway
    #[command(after_help = "\
Example:
  envoy-signalr render envoy-gateway --hub /chat --namespace chat --service hub:80 --image registry.example.com/signalr@sha256:… |
    kubectl apply -f -")]
    EnvoyGateway(EnvoyGateway),
}

/// The filter's settings.
#[derive(Debug, Default, clap::Args)]
pub struct Own {
    /// The path of a hub; may be given several times. Without, each path that negotiates is a hub
    #[arg(long = "hub", value_name = "PATH")]
    hubs: Vec<String>,
    /// A file with settings, as `check` reads it; `--hub` is added to them
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
}

/// Envoy by itself.
#[derive(Debug, clap::Args)]
pub struct Envoy {
    #[command(flatten)]
    own: Own,
    /// The variable of Envoy's environment that holds the key. Without, Envoy makes up one, which serves a single gateway
    #[arg(long, value_name = "VARIABLE")]
    key: Option<String>,
    /// The name or address of the hubs: each address of a name is a pod
    #[arg(long, default_value = "hub:8080", value_name = "HOST:PORT", value_parser = host_and_port)]
    upstream: (String, u16),
    /// The port for clients
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// The module's file
    #[arg(long, default_value = "/etc/envoy/envoy_signalr.wasm")]
    module: String,
}

/// Istio.
#[derive(Debug, clap::Args)]
pub struct Istio {
    #[command(flatten)]
    own: Own,
    /// The namespace of the gateway's pods
    #[arg(long, default_value = "istio-ingress")]
    namespace: String,
    /// The service of the hubs, by its full name
    #[arg(long, default_value = "hub.default.svc.cluster.local")]
    service: String,
    /// The module's image, by its digest if you can
    #[arg(long, default_value = IMAGE)]
    image: String,
    /// A label that the gateway's pods with the key have
    #[arg(long, default_value = "envoy-signalr/key=present", value_name = "KEY=VALUE", value_parser = label)]
    selector: (String, String),
    /// A Kubernetes Gateway, in place of a label
    #[arg(long, conflicts_with = "selector", value_name = "NAME")]
    gateway: Option<String>,
    /// Istio's API for plugins
    #[arg(long, value_enum, default_value_t = Api::TrafficExtension)]
    api: Api,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Api {
    /// From Istio 1.30 on
    TrafficExtension,
    /// Before
    WasmPlugin,
}

/// Envoy Gateway.
#[derive(Debug, clap::Args)]
pub struct EnvoyGateway {
    #[command(flatten)]
    own: Own,
    /// The namespace of the Gateway and the hubs
    #[arg(long, default_value = "default")]
    namespace: String,
    /// The name of the Gateway
    #[arg(long, default_value = "gateway")]
    gateway: String,
    /// The service of the hubs
    #[arg(long, default_value = "hub:80", value_name = "NAME:PORT", value_parser = host_and_port)]
    service: (String, u16),
    /// The module's image, by its digest if you can
    #[arg(long, default_value = IMAGE)]
    image: String,
}

/// Prints the manifests.
///
/// # Errors
/// Settings that cannot be read or that the filter refuses.
pub fn run(render: &Render) -> Result<()> {
    print(&text(render, Reasoned::default())?)
}

/// The manifests with these settings, to which the options add theirs.
///
/// # Errors
/// As of [`run`].
pub(crate) fn text(render: &Render, given: Reasoned) -> Result<String> {
    match render {
        Render::Envoy(options) => envoy(options, given),
        Render::Istio(options) => istio(options, given),
        Render::EnvoyGateway(options) => envoy_gateway(options, given),
    }
}

fn envoy(Envoy { own, key, upstream: (host, host_port), port, module }: &Envoy, given: Reasoned) -> Result<String> {
    let reasoned = own.with_key(key.as_deref(), given)?;
    let settings = &reasoned.settings;
    let mut text = Text::of(ENVOY);
    text.replace("address: hub, port_value: 8080", format!("address: {host}, port_value: {host_port}"));
    text.replace("address: 0.0.0.0, port_value: 8080", format!("address: 0.0.0.0, port_value: {port}"));
    text.replace("/etc/envoy/envoy_signalr.wasm", module.clone());
    if settings.pointer("/affinity/keys").is_some() {
        text.replace(
            &format!("host_env_keys: [{VARIABLE}]"),
            format!("host_env_keys: [{}]", variables(settings).join(", ")),
        );
    }
    if *settings != json!({}) {
        const PLACE: &str = "                            {}\n";
        const FIELD: &str = "                        configuration:\n";
        text.replace(FIELD, format!("{}{FIELD}", reasoned.comments(24)));
        let indented =
            format!("{settings:#}").lines().fold(String::new(), |all, line| all + &PLACE.replace("{}", line));
        text.replace(PLACE, indented);
    }
    text.done()
}

fn istio(
    Istio { own, namespace, service, image, selector: (label, value), gateway, api }: &Istio,
    given: Reasoned,
) -> Result<String> {
    let reasoned = own.with_key(Some(VARIABLE), given)?;
    let (plugin, indentation) = match api {
        Api::TrafficExtension => (TRAFFIC_EXTENSION, 4),
        Api::WasmPlugin => (WASM_PLUGIN, 2),
    };
    let (mut plugin, mut steering) = (Text::of(plugin), Text::of(STEERING));
    for text in [&mut plugin, &mut steering] {
        text.replace("namespace: istio-ingress", format!("namespace: {namespace}"));
        text.replace("envoy-signalr/key: present", format!("{}: {}", quoted(label), quoted(value)));
    }
    plugin.replace(&format!("oci://{IMAGE}"), format!("oci://{}", image.trim_start_matches("oci://")));
    steering.replace("hub.default.svc.cluster.local", service.clone());
    if let Some(gateway) = gateway {
        let target =
            format!("  targetRefs: [{{ group: gateway.networking.k8s.io, kind: Gateway, name: {gateway} }}]\n");
        plugin.replace_block("  selector:\n", &target);
        steering.replace_block("  workloadSelector:\n", &target);
    }
    plugin.put_settings("pluginConfig:", indentation, &reasoned);
    let spaces = " ".repeat(indentation + 4);
    plugin.repeat(&format!("{spaces}- name: {VARIABLE}\n{spaces}  valueFrom: HOST\n"), &variables(&reasoned.settings));
    Ok(format!("{}---\n{}", plugin.done()?, steering.done()?))
}

fn envoy_gateway(
    EnvoyGateway { own, namespace, gateway, service: (name, port), image }: &EnvoyGateway,
    given: Reasoned,
) -> Result<String> {
    let reasoned = own.with_key(Some(VARIABLE), given)?;
    let (mut around, mut hubs) = (Text::of(GATEWAY), Text::of(SIGNALR));
    for text in [&mut around, &mut hubs] {
        text.replace("namespace: default", format!("namespace: {namespace}"));
        text.replace("name: gateway }", format!("name: {gateway} }}"));
    }
    around.replace("\n  name: gateway\n", format!("\n  name: {gateway}\n"));
    hubs.replace("{ name: hub, port: 80 }", format!("{{ name: {name}, port: {port} }}"));
    hubs.replace(IMAGE, image.clone());
    hubs.put_settings("config:", 6, &reasoned);
    let variables = variables(&reasoned.settings);
    hubs.replace(&format!("hostKeys: [{VARIABLE}]"), format!("hostKeys: [{}]", variables.join(", ")));
    let from_secret = format!("valueFrom: {{ secretKeyRef: {{ name: signalr-affinity, key: {VARIABLE} }} }}");
    around.repeat(&format!("            - name: {VARIABLE}\n              {from_secret}\n"), &variables);
    Ok(format!("{}---\n{}", around.done()?, hubs.done()?))
}

impl Own {
    /// The settings, those of the options in `given`, with a key of this variable unless they have some.
    fn with_key(&self, variable: Option<&str>, mut given: Reasoned) -> Result<Reasoned> {
        if let Some(file) = &self.settings {
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            let (_, value) = settings_in(&text, &any_secret)
                .map_err(anyhow::Error::msg)
                .with_context(|| file.display().to_string())?;
            merge(&mut given.settings, value);
        }
        if given.settings.is_null() {
            given.settings = json!({});
        }
        let settings = &mut given.settings;
        if let (Some(variable), true) = (variable, settings.pointer("/affinity/keys").is_none()) {
            settings["affinity"]["keys"] = json!([{ "id": "1", "secret": { "env": variable } }]);
        }
        let hubs = self.hubs.iter().map(|path| json!({ "path": path }));
        if !self.hubs.is_empty() {
            let before = settings["hubs"].as_array().cloned().unwrap_or_default();
            settings["hubs"] = before.into_iter().chain(hubs).collect();
        }
        settings_in(&settings.to_string(), &any_secret).map_err(anyhow::Error::msg)?;
        Ok(given)
    }
}

/// Puts the values of the second into the first, field by field.
fn merge(first: &mut Value, second: Value) {
    match (first, second) {
        (Value::Object(first), Value::Object(second)) => {
            second.into_iter().for_each(|(name, value)| merge(first.entry(name).or_insert(Value::Null), value));
        }
        (_, Value::Null) => {}
        (first, second) => *first = second,
    }
}

/// The variables of the environment that the settings read their keys from.
fn variables(settings: &Value) -> Vec<&str> {
    let keys = settings.pointer("/affinity/keys").and_then(Value::as_array);
    keys.into_iter().flatten().filter_map(|key| key.pointer("/secret/env")?.as_str()).collect()
}

/// A shipped file on its way to an installation.
struct Text {
    text: String,
    missing: Vec<String>,
}

impl Text {
    fn of(shipped: &str) -> Self {
        let unmarked = |line: &str| {
            let mark = MARKS.iter().filter_map(|mark| line.find(mark)).min();
            format!("{}\n", mark.map_or(line, |mark| line.get(..mark).unwrap_or(line)))
        };
        Self { text: shipped.lines().map(unmarked).collect(), missing: Vec::new() }
    }

    fn replace(&mut self, from: &str, to: String) {
        if !self.text.contains(from) {
            self.missing.push(from.to_owned());
        }
        self.text = self.text.replace(from, &to);
    }

    /// Repeats lines that are for the variable of the shipped file, for each of these.
    fn repeat(&mut self, lines: &str, variables: &[&str]) {
        self.replace(lines, variables.iter().map(|variable| lines.replace(VARIABLE, variable)).collect());
    }

    /// Replaces a line and the lines below it that are indented further.
    fn replace_block(&mut self, first: &str, to: &str) {
        let indentation = first.len() - first.trim_start().len();
        let Some((before, after)) = self.text.split_once(first) else { return self.missing.push(first.to_owned()) };
        let is_inside = |line: &&str| line.trim().is_empty() || line.len() - line.trim_start().len() > indentation;
        let inside: usize = after.split_inclusive('\n').take_while(is_inside).map(str::len).sum();
        self.text = [before, to, after.get(inside..).unwrap_or_default()].concat();
    }

    /// The settings below a field, unless they are those of the shipped file.
    fn put_settings(&mut self, field: &str, indentation: usize, reasoned: &Reasoned) {
        if reasoned.settings != json!({ "affinity": { "keys": [{ "id": "1", "secret": { "env": VARIABLE } }] } }) {
            let first = format!("{}{field}\n", " ".repeat(indentation));
            self.replace_block(&first, &format!("{first}{}", reasoned.yaml(indentation + 2)));
        }
    }

    fn done(self) -> Result<String> {
        ensure!(
            self.missing.is_empty(),
            "a shipped file lacks {:?}: this program and its files do not fit",
            self.missing
        );
        Ok(self.text)
    }
}

/// A label as YAML, which would read `true` or `1` otherwise than it is meant.
fn quoted(text: &str) -> String {
    let plain = text.contains('/') || text == "present";
    if plain { text.to_owned() } else { Value::from(text).to_string() }
}

fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let (host, port) = text.rsplit_once(':').ok_or("write it as HOST:PORT")?;
    let port = port.parse().map_err(|_| format!("`{port}` is no port"))?;
    if host.is_empty() { Err("the host is missing".to_owned()) } else { Ok((host.to_owned(), port)) }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::check::warnings_of;

    #[derive(Parser)]
    struct Program {
        #[command(subcommand)]
        render: Render,
    }

    fn rendered(arguments: &str) -> Result<String> {
        let words = ["render"].into_iter().chain(arguments.split(' '));
        text(&Program::try_parse_from(words).unwrap().render, Reasoned::default())
    }

    #[test]
    fn defaults_are_the_shipped_files() {
        let unmarked = |text: &str| {
            let lines = text.lines().map(|line| MARKS.iter().fold(line, |line, mark| line.split(mark).next().unwrap()));
            lines.map(|line| format!("{line}\n")).collect::<String>()
        };
        assert_eq!(rendered("envoy").unwrap(), ENVOY);
        for (arguments, files) in [
            ("istio", [TRAFFIC_EXTENSION, STEERING]),
            ("istio --api wasm-plugin", [WASM_PLUGIN, STEERING]),
            ("envoy-gateway", [GATEWAY, SIGNALR]),
        ] {
            assert_eq!(rendered(arguments).unwrap(), files.map(unmarked).join("---\n"), "{arguments}");
        }
    }

    #[test]
    fn with_options_no_line_is_left_to_change_and_the_check_is_content() {
        const DIGEST: &str = "--image r.example.net/a@sha256:0123";
        for (arguments, expected) in [
            (
                "envoy --hub /chat --hub /news --key KEY --upstream pods.internal:5000 --port 80 --module /m.wasm"
                    .to_owned(),
                &["pods.internal, port_value: 5000", "0.0.0.0, port_value: 80 ", "host_env_keys: [KEY]", "/m.wasm"][..],
            ),
            (
                format!("istio {DIGEST} --hub /chat --namespace gateways --service a.b.svc --selector app=true"),
                &[
                    "namespace: gateways",
                    "service: a.b.svc",
                    "url: oci://r.example.net/a@sha256:0123",
                    "\"app\": \"true\"",
                ],
            ),
            (
                format!("istio {DIGEST} --gateway edge"),
                &["targetRefs: [{ group: gateway.networking.k8s.io, kind: Gateway, name: edge }]"],
            ),
            (
                format!("envoy-gateway {DIGEST} --hub /chat --namespace chat --gateway edge --service pods:81"),
                &[
                    "namespace: chat",
                    "\n  name: edge\n",
                    "parentRefs: [{ name: edge }]",
                    "{ name: pods, port: 81 }",
                    "url: r.example.net/a@sha256:0123",
                ],
            ),
        ] {
            let text = rendered(&arguments).unwrap();
            assert_eq!(warnings_of(&text), [""; 0], "{arguments}");
            for part in expected.iter().chain(arguments.contains("/chat").then_some(&"/chat")) {
                assert!(text.contains(part), "{arguments}: {part}\n{text}");
            }
            for part in MARKS.iter().chain(&["registry.example.com", "namespace: default"]) {
                assert!(!text.contains(part), "{arguments}: {part}");
            }
        }
    }

    #[test]
    fn settings_are_put_in_whole_and_judged_first() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("settings.yaml");
        let with = |settings: &str, target: &str| {
            fs::write(&file, settings).unwrap();
            rendered(&format!("{target} --settings {}", file.display()))
        };
        let limits =
            "limits: { connections: { per_client: 20 }, client: { exempt: [10.0.0.0/8] } }\nhubs: [{ path: /a }]";
        for target in ["envoy --key KEY --hub /b", "istio --hub /b", "envoy-gateway --hub /b"] {
            let text = with(limits, target).unwrap();
            let (settings, _) = settings_in(&text, &|_| None).unwrap();
            assert_eq!(settings.limits.per_client.map(|limit| format!("{limit:?}")).as_deref(), Some("20"), "{text}");
            assert!(["/a", "/b"].iter().all(|path| settings.hubs.listed(path.as_bytes()).is_some()), "{text}");
        }
        let keys = "affinity: { keys: [{ id: b, secret: { env: NEW } }, { id: a, secret: { env: OLD } }] }";
        for (target, expected) in [
            ("envoy", "host_env_keys: [NEW, OLD]"),
            ("istio", "- name: OLD\n          valueFrom: HOST"),
            ("envoy-gateway", "key: OLD } }"),
        ] {
            let text = with(keys, target).unwrap();
            assert!(text.contains(expected) && !text.contains("name: SIGNALR_AFFINITY_KEY"), "{target}: {text}");
            assert_eq!(warnings_of(&text), [""; 0], "{target}");
        }
        let refused = with("limits: {}", "istio").unwrap_err();
        assert!(format!("{refused:#}").contains("limits: sets no limit"), "{refused:#}");
    }
}
