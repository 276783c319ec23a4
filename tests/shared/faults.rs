//! What goes wrong with gateways, with Redis and with the network between them.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use testbed::process::wait_for;
use testbed::raw::{Client, Socket};
use testbed::redis::Redis;

use crate::gateways::{Gateways, INSTANCES, Plan, connect, is_full, redis, row_key};

/// How long numbers may be wrong when Redis is back, and how long a row outlives its instance.
const LIFE: Duration = Duration::from_secs(15);

#[test]
fn what_a_dead_gateway_held_is_free_when_its_rows_expire_and_not_before() {
    let Some(program) = redis("what_a_dead_gateway_held_is_free_when_its_rows_expire_and_not_before") else { return };
    let mut gateways = Gateways::start(&program, 3, &Plan::by_user(&json!({ "connections": { "per_client": 20 } })));
    let dying: Vec<_> = (0..10).map(|_| connect(&gateways.user(0, "ann"))).collect();
    let is_held = |row: &String| gateways.in_row(row) > 0;
    let doomed: Vec<String> = gateways.rows().into_iter().filter(is_held).collect();
    let mut open: Vec<_> = (0..10).map(|n| connect(&gateways.user(1 + n % 2, "ann"))).collect();
    gateways.settle("three gateways", 20);
    assert!((0..3).all(|at| is_full(&gateways.user(at, "ann"))));

    gateways.envoys[0].kill();
    let left = |row: &String| gateways.redis.ask::<i64>(&["PTTL", &row_key(row)]).unwrap();
    let lives: Vec<i64> = doomed.iter().map(left).collect();
    assert!(lives.iter().all(|left| (1..=15_000).contains(left)), "{lives:?}");
    let mut refused = 0;
    wait_for("ten more to get in", || {
        match gateways.user(1 + open.len() % 2, "ann").bare_socket(None) {
            Ok(mut socket) => {
                socket.shake_hands();
                open.push(socket);
            }
            Err(answer) => {
                assert!(answer.is_refusal(), "{answer:?}");
                refused += 1;
            }
        }
        // Rows are asked after the request, so that they hold now what they held at the decision, or less.
        let held: i64 = doomed.iter().map(|row| gateways.in_row(row)).sum();
        assert!(open.len() + usize::try_from(held).unwrap() <= 20, "admitted before a row expired");
        open.len() == 20
    })
    .unwrap();
    assert!(refused > 0, "free at once");
    assert!((1..3).all(|at| is_full(&gateways.user(at, "ann"))), "one too many");
    assert!(open.iter_mut().all(Socket::echoes), "the others were touched");
    gateways.settle("filled again", 20);
    gateways.assert_sound("after a death");
    drop((open, dying));
    gateways.settle("all closed", 0);
}

/// Something that happens to Redis, and how it ends.
struct Fault {
    name: &'static str,
    strike: fn(&mut Gateways),
    repair: fn(&mut Gateways),
    /// Whether gateways do not reach Redis meanwhile.
    is_outage: bool,
}

fn command(gateways: &Gateways, words: &[&str]) {
    gateways.redis.ask::<()>(words).unwrap();
}

const FAULTS: [Fault; 9] = [
    Fault {
        name: "killed, and started empty later",
        strike: |gateways| gateways.redis.kill(),
        repair: |gateways| gateways.redis.restart().unwrap(),
        is_outage: true,
    },
    Fault {
        name: "started again at once, empty",
        strike: |gateways| gateways.redis.restart().unwrap(),
        repair: |_| (),
        is_outage: false,
    },
    Fault { name: "emptied", strike: |gateways| command(gateways, &["FLUSHALL"]), repair: |_| (), is_outage: false },
    Fault {
        name: "frozen",
        strike: |gateways| gateways.redis.freeze().unwrap(),
        repair: |gateways| gateways.redis.thaw().unwrap(),
        is_outage: true,
    },
    Fault {
        name: "answers are cut",
        strike: |gateways| gateways.relays.iter().for_each(|relay| relay.cut_answers(Some(7))),
        repair: |gateways| gateways.relays.iter().for_each(|relay| relay.cut_answers(None)),
        is_outage: true,
    },
    Fault {
        name: "another password",
        strike: |gateways| command(gateways, &["ACL", "SETUSER", USER, "resetpass", ">another"]),
        repair: |gateways| command(gateways, &["ACL", "SETUSER", USER, "resetpass", &format!(">{PASSWORD}")]),
        is_outage: true,
    },
    Fault {
        name: "NOSCRIPT",
        strike: |gateways| command(gateways, &["SCRIPT", "FLUSH"]),
        repair: |_| (),
        is_outage: false,
    },
    Fault {
        name: "LOADING",
        strike: |gateways| gateways.redis.begin_loading().unwrap(),
        repair: |gateways| gateways.redis.finish_loading().unwrap(),
        is_outage: true,
    },
    Fault {
        name: "no permission",
        strike: |gateways| command(gateways, &["ACL", "SETUSER", USER, "-evalsha"]),
        repair: |gateways| command(gateways, &["ACL", "SETUSER", USER, "+evalsha"]),
        is_outage: true,
    },
];

const USER: &str = "gateway";
const PASSWORD: &str = "secret";

#[test]
fn while_redis_fails_on_error_holds_and_afterwards_the_numbers_are_right() {
    let Some(program) = redis("while_redis_fails_on_error_holds_and_afterwards_the_numbers_are_right") else { return };
    suffer_each(&program, &["local", "deny"], &FAULTS);
}

#[test]
fn while_redis_fails_no_limit_holds_with_on_error_allow() {
    let Some(program) = redis("while_redis_fails_no_limit_holds_with_on_error_allow") else { return };
    suffer_each(&program, &["allow"], &FAULTS);
}

#[test]
fn a_redis_that_cannot_write_is_one_that_does_not_answer() {
    let Some(program) = redis("a_redis_that_cannot_write_is_one_that_does_not_answer") else { return };
    let faults = [
        Fault {
            name: "READONLY",
            // Nobody listens there.
            strike: |gateways| command(gateways, &["REPLICAOF", "127.0.0.1", "1"]),
            repair: |gateways| command(gateways, &["REPLICAOF", "NO", "ONE"]),
            is_outage: true,
        },
        Fault {
            name: "OOM",
            strike: |gateways| command(gateways, &["CONFIG", "SET", "maxmemory", "1"]),
            repair: |gateways| command(gateways, &["CONFIG", "SET", "maxmemory", "0"]),
            is_outage: true,
        },
    ];
    suffer_each(&program, &["local", "allow", "deny"], &faults);
}

/// Each way to go on, at the same time.
fn suffer_each(program: &Path, ways: &[&str], faults: &[Fault]) {
    thread::scope(|scope| {
        for on_error in ways {
            scope.spawn(|| suffer_all(program, on_error, faults));
        }
    });
}

/// A Redis that gateways log in to as [`USER`], and the test as nobody.
fn with_user(program: &Path) -> Redis {
    let password = format!(">{PASSWORD}");
    let arguments = ["--enable-debug-command", "yes", "--user", USER, "on", &password, "~*", "+@all"];
    Redis::start_with(program, &arguments).unwrap()
}

fn suffer_all(program: &Path, on_error: &str, faults: &[Fault]) {
    let plan = Plan {
        redis: json!({ "on_error": on_error, "username": USER, "password": { "value": PASSWORD } }),
        ..Plan::by_user(&json!({ "connections": { "per_client": 3 } }))
    };
    let mut gateways = Gateways::over_relays(with_user(program), 2, &plan);
    for fault in faults {
        suffer(fault, on_error, &mut gateways);
    }
    gateways.assert_sound(on_error);
}

/// What two gateways do when Redis fails while one client has two connections through the first and one through the second.
fn suffer(fault: &Fault, on_error: &str, gateways: &mut Gateways) {
    let name = format!("{}, {on_error}", fault.name);
    let mut open = [0, 0, 1].map(|at| connect(&gateways.user(at, "ann")));
    gateways.settle(&name, 3);
    gateways.all_know(&name, false);
    assert!((0..2).all(|at| is_full(&gateways.user(at, "ann"))), "{name}: before");

    let logged = complaints(gateways);
    let begun = Instant::now();
    (fault.strike)(gateways);
    let mut more = Vec::new();
    if fault.is_outage {
        gateways.all_know(&name, true);
        more = admitted_without_redis(&name, on_error, gateways);
        assert!(open.iter_mut().all(Socket::echoes), "{name}: an open connection was touched");
    } else {
        // Nothing is lost, although Redis has forgotten everything.
        assert!((0..2).all(|at| gateways.user(at, "bob").negotiate().is_ok()), "{name}: meanwhile");
    }
    (fault.repair)(gateways);
    let repaired = Instant::now();
    let living = open.len() + more.len();
    gateways.settle(&format!("{name}: repaired"), living);
    gateways.all_know(&name, false);
    gateways.settle(&format!("{name}: back"), living);
    let took = repaired.elapsed();
    assert!(took <= LIFE, "{name}: right after {took:?}");
    assert!((0..2).all(|at| is_full(&gateways.user(at, "ann"))), "{name}: afterwards");
    let minutes = begun.elapsed().as_secs().div_ceil(60);
    let lines = complaints(gateways) - logged;
    println!("{name}: right after {took:?}, {lines} lines in the log");
    assert!(
        lines as u64 <= minutes * u64::from(2 * INSTANCES),
        "{name}: {lines} lines in the log in {minutes} minutes"
    );
    assert!(open.iter_mut().chain(&mut more).all(Socket::echoes), "{name}: an open connection was touched");
    drop((open, more));
    gateways.settle(&format!("{name}: all closed"), 0);
    gateways.assert_sound(&name);
}

/// How often all gateways have logged that Redis does not answer.
fn complaints(gateways: &Gateways) -> usize {
    gateways.envoys.iter().map(|envoy| envoy.log().matches("redis does not answer").count()).sum()
}

/// The connections of one client that get in while each gateway goes by `on_error`.
fn admitted_without_redis(name: &str, on_error: &str, gateways: &Gateways) -> Vec<Socket> {
    let ann = |at| gateways.user(at, "ann");
    let mut more = Vec::new();
    match on_error {
        "local" => {
            // Three through each gateway.
            more.extend([0, 1, 1].map(|at| connect(&ann(at))));
            assert!((0..2).all(|at| is_full(&ann(at))), "{name}: beyond the limits of each gateway");
        }
        "allow" => more.extend([0, 0, 0, 1, 1, 1].map(|at| connect(&ann(at)))),
        _ => {
            for client in [ann(1), gateways.user(0, "bob")] {
                let answers = [client.negotiate().err(), client.bare_socket(None).err()];
                let reasons = answers.map(|answer| answer.and_then(|answer| answer.reason()));
                let expected = Some("Connections cannot be counted at the moment.".to_owned());
                assert_eq!(reasons, [expected.clone(), expected], "{name}");
            }
        }
    }
    more
}

#[test]
fn a_gateway_that_redis_is_out_of_reach_for_goes_by_its_own_limits() {
    let Some(program) = redis("a_gateway_that_redis_is_out_of_reach_for_goes_by_its_own_limits") else { return };
    const PARTITION: Duration = Duration::from_secs(30);
    let plan = Plan::by_user(&json!({ "connections": { "per_client": 2 } }));
    let gateways = Gateways::over_relays(Redis::start(&program).unwrap(), 2, &plan);
    let ann = |at| gateways.user(at, "ann");
    let mut open = vec![connect(&ann(0)), connect(&ann(1))];
    gateways.settle("one through each", 2);
    assert!((0..2).all(|at| is_full(&ann(at))));

    let begun = Instant::now();
    gateways.relays[0].stop();
    wait_for("the first gateway to notice", || gateways.away(0) == INSTANCES).unwrap();
    open.push(connect(&ann(0)));
    assert!(is_full(&ann(0)), "beyond its own limit");
    // The second takes the first for dead, and has a place more.
    wait_for("the rows of the first to expire", || gateways.in_rows() == 1).unwrap();
    open.push(connect(&ann(1)));
    assert!(is_full(&ann(1)), "beyond the limit");
    // Ends that do not reach Redis.
    let bob = |at: usize| -> Client { gateways.user(at, "bob") };
    drop([connect(&bob(0)), connect(&bob(0))]);
    thread::sleep(PARTITION.saturating_sub(begun.elapsed()));
    assert_eq!((gateways.away(0), gateways.away(1)), (INSTANCES, 0));
    assert!((0..2).all(|at| is_full(&ann(at))), "after {PARTITION:?}");

    gateways.relays[0].go_on();
    let back = Instant::now();
    gateways.settle("all of both gateways", 4);
    gateways.all_know("the end of the partition", false);
    println!("right after {:?}", back.elapsed());
    assert!((0..2).all(|at| is_full(&ann(at))), "together twice the limit");
    open.drain(..3).for_each(Socket::close);
    gateways.settle("one is left", 1);
    open.push(connect(&ann(0)));
    assert!((0..2).all(|at| is_full(&ann(at))));
    assert!(open.iter_mut().all(Socket::echoes));
    drop(open);
    gateways.settle("all closed", 0);
    gateways.assert_sound("after a partition");
}

/// What was on its way when everybody gave it up arrives when the rows have been written anew: Envoy ends such a connection with FIN,
/// so TCP sends again what it held, and a Redis that was busy reads it.
#[test]
fn what_arrives_after_its_time_changes_nothing() {
    let Some(program) = redis("what_arrives_after_its_time_changes_nothing") else { return };
    let plan = Plan::by_user(&json!({ "connections": { "per_client": 2 } }));
    for (name, held) in [("resets of rows that hold something", 2), ("connects of those who have left", 0)] {
        let gateways = Gateways::over_relays(Redis::start(&program).unwrap(), 1, &plan);
        let ann = gateways.user(0, "ann");
        gateways.relays[0].stop();
        if held == 0 {
            // Each waits until its time is over, on a worker thread that does not know yet that Redis is away.
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| drop(ann.bare_socket(None).unwrap()));
                }
            });
        }
        gateways.all_know(name, true);
        let probes = || gateways.envoys[0].counter("cluster.redis.upstream_cx_total").unwrap();
        let before = probes();
        wait_for("resets", || probes() >= before + u64::from(2 * INSTANCES)).unwrap();
        gateways.relays[0].go_on_with_new();
        gateways.all_know(name, false);
        gateways.settle(name, 0);
        let open: Vec<_> = (0..held).map(|_| connect(&ann)).collect();
        gateways.settle(name, held);

        gateways.relays[0].deliver_late();
        // Longer than anything may be wrong.
        thread::sleep(LIFE);
        assert_eq!(usize::try_from(gateways.in_rows()), Ok(held), "{name}");
        assert_eq!(is_full(&ann), held == 2, "{name}");
        drop(open);
        gateways.settle(name, 0);
        gateways.assert_sound(name);
    }
}
