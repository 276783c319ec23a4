//! What a listed hub can have of its own.

use super::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const TOKEN_IN_HEADER: &str = r#"{"hubs": [{"path": "/chat", "access_token": "header"}, {"path": "/other"}]}"#;

#[test]
fn the_seal_and_the_access_token_leave_the_url_together() {
    let mut gateway = Gateway::new(TOKEN_IN_HEADER, 1);
    let id = issued(&gateway.negotiate(POD_1));
    let authorization = "authorization=Bearer a.b";
    for (target, left) in [
        (format!("/chat?id={id}&access_token=a.b"), "/chat?id=token"),
        (format!("/chat?access_token=a.b&id={id}"), "/chat?id=token"),
        (format!("/chat?x=%20&access_token=a.b&_=1&id={id}&y"), "/chat?x=%20&_=1&id=token&y"),
    ] {
        for headers in ["upgrade websocket\nsec-websocket-key x", "accept text/event-stream", "accept */*"] {
            let done = gateway.exchange(&format!("GET {target}\n{headers}"), Some(POD_1), ":status 404", &[""]);
            assert_eq!(done.request, [&format!(":path={left}"), authorization, &pin(POD_1)], "{target} {headers}");
        }
    }
}

#[test]
fn the_access_token_leaves_the_urls_of_its_hub_only() {
    for (request, changes) in [
        (
            "GET /chat?access_token=t\nupgrade websocket\nsec-websocket-key x",
            &[":path=/chat", "authorization=Bearer t"][..],
        ),
        ("GET /Chat/?access_token=t&id=a", &[":path=/Chat/?id=a", "authorization=Bearer t"]),
        ("POST /chat?id=a&access_token=t", &[":path=/chat?id=a", "authorization=Bearer t"]),
        ("DELETE /chat?id=a&access_token=t\nauthorization Bearer u", &[":path=/chat?id=a"]),
        ("GET /chat?access_token=t", &[":path=/chat", "authorization=Bearer t"]),
        (
            "POST /chat/negotiate?access_token=t",
            &[":path=/chat/negotiate", "authorization=Bearer t", "accept-encoding=identity"],
        ),
        ("POST /chat?id=a&access_token=%0a", &[]),
        ("GET /other?id=a&access_token=t", &[]),
        ("GET /chat/page?id=a&access_token=t", &[]),
    ] {
        let done = Gateway::new(TOKEN_IN_HEADER, 1).exchange(request, Some(POD_1), ":status 404", &[""]);
        assert_eq!(done.request, changes, "{request}");
    }
    let by_default = Gateway::new(r#"{"hubs": [{"path": "/chat"}]}"#, 1).exchange(
        "GET /chat?id=a&access_token=t",
        Some(POD_1),
        ":status 404",
        &[""],
    );
    assert_eq!(by_default.request, [""; 0]);
}

/// The limits look at what the client sent.
#[test]
fn the_access_token_in_the_url_may_be_the_key_of_a_client() {
    let hub = r#""hubs": [{"path": "/chat", "access_token": "header"}]"#;
    let limits = r#""limits": {"client": {"key": {"query": "access_token"}, "absent": "refuse"}, "connections": {"per_client": 1}}"#;
    let mut gateway = Gateway::new(&format!("{{{hub}, {limits}}}"), 1);
    for token in ["t", "u"] {
        let request = format!("GET /chat?id=of-{token}&access_token={token}");
        let done = gateway.exchange(&request, Some(POD_1), ":status 200", &[""]);
        assert_eq!(done.request, [format!(":path=/chat?id=of-{token}"), format!("authorization=Bearer {token}")]);
    }
}

#[test]
fn only_the_transports_of_the_list_are_offered() {
    const ANSWER: &str = r#"{"connectionId":"public","connectionToken":"token","availableTransports":[{"transport":"WebSockets"}, {"transport":"LongPolling"}]}"#;
    let json = ":status 200\ncontent-type application/json\ncontent-length 99";
    let fewer = ANSWER.replace(r#"{"transport":"WebSockets"}, "#, "");
    for (affinity, version, sealed) in [
        ("{}", 1, true),
        (r#"{"connection_token": {"enabled": false}}"#, 1, false),
        (r#"{"connection_token": {"negotiate_v0": false}}"#, 0, false),
    ] {
        let settings =
            |transports: &str| format!(r#"{{"hubs": [{{"path": "/chat"{transports}}}], "affinity": {affinity}}}"#);
        let negotiate = |settings: &str, answer: &str| {
            let request = format!("POST /chat/negotiate?negotiateVersion={version}");
            Gateway::new(settings, 1).exchange(&request, Some(POD_1), json, &[answer, ""])
        };
        let some = negotiate(&settings(r#", "transports": ["long_polling"]"#), ANSWER);
        assert!(some.response.contains(&"-content-length".to_owned()), "{some:?}");
        let body = some.body.unwrap();
        if sealed {
            let id = issued(&negotiate(&settings(""), ANSWER));
            assert!(id.starts_with("token.") && body == fewer.replace("\"token\"", &format!("\"{id}\"")), "{body}");
        } else {
            assert_eq!(body, fewer);
            assert!(negotiate(&settings(""), ANSWER).body.is_none());
        }
        let odd = ANSWER.replace("\"token\"", "\"\\u0001\"");
        let without_seal = negotiate(&settings(r#", "transports": ["long_polling"]"#), &odd).body.unwrap();
        assert_eq!(without_seal, odd.replace(r#"{"transport":"WebSockets"}, "#, ""));
        let redirect = r#"{"url":"https://x","availableTransports":[{"transport":"WebSockets"}]}"#;
        assert!(negotiate(&settings(r#", "transports": ["long_polling"]"#), redirect).body.is_none());
    }
}

#[test]
fn event_streams_ask_not_to_be_held_back() {
    let hubs = r#"{"hubs": [{"path": "/chat", "unbuffered_events": true}, {"path": "/other"}]}"#;
    let events = "content-type text/event-stream";
    let no_transform =
        |before: &str| vec!["x-accel-buffering=no".to_owned(), format!("cache-control={before}no-transform")];
    for (name, target, status, headers, expected) in [
        ("nothing there", "/chat?id=a", 200, events, no_transform("")),
        (
            "ASP.NET Core's",
            "/chat?id=a",
            200,
            "content-type text/event-stream\ncache-control no-cache,no-store",
            no_transform("no-cache,no-store, "),
        ),
        (
            "two",
            "/chat?id=a",
            200,
            "content-type text/event-stream; x=1\ncache-control no-cache\ncache-control max-age=0",
            no_transform("no-cache, max-age=0, "),
        ),
        ("empty", "/chat?id=a", 200, "content-type text/event-stream\ncache-control ", no_transform("")),
        (
            "there already",
            "/chat?id=a",
            200,
            "content-type text/event-stream\ncache-control no-cache , No-Transform",
            vec!["x-accel-buffering=no".to_owned()],
        ),
        (
            "in quotes",
            "/chat?id=a",
            200,
            "content-type text/event-stream\ncache-control x=\"a, no-transform, b\"",
            no_transform("x=\"a, no-transform, b\", "),
        ),
        ("no events", "/chat?id=a", 200, "content-type text/html", vec![]),
        ("an error", "/chat?id=a", 404, events, vec![]),
        ("another hub", "/other?id=a", 200, events, vec![]),
    ] {
        let request = format!("GET {target}\naccept text/event-stream");
        let response = format!(":status {status}\n{headers}");
        let done = Gateway::new(hubs, 1).exchange(&request, Some(POD_1), &response, &[""]);
        assert_eq!(done.response, expected, "{name}");
    }
    let poll = Gateway::new(hubs, 1).exchange("GET /chat?id=a", Some(POD_1), &format!(":status 200\n{events}"), &[""]);
    assert_eq!(poll.response, [""; 0]);
}
