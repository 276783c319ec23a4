//! Tier 6: the filter and a real hub read a request alike, however it is written, over HTTP/1.1 and HTTP/2.
//!
//! What a hub took a request for shows in its answer, what the filter took it for in `x-signalr-explain`. Where the two
//! differ, limits and metrics pass the request by.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use serde_json::json;
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts};
use testbed::http;
use testbed::hub::{Hub, three_hubs};
use testbed::process::PATIENCE;

/// The head of an answer.
struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
}

impl Answer {
    fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    /// What the hub took the request for.
    fn by_hub(&self) -> &'static str {
        match (self.status, self.field("content-type")) {
            (101, _) => "websocket",
            (200, "text/event-stream") => "server_sent_events",
            (200, "application/json") => "negotiate",
            (200, "application/octet-stream") => "poll",
            (200, "text/plain") => "send",
            (202, _) => "delete",
            _ => "refused",
        }
    }

    /// What the filter took it for.
    fn by_filter(&self) -> String {
        let explained =
            self.field("x-signalr-explain").split([' ', ';', ',']).find_map(|part| part.strip_prefix("step="));
        explained.unwrap_or("nothing").to_owned()
    }
}

/// Sends one request on a connection of its own: method, target, header fields.
type Ask = fn(&Envoy, &str, &str, &[(&str, &str)]) -> Answer;

fn over_http1(envoy: &Envoy, method: &str, target: &str, fields: &[(&str, &str)]) -> Answer {
    let mut stream = TcpStream::connect(envoy.url().trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = if method.eq_ignore_ascii_case("post") { "content-length: 0\r\n" } else { "" };
    write!(stream, "{method} {target} HTTP/1.1\r\nhost: gateway\r\n{fields}{length}\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let fields = lines.take_while(|line| !line.is_empty()).filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_owned(), value.to_owned()))
    });
    Answer { status, fields: fields.collect() }
}

fn over_http2(envoy: &Envoy, method: &str, target: &str, fields: &[(&str, &str)]) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let url = envoy.url();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
        let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(async { drop(connection.await) });
        let request = tungstenite::http::Request::builder().method(method).uri(format!("http://gateway{target}"));
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let (answer, _) = requests.send_request(request.body(()).unwrap(), true).unwrap();
        let head = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap().into_parts().0;
        let fields = head.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        Answer { status: head.status.as_u16(), fields: fields.collect() }
    })
}

/// A connection id of its own, as the client has it.
fn token(envoy: &Envoy) -> String {
    let (_, answer) = http::post(&format!("{}/chat/negotiate?negotiateVersion=1", envoy.url())).unwrap();
    serde_json::from_str::<serde_json::Value>(&answer).unwrap()["connectionToken"].as_str().unwrap().to_owned()
}

const UPGRADE: [(&str, &str); 4] = [
    ("upgrade", "websocket"),
    ("connection", "Upgrade"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

#[test]
fn requests_are_what_the_hub_takes_them_for() {
    let hubs = three_hubs().unwrap();
    let settings = json!({"explain": true, "affinity": {"client_cookie": {"enabled": true, "paths": ["/*"]}}});
    let hosts = Hosts::Fixed(hubs.iter().map(Hub::address).collect());
    let envoy =
        Envoy::start(&EnvoyOptions { filter: Filter::With(settings), hosts, ..EnvoyOptions::default() }).unwrap();
    let events: &[_] = &[("accept", "text/event-stream")];
    let html: &[_] = &[("accept", "text/html")];
    for (method, target, fields, expected) in [
        ("POST", "/chat/negotiate?negotiateVersion=1", &[][..], "negotiate"),
        ("POST", "/chat/negotiate?negotiateVersion=1&id&id", &[], "negotiate"),
        ("POST", "/chat/negotiate?negotiateVersion=1&id=a&id=b", &[], "negotiate"),
        ("POST", "/CHAT/Negotiate/?NEGOTIATEVERSION=1", &[], "negotiate"),
        ("POST", "/chat/negotiat%65?negotiateVersion=1", &[], "negotiate"),
        ("post", "/chat/negotiate?negotiateVersion=1", &[], "negotiate"),
        ("GET", "/chat?id=TOKEN", &UPGRADE, "websocket"),
        ("GET", "/chat?id=&id=TOKEN", &UPGRADE, "websocket"),
        ("GET", "/chat", &UPGRADE, "websocket"),
        ("GET", "/chat?id=", &UPGRADE, "websocket"),
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
        // Other ids do not change what a request is; the hub knows no connection of two ids.
        ("GET", "/chat?id=TOKEN&id=b", &UPGRADE, "refused websocket"),
        ("GET", "/chat?id=TOKEN&ID=b", events, "refused server_sent_events"),
        ("GET", "/chat?id=TOKEN&id=b", &[], "refused poll"),
    ] {
        let (hub, filter) = expected.split_once(' ').unwrap_or((expected, expected));
        let custom = method.bytes().any(|byte| byte.is_ascii_lowercase());
        // Envoy's HTTP/1.1 has no such methods; its HTTP/2 has no `upgrade`, and `tests/envoy/http2.rs` has its WebSockets.
        let versions: [Option<Ask>; 2] =
            [(!custom).then_some(over_http1 as Ask), (fields != UPGRADE).then_some(over_http2 as Ask)];
        for (version, ask) in [1, 2].into_iter().zip(versions).filter_map(|(version, ask)| Some((version, ask?))) {
            let target = target.replace("TOKEN", &token(&envoy));
            let answer = ask(&envoy, method, &target, fields);
            let got = (answer.by_hub(), answer.by_filter());
            assert_eq!(got, (hub, filter.to_owned()), "HTTP/{version} {method} {target} {fields:?}: {}", answer.status);
        }
    }
}
