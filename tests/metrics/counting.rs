//! Known traffic: every counter equals the known number, and gauges come back to zero.

use serde_json::json;
use testbed::clients::{NodeClient, Task, Transport, start_node};
use testbed::hub::shared_hubs;
use testbed::tools::EnvoyVersion;

use crate::client::{Carried, Client, Ended};
use crate::scrape::{self, series, settles};

/// How the connections of [`known_traffic_is_counted_exactly`] end, and who is reported to have ended them with which code.
const ENDINGS: [(&str, u32, &str, &str); 6] = [
    ("1000", 4, "client", "1000"),
    ("1001", 2, "client", "1001"),
    ("no code", 1, "client", "1005"),
    ("4000", 1, "client", "other"),
    ("hub aborts", 2, "server", "1000"),
    ("reset", 2, "client", "none"),
];

fn end(name: &str, client: Client) -> Ended {
    match name {
        "hub aborts" => client.aborted(),
        "reset" => client.reset(),
        "no code" => client.close(None),
        code => client.close(Some(code.parse().unwrap())),
    }
}

#[test]
fn known_traffic_is_counted_exactly_on_one_worker_thread_and_on_four() {
    let hubs = &shared_hubs().unwrap()[..1];
    for (version, concurrency) in [(EnvoyVersion::Newest, 1), (EnvoyVersion::Newest, 4), (EnvoyVersion::Oldest, 4)] {
        let name = format!("{version:?}, {concurrency} threads");
        let envoy = scrape::start_version(version, hubs, concurrency, json!({}), |_| {});
        let mut clients = Vec::new();
        for (name, count, ..) in ENDINGS {
            for number in 0..count {
                let mut client = Client::connect(&envoy, "/chat");
                // Lengths in 7 and in 16 bits.
                client.echo("short");
                client.echo(&"long, ".repeat(100 * number as usize + 50));
                client.echo_in_pieces("in three frames with pings between");
                clients.push((name, client));
            }
        }
        let open = clients.len() as u64;
        let gauges = |open| {
            vec![
                ("signalr_gateway_connections_active{hub=/chat,transport=web_sockets}".to_owned(), open),
                ("websocket_connections_active{hub=/chat}".to_owned(), open),
            ]
        };
        let active = |series: &str| series.contains("_active{");
        settles(&format!("gauges, {name}"), &envoy, active, &gauges(open));

        let ended: Vec<_> = clients.into_iter().map(|(name, client)| (name, end(name, client))).collect();
        let aborted = ended.iter().filter(|(name, _)| *name == "hub aborts");
        aborted.for_each(|(_, ended)| assert_eq!(ended.code, Some(1000), "what the hub's Close says"));
        let sum = |side: fn(&Ended) -> Carried| {
            ended.iter().map(|(_, ended)| side(ended)).fold(Carried::default(), Carried::plus)
        };
        let (said, heard) = (sum(|ended| ended.said), sum(|ended| ended.heard));

        let mut expected = gauges(0);
        for (_, count, by, code) in ENDINGS {
            let name = format!("websocket_connections_closed_total{{closed_by={by},code={code},hub=/chat}}");
            expected.push((name, count.into()));
        }
        let counters = [
            ("signalr_gateway_affinity_total{hub=/chat,outcome=routed,source=connection_token}", open),
            ("signalr_gateway_connections_total{hub=/chat,transport=web_sockets}", open),
            ("signalr_gateway_negotiations_total{hub=/chat,result=sealed}", open),
            ("signalr_gateway_negotiate_to_connect_milliseconds_count{hub=/chat}", open),
            ("websocket_bytes_total{direction=received,hub=/chat}", said.bytes),
            ("websocket_bytes_total{direction=sent,hub=/chat}", heard.bytes),
            ("websocket_messages_total{direction=received,hub=/chat}", said.messages),
            ("websocket_messages_total{direction=sent,hub=/chat}", heard.messages),
            ("websocket_connections_total{hub=/chat}", open),
            ("websocket_connection_duration_milliseconds_count{hub=/chat}", open),
            ("websocket_handshake_milliseconds_count{hub=/chat}", open),
            // Those that were reset.
            ("websocket_errors_total{hub=/chat,kind=abnormal_closure}", 2),
        ];
        expected.extend(counters.map(|(name, value)| (name.to_owned(), value)));
        settles(&name, &envoy, |_| true, &expected);
        // Nothing trickles in afterwards, when all of a later visit is reported to another hub.
        let later = Client::connect(&envoy, "/notifications").close(Some(1000));
        let of_later = [
            ("websocket_messages_total{direction=received,hub=/notifications}".to_owned(), later.said.messages),
            ("websocket_connections_active{hub=/notifications}".to_owned(), 0),
            ("websocket_connection_duration_milliseconds_count{hub=/notifications}".to_owned(), 1),
        ];
        let wanted = |series: &str| of_later.iter().any(|(name, _)| name == series);
        settles(&format!("{name}, later visit"), &envoy, wanted, &of_later);
        let mut all = series(&envoy);
        all.retain(|series, _| !series.contains("hub=/notifications"));
        assert_eq!(all, expected.into_iter().collect(), "{name}, later");
    }
}

/// By WebSocket, Microsoft's client sends six messages: handshake, ping, WhoAmI, Echo, WhoAmI, close; and gets four answers.
#[test]
fn connections_of_a_real_client_are_counted_by_transport() {
    let hubs = &shared_hubs().unwrap()[..1];
    let envoy = scrape::start(hubs, 4, json!({}), |_| {});
    let running = Transport::ALL.map(|transport| {
        start_node(NodeClient { task: Task::of(envoy.url(), 6), transport, ..NodeClient::default() }).unwrap()
    });
    let gauges = |open| {
        let by = |transport| format!("signalr_gateway_connections_active{{hub=/chat,transport={transport}}}");
        let mut gauges: Vec<_> =
            ["web_sockets", "server_sent_events", "long_polling"].map(|transport| (by(transport), open)).into();
        gauges.push(("websocket_connections_active{hub=/chat}".to_owned(), open));
        gauges
    };
    let active = |series: &str| series.contains("_active{");
    settles("gauges while they are held", &envoy, active, &gauges(6));
    for client in running {
        let outcome = client.release().unwrap();
        assert_eq!(outcome.connected, 6, "{:?}", outcome.first_error());
    }
    let mut expected = gauges(0);
    let counters = [
        ("signalr_gateway_connections_total{hub=/chat,transport=web_sockets}", 6),
        ("signalr_gateway_connections_total{hub=/chat,transport=server_sent_events}", 6),
        ("signalr_gateway_connections_total{hub=/chat,transport=long_polling}", 6),
        ("signalr_gateway_negotiations_total{hub=/chat,result=sealed}", 18),
        ("signalr_gateway_negotiate_to_connect_milliseconds_count{hub=/chat}", 18),
        ("websocket_connections_total{hub=/chat}", 6),
        ("websocket_connection_duration_milliseconds_count{hub=/chat}", 6),
        ("websocket_handshake_milliseconds_count{hub=/chat}", 6),
        ("websocket_messages_total{direction=received,hub=/chat}", 36),
    ];
    expected.extend(counters.map(|(name, value)| (name.to_owned(), value)));
    // Each poll and each send is steered, too, and their number is the client's own. Goodbyes race: a hub that has read
    // SignalR's Close says its own, also before the WebSocket's, and has let go when last words come by requests.
    let late = "websocket_errors_total{hub=/chat,kind=late_request}";
    let ends = [
        "websocket_connections_closed_total{closed_by=client,code=1005,hub=/chat}",
        "websocket_connections_closed_total{closed_by=server,code=1000,hub=/chat}",
    ];
    let unknown = ["_affinity_total", "_bytes_total", "_messages_total{direction=sent", late, ends[0], ends[1]];
    let known = |series: &str| !unknown.iter().any(|part| series.contains(part));
    settles("after they have ended", &envoy, known, &expected);
    let all = series(&envoy);
    let sent = all["websocket_messages_total{direction=sent,hub=/chat}"];
    assert!((24..=30).contains(&sent), "four answers to each, and perhaps a goodbye: {sent}");
    let count = |name| all.get(name).copied().unwrap_or(0);
    assert_eq!(ends.map(count).iter().sum::<u64>(), 6, "{all:#?}");
    // SignalR's Close of each; by polls also the last poll and the DELETE.
    assert!(count(late) <= 6 + 3 * 6, "{} late requests", count(late));
}
