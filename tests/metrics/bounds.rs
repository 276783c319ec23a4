//! What a stranger can make up must not become series.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;

use serde_json::{Value, json};
use testbed::hub::{Hub, HubOptions};
use testbed::process::wait_until;

use crate::client::{Client, upgrade};
use crate::scrape::{put_routes_first, series, start};

const MADE_UP: usize = 10_000;
/// As many hubs are told apart as `docs/configuration.md` says.
const MOST_HUBS: usize = 64;

/// A server that answers a negotiate at any path below `/learned`.
fn eager_server(bootstrap: &mut Value) {
    let answer = r#"{"connectionId":"abc","connectionToken":"def","negotiateVersion":1,"availableTransports":[]}"#;
    let json = json!([{ "header": { "key": "content-type", "value": "application/json" }, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" }]);
    let route = json!({
        "match": { "prefix": "/learned" },
        "direct_response": { "status": 200, "body": { "inline_string": answer } },
        "response_headers_to_add": json,
    });
    put_routes_first(bootstrap, vec![route]);
}

/// Negotiates at many paths and hosts over one connection.
fn negotiate_everywhere(address: &str, numbers: impl Iterator<Item = usize>) {
    let stream = TcpStream::connect(address).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    for number in numbers {
        let path = if number % 40 == 0 { "learned/" } else { "" };
        let request = format!(
            "POST /{path}hub-{number}/negotiate HTTP/1.1\r\nhost: host-{number}.example\r\ncontent-length: 0\r\n\r\n"
        );
        (&stream).write_all(request.as_bytes()).unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            assert!(answers.read_line(&mut line).unwrap() > 0, "the connection was closed");
            match line.trim_end().split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(_) => {}
                None if line == "\r\n" => break,
                None => {}
            }
        }
        answers.by_ref().take(length).read_to_end(&mut Vec::new()).unwrap();
    }
}

#[test]
fn ten_thousand_made_up_hubs_and_hosts_make_few_series() {
    let hubs = [Hub::start(&HubOptions::default()).unwrap()];
    let envoy = start(&hubs, 4, json!({}), eager_server);
    Client::connect(&envoy, "/chat", &[]).close(Some(1000));
    let address = envoy.url().trim_start_matches("http://").to_owned();
    thread::scope(|scope| {
        for first in 0..8 {
            let address = &address;
            scope.spawn(move || negotiate_everywhere(address, (first..MADE_UP).step_by(8)));
        }
    });
    for number in 0..100 {
        assert_eq!(upgrade(&envoy.url(), &format!("/made-up-{number}?id=x{number}.y"), &[]).err(), Some(Some(404)));
    }
    let answered = || {
        let all = series(&envoy);
        all.iter().filter(|(name, _)| name.contains("_negotiations_total")).map(|(_, count)| *count).sum::<u64>()
    };
    wait_until(std::time::Duration::from_secs(4), "all negotiates to be counted", || answered() == MADE_UP as u64 + 1)
        .unwrap();
    let all = series(&envoy);
    let hub = |name: &String| Some(name.split_once("hub=")?.1.split([',', '}']).next()?.to_owned());
    let labels: BTreeSet<_> = all.keys().filter_map(hub).collect();
    // Those that answered a negotiate, among them the real one, and the rest.
    assert_eq!(labels.len(), MOST_HUBS + 1, "{labels:?}");
    assert!(labels.contains("/chat") && labels.contains("other"), "{labels:?}");
    assert!(all.len() < 2 * (MOST_HUBS + 1) + 40, "{} series", all.len());
    let text = envoy.prometheus().unwrap();
    assert!(!text.contains("host-1") && !text.contains("made-up"), "a made-up name became a series");
    // Labels that are not taken out stay in the name, their punctuation as underscores.
    let label_in_name = text.lines().find(|line| line.contains("signalr_hub_") || line.contains("=.="));
    assert_eq!(label_in_name, None);
}
