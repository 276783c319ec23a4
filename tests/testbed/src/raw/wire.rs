//! HTTP/1.1 messages as bytes on a socket (RFC 9112): nothing is normalised, so that a test sees what was sent.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use crate::process::PATIENCE;

/// A start line and header fields, names in lower case, values and order as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The first line.
    pub start: String,
    /// Name and value of each field.
    pub fields: Vec<(String, Vec<u8>)>,
}

impl Head {
    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let mut lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let start = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
        let fields = lines.filter(|line| !line.is_empty()).map(|line| {
            let colon = line.iter().position(|byte| *byte == b':').ok_or_else(|| broken("a field without a colon"))?;
            let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
            Ok((name, line[colon + 1..].trim_ascii().to_vec()))
        });
        Ok(Self { start, fields: fields.collect::<io::Result<_>>()? })
    }

    /// Every value of the field `name`, which must be in lower case.
    pub fn all(&self, name: &str) -> Vec<String> {
        let values = self.fields.iter().filter(|(key, _)| key == name);
        values.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    }

    /// The first value of the field `name`.
    pub fn one(&self, name: &str) -> Option<&str> {
        let (_, value) = self.fields.iter().find(|(key, _)| key == name)?;
        std::str::from_utf8(value).ok()
    }

    /// The same without these fields.
    pub fn without(mut self, names: &[&str]) -> Self {
        self.fields.retain(|(name, _)| !names.contains(&name.as_str()));
        self
    }
}

/// What may follow a head.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// What the head says, and nothing when it says nothing: a request.
    OfRequest,
    /// What the head says, or else everything until the connection ends: a response.
    OfResponse,
}

/// One end of a connection. Reads and writes pass through it also when HTTP is over, as after a 101.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    /// Read, but not consumed.
    ahead: Vec<u8>,
}

impl Wire {
    /// A connection to the server of this URL.
    pub fn open(url: &str) -> Self {
        Self::new(TcpStream::connect(authority(url)).unwrap()).unwrap()
    }

    /// The same from this address of this machine.
    pub fn open_from(address: Ipv4Addr, url: &str) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
        socket.connect(&authority(url).parse::<SocketAddr>().unwrap().into()).unwrap();
        Self::new(socket.into()).unwrap()
    }

    /// A connection that somebody else has opened.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, ahead: Vec::new() })
    }

    /// Sends these bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.write_all(bytes).unwrap();
    }

    /// The TCP connection, to end it or to write to it while something is read.
    pub fn tcp(&self) -> &TcpStream {
        &self.stream
    }

    /// The next head, or `None` when the other side has closed.
    pub fn read_head(&mut self) -> io::Result<Option<Head>> {
        let end = loop {
            if let Some(at) = self.ahead.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.read_ahead()? {
                return if self.ahead.is_empty() { Ok(None) } else { Err(broken("closed inside a head")) };
            }
        };
        let head: Vec<u8> = self.ahead.drain(..end).collect();
        Head::parse(&head).map(Some)
    }

    /// The content that follows `head`, without its framing.
    pub fn read_body(&mut self, head: &Head, body: Body) -> io::Result<Vec<u8>> {
        let chunked = head.all("transfer-encoding").iter().any(|coding| coding.eq_ignore_ascii_case("chunked"));
        let length =
            head.one("content-length").map(|text| text.parse().map_err(|_| broken(&format!("no length: {text}"))));
        match (body, chunked, length.transpose()?) {
            (_, true, Some(_)) => Err(broken("framed twice")),
            (_, true, None) => self.read_chunks(),
            (_, false, Some(length)) => self.take(length),
            (Body::OfRequest, false, None) => Ok(Vec::new()),
            (Body::OfResponse, false, None) => {
                while self.read_ahead()? {}
                Ok(std::mem::take(&mut self.ahead))
            }
        }
    }

    /// One chunk of a chunked body; an empty one is the last.
    pub fn read_chunk(&mut self) -> io::Result<Vec<u8>> {
        let line = self.read_line()?;
        let size = usize::from_str_radix(line.trim(), 16).map_err(|_| broken(&format!("no chunk size: {line:?}")))?;
        let chunk = self.take(size)?;
        let end = self.read_line()?;
        if end.is_empty() { Ok(chunk) } else { Err(broken("a chunk longer than its size")) }
    }

    fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let chunk = self.read_chunk()?;
            if chunk.is_empty() {
                return Ok(body);
            }
            body.extend(chunk);
        }
    }

    fn read_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.ahead.windows(2).position(|bytes| bytes == b"\r\n") {
                let line: Vec<u8> = self.ahead.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if !self.read_ahead()? {
                return Err(broken("closed inside a line"));
            }
        }
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < length {
            if !self.read_ahead()? {
                return Err(broken("closed inside a body"));
            }
        }
        Ok(self.ahead.drain(..length).collect())
    }

    /// Reads some more; false at the end of the stream.
    fn read_ahead(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 65_536];
        let count = self.stream.read(&mut bytes)?;
        self.ahead.extend(&bytes[..count]);
        Ok(count > 0)
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ahead.is_empty() {
            return self.stream.read(buffer);
        }
        let count = buffer.len().min(self.ahead.len());
        for (to, from) in buffer.iter_mut().zip(self.ahead.drain(..count)) {
            *to = from;
        }
        Ok(count)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Has the TCP connection end with RST instead of FIN.
pub fn reset_at_close(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

fn authority(url: &str) -> &str {
    url.trim_start_matches("http://")
}

pub(super) fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
