//! Tier 6: what a listed hub can have of its own, with clients that others wrote, real hubs and a real Envoy.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::clients::{
    BrowserClient, DotnetClient, NodeClient, Outcome, Task, Transport, drive_node, run_browser, run_dotnet, run_node,
};
use testbed::envoy::{
    Envoy, EnvoyOptions, Filter, Hosts, connection_manager, http_filters, put_routes_first, remove_health_checks,
};
use testbed::hub::{Hub, HubOptions, HubRequest};
use testbed::process::PATIENCE;
use testbed::proxy::Proxy;
use testbed::raw::{self, Client, Request};
use testbed::stand_in;
use testbed::tools::{self, Skips};

fn envoy(hub: &Hub, settings: Value) -> Envoy {
    let hosts = Hosts::Fixed(vec![hub.address()]);
    let patch = |bootstrap: &mut Value| {
        connection_manager(bootstrap)["http_protocol_options"] = json!({ "accept_http_10": true });
        let base = json!({ "cluster": "hubs", "prefix_rewrite": "/", "timeout": "0s" });
        put_routes_first(bootstrap, vec![json!({ "match": { "prefix": "/base/" }, "route": base })]);
    };
    let filter = Filter::With(settings);
    Envoy::start(&EnvoyOptions {
        filter,
        hosts,
        concurrency: 2,
        patch: Some(Box::new(patch)),
        ..EnvoyOptions::default()
    })
    .unwrap()
}

/// Asks and reads the head of the answer: the status and these headers.
fn ask(envoy: &Envoy, target: &str, fields: &[(&str, &str)], wanted: &[&str]) -> (u16, Vec<String>) {
    let request = fields.iter().fold(Request::get(target), |request, (name, value)| request.with(name, value));
    let answer = raw::ask(&envoy.url(), &request);
    (answer.status(), wanted.iter().map(|name| answer.head.all(name).join(" | ")).collect())
}

fn all_connected(name: &str, outcome: &Outcome) {
    assert!(outcome.tried > 0 && outcome.connected == outcome.tried, "{name}: {:?}", outcome.first_error());
}

/// With characters that a URL needs encoded.
const TOKEN: &str = "e30.a-b_c~d+e/f==";

/// The first value of a header that a hub got.
fn field<'a>(request: &'a HubRequest, name: &str) -> &'a str {
    request.headers.get(name).and_then(|values| values.first()).map_or("", String::as_str)
}

#[test]
fn hubs_get_the_access_token_in_the_header_and_never_in_the_url() {
    let hub = Hub::start(&HubOptions::default()).unwrap();
    let settings = json!({"hubs": [{"path": "/chat", "access_token": "header"}, {"path": "/notifications"}, {"path": "/base/chat", "access_token": "header"}]});
    let envoy = envoy(&hub, settings);
    let access_token = Some(TOKEN.to_owned());
    for hub in ["/chat", "/base/chat", "/notifications"] {
        for transport in [Transport::WebSockets, Transport::ServerSentEvents] {
            // Not the sample's page, which connects by itself.
            let mut client = BrowserClient::of(format!("{}/healthz", envoy.url()), envoy.url(), 2);
            (client.task.hub, client.transport) = (hub.to_owned(), transport);
            client.access_token.clone_from(&access_token);
            all_connected(&format!("browser {transport:?}"), &run_browser(&client).unwrap());
        }
    }
    for transport in Transport::ALL {
        let (task, access_token) = (Task::of(envoy.url(), 4), access_token.clone());
        let client = NodeClient { task, transport, access_token, ..NodeClient::default() };
        all_connected(&format!("Node {transport:?}"), &run_node(&client).unwrap());
    }

    let requests = hub.requests().unwrap();
    let (chat, control): (Vec<_>, Vec<_>) = requests.iter().partition(|request| request.path.starts_with("/chat"));
    let is_get = |request: &&&HubRequest| request.method == "GET";
    // Browsers: two hubs, two transports, two connections each. Node: four by each transport, of which polls are several.
    assert!(chat.iter().filter(is_get).count() >= 8 + 12, "{chat:#?}");
    for request in &chat {
        let original = field(request, "x-envoy-original-path");
        assert!(!format!("{}{original}", request.query).contains("access_token"), "{request:?}");
        assert_eq!(field(request, "authorization"), format!("Bearer {TOKEN}"), "{request:?}");
    }
    assert!(chat.iter().any(|request| !field(request, "x-envoy-original-path").is_empty()), "no path was rewritten");
    // The control: this is where browsers put it.
    assert_eq!(control.iter().filter(is_get).filter(|request| request.query.contains("access_token=e30.")).count(), 4);
}

#[test]
fn an_authorization_of_the_clients_own_is_kept() {
    let hub = Hub::start(&HubOptions::default()).unwrap();
    let envoy = envoy(&hub, json!({"hubs": [{"path": "/chat", "access_token": "header"}]}));
    for (name, target, own, (query, authorization)) in [
        ("moved", "/chat?a=%20&access_token=t&id=x", None, ("?a=%20&id=x", "Bearer t")),
        ("own", "/chat?id=x&access_token=t", Some("Bearer own"), ("?id=x", "Bearer own")),
        ("own of another scheme", "/chat?access_token=t&id=x&&", Some("Basic eA=="), ("?id=x&&", "Basic eA==")),
        ("no token", "/chat?id=x&access_token=t%0d%0aa:b", None, ("?id=x&access_token=t%0d%0aa:b", "")),
    ] {
        let own: Vec<_> = own.into_iter().map(|value| ("authorization", value)).collect();
        assert_eq!(ask(&envoy, target, &own, &[]).0, 404, "{name}: there is no such connection");
        let got = hub.requests().unwrap().pop().unwrap();
        assert_eq!((got.query.as_str(), field(&got, "authorization")), (query, authorization), "{name}");
    }
    assert_eq!(envoy.metric("signalr_gateway_internal_errors_total", &[]).unwrap(), 0.0);
}

#[test]
fn clients_take_the_best_of_the_transports_that_are_left() {
    const ANY: [&str; 3] = ["/any", "/any-listed", "/events-and-polls"];
    let paths = [&ANY[..], &["/sockets", "/polls"]].concat();
    let hub = Hub::start(&HubOptions {
        hubs: paths.iter().map(|path| (*path).to_owned()).collect(),
        ..HubOptions::default()
    });
    let hub = hub.unwrap();
    let all = ["web_sockets", "server_sent_events", "long_polling"];
    let settings = json!({"hubs": [
        {"path": "/any"},
        {"path": "/any-listed", "transports": all},
        {"path": "/events-and-polls", "transports": ["long_polling", "server_sent_events"]},
        {"path": "/sockets", "transports": ["web_sockets"]},
        {"path": "/polls", "transports": ["long_polling"]},
    ]});
    // Answers with a sealed id and without.
    for affinity in [json!({}), json!({"connection_token": {"enabled": false}})] {
        let mut settings = settings.clone();
        settings["affinity"] = affinity;
        let envoy = envoy(&hub, settings);
        let client = |hub: &str| {
            let task = Task { hub: hub.to_owned(), ..Task::of(envoy.url(), 2) };
            NodeClient { task, ..NodeClient::default() }
        };
        for (hub, expected) in [
            ("/any", "WebSockets"),
            ("/any-listed", "WebSockets"),
            ("/events-and-polls", "ServerSentEvents"),
            ("/sockets", "WebSockets"),
            ("/polls", "LongPolling"),
        ] {
            let mut options = serde_json::to_value(client(hub)).unwrap();
            options["transport"] = "whichever".into();
            let outcome: Outcome = drive_node("signalr.mjs", &options, PATIENCE * 2).unwrap();
            all_connected(hub, &outcome);
            assert!(outcome.tries.iter().all(|one| one.transport.as_deref() == Some(expected)), "{hub}: {outcome:?}");
        }
        // A client that may use none of those that are left, and one that does not ask.
        let outcome = run_node(&client("/polls")).unwrap();
        let error = "Unable to connect to the server with any of the available transports. \
                     LongPolling failed: Error: 'LongPolling' is disabled by the client.";
        assert_eq!((outcome.connected, outcome.first_error()), (0, Some(error)));
        all_connected("skips", &run_node(&NodeClient { skip_negotiation: true, ..client("/polls") }).unwrap());
    }
}

#[test]
fn the_dotnet_client_uses_only_what_is_offered() {
    let test = "the_dotnet_client_uses_only_what_is_offered";
    if Skips::here().or_skip(test, tools::dotnet_at_least(10)).is_none() {
        return;
    }
    let hub = Hub::start(&HubOptions::default()).unwrap();
    let envoy = envoy(&hub, json!({"hubs": [{"path": "/chat", "transports": ["server_sent_events"]}]}));
    for (transport, connected) in
        [(Transport::WebSockets, false), (Transport::ServerSentEvents, true), (Transport::LongPolling, false)]
    {
        let common = NodeClient { task: Task::of(envoy.url(), 2), transport, ..NodeClient::default() };
        let outcome = run_dotnet(&DotnetClient { common, ..DotnetClient::default() }).unwrap();
        assert_eq!(outcome.connected, if connected { 2 } else { 0 }, "{transport:?}: {:?}", outcome.first_error());
        if !connected {
            let error = "Unable to connect to the server with any of the available transports. \
                         (ServerSentEvents failed: The transport is disabled by the client.)";
            assert_eq!(outcome.first_error(), Some(error), "{transport:?}");
        }
    }
}

#[test]
fn clients_say_it_when_no_transport_is_left() {
    let polls = vec![("TRANSPORTS".to_owned(), "LongPolling".into())];
    let hub = Hub::start(&HubOptions { environment: polls, ..HubOptions::default() }).unwrap();
    let envoy = envoy(&hub, json!({"hubs": [{"path": "/chat", "transports": ["web_sockets"]}]}));
    for transport in [Transport::WebSockets, Transport::LongPolling] {
        let client = NodeClient { task: Task::of(envoy.url(), 1), transport, ..NodeClient::default() };
        let outcome = run_node(&client).unwrap();
        let expected = "None of the transports supported by the client are supported by the server.";
        assert_eq!((outcome.connected, outcome.first_error()), (0, Some(expected)), "{transport:?}");
    }
}

const UNBUFFERED: [&str; 2] = ["cache-control", "x-accel-buffering"];

#[test]
fn event_streams_pass_a_proxy_that_buffers() {
    let test = "event_streams_pass_a_proxy_that_buffers";
    if Skips::here().or_skip(test, tools::nginx()).is_none() {
        return;
    }
    let hub = Hub::start(&HubOptions::default()).unwrap();
    let settings = json!({"hubs": [{"path": "/chat", "unbuffered_events": true}, {"path": "/notifications"}]});
    let envoy = envoy(&hub, settings);
    // It speaks HTTP/1.0 to Envoy by default, and buffers what has neither a length nor chunks.
    let proxy =
        Proxy::nginx(&format!("server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass {}; }} }}", envoy.url()))
            .unwrap();
    let client = |hub: &str, transport: Transport| {
        let task = Task { hub: hub.to_owned(), ..Task::of(proxy.url(), 4) };
        NodeClient { task, transport, ..NodeClient::default() }
    };
    all_connected("unbuffered", &run_node(&client("/chat", Transport::ServerSentEvents)).unwrap());
    for transport in [Transport::ServerSentEvents, Transport::LongPolling] {
        // The control: what the hub sends arrives when nginx has enough of it, if ever. Polls end, and so arrive.
        let try_timeout = Duration::from_secs(if transport == Transport::ServerSentEvents { 10 } else { 180 });
        let mut client = client("/notifications", transport);
        client.task.try_timeout = try_timeout;
        let outcome = run_node(&client).unwrap();
        let expected = if transport == Transport::ServerSentEvents { 0 } else { 4 };
        assert_eq!(outcome.connected, expected, "{transport:?}: {:?}", outcome.first_error());
    }

    let events = [("accept", "text/event-stream")];
    for (hub, accept, expected) in [
        ("/chat", &events[..], ["no-cache,no-store, no-transform", "no"]),
        ("/notifications", &events, ["no-cache,no-store", ""]),
        ("/chat", &[], ["no-cache, no-store", ""]),
    ] {
        let target = format!("{hub}?id={}", Client::of(&envoy.url()).hub(hub).negotiate().unwrap());
        let (status, headers) = ask(&envoy, &target, accept, &UNBUFFERED);
        assert_eq!((status, headers), (200, expected.map(str::to_owned).to_vec()), "{hub} {accept:?}");
    }
}

/// ASP.NET Core's event streams say `content-encoding: identity`, which compressors respect, too. Other hubs' do not.
#[test]
fn event_streams_pass_a_compressor() {
    let events = stand_in::listen(|mut stream: TcpStream| {
        let head = BufReader::new(stream.try_clone()?).lines().map_while(Result::ok);
        head.take_while(|line| !line.is_empty()).for_each(drop);
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: x\n\n\r\n";
        stream.write_all(answer.as_bytes())?;
        stream.read_to_end(&mut Vec::new())
    });
    let patch = |bootstrap: &mut Value| {
        remove_health_checks(bootstrap);
        let gzip = json!({
            "name": "gzip",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip" },
        });
        let compressor = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor",
            "response_direction_config": { "common_config": { "content_type": ["text/event-stream"] } },
            "compressor_library": gzip,
        });
        // The first filter is the last to see an answer.
        http_filters(bootstrap).insert(0, json!({ "name": "compressor", "typed_config": compressor }));
    };
    let envoy = Envoy::start(&EnvoyOptions {
        filter: Filter::With(json!({"hubs": [{"path": "/chat", "unbuffered_events": true}, {"path": "/other"}]})),
        hosts: Hosts::Fixed(vec![events.unwrap().to_string()]),
        concurrency: 1,
        patch: Some(Box::new(patch)),
        ..EnvoyOptions::default()
    });
    let envoy = envoy.unwrap();
    let fields = [("accept", "text/event-stream"), ("accept-encoding", "gzip")];
    for (target, expected) in [("/chat?id=a", ["", "no-transform"]), ("/other?id=a", ["gzip", ""])] {
        let answer = ask(&envoy, target, &fields, &["content-encoding", "cache-control"]);
        assert_eq!(answer, (200, expected.map(str::to_owned).to_vec()), "{target}");
    }
}
