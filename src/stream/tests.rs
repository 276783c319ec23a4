//! Tier 2: whole lives of connections through the core, with several gateways and a clock of the test's own.

use super::*;
use crate::limit::InstanceId;
use crate::metrics::Kind;
use crate::settings::Surroundings;
use crate::store::Secret;
use crate::store::memory::MemoryStore;
use std::time::Duration;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const NEGOTIATED: &str =
    r#"{"negotiateVersion":1,"connectionId":"public","connectionToken":"token","availableTransports":[]}"#;
const POD_1: &str = "10.0.0.1:80";
const POD_2: &str = "10.0.0.2:80";

/// A gateway with one worker thread. `secret` makes two of them one key's gateways, or strangers.
struct Gateway {
    settings: Rc<Settings>,
    worker: Rc<RefCell<Worker>>,
    store: MemoryStore,
    seconds: u64,
    nonces: u8,
}

/// What one exchange did: operations on either head, the new body, the counters.
#[derive(Debug)]
struct Done {
    request: Vec<String>,
    response: Vec<String>,
    body: Option<String>,
    /// Of routes and negotiates.
    counts: Vec<String>,
    /// Of connections.
    lifecycle: Vec<String>,
}

impl Gateway {
    fn new(json: &str, secret: u8) -> Self {
        let surroundings = Surroundings { env: &|_| None, process_secret: &|| Secret::new([secret; 32]) };
        let settings = Rc::new(Settings::parse(json.as_bytes(), &surroundings).unwrap());
        let limiter = Some(Limiter::new(InstanceId::MIN, Secret::new([secret; 32])));
        let worker = Rc::new(RefCell::new(Worker { limiter, ..Worker::default() }));
        Self { settings, worker, store: MemoryStore::default(), seconds: 1_000_000, nonces: 0 }
    }

    /// One exchange: the request's lines, the pod that answers, the answer's lines, its body in chunks.
    fn exchange(&mut self, request: &str, upstream: Option<&str>, response: &str, chunks: &[&str]) -> Done {
        let mut stream = Stream::new(self.settings.clone(), self.worker.clone());
        let now = Millis::since_epoch(Duration::from_secs(self.seconds));
        let Self { store, nonces, .. } = self;
        let mut nonce = || {
            *nonces += 1;
            Some([*nonces; NONCE_LEN])
        };
        let mut moment = Moment { now, nonce: &mut nonce, store };
        let peer = Peer::new(b"192.0.2.1:80");
        let asked = match stream.on_request(&head(request), &peer, &mut moment) {
            RequestPlan::Forward(ops) => ops,
            RequestPlan::Reject(rejection) => panic!("rejected: {rejection:?}"),
        };
        let answered = stream.on_response(&head(response), upstream.map(str::as_bytes), &mut moment);
        let mut buffered = String::new();
        let mut body = None;
        for (index, chunk) in chunks.iter().enumerate() {
            buffered.push_str(chunk);
            match stream.on_response_chunk(buffered.len(), index + 1 == chunks.len()) {
                Chunk::Complete => body = stream.on_negotiate_answer(buffered.as_bytes(), &mut moment),
                Chunk::Tell(length) => stream.on_error_text(&buffered.as_bytes()[..length]),
                Chunk::Pass | Chunk::Hold | Chunk::Meter => {}
            }
        }
        stream.finish(&Ending::default(), now, store);
        stream.finish(&Ending::default(), now, store);
        let (counts, lifecycle) = stream
            .take_counts()
            .iter()
            .map(Count::stat)
            .partition(|name| name.ends_with("affinity_total") || name.ends_with("negotiations_total"));
        let text = |ops: Vec<HeaderOp>| ops.into_iter().map(describe).collect();
        Done {
            request: text(asked),
            response: text(answered),
            body: body.map(|body| String::from_utf8(body).unwrap()),
            counts,
            lifecycle,
        }
    }

    fn negotiate(&mut self, upstream: &str) -> Done {
        let json = ":status 200\ncontent-type application/json\ncontent-length 99";
        self.exchange("POST /chat/negotiate?negotiateVersion=1", Some(upstream), json, &[NEGOTIATED])
    }

    /// A poll that `upstream` answers with `status`.
    fn poll(&mut self, id: &str, cookies: &str, upstream: &str, status: u16) -> Done {
        let request = format!("GET /chat?a=%20&id={id}&_=1\ncookie {cookies}");
        self.exchange(&request, Some(upstream), &format!(":status {status}"), &[""])
    }
}

fn head(lines: &str) -> Head {
    let mut pairs = Vec::new();
    for line in lines.lines() {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        match name {
            "GET" | "POST" | "DELETE" | "OPTIONS" => pairs.extend([(":method", name), (":path", value)]),
            _ => pairs.push((name, value)),
        }
    }
    Head::new(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).collect())
}

fn describe(op: HeaderOp) -> String {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    match op {
        HeaderOp::Set(name, value) => format!("{name}={}", text(value)),
        HeaderOp::Add(name, value) => format!("+{name}={}", text(value)),
        HeaderOp::Remove(name) => format!("-{name}"),
    }
}

/// The id that a client would send after this negotiate.
fn issued(done: &Done) -> String {
    let body: serde_json::Value = serde_json::from_str(done.body.as_ref().unwrap()).unwrap();
    body["connectionToken"].as_str().unwrap().to_owned()
}

/// The `name=value` of the first cookie set.
fn cookie(done: &Done) -> String {
    let set = done.response.iter().find_map(|op| op.strip_prefix("+set-cookie=")).unwrap();
    set.split(';').next().unwrap().to_owned()
}

fn pin(address: &str) -> String {
    use base64::Engine as _;
    format!("x-signalr-pin={}", base64::engine::general_purpose::STANDARD.encode(address))
}

fn affinity(source: &str, outcome: &str) -> String {
    format!(
        "signalr_hub=.=/chat;.;signalr_source=.={source};.;signalr_outcome=.={outcome};.;signalr_gateway_affinity_total"
    )
}

#[test]
fn a_connection_lives_on_the_pod_that_negotiated() {
    let mut gateway = Gateway::new("", 1);
    let negotiate = gateway.negotiate(POD_1);
    assert_eq!(negotiate.request, ["accept-encoding=identity"]);
    assert_eq!(negotiate.response[0], "-content-length");
    let id = issued(&negotiate);
    assert!(id.starts_with("token.") && negotiate.body.unwrap().contains(r#""connectionId":"public","#));
    assert_eq!(
        negotiate.counts,
        ["signalr_hub=.=/chat;.;signalr_result=.=sealed;.;signalr_gateway_negotiations_total"]
    );
    for _ in 0..3 {
        let poll = gateway.poll(&id, "", POD_1, 200);
        assert_eq!(poll.request, [":path=/chat?a=%20&id=token&_=1".to_owned(), pin(POD_1)]);
        assert_eq!((poll.response, poll.counts), (vec![], vec![affinity("connection_token", "routed")]));
    }
}

#[test]
fn the_answer_to_a_negotiate_is_the_same_however_it_is_cut() {
    let whole = issued(&Gateway::new("", 1).negotiate(POD_1));
    let json = ":status 200\ncontent-type application/json; charset=utf-8";
    for at in 0..NEGOTIATED.len() {
        let (first, second) = NEGOTIATED.split_at(at);
        let request = "POST /chat/negotiate?negotiateVersion=1";
        let done = Gateway::new("", 1).exchange(request, Some(POD_1), json, &[first, second, ""]);
        assert_eq!(issued(&done), whole, "cut at {at}");
    }
}

#[test]
fn any_gateway_with_the_key_steers_and_no_other() {
    let id = issued(&Gateway::new("", 1).negotiate(POD_1));
    let pinned = Gateway::new("", 1).poll(&id, "", POD_1, 200);
    assert!(pinned.request.contains(&pin(POD_1)), "{pinned:?}");
    let stranger = Gateway::new("", 2).poll(&id, "", POD_2, 404);
    assert!(stranger.request.is_empty(), "an id that does not open goes on unchanged: {stranger:?}");
    assert_eq!(stranger.counts, [affinity("connection_token", "unknown_key").replace("/chat", "other")]);
}

#[test]
fn an_expired_route_is_stripped_and_steers_nothing() {
    let mut gateway = Gateway::new("", 1);
    let id = issued(&gateway.negotiate(POD_1));
    gateway.seconds += 168 * 3_600;
    let done = gateway.poll(&id, "", POD_2, 404);
    assert_eq!(done.request, [":path=/chat?a=%20&id=token&_=1"]);
    assert_eq!(done.counts, [affinity("connection_token", "expired")]);
}

#[test]
fn a_pod_that_is_gone_is_told_and_the_client_starts_anew() {
    let mut gateway = Gateway::new(r#"{"affinity": {"client_cookie": {"enabled": true}}}"#, 1);
    let negotiate = gateway.negotiate(POD_1);
    let gone = gateway.poll(&issued(&negotiate), "", POD_2, 404);
    assert_eq!(gone.counts, [affinity("connection_token", "host_gone")]);
    let request = format!("POST /chat/negotiate?negotiateVersion=1\ncookie {}", cookie(&negotiate));
    let json = ":status 200\ncontent-type application/json";
    let anew = gateway.exchange(&request, Some(POD_2), json, &[NEGOTIATED]);
    assert!(anew.request.contains(&pin(POD_1)) && anew.counts.contains(&affinity("client_cookie", "host_gone")));
    assert!(cookie(&anew).starts_with("signalr-client=") && cookie(&anew) != cookie(&negotiate));
    assert!(gateway.poll(&issued(&anew), "", POD_2, 200).counts.contains(&affinity("connection_token", "routed")));
}

#[test]
fn without_a_token_cookies_follow_the_connection() {
    let mut gateway = Gateway::new(r#"{"affinity": {"connection_token": {"enabled": false}}}"#, 1);
    let negotiate = gateway.negotiate(POD_1);
    let pending = cookie(&negotiate);
    assert!(pending.starts_with("signalr-affinity=") && negotiate.body.is_none(), "{negotiate:?}");
    // A second negotiate in the same moment goes where the first went, or the pending cookie would be ambiguous.
    let request = format!("POST /chat/negotiate?negotiateVersion=1\ncookie {pending}");
    let second = gateway.exchange(&request, Some(POD_1), ":status 503", &[]);
    assert!(second.request.contains(&pin(POD_1)), "{second:?}");

    let first_poll = gateway.poll("token", &pending, POD_1, 200);
    assert_eq!(first_poll.counts, [affinity("connection_cookie", "routed")]);
    let bound = cookie(&first_poll);
    assert!(bound.starts_with("signalr-affinity-"), "{bound}");
    gateway.seconds += 60;
    let later = gateway.poll("token", &format!("{pending}; {bound}"), POD_1, 200);
    assert_eq!((later.request, later.response), (vec![pin(POD_1)], vec![]));
    let other_id = gateway.poll("other", &format!("{pending}; {bound}"), POD_2, 404);
    assert_eq!(
        other_id.counts,
        [affinity("connection_cookie", "expired")],
        "the pending cookie is over, the bound one not its"
    );

    let name = bound.split('=').next().unwrap();
    let cleared = format!("+set-cookie={name}=; Path=/chat; Max-Age=0; SameSite=Lax; HttpOnly");
    let request = format!("DELETE /chat?id=token\ncookie {bound}");
    assert_eq!(gateway.exchange(&request, Some(POD_1), ":status 202", &[]).response, [cleared.as_str()]);
    assert_eq!(gateway.poll("token", &bound, POD_1, 404).response, [cleared.as_str()]);
}

#[test]
fn the_oldest_connection_cookie_makes_room() {
    let mut gateway = Gateway::new(r#"{"affinity": {"connection_token": {"enabled": false}}}"#, 1);
    let mut cookies: Vec<String> = Vec::new();
    for connection in 0..17 {
        gateway.seconds += 60;
        let pending = cookie(&gateway.negotiate(POD_1));
        let jar = cookies.iter().rev().chain([&pending]).map(String::as_str).collect::<Vec<_>>().join("; ");
        let done = gateway.poll(&format!("id{connection}"), &jar, POD_1, 200);
        let expected = if connection < 16 { 1 } else { 2 };
        assert_eq!(done.response.len(), expected, "{connection}: {done:?}");
        if connection == 16 {
            let oldest = cookies[0].split('=').next().unwrap();
            assert!(done.response[1].starts_with(&format!("+set-cookie={oldest}=; ")), "{done:?}");
        }
        cookies.push(cookie(&done));
    }
}

#[test]
fn the_client_cookie_is_rebalanced_at_a_negotiate_only() {
    let json = r#"{"affinity": {"connection_token": {"enabled": false}, "connection_cookie": {"enabled": false},
        "client_cookie": {"enabled": true, "rebalance_after": "1h", "paths": ["/"]}}}"#;
    let mut gateway = Gateway::new(json, 1);
    let client = cookie(&gateway.negotiate(POD_1));
    gateway.seconds += 3_601;
    for request in
        ["GET /", "GET /chat\nupgrade websocket\nsec-websocket-key x", "POST /_blazor/disconnect", "GET /chat?id=token"]
    {
        let done = gateway.exchange(&format!("{request}\ncookie {client}"), Some(POD_1), ":status 200", &[]);
        assert_eq!((done.request, done.response), (vec![pin(POD_1)], vec![]), "{request}");
    }
    let request = format!("POST /chat/negotiate\ncookie {client}");
    let moved = gateway.exchange(&request, Some(POD_2), ":status 200\ncontent-type application/json", &[NEGOTIATED]);
    assert!(!moved.request.contains(&pin(POD_1)) && cookie(&moved) != client, "{moved:?}");
}

#[test]
fn a_websocket_without_a_key_gets_one() {
    let mut gateway = Gateway::new("", 1);
    let over_http2 = gateway.exchange("GET /chat\nupgrade websocket", Some(POD_1), ":status 101", &[]);
    assert_eq!(over_http2.request, ["sec-websocket-key=AQEBAQEBAQEBAQEBAQEBAQ=="]);
    assert_eq!(over_http2.response, ["-sec-websocket-accept"]);
    let over_http1 =
        gateway.exchange("GET /chat\nupgrade websocket\nsec-websocket-key x", Some(POD_1), ":status 101", &[]);
    assert!(over_http1.request.is_empty() && over_http1.response.is_empty(), "{over_http1:?}");
}

#[test]
fn other_applications_ids_are_none_of_ours() {
    let mut gateway = Gateway::new("", 1);
    for request in ["GET /products?id=7", "GET /files?id=report.pdf", "POST /orders?id=1", "DELETE /orders?id=1"] {
        let done = gateway.exchange(request, Some(POD_1), ":status 404", &[""]);
        assert!(done.request.is_empty() && done.response.is_empty() && done.counts.is_empty(), "{request}: {done:?}");
    }
}

#[test]
fn answers_that_cannot_be_sealed_pass_and_are_told() {
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
fn version_0_ids_can_be_left_alone() {
    let body = r#"{"connectionId":"public","availableTransports":[]}"#;
    let json = ":status 200\ncontent-type application/json\ncontent-length 50";
    for (settings, sealed) in [("", true), (r#"{"affinity": {"connection_token": {"negotiate_v0": false}}}"#, false)] {
        let done = Gateway::new(settings, 1).exchange("POST /chat/negotiate", Some(POD_1), json, &[body]);
        assert_eq!(done.body.is_some(), sealed, "{done:?}");
        assert_eq!(done.response.contains(&"-content-length".to_owned()), sealed, "{done:?}");
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
fn what_a_hub_refuses_is_told_and_what_others_refuse_is_not() {
    let (any, listed) = ("", r#"{"hubs": [{"path": "/chat"}]}"#);
    // A proxy before the gateway that drops `upgrade` makes a plain GET of a WebSocket that skips negotiation.
    let no_id = (":status 400", "Connection ID required");
    let method = (":status 405", "");
    for (name, settings, request, (status, body), told) in [
        ("a learned hub", any, "GET /Chat/?access_token=x", no_id, Some("missing_id")),
        ("a listed hub", listed, "GET /chat", no_id, Some("missing_id")),
        ("an empty id", listed, "POST /chat?id=", no_id, Some("missing_id")),
        ("some path", any, "GET /other", no_id, None),
        ("a path that is not listed", listed, "GET /other", no_id, None),
        ("an id that is there twice", listed, "GET /chat?id=a&id=b", no_id, None),
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
        let target = request.split_once(' ').unwrap().1;
        let stream = Stream::new(gateway.settings.clone(), gateway.worker.clone());
        assert!(told.is_none() || stream.concerns(target.as_bytes(), || None), "{name}");
        let done = gateway.exchange(request, Some(POD_1), status, &[body]);
        let error = |kind| format!("signalr_hub=.=/chat;.;signalr_kind=.={kind};.;websocket_errors_total");
        assert_eq!(done.lifecycle, Vec::from_iter(told.map(error)), "{name}");
        let is_negotiate = request.starts_with("POST /chat/negotiate");
        assert!(is_negotiate || (done.request.is_empty() && done.response.is_empty()), "{name}: {done:?}");
    }
}

#[test]
fn a_websockets_life_is_told_from_handshake_to_goodbye() {
    let gateway = Gateway::new("", 1);
    let store = &gateway.store;
    let at = |milliseconds: u64| Millis::since_epoch(Duration::from_millis(1_000_000_000 + milliseconds));
    let mut stream = Stream::new(gateway.settings.clone(), gateway.worker.clone());
    let mut nonce = || Some([1; NONCE_LEN]);
    let request = head("GET /chat\nupgrade websocket\nsec-websocket-key x");
    let mut moment = Moment { now: at(0), nonce: &mut nonce, store };
    let _ = stream.on_request(&request, &Peer::new(b""), &mut moment);
    moment.now = at(15);
    let _ = stream.on_response(&head(":status 101"), Some(POD_1.as_bytes()), &mut moment);
    assert!(stream.meters());
    stream.pass(Direction::Received, b"\x81\x82\0\0\0\0hi");
    stream.pass(Direction::Sent, b"\x81\x03hey\x88\x02\x03\xe8");
    stream.finish(&Ending::default(), at(90_015), store);
    let told: Vec<_> = stream
        .take_counts()
        .iter()
        .map(|count| (count.stat().replace("signalr_hub=.=other;.;", ""), count.kind()))
        .collect();
    let traffic = |direction, unit| format!("signalr_direction=.={direction};.;websocket_{unit}_total");
    let expected = [
        ("signalr_transport=.=web_sockets;.;signalr_gateway_connections_total".to_owned(), Kind::Add(1)),
        ("websocket_connections_total".to_owned(), Kind::Add(1)),
        ("websocket_handshake_milliseconds".to_owned(), Kind::Observe(15)),
        (
            "signalr_closed_by=.=server;.;signalr_code=.=1000;.;websocket_connections_closed_total".to_owned(),
            Kind::Add(1),
        ),
        ("websocket_connection_duration_milliseconds".to_owned(), Kind::Observe(90_000)),
        (traffic("received", "messages"), Kind::Add(1)),
        (traffic("received", "bytes"), Kind::Add(2)),
        (traffic("sent", "messages"), Kind::Add(1)),
        (traffic("sent", "bytes"), Kind::Add(3)),
    ];
    assert_eq!(told, expected);
}

/// pysignalr keeps its old id in the URL when it negotiates anew.
#[test]
fn a_negotiate_with_a_stale_id_is_a_fresh_one() {
    let mut gateway = Gateway::new("", 1);
    let id = issued(&gateway.negotiate(POD_1));
    let request = format!("POST /chat/negotiate?id={id}");
    let done = gateway.exchange(&request, Some(POD_2), ":status 503", &[]);
    assert_eq!(done.request, [":path=/chat/negotiate?id=token", "accept-encoding=identity"]);
}
