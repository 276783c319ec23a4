//! What client libraries report to their application when a limit refuses it.

use std::fs;

use serde::Deserialize;
use serde_json::{Value, json};
use testbed::clients::{
    DotnetClient, GoClient, JavaClient, NodeClient, Outcome, Task, drive_chromium, drive_node, run_dotnet, run_go,
    run_java, run_node, run_python, run_signalrcore,
};
use testbed::envoy::{EnvoyOptions, Hosts};
use testbed::hub::{Hub, HubOptions};
use testbed::process::PATIENCE;
use testbed::tools::{self, Skips};
use testbed::workspace;

use crate::gateway::{Gateway, settings};

#[derive(Debug, Deserialize)]
struct Refused {
    error: Option<String>,
}

/// Where the client runs.
#[derive(Clone, Copy, Debug)]
enum Place<'a> {
    Node,
    /// In Chromium, in a page of this URL.
    Page(&'a str),
}

fn connect(place: Place<'_>, gateway: &Gateway, transport: &str, skip_negotiation: bool) -> String {
    let url = format!("{}/chat", gateway.envoy.url());
    let mut options = json!({ "url": url, "transport": transport, "skipNegotiation": skip_negotiation });
    let refused: Refused = match place {
        Place::Node => drive_node("refused.mjs", &options, PATIENCE).unwrap(),
        Place::Page(page) => {
            options["page"] = page.into();
            drive_chromium("refused.mjs", &options).unwrap()
        }
    };
    refused.error.unwrap_or_else(|| panic!("{place:?} {transport}: connected"))
}

#[test]
fn clients_tell_their_users_that_a_limit_was_reached() {
    // A page of the hub's own is on another site than the gateway, which is addressed by IP.
    let hub = Hub::start(&HubOptions::default()).unwrap();
    let page = format!("{}/healthz", hub.url_by_name());
    let origin = hub.url_by_name();
    // Browsers know without DNS where every name below `localhost` is.
    let tenant = |url: &str| url.replacen("localhost", "tenant.localhost", 1);
    let (tenant_page, tenant_origin) = (tenant(&page), tenant(&origin));
    let cors_origins = vec![origin.clone(), tenant_origin];
    let hub = [Hub::start(&HubOptions { cors_origins, ..HubOptions::default() }).unwrap()];
    let gateway = |reject: Value| {
        let limits = json!({ "connections": { "per_client": 1 }, "reject": reject });
        let filter = settings(&limits);
        let gateway = Gateway::start(EnvoyOptions { filter, hosts: Hosts::of(&hub), ..EnvoyOptions::default() });
        let client = gateway.client();
        let open = client.connect().unwrap();
        (gateway, open)
    };
    let reason = "Connection limit reached: this client has too many connections open.";
    let allowed = json!([origin]);
    let (by_status, _one) = gateway(json!({ "allow_origins": allowed, "negotiate": "status" }));
    let (by_default, _two) = gateway(json!({ "allow_origins": allowed }));
    let (unreadable, _three) = gateway(json!({}));
    let tenants = origin.replacen("localhost", "*.localhost", 1);
    let (for_tenants, _four) = gateway(json!({ "allow_origins": [tenants] }));
    let (node, browser) = (Place::Node, Place::Page(&page));
    let status_too = format!("{reason}: Status code '429'");
    for (name, place, gateway, skip, expected) in [
        ("negotiate by status", node, &by_status, false, status_too.as_str()),
        ("negotiate by default", node, &by_default, false, reason),
        ("negotiate by status", browser, &by_status, false, &status_too),
        ("negotiate by default", browser, &by_default, false, reason),
        ("negotiate for tenants", Place::Page(&tenant_page), &for_tenants, false, reason),
        // A browser shows no page why a WebSocket failed, and Node's WebSocket shows the client nothing, either.
        ("skipped", node, &by_status, true, "WebSocket failed to connect."),
        ("skipped", browser, &by_status, true, "WebSocket failed to connect."),
        // Nor can a page read an answer whose origin is not its own.
        ("not allowed", browser, &unreadable, false, "Failed to fetch"),
        ("not allowed", browser, &for_tenants, false, "Failed to fetch"),
    ] {
        let error = connect(place, gateway, "WebSockets", skip);
        println!("{name}, {place:?}: {error}");
        assert!(error.contains(expected), "{name}, {place:?}: {error}");
        let names_the_limit = error.contains("Connection limit reached");
        assert_eq!(names_the_limit, !skip && name != "not allowed", "{name}, {place:?}: {error}");
    }
    for transport in ["ServerSentEvents", "LongPolling"] {
        let error = connect(node, &by_status, transport, false);
        assert!(error.contains(reason), "{transport}: {error}");
    }
}

/// A client library by its name in the table of `docs/limits.md`.
struct Library {
    name: &'static str,
    /// Whether this machine has what it needs.
    is_here: fn(test: &str) -> bool,
    connect_once: fn(url: String) -> Outcome,
}

const LIBRARIES: [Library; 6] = [
    Library {
        name: "`@microsoft/signalr`",
        is_here: |_| true,
        connect_once: |url| run_node(&NodeClient { task: Task::of(url, 1), ..NodeClient::default() }).unwrap(),
    },
    Library {
        name: ".NET",
        is_here: |test| Skips::here().or_skip(test, tools::dotnet_at_least(10)).is_some(),
        connect_once: |url| {
            let common = NodeClient { task: Task::of(url, 1), ..NodeClient::default() };
            run_dotnet(&DotnetClient { common, ..DotnetClient::default() }).unwrap()
        },
    },
    Library {
        name: "Java",
        is_here: |test| Skips::here().or_skip(test, tools::java()).is_some(),
        connect_once: |url| run_java(&JavaClient { task: Task::of(url, 1), ..JavaClient::default() }).unwrap(),
    },
    Library { name: "`pysignalr`", is_here: |_| true, connect_once: |url| run_python(&Task::of(url, 1)).unwrap() },
    Library {
        name: "`signalrcore`",
        is_here: |_| true,
        connect_once: |url| run_signalrcore(&Task::of(url, 1)).unwrap(),
    },
    Library {
        name: "`philippseith/signalr`",
        is_here: |test| Skips::here().or_skip(test, tools::go()).is_some(),
        connect_once: |url| run_go(&GoClient { task: Task::of(url, 1), ..GoClient::default() }).unwrap(),
    },
];

/// Whether `message` has all that `pattern` has around its `…`, in this order.
fn says(message: &str, pattern: &str) -> bool {
    let rest = pattern.split('…').try_fold(message, |rest, part| rest.split_once(part).map(|(_, rest)| rest));
    rest.is_some()
}

#[test]
fn each_client_library_says_what_the_documentation_has() {
    let docs = fs::read_to_string(workspace().join("docs/limits.md")).unwrap();
    let documented = |library: &str| -> [String; 2] {
        let row = docs.lines().find_map(|line| line.strip_prefix(&format!("| {library} | `"))).unwrap();
        [0, 1].map(|column| row.split("` | `").nth(column).unwrap().split("` |").next().unwrap().to_owned())
    };
    let gateway = |reject: Value| {
        let rate = json!({ "requests": 1, "per": "1h", "burst": 1 });
        let gateway = Gateway::with(&json!({ "negotiate_rate": rate, "reject": reject }));
        gateway.client().negotiate().unwrap();
        gateway
    };
    let by_status = gateway(json!({ "negotiate": "status" }));
    let by_default = gateway(json!({}));
    for Library { name, is_here, connect_once } in LIBRARIES {
        if !is_here(&format!("what {name} says of a limit")) {
            continue;
        }
        for (gateway, documented) in [&by_status, &by_default].into_iter().zip(documented(name)) {
            let outcome = connect_once(gateway.envoy.url());
            let message = outcome.first_error().unwrap_or_else(|| panic!("{name} connected"));
            let same_status = message.contains("429") == documented.contains("429");
            assert!(same_status && says(message, &documented), "{name}: {message} instead of {documented}");
        }
        let shown = documented(name)[1].contains("Connection limit reached: …");
        assert_eq!(shown, name != "`philippseith/signalr`", "{name}");
    }
}
