//! Compressed WebSockets (RFC 7692) between clients that offer them and real hubs: they pass, and are counted.

use serde_json::json;
use testbed::clients::{BrowserClient, DotnetClient, Outcome, run_browser, run_dotnet};
use testbed::envoy::{Envoy, Filter};
use testbed::hub::{Hub, three_hubs_with};
use testbed::process::wait_for;

use crate::kit::{CONNECTS, all_connected, has_dotnet_10, talkative};

type Run = fn(&Envoy) -> Outcome;

const DOTNET: Run = |envoy| {
    run_dotnet(&DotnetClient { common: talkative(envoy), compression: true, ..DotnetClient::default() }).unwrap()
};

const CHROMIUM: Run = |envoy| {
    let page = format!("{}/healthz", envoy.url());
    run_browser(&BrowserClient::of(page, envoy.url(), CONNECTS)).unwrap()
};

const WITHOUT_AN_OFFER: Run =
    |envoy| run_dotnet(&DotnetClient { common: talkative(envoy), ..DotnetClient::default() }).unwrap();

fn hubs_that_compress() -> Vec<Hub> {
    let compress = ("COMPRESS_WEBSOCKETS".to_owned(), "1".into());
    three_hubs_with(|hubs| hubs.iter_mut().for_each(|hub| hub.environment.push(compress.clone()))).unwrap()
}

/// Messages of this direction: all of the WebSockets; of SignalR; and of these the compressed ones.
fn counts(envoy: &Envoy, direction: &str) -> [f64; 3] {
    let direction = ("signalr_direction", direction);
    let of_signalr = |labels: &[(&str, &str)]| envoy.metric("signalr_gateway_messages_total", labels).unwrap();
    [
        envoy.metric("websocket_messages_total", &[direction]).unwrap(),
        of_signalr(&[direction]),
        of_signalr(&[direction, ("signalr_type", "compressed")]),
    ]
}

#[test]
fn compressed_websockets_pass_and_are_counted() {
    if !has_dotnet_10("compressed_websockets_pass_and_are_counted") {
        return;
    }
    let hubs = hubs_that_compress();
    for (name, run, compressed) in
        [(".NET", DOTNET, true), ("Chromium", CHROMIUM, true), ("without an offer", WITHOUT_AN_OFFER, false)]
    {
        for detail in ["frames", "messages"] {
            let name = format!("{name}, {detail}");
            let envoy = Envoy::before(&hubs, Filter::With(json!({ "metrics": { "detail": detail } }))).unwrap();
            let outcome = run(&envoy);
            all_connected(&name, &outcome);
            // A handshake, who it is, and an echo; the hub answers each.
            let least = f64::from(3 * outcome.tried);
            let counted = |direction| {
                let [all, of_signalr, found] = counts(&envoy, direction);
                let expected = match (detail, compressed) {
                    ("frames", _) => of_signalr == 0.0,
                    (_, true) => of_signalr == all && found == all,
                    (_, false) => of_signalr > 0.0 && found == 0.0,
                };
                all >= least && expected
            };
            wait_for(&format!("{name}: all messages"), || counted("received") && counted("sent")).unwrap();
        }
    }
}
