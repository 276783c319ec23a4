//! A stretch of network between a gateway and what it calls, on which bytes are lost or late.
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::stand_in;

/// Passes TCP connections on. It ends with this process.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Where bytes of new connections wait while it is shut.
    gate: Arc<Gate>,
    /// Bytes of each answer that arrive before its connection ends, if not all.
    cut: Option<usize>,
    /// Shut gates, behind which the bytes of earlier connections wait.
    late: Vec<Arc<Gate>>,
}

#[derive(Debug, Default)]
struct Gate {
    is_shut: Mutex<bool>,
    opened: Condvar,
}

impl Relay {
    /// One that leads to a port of this machine.
    pub fn to(port: u16) -> io::Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let address = stand_in::listen(move |near| {
            let gate = lock(&shared).gate.clone();
            gate.pass();
            let far = TcpStream::connect(("127.0.0.1", port))?;
            let (from, to, before) = (near.try_clone()?, far.try_clone()?, gate.clone());
            thread::spawn(move || carry(from, &to, &before, None));
            let cut = lock(&shared).cut;
            carry(far, &near, &gate, cut)
        })?;
        Ok(Self { address, state })
    }

    /// The port where it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Nothing arrives any more, in either direction. Whoever connects sees no refusal.
    pub fn stop(&self) {
        lock(&self.state).gate.set(true);
    }

    /// Everything arrives, also what was sent meanwhile by those who have given up, as after a retransmission.
    pub fn go_on(&self) {
        self.go_on_with_new();
        self.deliver_late();
    }

    /// New connections pass. What was sent before is still on its way, until [`Self::deliver_late`].
    pub fn go_on_with_new(&self) {
        let mut state = lock(&self.state);
        let old = std::mem::take(&mut state.gate);
        state.late.push(old);
    }

    /// What was on its way arrives.
    pub fn deliver_late(&self) {
        let late = std::mem::take(&mut lock(&self.state).late);
        late.iter().for_each(|gate| gate.set(false));
    }

    /// Ends each connection after so many bytes of an answer, or lets answers be whole again.
    pub fn cut_answers(&self, after: Option<usize>) {
        lock(&self.state).cut = after;
    }
}

impl Gate {
    fn set(&self, is_shut: bool) {
        *lock(&self.is_shut) = is_shut;
        self.opened.notify_all();
    }

    /// Waits until it is open.
    fn pass(&self) {
        let waited = self.opened.wait_while(lock(&self.is_shut), |is_shut| *is_shut);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Carries one direction of a connection until it ends.
fn carry(mut from: TcpStream, mut to: &TcpStream, gate: &Gate, cut: Option<usize>) -> io::Result<()> {
    let mut bytes = [0; 16_384];
    let mut left = cut.unwrap_or(usize::MAX);
    loop {
        let count = from.read(&mut bytes)?;
        gate.pass();
        to.write_all(&bytes[..count.min(left)])?;
        left = left.saturating_sub(count);
        if count == 0 {
            return to.shutdown(Shutdown::Write);
        }
        if left == 0 {
            from.shutdown(Shutdown::Both)?;
            return to.shutdown(Shutdown::Both);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
