//! One JSON record of the hub protocol, up to its 0x1E, of which only a few members of the outermost object matter.
//!
//! .NET writes `type` first, the JavaScript client last, so any place will do. Bounded state, no recursion: braces are
//! counted, strings are passed over, and nothing is held to JSON's grammar, since the receiver does that. 0x1E ends a
//! record wherever it stands, because JSON does not allow it in a string.

use super::{MessageKind, Protocol};

const END: u8 = 0x1e;

/// The members that matter. The first `type` counts, and what stands behind it does not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    pub(super) kind: Option<MessageKind>,
    pub(super) protocol: Option<Protocol>,
    /// `error` is there, with a text.
    pub(super) has_error: bool,
}

/// A record that goes by.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record {
    place: Place,
    found: Found,
    word: Word,
}

/// Where in the outermost object the next byte stands.
#[derive(Clone, Copy, Debug, Default)]
enum Place {
    #[default]
    Open,
    /// Before a name, or before the end.
    Member,
    Name {
        escaped: bool,
    },
    Colon(Name),
    Value(Name),
    Number(u8),
    Protocol {
        escaped: bool,
    },
    Passing(Passing),
    /// Nothing else of this record matters.
    Done,
}

#[derive(Clone, Copy, Debug)]
enum Name {
    Type,
    Protocol,
    Error,
    Other,
}

/// A value that is passed over.
#[derive(Clone, Copy, Debug, Default)]
struct Passing {
    /// Braces and brackets opened in it and not closed; saturates, after 4 GiB of them.
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Record {
    /// Whether no byte of the record has been read.
    pub(super) fn is_fresh(&self) -> bool {
        matches!(self.place, Place::Open)
    }

    /// Reads to the end of the record or of `bytes`. Once the record is complete, the next may follow.
    pub(super) fn feed<'a>(&mut self, bytes: &'a [u8]) -> (Option<Found>, &'a [u8]) {
        let end = bytes.iter().position(|byte| *byte == END);
        let (record, rest) = bytes.split_at_checked(end.unwrap_or(bytes.len())).unwrap_or((bytes, &[]));
        for byte in record {
            if let Place::Done = self.place {
                break;
            }
            self.place = self.step(*byte);
        }
        let Some((_, next)) = rest.split_first() else { return (None, rest) };
        let found = std::mem::take(self).found;
        (Some(found), next)
    }

    fn step(&mut self, byte: u8) -> Place {
        match (self.place, byte) {
            (Place::Done, _) => Place::Done,
            (Place::Open, b'{') => Place::Member,
            (place @ (Place::Open | Place::Colon(_) | Place::Value(_)), b' ' | b'\t' | b'\r' | b'\n') => place,
            (Place::Open, _) => Place::Done,
            (Place::Member, b'"') => {
                self.word = Word::default();
                Place::Name { escaped: false }
            }
            (Place::Member, b'}') => Place::Done,
            (place @ Place::Member, _) => place,
            (Place::Name { escaped: false }, b'"') => Place::Colon(self.word.name()),
            (Place::Name { escaped }, _) => Place::Name { escaped: self.word.push(byte, escaped) },
            (Place::Colon(name), b':') => Place::Value(name),
            (Place::Colon(_), _) => Place::Done,
            (Place::Value(name), _) => self.value(name, byte),
            (Place::Number(number), b'0'..=b'9') => digit(number, byte),
            (Place::Number(number), b',' | b'}' | b' ' | b'\t' | b'\r' | b'\n') => {
                self.is_type(MessageKind::of(number))
            }
            (Place::Number(_), _) => self.is_type(MessageKind::Other),
            (Place::Protocol { escaped: false }, b'"') => {
                self.found.protocol = Some(Protocol::named(self.word.text()));
                Place::Done
            }
            (Place::Protocol { escaped }, _) => Place::Protocol { escaped: self.word.push(byte, escaped) },
            (Place::Passing(passing), _) => passing.step(byte),
        }
    }

    /// The value of the member `name` begins with `byte`.
    fn value(&mut self, name: Name, byte: u8) -> Place {
        match (name, byte) {
            (Name::Type, b'0'..=b'9') => return digit(0, byte),
            (Name::Type, _) => return self.is_type(MessageKind::Other),
            (Name::Protocol, b'"') => {
                self.word = Word::default();
                return Place::Protocol { escaped: false };
            }
            (Name::Error, b'"') => self.found.has_error = true,
            (Name::Protocol | Name::Error | Name::Other, _) => {}
        }
        Passing::default().step(byte)
    }

    fn is_type(&mut self, kind: MessageKind) -> Place {
        self.found.kind = Some(kind);
        Place::Done
    }
}

fn digit(number: u8, byte: u8) -> Place {
    Place::Number(number.saturating_mul(10).saturating_add(byte.saturating_sub(b'0')))
}

impl Passing {
    fn step(mut self, byte: u8) -> Place {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = self.in_string,
            b'"' => self.in_string = !self.in_string,
            _ if self.in_string => {}
            b'{' | b'[' => self.depth = self.depth.saturating_add(1),
            b',' if self.depth == 0 => return Place::Member,
            b'}' if self.depth == 0 => return Place::Done,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        Place::Passing(self)
    }
}

/// A short text as it is read: enough to distinguish the words that matter from all others.
#[derive(Clone, Copy, Debug, Default)]
struct Word {
    bytes: [u8; Protocol::LONGEST],
    /// Of a word that does not fit, more than fits.
    length: usize,
}

impl Word {
    /// Adds a byte of a string; whether it escapes the next. An escape stays as written, so that no word with one is
    /// known: nobody writes these words so.
    fn push(&mut self, byte: u8, escaped: bool) -> bool {
        if let Some(slot) = self.bytes.get_mut(self.length) {
            *slot = byte;
        }
        self.length = self.length.saturating_add(1);
        byte == b'\\' && !escaped
    }

    fn text(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn name(&self) -> Name {
        match self.text() {
            b"type" => Name::Type,
            b"protocol" => Name::Protocol,
            b"error" => Name::Error,
            _ => Name::Other,
        }
    }
}
