//! What clients may say and what they must not, by the numbers of Autobahn's cases, and what the filter has to make of it.

use crate::client::Carried;

/// Masks every frame.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame as it is sent.
#[derive(Clone)]
pub(crate) struct Piece {
    pub(crate) bytes: Vec<u8>,
    carries: Carried,
    /// From here on the filter cannot follow.
    is_violation: bool,
}

/// All that a client says on one WebSocket.
pub(crate) struct Case {
    pub(crate) number: &'static str,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) closed_by: &'static str,
    pub(crate) code: &'static str,
}

impl Case {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.pieces.iter().flat_map(|piece| piece.bytes.iter().copied()).collect()
    }

    pub(crate) fn breaks_the_protocol(&self) -> bool {
        self.pieces.iter().any(|piece| piece.is_violation)
    }

    /// What is counted of it.
    pub(crate) fn said(&self) -> Carried {
        let followed = self.pieces.iter().take_while(|piece| !piece.is_violation);
        followed.fold(Carried::default(), |sum, piece| sum.plus(piece.carries))
    }
}

/// A frame whose first byte is `first`.
fn frame(first: u8, payload: impl AsRef<[u8]>) -> Piece {
    let payload = payload.as_ref();
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..126 => bytes.push(0x80 | short as u8),
        middle @ 126..0x1_0000 => bytes.extend([&[0x80 | 126][..], &(middle as u16).to_be_bytes()].concat()),
        long => bytes.extend([&[0x80 | 127][..], &(long as u64).to_be_bytes()].concat()),
    }
    bytes.extend(KEY);
    bytes.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    let carries = match first & 0x0f {
        0x0..=0x2 => Carried { messages: u64::from(first >> 7), bytes: payload.len() as u64 },
        _ => Carried::default(),
    };
    Piece { bytes, carries, is_violation: false }
}

/// A frame that is against the protocol, also in the filter's eyes.
fn broken(first: u8, payload: impl AsRef<[u8]>) -> Piece {
    Piece { is_violation: true, ..frame(first, payload) }
}

/// No frame at all.
fn raw(bytes: &[u8]) -> Piece {
    Piece { bytes: bytes.to_vec(), carries: Carried::default(), is_violation: true }
}

fn text(payload: impl AsRef<[u8]>) -> Piece {
    frame(0x81, payload)
}

fn close(code: u16, reason: impl AsRef<[u8]>) -> Piece {
    frame(0x88, [&code.to_be_bytes(), reason.as_ref()].concat())
}

/// A message in frames of `size` bytes.
fn fragments(first: u8, payload: impl AsRef<[u8]>, size: usize) -> Vec<Piece> {
    let pieces = payload.as_ref().chunks(size);
    let last = pieces.len() - 1;
    let opcode = |at| if at == 0 { first & 0x0f } else { 0 };
    pieces.enumerate().map(|(at, piece)| frame(opcode(at) | if at == last { 0x80 } else { 0 }, piece)).collect()
}

/// The client says goodbye, and nothing is wrong.
fn fine(number: &'static str, mut pieces: Vec<Piece>) -> Case {
    pieces.push(close(1000, ""));
    Case { number, pieces, closed_by: "client", code: "1000" }
}

/// The hub fails the connection with this code.
fn failed(number: &'static str, code: &'static str, pieces: Vec<Piece>) -> Case {
    Case { number, pieces, closed_by: "server", code }
}

/// The case has a Close of its own, which has this label.
fn closes(number: &'static str, code: &'static str, pieces: Vec<Piece>) -> Case {
    Case { number, pieces, closed_by: "client", code }
}

const KIBI: usize = 1_024;
const GREEK: &str = "Hello-µ@ßöäüàá-UTF-8!! κόσμε";
/// "κόσμε", a surrogate, "edited".
const NOT_UTF8: &[u8] = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited";

pub(crate) fn cases() -> Vec<Case> {
    [framing(), pings(), reserved(), fragmentation(), utf8(), closing(), large(), lengths_and_masks()]
        .into_iter()
        .flatten()
        .collect()
}

fn framing() -> Vec<Case> {
    let star = |length| "*".repeat(length);
    vec![
        fine("1.1.1", vec![text("")]),
        fine("1.1.2", vec![text(star(125))]),
        fine("1.1.3", vec![text(star(126))]),
        fine("1.1.4", vec![text(star(127))]),
        fine("1.1.5", vec![text(star(128))]),
        fine("1.1.6", vec![text(star(65_535))]),
        fine("1.1.7", vec![text(star(65_536))]),
        fine("1.2.1", vec![frame(0x82, "")]),
        fine("1.2.2", vec![frame(0x82, [0xfe; 125])]),
        fine("1.2.3", vec![frame(0x82, [0xfe; 126])]),
        fine("1.2.4", vec![frame(0x82, [0xfe; 127])]),
        fine("1.2.5", vec![frame(0x82, [0xfe; 128])]),
        fine("1.2.6", vec![frame(0x82, [0xfe; 65_535])]),
        fine("1.2.7", vec![frame(0x82, [0xfe; 65_536])]),
    ]
}

fn pings() -> Vec<Case> {
    let ping = |payload: &[u8]| frame(0x89, payload);
    vec![
        fine("2.1", vec![ping(b"")]),
        fine("2.2", vec![ping(b"Hello, world!")]),
        fine("2.3", vec![ping(b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")]),
        fine("2.4", vec![ping(&[0xfe; 125])]),
        failed("2.5", "1002", vec![broken(0x89, [0xfe; 126])]),
        fine("2.7", vec![frame(0x8a, "")]),
        fine("2.8", vec![frame(0x8a, "unsolicited pong payload")]),
        fine("2.9", vec![frame(0x8a, "unsolicited pong payload"), ping(b"ping payload")]),
        fine("2.10", (0..10).map(|number| ping(format!("payload-{number}").as_bytes())).collect()),
    ]
}

fn reserved() -> Vec<Case> {
    let hello = || text("Hello, world!");
    let data = |opcode: u8| vec![hello(), broken(0x80 | opcode, "reserved opcode payload"), frame(0x89, "")];
    let empty = |opcode: u8| vec![broken(0x80 | opcode, "")];
    vec![
        failed("3.1", "1002", vec![broken(0x91, "Hello, world!")]),
        failed("3.2", "1002", vec![hello(), broken(0xa1, "Hello, world!"), frame(0x89, "")]),
        failed("3.3", "1002", vec![hello(), broken(0xb1, "Hello, world!"), frame(0x89, "")]),
        // That no compression was agreed on is not the filter's to judge.
        failed("3.4", "1002", vec![hello(), frame(0xc1, "Hello, world!"), frame(0x89, "")]),
        failed("3.5", "1002", vec![broken(0xd2, [0xff; 8])]),
        failed("3.6", "1002", vec![broken(0xe9, "Hello, world!")]),
        failed("3.7", "1002", vec![broken(0xf8, "")]),
        failed("4.1.1", "1002", empty(0x3)),
        failed("4.1.2", "1002", vec![broken(0x84, "reserved opcode payload")]),
        failed("4.1.3", "1002", data(0x5)),
        failed("4.1.4", "1002", data(0x6)),
        failed("4.1.5", "1002", data(0x7)),
        failed("4.2.1", "1002", empty(0xb)),
        failed("4.2.2", "1002", vec![broken(0x8c, "reserved opcode payload")]),
        failed("4.2.3", "1002", data(0xd)),
        failed("4.2.4", "1002", data(0xe)),
        failed("4.2.5", "1002", data(0xf)),
    ]
}

fn fragmentation() -> Vec<Case> {
    let start = || frame(0x01, "fragment1");
    let middle = |text: &str| frame(0x00, text);
    let last = || frame(0x80, "fragment2");
    let ping = || frame(0x89, "ping payload");
    vec![
        failed("5.1", "1002", vec![broken(0x09, "fragment1"), last()]),
        failed("5.2", "1002", vec![broken(0x0a, "fragment1"), last()]),
        fine("5.3", vec![start(), last()]),
        fine("5.6", vec![start(), ping(), last()]),
        failed("5.9", "1002", vec![broken(0x80, "non-continuation payload"), text("Hello, world!")]),
        failed("5.12", "1002", vec![broken(0x00, "non-continuation payload"), text("Hello, world!")]),
        failed("5.15", "1002", vec![start(), last(), broken(0x00, "fragment3"), text("fragment4")]),
        failed("5.18", "1002", vec![start(), broken(0x81, "fragment2")]),
        fine(
            "5.19",
            vec![
                start(),
                middle("fragment2"),
                ping(),
                middle("fragment3"),
                middle(""),
                ping(),
                frame(0x80, "fragment5"),
            ],
        ),
        fine("6.1.2", vec![frame(0x01, ""), middle(""), frame(0x80, "")]),
        fine("6.1.3", vec![frame(0x01, ""), middle("middle frame payload"), frame(0x80, "")]),
    ]
}

/// Whether text is UTF-8 is between client and hub: the filter only counts it.
fn utf8() -> Vec<Case> {
    vec![
        fine("6.2.1", vec![text(GREEK)]),
        fine("6.2.2", fragments(0x81, GREEK, 17)),
        fine("6.2.3", fragments(0x81, GREEK, 1)),
        failed("6.3.1", "1007", vec![text(NOT_UTF8)]),
        failed("6.3.2", "1007", fragments(0x81, NOT_UTF8, 1)),
        fine("6.5.5", vec![text("\u{10ffff}\u{fffe}\u{0}")]),
        failed("6.10.1", "1007", vec![text(b"\xf7\xbf\xbf\xbf")]),
        failed("6.12.1", "1007", vec![text(b"\x80")]),
        failed("6.13.1", "1007", vec![text(b"\xc0\x20")]),
        failed("6.14.1", "1007", vec![text(b"\xc0")]),
        failed("6.16.1", "1007", vec![text(b"\xfe")]),
        failed("6.17.1", "1007", vec![text(b"\xc0\xaf")]),
        failed("6.20.1", "1007", vec![text(b"\xed\xa0\x80")]),
    ]
}

fn closing() -> Vec<Case> {
    let codes = [
        ("7.7.1", 1000, "1000"),
        ("7.7.2", 1001, "1001"),
        ("7.7.3", 1002, "1002"),
        ("7.7.4", 1003, "1003"),
        ("7.7.5", 1007, "1007"),
        ("7.7.6", 1008, "1008"),
        ("7.7.7", 1009, "1009"),
        ("7.7.8", 1010, "1010"),
        ("7.7.9", 1011, "1011"),
        ("7.7.10", 3000, "other"),
        ("7.7.11", 3999, "other"),
        ("7.7.12", 4000, "other"),
        ("7.7.13", 4999, "other"),
    ];
    let codes_that_must_not_be_sent = [
        ("7.9.1", 0, "other"),
        ("7.9.2", 999, "other"),
        ("7.9.3", 1004, "other"),
        ("7.9.4", 1005, "1005"),
        ("7.9.5", 1006, "1006"),
        ("7.9.6", 1016, "other"),
        ("7.9.9", 2999, "other"),
        ("7.13.1", 5000, "other"),
        ("7.13.2", 65_535, "other"),
    ];
    let unlawful = |code| Piece { is_violation: true, ..close(code, "") };
    let mut cases = vec![
        fine("7.1.1", vec![text("Hello World!")]),
        fine("7.1.2", vec![close(1000, "")]),
        closes("7.1.3", "1000", vec![close(1000, ""), frame(0x89, "")]),
        closes("7.1.4", "1000", vec![close(1000, ""), broken(0x81, "Hello World!")]),
        closes("7.1.5", "1000", vec![frame(0x01, "fragment1"), close(1000, ""), broken(0x80, "fragment2")]),
        closes("7.3.1", "1005", vec![frame(0x88, "")]),
        failed("7.3.2", "1002", vec![broken(0x88, "a")]),
        closes("7.3.4", "1000", vec![close(1000, "Hello World!")]),
        closes("7.3.5", "1000", vec![close(1000, "*".repeat(123))]),
        failed("7.3.6", "1002", vec![broken(0x88, [b'*'; 126])]),
        closes("7.5.1", "1000", vec![close(1000, NOT_UTF8)]),
    ];
    cases.extend(codes.map(|(number, code, label)| closes(number, label, vec![close(code, "")])));
    cases.extend(codes_that_must_not_be_sent.map(|(number, code, label)| closes(number, label, vec![unlawful(code)])));
    cases
}

fn large() -> Vec<Case> {
    let long = |length| "BAsd7&jh23".repeat(length / 10);
    vec![
        fine("9.1.3", vec![text(long(KIBI * KIBI))]),
        fine("9.2.5", vec![frame(0x82, vec![0; 4 * KIBI * KIBI])]),
        fine("9.3.4", fragments(0x81, long(KIBI * KIBI), 4 * KIBI)),
        fine("9.4.6", fragments(0x82, vec![0xfe; 2 * KIBI * KIBI], 64 * KIBI)),
        fine("9.7.1", vec![text(""); 300]),
        fine("9.8.4", vec![frame(0x82, [0xfe; 256]); 300]),
        fine("10.1.1", fragments(0x81, long(64 * KIBI), 1_300)),
    ]
}

/// What Autobahn leaves out.
fn lengths_and_masks() -> Vec<Case> {
    vec![
        failed("unmasked", "1002", vec![raw(b"\x81\x05Hello")]),
        failed("length of 2^63", "1009", vec![raw(b"\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0")]),
        // tungstenite takes it, and the hub's answer to the goodbye is the first that the filter understands.
        failed("length in more bytes than it needs", "1000", vec![raw(b"\x82\xfe\0\x01\0\0\0\0*"), close(1000, "")]),
    ]
}
