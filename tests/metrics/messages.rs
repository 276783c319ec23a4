//! `metrics.detail: messages`: SignalR's own messages, by type, as Microsoft's client and the hub really said them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use testbed::clients::{BrowserClient, Protocol, drive_node, run_browser, start_server};
use testbed::envoy::Envoy;
use testbed::hub::{Hub, HubOptions};
use testbed::process::{PATIENCE, Process};
use testbed::tools::EnvoyVersion;

use crate::scrape::{series, settles, start, start_before};

const JSON: &str = "/chat";
const MESSAGE_PACK: &str = "/notifications";

/// The options of `tests/clients/messages.mjs`.
#[derive(Serialize)]
struct Talk {
    url: String,
    script: &'static str,
    /// Of each hub.
    protocols: BTreeMap<&'static str, Protocol>,
    /// To each hub.
    connections: u64,
}

impl Talk {
    /// The script over both protocols.
    fn new(envoy: &Envoy, script: &'static str, connections: u64) -> Self {
        let protocols = BTreeMap::from([(JSON, Protocol::Json), (MESSAGE_PACK, Protocol::MessagePack)]);
        Self { url: envoy.url(), script, protocols, connections }
    }

    /// Messages by hub.
    fn run(&self) -> BTreeMap<String, Wire> {
        drive_node("messages.mjs", self, PATIENCE).unwrap()
    }
}

/// What the client's own WebSockets saw, by type.
#[derive(Debug, Deserialize)]
struct Wire {
    received: BTreeMap<String, u64>,
    sent: BTreeMap<String, u64>,
}

impl Wire {
    fn of(&self, direction: &str, kind: &str) -> u64 {
        let types = if direction == "received" { &self.received } else { &self.sent };
        types.get(kind).copied().unwrap_or(0)
    }

    /// The series that there must be. A handshake is no message.
    fn series(&self, hub: &str) -> Vec<(String, u64)> {
        let of = |direction: &'static str, types: &BTreeMap<String, u64>| {
            let messages = types.iter().filter(|(kind, _)| *kind != "handshake");
            messages.map(|(kind, count)| (name(hub, direction, kind), *count)).collect::<Vec<_>>()
        };
        [of("received", &self.received), of("sent", &self.sent)].concat()
    }
}

/// At each hub every one of `connections` said and heard so many of these.
fn assert_said(wires: &BTreeMap<String, Wire>, each: &[(&str, &str, u64)], connections: u64) {
    for (hub, wire) in wires {
        for (direction, kind, count) in each {
            assert_eq!(wire.of(direction, kind), connections * count, "{hub} {direction} {kind}: {wire:?}");
        }
    }
}

/// The series of all hubs.
fn expected(wires: &BTreeMap<String, Wire>) -> Vec<(String, u64)> {
    wires.iter().flat_map(|(hub, wire)| wire.series(hub)).collect()
}

fn name(hub: &str, direction: &str, kind: &str) -> String {
    format!("signalr_gateway_messages_total{{direction={direction},hub={hub},type={kind}}}")
}

fn is_message(series: &str) -> bool {
    series.starts_with("signalr_gateway_messages_total")
}

fn detail() -> Value {
    json!({"metrics": {"detail": "messages"}})
}

/// What each connection of the script `everything` says and hears whatever happens, of eight that all speak to everybody.
const EVERYTHING: [(&str, &str, u64); 9] = [
    ("received", "handshake", 1),
    ("received", "invocation", 6),
    ("received", "stream_invocation", 2),
    ("received", "stream_item", 4),
    ("received", "completion", 1),
    ("received", "cancel_invocation", 1),
    ("received", "close", 1),
    ("sent", "invocation", 8),
    ("sent", "completion", 7),
];

#[test]
fn each_type_of_message_is_counted_as_often_as_it_went_by() {
    let environment = vec![("KEEP_ALIVE_SECONDS".to_owned(), "1".into())];
    let hubs = [Hub::start(&HubOptions { environment, ..HubOptions::default() }).unwrap()];
    for concurrency in [1, 4] {
        let envoy = start(&hubs, concurrency, detail(), |_| {});
        let talk = Talk::new(&envoy, "everything", 4);
        let wires = talk.run();
        assert_said(&wires, &EVERYTHING, talk.connections);
        for (hub, wire) in &wires {
            // Nobody speaks until both sides have pinged, which they do each second.
            for direction in ["received", "sent"] {
                assert!(wire.of(direction, "ping") >= talk.connections * 2, "{hub} {direction}: {wire:?}");
            }
        }
        settles(&format!("{concurrency} threads"), &envoy, is_message, &expected(&wires));
        // SignalR's Close came first, whoever was first with the WebSocket's.
        let by_server = series(&envoy).into_keys().find(|name| name.contains("_closed_total{closed_by=server"));
        assert_eq!(by_server, None, "all clients said goodbye");
    }
}

/// `tests/clients/hub.mjs`, which says what the hubs of .NET Core 3.1 cannot.
struct StandIn {
    address: String,
    _process: Process,
}

impl StandIn {
    fn start(deflate: &Value) -> Self {
        let (process, address) = start_server("hub.mjs", &json!({"deflate": deflate})).unwrap();
        Self { address, _process: process }
    }

    fn envoy(&self) -> Envoy {
        start_before(EnvoyVersion::Newest, vec![self.address.clone()], 4, detail(), |_| {})
    }
}

/// What the script `resumed` says: the call that the hub did not answer is said again on the next WebSocket.
const RESUMED: [(&str, &str, u64); 7] = [
    ("received", "handshake", 1),
    ("received", "invocation", 3 + 2 + 2),
    ("received", "sequence", 1),
    ("received", "close", 1),
    ("sent", "completion", 3 + 1 + 2),
    ("sent", "ack", 3 + 1 + 2),
    ("sent", "sequence", 1),
];

#[test]
fn a_resumed_connection_is_counted_with_its_acks_and_sequences() {
    let hub = StandIn::start(&json!(false));
    let envoy = hub.envoy();
    let wires = Talk::new(&envoy, "resumed", 1).run();
    assert_said(&wires, &RESUMED, 1);
    for (hub, wire) in &wires {
        assert!(wire.of("received", "ack") >= 2, "{hub}: {wire:?}");
    }
    settles("resumed", &envoy, is_message, &expected(&wires));
}

#[test]
fn compressed_messages_are_counted_and_not_guessed_at() {
    let hub = StandIn::start(&json!({"threshold": 1024}));
    let envoy = hub.envoy();
    let _ = Talk::new(&envoy, "compressed", 1).run();
    // Three of five calls and answers are long enough to be compressed.
    let each = [
        ("received", "compressed", 3),
        ("received", "invocation", 2),
        ("received", "ping", 1),
        ("received", "close", 1),
        ("sent", "compressed", 3),
        ("sent", "completion", 2),
    ];
    let of = |hub| each.map(|(direction, kind, count)| (name(hub, direction, kind), count));
    settles("long messages only", &envoy, is_message, &[of(JSON), of(MESSAGE_PACK)].concat());
}

/// Chromium compresses all that it says where the hub agrees, the handshake too: then not even the protocol is known.
#[test]
fn what_a_browser_compresses_from_the_first_byte_is_counted_as_messages_of_the_websocket() {
    let hub = StandIn::start(&json!({"threshold": 0}));
    let envoy = hub.envoy();
    let connects = 3;
    let client = BrowserClient::of(envoy.url(), envoy.url(), connects);
    let outcome = run_browser(&client).unwrap();
    assert_eq!(outcome.connected, connects, "{:?}", outcome.first_error());
    let connects = u64::from(connects);
    // Handshake, ping, two calls and a goodbye; the hub answers three of them.
    let expected =
        [(name(JSON, "received", "compressed"), 5 * connects), (name(JSON, "sent", "compressed"), 3 * connects)];
    settles("everything", &envoy, is_message, &expected);
    let all = series(&envoy);
    let of = |direction| all[&format!("websocket_messages_total{{direction={direction},hub=/chat}}")];
    assert_eq!((of("received"), of("sent")), (5 * connects, 3 * connects));
}
