//! A connection of any transport, ended by either side.

use testbed::clients::Transport;
use testbed::raw::{Answer, Client, Events, Session, Socket, invocation};

pub(crate) enum Connection {
    Socket(Socket),
    Events(Events),
    Session(Session),
}

impl Connection {
    /// Negotiates, connects and shakes hands.
    pub(crate) fn open(client: &Client, transport: Transport) -> Result<Self, Answer> {
        let id = client.negotiate()?;
        match transport {
            Transport::WebSockets => client.socket(&id).map(Self::Socket),
            Transport::ServerSentEvents => client.events(&id).map(Self::Events),
            Transport::LongPolling => client.session(&id).map(Self::Session),
        }
    }

    pub(crate) fn transport(&self) -> Transport {
        match self {
            Self::Socket(_) => Transport::WebSockets,
            Self::Events(_) => Transport::ServerSentEvents,
            Self::Session(_) => Transport::LongPolling,
        }
    }

    /// Asks the hub something and waits for the answer.
    pub(crate) fn echo(&mut self) {
        match self {
            Self::Socket(socket) => assert!(socket.echoes()),
            Self::Events(events) => events.echo(),
            Self::Session(session) => session.echo(),
        }
    }

    /// As a client ends it that is polite.
    pub(crate) fn close(self) {
        match self {
            Self::Socket(socket) => socket.close(),
            Self::Events(events) => drop(events),
            Self::Session(session) => session.close(),
        }
    }

    /// Lets the hub end it.
    pub(crate) fn abort(&mut self) {
        match self {
            Self::Socket(socket) => socket.send(&invocation("Abort", &[])).unwrap(),
            Self::Events(events) => events.session.call("Abort", &[]),
            Self::Session(session) => {
                session.call("Abort", &[]);
                // What the hub said before, a goodbye among it, comes first.
                let ended = std::iter::repeat_with(|| session.poll().status()).find(|status| *status != 200);
                assert!(matches!(ended, Some(204 | 404)), "{ended:?}");
            }
        }
    }
}
