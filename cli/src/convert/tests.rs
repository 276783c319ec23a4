//! The inputs of `tests/convert` with what they become. After a change that is meant, `UPDATE_EXPECTED=1 cargo test --package
//! envoy-signalr-cli convert` writes the files anew; look at the difference.

use std::fs;

use clap::Parser;

use super::*;
use crate::check::{any_secret, settings_in, warnings_of};

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    convert: Convert,
}

fn options(arguments: &str) -> Convert {
    Program::try_parse_from(["convert"].into_iter().chain(arguments.split_whitespace())).unwrap().convert
}

/// Each input by its name without what it ends in, with its file and text.
fn inputs() -> Vec<(String, (String, String))> {
    let folder = testbed::workspace().join("tests/convert/inputs");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let input = |file: PathBuf| {
        let part = |part: Option<&std::ffi::OsStr>| part.unwrap().to_str().unwrap().to_owned();
        (part(file.file_stem()), (part(file.file_name()), fs::read_to_string(&file).unwrap()))
    };
    files.into_iter().map(input).collect()
}

#[test]
fn each_input_has_its_settings_and_its_report() {
    let expected = testbed::workspace().join("tests/convert/expected");
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut differ = Vec::new();
    let inputs = inputs();
    for (name, input) in &inputs {
        let Converted { text: settings, lines, .. } = convert(std::slice::from_ref(input), &options("FILE")).unwrap();
        for (file, text) in [("settings.yaml", settings), ("report.txt", report::text(&lines))] {
            let file = expected.join(format!("{name}.{file}"));
            if update {
                fs::write(&file, &text).unwrap();
            } else if fs::read_to_string(&file).ok().as_deref() != Some(&text) {
                differ.push(format!("{}:\n{text}", file.display()));
            }
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    assert!(inputs.len() >= 30, "{}", inputs.len());
}

/// Blocks of docs/migrate that name a file of `tests/convert` are that file.
#[test]
fn the_pages_show_what_the_program_prints() {
    let folder = testbed::workspace().join("docs/migrate");
    let mut blocks = 0;
    for page in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let text = fs::read_to_string(&page).unwrap();
        let mut lines = text.split_inclusive('\n');
        let mut as_files_are = String::new();
        while let Some(line) = lines.next() {
            as_files_are.push_str(line);
            if let Some((_, file)) = line.trim_end().split_once(" tests/convert/").filter(|_| line.starts_with("```")) {
                blocks += 1;
                as_files_are
                    .push_str(&fs::read_to_string(testbed::workspace().join("tests/convert").join(file)).unwrap());
                as_files_are.extend(lines.by_ref().find(|line| line.starts_with("```")));
            }
        }
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&page, as_files_are).unwrap();
        } else {
            assert!(text == as_files_are, "{} does not show what its blocks name", page.display());
        }
    }
    assert!(blocks >= 20, "{blocks}");
}

#[test]
fn manifests_for_each_target_hold_the_settings_and_pass_the_check() {
    const IMAGE: &str = "--image registry.example.net/signalr@sha256:0123";
    for (name, input) in inputs() {
        let input = std::slice::from_ref(&input);
        let expected = convert(input, &options("FILE --hub /chat")).unwrap().text;
        let expected = settings_in(&expected, &|_| None).unwrap().1;
        for target in
            ["envoy -- --key KEY".to_owned(), format!("istio -- {IMAGE}"), format!("envoy-gateway -- {IMAGE}")]
        {
            let Converted { text, .. } = convert(input, &options(&format!("FILE --hub /chat --to {target}"))).unwrap();
            let mut warnings = warnings_of(&text);
            // What a cookie for each client costs, here as before.
            warnings.retain(|warning| !warning.contains("affinity.client_cookie.mark"));
            assert_eq!(warnings, [""; 0], "{name} to {target}\n{text}");
            let mut settings = settings_in(&text, &any_secret).unwrap().1;
            assert!(settings["affinity"].as_object_mut().unwrap().remove("keys").is_some(), "{name} to {target}");
            if settings["affinity"] == serde_json::json!({}) {
                settings.as_object_mut().unwrap().remove("affinity");
            }
            assert_eq!(settings, expected, "{name} to {target}");
        }
    }
}

#[test]
fn every_annotation_label_and_directive_is_in_the_report() {
    for (name, (file, text)) in inputs() {
        let Converted { lines, .. } = convert(&[(file, text.clone())], &options("FILE")).unwrap();
        let reported: std::collections::BTreeSet<_> = lines.iter().map(|line| line.source.place.line).collect();
        let is_one = |line: &str| {
            let line = line.trim().trim_start_matches("- ").trim_matches('"');
            let prefixes = ["nginx.", "traefik.", "haproxy", "ingress.", "cert-manager.io", "istio.io/"];
            let directives = [
                "cookie ",
                "stick",
                "http-request ",
                "tcp-request ",
                "balance ",
                "timeout ",
                "option ",
                "acl ",
                "server",
            ];
            prefixes.iter().any(|prefix| line.starts_with(prefix) && line.contains([':', '=']))
                || (name.starts_with("haproxy-") && directives.iter().any(|directive| line.starts_with(directive)))
        };
        for (index, line) in text.lines().enumerate().filter(|(_, line)| is_one(line)) {
            // A folded text's own lines belong to its name.
            assert!(reported.contains(&(index + 1)), "{name}:{}: {line}", index + 1);
        }
    }
}

#[test]
fn what_is_given_by_hand_counts() {
    let one = |name: &str| inputs().into_iter().find(|(own, _)| own == name).unwrap().1;
    let input = [one("ingress-nginx-persistent")];
    let Converted { text: settings, lines, .. } =
        convert(&input, &options("FILE --no-client-cookie --hub /chat")).unwrap();
    assert!(!settings.contains("client_cookie") && settings.contains("{\"path\":\"/chat\"}"), "{settings}");
    assert!(lines.iter().any(|line| line.text.contains("no cookie is needed")));
    let Converted { text, .. } = convert(&input, &options("FILE --to envoy")).unwrap();
    assert!(text.contains("address: hub, port_value: 8080"), "{text}");
    let error = convert(&input, &options("FILE --hub chat")).err().unwrap();
    assert!(error.to_string().starts_with("--hub: `chat` is not a path"), "{error}");
    let Converted { text, .. } = convert(&input, &options("FILE --to envoy -- --upstream other:1")).unwrap();
    assert!(text.contains("address: other, port_value: 1"), "{text}");
    let Converted { text, .. } = convert(&input, &options("FILE --to istio -- --namespace gateways")).unwrap();
    assert!(text.contains("service: hub.chat.svc.cluster.local") && text.contains("namespace: gateways"), "{text}");
    let error = convert(&input, &options("FILE --to istio -- --nonsense")).err().unwrap();
    assert!(error.to_string().contains("--nonsense"), "{error}");
    let error = convert(&[("a.yaml".to_owned(), "a: 1".to_owned())], &options("FILE")).err().unwrap();
    assert!(error.to_string().starts_with("a.yaml: nothing in it that can be converted"), "{error}");
}

#[test]
fn two_files_give_one_configuration_and_what_differs_is_said() {
    let limit = |most: u32| ingress(&format!("nginx.ingress.kubernetes.io/limit-connections: \"{most}\""));
    let files = [("a.yaml".to_owned(), limit(3)), ("b.yaml".to_owned(), limit(4))];
    let Converted { text: settings, lines, .. } = convert(&files, &options("FILE")).unwrap();
    assert!(settings.contains("per_client: 3"), "{settings}");
    let text = report::text(&lines);
    assert!(text.contains("`limits.connections.per_client` is 3 by a.yaml:5 already"), "{text}");
}

/// Half a file, a file with other letters, and two files in one.
#[test]
fn damaged_files_do_not_stop_it() {
    let inputs = inputs();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..3000 {
        let (_, (file, text)) = &inputs[random.usize(..inputs.len())];
        let mut letters: Vec<char> = text.chars().collect();
        for _ in 0..random.usize(1..8) {
            let at = random.usize(..letters.len());
            match random.u8(..4) {
                0 => letters.truncate(at.max(1)),
                1 => {
                    letters[at] = *random
                        .choice(&[':', '-', ' ', '\n', '{', '}', '"', '9', '(', '\u{fc}', '/', '*', '&'])
                        .unwrap()
                }
                2 => drop(letters.remove(at)),
                _ => letters.insert(at, random.char(..)),
            }
            if letters.is_empty() {
                break;
            }
        }
        let text: String = letters.into_iter().collect();
        if let Ok(settings) = settings_from(file, &text) {
            let refused: Vec<_> =
                crate::check::lines_of(&settings).into_iter().filter(|line| line.contains("refused")).collect();
            assert!(refused.is_empty(), "{refused:?}\n{text}");
        }
    }
}

/// An Ingress with these annotations, one in each line.
fn ingress(annotations: &str) -> String {
    let lines: String = annotations.lines().map(|line| format!("    {}\n", line.trim())).collect();
    format!("apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  annotations:\n{lines}")
}

/// The settings, and the report.
fn becomes(file: &str, text: &str) -> (String, String) {
    let Converted { text, lines, .. } = convert(&[(file.to_owned(), text.to_owned())], &options("FILE")).unwrap();
    (text, report::text(&lines))
}

#[test]
fn what_only_looks_like_affinity_or_a_limit_is_none() {
    let limit = "stick-table type ip size 1m store conn_cur,http_req_rate(10s)\nhttp-request track-sc0 src\n";
    let haproxy = |rules: &str| format!("frontend web\n{limit}{rules}\n");
    let traefik =
        |kind: &str, own: &str| format!("apiVersion: traefik.io/v1alpha1\nkind: Middleware\nspec: {{ {kind}: {own} }}");
    for (name, file, text, absent, reason) in [
        ("a cookie of the application", "haproxy.cfg", "backend b\n  cookie JSESSIONID prefix".into(), "name: ", "the application's own cookie"),
        ("the same in an Ingress", "a.yaml", ingress("haproxy-ingress.github.io/affinity: cookie\nhaproxy-ingress.github.io/session-cookie-name: JSESSIONID\nhaproxy-ingress.github.io/session-cookie-strategy: prefix"), "name: ", "the application's own cookie"),
        ("a cookie without a life", "a.yaml", "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nspec: { trafficPolicy: { loadBalancer: { consistentHash: { httpCookie: { name: own } } } } }".into(), "client_cookie", "keeps its pod by its id"),
        ("networks that are refused", "haproxy.cfg", haproxy("acl bad src 203.0.113.0/24\nhttp-request deny if bad\nhttp-request deny if { sc_conn_cur(0) gt 5 }"), "exempt", "access by address"),
        ("networks of a route", "haproxy.cfg", haproxy("acl office src 192.0.2.0/24\nuse_backend admin if office\nhttp-request deny if { sc_conn_cur(0) gt 5 }"), "exempt", "access by address"),
        ("a limit of some requests", "haproxy.cfg", haproxy("http-request deny if { path_beg /login } { sc_http_req_rate(0) gt 20 }"), "limits", "for some requests only"),
        ("a condition of a header", "haproxy.cfg", haproxy("acl fast sc_http_req_rate(0) gt 20\nhttp-request set-header x-fast 1 if fast"), "limits", "no rule refuses by it"),
        ("a key that is not known", "a.yaml", ingress("nginx.org/limit-req-rate: 5r/s\nnginx.org/limit-req-key: ${request_uri}"), "limits", "nothing that the filter knows a client by"),
        ("a limit of nobody", "a.yaml", traefik("inFlightReq", "{ amount: 0 }"), "limits", "a limit of 0 admits nobody"),
        ("affinity to a version", "a.yaml", "apiVersion: traefik.io/v1alpha1\nkind: TraefikService\nspec: { weighted: { sticky: { cookie: { name: v } } } }".into(), "client_cookie", "cluster_header"),
        ("a policy for some clients", "a.yaml", "apiVersion: k8s.nginx.org/v1\nkind: Policy\nspec: { rateLimit: { rate: 5r/s, condition: { default: true } } }".into(), "limits", "for some clients only"),
        ("a cookie that is switched off", "a.yaml", "apiVersion: k8s.nginx.org/v1\nkind: VirtualServer\nspec: { upstreams: [{ name: a, sessionCookie: { enable: false, name: off } }] }".into(), "client_cookie", "not enabled"),
    ] {
        let (settings, report) = becomes(file, &text);
        let fields: Vec<_> = settings.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
        assert!(!fields.join("\n").contains(absent), "{name}:\n{settings}");
        assert!(report.contains(reason), "{name}:\n{report}");
    }
}

#[test]
fn spellings_that_people_use_are_read() {
    let haproxy = |track: &str, rules: &str| {
        format!(
            "frontend web\nstick-table type ip size 1m store conn_cur,conn_rate(5s)\nhttp-request track-sc0 {track}\n{rules}\n"
        )
    };
    let conn = "http-request deny status 429 if { sc_conn_cur(0) gt 5 }";
    for (name, file, text, expected) in [
        ("partitioned", "a.yaml", ingress("nginx.ingress.kubernetes.io/affinity: cookie\nnginx.ingress.kubernetes.io/session-cookie-secure: \"true\"\nnginx.ingress.kubernetes.io/session-cookie-partitioned: \"true\""), "partitioned: true"),
        ("a comma at the end", "a.yaml", ingress("nginx.ingress.kubernetes.io/limit-connections: \"5\"\nnginx.ingress.kubernetes.io/limit-whitelist: \"10.0.0.0/8,\""), "- \"10.0.0.0/8\""),
        ("the status of a refusal", "haproxy.cfg", haproxy("src", conn), "status: 429"),
        ("an answer that refuses", "haproxy.cfg", haproxy("src", "http-request return status 429 if { sc_conn_cur(0) gt 5 }"), "per_client: 5"),
        ("an exempt network", "haproxy.cfg", haproxy("src", "acl office src 192.0.2.0/24\nhttp-request allow if office\nhttp-request deny if { sc_conn_cur(0) gt 5 }"), "- \"192.0.2.0/24\""),
        ("a network's mask", "haproxy.cfg", haproxy("src,ipmask(24)", conn), "ipv4_prefix: 24"),
        ("an address in a header", "haproxy.cfg", haproxy("req.hdr_ip(CF-Connecting-IP)", conn), "header: \"cf-connecting-ip\""),
        ("the other prefix", "a.yaml", ingress("haproxy.com/rate-limit-requests: \"7\"\nhaproxy.com/rate-limit-period: 1m"), "requests: 7"),
        ("the old prefix", "a.yaml", ingress("ingress.kubernetes.io/rate-limit-requests: \"7\"\ningress.kubernetes.io/rate-limit-period: 1m"), "per: \"1m\""),
        ("a ConfigMap of HAProxy", "a.yaml", "apiVersion: v1\nkind: ConfigMap\ndata: { rate-limit-requests: \"7\" }".into(), "requests: 7"),
        ("YARP's Expiration", "a.json", r#"{"Clusters": {"a": {"SessionAffinity": {"Enabled": true, "Cookie": {"Expiration": "03:00:00"}}}}}"#.into(), "max_age: \"3h\""),
        ("Traefik 1", "a.yaml", ingress("traefik.ingress.kubernetes.io/max-conn-amount: \"9\"\ntraefik.ingress.kubernetes.io/max-conn-extractor-func: client.ip"), "per_client: 9"),
        ("its labels", "a.yaml", "services: { hub: { labels: [traefik.backend.loadbalancer.stickiness=true, traefik.backend.loadbalancer.stickiness.cookieName=pod] } }".into(), "name: \"pod\""),
        ("a session of a route", "a.yaml", "a: { \"@type\": type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute, stateful_session: { session_state: { typed_config: { cookie: { name: pod, ttl: 60s } } } } }".into(), "name: \"pod\""),
    ] {
        let (settings, report) = becomes(file, &text);
        assert!(settings.contains(expected), "{name}:\n{settings}\n{report}");
    }
}

#[test]
fn the_report_says_what_the_settings_hold() {
    let yarp = r#"{"Clusters": {"a": {"SessionAffinity": {"Enabled": true, "Cookie": {"SameSite": "None", "SecurePolicy": "None"}}}}}"#;
    let (settings, report) = becomes("a.json", yarp);
    assert!(settings.contains("secure: true") && report.contains("browsers want `Secure`"), "{settings}\n{report}");
    let first = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nspec:\n  trafficPolicy: { loadBalancer: { consistentHash: { httpCookie: { name: first, ttl: 60s } } } }\n  subsets: [{ trafficPolicy: { loadBalancer: { consistentHash: { httpCookie: { name: second, ttl: 60s } } } } }]\n";
    let (settings, _) = becomes("a.yaml", first);
    assert!(settings.contains("name: \"first\""), "{settings}");
}
