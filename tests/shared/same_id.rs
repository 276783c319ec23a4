//! One id at several gateways is one connection, and no way around a limit.

use std::net::Shutdown;

use serde_json::{Value, json};
use testbed::process::wait_for;
use testbed::raw::{Client, Request, Socket, Wire};

use crate::gateways::{Gateways, INSTANCES, Plan, connect, redis, row_key, rush};

/// One connection of each client, which takes one token of two.
fn one_each() -> Plan {
    let rate = json!({ "requests": 1, "per": "1h", "burst": 2 });
    Plan::by_user(&json!({ "connections": { "per_client": 1 }, "connect_rate": rate }))
}

/// Whether the client has what it may have. A refused connect would take a token.
fn has_all(gateways: &Gateways) -> bool {
    (0..gateways.envoys.len()).all(|at| gateways.user(at, "ann").negotiate().is_err_and(|answer| answer.is_refusal()))
}

#[test]
fn a_session_that_is_polled_through_several_gateways_is_one_connection() {
    let Some(program) = redis("a_session_that_is_polled_through_several_gateways_is_one_connection") else { return };
    let gateways = Gateways::start(&program, 2, &one_each());
    let id = gateways.user(0, "ann").negotiate().unwrap();
    drop(gateways.user(0, "ann").session(&id).unwrap());
    for at in [0, 1, 1, 0, 1, 0, 0, 1] {
        gateways.user(at, "ann").resume(&id).echo();
        assert_eq!(gateways.in_rows(), 1, "polled through gateway {at}");
        assert!(has_all(&gateways), "polled through gateway {at}");
    }
    gateways.user(1, "ann").resume(&id).close();
    gateways.settle("closed", 0);
    // Nothing but the first poll has taken a token. The first gateway takes the session for one that will be polled again.
    drop(connect(&gateways.user(1, "ann")));
    gateways.settle("all closed", 0);
    gateways.assert_sound("polls");
}

#[test]
fn a_session_of_several_gateways_counts_once_for_its_hub_and_in_total_whichever_dies() {
    let test = "a_session_of_several_gateways_counts_once_for_its_hub_and_in_total_whichever_dies";
    let Some(program) = redis(test) else { return };
    let limits = json!({ "connections": { "per_hub": 2, "total": 2 }, "long_polling_idle": "1m" });
    let mut gateways = Gateways::start(&program, 3, &Plan::by_user(&limits));
    let id = gateways.user(0, "ann").negotiate().unwrap();
    drop(gateways.user(0, "ann").session(&id).unwrap());
    (1..3).for_each(|at| gateways.user(at, "ann").resume(&id).echo());
    let mut bob = connect(&gateways.user(1, "bob"));
    assert!(gateways.all_are_full("carol"), "a session and a WebSocket");

    gateways.assert_sound("before a death");
    gateways.envoys.remove(0).kill();
    let left = gateways.envoys.len() * INSTANCES as usize;
    // A look at the limits is what takes dead rows off.
    let refuses = || gateways.all_are_full("carol");
    wait_for("the dead rows' end", || refuses() && gateways.rows().len() == left).unwrap();
    assert!(refuses() && bob.echoes(), "another gateway counts the session");
    gateways.user(1, "ann").resume(&id).close();
    drop(bob);
    // The gateway that was polled before keeps the session's place for its next poll.
    gateways.settle("bob has left", 1);
    let carol = connect(&gateways.user(0, "carol"));
    assert!(gateways.all_are_full("dave"), "a session and carol");
    drop(carol);
    gateways.assert_sound("polls");
}

#[test]
fn a_session_that_comes_back_from_another_gateway_keeps_its_place() {
    let Some(program) = redis("a_session_that_comes_back_from_another_gateway_keeps_its_place") else { return };
    let limits = json!({ "connections": { "per_client": 1 }, "long_polling_idle": "1s" });
    let gateways = Gateways::start(&program, 2, &Plan::by_user(&limits));
    let id = gateways.user(0, "ann").negotiate().unwrap();
    let session = gateways.user(0, "ann").session(&id).unwrap();
    gateways.user(1, "ann").resume(&id).echo();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| session.poll().status());
        let labels = [("signalr_transport", "long_polling")];
        let active = || gateways.envoys[0].metric("signalr_gateway_connections_active", &labels).unwrap();
        wait_for("the poll", || active() == 1.0).unwrap();
        // Longer than the second gateway waits for another poll.
        (0..2).for_each(|_| gateways.hear_of_all());
        let (held, is_full) = (gateways.in_rows(), gateways.all_are_full("ann"));
        session.call("Echo", &["hello"]);
        assert_eq!(waiting.join().unwrap(), 200, "the session lives");
        assert!(held == 1 && is_full, "{held} in the rows; full: {is_full}");
    });
    session.close();
    gateways.settle("closed", 0);
}

#[test]
fn a_second_request_that_the_hub_refuses_leaves_the_first_its_place() {
    let Some(program) = redis("a_second_request_that_the_hub_refuses_leaves_the_first_its_place") else { return };
    let gateways = Gateways::start(&program, 2, &Plan::by_user(&json!({ "connections": { "per_client": 1 } })));
    let id = gateways.user(0, "ann").negotiate().unwrap();
    let mut open = gateways.user(0, "ann").socket(&id).unwrap();
    let second = gateways.user(1, "ann").bare_socket(Some(&id)).err().unwrap();
    assert_eq!(second.status(), 409, "{second:?}");
    gateways.hear_of_all();
    assert!(open.echoes());
    let (held, is_full) = (gateways.in_rows(), gateways.all_are_full("ann"));
    assert!(held == 1 && is_full, "{held} in the rows; full: {is_full}");
    drop(open);
    gateways.settle("closed", 0);
}

#[test]
fn a_websocket_that_comes_back_through_another_gateway_takes_no_place_more() {
    let Some(program) = redis("a_websocket_that_comes_back_through_another_gateway_takes_no_place_more") else {
        return;
    };
    let gateways = Gateways::start(&program, 3, &one_each());
    let id = gateways.user(0, "ann").query("useStatefulReconnect=true").negotiate().unwrap();
    let mut open = gateways.user(0, "ann").bare_socket(Some(&id)).unwrap();
    for at in [1, 0, 2, 1, 0] {
        open.cut();
        gateways.settle("cut", 0);
        open = come_back(&gateways.user(at, "ann"), &id);
        gateways.settle(&format!("back through gateway {at}"), 1);
        assert!(has_all(&gateways), "back through gateway {at}");
    }
    drop(open);
    gateways.settle("ended", 0);
    // It has taken one token of two.
    let another = gateways.user(2, "ann").bare_socket(None).unwrap();
    gateways.settle("another", 1);
    drop(another);
    gateways.settle("all closed", 0);
    let spent = gateways.user(1, "ann").bare_socket(None).err().unwrap();
    assert!(spent.is_refusal(), "{spent:?}");
    gateways.assert_sound("resumes");
}

#[test]
fn a_websocket_that_comes_back_before_its_end_is_noticed_is_one_connection() {
    let Some(program) = redis("a_websocket_that_comes_back_before_its_end_is_noticed_is_one_connection") else {
        return;
    };
    let plan = Plan::by_user(&json!({ "connections": { "per_client": 1 } }));
    let gateways = Gateways::start(&program, 3, &plan);
    let id = gateways.user(0, "ann").query("useStatefulReconnect=true").negotiate().unwrap();
    let mut open = gateways.user(0, "ann").bare_socket(Some(&id)).unwrap();
    for at in [1, 2, 0, 1] {
        // The old one is still open for its gateway when the new one asks.
        let next = come_back(&gateways.user(at, "ann"), &id);
        std::mem::replace(&mut open, next).cut();
        gateways.settle(&format!("back through gateway {at}"), 1);
        assert!(gateways.all_are_full("ann"), "back through gateway {at}");
    }
    drop(open);
    gateways.settle("ended", 0);
    gateways.assert_sound("resumes");
}

/// The hub takes its old connection back as soon as it has let go of the WebSocket.
fn come_back(client: &Client, id: &str) -> Socket {
    let mut back = None;
    wait_for("the hub to take it back", || {
        back = client.bare_socket(Some(id)).ok();
        back.is_some()
    })
    .unwrap();
    back.unwrap()
}

#[test]
fn who_is_refused_leaves_nothing_behind() {
    let Some(program) = redis("who_is_refused_leaves_nothing_behind") else { return };
    let gateways = Gateways::start(&program, 2, &Plan::by_user(&json!({ "connections": { "per_client": 1 } })));
    let ann = |at| gateways.user(at, "ann");
    let ids: Vec<_> = (0..4).map(|at| ann(at).negotiate().unwrap()).collect();
    let open = ann(0).socket(&ids[0]).unwrap();
    gateways.settle("one", 1);
    wait_for("a row for each", || gateways.rows().len() == 2 * INSTANCES as usize).unwrap();
    let stored = stored(&gateways);
    for at in 0..2 {
        let refusals = [
            ann(at).bare_socket(Some(&ids[1])).err().unwrap(),
            ann(at).events(&ids[2]).err().unwrap(),
            ann(at).poll(&ids[3]),
            ann(at).bare_socket(None).err().unwrap(),
        ];
        assert!(refusals.iter().all(|answer| answer.status() == 429), "{refusals:?}");
    }
    gateways.hear_of_all();
    assert_eq!(self::stored(&gateways), stored);
    drop(open);
    gateways.settle("closed", 0);
    // The others are as good as ever.
    drop(ann(1).socket(&ids[1]).unwrap());
    gateways.settle("all closed", 0);
    gateways.assert_sound("refusals");
}

/// All rows, and the ids that Redis remembers.
fn stored(gateways: &Gateways) -> Value {
    let fields = |row: &String| {
        let mut fields: Vec<(Vec<u8>, Vec<u8>)> = gateways.redis.ask(&["HGETALL", &row_key(row)]).unwrap();
        fields.sort();
        (row.clone(), fields)
    };
    let mut rows: Vec<_> = gateways.rows().iter().map(fields).collect();
    rows.sort();
    let remembered: Vec<String> = gateways.redis.ask(&["KEYS", "envoy-signalr:{test}:gone:*"]).unwrap();
    json!([rows, remembered])
}

#[test]
fn who_leaves_while_the_request_waits_leaves_nothing_behind() {
    let Some(program) = redis("who_leaves_while_the_request_waits_leaves_nothing_behind") else { return };
    let gateways = Gateways::start(&program, 2, &Plan::by_user(&json!({ "connections": { "per_client": 1 } })));
    let ids: Vec<_> = (0..6).map(|at| gateways.user(at, "ann").negotiate().unwrap()).collect();
    gateways.redis.freeze().unwrap();
    for (at, id) in ids.iter().enumerate() {
        let target = format!("/chat?id={id}");
        let request = match at / 2 {
            0 => Request::websocket(&target),
            1 => Request::get(&target).with("accept", "text/event-stream"),
            _ => Request::get(&target),
        };
        let asked = || gateways.envoys[at % 2].counter("http.signalr.downstream_rq_total").unwrap();
        let open = || gateways.envoys[at % 2].counter("http.signalr.downstream_cx_active").unwrap();
        let before = asked();
        wait_for("the last one's end", || open() == 0).unwrap();
        let mut wire = Wire::open(&gateways.envoys[at % 2].url());
        wire.send(&request.with("x-user", "ann").bytes());
        wait_for("the request", || asked() > before).unwrap();
        wire.tcp().shutdown(Shutdown::Both).unwrap();
        drop(wire);
        wait_for("its end", || open() == 0).unwrap();
    }
    gateways.redis.thaw().unwrap();
    gateways.all_know("Redis goes on", false);
    gateways.hear_of_all();
    gateways.settle("nobody is there", 0);
    for at in 0..2 {
        let open = connect(&gateways.user(at, "ann"));
        gateways.settle("somebody", 1);
        assert!(gateways.all_are_full("ann"), "through gateway {at}");
        drop(open);
        gateways.settle("nobody", 0);
    }
    gateways.assert_sound("early ends");
}

#[test]
fn many_requests_with_one_id_get_past_no_limit() {
    const ATTEMPTS: usize = 120;
    let Some(program) = redis("many_requests_with_one_id_get_past_no_limit") else { return };
    for limits in [json!({ "per_client": 1 }), json!({ "total": 1 }), json!({ "per_hub": 1 })] {
        let gateways = Gateways::start(&program, 2, &Plan::by_user(&json!({ "connections": limits })));
        let ann = |at| gateways.user(at, "ann");
        let id = ann(0).negotiate().unwrap();
        let mut open = connect(&ann(0));
        let admitted = rush(ATTEMPTS, |attempt| try_one(attempt, &ann(attempt / 4), &id));
        assert!(admitted.is_empty(), "{limits}: {admitted:?}");
        assert!(open.echoes() && gateways.all_are_full("ann"), "{limits}");
        gateways.settle(&limits.to_string(), 1);
        drop(open);
        gateways.settle(&format!("{limits}: all closed"), 0);
        gateways.assert_sound(&limits.to_string());
    }
}

/// What a request got that was not refused, by each transport in turn. Every fourth leaves at once.
fn try_one(attempt: usize, client: &Client, id: &str) -> Option<String> {
    let answer = match attempt % 4 {
        0 => match client.bare_socket(Some(id)) {
            Ok(socket) => socket.answer.clone(),
            Err(answer) => answer,
        },
        1 => client.poll(id),
        2 => match client.events(id) {
            Ok(_) => return Some("events".to_owned()),
            Err(answer) => answer,
        },
        _ => {
            client.leave_early(id);
            return None;
        }
    };
    (answer.status() != 429).then(|| format!("{attempt}: {answer:?}"))
}
