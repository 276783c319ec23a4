//! Odd frames and odd cuts: through the filter a client and a hub hear what they hear without it, byte for byte, and what the
//! filter counts is what was said.

mod corpus;

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts, Patch, connection_manager, remove_health_checks};
use testbed::process::cores;
use testbed::raw::{self, Wire};
use testbed::stand_in;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, OpCode};
use tungstenite::{Error, Message};

use crate::client::Carried;
use crate::scrape::{Series, settles};
use corpus::Case;

/// A TCP connection that knows how much it has read.
struct Counted {
    stream: TcpStream,
    read: usize,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.stream.read(buffer)?;
        self.read += length;
        Ok(length)
    }
}

impl Write for Counted {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A strict hub, which returns every message. The query says how many bytes will come. All of them are read before the end: the kernel would else reset the connection,
/// and what arrives of the answer would be a matter of luck.
#[expect(clippy::result_large_err, reason = "tungstenite's callback has this signature")]
fn echo(stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut announced = 0;
    let read_query = |request: &Request, response: Response| {
        announced = request.uri().query().and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
        Ok(response)
    };
    let mut socket = tungstenite::accept_hdr(Counted { stream, read: 0 }, read_query).ok()?;
    socket.get_mut().read = 0;
    let error = loop {
        match socket.read() {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => socket.send(message).ok()?,
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let code = match error {
        Error::ConnectionClosed => None,
        Error::Utf8(_) => Some(CloseCode::Invalid),
        Error::Capacity(_) => Some(CloseCode::Size),
        _ => Some(CloseCode::Protocol),
    };
    if let Some(code) = code {
        socket.close(Some(CloseFrame { code, reason: "".into() })).ok()?;
    }
    let left = announced - socket.get_ref().read;
    io::copy(&mut socket.get_mut().take(left as u64), &mut io::sink()).ok().map(drop)
}

/// How a client's bytes are cut into writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Whole,
    ByteByByte,
    AtRandom,
}

/// What is cut into single bytes is at most this long.
const SHORT: usize = 1_024;

impl Cut {
    fn all(length: usize) -> &'static [Self] {
        if length <= SHORT { &[Self::Whole, Self::ByteByByte, Self::AtRandom] } else { &[Self::Whole, Self::AtRandom] }
    }

    fn apply(self, bytes: &[u8]) -> Vec<&[u8]> {
        let mut random = fastrand::Rng::with_seed(1);
        let mut rest = bytes;
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let size = match self {
                Self::Whole => rest.len(),
                Self::ByteByByte => 1,
                Self::AtRandom => random.usize(1..=bytes.len() / 5 + 1),
            };
            let (piece, after) = rest.split_at(size.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces
    }
}

/// What a client hears until the end.
#[derive(Clone, PartialEq, Eq)]
struct Heard {
    bytes: Vec<u8>,
    end: Result<(), ErrorKind>,
}

fn exchange(address: &str, bytes: &[u8], cut: Cut) -> Heard {
    let mut wire = Wire::open(address);
    let length = bytes.len();
    let answer = wire.ask(&raw::Request::websocket(&format!("/echo?{length}")));
    assert_eq!(answer.status(), 101, "{answer:?}");
    let mut writer = wire.tcp().try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            for piece in cut.apply(bytes) {
                writer.write_all(piece).unwrap();
                if length <= SHORT {
                    // Else Envoy would read them in one.
                    thread::sleep(Duration::from_micros(100));
                }
            }
        });
        let mut bytes = Vec::new();
        let end = wire.read_to_end(&mut bytes).map(drop).map_err(|error| error.kind());
        Heard { bytes, end }
    })
}

/// What every client of the corpus hears, with every cut.
fn hear(address: &str, cases: &[Case]) -> Vec<(String, Heard)> {
    let bytes: Vec<_> = cases.iter().map(Case::bytes).collect();
    let cuts = |at: usize| Cut::all(bytes[at].len()).iter().map(move |cut| (at, *cut));
    let exchanges: Vec<_> = (0..cases.len()).flat_map(cuts).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut heard = Vec::new();
        while let Some((at, cut)) = exchanges.get(next.fetch_add(1, Ordering::Relaxed)) {
            heard.push((format!("{}, {cut:?}", cases[*at].number), exchange(address, &bytes[*at], *cut)));
        }
        heard
    };
    let mut heard: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..6 * cores()).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    heard.sort_by(|(one, _), (other, _)| one.cmp(other));
    heard
}

/// The data in a hub's frames.
fn carried(mut frames: &[u8]) -> Carried {
    let mut sum = Carried::default();
    while let Some((header, length)) = FrameHeader::parse(&mut io::Cursor::new(frames)).unwrap() {
        let head = header.len(length);
        let length = usize::try_from(length).unwrap();
        if let OpCode::Data(_) = header.opcode {
            sum = sum.plus(Carried { messages: u64::from(header.is_final), bytes: length as u64 });
        }
        frames = &frames[head + length..];
    }
    sum
}

/// What the filter has to show after all of it.
fn expected(detail: &str, cases: &[Case], heard: &[(String, Heard)]) -> Vec<(String, u64)> {
    let mut expected = Series::new();
    let mut add = |name: String, amount: u64| *expected.entry(name).or_default() += amount;
    for (case, cuts) in cases.iter().map(|case| (case, Cut::all(case.bytes().len()).len() as u64)) {
        let Case { closed_by, code, .. } = case;
        // The hub ends the TCP connection, and where no frame is read that is all there is to see.
        let (by, code) = if detail == "connections" { ("unknown", "none") } else { (*closed_by, *code) };
        add(format!("websocket_connections_closed_total{{closed_by={by},code={code},hub=echo}}"), cuts);
        if detail != "connections" {
            add("websocket_messages_total{direction=received,hub=echo}".to_owned(), cuts * case.said().messages);
            add("websocket_bytes_total{direction=received,hub=echo}".to_owned(), cuts * case.said().bytes);
            if case.breaks_the_protocol() {
                add("websocket_errors_total{hub=echo,kind=protocol}".to_owned(), cuts);
            }
        }
    }
    if detail != "connections" {
        let sent = heard.iter().fold(Carried::default(), |sum, (_, heard)| sum.plus(carried(&heard.bytes)));
        add("websocket_messages_total{direction=sent,hub=echo}".to_owned(), sent.messages);
        add("websocket_bytes_total{direction=sent,hub=echo}".to_owned(), sent.bytes);
    }
    expected.into_iter().collect()
}

fn start(filter: Filter, hub: &str) -> Envoy {
    let patch: Patch = Box::new(|bootstrap| {
        remove_health_checks(bootstrap);
        // How long Envoy waits for a client to close first, which none here does: a second each by default.
        connection_manager(bootstrap)["delayed_close_timeout"] = "0.1s".into();
    });
    let hosts = Hosts::Fixed(vec![hub.to_owned()]);
    let options = EnvoyOptions { filter, hosts, concurrency: 2, patch: Some(patch), ..EnvoyOptions::default() };
    Envoy::start(&options).unwrap()
}

#[test]
fn odd_frames_pass_unaltered_and_are_counted_exactly() {
    let hub = stand_in::listen(echo).unwrap().to_string();
    let cases = corpus::cases();
    let direct = hear(&hub, &cases);
    let with = |detail: &'static str| {
        let hubs: Value = json!([{ "path": "/echo", "name": "echo" }]);
        (detail, Filter::With(json!({ "hubs": hubs, "metrics": { "detail": detail } })))
    };
    for (name, filter) in [("no filter", Filter::Absent), with("connections"), with("frames"), with("messages")] {
        let envoy = start(filter, &hub);
        let through = hear(&envoy.url(), &cases);
        let altered = through.iter().zip(&direct).filter(|(through, direct)| through != direct);
        let altered: Vec<_> = altered.map(|((case, heard), _)| (case, heard.bytes.len(), heard.end)).collect();
        assert_eq!(altered, [], "{name}");
        if name != "no filter" {
            let of_frames = |series: &str| {
                ["_closed_total", "_messages_total", "_bytes_total", "_errors_total"]
                    .iter()
                    .any(|part| series.starts_with("websocket") && series.contains(part))
            };
            settles(name, &envoy, of_frames, &expected(name, &cases, &through));
        }
        assert!(!envoy.has_trapped(), "{name}: {}", envoy.log());
    }
}
