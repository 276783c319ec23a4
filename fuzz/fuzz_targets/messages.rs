//! However a stream is cut, the message meter counts the same; of valid JSON, what `serde_json` finds in it.
#![no_main]

use std::fmt;

use envoy_signalr::frame::{self, Direction};
use envoy_signalr::messages::{Handshake, MessageKind, MessageMeter, MessageTally, Protocol, Unreadable};
use envoy_signalr_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;

type Seen = (MessageTally, Handshake, Option<Unreadable>, Protocol);

/// The stream is payload, or a WebSocket with frames.
fn read<'a>(input: &Input<'a>, protocol: Protocol, chunks: impl Iterator<Item = &'a [u8]>) -> Seen {
    let direction = if input.choice & 1 == 0 { Direction::Received } else { Direction::Sent };
    let (mut frames, mut meter, mut protocol) =
        (frame::FrameMeter::new(direction), MessageMeter::new(direction), protocol);
    for chunk in chunks {
        if input.choice & 2 == 0 {
            meter.feed(chunk, &mut protocol);
        } else {
            frames.feed(chunk, |event| meter.observe(&event, &mut protocol));
        }
    }
    (meter.tally(), meter.handshake(), meter.unreadable(), protocol)
}

/// The first `type` of an object, as a number that fits, or 0.
struct FirstType;

impl<'de> Visitor<'de> for FirstType {
    type Value = u8;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<u8, A::Error> {
        let mut first = None;
        while let Some((name, value)) = members.next_entry::<String, Value>()? {
            if name == "type" && first.is_none() {
                first = value.as_u64().map_or(Some(0), |number| Some(u8::try_from(number).unwrap_or(0)));
            }
        }
        Ok(first.unwrap_or(0))
    }
}

/// What a JSON parser finds, if every record is an object without escapes, which the meter does not undo.
fn reference(records: &[u8]) -> Option<[u64; 10]> {
    let mut counts = [0; 10];
    let mut records: Vec<_> = records.split(|byte| *byte == 0x1e).collect();
    records.pop();
    for record in records {
        if record.contains(&b'\\') {
            return None;
        }
        let mut deserializer = serde_json::Deserializer::from_slice(record);
        let number = deserializer.deserialize_map(FirstType).ok()?;
        deserializer.end().ok()?;
        counts[if number > 9 { 0 } else { usize::from(number) }] += 1;
    }
    Some(counts)
}

fuzz_target!(|bytes: &[u8]| {
    let Some(input) = Input::of(bytes) else { return };
    let protocols = [Protocol::Pending, Protocol::Json, Protocol::MessagePack, Protocol::Unknown];
    let protocol = protocols[usize::from(input.choice >> 2) % protocols.len()];
    assert_eq!(read(&input, protocol, input.cut()), read(&input, protocol, [input.stream].into_iter()));

    if let Some(expected) = reference(input.stream) {
        let mut meter = MessageMeter::new(Direction::Sent);
        for chunk in [b"{}\x1e", input.stream] {
            meter.feed(chunk, &mut Protocol::Json);
        }
        let tally = meter.tally();
        let got = MessageKind::ALL.map(|kind| tally.of(kind));
        assert_eq!((&got[..9], got[9]), (&expected[1..], expected[0]));
    }
});
