use super::*;
use crate::cuts::cuts;
use crate::frame::{self, sessions};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use Direction::{Received, Sent};

const ASKS_MESSAGE_PACK: &[u8] = b"{\"protocol\":\"messagepack\",\"version\":1}\x1e";

/// Where a meter has come to.
#[derive(Debug, PartialEq)]
struct Seen {
    handshake: Handshake,
    protocol: Protocol,
    /// Types as their numbers, 0 for others, with their counts.
    counts: Vec<(u8, u64)>,
    unreadable: Option<Unreadable>,
}

impl Seen {
    fn of(meter: &MessageMeter, protocol: Protocol) -> Self {
        let tally = meter.tally();
        let counts = (0..=9).map(|number| (number, tally.of(MessageKind::of(number)))).filter(|(_, count)| *count > 0);
        let (handshake, unreadable) = (meter.handshake(), meter.unreadable());
        Self { handshake, protocol, counts: counts.collect(), unreadable }
    }
}

fn read<'a>(direction: Direction, mut protocol: Protocol, chunks: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let mut meter = MessageMeter::new(direction);
    for chunk in chunks {
        meter.feed(chunk, &mut protocol);
    }
    Seen::of(&meter, protocol)
}

/// Reads the bytes whole and cut; all must agree.
fn read_cut(name: &str, direction: Direction, protocol: Protocol, bytes: &[u8]) -> Seen {
    let whole = read(direction, protocol, [bytes]);
    for cut in cuts(bytes, 100) {
        let lengths: Vec<_> = cut.iter().map(|chunk| chunk.len()).collect();
        assert_eq!(read(direction, protocol, cut), whole, "{name}, chunks of {lengths:?}");
    }
    whole
}

#[test]
fn the_handshake_names_the_protocol() {
    use Protocol::{BlazorPack, Json, MessagePack, Unknown};
    for (name, handshake, expected) in [
        ("JSON", r#"{"protocol":"json","version":1}"#, Json),
        ("MessagePack", r#"{"protocol":"messagepack","version":2}"#, MessagePack),
        ("Blazor", r#"{"protocol":"blazorpack","version":1}"#, BlazorPack),
        ("Python's spaces", r#"{"protocol": "json", "version": 1}"#, Json),
        ("another order", r#"{"version":1,"x":{"protocol":"no"},"protocol":"messagepack"}"#, MessagePack),
        ("another case", r#"{"protocol":"MessagePack","version":1}"#, MessagePack),
        ("a name to come", r#"{"protocol":"messagepack2","version":1}"#, Unknown),
        ("an escaped name", r#"{"protocol":"json\"","version":1}"#, Unknown),
        ("no string", r#"{"protocol":1}"#, Unknown),
        ("no name", r#"{"version":1}"#, Unknown),
    ] {
        let seen = read_cut(name, Received, Protocol::Pending, &[handshake.as_bytes(), b"\x1e"].concat());
        assert_eq!((seen.handshake, seen.protocol), (Handshake::Done, expected), "{name}");
        assert_eq!((seen.counts, seen.unreadable), (vec![], None), "{name}");
    }
}

#[test]
fn the_hub_agrees_or_refuses() {
    for (name, answer, expected) in [
        ("agrees", "{}\x1e", Handshake::Done),
        ("agrees, with a minor version", "{\"minorVersion\":0}\x1e", Handshake::Done),
        ("no error", "{\"error\":null}\x1e", Handshake::Done),
        ("refuses", "{\"error\":\"The protocol \\u0027x\\u0027 is not supported.\"}\x1e", Handshake::Rejected),
        ("refuses in other words", "{\"x\":[{\"error\":1}], \"error\" : \"no\"}\x1e", Handshake::Rejected),
        ("says nothing", "", Handshake::Pending),
        ("is cut off", "{}", Handshake::Pending),
    ] {
        let seen = read_cut(name, Sent, Protocol::Json, answer.as_bytes());
        assert_eq!((seen.handshake, seen.counts), (expected, vec![]), "{name}");
    }
}

#[test]
fn the_type_is_found_wherever_it_stands() {
    for (name, record, expected) in [
        ("first", r#"{"type":1,"target":"a","arguments":[{"type":2}]}"#, 1),
        ("last", r#"{"arguments":["\\\"}",{"type":2,"a":[{}]}],"invocationId":"0","target":"type","type":4}"#, 4),
        ("in the middle", r#"{"a":[],"type":3,"b":{}}"#, 3),
        ("with spaces", "\n{ \"a\" : 1.5e3 ,\t\"type\" :\r\n 5 }", 5),
        ("alone", r#"{"type":6}"#, 6),
        ("in a text", r#"{"x":"\"type\":7","type":8}"#, 8),
        ("a name that looks like it", r#"{"\"type":7,"types":7,"typ":7,"":7,"Type":7,"type":9}"#, 9),
        ("a text that ends in a backslash", r#"{"x":"\\","type":2}"#, 2),
        ("twice", r#"{"type":1,"type":2}"#, 1),
        ("of a later protocol", r#"{"type":10}"#, 0),
        ("zero", r#"{"type":0}"#, 0),
        ("larger than a byte", r#"{"type":257}"#, 0),
        ("a fraction", r#"{"type":1.5}"#, 0),
        ("a text", r#"{"type":"1"}"#, 0),
        ("not there", r#"{"a":{"type":1}}"#, 0),
        ("no object", r#"[{"type":1}]"#, 0),
        ("no JSON", r#"}"type":1"#, 0),
        ("nothing", "", 0),
    ] {
        for protocol in [Protocol::Json, Protocol::Pending] {
            let stream = [b"{}\x1e{\"type\":6}\x1e", record.as_bytes(), b"\x1e{\"type\":7}\x1e{\"type\""].concat();
            let seen = read_cut(name, Sent, protocol, &stream);
            let mut counts = vec![6, 7, expected];
            counts.sort_unstable();
            let counted: Vec<u8> = seen.counts.iter().flat_map(|(kind, count)| (0..*count).map(|_| *kind)).collect();
            assert_eq!(counted, counts, "{name}");
        }
    }
}

#[test]
fn packed_messages_are_told_by_length_and_type() {
    let ping: &[u8] = &[0x02, 0x91, 0x06];
    let long = [&[0x82, 0x01, 0x95, 0x01][..], &[0x91; 128]].concat();
    let malformed = Some(Unreadable::Malformed);
    for (name, bytes, expected, unreadable) in [
        ("a ping", ping.to_vec(), vec![(6, 1)], None),
        ("several", [ping, &[0x03, 0x92, 0x07, 0xc2], ping].concat(), vec![(6, 2), (7, 1)], None),
        ("a length of two bytes", [&long[..], ping].concat(), vec![(1, 1), (6, 1)], None),
        ("a length of five bytes", vec![0x82, 0x80, 0x80, 0x80, 0x00, 0x91, 0x06], vec![(6, 1)], None),
        ("array 16", vec![0x05, 0xdc, 0x00, 0x02, 0x03, 0xc0], vec![(3, 1)], None),
        ("array 32", vec![0x06, 0xdd, 0x00, 0x00, 0x00, 0x01, 0x05], vec![(5, 1)], None),
        ("of a later protocol", vec![0x02, 0x91, 0x0a], vec![(0, 1)], None),
        ("a type that is no small number", vec![0x03, 0x91, 0xcc, 0x06], vec![(0, 1)], None),
        ("cut off", vec![0x03, 0x91, 0x06], vec![], None),
        ("length zero", vec![0x00, 0x02, 0x91, 0x06], vec![], malformed),
        ("a length of 2^31", vec![0x80, 0x80, 0x80, 0x80, 0x08], vec![], malformed),
        ("a length of six bytes", vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x01], vec![], malformed),
        ("no array", [ping, &[0x02, 0x81, 0x06]].concat(), vec![(6, 1)], malformed),
        ("an empty array", vec![0x02, 0x90, 0x06], vec![], malformed),
        ("no room for the type", vec![0x01, 0x91, 0x06], vec![], malformed),
    ] {
        for protocol in [Protocol::MessagePack, Protocol::BlazorPack] {
            let seen = read_cut(name, Sent, protocol, &[b"{}\x1e", &bytes[..]].concat());
            assert_eq!((seen.counts, seen.unreadable), (expected.clone(), unreadable), "{name}");
        }
        let seen = read_cut(name, Received, Protocol::Pending, &[ASKS_MESSAGE_PACK, &bytes].concat());
        assert_eq!((seen.counts, seen.unreadable), (expected, unreadable), "{name}, from the client");
    }
}

#[test]
fn a_long_packed_message_is_passed_over() {
    let (mut meter, mut protocol) = (MessageMeter::new(Sent), Protocol::MessagePack);
    meter.feed(b"{}\x1e\xff\xff\xff\xff\x07\x95\x01", &mut protocol);
    let chunk = vec![0x91; (1 << 20) - 1];
    for _ in 0..2_048 {
        assert_eq!(meter.tally(), MessageTally::default());
        meter.feed(&chunk, &mut protocol);
    }
    meter.feed(&[0x91; 2_045], &mut protocol);
    assert_eq!(meter.take_tally().of(MessageKind::Invocation), 1);
    meter.feed(b"\x02\x91\x06", &mut protocol);
    assert_eq!(meter.tally().of(MessageKind::Ping), 1);
}

#[test]
fn a_resumed_connection_has_no_handshake() {
    let json = b"{\"type\":9,\"sequenceId\":3}\x1e{\"type\":6}\x1e";
    let packed = b"\x03\x92\x09\x03\x02\x91\x06";
    for (name, bytes, protocol) in [("JSON", &json[..], Protocol::Json), ("packed", packed, Protocol::MessagePack)] {
        for direction in [Received, Sent] {
            let seen = read_cut(name, direction, Protocol::Pending, bytes);
            let (handshake, counts) = (Handshake::Resumed, vec![(6, 1), (9, 1)]);
            assert_eq!(seen, Seen { handshake, protocol, counts, unreadable: None }, "{name} {direction:?}");
        }
    }
}

#[test]
fn what_is_not_signalr_counts_as_nothing() {
    for (name, bytes, unreadable) in [
        ("text", &b"hello, hello, hello"[..], Some(Unreadable::Malformed)),
        ("JSON without an end", br#"{"type":1,"op":"x"}{"type":2}"#, None),
        ("another protocol", b"{\"protocol\":\"x\"}\x1e{\"type\":6}\x1e", Some(Unreadable::Protocol)),
    ] {
        let seen = read_cut(name, Received, Protocol::Pending, bytes);
        assert_eq!((seen.counts, seen.unreadable), (vec![], unreadable), "{name}");
    }
}

#[test]
fn compressed_messages_are_left_out() {
    let plain = |text: &[u8]| [&[0x81, u8::try_from(text.len()).unwrap()], text].concat();
    let (ping, zip) = (plain(b"{\"type\":6}\x1e"), b"\xc1\x02{\x1e".to_vec());
    let agreed = plain(b"{}\x1e");
    let lost = Some(Unreadable::Compressed);
    for (name, frames, pings, unreadable) in [
        ("the handshake", vec![&zip, &ping], 0, lost),
        ("right behind the handshake", vec![&agreed, &zip, &ping], 1, None),
        ("between messages", vec![&agreed, &ping, &zip, &ping], 2, None),
        ("within a message", vec![&agreed, &ping, &plain(b"{\"type"), &zip, &ping], 1, lost),
    ] {
        let mut frames_meter = frame::FrameMeter::new(Sent);
        let (mut meter, mut protocol) = (MessageMeter::new(Sent), Protocol::Json);
        for bytes in frames {
            frames_meter.feed(bytes, |event| meter.observe(&event, &mut protocol));
        }
        assert_eq!((meter.tally().of(MessageKind::Ping), meter.unreadable()), (pings, unreadable), "{name}");
    }
}

#[test]
fn recorded_sessions_are_counted() {
    use Handshake::{Done, Rejected};
    use Protocol::{Json, MessagePack, Unknown};
    let expected = [
        (Done, Json, vec![(1, 4), (4, 2), (5, 1), (6, 2), (7, 1)]),
        (Done, Json, vec![(1, 2), (2, 45), (3, 5), (6, 1), (7, 1)]),
        (Done, MessagePack, vec![(1, 4), (4, 2), (5, 1), (6, 3), (7, 1)]),
        (Done, MessagePack, vec![(1, 2), (2, 45), (3, 5), (6, 1)]),
        (Done, Json, vec![(1, 1), (6, 1)]),
        (Done, Json, vec![]),
        (Done, Unknown, vec![]),
        (Rejected, Unknown, vec![]),
    ];
    let mut protocol = Protocol::Pending;
    for (session, (handshake, spoken, counts)) in sessions::ALL.into_iter().zip(expected) {
        if session.direction == Received {
            protocol = Protocol::Pending;
        }
        let before = protocol;
        let run = |chunks: &mut dyn Iterator<Item = &'static [u8]>| {
            let (mut frames, mut meter) =
                (frame::FrameMeter::new(session.direction), MessageMeter::new(session.direction));
            let mut protocol = before;
            for chunk in chunks {
                frames.feed(chunk, |event| meter.observe(&event, &mut protocol));
            }
            Seen::of(&meter, protocol)
        };
        let whole = run(&mut [session.bytes].into_iter());
        let expected = Seen { handshake, protocol: spoken, counts, unreadable: None };
        assert_eq!(whole, expected, "{} {:?}", session.name, session.direction);
        for at in 0..=session.bytes.len() {
            let (one, two) = session.bytes.split_at(at);
            assert_eq!(run(&mut [one, two].into_iter()), whole, "{}, cut at {at}", session.name);
        }
        assert_eq!(run(&mut session.bytes.chunks(1)), whole, "{}, byte by byte", session.name);
        protocol = whole.protocol;
    }
}
