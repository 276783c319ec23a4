//! The kit that users are given, `envoy/prometheus` and `envoy/grafana`, against a real Prometheus.
//!
//! Where Prometheus is not to be had, these tests say that they are skipped; in CI they fail.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::{Value, json};
use testbed::docs::{blocks, samples};
use testbed::envoy::{Envoy, Filter, Watched, add_cluster, load_module, module_that_traps, put_routes_first};
use testbed::hub::shared_hubs;
use testbed::process::{free_port, wait_for};
use testbed::prometheus::{Change, Prometheus};
use testbed::raw::{self, Request, Wire};
use testbed::redis::Redis;
use testbed::tools::{self, PrometheusVersion, Skips};
use testbed::workspace;

use crate::client::{Client, upgrade};
use crate::scrape::start;

fn promtool(programs: &Path, arguments: &[&str], input: Option<&str>) -> (bool, String) {
    let mut command = Command::new(programs.join("promtool"));
    command.args(arguments).current_dir(workspace().join("envoy/prometheus"));
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes()).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn promtool_2_and_3_accept_the_configuration_and_the_rules_pass_their_tests() {
    let test = "promtool_2_and_3_accept_the_configuration_and_the_rules_pass_their_tests";
    for version in PrometheusVersion::ALL {
        let Some(programs) = Skips::here().or_skip(test, tools::prometheus(version)) else { continue };
        for arguments in [
            ["check", "config", "prometheus.yml"],
            ["check", "rules", "rules/signalr.recording.yml"],
            ["check", "rules", "rules/signalr.alerts.yml"],
            ["test", "rules", "tests/signalr.test.yml"],
        ] {
            let (passed, said) = promtool(&programs, &arguments, None);
            assert!(passed, "{version:?}, {arguments:?}: {said}");
        }
    }
}

/// How many series `expression` has that are numbers.
fn ask(prometheus: &Prometheus, expression: &str) -> usize {
    let series = prometheus.query(expression).unwrap();
    series.iter().filter(|series| series["value"][1] != "NaN").count()
}

/// There are series with all these labels. The next scrape may be a second away.
fn finds(prometheus: &Prometheus, metric: &str, labels: &str) {
    let matchers: Vec<_> = labels.split_terminator(',').map(|label| format!("signalr_{label}!=\"\"")).collect();
    let series = format!("{metric}{{{}}}", matchers.join(","));
    wait_for(&series, || ask(prometheus, &series) > 0).unwrap();
}

/// Thresholds and times that a test can reach.
const REACHABLE: [Change; 6] = [
    ("vector(20000)", "vector(5)"),
    ("vector(50000)", "vector(5)"),
    ("vector(100)", "vector(10)"),
    ("vector(4)", "vector(0.1)"),
    ("offset 10m", "offset 5s"),
    ("offset 20m", "offset 10s"),
];

/// Of everything that is counted, and of everything that alerts.
fn make_trouble(envoy: &Envoy) {
    let url = envoy.url();
    // At the same time, so that worker threads meet.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..6 {
                    Client::connect(envoy, "/chat").reset();
                    assert_eq!(upgrade(&url, "/chat?id=made-up").err(), Some(Some(404)));
                }
            });
        }
    });
    Client::connect(envoy, "/chat").close(Some(1000));
    let mut full = Vec::new();
    let refused = loop {
        match upgrade(&url, "/chat") {
            Ok(socket) => full.push(socket),
            Err(status) => break status,
        }
    };
    assert_eq!(refused, Some(429), "the limit of 40, {} open", full.len());
}

/// The cluster that `docs/limits.md` shows, with this Redis.
fn cluster(redis: &Redis) -> Value {
    let mut cluster = samples("docs/limits.md", Some("### The cluster"), "yaml envoy").swap_remove(0)[0].take();
    cluster["type"] = json!("STATIC");
    let address = cluster.pointer_mut("/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address");
    *address.unwrap() = json!({ "address": "127.0.0.1", "port_value": redis.port() });
    cluster
}

/// Creates the user that `docs/limits.md` shows, for the namespace of this test.
fn create_user(redis: &Redis) {
    let mut shown = blocks("docs/limits.md", "sh").into_iter().filter(|block| block.contains("ACL SETUSER"));
    let words = shown.next().unwrap().replace("{production}", "{kit}").replacen("redis-cli", "printf '%s\\n'", 1);
    let words = Command::new("sh").args(["-c", &words]).output().unwrap().stdout;
    let words = String::from_utf8(words).unwrap();
    assert_eq!(redis.ask::<String>(&words.lines().collect::<Vec<_>>()).unwrap(), "OK");
}

/// Settings with these limits, shared through Redis.
fn sharing(limits: &Value) -> Value {
    let mut limits = limits.clone();
    limits["shared"] = json!({ "redis": {
        "cluster": "redis",
        "namespace": "kit",
        "username": "gateway",
        "password": { "value": "PASSWORD" },
        "timeout": "2s",
    } });
    let key = json!({ "id": "1", "secret": { "value": "a secret of thirty-two bytes or more" } });
    json!({ "affinity": { "keys": [key] }, "limits": limits })
}

/// Brings about what must not happen, more sessions of one client than its slot of the ledger takes, and on the way to it what
/// may: worker threads that meet in that slot. Goes on to the next client until both have happened. A slot of the build for tests
/// is small.
fn overfill_the_ledger(envoy: &Envoy, filter: &Watched) {
    let limits = json!({
        "client": { "key": { "header": "x-user" } },
        "connections": { "per_client": 4_096 },
        // None leaves while a slow machine fills the slot.
        "long_polling_idle": "1h",
    });
    let mut settings = sharing(&limits);
    settings["hubs"] = json!([{ "path": "/full" }]);
    filter.configure(&settings);
    let fill = |user: u32, thread: u32, polls: u32| {
        let user = user.to_string();
        let poll = |poll| Request::get(&format!("/full?id={thread}-{poll}")).with("x-user", &user).bytes();
        Wire::open(&envoy.url()).ask_all(&(0..polls).map(poll).collect::<Vec<_>>());
    };
    // As soon as it is known as a hub.
    wait_for("the new configuration", || {
        fill(0, 0, 1);
        envoy.prometheus().unwrap().contains("hub=\"/full\"")
    })
    .unwrap();
    let happened = |metric, labels: &[_]| envoy.metric(metric, labels).unwrap() > 0.0;
    let mut users = 1..;
    wait_for("a full slot and a conflict", || {
        let user = users.next().unwrap();
        thread::scope(|scope| (0..4).for_each(|thread| drop(scope.spawn(move || fill(user, thread, 100)))));
        happened("signalr_gateway_internal_errors_total", &[("signalr_kind", "ledger")])
            && happened("signalr_gateway_shared_data_conflicts_total", &[])
    })
    .unwrap();
}

/// A stateful reconnect, which hubs know since .NET 8.
fn resume(envoy: &Envoy) {
    let token = raw::Client::of(&envoy.url()).query("useStatefulReconnect=true").negotiate().unwrap();
    let target = format!("/chat?id={token}");
    drop(upgrade(&envoy.url(), &target).unwrap());
    wait_for("the resume", || upgrade(&envoy.url(), &target).is_ok()).unwrap();
}

/// The table of `docs/metrics.md`, but for [`resume`] and for what [`overfill_the_ledger`] adds.
const METRICS: [(&str, &str); 19] = [
    ("websocket_connections_active", "hub"),
    ("websocket_connections_total", "hub"),
    ("websocket_connections_closed_total", "hub,closed_by,code"),
    ("websocket_connection_duration_milliseconds_bucket", "hub"),
    ("websocket_handshake_milliseconds_bucket", "hub"),
    ("websocket_handshake_failures_total", "hub,status"),
    ("websocket_messages_total", "hub,direction"),
    ("websocket_bytes_total", "hub,direction"),
    ("websocket_errors_total", "hub,kind"),
    ("signalr_gateway_connections_active", "hub,transport"),
    ("signalr_gateway_connections_total", "hub,transport"),
    ("signalr_gateway_negotiations_total", "hub,result"),
    ("signalr_gateway_negotiate_to_connect_milliseconds_bucket", "hub"),
    ("signalr_gateway_affinity_total", "hub,source,outcome"),
    ("signalr_gateway_rejected_total", "hub,limit,mode"),
    ("signalr_gateway_messages_total", "hub,direction,type"),
    ("signalr_gateway_shared_calls_total", "result"),
    ("signalr_gateway_shared_call_milliseconds_bucket", ""),
    ("signalr_gateway_shared_state", "state"),
];

#[test]
fn every_metric_rule_and_panel_has_data_in_a_real_prometheus() {
    let test = "every_metric_rule_and_panel_has_data_in_a_real_prometheus";
    let Some(programs) = Skips::here().or_skip(test, tools::prometheus(PrometheusVersion::Three)) else { return };
    let Some(redis) = Skips::here().or_skip(test, tools::redis()) else { return };
    let mut redis = Redis::start(&redis).unwrap();
    create_user(&redis);
    let hubs = &shared_hubs().unwrap()[..1];
    // More than all that may be open or not yet seen to be closed, until it is filled on purpose.
    let mut settings = sharing(&json!({ "connections": { "per_hub": 40 } }));
    settings["metrics"] = json!({ "detail": "messages" });
    let cluster = cluster(&redis);
    let filter = Watched::new("kit").unwrap();
    let taken = filter.clone();
    let envoy = start(hubs, 4, settings, move |bootstrap| {
        let full = json!({ "match": { "path": "/full" }, "direct_response": { "status": 200 } });
        put_routes_first(bootstrap, vec![full]);
        load_module(bootstrap, &module_that_traps().unwrap());
        taken.take_filter(bootstrap);
        add_cluster(bootstrap, cluster.clone());
    });
    let without = Envoy::before(hubs, Filter::Absent).unwrap();
    let down = format!("127.0.0.1:{}", free_port().unwrap());
    let prometheus = Prometheus::start(&programs, &[envoy.metrics(), without.metrics(), down], &REACHABLE).unwrap();
    // Prometheus looks at its targets for the first time after some seconds.
    wait_for("the first scrape", || ask(&prometheus, "up == 1") > 0).unwrap();
    let _held: Vec<_> = (0..6).map(|_| Client::connect(&envoy, "/chat")).collect();
    // Rates need two looks.
    for round in 1..=2 {
        make_trouble(&envoy);
        let seen = [
            format!("sum(websocket_connections_closed_total) >= {}", round * 25),
            format!("sum(signalr_gateway_rejected_total) == {round}"),
            "sum(signalr_gateway_connections_active) == 6".to_owned(),
        ];
        for what in seen {
            wait_for(&what, || ask(&prometheus, &what) > 0).unwrap();
        }
    }

    for (metric, labels) in METRICS {
        finds(&prometheus, metric, labels);
    }
    if tools::dotnet_at_least(8).is_ok() {
        resume(&envoy);
        finds(&prometheus, "signalr_gateway_connections_resumed_total", "hub");
    }
    // As `histogram_bucket_settings` has it, not Envoy's default. Prometheus 3 writes it so.
    let day = r#"websocket_connection_duration_milliseconds_bucket{le="8.64e+07"}"#;
    wait_for("a day's bucket", || ask(&prometheus, day) > 0).unwrap();
    // Four worker threads and the main thread.
    let connected = "signalr_gateway_shared_state{signalr_state=\"connected\"} == 5";
    wait_for(connected, || ask(&prometheus, connected) > 0).unwrap();
    redis.kill();
    // Istiod's metrics are not there.
    rules_without_data(&prometheus, &["SignalRInternalErrors", "SignalRConfigurationRefused"]);
    overfill_the_ledger(&envoy, &filter);
    finds(&prometheus, "signalr_gateway_internal_errors_total", "kind");
    finds(&prometheus, "signalr_gateway_shared_data_conflicts_total", "");
    rules_without_data(&prometheus, &["SignalRConfigurationRefused"]);
    let of_the_others = "ALERTS{alertname=~\"SignalRGatewayDown|SignalRFilterNotLoaded\"}";
    assert_eq!(ask(&prometheus, of_the_others), 2, "one is down, and one has no filter");
    every_panel_has_data(&prometheus);
    promtool_finds_only_what_is_meant(&programs, &envoy);
}

/// Comes to be these and no others.
fn rules_without_data(prometheus: &Prometheus, expected: &[&str]) {
    // Rules that build on others come an evaluation later.
    let quiet = || {
        let has_data = |rule: &Value| {
            rule["health"] == "ok"
                && match rule["type"].as_str() {
                    Some("alerting") => rule["state"] != "inactive",
                    _ => ask(prometheus, rule["name"].as_str().unwrap()) > 0,
                }
        };
        let rules = prometheus.rules().unwrap();
        assert_eq!(rules.len(), 33, "rules were loaded");
        let quiet = rules.into_iter().filter(|rule| !has_data(rule));
        quiet.map(|rule| rule["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let settled = wait_for("all rules", || quiet() == expected);
    assert!(settled.is_ok(), "no data: {:?} instead of {expected:?}", quiet());
}

fn every_panel_has_data(prometheus: &Prometheus) {
    let text = fs::read_to_string(workspace().join("envoy/grafana/dashboards/signalr.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let rows: Vec<_> = panels.iter().filter(|panel| panel["type"] == "row").map(|row| &row["title"]).collect();
    assert_eq!(rows.len(), 5, "{rows:?}");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        // What Grafana shows before the first event, where "No data" would look like a fault.
        assert!(panel["fieldConfig"]["defaults"]["noValue"].is_string(), "{}", panel["title"]);
        for target in panel["targets"].as_array().unwrap() {
            let written = target["expr"].as_str().unwrap();
            let expression = written.replace("$__rate_interval", "1h").replace("$hub", ".*");
            assert!(!expression.contains('$'), "{}: a variable is left: {expression}", panel["title"]);
            wait_for(&format!("data of {}: {expression}", panel["title"]), || ask(prometheus, &expression) > 0)
                .unwrap();
        }
    }
}

/// Envoy writes no help, and the interface is in milliseconds because Envoy's histograms hold whole numbers.
fn promtool_finds_only_what_is_meant(programs: &Path, envoy: &Envoy) {
    let text = envoy.prometheus().unwrap();
    let ours = |line: &&str| {
        let name = line.strip_prefix("# TYPE ").unwrap_or(line);
        name.starts_with("websocket_") || name.starts_with("signalr_")
    };
    let scrape = text.lines().filter(ours).fold(String::new(), |all, line| all + line + "\n");
    let (_, said) = promtool(programs, &["check", "metrics"], Some(&scrape));
    let meant = |line: &&str| {
        line.ends_with("no help text") || line.contains("use base unit \"seconds\" instead of \"milliseconds\"")
    };
    let others: Vec<_> = said.lines().filter(|line| !meant(line)).collect();
    assert!(others.is_empty() && said.contains("websocket_"), "{others:#?}");
}
