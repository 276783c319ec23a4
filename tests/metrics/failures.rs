//! What goes wrong before a WebSocket is open, or beside it: each failure under its own name.

use std::io::Read as _;
use std::net::TcpListener;

use serde_json::{Value, json};
use testbed::clients::{NodeClient, Task, Transport, start_node};
use testbed::envoy::{Envoy, EnvoyOptions, Hosts, Patch, put_routes_first, remove_health_checks};
use testbed::hub::{Hub, HubOptions, shared_hubs};
use testbed::raw::{self, Request, Wire};

use crate::client::{Client, negotiate, upgrade};
use crate::scrape::{Series, series, settles, start};

/// Asks for `target`; returns the status and the header `x-signalr-explain`.
fn ask(envoy: &Envoy, method: &str, target: &str, accept: &str) -> (u16, String) {
    let answer = raw::ask(&envoy.url(), &Request::new(method, target).with("accept", accept));
    (answer.status(), answer.head.one("x-signalr-explain").unwrap_or_default().to_owned())
}

/// What grew between two looks.
fn grown(before: &Series, after: &Series) -> Vec<String> {
    let new = after.iter().filter(|(name, value)| before.get(*name).copied().unwrap_or(0) < **value);
    new.map(|(name, value)| format!("{name} +{}", value - before.get(name).copied().unwrap_or(0))).collect()
}

/// Answers of a gateway before hubs of its own: an authorization, a page for everything, a redirect.
fn gateway_answers(bootstrap: &mut Value) {
    let direct =
        |path: &str, status: u16| json!({ "match": { "path": path }, "direct_response": { "status": status } });
    let routes = vec![
        direct("/unauthorized", 401),
        direct("/forbidden", 403),
        direct("/page", 200),
        direct("/plain", 400),
        direct("/large", 431),
        json!({ "match": { "path": "/moved" }, "redirect": { "path_redirect": "/chat", "response_code": "TEMPORARY_REDIRECT" } }),
    ];
    put_routes_first(bootstrap, routes);
}

#[test]
fn each_failure_is_counted_under_its_own_name() {
    let mut hubs = [Hub::start(&HubOptions::default()).unwrap()];
    // One thread, so that it knows every hub that was learned.
    let envoy = start(&hubs, 1, json!({}), gateway_answers);
    let base = envoy.url();
    let fails = |target: &str| upgrade(&base, target).err().flatten();

    let chat = raw::Client::of(&base);
    let ended = negotiate(&base);
    Client::with_token(&chat, &ended).close(Some(1000));
    let held = negotiate(&base);
    let open = Client::with_token(&chat, &held);
    let events = "text/event-stream";

    type Attempt<'a> = (&'a str, Option<u16>, &'a dyn Fn() -> Option<u16>, &'a [&'a str]);
    let before_all: [Attempt<'_>; 15] = [
        ("unknown_connection", Some(404), &|| fails("/chat?id=made-up"), &["/chat", "404"]),
        ("late_request", Some(404), &|| fails(&format!("/chat?id={ended}")), &["/chat", "404"]),
        ("not_a_hub", Some(404), &|| fails("/nothing"), &["other", "404"]),
        ("already_connected", Some(409), &|| fails(&format!("/chat?id={held}")), &["/chat", "409"]),
        (
            "transport_changed",
            Some(400),
            &|| Some(ask(&envoy, "GET", &format!("/chat?id={held}"), events).0),
            &["/chat"],
        ),
        (
            "send_on_websocket",
            Some(405),
            &|| Some(ask(&envoy, "POST", &format!("/chat?id={held}"), "*/*").0),
            &["/chat"],
        ),
        ("unauthorized", Some(401), &|| fails("/unauthorized"), &["other", "401"]),
        ("forbidden", Some(403), &|| fails("/forbidden"), &["other", "403"]),
        ("token_too_large", Some(431), &|| fails("/large"), &["other", "431"]),
        ("redirected", Some(307), &|| fails("/moved"), &["other", "307"]),
        ("upgrade_lost", Some(200), &|| fails("/page"), &["other", "200"]),
        ("websockets_unavailable", Some(400), &|| fails("/plain"), &["other", "400"]),
        ("missing_id", Some(400), &|| Some(ask(&envoy, "GET", "/chat", "*/*").0), &["/chat"]),
        ("cors_or_method", Some(405), &|| Some(ask(&envoy, "OPTIONS", "/chat/negotiate", "*/*").0), &["/chat"]),
        ("not_a_hub", Some(404), &|| Some(ask(&envoy, "POST", "/nothing/negotiate", "*/*").0), &["other"]),
    ];
    for (kind, status, attempt, labels) in before_all {
        let before = series(&envoy);
        assert_eq!(attempt(), status, "{kind}");
        let hub = labels[0];
        let mut expected = vec![format!("websocket_errors_total{{hub={hub},kind={kind}}} +1")];
        expected.extend(
            labels.get(1).map(|status| format!("websocket_handshake_failures_total{{hub={hub},status={status}}} +1")),
        );
        let found = grown(&before, &series(&envoy));
        let failures: Vec<_> =
            found.iter().filter(|line| line.contains("_errors_") || line.contains("_failures_")).collect();
        assert_eq!(failures, expected.iter().collect::<Vec<_>>(), "{kind}");
    }

    // What no client of SignalR's does: a frame with a reserved opcode.
    let mut broken = upgrade(&base, &format!("/chat?id={}", negotiate(&base))).unwrap();
    broken.frames.get_mut().send(&[0x83, 0x80, 0, 0, 0, 0]);
    let _ = broken.frames.get_mut().read(&mut [0]);
    drop(broken);
    hubs[0].kill();
    open.read_to_end();
    assert_eq!(fails("/chat"), Some(503));
    let known = |series: &str| {
        series.contains("kind=protocol") || series.contains("kind=unavailable") || series.contains("status=503")
    };
    let expected = [
        ("websocket_errors_total{hub=/chat,kind=protocol}".to_owned(), 1),
        ("websocket_errors_total{hub=/chat,kind=unavailable}".to_owned(), 1),
        ("websocket_handshake_failures_total{hub=/chat,status=503}".to_owned(), 1),
    ];
    settles("a broken frame and a dead hub", &envoy, known, &expected);
}

#[test]
fn a_transport_that_the_hub_does_not_offer_is_told_from_a_wrong_path() {
    for offered in [Transport::LongPolling, Transport::WebSockets] {
        let environment = vec![("TRANSPORTS".to_owned(), format!("{offered:?}").into())];
        let hubs = [Hub::start(&HubOptions { environment, ..HubOptions::default() }).unwrap()];
        let envoy = start(&hubs, 2, json!({}), |_| {});
        let connect = |transport| {
            let target = format!("/chat?id={}", negotiate(&envoy.url()));
            match transport {
                Transport::WebSockets => upgrade(&envoy.url(), &target).err().flatten(),
                Transport::ServerSentEvents => Some(ask(&envoy, "GET", &target, "text/event-stream").0),
                Transport::LongPolling => Some(ask(&envoy, "GET", &target, "*/*").0),
            }
        };
        let mut expected = vec![("websocket_errors_total{hub=/chat,kind=transport_disabled}".to_owned(), 2)];
        for transport in Transport::ALL.into_iter().filter(|transport| *transport != offered) {
            assert_eq!(connect(transport), Some(404), "{transport:?} where {offered:?} is offered");
            if transport == Transport::WebSockets {
                expected.push(("websocket_handshake_failures_total{hub=/chat,status=404}".to_owned(), 1));
            }
        }
        let failures = |series: &str| series.contains("_errors_") || series.contains("_failures_");
        settles(&format!("{offered:?} is offered"), &envoy, failures, &expected);
    }
}

/// Only where messages are read. By the hub's patience as it comes, 15 s, and the client's, 30 s.
#[test]
fn a_handshake_that_fails_and_a_hub_that_falls_silent_have_their_names() {
    let environment = [("KEEP_ALIVE_SECONDS", "90"), ("PATIENCE_SECONDS", "")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.into())).into();
    let options = HubOptions { environment, ..HubOptions::default() };
    let hubs = [Hub::start(&options).unwrap()];
    let envoy = start(&hubs, 2, json!({ "metrics": { "detail": "messages" } }), |_| {});
    let patient = start_node(NodeClient { task: Task::of(envoy.url(), 1), ..NodeClient::default() }).unwrap();
    let [mut odd, mut silent] =
        [(); 2].map(|()| upgrade(&envoy.url(), &format!("/chat?id={}", negotiate(&envoy.url()))).unwrap());
    odd.send(&json!({ "protocol": "odd", "version": 1 })).unwrap();
    for (name, socket) in [("odd", &mut odd), ("silent", &mut silent)] {
        let said = socket.frames.read().unwrap();
        assert!(said.to_text().unwrap().contains("\"error\":"), "{name}: {said}");
        while socket.frames.read().is_ok() {}
    }
    let gave_up = patient.finish().unwrap();
    let cut = gave_up.tries[0].cut.as_deref();
    assert!(cut.is_some_and(|cut| cut.starts_with("Server timeout elapsed")), "{gave_up:?}");
    let error = |kind| (format!("websocket_errors_total{{hub=/chat,kind={kind}}}"), 1);
    let expected = ["handshake_rejected", "handshake_timeout", "server_timeout"].map(error);
    settles("three failures", &envoy, |series| series.contains("_errors_total"), &expected);
}

/// A pod that takes connections and never answers. Without health checks, which would wait for it.
#[test]
fn a_client_that_leaves_before_the_answer_is_a_failed_handshake_without_status() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let hosts = Hosts::Fixed(vec![silent.local_addr().unwrap().to_string()]);
    let patch: Option<Patch> = Some(Box::new(remove_health_checks));
    let envoy = Envoy::start(&EnvoyOptions { hosts, patch, ..EnvoyOptions::default() }).unwrap();
    let mut client = Wire::open(&envoy.url());
    client.send(&Request::websocket("/chat").bytes());
    let (mut upstream, _) = silent.accept().unwrap();
    // The request has passed the filter.
    assert!(upstream.read(&mut [0; 16]).unwrap() > 0);
    drop(client);
    let expected = [
        ("websocket_handshake_failures_total{hub=other,status=none}".to_owned(), 1),
        ("signalr_gateway_connections_active{hub=other,transport=web_sockets}".to_owned(), 0),
        ("websocket_connections_active{hub=other}".to_owned(), 0),
    ];
    settles("left early", &envoy, |_| true, &expected);
}

#[test]
fn the_explain_header_says_what_was_decided_and_no_secret() {
    let hubs = &shared_hubs().unwrap()[..1];
    let envoy = start(hubs, 2, json!({"explain": true}), |_| {});
    let token = negotiate(&envoy.url());
    let forged = format!("{}x", token.split_once('.').map_or(token.as_str(), |(id, _)| id)) + ".AAAA";
    for (name, method, target, expected) in [
        ("negotiate", "POST", "/chat/negotiate?negotiateVersion=1".to_owned(), "step=negotiate; affinity=balanced"),
        ("send", "POST", format!("/chat?id={token}"), "step=send; affinity=connection_token:routed"),
        ("forged", "GET", format!("/chat?id={forged}"), "step=poll; affinity=connection_token:forged"),
        ("delete", "DELETE", format!("/chat?id={token}"), "step=delete; affinity=connection_token:routed"),
        ("not SignalR's", "GET", "/".to_owned(), ""),
    ] {
        let (_, explain) = ask(&envoy, method, &target, "*/*");
        assert_eq!(explain, expected, "{name}");
    }
    let quiet = start(hubs, 1, json!({}), |_| {});
    assert_eq!(ask(&quiet, "POST", "/chat/negotiate?negotiateVersion=1", "*/*").1, "", "without `explain`");
}
