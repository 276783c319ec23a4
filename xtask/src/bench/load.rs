//! What clients do to a gateway. Some do it at once, each on a connection of its own, as a worker thread serves several.

use std::thread;

use testbed::raw::{Client, Request, Socket, Wire};

/// Clients at once.
const CLIENTS: u32 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// A request for something else than a hub.
    Plain,
    /// A negotiate.
    Negotiate,
    /// A negotiate, and a WebSocket that is opened with its id and closed.
    Connect,
    /// A poll that the hub answers at once.
    Poll,
    /// A binary message of this many bytes, which the hub sends back.
    Echo(usize),
}

impl Load {
    pub(super) const ALL: [Self; 7] = [
        Self::Plain,
        Self::Negotiate,
        Self::Connect,
        Self::Poll,
        Self::Echo(64),
        Self::Echo(4_096),
        Self::Echo(65_536),
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain request",
            Self::Negotiate => "negotiate",
            Self::Connect => "negotiate, connect, close",
            Self::Poll => "poll",
            Self::Echo(64) => "echo of 64 B",
            Self::Echo(4_096) => "echo of 4 KiB",
            Self::Echo(_) => "echo of 64 KiB",
        }
    }

    /// How many make a sample: some tens of ms.
    pub(super) fn operations(self) -> u32 {
        CLIENTS
            * match self {
                Self::Plain | Self::Poll => 100,
                Self::Negotiate | Self::Echo(4_096) => 50,
                Self::Connect | Self::Echo(65_536) => 15,
                Self::Echo(_) => 150,
            }
    }
}

/// Those of one side.
pub(super) struct Clients {
    load: Load,
    clients: Vec<OneClient>,
}

struct OneClient {
    client: Client,
    wire: Wire,
    /// Of this id.
    target: String,
    socket: Option<Socket>,
}

impl Clients {
    pub(super) fn new(url: &str, load: Load) -> Self {
        let one = |_| {
            let client = Client::of(url);
            let id = client.negotiate().expect("a hub answers");
            let socket = matches!(load, Load::Echo(_)).then(|| client.bare_socket(Some(&id)).expect("a hub connects"));
            OneClient { wire: Wire::open(url), target: format!("/chat?id={id}"), socket, client }
        };
        Self { load, clients: (0..CLIENTS).map(one).collect() }
    }

    /// Returns when all is answered.
    pub(super) fn run(&mut self, operations: u32) {
        let (load, each) = (self.load, operations / CLIENTS);
        thread::scope(|scope| {
            for client in &mut self.clients {
                scope.spawn(move || (0..each).for_each(|_| client.operate(load)));
            }
        });
    }
}

impl OneClient {
    fn operate(&mut self, load: Load) {
        match load {
            Load::Plain => assert_eq!(self.wire.ask(&Request::get("/styles.css")).status(), 200),
            Load::Poll => assert_eq!(self.wire.ask(&Request::get(&self.target)).status(), 200),
            Load::Negotiate => drop(self.negotiate()),
            Load::Connect => {
                let id = self.negotiate();
                self.client.bare_socket(Some(&id)).expect("a hub connects").close();
            }
            Load::Echo(size) => {
                let socket = self.socket.as_mut().expect("it was opened");
                socket.exchange(&vec![0x5a; size]).expect("a hub answers");
            }
        }
    }

    fn negotiate(&mut self) -> String {
        let answer = self.wire.ask(&Request::post("/chat/negotiate?negotiateVersion=1"));
        answer.json()["connectionToken"].as_str().expect("a hub gives ids").to_owned()
    }
}
