//! However a stream is cut, the frame meter tells the same.
#![no_main]

use envoy_signalr::frame::{Close, Coding, Direction, Event, FrameMeter, FrameTally, Opcode, Violation};
use envoy_signalr_fuzz::Input;
use libfuzzer_sys::fuzz_target;

#[derive(Debug, PartialEq)]
enum Told {
    Frame(Opcode, u64, bool),
    Start(Coding),
    Payload(Vec<u8>),
    End,
    Close(Close),
    Violation(Violation),
}

fn read<'a>(direction: Direction, chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<Told>, FrameTally, Option<Close>) {
    let (mut meter, mut told) = (FrameMeter::new(direction), Vec::new());
    for chunk in chunks {
        meter.feed(chunk, |event| {
            let next = match event {
                Event::Frame { opcode, length, is_final } => Told::Frame(opcode, length, is_final),
                Event::MessageStart(coding) => Told::Start(coding),
                Event::Payload(payload) => {
                    let mut bytes = match told.pop() {
                        Some(Told::Payload(bytes)) => bytes,
                        last => {
                            told.extend(last);
                            Vec::new()
                        }
                    };
                    payload.read(|plain| bytes.extend_from_slice(plain));
                    assert!(!bytes.is_empty());
                    Told::Payload(bytes)
                }
                Event::MessageEnd => Told::End,
                Event::Close(close) => Told::Close(close),
                Event::Violation(violation) => Told::Violation(violation),
            };
            told.push(next);
        });
    }
    let violations = told.iter().filter(|told| matches!(told, Told::Violation(_))).count();
    assert_eq!(violations, usize::from(meter.violation().is_some()));
    assert!(violations == 0 || matches!(told.last(), Some(Told::Violation(_))));
    (told, meter.tally(), meter.close())
}

fuzz_target!(|bytes: &[u8]| {
    let Some(input) = Input::of(bytes) else { return };
    let direction = if input.choice & 1 == 0 { Direction::Received } else { Direction::Sent };
    let whole = read(direction, [input.stream].into_iter());
    assert_eq!(read(direction, input.cut()), whole);

    let (told, tally, _) = whole;
    let count = |wanted: fn(&Told) -> u64| told.iter().map(wanted).sum::<u64>();
    assert_eq!(tally.wire_bytes, input.stream.len() as u64);
    assert_eq!(tally.frames, count(|told| u64::from(matches!(told, Told::Frame(..)))));
    assert_eq!(tally.messages, count(|told| u64::from(matches!(told, Told::End))));
    assert_eq!(tally.payload_bytes, count(|told| if let Told::Payload(bytes) = told { bytes.len() as u64 } else { 0 }));
});
