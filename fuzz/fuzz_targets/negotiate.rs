//! An answer to a negotiate that gets a route stays the same JSON but for the id, and one that loses transports but for these.
#![no_main]

use envoy_signalr::signalr::{Answer, Transport, offer_only};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|body: &[u8]| {
    loses_only_transports(body);
    let Answer::Id(issued) = Answer::read(body) else { return };
    let id = String::from_utf8(issued.id.clone()).expect("an id is plain text");
    let spliced = issued.splice(body, "SEALED").expect("the place of the id is in the body");
    assert_eq!(spliced.len(), body.len() + ".SEALED".len());

    // Depth and floats that only a parser into a tree minds.
    let Ok(mut expected) = serde_json::from_slice::<Value>(body) else { return };
    let carrier = if expected["connectionToken"].is_null() { "connectionId" } else { "connectionToken" };
    assert_eq!(expected[carrier], Value::from(id.as_str()));
    expected[carrier] = format!("{id}.SEALED").into();
    assert_eq!(serde_json::from_slice::<Value>(&spliced).expect("still JSON"), expected);
});

fn loses_only_transports(body: &[u8]) {
    let offered = [Transport::WebSockets, Transport::LongPolling];
    let Some(fewer) = offer_only(body, &offered) else { return };
    assert_eq!(offer_only(&fewer, &offered), None, "once is enough");
    assert_eq!(std::mem::discriminant(&Answer::read(&fewer)), std::mem::discriminant(&Answer::read(body)));

    let Ok(mut expected) = serde_json::from_slice::<Value>(body) else { return };
    let left: Value = serde_json::from_slice(&fewer).expect("still JSON");
    let all = expected["availableTransports"].take();
    let kept = left["availableTransports"].as_array().expect("still a list").clone();
    let mut all = all.as_array().expect("a list").iter();
    for offer in &kept {
        assert!(offer["transport"] == "WebSockets" || offer["transport"] == "LongPolling", "{offer}");
        assert!(all.any(|other| other == offer), "another order, or another transport: {offer}");
    }
    expected["availableTransports"] = kept.into();
    assert_eq!(left, expected);
}
