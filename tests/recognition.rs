//! Tier 6: the filter and a real hub read a request alike, however it is written, over HTTP/1.1 and HTTP/2.
//!
//! What a hub took a request for shows in its answer, what the filter took it for in `x-signalr-explain`. Where the two
//! differ, limits and metrics pass the request by.

use serde_json::json;
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts, restrict_to_hub_routes};
use testbed::hub::three_hubs;
use testbed::raw::{Answer, Client, Request, ask, http2};

/// What the hub took the request for.
fn by_hub(answer: &Answer) -> &'static str {
    match (answer.status(), answer.head.one("content-type")) {
        (101, _) => "websocket",
        (200, Some("text/event-stream")) => "server_sent_events",
        (200, Some("application/json")) => "negotiate",
        (200, Some("application/octet-stream")) => "poll",
        (200, Some("text/plain")) => "send",
        (202, _) => "delete",
        _ => "refused",
    }
}

/// What the filter took it for.
fn by_filter(answer: &Answer) -> String {
    let explained = answer.head.one("x-signalr-explain").unwrap_or_default();
    let step = explained.split([' ', ';', ',']).find_map(|part| part.strip_prefix("step="));
    step.unwrap_or("nothing").to_owned()
}

/// Sends one request on a connection of its own.
type Ask = fn(&str, &Request<'_>) -> Answer;

fn over_http2(url: &str, request: &Request<'_>) -> Answer {
    http2::Connection::open(url).ask(request)
}

/// A connection id of its own, as the client has it.
fn token(envoy: &Envoy) -> String {
    Client::of(&envoy.url()).negotiate().unwrap()
}

#[test]
fn requests_are_what_the_hub_takes_them_for() {
    let hubs = three_hubs().unwrap();
    let settings = json!({"explain": true, "affinity": {"client_cookie": {"enabled": true, "paths": ["/*"]}}});
    let everywhere = Envoy::before(&hubs, Filter::With(settings.clone())).unwrap();
    // By the routes of envoy/README.md, "On the routes of hubs alone", nothing may pass the filter by.
    let patch = Some(Box::new(restrict_to_hub_routes) as _);
    let options =
        EnvoyOptions { filter: Filter::With(settings), hosts: Hosts::of(&hubs), patch, ..EnvoyOptions::default() };
    let on_hub_routes = Envoy::start(&options).unwrap();
    [everywhere, on_hub_routes].iter().for_each(recognises_each);
}

fn recognises_each(envoy: &Envoy) {
    let websocket = Request::websocket("/chat");
    let upgrade = &websocket.fields[..];
    let events: &[_] = &[("accept", "text/event-stream")];
    let html: &[_] = &[("accept", "text/html")];
    for (method, target, fields, expected) in [
        ("POST", "/chat/negotiate?negotiateVersion=1", &[][..], "negotiate"),
        ("POST", "/chat/negotiate?negotiateVersion=1&id&id", &[], "negotiate"),
        ("POST", "/chat/negotiate?negotiateVersion=1&id=a&id=b", &[], "negotiate"),
        ("POST", "/CHAT/Negotiate/?NEGOTIATEVERSION=1", &[], "negotiate"),
        ("POST", "/chat/negotiat%65?negotiateVersion=1", &[], "negotiate"),
        ("post", "/chat/negotiate?negotiateVersion=1", &[], "negotiate"),
        ("GET", "/chat?id=TOKEN", upgrade, "websocket"),
        ("GET", "/chat?id=&id=TOKEN", upgrade, "websocket"),
        ("GET", "/chat", upgrade, "websocket"),
        ("GET", "/chat?id=", upgrade, "websocket"),
        ("GET", "/chat?id=TOKEN", events, "server_sent_events"),
        ("GET", "/chat?id&id=TOKEN", events, "server_sent_events"),
        ("GET", "/chat?id=TOKEN", &[("accept", "*/*, text/event-stream")], "server_sent_events"),
        ("GET", "/chat?id=TOKEN", &[("accept", "TEXT/event-stream")], "server_sent_events"),
        ("GET", "/chat?id=TOKEN", &[("accept", "*/*"), ("accept", "text/event-stream")], "server_sent_events"),
        ("GET", "/chat?id=TOKEN", &[("accept", "text/event-stream;x=1")], "poll"),
        ("GET", "/chat?id=TOKEN", &[("accept", "text/event-stream;q=0.9")], "poll"),
        ("GET", "/chat?id=TOKEN", &[("accept", "x/y;a=\",text/event-stream,\"")], "poll"),
        ("GET", "/chat?id=TOKEN", &[], "poll"),
        ("GET", "/chat?%49D=TOKEN", &[], "poll"),
        ("GET", "/chat?id=TOKEN", html, "poll"),
        ("get", "/chat?id=TOKEN", &[], "poll"),
        ("Get", "/chat?id=TOKEN", events, "server_sent_events"),
        // The hub cannot know what these were.
        ("GET", "/chat?id=TOKEN", &upgrade[2..], "poll upgrade_lost"),
        (
            "GET",
            "/chat?id=TOKEN",
            &[("sec-websocket-version", "13"), ("accept", "text/event-stream")],
            "server_sent_events upgrade_lost",
        ),
        ("GET", "/chat?id=TOKEN&id=b", &upgrade[3..], "refused upgrade_lost"),
        // Other ids do not change what a request is; the hub knows no connection of two ids.
        ("GET", "/chat?id=TOKEN&id=b", upgrade, "refused websocket"),
        ("GET", "/chat?id=TOKEN&ID=b", events, "refused server_sent_events"),
        ("GET", "/chat?id=TOKEN&id=b", &[], "refused poll"),
    ] {
        let (hub, filter) = expected.split_once(' ').unwrap_or((expected, expected));
        let custom = method.bytes().any(|byte| byte.is_ascii_lowercase());
        // Envoy's HTTP/1.1 has no such methods; its HTTP/2 has no `upgrade`, and `tests/envoy/http2.rs` has its WebSockets.
        let versions: [Option<Ask>; 2] =
            [(!custom).then_some(ask as Ask), (fields != upgrade).then_some(over_http2 as Ask)];
        for (version, ask) in [1, 2].into_iter().zip(versions).filter_map(|(version, ask)| Some((version, ask?))) {
            let target = target.replace("TOKEN", &token(envoy));
            let answer = ask(&envoy.url(), &Request { fields: fields.to_vec(), ..Request::new(method, &target) });
            let got = (by_hub(&answer), by_filter(&answer));
            let asked = format!("HTTP/{version} {method} {target} {fields:?}");
            assert_eq!(got, (hub, filter.to_owned()), "{asked}: {}", answer.status());
        }
    }
}
