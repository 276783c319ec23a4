//! An answer to a negotiate that gets a route stays the same JSON but for the id.
#![no_main]

use envoy_signalr::signalr::Answer;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|body: &[u8]| {
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
