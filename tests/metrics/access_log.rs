//! The access log of `envoy/envoy.yaml`: one line for each exchange, which says what the filter knows of it, and no id.

use envoy_signalr::token::fingerprint_of_id;
use serde_json::json;
use testbed::envoy::Envoy;
use testbed::http;
use testbed::hub::shared_hubs;
use testbed::process::wait_for;
use testbed::raw::{self, Request, Wire};
use testbed::tools::EnvoyVersion;

use crate::client::{Client, Ended, negotiate, upgrade};
use crate::scrape::start_version;

const HANDSHAKE: &str = "{\"protocol\":\"json\",\"version\":1}\u{1e}";
const AGREED: &str = "{}\u{1e}";
const NEGOTIATE: &str =
    "POST /chat/negotiate status=200 step=negotiate affinity=balanced limit=- closed_by=- messages=-/-";

/// What an operator is to find: words that stand in one line.
struct Expected(Vec<String>);

fn line(words: &str) -> Expected {
    let words: Vec<_> = words.split(' ').collect();
    let transport = words.iter().find_map(|word| match *word {
        "step=websocket" => Some("transport=web_sockets"),
        "step=server_sent_events" => Some("transport=server_sent_events"),
        "step=poll" => Some("transport=long_polling"),
        _ => None,
    });
    let everywhere = ["hub=/chat", transport.unwrap_or("transport=-")];
    Expected(words.into_iter().chain(everywhere).map(str::to_owned).collect())
}

/// A connection with a token of its own.
struct Connection {
    token: String,
}

impl Connection {
    fn new(envoy: &Envoy) -> Self {
        Self { token: negotiate(&envoy.url()) }
    }

    fn target(&self) -> String {
        format!("/chat?id={}", self.token)
    }

    /// The id as the hub knows it, and the route behind it.
    fn secrets(&self) -> [&str; 2] {
        self.token.split_once('.').unwrap().into()
    }

    fn fingerprint(&self) -> String {
        fingerprint_of_id(self.secrets()[0].as_bytes())
    }

    /// A line of this connection, steered by its token.
    fn line(&self, words: &str) -> Expected {
        line(&format!("{words} connection={} affinity=connection_token:routed limit=-", self.fingerprint()))
    }

    fn websocket(&self, ended: &Ended, words: &str) -> Expected {
        let Ended { said, heard, .. } = ended;
        self.line(&format!(
            "GET /chat status=101 step=websocket messages={}/{} bytes={}/{} {words}",
            said.messages, heard.messages, said.bytes, heard.bytes
        ))
    }

    /// Asks once, and returns the line of it.
    fn asks(&self, envoy: &Envoy, method: &str, step: &str, body: &str, answer: (u16, &str)) -> Expected {
        let target = self.target();
        let got = raw::ask(&envoy.url(), &Request { body: body.as_bytes(), ..Request::new(method, &target) });
        let (status, text) = (got.status(), got.text());
        assert_eq!((status, text), answer, "{method} {step}");
        let (received, sent) = (body.len(), text.len());
        self.line(&format!("{method} /chat status={status} step={step} received={received} sent={sent} closed_by=- code=- messages=-/- bytes=-/-"))
    }

    /// Opens a stream of events, which ends with the value.
    fn events(&self, envoy: &Envoy) -> Wire {
        let mut wire = Wire::open(&envoy.url());
        wire.ask(&Request::get(&self.target()).with("accept", "text/event-stream"));
        assert_eq!(wire.read_chunk().unwrap(), b":\r\n");
        wire
    }
}

/// Known connections by each transport, and the lines that they leave.
fn live(envoy: &Envoy) -> (Vec<Connection>, Vec<Expected>) {
    let mut lines = Vec::new();
    let [polling, streaming, closed, aborted] = [(); 4].map(|()| {
        let connection = Connection::new(envoy);
        lines.push(line(&format!("{NEGOTIATE} connection={}", connection.fingerprint())));
        connection
    });

    lines.push(polling.asks(envoy, "GET", "poll", "", (200, "")));
    lines.push(polling.asks(envoy, "POST", "send", HANDSHAKE, (200, "")));
    lines.push(polling.asks(envoy, "GET", "poll", "", (200, AGREED)));
    lines.push(polling.asks(envoy, "DELETE", "delete", "", (202, "")));

    // An id whose route was made up.
    assert_eq!(http::get(&format!("{}/chat?id=made-up.AAAA", envoy.url())).unwrap().0, 404);
    lines.push(line("GET /chat status=404 step=poll affinity=connection_token:forged limit=- closed_by=-"));

    let stream = streaming.events(envoy);
    lines.push(streaming.asks(envoy, "POST", "send", HANDSHAKE, (200, "")));
    lines.push(streaming.line("GET /chat status=200 step=server_sent_events closed_by=- messages=-/-"));

    let chat = raw::Client::of(&envoy.url());
    let mut client = Client::with_token(&chat, &closed.token);
    client.echo("known words");
    let other = Client::with_token(&chat, &aborted.token);
    let skipping = upgrade(&envoy.url(), "/chat").unwrap();
    lines.push(line("GET /chat status=101 step=websocket connection=- affinity=balanced closed_by=client code=none"));
    assert_eq!(upgrade(&envoy.url(), "/chat").err(), Some(Some(429)));
    lines.push(line("GET /chat status=429 step=websocket connection=- affinity=- limit=per_client closed_by=- code=-"));
    drop((stream, skipping));

    lines.push(closed.websocket(&client.close(Some(1001)), "closed_by=client code=1001"));
    lines.push(aborted.websocket(&other.aborted(), "closed_by=server code=1000"));
    (vec![polling, streaming, closed, aborted], lines)
}

fn lines(envoy: &Envoy) -> Vec<String> {
    envoy.log().lines().filter(|line| line.contains(" step=")).map(str::to_owned).collect()
}

#[test]
fn each_exchange_has_one_line_with_what_is_known_of_it_and_no_secret() {
    let hubs = &shared_hubs().unwrap()[..1];
    for version in EnvoyVersion::ALL {
        let envoy = start_version(version, hubs, 4, json!({"limits": {"connections": {"per_client": 4}}}), |_| {});
        let (connections, expected) = live(&envoy);
        let _ = wait_for("all lines", || lines(&envoy).len() == expected.len());
        let mut left = lines(&envoy);
        for Expected(words) in expected {
            let stands_in = |line: &String| {
                let line: Vec<_> = line.split(' ').collect();
                words.iter().all(|word| line.contains(&word.as_str()))
            };
            let Some(found) = left.iter().position(stands_in) else {
                panic!("{version:?}: no line with {words:?} in {left:#?}");
            };
            left.remove(found);
        }
        assert!(left.is_empty(), "{version:?}: more lines: {left:#?}");
        let log = envoy.log();
        let found = connections.iter().flat_map(Connection::secrets).find(|secret| log.contains(secret));
        assert_eq!((found, log.contains("id=")), (None, false), "{version:?}: a secret in the log");
    }
}
