//! Endings, each on a hub of its own name: who is reported to have ended the WebSocket, with which code.
//!
//! Close frames that a client or a real hub says first are in `counting`.

use serde_json::{Value, json};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Patch, Watched, put_routes_first, remove_health_checks};
use testbed::http;
use testbed::hub::{Hub, HubOptions};
use testbed::process::wait_for;
use testbed::raw::http2::{Connection, Tunnel};
use testbed::raw::{self, invocation};
use testbed::tools::EnvoyVersion;

use crate::client::{Client, upgrade};
use crate::obedient::{self, Order};
use crate::scrape::{settles, start_version};

/// How long Envoy lets connections of a listener be that has changed, in seconds.
const DRAIN: &str = "1";

/// Routes that end a WebSocket early when the client asks for it, but not before it has shaken hands.
fn short_lives(bootstrap: &mut Value) {
    let route = |ending: &str, action: Value| {
        let asks = json!([{ "name": "x-ending", "string_match": { "exact": ending } }]);
        let mut action = action;
        action["cluster"] = "hubs".into();
        json!({ "match": { "prefix": "/", "headers": asks }, "route": action })
    };
    let idle = route("idle", json!({ "timeout": "0s", "idle_timeout": "5s" }));
    let longest = json!({ "max_stream_duration": "5s" });
    put_routes_first(bootstrap, vec![idle, route("longest", json!({ "max_stream_duration": longest }))]);
}

#[test]
fn each_silent_ending_is_told_by_who_caused_it() {
    EnvoyVersion::ALL.into_iter().for_each(each_silent_ending_in);
}

fn each_silent_ending_in(version: EnvoyVersion) {
    let mut hubs = [Hub::start(&HubOptions::default()).unwrap()];
    let envoy = start_version(version, &hubs, 2, json!({}), short_lives);
    let [idle, longest] = ["idle", "longest"].map(|ending| {
        let client = raw::Client::of(&envoy.url()).header("x-ending", ending);
        Client::with_token(&client, &client.negotiate().unwrap())
    });
    let killed = Client::connect(&envoy, "/chat");
    assert_eq!(idle.read_to_end().code, None);
    assert_eq!(longest.read_to_end().code, None);
    hubs[0].kill();
    assert_eq!(killed.read_to_end().code, None);

    let closed =
        |by, count| (format!("websocket_connections_closed_total{{closed_by={by},code=none,hub=/chat}}"), count);
    let wanted = |series: &str| {
        series.contains("_closed_total") || series.contains("_errors_total") || series.contains("_active{")
    };
    let expected = [
        closed("idle_timeout", 1),
        closed("gateway", 1),
        closed("server", 1),
        // An end that Envoy was configured to bring about is none.
        ("websocket_errors_total{hub=/chat,kind=abnormal_closure}".to_owned(), 1),
        ("signalr_gateway_connections_active{hub=/chat,transport=web_sockets}".to_owned(), 0),
        ("websocket_connections_active{hub=/chat}".to_owned(), 0),
    ];
    settles(&format!("{version:?}"), &envoy, wanted, &expected);
}

/// Opens WebSockets at the hub that is named and ends them.
type End = fn(&Envoy, &str);

/// Of WebSockets that end without a Close frame: the hub's name, how its WebSockets end, how many there are, and who is reported
/// to have ended them.
const BROKEN_OFF: [(&str, End, u64, &str); 9] = [
    ("client-fin", |envoy, hub| client(envoy, hub).cut(), 1, "client"),
    ("client-half-close", |envoy, hub| assert_eq!(client(envoy, hub).fall_silent().code, None), 1, "client"),
    ("hub-fin", hub_cuts, 1, "server"),
    ("hub-rst", hub_resets, 1, "server"),
    ("goodbye-then-client-fin", client_ends_after_goodbye, 1, "client"),
    ("http2-rst-stream", reset_each, 3, "client"),
    ("http2-fin", |envoy, hub| three_on_one_connection(envoy, hub).0.cut(), 3, "client"),
    ("http2-goaway", go_away, 3, "client"),
    ("http2-end-stream", end_stream, 3, "client"),
];

fn client(envoy: &Envoy, hub: &str) -> Client {
    Client::with_token(&raw::Client::of(&envoy.url()).hub(&format!("/{hub}")), "")
}

fn hub_cuts(envoy: &Envoy, hub: &str) {
    let mut client = client(envoy, hub);
    client.echo(Order::Cut.word());
    assert_eq!(client.read_to_end().code, None);
}

fn hub_resets(envoy: &Envoy, hub: &str) {
    let mut client = client(envoy, hub);
    client.echo(Order::Reset.word());
    client.say(&invocation("Echo", &["what it leaves unread"]));
    assert_eq!(client.read_to_end().code, None);
}

fn client_ends_after_goodbye(envoy: &Envoy, hub: &str) {
    let mut client = client(envoy, hub);
    client.echo(Order::SayGoodbye.word());
    client.echo("after it");
    client.cut();
}

fn tunnel(connection: &mut Connection, hub: &str) -> Tunnel {
    let mut tunnel = connection.tunnel(&format!("/{hub}?id="));
    tunnel.shake_hands();
    tunnel
}

fn echoes(tunnel: &mut Tunnel) {
    let record = invocation("Echo", &["here"]);
    tunnel.send(&record);
    assert_eq!(tunnel.record(), record);
}

fn reset_each(envoy: &Envoy, hub: &str) {
    let (_connection, [one, two, three]) = three_on_one_connection(envoy, hub);
    one.reset();
    for mut other in [two, three] {
        echoes(&mut other);
        other.reset();
    }
}

fn three_on_one_connection(envoy: &Envoy, hub: &str) -> (Connection, [Tunnel; 3]) {
    let mut connection = Connection::open(&envoy.url());
    let tunnels = [(); 3].map(|()| tunnel(&mut connection, hub));
    (connection, tunnels)
}

/// It ends nothing by itself.
fn go_away(envoy: &Envoy, hub: &str) {
    let (mut connection, mut tunnels) = three_on_one_connection(envoy, hub);
    connection.go_away();
    tunnels.iter_mut().for_each(echoes);
    connection.cut();
}

/// Envoy passes no end of one direction on to HTTP/1.1: the WebSocket stays until its connection ends.
fn end_stream(envoy: &Envoy, hub: &str) {
    let (connection, [mut one, mut two, _three]) = three_on_one_connection(envoy, hub);
    one.fall_silent();
    // Behind it on the same connection, and by way of the hub.
    echoes(&mut two);
    echoes(&mut two);
    assert!(one.is_quiet());
    connection.cut();
}

/// What the table above leads to, and what a WebSocket that outlives it adds.
fn expected(detail: &str) -> Vec<(String, u64)> {
    let rows = BROKEN_OFF.into_iter().flat_map(|(hub, _, count, by)| {
        // SignalR's own goodbye is read at the highest detail only.
        let by = if (hub, detail) == ("goodbye-then-client-fin", "messages") { "server" } else { by };
        [
            (format!("websocket_connections_closed_total{{closed_by={by},code=none,hub={hub}}}"), count),
            (format!("websocket_errors_total{{hub={hub},kind=abnormal_closure}}"), count),
            (format!("websocket_connections_active{{hub={hub}}}"), 0),
            (format!("signalr_gateway_connections_active{{hub={hub},transport=web_sockets}}"), 0),
        ]
    });
    let stays = [
        "websocket_connections_active{hub=stays}",
        "signalr_gateway_connections_active{hub=stays,transport=web_sockets}",
    ];
    rows.chain(stays.map(|gauge| (gauge.to_owned(), 1))).collect()
}

fn wanted(series: &str) -> bool {
    ["_closed_total", "_errors_total", "_active{"].iter().any(|part| series.contains(part))
}

/// An Envoy before [`obedient`] hubs, one for each name.
fn start_obedient(
    version: EnvoyVersion,
    detail: &str,
    names: &[&str],
    patch: impl Fn(&mut Value) + Send + Sync + 'static,
) -> Envoy {
    let hubs: Vec<_> = names.iter().map(|name| json!({ "path": format!("/{name}"), "name": name })).collect();
    let patch: Patch = Box::new(move |bootstrap| {
        remove_health_checks(bootstrap);
        patch(bootstrap);
    });
    let options = EnvoyOptions {
        version,
        filter: Filter::With(json!({ "hubs": hubs, "metrics": { "detail": detail } })),
        hosts: obedient::start(),
        concurrency: 2,
        arguments: vec!["--drain-time-s".into(), DRAIN.into()],
        patch: Some(patch),
        ..EnvoyOptions::default()
    };
    Envoy::start(&options).unwrap()
}

#[test]
fn a_websocket_that_is_broken_off_is_told_by_the_side_that_did_it() {
    for (version, detail) in [(EnvoyVersion::Oldest, "frames"), (EnvoyVersion::Newest, "messages")] {
        let names: Vec<_> = BROKEN_OFF.iter().map(|(name, ..)| *name).chain(["stays"]).collect();
        let envoy = start_obedient(version, detail, &names, |_| {});
        let mut connection = Connection::open(&envoy.url());
        let mut stays = tunnel(&mut connection, "stays");
        for (name, end, ..) in BROKEN_OFF {
            end(&envoy, name);
        }
        settles(&format!("{version:?}, {detail}"), &envoy, wanted, &expected(detail));
        // What only stops listening ends nothing.
        http::post(&format!("{}/drain_listeners?graceful", envoy.admin())).unwrap();
        // The one of the hubs and the one of the metrics.
        let stopped = || envoy.counter("listener_manager.listener_stopped").is_ok_and(|stopped| stopped == 2);
        wait_for("the end of the drain", stopped).unwrap();
        echoes(&mut stays);

        // Nobody reads a metric of an Envoy that has ended, but its access log has those that it ended.
        let log = envoy.finish().unwrap();
        let line = log.lines().find(|line| line.contains("/stays")).unwrap();
        assert!(line.contains("closed_by=gateway code=none"), "{version:?}: {line}");
    }
}

/// With its last listener the filter's metrics go, too; so only the filter chain is changed.
#[test]
fn a_websocket_that_a_drain_ends_was_ended_by_the_gateway() {
    for version in EnvoyVersion::ALL {
        let listener = Watched::new(&format!("listener-{version:?}")).unwrap();
        let taken = listener.clone();
        let envoy = start_obedient(version, "frames", &["drained"], move |bootstrap| taken.take_listener(bootstrap));
        let http1 = client(&envoy, "drained");
        let (_connection, mut http2) = three_on_one_connection(&envoy, "drained");
        listener.change(|listener| {
            listener["filter_chains"][0]["filters"][0]["typed_config"]["stat_prefix"] = "changed".into();
        });
        assert_eq!(http1.read_to_end().code, None, "{version:?}");
        http2.iter_mut().for_each(Tunnel::read_to_end);
        let expected = [
            ("websocket_connections_closed_total{closed_by=gateway,code=none,hub=drained}".to_owned(), 4),
            ("websocket_connections_active{hub=drained}".to_owned(), 0),
            ("signalr_gateway_connections_active{hub=drained,transport=web_sockets}".to_owned(), 0),
        ];
        settles(&format!("{version:?}"), &envoy, wanted, &expected);
    }
}

#[test]
fn a_websocket_for_which_a_cluster_has_no_room_is_a_failed_handshake() {
    let one = json!({ "thresholds": [{ "max_requests": 1 }] });
    let envoy = start_obedient(EnvoyVersion::Newest, "frames", &["full"], move |bootstrap| {
        bootstrap["static_resources"]["clusters"][0]["circuit_breakers"] = one.clone();
    });
    let open = client(&envoy, "full");
    assert_eq!(upgrade(&envoy.url(), "/full").err(), Some(Some(503)));
    let expected = [
        ("websocket_handshake_failures_total{hub=full,status=503}".to_owned(), 1),
        ("websocket_errors_total{hub=full,kind=unavailable}".to_owned(), 1),
        ("websocket_connections_active{hub=full}".to_owned(), 1),
        ("signalr_gateway_connections_active{hub=full,transport=web_sockets}".to_owned(), 1),
    ];
    let wanted = |series: &str| wanted(series) || series.contains("_failures_total");
    settles("full", &envoy, wanted, &expected);
    open.cut();
}
