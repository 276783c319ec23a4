//! What is counted of one WebSocket, frame by frame.

use super::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn frame(opcode: u8, text: &str) -> Vec<u8> {
    [&[0x80 | opcode, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

/// A client's frame with a mask of zeros.
fn masked(text: &str) -> Vec<u8> {
    [&[0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0], text.as_bytes()].concat()
}

fn at(milliseconds: u64) -> Millis {
    Millis::since_epoch(std::time::Duration::from_millis(milliseconds))
}

fn lines(counts: &[Count]) -> Vec<String> {
    let line = |count: &Count| format!("{} {:?}", count.stat().replace("signalr_hub=.=/chat;.;", ""), count.change());
    counts.iter().map(line).collect()
}

#[test]
fn signalr_messages_are_counted_by_type() {
    let mut traffic = Traffic::default();
    let mut socket = Socket::new(HubLabel::learned(b"/chat"), at(0), Detail::Messages, &mut traffic);
    let _ = socket.on_answer(101, at(5));
    for (direction, bytes) in [
        (Direction::Received, masked("{\"protocol\":\"json\",\"version\":1}\u{1e}")),
        (Direction::Sent, frame(1, "{}\u{1e}{\"type\":6}\u{1e}")),
        (Direction::Received, masked("{\"arguments\":[],\"target\":\"x\",\"type\":1}\u{1e}")),
        (Direction::Sent, frame(1, "{\"type\":7}\u{1e}")),
        (Direction::Received, [0x88, 0x80, 0, 0, 0, 0].to_vec()),
    ] {
        assert_eq!(socket.pass(direction, &bytes, at(5)), None);
    }
    let types = |direction, kind| {
        format!("signalr_direction=.={direction};.;signalr_type=.={kind};.;signalr_gateway_messages_total Add(1)")
    };
    let traffic = lines(&traffic.take());
    for expected in [types("received", "invocation"), types("sent", "ping"), types("sent", "close")] {
        assert!(traffic.contains(&expected), "{expected} is not in {traffic:?}");
    }
    assert_eq!(traffic.len(), 3 + 4, "and messages and bytes of either direction: {traffic:?}");
    // The hub said goodbye in SignalR's words, and the client's Close frame only followed.
    assert_eq!(
        lines(&socket.finish(&Ending::default(), at(1_005))),
        [
            "signalr_closed_by=.=server;.;signalr_code=.=1005;.;websocket_connections_closed_total Add(1)",
            "websocket_connection_duration_milliseconds Observe(1000)"
        ]
    );
}

#[test]
fn what_passes_unseen_is_counted_though_nothing_follows() {
    let mut traffic = Traffic::default();
    let mut socket = Socket::new(HubLabel::learned(b"/chat"), at(0), Detail::Frames, &mut traffic);
    assert_eq!(socket.pass(Direction::Sent, &[0x82, 5], at(0)), None);
    assert_eq!(socket.pass_unseen(Direction::Sent, 3, at(0)), 3);
    let counted = |unit| format!("signalr_direction=.=sent;.;websocket_{unit}_total");
    assert_eq!(lines(&traffic.take()), [format!("{} Add(3)", counted("bytes"))]);
    assert_eq!(socket.pass_unseen(Direction::Sent, 2, at(0)), 2);
    let expected = [format!("{} Add(1)", counted("messages")), format!("{} Add(2)", counted("bytes"))];
    assert_eq!(lines(&traffic.take()), expected);
}

#[test]
fn a_refused_handshake_has_its_name() {
    let asked = masked("{\"protocol\":\"x\",\"version\":1}\u{1e}");
    let compressed = [&[0xc1], &asked[1..]].concat();
    for (asked, kind) in
        [(asked, "handshake_rejected"), (compressed, "handshake_rejected"), (Vec::new(), "handshake_timeout")]
    {
        let mut traffic = Traffic::default();
        let mut socket = Socket::new(HubLabel::learned(b"/chat"), at(0), Detail::Messages, &mut traffic);
        let _ = socket.on_answer(101, at(5));
        socket.pass(Direction::Received, &asked, at(5));
        socket.pass(Direction::Sent, &frame(1, "{\"error\":\"no\"}\u{1e}"), at(5));
        socket.pass(Direction::Sent, &frame(8, ""), at(5));
        let lines = lines(&socket.finish(&Ending::default(), at(10)));
        assert_eq!(lines.last().unwrap(), &format!("signalr_kind=.={kind};.;websocket_errors_total Add(1)"));
    }
}

#[test]
fn a_client_that_gives_a_silent_hub_up_is_told_from_one_that_leaves() {
    for (name, pings_until, by, expected) in [
        ("silent", 2_000, Direction::Received, true),
        ("silent, but the hub ends it", 2_000, Direction::Sent, false),
        ("alive", 15_000, Direction::Received, false),
    ] {
        let mut traffic = Traffic::default();
        let mut socket = Socket::new(HubLabel::learned(b"/chat"), at(0), Detail::Frames, &mut traffic);
        let _ = socket.on_answer(101, at(5));
        for now in (0..=32).map(|seconds| seconds * 1_000) {
            if now <= pings_until {
                socket.pass(Direction::Sent, &frame(9, ""), at(now));
            }
        }
        let mut goodbyes = [(Direction::Sent, frame(8, "")), (Direction::Received, vec![0x88, 0x80, 0, 0, 0, 0])];
        goodbyes.sort_by_key(|(direction, _)| *direction != by);
        for (direction, goodbye) in goodbyes {
            socket.pass(direction, &goodbye, at(32_000));
        }
        let lines = lines(&socket.finish(&Ending::default(), at(32_500)));
        let timeout = "signalr_kind=.=server_timeout;.;websocket_errors_total Add(1)".to_owned();
        assert_eq!(lines.contains(&timeout), expected, "{name}: {lines:?}");
    }
}

#[test]
fn without_detail_no_byte_is_looked_at() {
    let mut traffic = Traffic::default();
    let mut socket = Socket::new(HubLabel::learned(b"/chat"), at(0), Detail::Connections, &mut traffic);
    let _ = socket.on_answer(101, at(5));
    assert!(!socket.meters());
    assert_eq!(socket.pass(Direction::Sent, &frame(8, ""), at(5)), None);
    assert_eq!(traffic.take(), []);
    let lines = lines(&socket.finish(&Ending { flags: 64, details: Vec::new() }, at(10)));
    assert_eq!(
        lines[0],
        "signalr_closed_by=.=unknown;.;signalr_code=.=none;.;websocket_connections_closed_total Add(1)"
    );
    assert_eq!(lines.len(), 2, "no goodbye was seen, but none was looked for");
}
