//! What resources of Kubernetes rest on that stand in other documents: a plugin of Istio on the EnvoyFilter that steers, a policy of
//! Envoy Gateway on its HTTPRoute. All files of one call are looked at together.
//!
//! Only what is there is judged. Of a resource that stands alone it is noted what could not be seen.

use envoy_signalr::settings::Settings;
use serde_json::Value;

use super::document::Document;
use super::finding::{Finding, Level};
use super::plugin::{self, Alone, Plugin};
use super::surroundings::filters::{Reads, reads};
use super::surroundings::items;
use super::{Lookup, document, verdict};

/// The pin header where no settings can be read.
const DEFAULT_PIN: &str = "x-signalr-pin";

/// A resource, and the file that it stands in.
#[derive(Clone, Copy)]
struct Resource<'a> {
    file: usize,
    document: &'a Document,
}

impl<'a> Resource<'a> {
    fn is(self, kind: &str) -> bool {
        self.document.value.get("kind").is_some_and(|own| own == kind)
    }

    fn at(self, pointer: &str) -> Option<&'a Value> {
        self.document.value.pointer(pointer)
    }

    fn name(self) -> &'a str {
        self.at("/metadata/name").and_then(Value::as_str).unwrap_or_default()
    }

    fn finding(self, level: Level, pointer: &str, text: impl Into<String>) -> (usize, Finding) {
        let place = self.document.place(pointer).or_else(|| self.document.place("/kind"));
        (self.file, Finding::new(level, place, text))
    }

    fn warning(self, pointer: &str, text: impl Into<String>) -> (usize, Finding) {
        self.finding(Level::Warning, pointer, text)
    }
}

/// A resource with our plugin, and the settings in it.
struct Ours<'a> {
    resource: Resource<'a>,
    plugin: Plugin<'a>,
    settings: Settings,
}

/// What there is to say of files with these texts as a whole, each with the number of its file.
pub(super) fn check(texts: &[&str], environment: Lookup<'_>) -> Vec<(usize, Finding)> {
    let documents: Vec<Vec<Document>> = texts.iter().map(|text| document::read(text).unwrap_or_default()).collect();
    let resources: Vec<Resource<'_>> = documents
        .iter()
        .enumerate()
        .flat_map(|(file, documents)| documents.iter().map(move |document| Resource { file, document }))
        .filter(|resource| resource.at("/metadata/name").is_some())
        .collect();
    let mut findings = Vec::new();
    let ours: Vec<Ours<'_>> = resources.iter().filter_map(|resource| ours(*resource, environment)).collect();
    for ours in &ours {
        match ours.resource.at("/kind").and_then(Value::as_str) {
            Some("WasmPlugin" | "TrafficExtension") => findings.extend(istio(ours, &resources)),
            Some("EnvoyExtensionPolicy") => findings.extend(envoy_gateway(ours, &resources)),
            _ => {}
        }
    }
    if ours.is_empty() {
        let steering = resources.iter().filter(|resource| steers(**resource).any(|header| header == Some(DEFAULT_PIN)));
        findings.extend(steering.map(|resource| {
            resource.warning(
                "/spec",
                "without the filter this shows the pods' addresses to clients, and lets them choose a pod: apply it together with \
                 the filter",
            )
        }));
    }
    findings
}

fn ours<'a>(resource: Resource<'a>, environment: Lookup<'_>) -> Option<Ours<'a>> {
    let plugins = plugin::find(resource.document, Alone::IfKnown, &mut Vec::new());
    let plugin = plugins.into_iter().find(|plugin| plugin.bears_our_name() || resource.name().contains("signalr"))?;
    let settings = verdict::of(&plugin, environment, false).1?;
    Some(Ours { resource, plugin, settings })
}

/// The headers that an EnvoyFilter's `stateful_session` reads; `None` for one that reads something else.
fn steers<'a>(resource: Resource<'a>) -> impl Iterator<Item = Option<&'a str>> {
    let patches = resource.at("/spec").filter(|_| resource.is("EnvoyFilter"));
    let values = patches
        .into_iter()
        .flat_map(|spec| items(spec, "configPatches"))
        .filter_map(|patch| patch.pointer("/patch/value"));
    values.filter_map(|filter| match reads(filter)? {
        Reads::Header(name) => Some(Some(name)),
        Reads::Other => Some(None),
        Reads::Unseen => None,
    })
}

fn istio(Ours { resource, plugin, settings }: &Ours<'_>, all: &[Resource<'_>]) -> Vec<(usize, Finding)> {
    let mut findings = Vec::new();
    let pin = settings.pin.header.as_str();
    let field = |name: &str| resource.at(&format!("{}/{name}", plugin.pointer)).and_then(Value::as_str);
    if field("failStrategy") == Some("FAIL_OPEN") {
        let text = format!(
            "a client can choose its pod by writing `{pin}` when the filter has failed: set `failStrategy: FAIL_RELOAD`"
        );
        findings.push(resource.warning(&format!("{}/failStrategy", plugin.pointer), text));
    }
    if field("url").is_some_and(|url| !url.contains("@sha256:") && !url.starts_with("file:")) {
        let text = "a tag can be moved to another image: name the digest, `@sha256:…`";
        findings.push(resource.finding(Level::Note, &format!("{}/url", plugin.pointer), text));
    }
    if where_it_runs(*resource).is_empty() {
        let text = "without `selector` and `targetRefs` it runs in every proxy of its namespace, sidecars too, and in the root namespace \
                    in every proxy of the mesh";
        findings.push(resource.warning("/spec", text));
    }
    let steering: Vec<_> =
        all.iter().flat_map(|resource| steers(*resource).map(move |header| (*resource, header))).collect();
    if steering.is_empty() {
        let alone = all.len() == 1;
        let text = format!(
            "nothing {}sends a request to the pod that the filter names: it takes an EnvoyFilter that puts `stateful_session` with the \
             header `{pin}` before the router, as istio/filter/steering has",
            if alone { "in this file " } else { "" }
        );
        findings.push(resource.finding(if alone { Level::Note } else { Level::Warning }, "/spec", text));
    }
    for (filter, header) in steering {
        if header.is_none_or(|header| !header.eq_ignore_ascii_case(pin)) {
            let text = format!(
                "`stateful_session` reads another header than `{pin}`, in which the filter names the pod (affinity.pin.header)"
            );
            findings.push(filter.warning("/spec/configPatches", text));
        } else if where_it_runs(filter) != where_it_runs(*resource) {
            let text = format!(
                "it runs in other proxies than `{}`: where the filter is missing, clients see the pods' addresses and can choose a \
                 pod",
                resource.name()
            );
            findings.push(filter.warning("/spec/workloadSelector", text));
        }
    }
    findings
}

/// The proxies that a resource of Istio is for, as text to compare.
fn where_it_runs(resource: Resource<'_>) -> String {
    let places = ["/spec/selector/matchLabels", "/spec/workloadSelector/labels", "/spec/targetRefs", "/spec/targetRef"];
    places.iter().filter_map(|place| resource.at(place)).map(Value::to_string).collect()
}

fn envoy_gateway(Ours { resource, plugin, settings }: &Ours<'_>, all: &[Resource<'_>]) -> Vec<(usize, Finding)> {
    let mut findings = Vec::new();
    let pin = settings.pin.header.as_str();
    if resource.at(&format!("{}/failOpen", plugin.pointer)).is_some_and(|open| open == true) {
        let text =
            format!("a client can choose its pod by writing `{pin}` when the filter has failed: set `failOpen: false`");
        findings.push(resource.warning(&format!("{}/failOpen", plugin.pointer), text));
    }
    let named: Vec<_> = resource.at("/spec").into_iter().flat_map(|spec| items(spec, "targetRefs")).collect();
    let is_target = |route: &&Resource<'_>| {
        route.is("HTTPRoute")
            && route.at("/metadata/namespace") == resource.at("/metadata/namespace")
            && named.iter().any(|target| target.get("name").is_some_and(|name| name == route.name()))
    };
    for route in all.iter().filter(is_target) {
        let rules = route.at("/spec").into_iter().flat_map(|spec| items(spec, "rules"));
        for (index, rule) in rules.enumerate() {
            let pointer = format!("/spec/rules/{index}");
            let session = rule.get("sessionPersistence");
            let reads = |session: &Value| {
                session.get("type").is_some_and(|kind| kind == "Header")
                    && session
                        .get("sessionName")
                        .and_then(Value::as_str)
                        .is_some_and(|name| name.eq_ignore_ascii_case(pin))
            };
            if !session.is_some_and(reads) {
                let text = format!(
                    "nothing sends a request to the pod that the filter names: add `sessionPersistence: {{ type: Header, sessionName: {pin} }}`"
                );
                findings.push(route.warning(&pointer, text));
            }
            let for_negotiates = rule.get("matches").is_some_and(|matches| matches.to_string().contains("negotiate"));
            let lasts =
                rule.pointer("/timeouts/request").and_then(Value::as_str).is_some_and(|time| time.starts_with('0'));
            if !for_negotiates && !lasts {
                let text = "event streams and long polls are cut by Envoy's default time-out of 15 s: set `timeouts: { request: 0s }`";
                findings.push(route.warning(&pointer, text));
            }
        }
    }
    let comes_first = |order: &Value| {
        let names =
            |name: &str, value: &str| order.get(name).and_then(Value::as_str).is_some_and(|own| own.ends_with(value));
        (names("name", ".wasm") && names("before", ".stateful_session"))
            || (names("name", ".stateful_session") && names("after", ".wasm"))
    };
    let proxies: Vec<_> = all.iter().filter(|resource| resource.is("EnvoyProxy")).collect();
    let orders =
        |proxy: &&Resource<'_>| proxy.at("/spec").is_some_and(|spec| items(spec, "filterOrder").any(comes_first));
    if let (Some(proxy), false) = (proxies.first(), proxies.iter().copied().any(|proxy| orders(&proxy))) {
        let text = "`stateful_session` runs before the filter, and so never sees the pod that the filter names: add `filterOrder: [{ name: \
                    envoy.filters.http.wasm, before: envoy.filters.http.stateful_session }]`";
        findings.push(proxy.warning("/spec", text));
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn said(texts: &[String]) -> Vec<String> {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        check(&texts, &|_| None).into_iter().map(|(file, finding)| format!("{file}:{finding}")).collect()
    }

    fn file(name: &str) -> String {
        fs::read_to_string(testbed::workspace().join(name)).unwrap()
    }

    const DIGEST: &str = "note: a tag can be moved to another image: name the digest, `@sha256:…`";

    #[test]
    fn shipped_files_get_a_note_on_their_tag_and_no_more() {
        for files in [
            ["istio/filter/wasm-plugin/wasm-plugin.yaml", "istio/filter/steering/envoy-filter.yaml"],
            ["istio/filter/traffic-extension/traffic-extension.yaml", "istio/filter/steering/envoy-filter.yaml"],
        ] {
            let said = said(&files.map(file));
            assert!(matches!(&said[..], [note] if note.ends_with(DIGEST)), "{said:?}");
        }
        assert_eq!(said(&["envoy-gateway/signalr.yaml", "envoy-gateway/gateway.yaml"].map(file)), [""; 0]);
    }

    #[test]
    fn what_makes_the_filter_useless_is_warned_of() {
        let istio = ["istio/filter/wasm-plugin/wasm-plugin.yaml", "istio/filter/steering/envoy-filter.yaml"];
        let gateway = ["envoy-gateway/signalr.yaml", "envoy-gateway/gateway.yaml"];
        for (files, changed, from, to, expected) in [
            (istio, 0, "FAIL_RELOAD", "FAIL_OPEN", "0:17:3: warning: a client can choose its pod"),
            (istio, 0, "  selector:\n    matchLabels:", "  other:\n    labels:", "warning: without `selector`"),
            (istio, 1, "name: x-signalr-pin", "name: x-pin", "warning: `stateful_session` reads another header"),
            (
                istio,
                1,
                "envoy-signalr/key: present",
                "app: gateway",
                "warning: it runs in other proxies than `signalr`",
            ),
            (
                istio,
                1,
                "stateful_session.v3.StatefulSession",
                "lua.v3.Lua",
                "warning: nothing sends a request to the pod",
            ),
            (gateway, 0, "failOpen: false", "failOpen: true", "warning: a client can choose its pod"),
            (gateway, 0, "sessionName: x-signalr-pin", "sessionName: x-pin", "add `sessionPersistence: {"),
            (gateway, 0, "request: 0s", "request: 15s", "warning: event streams and long polls are cut"),
            (
                gateway,
                1,
                "before: envoy.filters.http.stateful_session",
                "before: other",
                "warning: `stateful_session` runs before",
            ),
        ] {
            let mut texts = files.map(file);
            assert!(texts[changed].contains(from), "{from}");
            texts[changed] = texts[changed].replace(from, to);
            let said = said(&texts);
            assert!(said.iter().any(|finding| finding.contains(expected)), "{expected}: {said:#?}");
        }
    }

    #[test]
    fn steering_alone_is_warned_of() {
        let said = said(&[file("istio/filter/steering/envoy-filter.yaml")]);
        assert!(
            said.iter().any(|warning| warning.contains("warning: without the filter this shows the pods' addresses")),
            "{said:?}"
        );
    }

    #[test]
    fn of_a_plugin_alone_it_is_noted_what_is_not_seen() {
        let said = said(&[file("istio/filter/wasm-plugin/wasm-plugin.yaml")]);
        assert!(
            said.iter().any(|note| note.contains("note: nothing in this file sends a request to the pod")),
            "{said:?}"
        );
    }
}
