//! What is counted of exchanges, and under which names.

use super::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn answers_that_cannot_be_sealed_pass_and_are_counted() {
    let json = ":status 200\ncontent-type application/json";
    let large = format!("{NEGOTIATED}{}", " ".repeat(MAX_ANSWER));
    for (result, response, chunks) in [
        ("redirect", json, [r#"{"url":"https://x"}"#].as_slice()),
        ("error", json, &[r#"{"error":"full"}"#]),
        ("unrecognised", json, &["{}"]),
        ("unrecognised", ":status 200\ncontent-type text/html", &[NEGOTIATED]),
        ("encoded", ":status 200\ncontent-type application/json\ncontent-encoding gzip", &[NEGOTIATED]),
        ("too_large", json, &[&large]),
        ("too_large", ":status 200\ncontent-type application/json\ncontent-length 16385", &[NEGOTIATED]),
        ("unrecognised", ":status 200\ncontent-type application/json\ncontent-length 0", &[]),
        ("failed", ":status 401\ncontent-type application/json", &[NEGOTIATED]),
        ("incomplete", json, &[]),
    ] {
        let done = Gateway::new("", 1).exchange("POST /chat/negotiate", Some(POD_1), response, chunks);
        let expected = format!("signalr_hub=.=other;.;signalr_result=.={result};.;signalr_gateway_negotiations_total");
        assert_eq!((done.body, done.counts), (None, vec![expected]), "{result}");
    }
}

#[test]
fn a_connection_is_counted_once_and_failures_by_their_name() {
    let mut gateway = Gateway::new("", 1);
    let id = issued(&gateway.negotiate(POD_1));
    gateway.seconds += 2;
    let first = gateway.poll(&id, "", POD_1, 200);
    let opened = "signalr_hub=.=/chat;.;signalr_transport=.=long_polling;.;signalr_gateway_connections_total";
    let waited = "signalr_hub=.=/chat;.;signalr_gateway_negotiate_to_connect_milliseconds";
    assert_eq!(first.lifecycle, [opened, waited]);
    assert!(gateway.poll(&id, "", POD_1, 200).lifecycle.is_empty(), "the next poll is no new connection");
    let request = format!("POST /chat?id={id}");
    for (upstream, body, kind) in [
        (POD_1, "No Connection with that ID", "late_request"),
        (POD_2, "No Connection with that ID", "unknown_connection"),
        (POD_1, "", "late_request"),
        (POD_2, "", "not_a_hub"),
    ] {
        let done = gateway.exchange(&request, Some(upstream), ":status 404", &[body]);
        assert_eq!(done.lifecycle, [format!("signalr_hub=.=/chat;.;signalr_kind=.={kind};.;websocket_errors_total")]);
    }
}

#[test]
fn what_a_hub_refuses_is_counted_and_what_others_refuse_is_not() {
    let (any, listed) = ("", r#"{"hubs": [{"path": "/chat"}]}"#);
    // A proxy before the gateway that drops `upgrade` makes a plain GET of a WebSocket that skips negotiation.
    let no_id = (":status 400", "Connection ID required");
    let method = (":status 405", "");
    for (name, settings, request, (status, body), kind) in [
        ("a learned hub", any, "GET /Chat/?access_token=x", no_id, Some("missing_id")),
        ("a listed hub", listed, "GET /chat", no_id, Some("missing_id")),
        ("an empty id", listed, "POST /chat?id=", no_id, Some("missing_id")),
        ("some path", any, "GET /other", no_id, None),
        ("a path that is not listed", listed, "GET /other", no_id, None),
        ("an id that is there twice", listed, "GET /chat?id=a&id=b", no_id, Some("missing_id")),
        ("not a hub's method", listed, "OPTIONS /chat", no_id, None),
        ("a page at the same path", listed, "GET /chat", (":status 404", "No such page"), None),
        ("a page that is there", listed, "GET /chat", (":status 200", "Connection ID required"), None),
        ("no CORS", any, "OPTIONS /chat/negotiate?negotiateVersion=1", method, Some("cors_or_method")),
        ("CORS", any, "OPTIONS /chat/negotiate?negotiateVersion=1", (":status 204", ""), None),
        ("a client's mistake", listed, "GET /chat/negotiate", method, Some("cors_or_method")),
        ("classic SignalR", any, "GET /chat/negotiate?clientProtocol=2.1", (":status 404", ""), None),
        ("nobody to negotiate with", any, "POST /chat/negotiate", (":status 404", ""), Some("not_a_hub")),
        ("no token", any, "POST /chat/negotiate", (":status 401", ""), Some("unauthorized")),
    ] {
        let mut gateway = Gateway::new(settings, 1);
        gateway.negotiate(POD_1);
        let stream = Stream::new(0, gateway.settings.clone(), gateway.worker.clone());
        assert!(kind.is_none() || stream.concerns(&head(request)), "{name}");
        let done = gateway.exchange(request, Some(POD_1), status, &[body]);
        let error = |kind| format!("signalr_hub=.=/chat;.;signalr_kind=.={kind};.;websocket_errors_total");
        assert_eq!(done.lifecycle, Vec::from_iter(kind.map(error)), "{name}");
        let is_negotiate = request.starts_with("POST /chat/negotiate");
        assert!(is_negotiate || (done.request.is_empty() && done.response.is_empty()), "{name}: {done:?}");
    }
}

/// A proxy before the gateway drops `upgrade`: the hub takes it for a poll, and the client's WebSocket fails.
#[test]
fn a_lost_upgrade_is_counted_and_is_no_connection() {
    let error = "signalr_hub=.=/chat;.;signalr_kind=.=upgrade_lost;.;websocket_errors_total".to_owned();
    let failed =
        |status| format!("signalr_hub=.=/chat;.;signalr_status=.={status};.;websocket_handshake_failures_total");
    for lost in ["sec-websocket-key x\nsec-websocket-version 13", "sec-websocket-version 13"] {
        let mut gateway = Gateway::new("", 1);
        let id = issued(&gateway.negotiate(POD_1));
        for (target, status, text) in [
            (format!("/chat?id={id}"), 200, ""),
            (format!("/chat?id={id}&access_token=t"), 404, "No Connection with that ID"),
            ("/chat".to_owned(), 400, "Connection ID required"),
        ] {
            let request = format!("GET {target}\n{lost}");
            let done = gateway.exchange(&request, Some(POD_1), &format!(":status {status}"), &[text]);
            assert_eq!(done.lifecycle, [error.clone(), failed(status)], "{target}");
            let steered = target.contains("id=");
            let expected = steered.then(|| affinity("connection_token", "routed"));
            assert_eq!(done.counts, Vec::from_iter(expected), "{target}");
            assert_eq!(done.request.contains(&pin(POD_1)), steered, "{target}");
            let mut worker = gateway.worker.borrow_mut();
            let now = Millis::since_epoch(Duration::from_secs(gateway.seconds)).seconds();
            let present = worker.limiter.as_mut().unwrap().ledger.tick(now, &gateway.store).unwrap();
            assert!(present.connections.iter().all(|(_, _, open)| *open == 0), "{target}: {present:?}");
        }
    }
}

/// To the hub it is a poll, so it takes up the place of one.
#[test]
fn two_headers_are_no_way_around_a_limit() {
    let lost = "\nsec-websocket-key x";
    for limit in [r#""connections": {"per_client": 1}"#, r#""connect_rate": {"requests": 1, "per": "1h", "burst": 1}"#]
    {
        for (first, second) in [(lost, lost), (lost, ""), ("", lost)] {
            let json = format!(r#"{{"hubs": [{{"path": "/chat"}}], "limits": {{{limit}}}}}"#);
            let mut gateway = Gateway::new(&json, 1);
            let opened =
                gateway.exchange(&format!("GET /chat?id=a{first}"), Some(POD_1), ":status 200", &[""]).lifecycle;
            assert_eq!(opened.iter().any(|name| name.ends_with("connections_total")), first.is_empty(), "{opened:?}");
            let mut stream = Stream::new(0, gateway.settings.clone(), gateway.worker.clone());
            let now = Millis::since_epoch(Duration::from_secs(gateway.seconds));
            let mut moment = Moment { now, nonce: &mut || None, store: &gateway.store };
            let plan =
                stream.on_request(&head(&format!("GET /chat?id=b{second}")), &Peer::new(b"192.0.2.1:80"), &mut moment);
            assert!(matches!(plan, RequestPlan::Reject(_)), "{limit} {first:?} {second:?}: {plan:?}");
        }
    }
}

#[test]
fn a_websockets_life_is_counted_from_handshake_to_close() {
    let gateway = Gateway::new("", 1);
    let store = &gateway.store;
    let at = |milliseconds: u64| Millis::since_epoch(Duration::from_millis(1_000_000_000 + milliseconds));
    let mut stream = Stream::new(0, gateway.settings.clone(), gateway.worker.clone());
    let mut nonce = || Some([1; NONCE_LEN]);
    let request = head("GET /chat\nupgrade websocket\nsec-websocket-key x");
    let mut moment = Moment { now: at(0), nonce: &mut nonce, store };
    let _ = stream.on_request(&request, &Peer::new(b""), &mut moment);
    moment.now = at(15);
    let _ = stream.on_response(&head(":status 101"), place(POD_1), &mut moment);
    assert!(stream.meters());
    stream.pass(Direction::Received, b"\x81\x82\0\0\0\0hi");
    stream.pass(Direction::Sent, b"\x81\x03hey\x88\x02\x03\xe8");
    stream.finish(&Ending::default(), at(90_015), store);
    let counted: Vec<_> = stream
        .take_counts()
        .iter()
        .map(|count| (count.stat().replace("signalr_hub=.=other;.;", ""), count.change()))
        .collect();
    let traffic = |direction, unit| format!("signalr_direction=.={direction};.;websocket_{unit}_total");
    let expected = [
        ("signalr_transport=.=web_sockets;.;signalr_gateway_connections_total".to_owned(), Change::Add(1)),
        ("websocket_connections_total".to_owned(), Change::Add(1)),
        ("websocket_handshake_milliseconds".to_owned(), Change::Observe(15)),
        (
            "signalr_closed_by=.=server;.;signalr_code=.=1000;.;websocket_connections_closed_total".to_owned(),
            Change::Add(1),
        ),
        ("websocket_connection_duration_milliseconds".to_owned(), Change::Observe(90_000)),
        (traffic("received", "messages"), Change::Add(1)),
        (traffic("received", "bytes"), Change::Add(2)),
        (traffic("sent", "messages"), Change::Add(1)),
        (traffic("sent", "bytes"), Change::Add(3)),
    ];
    assert_eq!(counted, expected);
}
