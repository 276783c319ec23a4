//! What is none of SignalR's passes as if the filter were not there: pods and clients get the same, byte for byte, from
//! an Envoy with the filter and from one without.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::envoy::{EnvoyOptions, Filter, Patch, connection_manager};
use testbed::raw::{Answer, Body, Head, Request, Socket, Wire};
use testbed::tools::EnvoyVersion;
use tungstenite::Message;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;

use crate::gateway::{Gateway, every_version, keyed};
use crate::upstream::{Received, Script, echo, head, hub, respond};

/// What Envoy writes anew for every request.
const REQUEST_OWN: [&str; 1] = ["x-request-id"];
const RESPONSE_OWN: [&str; 2] = ["date", "x-envoy-upstream-service-time"];

const MEBIBYTE: usize = 1_024 * 1_024;

/// Answers such as other applications give.
fn application() -> Script {
    let large = Arc::new(pattern(10 * MEBIBYTE));
    Arc::new(move |received, wire| match received.path() {
        "/download" => respond(wire, "200 OK", &[("content-type", "application/octet-stream")], &large),
        "/bytes" => {
            let mut head = head("200 OK", &[("Set-Cookie", "a=1; Path=/"), ("set-cookie", "b=2"), ("X-Case", "Kept")]);
            head.extend(b"x-bytes: \xff\xfe\x80\r\ncontent-length: 2\r\n\r\nok");
            wire.write_all(&head)
        }
        "/json" => respond(wire, "200 OK", &[("content-type", "application/json")], br#"{"connectionId":"a"}"#),
        "/moved" => respond(wire, "302 Found", &[("location", "/chat?id=a.b")], b""),
        "/head" if received.method() == "HEAD" => {
            wire.write_all(&[head("200 OK", &[]), b"content-length: 7\r\n\r\n".to_vec()].concat())
        }
        "/refused" => respond(wire, "413 Content Too Large", &[("connection", "close")], b"no"),
        "/echo" => echo(received, wire, &[]),
        _ => respond(wire, "200 OK", &[("content-type", "text/plain")], b"here you are"),
    })
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

fn raw(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let upload = |target, method| Request { body: &pattern(MEBIBYTE), ..Request::new(method, target) }.bytes();
    let preflight = Request::new("OPTIONS", "/chat?id=abc").with("origin", "https://a.test");
    let preflight = preflight.with("access-control-request-method", "POST");
    let large = "v".repeat(60 * 1_024);
    let mut chunked = raw("POST /upload HTTP/1.1\nHost: a.test\nTransfer-Encoding: chunked\n\n");
    for chunk in pattern(200_000).chunks(9_999) {
        chunked.extend(format!("{:x}\r\n", chunk.len()).bytes().chain(chunk.iter().copied()).chain(*b"\r\n"));
    }
    chunked.extend(b"0\r\n\r\n");
    vec![
        ("a page", Request::get("/").with("cookie", "a=1; signalr-affinity=x; signalr-client=y").bytes()),
        (
            "bytes that are no text",
            [raw("GET /bytes HTTP/1.1\nHost: a.test\nX-Bytes: "), b"\xff\xfe\x80\r\n\r\n".to_vec()].concat(),
        ),
        (
            "bytes that are no text, with an id",
            [raw("GET /bytes?id=a.b HTTP/1.1\nHost: a.test\nCookie: "), b"\xff=\xfe\r\n\r\n".to_vec()].concat(),
        ),
        ("a header of 60 KiB", Request::get("/").with("x-large", &large).bytes()),
        ("a header of 60 KiB, with an id", Request::get("/chat?id=a.b").with("x-large", &large).bytes()),
        (
            "a field three times",
            Request::get("/?id=7").with("x-a", "1").with("X-A", "2").with("x-b", "").with("x-a", "3").bytes(),
        ),
        ("an id elsewhere", Request::get("/shop?id=42").bytes()),
        ("an id with dots elsewhere", Request::get("/shop?x=%20&id=1.2.3&y=a+b").with("accept", "text/html").bytes()),
        ("an id elsewhere to a JSON answer", Request::get("/json?id=1.2").bytes()),
        ("an id elsewhere to a redirect", Request::get("/moved?id=1.2").bytes()),
        ("a preflight", preflight.bytes()),
        ("an upload", upload("/upload", "POST")),
        ("an upload with an id", upload("/upload?id=a.b", "POST")),
        ("PUT", upload("/upload?id=9", "PUT")),
        ("a chunked upload", chunked),
        ("an upload that is refused", upload("/refused?id=9", "POST")),
        ("HEAD", Request::new("HEAD", "/head?id=4").bytes()),
        ("GET negotiate", Request::get("/chat/negotiate?negotiateVersion=1").with("accept-encoding", "gzip").bytes()),
        (
            "a path that only contains negotiate",
            Request::post("/negotiate/now").with("accept-encoding", "gzip").bytes(),
        ),
        ("a download", Request::get("/download").bytes()),
        ("a download with an id", Request::get("/download?id=a.b").bytes()),
        ("HTTP/1.0's close", Request::get("/").with("connection", "close").bytes()),
        ("no such method", Request::new("PROPFIND", "/dav?id=1").bytes()),
    ]
}

/// What the pod and the client got.
fn through(gateway: &Gateway, request: &[u8]) -> (Vec<Received>, Answer) {
    let mut connection = Wire::open(&gateway.envoy.url());
    connection.send(request);
    let method = String::from_utf8_lossy(request.split(|byte| *byte == b' ').next().unwrap()).into_owned();
    let Answer { head, body } = connection.receive(&method).unwrap();
    let received = gateway.take_received().into_iter();
    let received = received.map(|Received { head, body }| Received { head: head.without(&REQUEST_OWN), body });
    (received.collect(), Answer { head: head.without(&RESPONSE_OWN), body })
}

fn larger_headers() -> Option<Patch> {
    Some(Box::new(|bootstrap: &mut Value| connection_manager(bootstrap)["max_request_headers_kb"] = json!(96)))
}

#[test]
fn other_requests_pass_as_if_there_were_no_filter() {
    // Every request is looked at most closely when any path may be a hub and all cookies are on.
    let settings = json!({ "affinity": { "client_cookie": { "enabled": true, "paths": ["/app"] } } });
    for (version, options) in every_version(&settings) {
        let with = Gateway::with([application()], EnvoyOptions { patch: larger_headers(), ..options });
        let options =
            EnvoyOptions { version, filter: Filter::Absent, patch: larger_headers(), ..EnvoyOptions::default() };
        let without = Gateway::with([application()], options);
        for (name, request) in requests() {
            let (with, without) = (through(&with, &request), through(&without, &request));
            assert_eq!((with.0.len(), without.0.len()), (1, 1), "{version:?} {name}: {:?}", with.1.head);
            for (with, without) in with.0.iter().zip(&without.0) {
                assert_eq!(with.head, without.head, "{version:?} {name}: upstream");
                assert!(with.body == without.body, "{version:?} {name}: content upstream");
            }
            assert_eq!(with.1.head, without.1.head, "{version:?} {name}: downstream");
            assert!(with.1.body == without.1.body, "{version:?} {name}: content downstream");
        }
    }
}

/// An event stream of another application: each event comes when it is sent, not when the stream ends.
#[test]
fn other_event_streams_are_not_held_back() {
    let seen = Arc::new(AtomicBool::new(false));
    let flag = seen.clone();
    let pod: Script = Arc::new(move |received, wire| {
        if received.path() == "/seen" {
            flag.store(true, Ordering::SeqCst);
            return respond(wire, "200 OK", &[], b"");
        }
        let head = head("200 OK", &[("content-type", "text/event-stream"), ("transfer-encoding", "chunked")]);
        wire.write_all(&[head, b"\r\n9\r\ndata: 1\n\n\r\n".to_vec()].concat())?;
        while !flag.swap(false, Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        wire.write_all(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")
    });
    let (_, options) = every_version(&json!({})).last().unwrap();
    let gateway = Gateway::with([pod], options);
    for target in ["/events", "/events?id=7", "/chat?id=tok"] {
        let mut connection = Wire::open(&gateway.envoy.url());
        connection.send(&Request::get(target).with("accept", "text/event-stream").bytes());
        let head = connection.read_head().unwrap().unwrap();
        assert_eq!(head.all("content-type"), ["text/event-stream"], "{target}");
        assert_eq!(connection.read_chunk().unwrap(), b"data: 1\n\n", "{target}");
        assert_eq!(gateway.ask(&Request::get("/seen")).status(), 200, "{target}");
        assert_eq!(connection.read_body(&head, Body::OfResponse).unwrap(), b"data: 2\n\n", "{target}");
    }
}

/// The opening is compared as any request is; then frames of all kinds pass, whoever they belong to.
#[test]
fn websockets_of_other_applications_pass() {
    let options =
        |settings| EnvoyOptions { filter: Filter::With(keyed(settings)), concurrency: 2, ..Default::default() };
    let any = Gateway::with([application()], options(json!({})));
    let listed = Gateway::with([application()], options(json!({ "hubs": [{ "path": "/chat" }] })));
    let without = Gateway::with(
        [application()],
        EnvoyOptions { version: EnvoyVersion::Newest, filter: Filter::Absent, ..EnvoyOptions::default() },
    );
    for target in ["/echo", "/echo?id=42", "/echo?id=a.b&x=1"] {
        let request = Request::websocket(target)
            .with("sec-websocket-protocol", "graphql-ws")
            .with("sec-websocket-extensions", "permessage-deflate; client_max_window_bits");
        let expected = opened(&without, &request, target);
        for (name, gateway) in [("any path is a hub", &any), ("another path is", &listed)] {
            assert_eq!(opened(gateway, &request, target), expected, "{name}, {target}");
        }
    }
}

/// Opens a WebSocket, sends frames of all kinds, and returns what the pod and the client got at the opening.
fn opened(gateway: &Gateway, request: &Request<'_>, target: &str) -> (Head, Head) {
    let Socket { answer, frames: mut websocket, .. } = Socket::open(Wire::open(&gateway.envoy.url()), request).unwrap();
    for message in [
        Message::text("hello"),
        Message::text(""),
        Message::binary(pattern(MEBIBYTE)),
        Message::Ping(b"p".to_vec().into()),
        Message::text("last"),
    ] {
        websocket.send(message.clone()).unwrap();
        let expected = match message {
            Message::Ping(payload) => Message::Pong(payload),
            other => other,
        };
        assert!(websocket.read().unwrap() == expected, "{target}");
    }
    let close = CloseFrame { code: CloseCode::Library(4_000), reason: "enough".into() };
    websocket.close(Some(close.clone())).unwrap();
    assert_eq!(websocket.read().unwrap(), Message::Close(Some(close)), "{target}");
    (gateway.take_one(target).head.without(&REQUEST_OWN), answer.head.without(&RESPONSE_OWN))
}

/// The control of the tests above: what is SignalR's is not left alone.
#[test]
fn the_comparison_can_fail() {
    let with = Gateway::start(json!({}));
    let without = Gateway::with([hub(0)], EnvoyOptions { filter: Filter::Absent, ..EnvoyOptions::default() });
    let request = Request::post("/chat/negotiate?negotiateVersion=1").with("accept-encoding", "gzip").bytes();
    let (with, without) = (through(&with, &request), through(&without, &request));
    assert_ne!(with.0[0].head, without.0[0].head);
    assert_ne!(with.1.body.len(), without.1.body.len());
}
