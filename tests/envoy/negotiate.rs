//! Answers to a negotiate: only an id that a client will send back gets a route, and every other byte stays.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use envoy_signalr::token::Purpose;
use serde_json::{Value, json};
use testbed::process::wait_for;
use testbed::raw::{Body, Request, Wire};

use crate::gateway::{Gateway, every_version, opened};
use crate::upstream::{Script, head};

const V1: &str = r#"{"negotiateVersion":1,"connectionId":"pub","connectionToken":"tok","availableTransports":[{"transport":"WebSockets","transferFormats":["Text","Binary"]}]}"#;
const V0: &str =
    r#"{"connectionId":"tok","availableTransports":[{"transport":"LongPolling","transferFormats":["Text"]}]}"#;
const ODD: &str = "\t{ \"x\" : [1, 2.50, {\"connectionToken\":\"no\"}] ,\r\n\"availableTransports\":[],\"connectionToken\": \"\\u0074ok\" , \"y\":\"\\/\u{e9}\", \"connectionId\":\"pub\" }\n";
const TOKEN: &str = r#""connectionToken":"tok"#;
const NO_TYPE: &str = "";
const MOST: usize = 16 * 1_024;

/// How the content of an answer is sent.
#[derive(Clone, Copy, Debug)]
enum Framing {
    Length,
    /// In chunks of so many bytes, each in a packet of its own.
    Chunks(usize),
}

use Framing::{Chunks, Length};

/// What is to become of an answer.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// The id that this is the end of gets a route; counted as `sealed`.
    SealedBehind(&'static str),
    /// Nothing changes; counted so.
    Same(&'static str),
}

use Expected::{Same, SealedBehind};

struct Case {
    /// Also the hub's path, by which the pod finds the answer and the test its count.
    name: &'static str,
    version: &'static str,
    status: &'static str,
    content_type: &'static str,
    encoding: Option<&'static str>,
    framing: Framing,
    body: Vec<u8>,
    expected: Expected,
}

fn case(name: &'static str, framing: Framing, body: impl Into<Vec<u8>>, expected: Expected) -> Case {
    let (version, status, content_type) = ("?negotiateVersion=1", "200 OK", "application/json");
    Case { name, version, status, content_type, encoding: None, framing, body: body.into(), expected }
}

/// An answer of `length` bytes.
fn long(length: usize) -> Vec<u8> {
    let mut body = V1.trim_end_matches('}').to_owned() + r#","x":""#;
    body.extend(std::iter::repeat_n('x', length - body.len() - 2));
    body += r#""}"#;
    assert_eq!(body.len(), length);
    body.into_bytes()
}

fn cases() -> Vec<Case> {
    // A gzip member's first bytes; nobody is to look further.
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xab\xae\x05\0".to_vec();
    let classic = r#"{"Url":"/signalr","ConnectionToken":"b","ConnectionId":"a","ProtocolVersion":"2.0"}"#;
    vec![
        case("length", Length, V1, SealedBehind(TOKEN)),
        case("chunked", Chunks(50), V1, SealedBehind(TOKEN)),
        case("single-bytes", Chunks(1), V1, SealedBehind(TOKEN)),
        case("odd-but-right", Chunks(7), ODD, SealedBehind(r#""\u0074ok"#)),
        Case { content_type: "Application/JSON; charset=utf-8", ..case("charset", Length, V1, SealedBehind(TOKEN)) },
        Case { version: "", ..case("version-0", Length, V0, SealedBehind(r#""connectionId":"tok"#)) },
        case("version-0-for-1", Length, V0, SealedBehind(r#""connectionId":"tok"#)),
        case("the-longest", Length, long(MOST), SealedBehind(TOKEN)),
        case("the-longest-chunked", Chunks(4_096), long(MOST), SealedBehind(TOKEN)),
        case("too-long", Length, long(MOST + 1), Same("too_large")),
        case("too-long-chunked", Chunks(4_096), long(MOST + 1), Same("too_large")),
        case("far-too-long-chunked", Chunks(65_536), long(4 * 1_024 * 1_024), Same("too_large")),
        case("odd-id", Length, V0.replace("tok", r"t\u0001k"), Same("unsealed")),
        case(
            "redirect",
            Length,
            r#"{"url":"https://x.test/c","accessToken":"t","availableTransports":[]}"#,
            Same("redirect"),
        ),
        case("error", Length, r#"{"error":"no"}"#, Same("error")),
        case("a-page", Chunks(3), "<!doctype html>", Same("unrecognised")),
        case("cut-json", Length, &V1[..V1.len() - 1], Same("unrecognised")),
        case("empty-chunked", Chunks(1), "", Same("unrecognised")),
        case("classic", Length, classic, Same("unrecognised")),
        Case { content_type: "text/plain", ..case("plain-text", Length, V1, SealedBehind(TOKEN)) },
        Case { content_type: "text/json; charset=utf-8", ..case("text-json", Chunks(9), V1, SealedBehind(TOKEN)) },
        Case { content_type: "application/octet-stream", ..case("bytes", Length, V1, SealedBehind(TOKEN)) },
        Case { content_type: NO_TYPE, ..case("no-type", Length, V1, SealedBehind(TOKEN)) },
        Case { content_type: "text/html", ..case("as-a-page", Length, V1, Same("unrecognised")) },
        Case { content_type: "text/event-stream", ..case("as-events", Chunks(9), V1, Same("unrecognised")) },
        Case { content_type: "application/x-ndjson", ..case("as-lines", Chunks(9), V1, Same("unrecognised")) },
        Case { encoding: Some("gzip"), ..case("gzip", Chunks(5), gzip, Same("encoded")) },
        Case { status: "401 Unauthorized", ..case("unauthorized", Length, V1, Same("failed")) },
        Case { status: "404 Not Found", ..case("not-found", Chunks(9), V1, Same("failed")) },
        Case { status: "503 Service Unavailable", ..case("unavailable", Length, "", Same("failed")) },
        Case { status: "204 No Content", ..case("no-content", Length, "", Same("failed")) },
    ]
}

fn pod(cases: Vec<Case>) -> Script {
    Arc::new(move |received, wire| {
        let case = cases.iter().find(|case| received.path() == format!("/{}/negotiate", case.name)).unwrap();
        let content_type = (case.content_type != NO_TYPE).then_some(("content-type", case.content_type));
        let encoding = case.encoding.map(|encoding| ("content-encoding", encoding));
        let fields = [&[("x-kept", "as it was")], content_type.as_slice(), encoding.as_slice()].concat();
        let head = head(case.status, &fields);
        write(wire, head, case)
    })
}

fn write(wire: &mut Wire, mut head: Vec<u8>, case: &Case) -> io::Result<()> {
    match case.framing {
        _ if case.status.starts_with("204") => wire.write_all(&[head, b"\r\n".to_vec()].concat()),
        Length => {
            head.extend(format!("content-length: {}\r\n\r\n", case.body.len()).bytes());
            wire.write_all(&[head, case.body.clone()].concat())
        }
        Chunks(size) => {
            wire.write_all(&[head, b"transfer-encoding: chunked\r\n\r\n".to_vec()].concat())?;
            for chunk in case.body.chunks(size) {
                let frame = [format!("{:x}\r\n", chunk.len()).into_bytes(), chunk.to_vec(), b"\r\n".to_vec()];
                wire.write_all(&frame.concat())?;
            }
            wire.write_all(b"0\r\n\r\n")
        }
    }
}

/// The route that stands in `got` behind `id`, when nothing else differs from `sent`.
fn seal_behind<'a>(id: &str, sent: &[u8], got: &'a [u8]) -> Option<&'a str> {
    let at = sent.windows(id.len()).position(|bytes| bytes == id.as_bytes())? + id.len();
    let inserted = got.strip_prefix(&sent[..at])?.strip_suffix(&sent[at..])?;
    str::from_utf8(inserted.strip_prefix(b".")?).ok()
}

/// All on one connection: an answer whose framing is wrong would spoil the next.
#[test]
fn only_an_id_changes_and_every_other_answer_stays_as_it_was() {
    let hubs: Vec<Value> = cases().iter().map(|case| json!({ "path": format!("/{}", case.name) })).collect();
    for (version, options) in every_version(&json!({ "hubs": hubs })) {
        let gateway = Gateway::with([pod(cases())], options);
        let mut connection = Wire::open(&gateway.envoy.url());
        for case in cases() {
            let name = format!("{version:?} {}", case.name);
            let target = format!("/{}/negotiate{}", case.name, case.version);
            let request = Request::post(&target).with("accept-encoding", "gzip, br").with("Accept-Encoding", "zstd");
            let mut answer = connection.ask(&request);
            if case.content_type == "text/event-stream" {
                // Left to be read, since most have no end.
                answer.body = connection.read_body(&answer.head, Body::OfResponse).unwrap();
            }
            assert_eq!(answer.head.start, format!("HTTP/1.1 {}", case.status), "{name}");
            assert_eq!(answer.head.all("x-kept"), ["as it was"], "{name}");
            assert_eq!(answer.head.one("content-encoding"), case.encoding, "{name}");
            let received = gateway.take_one(&name);
            assert_eq!(received.target(), target, "{name}");
            assert_eq!(received.head.all("accept-encoding"), ["identity"], "{name}");
            let result = match case.expected {
                Same(result) => {
                    assert!(answer.body == case.body, "{name}: {}", String::from_utf8_lossy(&answer.body));
                    result
                }
                SealedBehind(id) => {
                    let seal = seal_behind(id, &case.body, &answer.body);
                    let seal = seal.unwrap_or_else(|| panic!("{name}: {}", String::from_utf8_lossy(&answer.body)));
                    let route = opened(Purpose::ConnectionToken, "tok", seal);
                    assert_eq!(route.map(|route| route.place.address), Ok(gateway.address(0)), "{name}");
                    "sealed"
                }
            };
            let hub = format!("/{}", case.name);
            let counted = |labels: &[(&str, &str)]| gateway.count("signalr_gateway_negotiations_total", labels);
            assert_eq!(counted(&[("signalr_hub", &hub), ("signalr_result", result)]), 1, "{name}: {result}");
            assert_eq!(counted(&[("signalr_hub", &hub)]), 1, "{name}: counted as something else, too");
        }
        assert_eq!(gateway.count("signalr_gateway_internal_errors_total", &[]), 0, "{version:?}");
    }
}

/// A pod that dies while it answers: the client learns of it.
#[test]
fn an_answer_that_breaks_off_is_counted_and_ends_the_connection() {
    for framing in ["content-length: 200\r\n\r\n", "transfer-encoding: chunked\r\n\r\n5\r\n{\"neg\r\n"] {
        let pod: Script = Arc::new(move |_, wire| {
            let head = head("200 OK", &[("content-type", "application/json")]);
            wire.write_all(&[head, framing.as_bytes().to_vec()].concat())?;
            Err(io::ErrorKind::ConnectionAborted.into())
        });
        let (_, options) = every_version(&json!({ "hubs": [{ "path": "/chat" }] })).last().unwrap();
        let gateway = Gateway::with([pod], options);
        let mut connection = Wire::open(&gateway.envoy.url());
        connection.send(&Request::post("/chat/negotiate").bytes());
        let head = connection.read_head().unwrap();
        if let Some(head) = head {
            assert!(connection.read_body(&head, Body::OfResponse).is_err(), "{framing}: {head:?}");
        }
        let labels = [("signalr_hub", "/chat"), ("signalr_result", "incomplete")];
        let counted = || gateway.count("signalr_gateway_negotiations_total", &labels) == 1;
        wait_for(framing, counted).unwrap();
    }
}

#[test]
fn ids_are_left_alone_where_the_operator_says_so() {
    let off = json!({ "enabled": false });
    for (name, token, v1_sealed, v0_sealed) in [
        ("on", json!({}), true, true),
        ("no ids of version 0", json!({ "negotiate_v0": false }), true, false),
        ("off", off.clone(), false, false),
    ] {
        let gateway = Gateway::start(json!({ "affinity": { "connection_token": token, "connection_cookie": off } }));
        for (version, sealed) in
            [("?negotiateVersion=1", v1_sealed), ("?negotiateVersion=0", v0_sealed), ("", v0_sealed)]
        {
            let answer = gateway.ask(&Request::post(&format!("/chat/negotiate{version}")));
            let body = answer.json();
            let id = body["connectionToken"].as_str().or(body["connectionId"].as_str()).unwrap();
            assert_eq!(id.contains('.'), sealed, "{name} {version}: {body}");
            assert_eq!(answer.head.one("content-length").is_none(), sealed, "{name} {version}");
            assert_eq!(answer.head.all("set-cookie"), [""; 0], "{name} {version}");
        }
        let unsealed = gateway.count("signalr_gateway_negotiations_total", &[("signalr_result", "unsealed")]);
        assert_eq!(unsealed, 3 - u32::from(v1_sealed) - 2 * u32::from(v0_sealed), "{name}");
    }
}

/// What is held back until it is whole must fit into Envoy's buffer, also the small one of edge proxies.
#[test]
fn an_answer_longer_than_envoys_buffer_arrives() {
    let patch: testbed::envoy::Patch = Box::new(|bootstrap: &mut Value| {
        bootstrap["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] = json!(32_768);
        bootstrap["static_resources"]["clusters"][0]["per_connection_buffer_limit_bytes"] = json!(32_768);
    });
    let cases = || {
        vec![case("length", Length, long(40_000), Same("too_large")), case("empty", Length, "", Same("unrecognised"))]
    };
    let (_, options) = every_version(&json!({})).last().unwrap();
    let gateway = Gateway::with([pod(cases())], testbed::envoy::EnvoyOptions { patch: Some(patch), ..options });
    let answer = gateway.ask(&Request::post("/length/negotiate?negotiateVersion=1"));
    assert_eq!(answer.body.len(), 40_000);
    assert_eq!(gateway.ask(&Request::post("/empty/negotiate?negotiateVersion=1")).status(), 200);
}

/// Other applications negotiate as well, and where no hubs are listed any `POST …/negotiate` may be theirs: a stream is not held
/// back, of whatever content type, beyond what an answer may have.
#[test]
fn what_another_application_streams_to_a_negotiate_is_not_held_back() {
    let plain = "more than any hub answers ".repeat(MOST / 25);
    let streams = [
        ("text/event-stream", "data: 1\n\n"),
        ("text/html; charset=utf-8", "<!doctype html>"),
        ("text/plain", plain.as_str()),
        ("application/octet-stream", plain.as_str()),
    ];
    let seen = Arc::new(AtomicBool::new(false));
    let (flag, sent) = (seen.clone(), streams.map(|(content_type, first)| (content_type, first.to_owned())));
    let pod: Script = Arc::new(move |received, wire| {
        let asked: usize = received.path().split('/').nth(1).unwrap().parse().unwrap();
        let (content_type, first) = &sent[asked];
        let head = head("200 OK", &[("content-type", content_type), ("transfer-encoding", "chunked")]);
        wire.write_all(&[head, format!("\r\n{:x}\r\n{first}\r\n", first.len()).into_bytes()].concat())?;
        wait_for("the client to see the first part", || flag.swap(false, Ordering::SeqCst))
            .map_err(io::Error::other)?;
        wire.write_all(b"4\r\nlast\r\n0\r\n\r\n")
    });
    for (version, options) in every_version(&json!({})) {
        let gateway = Gateway::with([pod.clone()], options);
        for (number, (content_type, first)) in streams.into_iter().enumerate() {
            let mut connection = Wire::open(&gateway.envoy.url());
            connection.send(&Request::post(&format!("/{number}/negotiate")).bytes());
            let head = connection.read_head().unwrap().unwrap();
            assert_eq!(head.all("content-type"), [content_type], "{version:?}");
            let mut body = Vec::new();
            while body.len() < first.len() {
                body.extend(connection.read_chunk().unwrap());
            }
            seen.store(true, Ordering::SeqCst);
            body.extend(connection.read_body(&head, Body::OfRequest).unwrap());
            assert!(body == [first.as_bytes(), b"last"].concat(), "{version:?} {content_type}");
        }
    }
}
