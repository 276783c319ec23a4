//! A place where one client waits until the test lets it go on.

use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use testbed::clients::Outcome;
use testbed::process::wait_for;
use testbed::raw::Wire;

pub(crate) struct Gate {
    listener: TcpListener,
}

impl Gate {
    pub(crate) fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.listener.local_addr().unwrap())
    }

    /// Lets the client through after `act`. If it ends before it comes here, its own report says why.
    pub(crate) fn pass(&self, client: &JoinHandle<Outcome>, act: impl FnOnce()) {
        let mut arrived = None;
        wait_for("the client at its gate", || {
            arrived = self.listener.accept().ok();
            arrived.is_some() || client.is_finished()
        })
        .unwrap();
        if let Some((stream, _)) = arrived {
            act();
            answer(stream);
        }
    }
}

fn answer(stream: TcpStream) {
    stream.set_nonblocking(false).unwrap();
    let mut wire = Wire::new(stream).unwrap();
    wire.read_head().unwrap();
    wire.send(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
}
