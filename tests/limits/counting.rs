//! What is counted, while many do many things at once.

use std::sync::Barrier;
use std::thread;

use serde_json::json;
use testbed::clients::Transport;
use testbed::envoy::EnvoyOptions;
use testbed::process::wait_for;
use testbed::raw::{Answer, Client, Socket};
use testbed::tools::EnvoyVersion;

use crate::connection::Connection;
use crate::gateway::{Gateway, crowd, settings};
use crate::patient::{self, returns};

/// How often clients come and go before their numbers are looked at; `LIMITS_ROUNDS` sets another number.
const ROUNDS: usize = 5;

/// All at the same moment.
fn at_once<T: Send>(number: usize, act: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let ready = Barrier::new(number);
    let run = |n| {
        ready.wait();
        act(n)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..number).map(|n| scope.spawn(move || run(n))).collect::<Vec<_>>();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn apart(results: Vec<Result<Socket, Answer>>) -> (Vec<Socket>, Vec<Answer>) {
    let (open, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    (open.into_iter().flatten().collect(), refused.into_iter().filter_map(Result::err).collect())
}

#[test]
fn of_many_websockets_at_once_as_many_get_in_as_there_are_places() {
    let many = 20 + crowd();
    for version in EnvoyVersion::ALL {
        let filter = settings(&json!({ "connections": { "per_client": 20 } }));
        let gateway = Gateway::start(EnvoyOptions { version, filter, ..EnvoyOptions::default() });
        let client = gateway.client();
        let ids: Vec<_> = (0..many).map(|_| client.negotiate().unwrap()).collect();
        let (mut open, refused) = apart(at_once(many, |n| client.socket(&ids[n])));
        assert_eq!((open.len(), refused.len()), (20, many - 20), "{version:?}");
        assert!(open.iter_mut().all(Socket::echoes), "{version:?}");
        for answer in &refused {
            assert!(answer.is_refusal(), "{version:?}: {answer:?}");
            assert_eq!(answer.text(), "Connection limit reached: this client has too many connections open.");
            assert_eq!(answer.head.one("retry-after"), Some("5"), "{answer:?}");
        }
        assert!(client.negotiate().unwrap_err().is_refusal(), "{version:?}: refused at the negotiate already");
        gateway.settles("twenty are open", [20, 0, 0]);

        open.drain(..5).for_each(Socket::close);
        wait_for("five more to get in", || {
            open.extend(client.negotiate().and_then(|id| client.socket(&id)));
            open.len() == 20
        })
        .unwrap();
        let (more, refused) = apart(at_once(crowd(), |_| client.bare_socket(None)));
        assert_eq!((more.len(), refused.len()), (0, crowd()), "{version:?}");
        assert!(open.iter_mut().all(Socket::echoes), "{version:?}");

        let rejected = gateway.rejected("per_client", "enforce");
        assert_eq!(gateway.ledger_failures(), 0, "{version:?}");
        let log = gateway.end();
        assert_eq!(log.matches("details=signalr_connection_limit ").count() as u64, rejected, "{version:?}");
    }
}

#[test]
fn hubs_and_the_whole_have_exactly_as_many_places_as_there_are() {
    let many = 40 + crowd();
    for (name, limits, places, limit, details) in [
        ("total", json!({ "total": 15 }), 15, "total", "signalr_total_limit"),
        ("per hub", json!({ "per_hub": 10 }), 20, "per_hub", "signalr_hub_limit"),
    ] {
        let gateway = Gateway::with(&json!({ "connections": limits }));
        // Learned by their first negotiate.
        for hub in ["/chat", "/notifications"] {
            gateway.client().hub(hub).negotiate().unwrap();
        }
        let hub = |n| if n % 2 == 0 { "/chat" } else { "/notifications" };
        let (open, refused) = apart(at_once(many, |n| gateway.client().hub(hub(n)).bare_socket(None)));
        assert_eq!((open.len(), refused.len()), (places, many - places), "{name}");
        assert!(refused.iter().all(Answer::is_refusal), "{name}");
        assert!(gateway.client().negotiate().unwrap_err().is_refusal(), "{name}");
        let rejected = many - places + 1;
        assert_eq!(gateway.rejected(limit, "enforce") as usize, rejected, "{name}");
        drop(open);
        gateway.settles(name, [0; 3]);
        assert_eq!(gateway.end().matches(&format!("details={details} ")).count(), rejected, "{name}");
    }
}

/// One of the clients that come and go.
struct Visitor {
    client: Client,
    dice: fastrand::Rng,
    open: Vec<Connection>,
}

impl Visitor {
    const MOST: usize = 10;
    /// What it does in a round.
    const STEPS: usize = 40;

    fn come_and_go(&mut self) {
        for _ in 0..Self::STEPS {
            match self.dice.usize(..5) {
                0..=2 if self.open.len() < Self::MOST => {
                    let transport = Transport::ALL[self.dice.usize(..3)];
                    self.open.push(Connection::open(&self.client, transport).unwrap());
                }
                3 if !self.open.is_empty() => {
                    let place = self.dice.usize(..self.open.len());
                    self.open.swap_remove(place).close();
                }
                _ if !self.open.is_empty() => {
                    let place = self.dice.usize(..self.open.len());
                    self.open[place].echo();
                }
                _ => {}
            }
        }
    }
}

#[test]
fn whatever_many_clients_do_the_numbers_agree_with_what_they_have_open() {
    let rounds = std::env::var("LIMITS_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let limits = json!({
        "client": { "key": { "header": "x-user" } },
        // Nobody is refused, also while Envoy has yet to see the ends of all connections that were closed in a round.
        "connections": { "per_client": Visitor::MOST + Visitor::STEPS, "per_hub": 100_000, "total": 100_000 },
        "long_polling_idle": "1h",
    });
    let gateway = Gateway::with(&limits);
    let visitor = |n: u64| Visitor {
        client: gateway.user(&format!("user{n}")),
        // Seeded, so that a failure can be played again.
        dice: fastrand::Rng::with_seed(n),
        open: Vec::new(),
    };
    let mut visitors: Vec<_> = (0..crowd() as u64).map(visitor).collect();
    let mut most = 0;
    for round in 0..rounds {
        thread::scope(|scope| {
            for visitor in &mut visitors {
                scope.spawn(|| visitor.come_and_go());
            }
        });
        let open = Transport::ALL.map(|transport| {
            let mine = |visitor: &Visitor| visitor.open.iter().filter(|one| one.transport() == transport).count();
            visitors.iter().map(mine).sum::<usize>() as u64
        });
        gateway.settles(&format!("round {round}"), open);
        gateway.stays(&format!("round {round}"), open);
        most = most.max(open.iter().sum());
    }
    thread::scope(|scope| {
        for visitor in visitors {
            scope.spawn(move || visitor.open.into_iter().for_each(Connection::close));
        }
    });
    gateway.settles("the end", [0; 3]);
    assert!(most >= 3 * crowd() as u64, "{most} connections at most");
    assert_eq!((gateway.rejected("per_client", "enforce"), gateway.ledger_failures()), (0, 0));
}

#[test]
fn a_long_polling_session_is_one_connection_throughout() {
    let gateway = Gateway::with(&json!({ "connections": { "per_client": 1 }, "long_polling_idle": "1h" }));
    let client = gateway.client();
    let id = client.negotiate().unwrap();
    let session = client.session(&id).unwrap();
    gateway.settles("a session", [0, 0, 1]);
    for poll in 0..300 {
        // One that is answered, and nobody else gets in meanwhile.
        session.echo();
        if poll % 30 == 0 {
            assert!(client.bare_socket(None).is_err_and(|answer| answer.is_refusal()), "poll {poll}");
            assert_eq!(gateway.active(), [0, 0, 1], "poll {poll}");
        }
    }
    assert_eq!(client.delete(&id).status(), 202);
    assert!(client.negotiate().is_ok(), "DELETE ended it at once");
    gateway.settles("DELETE", [0; 3]);
    assert_eq!(gateway.ledger_failures(), 0);
}

#[test]
fn a_long_polling_session_without_a_poll_leaves() {
    let gateway = Gateway::with(&json!({ "connections": { "per_client": 1 }, "long_polling_idle": "2s" }));
    let client = gateway.client();
    let session = client.session(&client.negotiate().unwrap()).unwrap();
    thread::scope(|scope| {
        let poll = scope.spawn(|| session.poll());
        // For as long as it takes.
        gateway.settles("a poll under way", [0, 0, 1]);
        gateway.stays("a poll under way", [0, 0, 1]);
        session.call("Echo", &["hello"]);
        assert_eq!(poll.join().unwrap().status(), 200);
    });
    gateway.settles("silence", [0; 3]);
    assert!(client.negotiate().is_ok());
    assert_eq!(gateway.ledger_failures(), 0);
}

#[test]
fn an_id_that_comes_back_is_counted_once() {
    let filter = settings(&json!({ "connections": { "per_client": 1, "total": 2 } }));
    let gateway = Gateway::start(EnvoyOptions { filter, hosts: patient::start(), ..EnvoyOptions::default() });
    let client = gateway.client();
    let id = client.negotiate().unwrap();
    let mut sockets = Vec::new();
    for n in 0..3 {
        // Envoy does not know that the ones before are dead.
        let mut socket = client.bare_socket(Some(&id)).unwrap();
        assert!(returns(&mut socket, "hello"));
        sockets.push(socket);
        assert!(client.bare_socket(None).is_err_and(|answer| answer.is_refusal()), "socket {n}");
    }
    gateway.settles("three sockets of one id", [1, 0, 0]);
    sockets.remove(0).cut();
    sockets.pop().unwrap().cut();
    // Counted twice, the id would leave no room for another host's.
    gateway.stays("the first and the last are gone", [1, 0, 0]);
    assert!(returns(&mut sockets[0], "hello"));
    assert!(client.bare_socket(None).is_err_and(|answer| answer.is_refusal()));
    sockets.pop().unwrap().cut();
    gateway.settles("all are gone", [0; 3]);
    assert!(client.bare_socket(None).is_ok());
}

#[test]
fn requests_that_the_hub_refuses_do_not_hide_an_open_socket() {
    let gateway = Gateway::with(&json!({ "connections": { "per_client": 1 } }));
    let client = gateway.client();
    let id = client.negotiate().unwrap();
    let mut socket = client.socket(&id).unwrap();
    let (bare, _) = id.split_once('.').unwrap();
    for id in [&id, bare].into_iter().cycle().take(12) {
        // The hub has it already, or never heard of it. Without its seal the id reaches any pod.
        let refused = [
            client.bare_socket(Some(id)).err().map(|answer| answer.status()),
            Some(client.poll(id).status()),
            client.events(id).err().map(|answer| answer.status()),
            Some(client.delete(id).status()),
        ];
        for status in refused {
            assert!(status.is_some_and(|status| (400..500).contains(&status) && status != 429), "{refused:?}");
        }
        assert!(client.bare_socket(None).is_err_and(|answer| answer.is_refusal()));
    }
    gateway.settles("one socket", [1, 0, 0]);
    gateway.stays("one socket", [1, 0, 0]);
    assert!(socket.echoes());
    socket.close();
    gateway.settles("none", [0; 3]);
}
