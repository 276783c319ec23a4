//! Tier 2: whole lives of connections through the core, with several gateways and a clock of the test's own.

mod counting;
mod hub_options;

use super::*;
use crate::ledger::InstanceId;
use crate::metrics::Change;
use crate::settings::Surroundings;
use crate::store::Secret;
use crate::store::memory::MemoryStore;
use crate::token::{Address, Cluster};
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
        let limiter = Some(Limiter::new(InstanceId::MIN, Secret::new([secret; 32]), &settings.limits));
        let worker = Rc::new(RefCell::new(Worker { limiter, ..Worker::default() }));
        Self { settings, worker, store: MemoryStore::default(), seconds: 1_000_000, nonces: 0 }
    }

    /// One exchange: the request's lines, the pod that answers (or `pod@cluster`), the answer's lines, its body in chunks.
    fn exchange(&mut self, request: &str, upstream: Option<&str>, response: &str, chunks: &[&str]) -> Done {
        let mut stream = Stream::new(0, self.settings.clone(), self.worker.clone());
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
            plan => panic!("not forwarded: {plan:?}"),
        };
        let answered = stream.on_response(&head(response), upstream.and_then(place), &mut moment);
        let mut buffered = String::new();
        let mut body = None;
        for (index, chunk) in chunks.iter().enumerate() {
            buffered.push_str(chunk);
            match stream.on_response_chunk(buffered.len(), index + 1 == chunks.len()) {
                Chunk::Complete => body = stream.on_negotiate_answer(buffered.as_bytes(), &mut moment),
                Chunk::Error(length) => stream.on_error_text(&buffered.as_bytes()[..length]),
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
    http::head_of(&pairs)
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

/// `address`, or `address@cluster`.
fn place(text: &str) -> Option<Place> {
    let (address, cluster) = text.split_once('@').unwrap_or((text, ""));
    Some(Place { address: Address::new(address.as_bytes())?, cluster: Cluster::new(cluster.as_bytes()) })
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
fn a_connection_stays_in_the_cluster_of_its_negotiate() {
    let header = |cluster: &str| format!("x-signalr-cluster={cluster}");
    for (settings, expected) in [(r#"{"affinity": {"cluster_header": "X-SignalR-Cluster"}}"#, true), ("", false)] {
        let mut gateway = Gateway::new(settings, 1);
        let id = issued(&gateway.negotiate(&format!("{POD_1}@v2")));
        for request in [format!("GET /chat?id={id}"), format!("POST /chat?id={id}"), format!("DELETE /chat?id={id}")] {
            let done = gateway.exchange(&request, Some(POD_1), ":status 200", &[""]);
            assert!(done.request.contains(&pin(POD_1)), "{request}: {done:?}");
            assert_eq!(done.request.contains(&header("v2")), expected, "{request}: {done:?}");
        }
    }
}

/// Envoy may send these to another pod when the cookie's drains; whatever is for a connection or a circuit must reach it.
#[test]
fn only_what_begins_anew_is_marked() {
    let websocket = "upgrade websocket\nsec-websocket-key x";
    let (mark, written) = (r#""mark": "x-signalr-preferred", "#, "x-signalr-preferred=1".to_owned());
    for (request, begins) in [
        ("POST /chat/negotiate?negotiateVersion=1".to_owned(), true),
        ("POST /chat/negotiate?id=token".to_owned(), true),
        (format!("GET /chat\n{websocket}"), true),
        ("GET /".to_owned(), true),
        ("POST /".to_owned(), true),
        (format!("GET /chat?id=token\n{websocket}"), false),
        ("GET /chat?id=token\naccept text/event-stream".to_owned(), false),
        ("GET /chat?id=token".to_owned(), false),
        ("POST /chat?id=token".to_owned(), false),
        ("DELETE /chat?id=token".to_owned(), false),
        ("OPTIONS /chat?id=token".to_owned(), false),
        ("POST /_blazor/disconnect".to_owned(), false),
    ] {
        for (mark, marked) in [(mark, begins), ("", false)] {
            let json = format!(
                r#"{{"affinity": {{"connection_token": {{"enabled": false}}, "connection_cookie": {{"enabled": false}},
                    "client_cookie": {{{mark}"enabled": true, "paths": ["/"]}}}}}}"#
            );
            let mut gateway = Gateway::new(&json, 1);
            let client = cookie(&gateway.negotiate(POD_1));
            let steered = gateway.exchange(&format!("{request}\ncookie {client}"), Some(POD_1), ":status 503", &[]);
            let got = (steered.request.contains(&pin(POD_1)), steered.request.contains(&written));
            assert_eq!(got, (true, marked), "{request}: {steered:?}");
            let balanced = gateway.exchange(&request, Some(POD_1), ":status 503", &[]);
            assert!(!balanced.request.contains(&written), "{request}: {balanced:?}");
        }
    }
    // The route in the id goes before the cookie, which here names the same pod.
    let mut gateway = Gateway::new(&format!(r#"{{"affinity": {{"client_cookie": {{{mark}"enabled": true}}}}}}"#), 1);
    let negotiate = gateway.negotiate(POD_1);
    let poll = gateway.poll(&issued(&negotiate), &cookie(&negotiate), POD_1, 200);
    assert_eq!(poll.request, [":path=/chat?a=%20&id=token&_=1".to_owned(), pin(POD_1)]);
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
fn version_0_ids_can_be_left_alone() {
    let body = r#"{"connectionId":"public","availableTransports":[]}"#;
    let json = ":status 200\ncontent-type application/json\ncontent-length 50";
    for (settings, sealed) in [("", true), (r#"{"affinity": {"connection_token": {"negotiate_v0": false}}}"#, false)] {
        let done = Gateway::new(settings, 1).exchange("POST /chat/negotiate", Some(POD_1), json, &[body]);
        assert_eq!(done.body.is_some(), sealed, "{done:?}");
        assert_eq!(done.response.contains(&"-content-length".to_owned()), sealed, "{done:?}");
    }
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
