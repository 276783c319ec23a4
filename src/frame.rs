//! Counts what goes over one direction of a WebSocket: frames, messages, bytes, and how it closes.
//!
//! A resumable reader of RFC 6455 frame headers. Envoy hands over whatever a socket read gave, so a chunk may end
//! anywhere, inside a header too. Headers are read byte by byte; payload is passed over by arithmetic and never kept.
//! Whoever wants it gets it as it goes by, see [`Payload`].
//!
//! A meter looks on: it changes no byte. What breaks the protocol is reported once, and from there on, since nobody knows
//! where the next frame begins, only [`FrameTally::wire_bytes`] moves.

mod direction;
mod header;
mod payload;

pub use direction::{Direction, PerDirection};
pub use header::Opcode;
pub use payload::Payload;

use header::{Frame, Header};

/// Something went by.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The header of a frame.
    Frame {
        /// What the frame is.
        opcode: Opcode,
        /// How much payload follows.
        length: u64,
        /// Whether it ends its message.
        is_final: bool,
    },
    /// A data message begins. Its kind is that of the frame just reported.
    MessageStart(Coding),
    /// Payload of the data message, never empty, cut wherever frames and chunks end.
    Payload(Payload<'a>),
    /// The data message is complete.
    MessageEnd,
    /// This side says that it closes.
    Close(Close),
    /// This side broke the protocol. The last event of a meter.
    Violation(Violation),
}

/// How the payload of a data message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// As it is.
    Plain,
    /// With RSV1 set, which is how permessage-deflate (RFC 7692) marks a compressed message.
    Compressed,
}

/// The content of a Close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// Status code as it stands there; absent from an empty Close.
    pub code: Option<u16>,
    /// Bytes of the reason, 123 at most.
    pub reason_length: u8,
}

impl Close {
    /// Whether an endpoint may send this (RFC 6455 section 7.4, and the codes that IANA has registered since).
    fn is_lawful(self) -> bool {
        matches!(self.code, None | Some(1000..=1003 | 1007..=1014 | 3000..=4999))
    }
}

/// How a side broke the protocol. The other side is about to fail the connection with code 1002.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// RSV2 or RSV3, or RSV1 on anything but the first frame of a message.
    ReservedBit,
    /// An opcode that stands for nothing.
    ReservedOpcode,
    /// A client's frame without a mask.
    Unmasked,
    /// A server's frame with a mask.
    Masked,
    /// A length written in more bytes than it needs.
    LengthNotMinimal,
    /// A length of 2^63 or more.
    LengthTooLarge,
    /// A control frame that is not final.
    ControlFragmented,
    /// A control frame with more than 125 bytes.
    ControlTooLong,
    /// A continuation of nothing.
    ContinuationWithoutStart,
    /// A new data message inside another.
    MessageInterrupted,
    /// A data frame behind a Close.
    DataAfterClose,
    /// A Close with half a code.
    CloseTruncated,
    /// A Close with a code that must not be sent; the Close is reported all the same.
    CloseCode,
}

/// What one direction has carried. Counts saturate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameTally {
    /// Frames whose header was read, control frames included.
    pub frames: u64,
    /// Data messages, counted when complete.
    pub messages: u64,
    /// Of these, the compressed ones.
    pub compressed: u64,
    /// Payload of data frames as it is on the wire: without headers, control frames and compression undone.
    pub payload_bytes: u64,
    /// Ping frames.
    pub pings: u64,
    /// Pong frames.
    pub pongs: u64,
    /// Every byte fed, whatever it was.
    pub wire_bytes: u64,
}

/// The meter of one direction.
#[derive(Debug)]
pub struct FrameMeter {
    direction: Direction,
    stage: Stage,
    /// The data message that has begun and not ended; control frames may come between its frames.
    message: Option<Coding>,
    close: Option<Close>,
    violation: Option<Violation>,
    tally: FrameTally,
}

/// What the next byte is.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Header(Header),
    Body(Body),
    /// The protocol was broken: nobody knows.
    Lost,
}

/// The payload of a frame, as far as it has not gone by.
#[derive(Clone, Copy, Debug)]
struct Body {
    left: u64,
    /// The mask, turned so that its first byte belongs to the next byte of payload.
    key: [u8; 4],
    content: Content,
}

#[derive(Clone, Copy, Debug)]
enum Content {
    Data {
        is_final: bool,
    },
    /// 0 < missing <= 2 while the code is being read.
    CloseCode {
        missing: u8,
        code: u16,
    },
    /// Of no interest: pings, pongs, a Close's reason.
    Other,
}

impl FrameMeter {
    /// A meter for a WebSocket that has just been opened.
    pub fn new(direction: Direction) -> Self {
        let stage = Stage::Header(Header::default());
        Self { direction, stage, message: None, close: None, violation: None, tally: FrameTally::default() }
    }

    /// Reads the next bytes of this direction and reports to `on` what they hold. Without interest in events: `|_| ()`.
    pub fn feed(&mut self, chunk: &[u8], mut on: impl FnMut(Event<'_>)) {
        add(&mut self.tally.wire_bytes, chunk.len());
        let mut rest = chunk;
        while !rest.is_empty() {
            let step = match self.stage {
                Stage::Header(header) => self.read_header(header, rest, &mut on),
                Stage::Body(body) => self.pass_body(body, rest, &mut on),
                Stage::Lost => return,
            };
            match step {
                Ok((stage, after)) => (self.stage, rest) = (stage, after),
                Err(violation) => {
                    (self.stage, self.violation) = (Stage::Lost, Some(violation));
                    on(Event::Violation(violation));
                }
            }
        }
    }

    /// Passes over payload that nobody reads, at most `most` bytes of it, without being shown it. Returns how many bytes of
    /// what comes next that was; 0 where a header or a close code is to be read first.
    pub fn pass_unseen(&mut self, most: usize) -> usize {
        let Stage::Body(body) = self.stage else { return 0 };
        if let Content::CloseCode { .. } = body.content {
            return 0;
        }
        // A length that is no usize is longer than any chunk.
        let unseen = most.min(usize::try_from(body.left).unwrap_or(usize::MAX));
        add(&mut self.tally.wire_bytes, unseen);
        self.stage = self.advance(body, unseen, &mut |_| ());
        unseen
    }

    /// What has gone by so far, or since [`FrameMeter::take_tally`].
    pub fn tally(&self) -> FrameTally {
        self.tally
    }

    /// The tally, which begins anew: for counters that move while the WebSocket is open.
    pub fn take_tally(&mut self) -> FrameTally {
        std::mem::take(&mut self.tally)
    }

    /// The first Close of this side, if it said one.
    pub fn close(&self) -> Option<Close> {
        self.close
    }

    /// How this side broke the protocol, if it did.
    pub fn violation(&self) -> Option<Violation> {
        self.violation
    }

    fn read_header<'a>(
        &mut self,
        mut header: Header,
        chunk: &'a [u8],
        on: &mut impl FnMut(Event<'_>),
    ) -> Result<(Stage, &'a [u8]), Violation> {
        let mut rest = chunk;
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            if header.push(*byte) {
                return self.begin(&header.parse(self.direction)?, on).map(|stage| (stage, rest));
            }
        }
        Ok((Stage::Header(header), rest))
    }

    fn begin(&mut self, frame: &Frame, on: &mut impl FnMut(Event<'_>)) -> Result<Stage, Violation> {
        let start = self.place(frame)?;
        let Frame { opcode, length, is_final, key, .. } = *frame;
        count(&mut self.tally.frames);
        on(Event::Frame { opcode, length, is_final });
        if let Some(coding) = start {
            self.message = start;
            on(Event::MessageStart(coding));
        }
        let content = match opcode {
            Opcode::Text | Opcode::Binary | Opcode::Continuation => Content::Data { is_final },
            Opcode::Close if length == 0 => {
                self.say_close(Close { code: None, reason_length: 0 }, on)?;
                Content::Other
            }
            Opcode::Close => Content::CloseCode { missing: 2, code: 0 },
            Opcode::Ping => {
                count(&mut self.tally.pings);
                Content::Other
            }
            Opcode::Pong => {
                count(&mut self.tally.pongs);
                Content::Other
            }
        };
        Ok(self.go_on(Body { left: length, key, content }, on))
    }

    /// Whether the frame may stand here; if it begins a message, how that is coded.
    fn place(&self, frame: &Frame) -> Result<Option<Coding>, Violation> {
        let is_start = match frame.opcode {
            Opcode::Close | Opcode::Ping | Opcode::Pong => return Ok(None),
            Opcode::Text | Opcode::Binary => true,
            Opcode::Continuation => false,
        };
        match (is_start, self.message) {
            _ if self.close.is_some() => Err(Violation::DataAfterClose),
            (true, None) => Ok(Some(frame.coding)),
            (true, Some(_)) => Err(Violation::MessageInterrupted),
            (false, None) => Err(Violation::ContinuationWithoutStart),
            (false, Some(_)) => Ok(None),
        }
    }

    fn pass_body<'a>(
        &mut self,
        mut body: Body,
        chunk: &'a [u8],
        on: &mut impl FnMut(Event<'_>),
    ) -> Result<(Stage, &'a [u8]), Violation> {
        let most = match body.content {
            Content::CloseCode { .. } => 1,
            Content::Data { .. } | Content::Other => body.left,
        };
        // A length that is no usize is longer than any chunk.
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let (bytes, rest) = chunk.split_at_checked(most).unwrap_or((chunk, &[]));
        let reason_length = u8::try_from(body.left.saturating_sub(1)).unwrap_or(u8::MAX);
        match &mut body.content {
            Content::Data { .. } => on(Event::Payload(Payload::new(bytes, body.key))),
            Content::CloseCode { missing, code } => {
                for (byte, key) in bytes.iter().zip(body.key) {
                    *code = (*code << 8) | u16::from(byte ^ key);
                }
                *missing = missing.saturating_sub(1);
                if *missing == 0 {
                    let close = Close { code: Some(*code), reason_length };
                    body.content = Content::Other;
                    self.say_close(close, on)?;
                }
            }
            Content::Other => {}
        }
        Ok((self.advance(body, bytes.len(), on), rest))
    }

    fn say_close(&mut self, close: Close, on: &mut impl FnMut(Event<'_>)) -> Result<(), Violation> {
        self.close.get_or_insert(close);
        on(Event::Close(close));
        if close.is_lawful() { Ok(()) } else { Err(Violation::CloseCode) }
    }

    /// Moves on by so many bytes of payload.
    fn advance(&mut self, mut body: Body, passed: usize, on: &mut impl FnMut(Event<'_>)) -> Stage {
        if let Content::Data { .. } = body.content {
            add(&mut self.tally.payload_bytes, passed);
        }
        body.left = body.left.saturating_sub(u64::try_from(passed).unwrap_or(u64::MAX));
        body.key.rotate_left(passed % 4);
        self.go_on(body, on)
    }

    /// The rest of the frame, or the next frame when there is none.
    fn go_on(&mut self, body: Body, on: &mut impl FnMut(Event<'_>)) -> Stage {
        if body.left > 0 {
            return Stage::Body(body);
        }
        if let Content::Data { is_final: true } = body.content {
            count(&mut self.tally.messages);
            if self.message.take() == Some(Coding::Compressed) {
                count(&mut self.tally.compressed);
            }
            on(Event::MessageEnd);
        }
        Stage::Header(Header::default())
    }
}

fn count(counter: &mut u64) {
    add(counter, 1);
}

fn add(counter: &mut u64, amount: usize) {
    *counter = counter.saturating_add(u64::try_from(amount).unwrap_or(u64::MAX));
}

#[cfg(test)]
pub(crate) mod sessions;
#[cfg(test)]
mod tests;
