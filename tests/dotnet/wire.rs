//! A wire between a client and a gateway that loses what is on its way, and then breaks.
//!
//! It breaks where a message begins: a connection that ends in the middle of one is more than .NET's stateful reconnect can
//! take, with a gateway or without.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use testbed::process::wait_for;
use testbed::raw::reset_at_close;
use testbed::stand_in;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the client.
    Down,
    /// To the gateway.
    Up,
}

pub(crate) struct Wire {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The way on which the next bytes are lost.
    lost: Option<Way>,
    /// The ways on which bytes have come since the test began to listen.
    heard: Vec<Way>,
}

/// One connection over the wire.
struct Line {
    client: TcpStream,
    gateway: TcpStream,
    /// Of the whole wire.
    state: Arc<Mutex<State>>,
    broken: AtomicBool,
}

impl Wire {
    /// A wire to the servers of these URLs, one connection to each in turn.
    pub(crate) fn lay(to: &[String]) -> Self {
        let to: Vec<_> = to.iter().map(|url| url.trim_start_matches("http://").to_owned()).collect();
        let turn = AtomicUsize::new(0);
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let address = stand_in::listen(move |client| {
            let to = &to[turn.fetch_add(1, Ordering::SeqCst) % to.len()];
            let (gateway, state) = (TcpStream::connect(to)?, shared.clone());
            let line = Arc::new(Line { client, gateway, state, broken: AtomicBool::new(false) });
            let upward = line.clone();
            thread::spawn(move || upward.carry(Way::Up));
            line.carry(Way::Down)
        });
        Self { address: address.unwrap(), state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until something has come both ways.
    pub(crate) fn listen(&self) {
        self.state.lock().unwrap().heard.clear();
        let heard = |way| self.state.lock().unwrap().heard.contains(&way);
        wait_for("something on the wire", || heard(Way::Down) && heard(Way::Up)).unwrap();
    }

    /// Loses the next bytes that come this way, and resets their connection.
    pub(crate) fn lose(&self, way: Way) {
        let earlier = self.state.lock().unwrap().lost.replace(way);
        assert_eq!(earlier, None, "a loss that did not come about");
    }
}

impl Line {
    fn carry(&self, way: Way) -> io::Result<()> {
        let (mut from, mut to) = match way {
            Way::Down => (&self.gateway, &self.client),
            Way::Up => (&self.client, &self.gateway),
        };
        let mut bytes = [0; 16_384];
        loop {
            let count = from.read(&mut bytes)?;
            if self.broken.load(Ordering::SeqCst) {
                return Ok(());
            }
            if count == 0 {
                return to.shutdown(Shutdown::Write);
            }
            let mut state = self.state.lock().unwrap();
            if state.lost.take_if(|lost| *lost == way).is_some() {
                return self.cut();
            }
            state.heard.push(way);
            drop(state);
            to.write_all(&bytes[..count])?;
        }
    }

    fn cut(&self) -> io::Result<()> {
        self.broken.store(true, Ordering::SeqCst);
        for end in [&self.client, &self.gateway] {
            reset_at_close(end)?;
            // Sends nothing, but ends the other thread, which also holds the sockets.
            end.shutdown(Shutdown::Read)?;
        }
        Ok(())
    }
}
