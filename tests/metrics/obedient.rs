//! A hub that ends a WebSocket in ways that real ones do only when something is wrong with them: it does what a client asks for.

use std::net::{Shutdown, TcpStream};

use testbed::envoy::Hosts;
use testbed::stand_in;
use tungstenite::{Message, WebSocket};

/// What a client can ask it for by a word in a message. Like every message it repeats it first.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// End the TCP connection without a Close frame.
    Cut,
    /// Reset it.
    Reset,
    /// Say SignalR's goodbye, and no more.
    SayGoodbye,
}

impl Order {
    const ALL: [Self; 3] = [Self::Cut, Self::Reset, Self::SayGoodbye];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Cut => "please cut",
            Self::Reset => "please reset",
            Self::SayGoodbye => "please say goodbye",
        }
    }
}

/// Starts it. It ends with the process.
pub(crate) fn start() -> Hosts {
    let address = stand_in::listen(|stream| tungstenite::accept(stream).ok().and_then(serve)).unwrap();
    Hosts::Fixed(vec![address.to_string()])
}

fn serve(mut socket: WebSocket<TcpStream>) -> Option<()> {
    loop {
        let message = socket.read().ok()?;
        let Message::Text(text) = &message else { continue };
        if text.contains("protocol") {
            socket.send(Message::text("{}\u{1e}")).ok()?;
            continue;
        }
        let order = Order::ALL.into_iter().find(|order| text.contains(order.word()));
        socket.send(message).ok()?;
        match order {
            None => {}
            Some(Order::SayGoodbye) => socket.send(Message::text("{\"type\":7}\u{1e}")).ok()?,
            Some(Order::Cut) => return socket.get_ref().shutdown(Shutdown::Both).ok(),
            // The kernel resets a connection that is closed with bytes unread.
            Some(Order::Reset) => return socket.get_ref().peek(&mut [0]).map(drop).ok(),
        }
    }
}
