use super::sessions::Session;
use super::*;
use crate::cuts::cuts;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame whose first byte is `first`, masked as `direction` wants it.
fn frame(direction: Direction, first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = match direction {
        Direction::Received => 0x80,
        Direction::Sent => 0,
    };
    let length = match payload.len() {
        short @ 0..126 => vec![short as u8 | mask],
        middle @ 126..0x1_0000 => [&[126 | mask][..], &(middle as u16).to_be_bytes()].concat(),
        long => [&[127 | mask][..], &(long as u64).to_be_bytes()].concat(),
    };
    let body: Vec<u8> = match direction {
        Direction::Received => {
            let masked = payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key);
            KEY.into_iter().chain(masked).collect()
        }
        Direction::Sent => payload.to_vec(),
    };
    [vec![first], length, body].concat()
}

/// Everything that a meter reports, as text; pieces of payload are put together.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    events: Vec<String>,
    payload: Vec<u8>,
}

impl Seen {
    fn add(&mut self, event: &Event<'_>) {
        if let Event::Payload(payload) = event {
            return payload.read(|plain| self.payload.extend_from_slice(plain));
        }
        if !self.payload.is_empty() {
            self.events.push(String::from_utf8_lossy(&std::mem::take(&mut self.payload)).into_owned());
        }
        self.events.push(match event {
            Event::Frame { opcode, length, is_final } => {
                format!("{opcode:?} {length}{}", if *is_final { "" } else { "…" })
            }
            Event::MessageStart(coding) => format!("{coding:?}"),
            Event::Payload(_) => unreachable!(),
            Event::MessageEnd => "end".to_owned(),
            Event::Close(close) => format!("closes {:?} {}", close.code, close.reason_length),
            Event::Violation(violation) => format!("{violation:?}"),
        });
    }
}

fn watch<'a>(direction: Direction, chunks: impl IntoIterator<Item = &'a [u8]>) -> (Seen, FrameTally) {
    let (mut meter, mut seen) = (FrameMeter::new(direction), Seen::default());
    for chunk in chunks {
        meter.feed(chunk, |event| seen.add(&event));
    }
    (seen, meter.tally())
}

fn events(direction: Direction, bytes: &[u8]) -> String {
    watch(direction, [bytes]).0.events.join(", ")
}

#[test]
fn each_frame_is_told() {
    let long = "x".repeat(200);
    let both = [Direction::Received, Direction::Sent];
    for (name, frames, expected) in [
        ("text", vec![(0x81, "hello")], "Text 5, Plain, hello, end".to_owned()),
        ("binary", vec![(0x82, "hello")], "Binary 5, Plain, hello, end".into()),
        ("empty", vec![(0x81, "")], "Text 0, Plain, end".into()),
        ("16-bit length", vec![(0x82, &long)], format!("Binary 200, Plain, {long}, end")),
        ("compressed", vec![(0xc1, "zip")], "Text 3, Compressed, zip, end".into()),
        (
            "fragments with a ping between them, and the empty last one of .NET",
            vec![(0x01, "ab"), (0x00, "c"), (0x89, "?"), (0x80, "")],
            "Text 2…, Plain, ab, Continuation 1…, c, Ping 1, Continuation 0, end".into(),
        ),
        ("ping and pong", vec![(0x89, ""), (0x8a, "here")], "Ping 0, Pong 4".into()),
        ("empty close", vec![(0x88, "")], "Close 0, closes None 0".into()),
        ("close", vec![(0x88, "\x03\x68")], "Close 2, closes Some(872) 0, CloseCode".into()),
        ("close for a reason", vec![(0x88, "\x0f\x01ab")], "Close 4, closes Some(3841) 2".into()),
        ("pong behind a close", vec![(0x88, ""), (0x8a, "")], "Close 0, closes None 0, Pong 0".into()),
    ] {
        for direction in both {
            let bytes: Vec<u8> =
                frames.iter().flat_map(|(first, payload)| frame(direction, *first, payload.as_bytes())).collect();
            assert_eq!(events(direction, &bytes), expected, "{name}, {direction:?}");
        }
    }
}

#[test]
fn what_breaks_the_protocol_is_told_once_and_ends_the_count() {
    use Direction::{Received, Sent};
    for (name, direction, bytes, expected) in [
        ("RSV2", Sent, &b"\xa1\x00"[..], "ReservedBit"),
        ("RSV3", Sent, b"\x91\x00", "ReservedBit"),
        ("RSV1 on a ping", Sent, b"\xc9\x00", "ReservedBit"),
        ("RSV1 on a later fragment", Sent, b"\x41\x00\xc0\x00", "Text 0…, Compressed, ReservedBit"),
        ("opcode 3", Sent, b"\x83\x00", "ReservedOpcode"),
        ("opcode 11", Sent, b"\x8b\x00", "ReservedOpcode"),
        ("unmasked client", Received, b"\x81\x00", "Unmasked"),
        ("masked server", Sent, b"\x81\x80\x01\x02\x03\x04", "Masked"),
        ("125 in two bytes", Sent, b"\x82\x7e\x00\x7d", "LengthNotMinimal"),
        ("65535 in eight bytes", Sent, b"\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff", "LengthNotMinimal"),
        ("2^63", Sent, b"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", "LengthTooLarge"),
        ("a ping in fragments", Sent, b"\x09\x00", "ControlFragmented"),
        ("a ping of 126 bytes", Sent, b"\x89\x7e\x00\x7e", "ControlTooLong"),
        ("a continuation of nothing", Sent, b"\x80\x00", "ContinuationWithoutStart"),
        ("a message in a message", Sent, b"\x01\x01a\x81\x00", "Text 1…, Plain, a, MessageInterrupted"),
        ("half a close code", Sent, b"\x88\x01\x03", "CloseTruncated"),
        ("data behind a close", Sent, b"\x88\x00\x81\x00", "Close 0, closes None 0, DataAfterClose"),
    ] {
        let more = [bytes, b"\x81\x01a\x91\x00\x83\x00"].concat();
        let (seen, tally) = watch(direction, [&more[..], b"\x81\x01a"]);
        assert_eq!(seen.events.join(", "), expected, "{name}");
        assert_eq!(tally.wire_bytes, more.len() as u64 + 3, "{name}: bytes count on");
        assert_eq!(tally.messages, 0, "{name}");
    }
}

#[test]
fn close_codes_are_held_to_the_registry() {
    for (codes, lawful) in [
        (&[1000, 1001, 1002, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999][..], true),
        (&[0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX], false),
    ] {
        for code in codes {
            let bytes = frame(Direction::Received, 0x88, &[&code.to_be_bytes()[..], b"bye"].concat());
            let mut meter = FrameMeter::new(Direction::Received);
            meter.feed(&bytes, |_| ());
            assert_eq!(meter.close(), Some(Close { code: Some(*code), reason_length: 3 }));
            assert_eq!(meter.violation(), (!lawful).then_some(Violation::CloseCode), "{code}");
        }
    }
}

#[test]
fn no_split_changes_what_is_seen() {
    for direction in [Direction::Received, Direction::Sent] {
        let frames: [(u8, &[u8]); 9] = [
            (0x81, b"hello"),
            (0x02, &[0xab; 130]),
            (0x89, b"?"),
            (0x00, b"more"),
            (0x8a, b""),
            (0x80, b""),
            (0xc2, b"compressed"),
            (0x88, b"\x03\xe8going away"),
            (0x81, b"too late"),
        ];
        let bytes: Vec<u8> = frames.iter().flat_map(|(first, payload)| frame(direction, *first, payload)).collect();
        assert_splits_agree(direction, &bytes);
        let mut meter = FrameMeter::new(direction);
        meter.feed(&bytes, |_| ());
        let expected = FrameTally {
            frames: 8,
            messages: 3,
            compressed: 1,
            payload_bytes: 5 + 130 + 4 + 10,
            pings: 1,
            pongs: 1,
            wire_bytes: bytes.len() as u64,
        };
        assert_eq!((meter.take_tally(), meter.tally()), (expected, FrameTally::default()));
        assert_eq!(meter.close(), Some(Close { code: Some(1000), reason_length: 10 }));
    }
}

fn assert_splits_agree(direction: Direction, bytes: &[u8]) {
    let whole = watch(direction, [bytes]);
    for cut in cuts(bytes, 1_000) {
        let lengths: Vec<_> = cut.iter().map(|chunk| chunk.len()).collect();
        assert_eq!(watch(direction, cut), whole, "chunks of {lengths:?}");
    }
}

#[test]
fn the_mask_stays_in_step_wherever_a_chunk_ends() {
    let text: Vec<u8> = (0..=u8::MAX).cycle().take(3 * 256 + 7).collect();
    let bytes = frame(Direction::Received, 0x82, &text);
    for size in (1..10).chain([255, 256, 257, 259, bytes.len()]) {
        let (mut meter, mut plain) = (FrameMeter::new(Direction::Received), Vec::new());
        for chunk in bytes.chunks(size) {
            meter.feed(chunk, |event| {
                if let Event::Payload(payload) = event {
                    payload.read(|piece| plain.extend_from_slice(piece));
                }
            });
        }
        assert!(plain == text, "chunks of {size}");
    }
}

#[test]
fn a_frame_longer_than_memory_is_passed_over() {
    const LENGTH: u64 = 5 << 30;
    let chunk = vec![0; 1 << 20];
    let mut meter = FrameMeter::new(Direction::Sent);
    meter.feed(&[&b"\x82\x7f"[..], &LENGTH.to_be_bytes()].concat(), |_| ());
    for _ in 0..LENGTH >> 20 {
        assert_eq!(meter.tally().messages, 0);
        meter.feed(&chunk, |_| ());
    }
    meter.feed(b"\x89\x00", |_| ());
    let tally = meter.tally();
    assert_eq!((tally.messages, tally.payload_bytes, tally.pings), (1, LENGTH, 1));
}

#[test]
fn recorded_sessions_are_read_to_their_end() {
    // Frames, messages, payload bytes, pings, pongs, close code.
    let expected = [
        (12, 10, 2_528, 1, 0, None),
        (57, 54, 8_504, 0, 1, Some(1000)),
        (13, 11, 2_203, 1, 0, None),
        (54, 52, 2_578, 0, 1, Some(1000)),
        (4, 3, 105, 0, 0, Some(1000)),
        (2, 1, 3, 0, 0, Some(1000)),
        (2, 1, 36, 0, 0, None),
        (2, 1, 64, 0, 0, Some(1000)),
    ];
    for (Session { name, direction, bytes }, expected) in sessions::ALL.into_iter().zip(expected) {
        let mut meter = FrameMeter::new(direction);
        meter.feed(bytes, |_| ());
        let FrameTally { frames, messages, payload_bytes, pings, pongs, .. } = meter.tally();
        let code = meter.close().expect(name).code;
        assert_eq!((frames, messages, payload_bytes, pings, pongs, code), expected, "{name} {direction:?}");
        assert_splits_agree(direction, bytes);
    }
}

#[test]
fn payload_that_nobody_sees_is_counted_all_the_same() {
    for Session { name, direction, bytes } in sessions::ALL {
        let mut whole = FrameMeter::new(direction);
        whole.feed(bytes, |_| ());
        for piece in [1, 2, 7, 64, 1_024] {
            let (mut meter, mut rest) = (FrameMeter::new(direction), bytes);
            while !rest.is_empty() {
                rest = &rest[meter.pass_unseen(rest.len().min(piece))..];
                let (seen, after) = rest.split_at(rest.len().min(piece));
                meter.feed(seen, |_| ());
                rest = after;
            }
            let got = (meter.tally(), meter.close(), meter.violation());
            assert_eq!(got, (whole.tally(), whole.close(), whole.violation()), "{name} {direction:?} by {piece}");
        }
    }
}
