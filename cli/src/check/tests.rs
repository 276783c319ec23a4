use std::fs;

use envoy_signalr::settings::OWN_SECRET_WARNING;
use serde_json::Value;

use super::*;

/// What is said of a file, without a variable in the environment.
fn said(text: &str) -> Vec<String> {
    check(text, Alone::Always, &|_| None).iter().map(Finding::to_string).collect()
}

/// The texts of its warnings.
fn warnings(text: &str) -> Vec<String> {
    let findings = check(text, Alone::Always, &|_| None);
    let refused: Vec<_> = findings.iter().filter(|finding| finding.is_error()).collect();
    assert!(refused.is_empty(), "{refused:?}");
    findings.into_iter().filter(|finding| finding.level == Level::Warning).map(|finding| finding.text).collect()
}

fn file(name: &str) -> String {
    fs::read_to_string(testbed::workspace().join(name)).unwrap()
}

const KEY: &str = r#""affinity": {"keys": [{"id": "1", "secret": {"value": "0123456789abcdef0123456789abcdef"}}]}"#;

/// A bootstrap with these settings of the filter, and of the HTTP connection manager.
fn bootstrap(manager: &str, settings: &str) -> String {
    let value = Value::from(settings);
    let configuration = format!(r#"{{"@type": "google.protobuf.StringValue", "value": {value}}}"#);
    let upgrades = r#""upgrade_configs": [{"upgrade_type": "websocket"}]"#;
    let session = r#"{"name": "envoy.filters.http.stateful_session"}"#;
    format!(
        r#"{{"static_resources": {{"typed_config": {{{manager} {upgrades},
            "http_filters": [{{"vm_config": {{}}, "configuration": {configuration}}}, {session}]}}}}}}"#
    )
}

/// The shipped bootstrap with other settings of the filter, and with one text in the place of another.
fn shipped(settings: &str, from: &str, to: &str) -> String {
    let text = file("envoy/envoy.yaml")
        .replace("                            {}\n", &format!("                            {settings}\n"));
    assert!(text.contains(settings) && text.contains(from), "{settings} {from}");
    text.replacen(from, to, 1)
}

#[test]
fn only_variables_that_the_file_passes_on_count() {
    const SETTINGS: &str = r#"{"affinity": {"keys": [{"id": "1", "secret": {"env": "SECRET"}}]}}"#;
    const UNSEEN: &str = " ok; SECRET comes from the gateway's environment: not checked";
    let istio = |kind: &str, env: &str| {
        let plugin = format!("{{ url: signalr, vmConfig: {{ env: [{env}] }}, pluginConfig: {SETTINGS} }}");
        let spec = if kind == "WasmPlugin" { plugin } else { format!("{{ wasm: {plugin} }}") };
        format!("apiVersion: extensions.istio.io/v1alpha1\nkind: {kind}\nspec: {spec}")
    };
    let envoy = |variables: &str| {
        let value = Value::from(SETTINGS);
        format!(
            r#"{{ vm_config: {{{variables}}}, configuration: {{ "@type": google.protobuf.StringValue, value: {value} }} }}"#
        )
    };
    let in_envoy = |variables: &str| format!("plugin: {}", envoy(variables));
    let gateway = |env: &str| {
        format!(
            "kind: EnvoyExtensionPolicy\napiVersion: v1alpha1\nspec: {{ wasm: [{{ name: signalr, {env} config: {SETTINGS} }}] }}"
        )
    };
    let plain = "0123456789abcdef0123456789abcdef";
    for (name, text, expected) in [
        ("WasmPlugin, from the host", istio("WasmPlugin", "{ name: SECRET, valueFrom: HOST }"), Ok(UNSEEN)),
        ("TrafficExtension, from the host", istio("TrafficExtension", "{ name: SECRET, valueFrom: HOST }"), Ok(UNSEEN)),
        ("WasmPlugin, inline", istio("WasmPlugin", &format!("{{ name: SECRET, value: {plain} }}")), Ok(" ok")),
        (
            "WasmPlugin, another",
            istio("WasmPlugin", "{ name: OTHER, valueFrom: HOST }"),
            Err("add `- { name: SECRET, valueFrom: HOST }` to `vmConfig.env`"),
        ),
        (
            "TrafficExtension, none",
            istio("TrafficExtension", ""),
            Err("add `- { name: SECRET, valueFrom: HOST }` to `vmConfig.env`"),
        ),
        ("Envoy, from the host", in_envoy(" environment_variables: { host_env_keys: [SECRET] } "), Ok(UNSEEN)),
        (
            "Envoy, by value",
            in_envoy(&format!(" environment_variables: {{ key_values: {{ SECRET: {plain} }} }} ")),
            Ok(" ok"),
        ),
        ("Envoy, none", in_envoy(""), Err("add `environment_variables: { host_env_keys: [SECRET] }` to `vm_config`")),
        (
            "Envoy, in its other spelling",
            in_envoy(" environmentVariables: { hostEnvKeys: [SECRET] } ").replace("vm_config", "vmConfig"),
            Ok(UNSEEN),
        ),
        ("Envoy Gateway, from the host", gateway("env: { hostKeys: [SECRET] },"), Ok(UNSEEN)),
        ("Envoy Gateway, none", gateway(""), Err("add `env: { hostKeys: [SECRET] }` beside `config`")),
    ] {
        // What the shell has is of no account.
        let findings: Vec<_> =
            check(&text, Alone::Always, &|_| Some(plain.to_owned())).iter().map(Finding::to_string).collect();
        match expected {
            Ok(line) => assert_eq!(findings, [line], "{name}"),
            Err(line) => {
                let [refused, note] = findings.as_slice() else { panic!("{name}: {findings:?}") };
                assert!(
                    refused.contains(
                        ": configuration refused: affinity.keys[0].secret.env: environment variable `SECRET`"
                    ),
                    "{name}: {refused}"
                );
                assert!(note.ends_with(&format!(": note: {line}")), "{name}: {note}");
            }
        }
    }
    let by_itself = check(SETTINGS, Alone::Always, &|name| (name == "SECRET").then(|| plain.to_owned()));
    assert_eq!(by_itself.iter().map(Finding::to_string).collect::<Vec<_>>(), [" ok"]);
}

#[test]
fn a_plugin_is_found_wherever_it_stands() {
    let listener = file("envoy/envoy.yaml");
    let from = |start: &str, end: &str| {
        let (_, rest) = listener.split_once(start).unwrap();
        let indent = start.len() - start.trim_start().len();
        let text = format!("{start}{}", rest.split_once(end).unwrap().0);
        text.lines().map(|line| line.get(indent..).unwrap_or_default().to_owned() + "\n").collect::<String>()
    };
    let filter = from("                  - name: signalr\n", "                  # Sends a request");
    let plugin = file("tests/configs/accepted/wasm_plugin.yaml");
    let lines: Vec<_> = plugin.lines().filter(|line| !line.starts_with('#')).collect();
    let list = format!("kind: List\napiVersion: v1\nitems:\n- {}", lines.join("\n  "));
    let service = "kind: Service\napiVersion: v1\nmetadata: { name: hub }\n";
    for (name, text) in [
        ("a listener", from("    - name: signalr\n", "  clusters:\n")),
        ("a filter", filter.clone()),
        ("two documents", format!("{service}---\n{plugin}")),
        ("what kubectl prints", list),
        ("settings in YAML", "hubs: [{ path: /chat }]\n".to_owned()),
        ("settings in JSON", r#"{"hubs": [{"path": "/chat"}]}"#.to_owned()),
        ("no settings", String::new()),
    ] {
        let said = said(&text);
        assert!(said.iter().any(|line| line.starts_with(" ok")), "{name}: {said:?}");
    }
    for (name, text) in [
        ("a service", service.to_owned()),
        (
            "an EnvoyFilter that only steers",
            "kind: EnvoyFilter\napiVersion: v1\nspec: { configPatches: [] }".to_owned(),
        ),
        ("a TrafficExtension in Lua", "kind: TrafficExtension\napiVersion: v1\nspec: { lua: {} }".to_owned()),
        ("a patch of a Deployment", "spec: { template: {} }".to_owned()),
        ("a file for Compose", "services: { envoy: {} }".to_owned()),
        ("a comment", "# nothing\n".to_owned()),
        ("a cluster", "clusters: [{ name: hubs, type: STATIC }]".to_owned()),
        ("routes", "- match: { prefix: / }\n  route: { cluster: hubs }\n".to_owned()),
    ] {
        assert_eq!(said(&text), [" nothing to check: no wasm plugin in it"], "{name}");
    }
}

#[test]
fn plugins_of_others_are_left_alone() {
    let text = r#"
- vm_config: { code: { local: { filename: /etc/envoy/waf.wasm } } }
  configuration: { "@type": google.protobuf.StringValue, value: '{"directives": {}}' }
- vm_config: { code: { local: { filename: /etc/envoy/envoy_signalr.wasm } } }
  configuration: { "@type": google.protobuf.StringValue, value: '{"explain": true}' }
"#;
    assert_eq!(said(text)[..2], ["2:3: note: another plugin: not checked", " ok"]);
    assert!(check(&text.replace("envoy_signalr", "renamed"), Alone::Always, &|_| None)[0].is_error());
}

/// Each is a line and a column, so that a reader, and an editor, finds it.
#[test]
fn a_finding_names_its_place() {
    let shipped = |settings: &str| shipped(settings, "", "");
    let line = |text: &str, of: &str| text.lines().position(|line| line.contains(of)).unwrap() + 1;
    let in_text = shipped("{ \"hubs\": [],\n                              \"pin\": {} }");
    let istio = file("tests/configs/accepted/wasm_plugin.yaml").replace("{ id: \"1\"", "{ name: \"1\"");
    for (name, text, of, said_there) in [
        ("in a text", &in_text, "\"pin\": {} }", "configuration refused: pin: unknown field"),
        ("in a resource", &istio, "{ name: \"1\"", "configuration refused: affinity.keys[0].name: unknown field"),
        (
            "by itself",
            &"hubs:\n  - path: /a\n  - path: b\n".to_owned(),
            "path: b",
            "configuration refused: hubs[1].path: `b` is not a path",
        ),
        ("neither", &"hubs:\n  - path: [\n".to_owned(), "path: [", "error: neither JSON nor YAML"),
        (
            "protobuf",
            &shipped("{}").replace("google.protobuf.StringValue", "google.protobuf.Struct"),
            "configuration:",
            "error: the plugin's configuration has the type",
        ),
    ] {
        let said = said(text);
        // An unclosed bracket is noticed at the end.
        let lines = if name == "neither" { vec![2, 3] } else { vec![line(text, of)] };
        let first = said.first().unwrap();
        assert!(
            lines.iter().any(|line| first.starts_with(&format!("{line}:"))) && first.contains(said_there),
            "{name}: {said:?}"
        );
    }
}

#[test]
fn what_makes_the_filter_useless_in_silence_is_warned_of() {
    let session = "                  - name: envoy.filters.http.stateful_session\n";
    let text = file("envoy/envoy.yaml");
    let (before, rest) = text.split_once("                  - name: signalr\n").unwrap();
    let (ours, rest) = rest.split_once("                  # Sends a request").unwrap();
    let (other, after) = rest.split_once("                  - name: envoy.filters.http.router\n").unwrap();
    let router = "                  - name: envoy.filters.http.router\n";
    let turned =
        format!("{before}                  # Sends{other}                  - name: signalr\n{ours}{router}{after}");
    let without = format!("{before}                  - name: signalr\n{ours}{router}{after}");
    let listed = r#"{"hubs": [{"path": "/chat"}]}"#;
    let negotiate = "                        - match: { prefix: / }\n";
    let short = "                        - match: { safe_regex: { regex: '.*/negotiate' } }\n                          route: { cluster: hubs, timeout: 3s }\n";
    let other = "                        - match: { prefix: /api }\n                          route: { cluster: hubs, timeout: 3s }\n";
    let marked = "                        - match: { prefix: /, headers: [{ name: x-mark }] }\n                          route: { cluster: hubs, timeout: 0s }\n";
    let canary = "                        - match: { prefix: /chat, headers: [{ name: x-cluster }] }\n                          route: { cluster: hubs }\n";
    let cluster = r#"{"hubs": [{"path": "/chat"}], "affinity": {"cluster_header": "x-cluster"}}"#;
    let mark = r#"{"affinity": {"client_cookie": {"enabled": true, "mark": "x-mark"}}}"#;
    let timeout = "                            timeout: 0s\n";
    let eds = |status: &str| shipped("{}", "type: STRICT_DNS", "type: EDS").replace(", DRAINING]", status);
    for (name, text, expected) in [
        ("no session filter", without, Some(("nothing sends a request", "- name: signalr"))),
        ("the session filter first", turned, Some(("runs before the filter", session.trim()))),
        (
            "another header",
            shipped("{}", "name: x-signalr-pin", "name: x-other"),
            Some(("reads the header `x-other`", session.trim())),
        ),
        (
            "another pin",
            shipped(r#"{"affinity": {"pin": {"header": "x-own"}}}"#, "", ""),
            Some(("the pod in `x-own`", session.trim())),
        ),
        (
            "a cookie",
            shipped("{}", "header.v3.HeaderBasedSessionState", "cookie.v3.CookieBasedSessionState"),
            Some(("reads no header", session.trim())),
        ),
        ("the pin's name in capitals", shipped("{}", "name: x-signalr-pin", "name: X-SignalR-Pin"), None),
        (
            "no upgrades",
            shipped("{}", "upgrade_configs: [{ upgrade_type: websocket }]", ""),
            Some(("403", "typed_config:")),
        ),
        (
            "other upgrades",
            shipped("{}", "upgrade_type: websocket", "upgrade_type: connect-udp"),
            Some(("403", "typed_config:")),
        ),
        (
            "upgrades off",
            shipped("{}", "upgrade_type: websocket", "upgrade_type: websocket, enabled: false"),
            Some(("403", "typed_config:")),
        ),
        ("the default time-out", shipped("{}", timeout, ""), Some(("after 15 s", "- match: { prefix: / }"))),
        (
            "a time-out",
            shipped(listed, timeout, "                            timeout: 60s\n"),
            Some(("after 60 s", "- match: { prefix: / }")),
        ),
        ("a time-out of negotiates", shipped("{}", negotiate, &format!("{short}{negotiate}")), None),
        ("a time-out of another path", shipped(listed, negotiate, &format!("{other}{negotiate}")), None),
        ("another path, hubs not listed", shipped("{}", negotiate, &format!("{other}{negotiate}")), None),
        (
            "a version cut",
            shipped(cluster, negotiate, &format!("{canary}{negotiate}")),
            Some(("after 15 s", "x-cluster }] }")),
        ),
        (
            "a cluster that no route reads",
            shipped(cluster, "", ""),
            Some(("no route matches `x-cluster`", "cluster_header")),
        ),
        ("a mark that no route reads", shipped(mark, "", ""), Some(("no route matches `x-mark`", "\"mark\""))),
        ("a mark that a route reads", shipped(mark, negotiate, &format!("{marked}{negotiate}")), None),
        (
            "plain for nobody",
            shipped(r#"{"affinity": {"pin": {"encoding": "plain"}}}"#, "", ""),
            Some(("nothing reads `x-signalr-pin`", "\"encoding\"")),
        ),
        ("discovery that keeps nobody", eds("]"), Some(("a pod that drains", "- name: hubs"))),
        ("discovery that keeps pods", eds(", DRAINING]"), None),
    ] {
        let findings = check(&text, Alone::Always, &|_| None);
        let mut found =
            findings.iter().filter(|finding| finding.level != Level::Accepted && finding.text != OWN_SECRET_WARNING);
        match (expected, found.next()) {
            (None, None) => {}
            (Some((expected, place)), Some(finding)) => {
                assert!(finding.text.contains(expected), "{name}: {finding}");
                let line = finding.place.unwrap().line;
                let line = text.lines().nth(line - 1).unwrap();
                assert!(line.contains(place), "{name}: {finding} at {line}");
            }
            (_, found) => panic!("{name}: {found:?}"),
        }
        assert_eq!(found.next(), None, "{name}");
    }
}

/// What users copy is right, and is found right.
#[test]
fn the_files_and_samples_of_the_repository_have_no_error() {
    let files = [
        "README.md",
        "envoy/README.md",
        "istio/README.md",
        "envoy-gateway/README.md",
        "docs/configuration.md",
        "docs/limits.md",
    ];
    let samples = files.map(|file| testbed::docs::blocks(file, "yaml")).concat();
    assert!(samples.len() > 25, "{}", samples.len());
    for sample in samples {
        let secret = |_: &str| Some("0123456789abcdef0123456789abcdef".to_owned());
        let findings = check(&sample, Alone::Always, &secret);
        assert!(!findings.iter().any(Finding::is_error), "{sample}{findings:?}");
    }
}

#[test]
fn limits_without_what_they_rest_on_are_warned_of() {
    let plugin = format!(r#"{{"hubs": HUBS, {KEY}, "limits": {{"connections": {{"per_client": 1}}}}}}"#);
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
    let settings = format!(
        r#"{{"hubs": [{{"path": "/chat"}}], {KEY}, "limits": {{"client": {{"key": OWN}}, "connections": {{"per_client": 1}}}}}}"#
    );
    let skips = r#""use_remote_address": true, "skip_xff_append": true, "normalize_path": true,"#;
    let adds = r#""use_remote_address": true, "normalize_path": true,"#;
    let address = r#"{"header": "X-Forwarded-For", "as": "address"}"#;
    for (name, manager, key, expected) in [
        ("Envoy adds none", skips, address, vec![]),
        ("Envoy adds the proxy", adds, address, vec!["skip_xff_append"]),
        ("another header", adds, r#"{"header": "cf-connecting-ip", "as": "address"}"#, vec![]),
        ("the list as it stands", skips, r#"{"header": "x-forwarded-for"}"#, vec![r#""as": "address""#]),
    ] {
        let got = warnings(&bootstrap(manager, &settings.replace("OWN", key)));
        assert_eq!(got.len(), expected.len(), "{name}: {got:?}");
        assert!(got.iter().zip(expected).all(|(got, expected)| got.contains(expected)), "{name}: {got:?}");
    }
}

#[test]
fn a_client_cookie_that_leads_to_draining_pods_is_warned_of() {
    let text = file("envoy/envoy.yaml");
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
        let of_it = got.iter().filter(|warning| warning.contains("draining pods"));
        assert_eq!(of_it.count(), expected, "{name}: {got:?}");
    }
}

#[test]
fn a_buffer_that_holds_websockets_back_is_warned_of() {
    let kind = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3";
    let shipped = file("envoy/envoy.yaml");
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
    assert_eq!(warnings(&file("envoy/envoy.yaml")), [OWN_SECRET_WARNING]);
}

/// The shipped bootstrap on the routes of hubs alone, with these settings and one text in the place of another,
/// so many times.
fn restricted(settings: &str, times: usize, from: &str, to: &str) -> Vec<String> {
    let mut bootstrap = document::read(&shipped(settings, "", "")).unwrap().remove(0).value;
    testbed::envoy::restrict_to_hub_routes(&mut bootstrap);
    let text = bootstrap.to_string();
    assert!(text.contains(from), "{from}");
    let findings = said(&text.replacen(from, to, times)).into_iter();
    findings.filter(|finding| finding.contains(" turn") || finding.contains("some routes only")).collect()
}

#[test]
fn a_filter_that_is_off_is_on_again_wherever_it_is_needed() {
    const SESSION: &str = r#""envoy.filters.http.stateful_session":{"#;
    let keyed = format!("{{{KEY}}}");
    assert_eq!(restricted(&keyed, 0, "", ""), [""; 0]);
    let cookie = r#"{"affinity": {"client_cookie": {"enabled": true, "paths": ["/"]}}}"#;
    for (settings, times, from, to, expected) in [
        (&*keyed, 2, "typed_per_filter_config", "ignored", "`signalr` is off, and no route turns it on"),
        (&keyed, 2, SESSION, r#""other":{"#, "`envoy.filters.http.stateful_session` is off, and no route turns it on"),
        (
            &keyed,
            1,
            SESSION,
            r#""other":{"#,
            "a route turns on one of `signalr` and `envoy.filters.http.stateful_session`",
        ),
        (cookie, 0, "", "", "`affinity.client_cookie.paths`, and `/_blazor`, need it, too"),
    ] {
        let findings = restricted(settings, times, from, to);
        assert!(matches!(&findings[..], [finding] if finding.contains(expected)), "{expected}: {findings:?}");
    }
}

#[test]
fn labels_that_stay_in_names_are_noted() {
    let noted =
        |text: &str| said(text).iter().any(|finding| finding.contains("note: labels stay in the names of metrics"));
    assert!(!noted(&file("envoy/envoy.yaml")));
    assert!(noted(&file("envoy/envoy.yaml").replace("tag_name: signalr_", "tag_name: other_")));
    assert!(!noted(&format!("{{{KEY}}}")));
}

/// Cuts, repeats and swaps parts of real files, as wrong edits and hostile files do.
#[test]
fn no_text_makes_it_panic() {
    let mut random = fastrand::Rng::with_seed(7);
    let folders =
        ["envoy", "istio/filter/wasm-plugin", "envoy-gateway", "tests/configs/accepted", "tests/configs/refused"];
    let files = folders.iter().flat_map(|folder| fs::read_dir(testbed::workspace().join(folder)).unwrap());
    let texts: Vec<String> = files.filter_map(|file| fs::read_to_string(file.unwrap().path()).ok()).collect();
    let odd = [
        "{",
        "}",
        "[",
        "]",
        "- ",
        ": ",
        "&a ",
        "*a",
        "!!int ",
        "|\n",
        "\"",
        "\u{0}",
        "é",
        "1e999",
        "\t",
        "---\n",
        "kind: List\n",
    ];
    assert!(texts.len() > 100, "{}", texts.len());
    for _ in 0..3_000 {
        let text = &texts[random.usize(..texts.len())];
        let mut cuts: Vec<usize> =
            (0..3).map(|_| random.usize(..=text.len())).map(|at| text.floor_char_boundary(at)).collect();
        cuts.sort_unstable();
        let (start, middle, end) = (&text[..cuts[0]], &text[cuts[0]..cuts[1]], &text[cuts[2]..]);
        let odd = odd[random.usize(..odd.len())];
        for changed in
            [format!("{start}{odd}{end}"), format!("{start}{middle}{middle}{end}"), format!("{middle}{odd}{start}")]
        {
            said(&changed);
            let _ = settings_in(&changed, &|_| None);
        }
    }
}
