//! What goes wrong or changes under open connections.

use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::envoy::{EnvoyOptions, Watched, balance_exactly, load_module, module_that_traps};
use testbed::process::wait_for;
use testbed::raw::{Client, Session, Socket};

use crate::gateway::{Gateway, settings};

/// Longer than it takes to take an instance for dead, five seconds, and to sweep what it held, four.
const SWEPT: Duration = Duration::from_secs(10);
/// So many requests in succession meet every worker thread.
const EVERYWHERE: usize = 40;

/// Waits until a new configuration shows in whatever worker thread takes a request.
fn wait_everywhere(what: &str, mut shows: impl FnMut() -> bool) {
    wait_for(what, || (0..EVERYWHERE).all(|_| shows())).unwrap();
}

fn connect(client: &Client) -> Socket {
    client.connect().unwrap()
}

fn that_can_trap(workers: u32, limits: &Value) -> Gateway {
    let module = module_that_traps().unwrap();
    Gateway::start(EnvoyOptions {
        filter: settings(limits),
        concurrency: workers,
        patch: Some(Box::new(move |bootstrap| {
            load_module(bootstrap, &module);
            balance_exactly(bootstrap);
        })),
        ..EnvoyOptions::default()
    })
}

/// Ends the VM of one worker thread.
pub(crate) fn trap(client: &Client) {
    let trapped = client.clone().header("x-signalr-trap", "1").negotiate_answer();
    assert_eq!(trapped.status(), 503, "{trapped:?}");
}

#[test]
fn after_a_trap_its_connections_leave_and_others_stay() {
    for workers in [4, 1] {
        let gateway = that_can_trap(workers, &json!({ "connections": { "per_client": 20 } }));
        let client = gateway.client();
        let mut open: Vec<_> = (0..20).map(|_| connect(&client)).collect();
        gateway.settles("before", [20, 0, 0]);
        assert!(client.negotiate().unwrap_err().is_refusal());

        trap(&client);
        // Envoy resets the others of that thread when something comes on them.
        let living = thread::scope(|scope| {
            let asked: Vec<_> = open.iter_mut().map(|socket| scope.spawn(|| socket.echoes())).collect();
            asked.into_iter().map(|asked| asked.join().unwrap()).collect::<Vec<_>>()
        });
        let mut living = living.into_iter();
        open.retain(|_| living.next() == Some(true));
        let survivors = open.len() as u64;
        assert!(if workers == 1 { survivors == 0 } else { (1..20).contains(&survivors) }, "{survivors} survived");
        gateway.settles("after", [survivors, 0, 0]);
        gateway.stays("after", [survivors, 0, 0]);
        println!("{workers} workers: {survivors} of 20 survived a trap");
        assert!(open.iter_mut().all(Socket::echoes), "the others were touched");

        // The VM is loaded anew, and every place is there again.
        wait_for("every place to be filled again", || {
            if let Ok(socket) = client.negotiate().and_then(|id| client.socket(&id)) {
                open.push(socket);
            }
            open.len() == 20
        })
        .unwrap();
        assert!(client.negotiate().unwrap_err().is_refusal(), "one too many");
        gateway.settles("filled again", [20, 0, 0]);
        drop(open);
        gateway.settles("all closed", [0; 3]);
    }
}

/// Polls until a worker thread with a living VM takes it, and returns what the hub answers.
fn poll_in_spite_of_a_trap(session: &Session) -> u16 {
    let mut status = 503;
    let polled = || {
        status = session.poll().status();
        status != 503
    };
    let _ = wait_for("a living VM", polled);
    status
}

#[test]
fn after_a_trap_sessions_leave_that_do_not_poll_again() {
    // So nobody leaves for silence.
    let gateway = that_can_trap(4, &json!({ "connections": { "per_client": 20 }, "long_polling_idle": "1h" }));
    let client = gateway.client();
    let sessions: Vec<_> = (0..20).map(|_| client.session(&client.negotiate().unwrap()).unwrap()).collect();
    let (silent, returning) = sessions.split_at(10);
    thread::scope(|scope| {
        let under_way = |expected: u64| {
            let active = || gateway.envoy.counter("cluster.hubs.upstream_rq_active");
            wait_for("polls", || active().is_ok_and(|active| active >= expected)).unwrap();
        };
        // First these, so that each worker thread has some of them.
        let polls: Vec<_> = silent.iter().map(|session| scope.spawn(|| session.poll().status())).collect();
        under_way(10);
        returning.iter().for_each(|session| drop(scope.spawn(|| session.poll())));
        under_way(20);
        gateway.settles("before", [0, 0, 20]);
        trap(&client);
        let again: Vec<_> = returning.iter().map(|session| scope.spawn(|| poll_in_spite_of_a_trap(session))).collect();
        wait_everywhere("living VMs", || client.negotiate_answer().status() != 503);
        sessions.iter().for_each(|session| session.call("Echo", &["hello"]));
        let statuses: Vec<_> = polls.into_iter().map(|poll| poll.join().unwrap()).collect();
        let untouched = statuses.iter().filter(|status| **status == 200).count();
        println!("{untouched} of {} silent sessions survived a trap", silent.len());
        assert!((1..silent.len()).contains(&untouched), "{statuses:?}");
        assert!(again.into_iter().all(|poll| poll.join().unwrap() == 200));
        let left = [0, 0, (returning.len() + untouched) as u64];
        gateway.settles("after", left);
        gateway.stays("after", left);
    });
    // Who comes late finds a place again, and takes no two.
    sessions.iter().for_each(Session::echo);
    gateway.settles("all have come back", [0, 0, 20]);
    assert!(client.bare_socket(None).is_err_and(|answer| answer.is_refusal()));
    sessions.iter().for_each(Session::close);
    gateway.settles("all closed", [0; 3]);
    assert_eq!(gateway.ledger_failures(), 0);
}

#[test]
fn a_process_that_stood_still_for_a_while_loses_no_count() {
    let gateway = Gateway::with(&json!({ "connections": { "per_client": 20 } }));
    let client = gateway.client();
    let mut open: Vec<_> = (0..20).map(|_| connect(&client)).collect();
    gateway.settles("before", [20, 0, 0]);
    let signal = |name: &str| {
        let sent = Command::new("kill").args([name, &gateway.envoy.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    signal("-STOP");
    // Longer than the five seconds after which an instance is taken for dead.
    thread::sleep(Duration::from_secs(8));
    signal("-CONT");
    // The first to wake takes the others for dead, until they wake.
    assert!(open.iter_mut().all(Socket::echoes));
    gateway.settles("after", [20, 0, 0]);
    gateway.stays("after", [20, 0, 0]);
    assert!(open.iter_mut().all(Socket::echoes));
    assert!(client.bare_socket(None).is_err_and(|answer| answer.is_refusal()));
    drop(open);
    gateway.settles("all closed", [0; 3]);
}

#[test]
fn a_new_configuration_finds_what_is_open_and_holds_for_what_is_new() {
    type Take = fn(&Watched, &mut Value);
    for (name, take) in [("ecds", Watched::take_filter as Take), ("lds", Watched::take_listener)] {
        let watched = Watched::new(name).unwrap();
        let taken = watched.clone();
        let gateway = Gateway::patched(
            &json!({ "connections": { "per_client": 200 } }),
            Box::new(move |bootstrap| take(&taken, bootstrap)),
        );
        let client = gateway.client();
        let mut open: Vec<_> = (0..100).map(|_| connect(&client)).collect();
        gateway.settles(name, [100, 0, 0]);

        watched.configure(&json!({ "limits": { "connections": { "per_client": 50 } } }));
        let refused = || client.bare_socket(None).is_err_and(|answer| answer.is_refusal());
        wait_everywhere("the new limit", refused);
        assert!(client.negotiate().unwrap_err().is_refusal(), "{name}");
        thread::sleep(SWEPT);
        gateway.stays(name, [100, 0, 0]);
        assert!(open.iter_mut().all(Socket::echoes), "{name}: cut");

        open.drain(..60).for_each(Socket::close);
        gateway.settles(name, [40, 0, 0]);
        open.extend((0..10).map(|_| connect(&client)));
        assert!(refused(), "{name}");
        gateway.settles(name, [50, 0, 0]);
        drop(open);
        gateway.settles(name, [0; 3]);
        assert_eq!(gateway.ledger_failures(), 0, "{name}");
    }
}

#[test]
fn when_the_key_changes_clients_begin_anew_and_the_whole_does_not() {
    let watched = Watched::new("key").unwrap();
    let taken = watched.clone();
    let idle = "15s";
    let before = json!({ "connections": { "per_client": 5 }, "long_polling_idle": idle });
    let gateway = Gateway::patched(&before, Box::new(move |bootstrap| taken.take_filter(bootstrap)));
    let (ann, bob) = (gateway.user("ann"), gateway.user("bob"));
    let mut open: Vec<_> = (0..4).map(|_| connect(&ann)).collect();
    let session = ann.session(&ann.negotiate().unwrap()).unwrap();
    assert!(bob.negotiate().unwrap_err().is_refusal(), "one address");

    let after = json!({
        "client": { "key": { "header": "x-user" } },
        "connections": { "per_client": 2, "total": 8 },
        "long_polling_idle": idle,
    });
    thread::scope(|scope| {
        // Keeps the session's place for as long as the change takes.
        let poll = scope.spawn(|| session.poll());
        wait_for("a poll", || gateway.envoy.counter("cluster.hubs.upstream_rq_active").is_ok_and(|active| active == 5))
            .unwrap();
        watched.configure(&json!({ "limits": after }));
        wait_everywhere("the new key", || bob.negotiate().is_ok());
        open.push(connect(&ann));
        session.call("Echo", &["hello"]);
        assert_eq!(poll.join().unwrap().status(), 200);
    });
    session.echo();
    assert!(ann.negotiate().unwrap_err().is_refusal(), "two places");
    // The old VM also counts the session, as another client's, for as long as it lives and that client has not been silent
    // for `idle`. It ends at once if nothing else is open on its thread.
    let once = || {
        session.echo();
        gateway.active() == [5, 0, 1]
    };
    wait_for("the session once", once).unwrap();

    // Instances of the old configuration keep no permits, and their numbers are a second old.
    for _ in 0..2 {
        wait_for("a place", || {
            let socket = bob.negotiate().and_then(|token| bob.socket(&token));
            let is_open = socket.is_ok();
            open.extend(socket);
            is_open
        })
        .unwrap();
    }
    let full = gateway.user("eve").bare_socket(None).err().unwrap();
    assert_eq!(full.text(), "Connection limit reached: the server is full.");
    open.drain(..4).for_each(Socket::close);
    session.close();
    gateway.settles("the old are gone", [3, 0, 0]);
    assert!(open.iter_mut().all(Socket::echoes));
    assert_eq!(gateway.ledger_failures(), 0);
}

#[test]
fn a_rate_that_was_too_slow_holds_nobody_up_once_it_is_changed() {
    let watched = Watched::new("rate").unwrap();
    let taken = watched.clone();
    let rate = |per: &str, burst: u32| json!({ "connect_rate": { "requests": 1, "per": per, "burst": burst } });
    let gateway = Gateway::start(EnvoyOptions {
        filter: settings(&rate("1h", 1)),
        // With several the first to know the new rate would spend what the others still go by.
        concurrency: 1,
        patch: Some(Box::new(move |bootstrap| taken.take_filter(bootstrap))),
        ..EnvoyOptions::default()
    });
    let client = gateway.client();
    let mut open = vec![connect(&client)];
    assert!(client.bare_socket(None).is_err_and(|answer| answer.is_refusal()), "the next is earned in an hour");
    watched.configure(&json!({ "limits": rate("15m", 3) }));
    wait_for("the new rate", || {
        open.extend(client.bare_socket(None));
        open.len() == 2
    })
    .unwrap();
    open.extend((0..2).map(|_| connect(&client)));
    assert!(client.bare_socket(None).is_err_and(|answer| answer.is_refusal()), "the burst is spent");
}
